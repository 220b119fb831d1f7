"""The whole corpus on compiled flows, decided by the slow interpreter: nothing gets through, and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import pytest

from tests.unit.drill.slow import SlowTwin, acting, nic, numbers, opened, three_tier
from vnet.base.drop import DropReason
from vnet.drill.attack import Attack, Control, NotTried, Step
from vnet.drill.control import controls
from vnet.drill.corpus import corpus
from vnet.drill.groups import CONTROL, GROUPS
from vnet.drill.run import BY_HOST, Observed, Outcome, Result, drill
from vnet.fabric.declared import Declared
from vnet.openflow import cookie
from vnet.openflow.flow import Flow, Instructions, match
from vnet.policy.pipeline import Stage

NICS = [(three_tier, name) for name in ("web-1.eth0", "app.eth1", "intruder.eth0")]
NICS += [(opened, name) for name in ("a.eth0", "b.eth0", "x.eth0")]
QUICK = tuple(group for group in GROUPS if group != "flood")


def drilled(
    declared: Declared, name: str, flows: Iterable[Flow] | None = None, only: tuple[str, ...] = ()
) -> list[Outcome]:
    twin = SlowTwin(declared.compiled.flows if flows is None else flows, numbers(declared))
    scene = acting(declared, name)
    return list(drill(twin, controls(scene), corpus(scene, only), lambda: False))


@pytest.mark.parametrize(("fabric", "name"), NICS, ids=lambda value: value if isinstance(value, str) else "")
def test_nothing_gets_through_and_the_controls_arrive(fabric, name: str) -> None:
    outcomes = drilled(fabric(), name, only=QUICK)
    assert [one for one in outcomes if one.result in (Result.GOT_THROUGH, Result.LOST)] == []
    alone = name == "x.eth0"
    assert any(one.result is Result.ARRIVED for one in outcomes) is not alone
    assert sum(one.result is Result.STOPPED for one in outcomes) > 300


def test_where_all_is_open_every_attack_is_tried() -> None:
    untried = {
        one.what: one.note
        for one in drilled(opened(), "a.eth0", only=QUICK)
        if one.result is Result.NOT_TRIED
    }
    assert untried == {}


def test_every_guard_stops_some_attack() -> None:
    """All drops of tables 0 to 4 that packets of this NIC can meet."""
    declared = opened()
    twin, scene = SlowTwin(declared.compiled.flows, numbers(declared)), acting(declared, "a.eth0")
    for _ in drill(twin, controls(scene), corpus(scene), lambda: False):
        pass
    own = nic(declared, "a.eth0").port
    guards = {
        flow.cookie
        for flow in declared.compiled.flows
        if flow.table <= Stage.CONNECTION
        and flow.instructions == Instructions()
        and (flow.match.get("in_port") or (own, 0))[0] == own
    }
    unmet = {declared.compiled.provenance[cookie].key for cookie in guards - twin.dropped_by}
    here_never = {"fabric isolated"}  # there is no isolated network
    assert unmet == {"fabric admit", "fabric source_guard", "fabric connection", "fabric probe"} | here_never


def without(flows: Iterable[Flow], reason: DropReason, table: Stage) -> list[Flow]:
    return [flow for flow in flows if flow.table != table or cookie.reason(flow.cookie) is not reason]


def believed(declared: Declared, name: str, stage: Stage, **wanted: int) -> Flow:
    """A flow that takes what a NIC says for true."""
    where = match(in_port=nic(declared, name).port, **wanted)
    return Flow(int(Stage.SOURCE_GUARD), 900, where, Instructions(goto=int(stage)))


def through(outcomes: Iterable[Outcome]) -> set[str]:
    return {one.what for one in outcomes if one.result is Result.GOT_THROUGH}


def test_without_the_guard_against_servers_their_offers_get_through() -> None:
    declared = opened()
    flows = without(declared.compiled.flows, DropReason.ROGUE_DHCP, Stage.SOURCE_GUARD)
    found = through(drilled(declared, "a.eth0", flows, ("dhcp",)))
    assert {"offer as a server", "offer from another port", "DHCPv6 reply from another port"} <= found
    assert "discovers of 64 clients" not in found


def test_without_the_guard_of_arp_poison_gets_through() -> None:
    declared = opened()
    flows = [*declared.compiled.flows, believed(declared, "a.eth0", Stage.NEIGHBOUR, eth_type=0x0806)]
    found = through(drilled(declared, "a.eth0", flows, ("arp",)))
    assert {"a reply as the gateway", "gratuitous ARP as a neighbour"} <= found


def test_without_the_guard_of_sources_forged_ones_get_through() -> None:
    declared = opened()
    flows = [*declared.compiled.flows, believed(declared, "a.eth0", Stage.DESTINATION, eth_type=0x0800)]
    found = through(drilled(declared, "a.eth0", flows, ("ipv4",)))
    assert {"as a neighbour", "as the gateway", "as 127.0.0.1"} <= found
    assert "IHL 4" not in found


def test_without_the_rule_for_strangers_their_errors_get_through() -> None:
    declared = opened()
    flows = [
        replace(flow, instructions=Instructions(goto=int(Stage.DELIVER)))
        if declared.compiled.provenance[flow.cookie].key == "fabric error"
        else flow
        for flow in declared.compiled.flows
    ]
    found = through(drilled(declared, "a.eth0", flows, ("icmp",)))
    assert "port unreachable about neighbours' connection, IPv4" in found
    assert "packet too big about neighbours' connection, IPv6" in found


def test_a_port_that_is_dead_does_not_pass() -> None:
    declared = three_tier()
    outcomes = drilled(declared, "web-1.eth0", (), QUICK)
    assert through(outcomes) == set()
    assert {one.result for one in outcomes if one.group == CONTROL} == {Result.LOST}


# -- one by one ---------------------------------------------------------------------------------


class Told:
    """A twin that gives the answers it was told to give."""

    def __init__(self, *answers: Observed) -> None:
        self.answers = list(answers)
        self.sent: list[Step] = []

    def send(self, step: Step) -> Observed:
        self.sent.append(step)
        return self.answers.pop(0)

    def forget(self) -> None:
        pass


FRAMES = (b"one", b"two")
SPOOFED: Mapping[DropReason, int] = {DropReason.SPOOF_IP: 2}


def attacked(*answers: Observed, harmless: int = 0, may_pass: int = 0) -> Outcome:
    steps = tuple(Step("a", FRAMES, harmless=n < harmless) for n in range(len(answers)))
    attack = Attack("ipv4", "as a neighbour", "RFC 2827", steps, may_pass)
    (outcome,) = drill(Told(*answers), (), [attack], lambda: False)
    return outcome


def test_an_attack_that_is_dropped_whole_is_stopped_with_its_reasons() -> None:
    outcome = attacked(Observed(2, 0, SPOOFED, {DropReason.SPOOF_IP: 77}))
    assert (outcome.result, outcome.sent, outcome.passed) == (Result.STOPPED, 2, 0)
    assert (outcome.reasons, outcome.cookie) == ({"SPOOF_IP": 2}, 77)


@pytest.mark.parametrize(
    "seen",
    [
        Observed(2, 0, {DropReason.SPOOF_IP: 1}),  # one is unaccounted for
        Observed(2, 0, SPOOFED, arrived={"b": 1}),  # it arrived, whatever is said
        Observed(2, 0, {DropReason.NO_PORT: 2}),  # to a port that nobody stands in for
        Observed(2, 0, {DropReason.SPOOF_IP: 1, DropReason.NO_PORT: 1}),
    ],
)
def test_what_is_not_known_to_be_dropped_got_through(seen: Observed) -> None:
    assert attacked(seen).result is Result.GOT_THROUGH


def test_frames_that_the_host_does_not_take_are_stopped() -> None:
    outcome = attacked(Observed(2, 2))
    assert (outcome.result, outcome.reasons) == (Result.STOPPED, {BY_HOST: 2})


def test_what_a_harmless_step_sends_may_arrive() -> None:
    arrived = Observed(2, 0, {}, {}, {"b": 2})
    assert attacked(arrived, Observed(2, 0, SPOOFED), harmless=1).result is Result.STOPPED
    assert attacked(Observed(2, 0, SPOOFED), arrived, harmless=1).result is Result.GOT_THROUGH


def test_a_flood_is_stopped_if_no_more_arrives_than_may() -> None:
    half = Observed(2, 0, {DropReason.CT_QUOTA: 1}, arrived={"b": 1})
    assert attacked(half, may_pass=1).result is Result.STOPPED
    assert attacked(half).result is Result.GOT_THROUGH


def test_the_reason_that_most_were_dropped_for_comes_first() -> None:
    reasons = {DropReason.SPOOF_IP: 1, DropReason.NO_DST: 3}
    outcome = attacked(Observed(4, 0, reasons, {DropReason.SPOOF_IP: 1, DropReason.NO_DST: 2}))
    assert (list(outcome.reasons), outcome.cookie) == (["NO_DST", "SPOOF_IP"], 2)


def test_a_control_must_arrive_at_its_receiver() -> None:
    control = Control("ARP request", Step("a", FRAMES[:1]), "b")
    for arrived, result in (({"b": 1}, Result.ARRIVED), ({"c": 1}, Result.LOST), ({}, Result.LOST)):
        (outcome,) = drill(Told(Observed(1, arrived=arrived)), [control], (), lambda: False)
        assert outcome.result is result


def test_what_cannot_be_tried_says_why_and_sends_nothing() -> None:
    twin = Told()
    missing = NotTried("icmp", "errors", "RFC 5927", "nobody talks")
    attack = Attack("ipv4", "as a neighbour", "RFC 2827", (Step("a", FRAMES),))
    notes = [one.note for one in drill(twin, (), [missing, attack], lambda: True)]
    assert (notes, twin.sent) == (["nobody talks", "out of time"], [])
