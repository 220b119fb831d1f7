"""Traces and the log say who is outside: by the words of the language, whichever way packets go."""

from __future__ import annotations

import pytest
from scapy.layers.l2 import Ether

from vnet.base.errors import InputError
from vnet.fabric.asked import Asked
from vnet.fabric.known import Known
from vnet.fabric.logged import Names, Sighting
from vnet.fabric.question import Asking, Question
from vnet.policy.outside import of_fabric
from vnet.topology.inventory import expand
from vnet.topology.load import load_text
from vnet.topology.routing import gateway_mac

TEXT = """\
name: test
networks:
  front: {vlan: 10, subnets: [10.10.10.0/24, "fd00:10::/64"]}
  lan: {vlan: 20, subnets: 10.10.20.0/24, uplink: wire}
  alone: {vlan: 30, subnets: 10.10.30.0/24}
routers: {gw: {networks: [front], uplink: host}}
uplinks: {wire: {interface: eth1, mode: trunk}}
vms:
  web: {networks: [front]}
  pc: {networks: [lan]}
  db: {networks: [alone]}
"""
TOPOLOGY = load_text(TEXT, "test.vnet.yaml", {})
INVENTORY = expand(TOPOLOGY, {})
NICS = {nic.vm: nic for nic in INVENTORY.nics}
KNOWN = Known(TOPOLOGY, INVENTORY, {}, 1)


def question(source: str, target: str, service: str = "443/tcp") -> Question:
    return Asking(TOPOLOGY, INVENTORY).question(Asked(source, target, service))


def mac(number: int) -> str:
    return number.to_bytes(6, "big").hex(":")


@pytest.mark.parametrize("target", ["203.0.113.7", "internet", "host"])
def test_a_vm_asks_for_the_outside_by_its_gateway(target: str) -> None:
    asked = question("web", target)
    assert Ether(asked.frame).dst == mac(gateway_mac("test"))
    receiver = KNOWN.addressee(asked.nic, asked.frame)
    assert receiver and KNOWN.name(receiver.port) == "exit:gw"


@pytest.mark.parametrize("source", ["203.0.113.7", "2001:db8::1", "internet", "host"])
def test_who_is_outside_sends_by_the_exit(source: str) -> None:
    asked = question(source, "web")
    assert asked.nic.port == INVENTORY.exits[0].port
    assert (Ether(asked.frame).src, Ether(asked.frame).dst) == (
        mac(INVENTORY.exits[0].mac),
        mac(gateway_mac("test")),
    )
    assert KNOWN.addressee(asked.nic, asked.frame) == NICS["web"]


def test_who_is_on_a_trunk_sends_with_the_tag_of_the_network() -> None:
    asked = question("10.10.20.77", "pc")
    assert (Ether(asked.frame).vlan, Ether(asked.frame).dst) == (20, mac(NICS["pc"].mac))
    assert question("pc", "203.0.113.7").nic == NICS["pc"]
    back = question("pc", "10.10.20.77")
    receiver = KNOWN.addressee(back.nic, back.frame)
    assert receiver and receiver.port == INVENTORY.uplinks[0].port


def test_what_has_no_way_out_says_so() -> None:
    with pytest.raises(InputError, match="in no network of db"):
        question("db", "203.0.113.7")
    inside = load_text(
        TEXT.replace(", uplink: host", "")
        .replace(", uplink: wire", "")
        .replace("uplinks: {wire: {interface: eth1, mode: trunk}}\n", ""),
        "test.vnet.yaml",
        {},
    )
    with pytest.raises(InputError, match="nobody is internet: no router has an uplink"):
        Asking(inside, expand(inside, {})).question(Asked("web", "internet", "443/tcp"))


def test_the_log_names_who_is_outside() -> None:
    vms = {nic.port: (nic.vm, nic.network) for nic in INVENTORY.nics}
    addresses = {(nic.network, each.ip): nic.vm for nic in INVENTORY.nics for each in nic.addresses}
    names = Names({}, vms, addresses, of_fabric(TOPOLOGY, INVENTORY))
    for asked, ends in (
        (question("203.0.113.7", "web"), ("internet", "web")),
        (question("host", "web"), ("host", "web")),
        (question("web", "203.0.113.7"), ("web", "internet")),
    ):
        sighting = Sighting(0, asked.nic.port, 0, (1,), asked.frame, len(asked.frame))
        (record,) = names.records(sighting)
        assert (record.client.vm, record.server.vm) == ends
