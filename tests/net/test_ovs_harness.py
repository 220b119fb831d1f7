"""The harness itself, our ovs-ofctl text against the real one, and each difference by design shown."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from tests.exams.differential.by_design import BY_DESIGN
from tests.net.test_ovs_controller import FLOWS
from tests.net.test_ovs_twin import (
    CT_BY_DESIGN,
    EST,
    INV,
    NEW,
    PORTS,
    RPL,
    observing_flows,
    states,
)
from tests.net.twin_generator import CLIENT, SERVER
from tests.ovs import OpenVSwitch, OvsError, why_not
from vnet.base.drop import DropReason
from vnet.openflow.cookie import OWNER_COOKIE
from vnet.openflow.flow import (
    Conntrack,
    Flow,
    Instructions,
    Move,
    Output,
    PopVlan,
    Port,
    PushVlan,
    SetField,
    match,
)
from vnet.openflow.packet import NOT_ETHERNET_II
from vnet.openflow.table import SlowSwitch
from vnet.policy.difference import normal
from vnet.policy.live.controller import Controller

pytestmark = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")


@pytest.fixture(scope="module")
def running() -> Iterator[OpenVSwitch]:
    with OpenVSwitch() as switch:
        for number in PORTS:
            switch.add_port(f"p{number}", number)
        switch.ofctl("set-frags", "nx-match")
        yield switch


@pytest.fixture
def ovs(running: OpenVSwitch) -> OpenVSwitch:
    running.delete_flows()
    running.flush_connections()
    return running


def ethernet(*, reply: bool = False) -> Ether:
    sender, receiver = (SERVER, CLIENT) if reply else (CLIENT, SERVER)
    return Ether(src=sender[0], dst=receiver[0])


def ip(*, reply: bool = False, **more: object) -> Packet:
    sender, receiver = (SERVER, CLIENT) if reply else (CLIENT, SERVER)
    return ethernet(reply=reply) / IP(src=sender[1], dst=receiver[1], **more)


def tcp(flags: str, *, reply: bool = False) -> bytes:
    ports = {"sport": 80, "dport": 4000} if reply else {"sport": 4000, "dport": 80}
    return bytes(ip(reply=reply) / TCP(flags=flags, seq=1, ack=1 if "A" in flags else 0, **ports))


# -- the harness ----------------------------------------------------------------------------------


def test_closing_leaves_no_process_namespace_or_file_behind() -> None:
    with OpenVSwitch() as switch:
        switch.add_port("p1", 1)
        namespace, directory = switch.namespace, switch.directory
        processes = [process.pid for process in switch._processes]
        assert namespace in _namespaces()
    assert namespace not in _namespaces()
    assert not directory.exists()
    assert not [pid for pid in processes if Path(f"/proc/{pid}").exists()]


def test_a_failure_inside_the_block_cleans_up_too() -> None:
    switch = OpenVSwitch()
    with pytest.raises(OvsError, match="p1"), switch:
        _add_twice(switch)
    assert switch.namespace not in _namespaces()
    assert not switch.directory.exists()


def _add_twice(switch: OpenVSwitch) -> None:
    switch.add_port("p1", 1)
    switch.add_port("p1", 2)


def _namespaces() -> str:
    return subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout


def test_a_refused_flow_is_shown_with_its_text(ovs: OpenVSwitch) -> None:
    wrong = Flow(0, 1, match(eth_type=0x806), Instructions(apply=(Conntrack(),)))
    with pytest.raises(OvsError, match=r"MATCH_INCONSISTENT(.|\n)*priority=1,arp actions=ct"):
        ovs.add_flows([Flow(0, 2, match(in_port=1)), wrong])
    assert ovs.dump_flows() == []


def test_outputs_are_complete_when_inject_returns(ovs: OpenVSwitch) -> None:
    ovs.add_flows([Flow(0, 1, match(), Instructions(apply=(Output(Port.FLOOD),)))])
    for size in range(300):
        frame = bytes(ethernet() / Raw(bytes(50 + size)))
        assert ovs.inject(1, frame) == ((2, frame), (3, frame), (4, frame))


def test_the_trace_tells_the_flow_that_decided(ovs: OpenVSwitch) -> None:
    ovs.add_flows([Flow(0, 33, match(in_port=1), Instructions(apply=(Output(2),)))])
    assert "priority 33" in ovs.trace(1, tcp("S"))


# -- text of flows --------------------------------------------------------------------------------

MORE_FLOWS = (
    Flow(0, 1, match(eth_type=0x806, arp_op=1, arp_spa=1, arp_sha=2, arp_tpa=(0x0A000000, 0xFF000000))),
    Flow(0, 2, match(eth_type=0x86DD, ip_proto=58, icmpv6_type=135, ipv6_nd_target=1, ipv6_nd_sll=5)),
    Flow(0, 3, match(eth_type=0x86DD, ip_proto=58, icmpv6_type=136, ipv6_nd_tll=5, icmpv6_code=0)),
    Flow(0, 4, match(eth_type=0x800, ip_proto=1, icmpv4_type=3, icmpv4_code=4)),
    Flow(0, 5, match(eth_type=0x800, ip_proto=132, sctp_src=1, sctp_dst=(0x100, 0xFF00))),
    Flow(0, 6, match(eth_type=0x86DD, ip_proto=17, udp_src=(8, 0xFFF8), ipv6_dst=(0xFD << 120, 0xFF << 120))),
    Flow(0, 7, match(eth_type=0x800, ip_frag=(3, 3), ip_dscp=46, ip_ecn=3)),
    Flow(0, 8, match(eth_dst=(1 << 40, 1 << 40), eth_src=0x020000000001, vlan_vid=(0x1000, 0x1000))),
    Flow(0, 22, match(vlan_vid=(0x1000, 0x1000), vlan_pcp=3)),
    Flow(0, 9, match(metadata=(0x5, 0xF), reg7=1, reg3=(0x10, 0xFFF0), in_port=4)),
    Flow(0, 10, match(eth_type=0x88CC)),
    Flow(0, 11, match(eth_type=0x800, ip_proto=47)),
    Flow(0, 12, match(ct_state=(0x22, 0x2A), ct_zone=7, ct_mark=(1, 3), eth_type=0x800)),
    Flow(0, 13, match(), Instructions(apply=(Output(Port.CONTROLLER, 64), Output(Port.IN_PORT)))),
    Flow(0, 14, match(), Instructions(apply=(Output(Port.FLOOD), Output(Port.ALL), Output(Port.NORMAL)))),
    Flow(0, 15, match(), Instructions(clear=True, write=(Output(4),), metadata=(1, 0xFF), goto=2)),
    Flow(0, 16, match(eth_type=0x800), Instructions(apply=(Conntrack(), Conntrack(3, 1, True, mark=(1, 3))))),
    Flow(0, 17, match(eth_type=0x800), Instructions(apply=(Conntrack(zone=1, commit=True, force=True),))),
    Flow(0, 18, match(), Instructions(apply=(SetField("reg1", 5, 7), Move("reg1", "reg2", 1, 3, 9)))),
    Flow(0, 19, match(), Instructions(apply=(PushVlan(), SetField("vlan_pcp", 3), PopVlan()))),
    Flow(0, 20, match(), Instructions(apply=(SetField("eth_dst", 2), SetField("eth_src", 3, 0xFF)))),
    Flow(0, 21, match(), idle_timeout_s=30, hard_timeout_s=60, flags=1, cookie=0xABC),
)  # fmt: skip


@pytest.mark.parametrize("flow", FLOWS + MORE_FLOWS, ids=lambda flow: f"{flow.table}-{flow.priority}")
def test_ofctl_text_is_read_by_open_vswitch_as_the_same_flow(ovs: OpenVSwitch, flow: Flow) -> None:
    """Written as text, added by ovs-ofctl, read back in binary by the controller's codec."""
    ours = replace(flow, cookie=flow.cookie & 0xFFFF | OWNER_COOKIE)
    ovs.add_flows([ours])

    async def read() -> tuple[Flow, ...]:
        controller = Controller(ovs.socket)
        await controller.connect()
        try:
            return await controller.read_flows()
        finally:
            await controller.close()

    assert asyncio.run(read()) == (normal(ours),)


# -- differences by design ------------------------------------------------------------------------


def observed(ovs: OpenVSwitch, *said: tuple[int, bytes]) -> tuple[tuple[int, int], ...]:
    """(our ct_state, Open vSwitch's) of each packet."""
    ovs.add_flows(observing_flows())
    slow = SlowSwitch(observing_flows(), PORTS)
    return tuple(
        (*states(slow.receive(port, frame, 0.0).outputs), *states(ovs.inject(port, frame)))
        for port, frame in said
    )  # type: ignore[return-value]


def test_by_design_a_segment_from_mid_stream_is_invalid(ovs: OpenVSwitch) -> None:
    assert observed(ovs, (1, tcp("A"))) == ((INV, NEW),)
    assert "mid-stream" in CT_BY_DESIGN


def test_by_design_a_connection_is_new_until_its_responder_is_heard(ovs: OpenVSwitch) -> None:
    assert observed(ovs, (1, tcp("S")), (1, tcp("A"))) == ((NEW, NEW), (NEW, EST))
    assert "unanswered" in CT_BY_DESIGN


def test_by_design_a_responders_syn_is_a_reply(ovs: OpenVSwitch) -> None:
    assert observed(ovs, (1, tcp("S")), (2, tcp("S", reply=True))) == ((NEW, NEW), (RPL, NEW))
    assert "simultaneous open" in CT_BY_DESIGN


def test_by_design_a_syn_reopens_after_both_fins_without_the_last_ack(ovs: OpenVSwitch) -> None:
    heard = observed(
        ovs,
        (1, tcp("S")),
        (2, tcp("SA", reply=True)),
        (1, tcp("A")),
        (1, tcp("FA")),
        (2, tcp("FA", reply=True)),
        (1, tcp("S")),
    )
    assert heard[:-1] == ((NEW, NEW), (RPL, RPL), (EST, EST), (EST, EST), (RPL, RPL))
    assert heard[-1][0] == NEW
    assert heard[-1][1] != NEW
    assert "reopening" in CT_BY_DESIGN


def test_by_design_a_reset_connection_is_reopened_by_both(ovs: OpenVSwitch) -> None:
    heard = observed(ovs, (1, tcp("S")), (2, tcp("RA", reply=True)), (1, tcp("S")))
    assert heard == ((NEW, NEW), (RPL, RPL), (NEW, NEW))


def test_by_design_a_reset_that_both_sides_ignore_is_taken_back(ovs: OpenVSwitch) -> None:
    opened = ((1, tcp("S")), (2, tcp("SA", reply=True)), (1, tcp("A")))
    ignored = ((2, tcp("RA", reply=True)), (1, tcp("A")), (2, tcp("A", reply=True)))
    heard = observed(ovs, *opened, *ignored, (1, tcp("S")))
    assert heard[:-1] == ((NEW, NEW), (RPL, RPL), (EST, EST), (RPL, RPL), (EST, EST), (RPL, RPL))
    assert heard[-1] == (EST, NEW)
    assert "reset taken back" in CT_BY_DESIGN


def test_by_design_malformed_packets_are_dropped(ovs: OpenVSwitch) -> None:
    flows = [Flow(0, 1, match(eth_type=0x800), Instructions(apply=(Output(2),)))]
    ovs.add_flows(flows)
    frame = bytes(ip() / UDP())[:-12]
    assert SlowSwitch(flows, PORTS).receive(1, frame, 0.0).drop is DropReason.MALFORMED
    assert ovs.inject(1, frame) == ((2, frame),)
    assert "malformed" in BY_DESIGN


def test_by_design_a_later_ipv6_fragment_keeps_its_protocol(ovs: OpenVSwitch) -> None:
    flows = [
        Flow(0, 2, match(eth_type=0x86DD, ip_proto=17), Instructions(apply=(Output(2),))),
        Flow(0, 1, match(eth_type=0x86DD, ip_proto=44), Instructions(apply=(Output(3),))),
    ]
    ovs.add_flows(flows)
    header = IPv6(src=CLIENT[2], dst=SERVER[2]) / IPv6ExtHdrFragment(offset=3, id=1, nh=17)
    frame = bytes(ethernet() / header / Raw(bytes(32)))
    assert SlowSwitch(flows, PORTS).receive(1, frame, 0.0).outputs == ((2, frame),)
    assert ovs.inject(1, frame) == ((3, frame),)
    assert "later IPv6 fragment" in BY_DESIGN


def test_by_design_a_later_fragment_is_not_tracked(ovs: OpenVSwitch) -> None:
    ovs.add_flows(observing_flows())
    frame = bytes(ip(frag=3, proto=17) / Raw(bytes(32)))
    outcome = SlowSwitch(observing_flows(), PORTS).receive(1, frame, 0.0)
    assert outcome.drop is DropReason.FRAGMENT
    assert ovs.inject(1, frame) == ()
    assert "tracked fragment" in BY_DESIGN


def test_by_design_icmp_timestamps_are_invalid(ovs: OpenVSwitch) -> None:
    assert observed(ovs, (1, bytes(ip() / ICMP(type=13)))) == ((INV, NEW),)


def test_by_design_snap_frames_are_not_unwrapped(ovs: OpenVSwitch) -> None:
    flows = [
        Flow(0, 2, match(eth_type=0x800), Instructions(apply=(Output(2),))),
        Flow(0, 1, match(eth_type=NOT_ETHERNET_II), Instructions(apply=(Output(3),))),
    ]
    ovs.add_flows(flows)
    inside = bytes(IP(src=CLIENT[1], dst=SERVER[1]) / UDP())
    header = bytes(ethernet())[:12] + (8 + len(inside)).to_bytes(2, "big")
    frame = header + bytes.fromhex("aaaa03000000") + b"\x08\x00" + inside
    assert SlowSwitch(flows, PORTS).receive(1, frame, 0.0).outputs == ((3, frame),)
    assert ovs.inject(1, frame) == ((2, frame),)


def test_by_design_arp_of_other_hardware_is_malformed(ovs: OpenVSwitch) -> None:
    flows = [Flow(0, 1, match(eth_type=0x806), Instructions(apply=(Output(2),)))]
    ovs.add_flows(flows)
    frame = bytes(ethernet() / ARP(hwtype=6, hwlen=6))
    assert SlowSwitch(flows, PORTS).receive(1, frame, 0.0).drop is DropReason.MALFORMED
    assert ovs.inject(1, frame) == ((2, frame),)


def test_by_design_a_miss_drops_the_action_set(ovs: OpenVSwitch) -> None:
    """OpenFlow 1.3.5, section 5.4: a miss drops the packet. Open vSwitch still carries out the set."""
    flows = [Flow(0, 1, match(), Instructions(write=(Output(2),), goto=1))]
    ovs.add_flows(flows)
    outcome = SlowSwitch(flows, PORTS).receive(1, tcp("S"), 0.0)
    assert outcome.drop is DropReason.TABLE_MISS
    assert ovs.inject(1, tcp("S")) == ((2, tcp("S")),)
    assert "action set after a miss" in BY_DESIGN
