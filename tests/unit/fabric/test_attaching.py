"""What is attached and detached by hand is an edit of the text in force, as small as it can be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vnet.base.errors import InputError
from vnet.fabric.attaching import attached, detached, difference
from vnet.fabric.declared import load
from vnet.fabric.store import Source

HEAD = """\
name: small
defaults: {image: micro, cpus: 1, memory: 96M}
networks:
  lan: {vlan: 10, subnets: 10.0.0.0/24}
  back: {vlan: 20, subnets: 10.0.20.0/24}
templates: {plain: {networks: [lan]}}
vms:
"""
FLOW = "  web: {networks: [lan], groups: [web]}  # the front\n"
BLOCK = """\
  web:
    groups: [web]
    networks:
      - lan  # here
    disks:
      - {name: data, size: 1G}
"""
NAMED = '  web: {interfaces: {eth0: {network: lan, mac: "52:54:00:00:00:09"}}}\n'
NAMED_BLOCK = "  web:\n    interfaces:\n      eth0: {network: lan}\n      eth1:\n        network: back\n"
OTHER = "  db: {networks: [lan, back], replicas: 2}\n"


def source(vm: str) -> Source:
    return Source("small.vnet.yaml", HEAD + vm + OTHER)


def edited(before: Source, after: Source) -> list[str]:
    return [line for line in difference(before, after).splitlines()[2:] if line[0] in "+-"]


@pytest.mark.parametrize(
    ("vm", "lines"),
    [
        (FLOW, ["-" + FLOW[:-1], "+  web: {networks: [lan, back], groups: [web]}  # the front"]),
        (BLOCK, ["+      - back"]),
        (
            NAMED,
            [
                "-" + NAMED[:-1],
                "+" + NAMED[:-3] + ", eth1: {network: back}}}",
            ],
        ),
    ],
)
def test_a_nic_is_put_where_the_others_stand(vm, lines):
    before = source(vm)
    after = attached(before, "web", "back")
    assert edited(before, after) == lines
    assert edited(before, detached(after, "web", "back")) == []


@pytest.mark.parametrize("vm", [FLOW, BLOCK, NAMED, NAMED_BLOCK])
def test_a_disk_comes_and_goes_and_the_rest_of_the_file_stays(vm):
    before = source(vm)
    after = attached(before, "web", "logs:2G")
    assert [(disk.name, disk.size_bytes) for disk in load(after).vms["web"].disks][-1] == ("logs", 2 << 30)
    elsewhere = load(attached(before, "web", "logs:2G:fast")).vms["web"].disks[-1]
    assert (elsewhere.size_bytes, elsewhere.location) == (2 << 30, "fast")
    gone = load(detached(after, "web", "logs")).vms["web"]
    assert [disk.name for disk in gone.disks] == [disk.name for disk in load(before).vms["web"].disks]


@pytest.mark.parametrize("vm", [FLOW, BLOCK, NAMED, NAMED_BLOCK])
def test_a_byte_order_mark_in_front_shifts_nothing(vm):
    plain = source(vm)
    marked = Source(plain.file, "\ufeff" + plain.text)
    assert attached(marked, "web", "back").text == "\ufeff" + attached(plain, "web", "back").text


def test_a_nic_is_detached_by_its_name_or_its_network():
    before = source(NAMED_BLOCK)
    by_name, by_network = (detached(before, "web", what) for what in ("eth1", "back"))
    assert by_name == by_network
    assert edited(before, by_name) == ["-      eth1:", "-        network: back"]


@pytest.mark.parametrize(
    ("vm", "name", "what", "told"),
    [
        (FLOW, "web", "wan", "there is no network wan; networks: lan, back"),
        (FLOW, "app", "lan", "there is no VM app; VMs: web, db"),
        (FLOW, "db-1", "lan", "one of the replicas of db"),
        ("  web: {template: plain}\n", "web", "back", "from a template or from defaults"),
        ("  web: &w {networks: [lan]}\n  app: *w\n", "app", "back", "shared"),
        (FLOW, "web", "data:much", "found"),
        (BLOCK, "web", "data:1G", "data"),
    ],
)
def test_what_cannot_be_attached_is_refused_with_a_reason(vm, name, what, told):
    with pytest.raises(InputError) as refused:
        attached(source(vm), name, what)
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("vm", "name", "what", "told"),
    [
        (FLOW, "web", "eth7", "web has no eth7: eth0 (lan)"),
        (NAMED_BLOCK.replace("back", "lan"), "web", "lan", "more than one lan"),
        (FLOW.replace("[lan]", "[lan, back]"), "web", "lan", "would get other names"),
        (BLOCK, "web", "lan", "the last one"),
    ],
)
def test_what_cannot_be_detached_is_refused_with_a_reason(vm, name, what, told):
    with pytest.raises(InputError) as refused:
        detached(source(vm), name, what)
    assert told in str(refused.value)


def test_the_file_that_declares_the_vm_is_the_one_that_is_edited():
    main = Source(
        "small.vnet.yaml",
        "include: [vms.yaml]\n" + HEAD.replace("vms:\n", ""),
        {},
        {"vms.yaml": "vms:\n" + FLOW},
    )
    after = attached(main, "web", "back")
    assert after.text == main.text
    assert "[lan, back]" in after.included["vms.yaml"]


@given(st.sampled_from([NAMED, NAMED_BLOCK]), st.lists(st.sampled_from(["back", "lan"]), max_size=4))
def test_any_number_of_nics_can_be_attached_and_each_is_where_it_should_be(vm, networks):
    text = source(vm)
    before = [nic.network for nic in load(text).vms["web"].interfaces]
    for network in networks:
        text = attached(text, "web", network)
    assert [nic.network for nic in load(text).vms["web"].interfaces] == before + networks
