"""Which packet is meant: what is filled in, what is assumed, and what is said when nothing can be meant."""

from __future__ import annotations

import pytest
from scapy.layers.l2 import Ether

from tests.generators import three_tier
from vnet.base.errors import InputError
from vnet.fabric.answering import answer
from vnet.fabric.asked import Asked
from vnet.fabric.question import NOBODYS_MAC, Asking, Question
from vnet.hv.spec import format_mac
from vnet.openflow.conntrack import Direction, Endpoint
from vnet.topology.inventory import expand
from vnet.topology.load import load_text
from vnet.topology.routing import gateway_mac

TOPOLOGY, INVENTORY = three_tier().build()
NICS = {nic.name: nic for nic in INVENTORY.nics}


def question(*words: str, **rest: object) -> Question:
    names = dict(zip(("source", "target", "service"), words, strict=False))
    return Asking(TOPOLOGY, INVENTORY).question(Asked(**names, **rest))  # type: ignore[arg-type]


def said(*words: str, **rest: object) -> str:
    with pytest.raises(InputError) as refused:
        question(*words, **rest)
    return str(refused.value)


def test_two_vms_meet_on_the_network_that_they_share() -> None:
    asked = question("app", "db", "5432/tcp")
    frame = Ether(asked.frame)
    assert asked.nic.name == "app.eth1"
    assert (frame.src, frame.dst) == (format_mac(NICS["app.eth1"].mac), format_mac(NICS["db.eth0"].mac))
    assert frame["TCP"].dport == 5432 and str(frame["TCP"].flags) == "S"
    assert asked.assumed == ("the client's port is 40000, any free one",)


def test_the_first_replica_stands_for_all() -> None:
    asked = question("web", "app", "8080/tcp")
    assert asked.nic.name == "web-1.eth0"
    assert asked.assumed[0] == "web-1, the first of 2 replicas of web"


@pytest.mark.parametrize(
    ("words", "layer"),
    [
        (("app", "db", "53/udp"), "UDP"),
        (("app", "db", "38412/sctp"), "SCTP"),
        (("app", "db", "icmp"), "ICMP"),
        (("app.eth1", "db.eth0", "ssh"), "TCP"),
        (("web-1", "fd00:10::d", "icmp"), "ICMPv6 Echo Request"),
        (("web-1", "10.10.10.13", "any"), "Raw"),
    ],
)
def test_services_become_packets(words: tuple[str, ...], layer: str) -> None:
    assert layer in Ether(question(*words).frame)


def test_a_connection_that_lives_is_asked_about_unless_another_one_is_wanted() -> None:
    app, db = NICS["app.eth1"], NICS["db.eth0"]
    ends = Endpoint(int(app.addresses[0].ip), 41022), Endpoint(int(db.addresses[0].ip), 5432)
    asking = Asking(TOPOLOGY, INVENTORY, [Direction(app.vlan, 0x0800, 6, *ends)])
    found = Ether(asking.question(Asked("app", "db", "5432/tcp")).frame)["TCP"]
    fresh = Ether(asking.question(Asked("app", "db", "5432/tcp", new=True)).frame)["TCP"]
    assert (found.sport, str(found.flags)) == (41022, "A")
    assert (fresh.sport, str(fresh.flags)) == (40000, "S")
    other = Ether(asking.question(Asked("app", "db", "22/tcp")).frame)["TCP"]
    assert other.sport == 40000


def test_an_address_that_nobody_has_gets_a_mac_that_nobody_has() -> None:
    asked = question("web-1", "10.10.10.99", "icmp")
    assert Ether(asked.frame).dst == NOBODYS_MAC
    assert "nobody on front has 10.10.10.99" in asked.assumed[0]


def test_the_server_of_a_network_is_asked_at_its_own_mac() -> None:
    text = "name: lab\nnetworks: {n: {vlan: 1, dns: true, subnets: 10.0.0.0/24}}\nvms: {a: {networks: [n]}}"
    topology = load_text(text, "lab.yaml", {})
    asking = Asking(topology, expand(topology, {}))
    for asked in (Asked("a", "10.0.0.1", "53/udp"), Asked(packet='IP(dst="10.0.0.1")/ICMP()')):
        found = asking.question(asked)
        assert Ether(found.frame).dst == format_mac(gateway_mac("lab"))
        assert not any("nobody" in assumed for assumed in found.assumed)


def test_what_an_expression_leaves_out_comes_from_the_topology() -> None:
    frame = Ether(question("web-1", packet='IP(dst="10.10.10.13")/TCP(dport=8080)').frame)
    web, app = NICS["web-1.eth0"], NICS["app.eth0"]
    assert (frame.src, frame.dst, frame["IP"].src) == (
        format_mac(web.mac),
        format_mac(app.mac),
        str(web.addresses[0].ip),
    )


def test_what_an_expression_says_stays() -> None:
    text = 'Ether(src="02:00:00:00:00:01",dst="02:00:00:00:00:02")/IP(src="192.0.2.1",dst="192.0.2.2")'
    frame = Ether(question("web-1", packet=text).frame)
    assert (frame.src, frame.dst) == ("02:00:00:00:00:01", "02:00:00:00:00:02")
    assert (frame["IP"].src, frame["IP"].dst) == ("192.0.2.1", "192.0.2.2")


def test_the_sender_is_told_by_its_addresses() -> None:
    address = NICS["web-2.eth0"].addresses[0].ip
    by_ip = question(packet=f'IP(src="{address}",dst="10.10.10.13")/UDP()')
    by_mac = question(frame=Asking(TOPOLOGY, INVENTORY).question(Asked("app", "db", "22/tcp")).frame)
    assert (by_ip.nic.name, by_mac.nic.name) == ("web-2.eth0", "app.eth1")
    assert by_mac.assumed == ("sent by app.eth1, whose MAC address it has",)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("wbe-1", "db", "22/tcp"), 'there is no VM or NIC wbe-1 in fabric test; did you mean "web-1"?'),
        (("app", "bd", "22/tcp"), "known: "),
        (("web-1", "10.10.20.12", "22/tcp"), "is in no network of web-1; its networks: front (10.10.10.0/24"),
        (("web-1", "192.0.2.1", "22/tcp"), "--packet with --from web-1"),
        (("app", "db", "22"), 'did you mean "22/tcp" or "22/udp"?'),
        (("app", "db", "0/tcp"), "from 1 to 65535"),
        (("app", "db", "nonsense"), "write ports such as 443/tcp, or one of any, icmp, ssh"),
        (("app", "app", "22/tcp"), "--packet"),
        ((), "which packet? write VM VM PORT"),
    ],
)
def test_what_cannot_be_meant_is_answered_with_what_to_write(words: tuple[str, ...], expected: str) -> None:
    assert expected in said(*words)


def test_a_frame_of_nobody_needs_to_be_told_who_sends_it() -> None:
    assert "--from VM.NIC, one of web-1.eth0, " in said(frame=bytes(60))
    assert "--from VM.NIC, one of app.eth0, app.eth1" in said("app", frame=bytes(60))
    assert "--from VM.NIC, one of app.eth0, app.eth1" in said("app", packet='IP(dst="192.0.2.1")/UDP()')
    assert question("app", packet='IP(dst="10.10.20.12")/UDP()').nic.name == "app.eth1"
    assert 'say where to: IP(dst="…")' in said("web-1", packet="IP()/UDP()")


@pytest.mark.parametrize(
    ("packet", "layer", "expected"),
    [
        ('IP(dst="10.10.10.13")/TCP(sport=9,dport=80,seq=5)', "TCP", (80, 9, "SA", 6)),
        ('IP(dst="10.10.10.13")/TCP(sport=9,dport=80,flags="A")', "TCP", (80, 9, "A", 0)),
    ],
)
def test_tcp_is_answered(packet: str, layer: str, expected: tuple[object, ...]) -> None:
    asked = question("web-1", packet=packet)
    got = Ether(answer(asked.frame, NICS["app.eth0"]).frame)
    assert (got.src, got.dst) == (Ether(asked.frame).dst, Ether(asked.frame).src)
    tcp = got[layer]
    assert (tcp.sport, tcp.dport, str(tcp.flags), tcp.ack) == expected


@pytest.mark.parametrize("kind", ["icmp", "53/udp", "any"])
def test_other_packets_are_answered(kind: str) -> None:
    asked = question("web-1", "app", kind)
    got = Ether(answer(asked.frame, NICS["app.eth0"]).frame)
    assert (got["IP"].src, got["IP"].dst) == ("10.10.10.13", "10.10.10.11")
    assert got["IP"].proto == Ether(asked.frame)["IP"].proto


@pytest.mark.parametrize("packet", ['IP(dst="10.10.10.13")/ICMP(type=3)', "Ether(type=0x88b5)/b'abc'"])
def test_what_nobody_answers_is_said(packet: str) -> None:
    with pytest.raises(InputError, match="nobody answers this"):
        answer(question("web-1", packet=packet).frame, NICS["app.eth0"])
