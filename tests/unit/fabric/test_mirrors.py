"""Mirrors of a file: what they become in terms of ports, and what a plan says of them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.unit.fabric.fakes import World, make_engine
from vnet.base.errors import InputError
from vnet.capture.record import Point
from vnet.fabric.declared import declare
from vnet.fabric.mirror import Mirror, mirrors_of
from vnet.fabric.progress import silent
from vnet.fabric.state import desired, guest_of
from vnet.fabric.store import Source
from vnet.topology.inventory import expand
from vnet.topology.load import load_text
from vnet.topology.model import ToFile, ToVxlan

TEXT = """\
name: lab
networks:
  lan: {vlan: 10, subnets: 10.0.0.0/24}
  dmz: {vlan: 20, subnets: 10.1.0.0/24}
vms:
  web: {networks: [lan, dmz], replicas: 2}
  ids: {interfaces: {span0: {mirror_only: true}, eth0: {network: lan}}}
"""
MIRRORS = """\
mirrors:
  all: {source: "network:lan", to: "ids:span0"}
  handed: {source: "network:lan", direction: in, to: "pcap:x"}
  one: {source: "web-2:eth1", filter: "tcp port 80", to: "pcap:y", snaplen: 96}
  both: {source: "web:eth1", direction: out, to: "vxlan:[fd00::9]:4790/5"}
"""


def mirrors(text: str = TEXT + MIRRORS) -> dict[str, Mirror]:
    topology = load_text(text, "lab.vnet.yaml", {})
    inventory = expand(topology, {})
    return {mirror.name: mirror for mirror in mirrors_of(topology, inventory)}


def test_an_uplink_is_copied_as_frames_come_in_and_leave_by_it() -> None:
    uplink = "uplinks: {wire: {interface: eth1, networks: [lan]}}\nmirrors:\n"
    sides = {"both": "", "in": "direction: in, ", "out": "direction: out, "}
    lines = [
        f'  {name}: {{source: "uplink:wire", {side}to: "pcap:{name}"}}\n' for name, side in sides.items()
    ]
    text = TEXT + uplink + "".join(lines)
    found, inventory = mirrors(text), expand(load_text(text, "lab.vnet.yaml", {}), {})
    assert {each.ports for each in found.values()} == {(inventory.uplinks[0].port,)}
    points = {name: tuple(map(str, each.points)) for name, each in found.items()}
    assert points == {"both": ("uplink-in", "uplink-out"), "in": ("uplink-in",), "out": ("uplink-out",)}
    assert str(found["in"]) == "what comes in by uplink:wire to pcap:in"


@pytest.mark.parametrize(
    ("uplink", "said"),
    [
        ("{interface: eth1, networks: [dmz]}", 'there is no uplink "wire"'),
        ("{interface: eth1, addresses: [192.0.2.1/24]}", 'the uplink "other" is a router\'s'),
    ],
)
def test_what_is_no_port_of_the_switch_is_not_copied(uplink: str, said: str) -> None:
    name = "wire" if "wire" in said else "other"
    text = TEXT + f'uplinks: {{other: {uplink}}}\nmirrors: {{m: {{source: "uplink:{name}", to: "pcap:x"}}}}\n'
    with pytest.raises(InputError, match=said):
        load_text(text, "lab.vnet.yaml", {})


def test_a_source_becomes_ports_and_points() -> None:
    topology = load_text(TEXT + MIRRORS, "lab.vnet.yaml", {})
    ports = {nic.name: nic.port for nic in expand(topology, {}).nics}
    found = mirrors()
    assert found["all"].ports == tuple(sorted(ports[n] for n in ("web-1.eth0", "web-2.eth0", "ids.eth0")))
    assert found["all"].points == (Point.GUEST,), "what one of a network is handed another one sent"
    assert found["handed"].points == (Point.DELIVERED,)
    assert found["one"].ports == (ports["web-2.eth1"],)
    assert found["one"].points == (Point.GUEST, Point.DELIVERED)
    assert found["both"].ports == (ports["web-1.eth1"], ports["web-2.eth1"])
    assert found["both"].points == (Point.GUEST,)


def test_a_target_becomes_a_port_unless_it_is_a_file() -> None:
    inventory = expand(load_text(TEXT + MIRRORS, "lab.vnet.yaml", {}), {})
    (listener,) = inventory.listeners
    found = mirrors()
    assert found["all"].to_port == listener.port
    assert (found["one"].to, found["one"].to_port, found["one"].snaplen_bytes) == (ToFile("y"), 0, 96)
    assert found["both"].to == ToVxlan(ip_address("fd00::9"), 4790, 5)
    used = [*(nic.port for nic in inventory.nics), listener.port, found["both"].to_port]
    assert len(set(used)) == len(used)


def test_a_nic_that_listens_is_the_guests_last_and_in_no_network() -> None:
    inventory = expand(load_text(TEXT, "lab.vnet.yaml", {}), {})
    ids = next(vm for vm in inventory.vms if vm.name == "ids")
    assert [nic.interface for nic in guest_of(ids).nics] == ["eth0", "span0"]
    assert guest_of(ids).nics[1].addresses == ()
    assert "ids.span0" not in [nic.name for nic in inventory.nics]
    assert "ids.span0" in [each.port.ifname for each in desired(inventory, ()).attached]


def test_ports_of_mirrors_stay_as_those_of_nics_do() -> None:
    text = TEXT + MIRRORS
    first = expand(load_text(text, "lab.vnet.yaml", {}), {})
    again = expand(
        load_text(text.replace("  web:", "  aaa: {networks: [lan]}\n  web:"), "x", {}), first.assignments
    )
    for name, assignment in first.assignments.items():
        assert again.assignments[name].port == assignment.port, name


def test_mirrors_are_told_in_words() -> None:
    assert {name: str(mirror) for name, mirror in mirrors().items()} == {
        "all": "network:lan to ids:span0",
        "handed": "what reaches network:lan to pcap:x",
        "one": '"tcp port 80" web-2:eth1 to pcap:y',
        "both": "what leaves web:eth1 to vxlan:[fd00::9]:4790/5",
    }


def test_a_plan_shows_mirrors_that_come_change_and_go(tmp_path: Path) -> None:
    def changed(text: str) -> list[tuple[str, str]]:
        outcome = asyncio.run(engine.up(Source("lab.vnet.yaml", text), silent))
        return [(line.mark.value, line.name) for line in outcome.summary.lines if line.kind.value == "mirror"]

    engine = make_engine(World(), tmp_path)
    assert changed(TEXT) == []
    assert changed(TEXT + MIRRORS) == [("+", "all"), ("+", "both"), ("+", "handed"), ("+", "one")]
    other = MIRRORS.replace("tcp port 80", "udp").replace("  handed:", "  renamed:")
    assert changed(TEXT + other) == [("-", "handed"), ("~", "one"), ("+", "renamed")]
    assert changed(TEXT + other) == []


def test_a_filter_that_libpcap_refuses_is_a_fault_of_the_file(tmp_path: Path) -> None:
    engine, text = make_engine(World(), tmp_path), (TEXT + MIRRORS).replace("tcp port 80", "tcp prot")
    with pytest.raises(InputError, match=r"lab.vnet.yaml:11:3: mirrors.one.filter: .*syntax error"):
        asyncio.run(engine.plan(Source("lab.vnet.yaml", text)))


def test_the_declared_state_has_them() -> None:
    state = declare(Source("lab.vnet.yaml", TEXT + MIRRORS), {}, datetime.now(UTC)).state()
    assert {mirror.name for mirror in state.mirrors} == {"all", "handed", "one", "both"}
