"""The corpus: each frame is what it says, sizes are bounded, the same scene gives the same frames."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
from scapy.layers.dhcp import BOOTP
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_RA, IPv6
from scapy.layers.l2 import ARP, Ether

from tests.unit.drill.slow import ROOT, acting, opened, three_tier
from vnet.base.limits import Limits
from vnet.drill.attack import PLAIN, Attack, NotTried
from vnet.drill.control import controls
from vnet.drill.corpus import corpus
from vnet.drill.flood import BEYOND, STORM
from vnet.drill.groups import GROUPS
from vnet.drill.ra import ICMPV6
from vnet.drill.scene import Scene, Station

QUOTA, ANNOUNCED = 500, 100
OWN = acting(opened(), "a.eth0").twin
TYPE = slice(12, 14)
IPV4, IPV6, ARP_TYPE = b"\x08\x00", b"\x86\xdd", b"\x08\x06"


@cache
def attacks() -> tuple[Attack, ...]:
    found = tuple(corpus(acting(opened(), "a.eth0", Limits(connections=QUOTA, broadcast_pps=ANNOUNCED))))
    return tuple(each for each in found if isinstance(each, Attack))


def frames(group: str, of: Callable[[str], bool] = lambda what: True) -> Iterator[tuple[str, bytes]]:
    """The frames of a group that must not arrive, each with what its attack is called."""
    for attack in attacks():
        if attack.group == group and of(attack.what):
            steps = [step for step in attack.steps if not step.harmless]
            yield from ((attack.what, frame) for step in steps for frame in step.frames)


def dissected(frame: bytes) -> Any:
    return Ether(frame)


def digest(scene: Scene) -> str:
    return hashlib.sha256(repr(list(corpus(scene))).encode()).hexdigest()


def test_the_same_scene_gives_the_same_frames_in_every_process() -> None:
    code = (
        "from tests.unit.drill.test_corpus import digest, acting, opened;"
        " print(digest(acting(opened(), 'a.eth0')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [digest(acting(opened(), "a.eth0"))]


def test_every_group_has_attacks_and_every_attack_a_name_of_its_own_and_a_source() -> None:
    assert {attack.group for attack in attacks()} == set(GROUPS)
    assert len({(attack.group, attack.what) for attack in attacks()}) == len(attacks()) > 350
    assert all(attack.source and attack.steps for attack in attacks())


def test_only_some_groups_can_be_had() -> None:
    assert {each.group for each in corpus(acting(opened(), "a.eth0"), ("arp", "tcp"))} == {"arp", "tcp"}


@pytest.mark.parametrize(
    "scene",
    [Scene(Station("lone.eth0", "02:00:00:00:00:01", 5)), acting(three_tier(), "db.eth0")],
    ids=["alone and without addresses", "without IPv6"],
)
def test_a_scene_that_lacks_somebody_loses_no_attack(scene: Scene) -> None:
    found = [(each.group, each.what) for each in corpus(scene)]
    expected = {(each.group, each.what) for each in corpus(acting(opened(), "a.eth0"))}
    untried = [each for each in corpus(scene) if isinstance(each, NotTried)]
    assert len(found) == len(set(found))
    assert set(found) == expected
    assert all(each.why for each in untried)


def test_numbers_and_sizes_are_bounded() -> None:
    for attack in attacks():
        count = sum(len(step.frames) for step in attack.steps)
        assert 0 < count <= (QUOTA + BEYOND if attack.may_pass else STORM), attack.what
        assert all(len(frame) <= 16_000 for step in attack.steps for frame in step.frames), attack.what
        assert (attack.group == "flood") or count <= 64, attack.what


def test_only_the_twin_and_those_who_help_it_send() -> None:
    senders = {step.sender for attack in attacks() for step in attack.steps}
    helping = {a.group for a in attacks() for step in a.steps if step.sender != "a.eth0"}
    assert senders <= {"a.eth0", "b.eth0", "c.eth0"}
    assert helping == {"route", "icmp"}


def test_only_lies_to_the_host_have_an_offload_header() -> None:
    lying = {a.group for a in attacks() for step in a.steps if step.offload != PLAIN}
    assert lying == {"offload"}
    assert all(len(step.offload) == len(PLAIN) for a in attacks() for step in a.steps)


# -- each group ---------------------------------------------------------------------------------


def test_mac_spoofing_has_another_source() -> None:
    for what, frame in frames("mac"):
        assert (dissected(frame).src != OWN.mac) != (what == "a frame to itself"), what


def test_frames_of_a_size_have_it() -> None:
    named = dict(frames("size"))
    for size in (13, 14, 15, 33, 1515, 9014, 16_000):
        assert len(named[f"a frame of {size} bytes"]) == size


def test_link_frames_are_neither_plain_ip_nor_arp() -> None:
    for what, frame in frames("link", lambda what: "other IP version" not in what):
        assert frame[TYPE] not in (IPV4, IPV6, ARP_TYPE), what
    for what, frame in frames("link", lambda what: "other IP version" in what):
        assert frame[14] >> 4 == (6 if frame[TYPE] == IPV4 else 4), what


def test_frames_with_a_tag_have_one() -> None:
    tags = {bytes.fromhex(kind) for kind in ("8100", "88a8", "9100", "9200", "9300")}
    for what, frame in frames("vlan", lambda what: "LLC" not in what):
        assert frame[TYPE] in tags, what
    (inside,) = (frame for _, frame in frames("vlan", lambda what: "LLC" in what))
    assert int.from_bytes(inside[TYPE], "big") == len(inside) - 14
    assert inside[20:22] == b"\x81\x00"


def test_arp_is_arp_and_claims_something() -> None:
    honest = {"a request for an address that nobody has", "to another network"}
    for what, frame in frames("arp"):
        assert frame[TYPE] == ARP_TYPE, what
    shaped = ("hardware", "protocol", "cut off")
    for what, frame in frames("arp", lambda what: not what.startswith(shaped) and what not in honest):
        arp = dissected(frame)[ARP]
        assert (arp.psrc, arp.hwsrc) != (OWN.v4, OWN.mac), what


def test_neighbour_discovery_about_others_names_them() -> None:
    for what, frame in frames("nd", lambda what: what.startswith(("advertisement for", "answer"))):
        message = dissected(frame)
        assert message.tgt not in OWN.ipv6, what
        assert ICMPv6ND_NA in message and message[IPv6].hlim == 255, what


def test_router_messages_are_behind_what_is_said() -> None:
    hidden = [(what, f) for what, f in frames("router") if what.startswith("router advertisement behind")]
    assert len(hidden) == 8
    for what, frame in hidden:
        assert frame[20] != ICMPV6, what
        if "authentication" not in what:
            assert ICMPv6ND_RA in dissected(frame), what


def test_dhcp_servers_answer_to_clients_ports() -> None:
    for what, frame in frames(
        "dhcp", lambda what: not what.startswith(("discovers", "release", "DHCPv6 solicits"))
    ):
        udp = dissected(frame)[UDP]
        assert udp.dport == (546 if frame[TYPE] == IPV6 else 68), what
    hardware = {dissected(f)[BOOTP].chaddr for w, f in frames("dhcp") if w.startswith("discovers")}
    assert len(hardware) == 64


def test_forged_sources_are_not_the_twins() -> None:
    for version, layer, own in (("ipv4", IP, OWN.ipv4), ("ipv6", IPv6, OWN.ipv6)):
        forged = list(frames(version, lambda what: what.startswith(("as ", "a neighbour", "a reset"))))
        assert len(forged) >= 12
        for what, frame in forged:
            assert dissected(frame)[layer].src not in own, what


def test_checksums_of_well_formed_packets_are_right() -> None:
    """A guest would drop a packet with a wrong one by itself, and the attack would prove nothing."""
    for what, frame in (*frames("tcp"), *frames("ipv4", lambda what: what.startswith("as "))):
        packet = dissected(frame)
        told = packet[TCP].chksum if TCP in packet else None
        if told is not None:
            del packet[TCP].chksum
            assert Ether(bytes(packet))[TCP].chksum == told, what


def test_fragments_are_fragments() -> None:
    for what, frame in frames("fragment", lambda what: "atomic" not in what):
        if frame[TYPE] == IPV4:
            assert int.from_bytes(frame[20:22], "big") & 0x3FFF, what
        else:
            assert frame[20] == 44, what
    for what, frame in frames("fragment", lambda what: "atomic" in what):
        assert frame[20] == 44 and frame[56:58] == bytes(2), what


def test_the_first_tiny_fragment_ends_before_the_flags() -> None:
    ((_, first), *_) = frames("fragment", lambda what: what == "IPv4: first of 8 bytes, no TCP flags")
    assert len(first) == 14 + 20 + 8


def test_a_source_route_is_carried_on_by_its_waypoint() -> None:
    for attack in (attack for attack in attacks() if attack.group == "route"):
        asked, carried = attack.steps
        assert asked.harmless and asked.sender == "a.eth0"
        assert not carried.harmless and carried.sender != "a.eth0"
        outer = dissected(carried.frames[0])
        assert (outer[IP] if IP in outer else outer[IPv6]).src in (OWN.v4, OWN.v6)


def test_segments_without_a_connection_are_no_syn() -> None:
    for what, frame in frames("tcp", lambda what: "without a connection" in what):
        assert str(dissected(frame)[TCP].flags) != "S", what


def test_tunnels_carry_a_neighbours_packet() -> None:
    for what, frame in frames("tunnel"):
        packet = dissected(frame)
        assert packet[IP if packet.type == 0x0800 else IPv6].src in (OWN.v4, OWN.v6), what
        assert b"\x0a\x00\x00" in frame[34:] or b"\xfd\x00" in frame[54:], what


def test_a_flood_of_connections_is_one_more_than_the_quota_lets_pass() -> None:
    (flood,) = (attack for attack in attacks() if attack.what == "connections beyond the quota")
    (step,) = flood.steps
    assert flood.may_pass == QUOTA < len(step.frames)
    assert len(set(step.frames)) == len(step.frames)


def test_a_flood_of_announcements_is_more_than_the_limit_lets_pass_meanwhile() -> None:
    (flood,) = (attack for attack in attacks() if attack.what == "announcements of the own address")
    (step,) = flood.steps
    assert (flood.may_pass, len(step.frames)) == (150, 200)
    assert dissected(step.frames[0])[ARP].psrc == dissected(step.frames[0])[ARP].pdst == OWN.v4


def test_controls_are_honest() -> None:
    scene = acting(opened(), "a.eth0")
    found = list(controls(scene))
    assert [control.what for control in found] == [
        "ARP request",
        "neighbour solicitation",
        "TCP over IPv4 to port 80",
        "UDP over IPv4 to port 53",
        "echo request over IPv4",
        "TCP over IPv6 to port 80",
        "UDP over IPv6 to port 53",
        "echo request over IPv6",
    ]
    for control in found:
        (frame,) = control.step.frames
        assert dissected(frame).src == OWN.mac and control.receiver == "b.eth0"
