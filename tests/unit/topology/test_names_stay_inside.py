"""Names become names of files: none of a topology leads out of vnet's folders."""

from __future__ import annotations

import pytest

from vnet.base.errors import InputError
from vnet.fabric.declared import load
from vnet.fabric.store import Source

TEXT = """\
name: "{name}"
networks: {{ "{network}": {{vlan: 10, subnets: 10.0.0.0/24}} }}
vms:
  "{vm}":
    networks: ["{network}"]
    image: micro
    disks: [{{name: "{disk}", size: 1M, location: "{location}"}}]
mirrors: {{ "{mirror}": {{source: "network:{network}", to: "pcap:all"}} }}
"""
GOOD = {"name": "shop", "network": "lan", "vm": "a", "disk": "data", "location": "fast", "mirror": "all"}
WAYS_OUT = ("../x", "/etc/x", "a/b", "..", ".", "a\\0b", "~x", "a b")


def topology(**names: str) -> Source:
    return Source("shop.vnet.yaml", TEXT.format(**{**GOOD, **names}))


def test_names_that_are_good_are_taken() -> None:
    assert load(topology()).name == "shop"


@pytest.mark.parametrize("key", ["name", "network", "vm", "disk", "location", "mirror"])
@pytest.mark.parametrize("way", WAYS_OUT)
def test_no_name_leads_out(key: str, way: str) -> None:
    with pytest.raises(InputError):
        load(topology(**{key: way}))
