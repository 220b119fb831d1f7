"""A VM declared like another one, in the text of a file."""

from __future__ import annotations

import pytest

from vnet.fabric.declared import load
from vnet.fabric.store import Source
from vnet.topology.edit import CannotEdit
from vnet.topology.edit_vms import with_vm

HEAD = """\
name: shop
defaults: {image: micro, cpus: 1, memory: 96M}
networks: {lan: {vlan: 10, subnets: 10.0.0.0/24}}
"""
BLOCK = (
    HEAD
    + """\
vms:
  # the one that matters
  db:
    interfaces:
      eth0: {network: lan, addresses: [10.0.0.9/24], mac: "52:54:00:12:34:56"}   # fixed
    memory: 128M
    replicas: 1
    labels: {mac: "yes", note: "a, b"}
    disks:
      - {name: data, size: 64M}   # precious
      - name: logs
        size: 32M
  web: {networks: [lan]}
# the end
"""
)


def vms(text: str):
    return load(Source("shop.vnet.yaml", text)).vms


def test_a_copy_has_all_but_what_is_its_own_and_nothing_else_is_touched() -> None:
    changed = with_vm(BLOCK, "db", "db-copy")
    before, after = vms(BLOCK), vms(changed)
    assert after.keys() == {"db", "db-copy", "web"}
    assert [disk.name for disk in after["db-copy"].disks] == ["data", "logs"]
    assert after["db-copy"].memory_bytes == 128 << 20
    assert after["db-copy"].labels == {"mac": "yes", "note": "a, b"}
    assert after["db-copy"].replicas is None
    assert after["db-copy"].interfaces[0].mac is None
    assert not after["db-copy"].interfaces[0].addresses
    assert before["db"].interfaces[0].mac == after["db"].interfaces[0].mac
    added = [line for line in changed.splitlines() if line not in BLOCK.splitlines()]
    assert len(added) == 1
    assert changed.replace(added[0] + "\n", "") == BLOCK


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "vms: {a: {networks: [lan]}}\n",
        HEAD + "vms:\n  a: {networks: [lan]}",
        HEAD + "vms:\n  a:\n    networks: [lan]\n\npolicies: []\n",
        "\ufeff" + HEAD + 'vms: {a: {networks: [lan], healthcheck: {test: "[ -e /tmp ], {x}"}}} # a\n',
    ],
)
def test_files_in_all_styles_get_it(text: str) -> None:
    changed = with_vm(text, "a", "b")
    assert vms(changed).keys() == {"a", "b"}
    assert vms(changed)["b"].interfaces[0].network == "lan"


def test_what_is_shared_is_not_copied() -> None:
    text = HEAD + "x-nets: &nets [lan]\nvms: {a: {networks: *nets}}\n"
    with pytest.raises(CannotEdit, match="anchors or aliases"):
        with_vm(text, "a", "b")
    with pytest.raises(CannotEdit, match="no VM c"):
        with_vm(BLOCK, "c", "d")
