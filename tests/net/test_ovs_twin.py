"""The slow switch decides as Open vSwitch does: generated overlapping rules, packets and connections.

Where both differ on purpose is listed in `by_design`, each with its reason and a test that shows it; any
other difference fails. `VNET_TWIN_SEED` repeats a failure, `VNET_TWIN_SECONDS` looks longer.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from tests.exams.differential.by_design import done, explain
from tests.net.twin_generator import Dialogue, Hidden, Program, packets, programs
from tests.net.twin_outcomes import outcomes
from tests.ovs import OpenVSwitch, why_not
from vnet.base.drop import DropReason
from vnet.openflow import ofctl, packet
from vnet.openflow.conntrack import ACK, SYN, Connection, State, Tracker
from vnet.openflow.fields import ETH_IPV4, ETH_IPV6, CtState
from vnet.openflow.flow import (
    Action,
    Conntrack,
    DecIpTtl,
    Flow,
    Instructions,
    Move,
    Nat,
    Output,
    PopVlan,
    Port,
    PushMpls,
    PushVlan,
    Resubmit,
    SetField,
    ToGroup,
    match,
)
from vnet.openflow.group import Band, BandType, Meter, MeterFlag
from vnet.openflow.ofctl_match import CT_FLAGS
from vnet.openflow.table import Outcome, PortState, SlowSwitch

pytestmark = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")

SEED = int(os.environ.get("VNET_TWIN_SEED", "20"))
SECONDS = float(os.environ.get("VNET_TWIN_SECONDS", "0"))
LEAST_ROUNDS, LEAST_WORDS = 70, 3000
"""On a machine so busy that the time is up before anything was tried."""
PORTS = {number: PortState() for number in (1, 2, 3, 4)}


@pytest.fixture(scope="module")
def ovs() -> Iterator[OpenVSwitch]:
    with OpenVSwitch() as switch:
        for number in PORTS:
            switch.add_port(f"p{number}", number)
        switch.ofctl("set-frags", "nx-match")
        switch.stop_clock()
        yield switch


def _same(ours: Outcome, theirs: tuple[tuple[int, bytes], ...]) -> bool:
    """Whatever the order: between ports it cannot be observed, between the forks of `ct` it is nobody's."""
    return sorted(ours.outputs) == sorted(theirs)


def test_flows_decide_as_in_open_vswitch(ovs: OpenVSwitch) -> None:
    """Rule sets whose rules overlap, of distinct priorities, and packets that many of them match."""
    deadline, seen = time.monotonic() + SECONDS / 2, Counter[str]()
    for round_ in range(10_000):
        if time.monotonic() > deadline and round_ >= LEAST_ROUNDS:
            break
        seed = f"{SEED}-{round_}"
        dice = random.Random(seed)
        program = programs(dice)
        ovs.delete_flows()
        ovs.flush_connections()
        ovs.add_groups(program.groups)
        ovs.add_flows(program.flows)
        slow = SlowSwitch(program.flows, PORTS, groups=program.groups)
        for port, frame in packets(dice, count=35):
            theirs = ovs.inject(port, frame)
            possible = tuple(outcomes(slow, port, frame))
            ours = next((outcome for outcome in possible if _same(outcome, theirs)), possible[0])
            explained = (explain(frame, outcome, program.groups) for outcome in possible)
            known = None if _same(ours, theirs) else next(filter(None, explained), None)
            seen[known or "same"] += 1
            seen["passed" if ours.outputs else ours.drop.name if ours.drop else "controller"] += 1
            seen[f"{min(len(ours.trail), 9)} lookups"] += 1
            seen.update(map(named, done(ours)))
            assert known or _same(ours, theirs), _story(seed, program, port, frame, ours, theirs, ovs)
    for what in ("passed", "RULE", "MALFORMED", "SAME_PORT", "2 lookups", "3 lookups", *map(named, OFTEN)):
        assert seen[what] > (3 if "done" in what else 40), f"{what} was hardly tried: {seen}"


OFTEN = (SetField, Move, Resubmit, ToGroup, PushVlan, PopVlan, PushMpls, DecIpTtl, Conntrack)


def named(kind: type[Action]) -> str:
    """How a kind of action is counted."""
    return f"{kind.__name__} done"


def _story(
    seed: str,
    program: Program,
    port: int,
    frame: bytes,
    ours: Outcome,
    theirs: tuple[tuple[int, bytes], ...],
    ovs: OpenVSwitch,
) -> str:
    """Everything needed to understand one difference."""
    lines = [f"seed {seed}, port {port}, frame {frame.hex()}", *map(ofctl.text, program.flows)]
    lines += [*map(ofctl.group_text, program.groups)]
    lines += [f"slow: {ours.outputs} {ours.drop}"]
    lines += [f"  table {step.table}: {step.flow and ofctl.text(step.flow)}" for step in ours.trail]
    lines += [f"ovs: {theirs}", ovs.trace(port, frame)]
    return "\n".join(lines)


# -- connections ----------------------------------------------------------------------------------

OBSERVER = 3
OVS_TIMEOUTS_S = {
    State.OPENING: 60,
    State.ANSWERED: 30,
    State.SYN_SENT: 30,
    State.SYN_RECEIVED: 30,
    State.ESTABLISHED: 86400,
    State.FIN_WAIT: 900,
    State.TIME_WAIT: 45,
    State.CLOSED: 30,
}
"""Those of the userspace datapath, ovs-vswitchd.conf.db(5), CT_Timeout_Policy."""
STATES = (*range(0x20, 0x30), 0x30)
"""Every combination of new, est, rel, rpl with trk, and inv, which comes alone."""


def observing_flows() -> tuple[Flow, ...]:
    """Track all IP in zone 7, commit what is new; port 3 sees each packet with its ct_state as the VID."""
    flows = [
        Flow(0, 1, match(eth_type=family), Instructions(apply=(Conntrack(zone=7, table=1),)))
        for family in (ETH_IPV4, ETH_IPV6)
    ]
    for family in (ETH_IPV4, ETH_IPV6):
        for state in STATES:
            commit = (Conntrack(zone=7, commit=True),) if state & CtState.NEW else ()
            show = (PushVlan(), SetField("vlan_vid", 0x1000 | 0x100 | state), Output(OBSERVER))
            wanted = match(eth_type=family, ct_state=(state, 0x3F))
            flows.append(Flow(1, 10, wanted, Instructions(apply=commit + show)))
    return tuple(flows)


@pytest.fixture
def observer(ovs: OpenVSwitch) -> Iterator[OpenVSwitch]:
    ovs.delete_flows()
    ovs.flush_connections()
    ovs.add_flows(observing_flows())
    ovs.appctl("dpctl/ct-disable-tcp-seq-chk")
    yield ovs
    ovs.appctl("dpctl/ct-enable-tcp-seq-chk")


def states(sent: tuple[tuple[int, bytes], ...]) -> tuple[int, ...]:
    """The ct_state that the observer saw on each packet."""
    return tuple(packet.parse(frame).fields["vlan_vid"] & 0xFF for _, frame in sent)


NEW, EST, RPL = CtState.TRK | CtState.NEW, CtState.TRK | CtState.EST, CtState.TRK | CtState.EST | CtState.RPL
INV = CtState.TRK | CtState.INV

CT_BY_DESIGN: dict[str, tuple[str, Callable[[packet.Packet, int, int], bool]]] = {
    "mid-stream": (
        "TCP that starts no connection and belongs to none is invalid; Open vSwitch picks it up as new",
        lambda parsed, ours, theirs: (
            ours == INV and theirs == NEW and (parsed.get("tcp_flags") or 0) & (SYN | ACK) != SYN
        ),
    ),
    "unanswered": (
        "a connection is new until its responder is heard; Open vSwitch says est of all but the SYN",
        lambda parsed, ours, theirs: (
            (ours, theirs) == (NEW, EST) and (parsed.get("tcp_flags") or 0) & (SYN | ACK) != SYN
        ),
    ),
    "simultaneous open": (
        "a responder's SYN is a reply; Open vSwitch calls it new and not a reply",
        lambda parsed, ours, theirs: (
            (ours, theirs) == (RPL, NEW) and (parsed.get("tcp_flags") or 0) & (SYN | ACK) == SYN
        ),
    ),
    "invalid": (
        "what is invalid is not translated; Open vSwitch translates a bad segment of a known connection",
        lambda _parsed, ours, theirs: ours == theirs == INV,
    ),
    "reopening": (
        "SYN opens anew once either side has reset or both sent FIN; Open vSwitch waits for ACKs",
        lambda parsed, ours, theirs: (
            (parsed.get("tcp_flags") or 0) & (SYN | ACK) == SYN and ours == NEW and theirs != NEW
        ),
    ),
    "reset taken back": (
        "a reset after which both sides go on was none: the connection lives on; Open vSwitch lets it end",
        lambda parsed, ours, theirs: (
            parsed.get("tcp_flags") is not None and ours in (EST, RPL) and theirs == NEW
        ),
    ),
}


def _ct_known(parsed: packet.Packet, ours: tuple[int, ...], theirs: tuple[int, ...]) -> str | None:
    if len(ours) != 1 or len(theirs) != 1:
        return None
    pair = ours[0] & 0x3F, theirs[0] & 0x3F
    return next((name for name, (_, explains) in CT_BY_DESIGN.items() if explains(parsed, *pair)), None)


def test_connections_have_the_state_open_vswitch_gives_them(observer: OpenVSwitch) -> None:
    """Dialogues of TCP, UDP, echo and ICMP errors in random order, with pauses that let them time out."""
    deadline, seen = time.monotonic() + SECONDS / 2, Counter[str]()
    dice = random.Random(f"{SEED}-connections")
    slow = SlowSwitch(observing_flows(), PORTS, Tracker(OVS_TIMEOUTS_S))
    dialogue, now_s, story = Dialogue(dice), 0.0, list[str]()
    while time.monotonic() < deadline or seen.total() < LEAST_WORDS:
        if not dice.randrange(40):
            pause = dice.choice((0.7, 901.9))  # in between, which state times out when would be compared
            observer.advance(pause)
            now_s += pause
            story.append(f"{pause} s pass")
        port, frame, said = dialogue.next()
        ours = states(slow.receive(port, frame, now_s).outputs)
        theirs = states(observer.inject(port, frame))
        story.append(f"port {port}: {said}: {_words(ours)}")
        seen[_words(ours)] += 1
        if ours != theirs:
            known = _ct_known(packet.parse(frame), ours, theirs)
            if known == "reset taken back" and not any(map(_taken_back, slow.tracker.connections(now_s))):
                known = None
            assert known, "\n".join(
                [*story[-40:], f"Open vSwitch says {_words(theirs)}", *observer.connections()]
            )
            seen[known] += 1
        if ours != theirs or not dice.randrange(60):
            observer.flush_connections()
            slow.tracker.flush()
            dialogue = Dialogue(dice)
            story.clear()
    for words in ("+new+trk", "+est+trk", "+est+rpl+trk", "+rel+rpl+trk", "+rel+trk", "+inv+trk"):
        assert seen[words] > 10, f"{words} was hardly tried: {seen}"


def _taken_back(connection: Connection) -> bool:
    return len(connection.going_on) == 2


def _words(given: tuple[int, ...]) -> str:
    return " ".join(
        "".join(f"+{name}" for bit, name in enumerate(CT_FLAGS) if state >> bit & 1) for state in given
    )


# -- translation ----------------------------------------------------------------------------------

FULL_STATES = tuple(state | nat for state in STATES for nat in (0, 0x40, 0x80, 0xC0))


def translating_flows(four: Nat, six: Nat) -> tuple[Flow, ...]:
    """Translate what is new in zone 7; port 3 sees each packet with its ct_state as the VID."""
    flows = []
    for family, nat in ((ETH_IPV4, four), (ETH_IPV6, six)):
        track = Instructions(apply=(Conntrack(zone=7, table=1, nat=Nat(family=nat.family)),))
        commit = Instructions(apply=(Conntrack(zone=7, table=2, commit=True, nat=nat),))
        flows.append(Flow(0, 1, match(eth_type=family), track))
        flows.append(Flow(1, 20, match(eth_type=family, ct_state=(0x21, 0xE3), in_port=1), commit))
        for table in (1, 2):
            for state in FULL_STATES:
                wanted = match(eth_type=family, ct_state=(state, 0xFF))
                show = (PushVlan(), SetField("vlan_vid", 0x1000 | 0x100 | state), Output(OBSERVER))
                flows.append(Flow(table, 10, wanted, Instructions(apply=show)))
    return tuple(flows)


TRANSLATIONS = {
    "source": (True, None),
    "source and port": (True, (6000, 6000)),
    "target": (False, None),
    "target and port": (False, (8053, 8053)),
}
LEAST_TRANSLATED = 1500


@pytest.mark.parametrize("name", TRANSLATIONS)
def test_packets_are_translated_as_in_open_vswitch(ovs: OpenVSwitch, name: str) -> None:
    """Dialogues through a translation: bytes, checksums and states of packets, replies and errors."""
    source, ports = TRANSLATIONS[name]
    hidden = Hidden(source, ports)
    flows = translating_flows(*hidden.translations())
    ovs.delete_flows()
    ovs.flush_connections()
    ovs.add_flows(flows)
    ovs.appctl("dpctl/ct-disable-tcp-seq-chk")
    dice, seen = random.Random(f"{SEED}-{name}"), Counter[str]()
    slow = SlowSwitch(flows, PORTS, Tracker(OVS_TIMEOUTS_S))
    dialogue, story = Dialogue(dice, hidden), list[str]()
    for _ in range(LEAST_TRANSLATED):
        port, frame, said = dialogue.next()
        ours, theirs = slow.receive(port, frame, 0.0).outputs, ovs.inject(port, frame)
        story.append(f"port {port}: {said}: {_words(states(ours))}")
        seen[_words(states(ours))] += 1
        if ours != theirs:
            known = _ct_known(packet.parse(frame), states(ours), states(theirs))
            if any(f": {said}:" in line for line in story[:-1]) and "TCP" in said:
                known = "reopening: there the old connection still holds its port, so that another is taken"
            if source and ports and "echo" in said and states(ours) == states(theirs):
                known = "echo identifiers are translated like ports; Open vSwitch 3.1 leaves them"
            if not ours and ports and states(theirs) == (NEW,):
                known = "no translation is left: the packet is lost; Open vSwitch lets it pass as it is"
            lines = [*story[-40:], f"ours   {ours}", f"theirs {theirs} {frame.hex()}", *ovs.connections()]
            assert known, "\n".join(lines)
        if ours != theirs or not dice.randrange(60):
            ovs.flush_connections()
            slow.tracker.flush()
            dialogue = Dialogue(dice, hidden)
            story.clear()
    there, back = ("snat", "dnat") if source else ("dnat", "snat")
    for words in ("+new+trk", "+est+trk", "+rel+trk", "+inv+trk"):
        words += f"+{there}" if "inv" not in words else ""
        assert seen[words] > 10, f"{words} was hardly tried: {seen}"
    for words in ("+est+rpl+trk", "+rel+rpl+trk"):
        assert seen[f"{words}+{back}"] > 10, f"{words}+{back} was hardly tried: {seen}"


# -- bridging and meters --------------------------------------------------------------------------


def test_normal_learns_forwards_and_forgets_as_open_vswitch(ovs: OpenVSwitch) -> None:
    """Hosts that move between ports and VLANs, and pauses that let addresses age."""
    rename = SetField("eth_src", 0x02000000AAAA)
    flows = (
        Flow(0, 1, match(), Instructions(apply=(Output(Port.NORMAL),))),
        Flow(
            0,
            2,
            match(in_port=4, vlan_vid=0),
            Instructions(apply=(rename, Output(Port.NORMAL))),
        ),
    )
    ovs.delete_flows()
    ovs.add_flows(flows)
    ovs.appctl("fdb/flush")
    dice, slow, now_s, seen = random.Random(f"{SEED}-normal"), SlowSwitch(flows, PORTS), 0.0, Counter[str]()
    for port, frame in packets(dice, count=600):
        if not dice.randrange(20):
            pause = dice.choice((1.0, 299.0, 302.0))
            ovs.advance(pause)
            now_s += pause
        ours = slow.receive(port, frame, now_s)
        if ours.drop is DropReason.MALFORMED:
            continue  # Open vSwitch would learn from it
        ovs.settle()
        theirs = ovs.inject(port, frame)
        seen[f"{len(ours.outputs)} ports"] += 1
        assert _same(ours, theirs), (port, frame.hex(), ours.outputs, theirs, now_s)
    assert min(seen["1 ports"], seen["3 ports"], seen["0 ports"]) > 20, seen


def test_a_reserved_group_address_is_not_forwarded_by_normal(ovs: OpenVSwitch) -> None:
    flows = (Flow(0, 1, match(), Instructions(apply=(Output(Port.NORMAL),))),)
    ovs.delete_flows()
    ovs.add_flows(flows)
    for target in (0x0180C2000000, 0x0180C200000F, 0x0180C2000010, 0x01005E000001):
        frame = target.to_bytes(6, "big") + bytes.fromhex("02000000000188b5") + bytes(46)
        assert _same(SlowSwitch(flows, PORTS).receive(1, frame, 0.0), ovs.inject(1, frame)), hex(target)


def test_a_meter_drops_what_exceeds_its_burst(ovs: OpenVSwitch) -> None:
    """The clock stands still, so that a burst of three is three packets."""
    band = Band(BandType.DROP, rate=1, burst=3)
    flows = (
        Flow(0, 1, match(), Instructions(meter=1, apply=(Output(2),), goto=1)),
        Flow(1, 1, match(), Instructions(apply=(Output(3),))),
    )
    ovs.delete_flows()
    ovs.add_meters([Meter(1, MeterFlag.PKTPS | MeterFlag.BURST, (band,))])
    ovs.add_flows(flows)
    passed = iter((None, None, None, band, band))
    slow = SlowSwitch(flows, PORTS, meters=lambda _meter, _length, _now_s: next(passed))
    frame = bytes.fromhex("02000000000202000000000188b5") + bytes(46)
    outcomes_ = [(slow.receive(1, frame, 0.0), ovs.inject(1, frame)) for _ in range(5)]
    assert all(_same(ours, theirs) for ours, theirs in outcomes_), outcomes_
    assert [ours.drop for ours, _ in outcomes_] == [None, None, None, DropReason.RATE, DropReason.RATE]
