"""The laws of the plan, on generated states that share numbers and names."""

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vnet.base.limits import Limits
from vnet.base.line import STRAIGHT, Impairment, Line, rate_of
from vnet.fabric import actions as act
from vnet.fabric.guest_changes import how
from vnet.fabric.mirror import Mirror
from vnet.fabric.plan import plan
from vnet.fabric.state import (
    Attached,
    Cable,
    Endpoint,
    Gateway,
    Guest,
    GuestNic,
    NetworkService,
    Port,
    State,
    ifname,
    remnant,
)
from vnet.hv.built import built_for
from vnet.hv.changing import How
from vnet.openflow.flow import Flow, match
from vnet.services.dhcp import Files
from vnet.services.gateway import Forwarding
from vnet.topology.endpoints import EndpointKind, EndpointSpec
from vnet.topology.model import ToFile

PORTS = [Port(number, name) for number in (1, 2, 3) for name in ("a.eth0", "b.eth0", "c.eth0")]
BY = (lambda port: port.number, lambda port: port.ifname)
TAP, NETNS = EndpointSpec(EndpointKind.TAP, "tap0"), EndpointSpec(EndpointKind.NETNS, "blue", device="eth0")
FLOWS = [Flow(table, 10, match(in_port=1), cookie=cookie) for table in (0, 1) for cookie in (1, 2)]


SERVICES = {"lan": Port(8, "@lan"), "wan": Port(9, "@wan")}
GATEWAYS = {"gw": Port(10, "~gw"), "edge": Port(14, "~edge")}

CABLES = [
    Cable(uplink, interface, Port(number, f"={uplink}"))
    for uplink in ("campus", "lab")
    for interface in ("eth1", "eth2")
    for number in (12, 13)
]


def each_once(cables):
    """No two of an uplink, of an interface, or at a port."""
    keys = [key for each in cables for key in (each.uplink, each.interface, each.port.number)]
    return len(keys) == len(set(keys))


@st.composite
def states(draw):
    if not draw(st.booleans()):
        return State()
    ports = frozenset(draw(st.lists(st.sampled_from(PORTS), max_size=3, unique_by=BY)))
    limits = st.sampled_from([Limits(), Limits(connections=10)])
    mtus = st.sampled_from([1500, 9000])
    lines = st.sampled_from([STRAIGHT, Line(inward=rate_of(10**6)), Line(impairment=Impairment(delay_us=5))])
    attached = frozenset(
        Attached(port, draw(limits), draw(mtus), draw(lines)) for port in ports if draw(st.booleans())
    )
    flows = frozenset(draw(st.lists(st.sampled_from(FLOWS), max_size=2, unique_by=lambda flow: flow.key)))
    images, sizes = st.sampled_from(["micro", "micro", "other"]), st.sampled_from([64 << 20, 128 << 20])
    extra = [Port(20, "a.eth1"), Port(21, "b.eth1")]
    more = {port.ifname[0]: port for port in extra if draw(st.booleans())}
    ports |= frozenset(more.values())
    built = built_for(1, 64 << 20, 1, "kvm")
    guests = frozenset(
        Guest(
            name,
            draw(images),
            draw(st.sampled_from([1, 2])),
            draw(sizes),
            tuple(
                GuestNic(f"eth{number}", each, 1, (draw(st.sampled_from(["10.0.0.1/24", "10.0.1.1/24"])),))
                for number, each in enumerate([port, *([more[name]] if name in more else [])])
            ),
            changed_from=draw(st.sampled_from([None, None, None, Guest(name, "micro", 1, 64 << 20, ())])),
            built=draw(st.sampled_from([None, built])),
        )
        for port in sorted(ports - set(more.values()))
        for name in [port.ifname.partition(".")[0]]
        if draw(st.booleans())
    )
    mirrors = frozenset(
        Mirror(name, "a:eth0", "both", (1,), (), draw(st.sampled_from(["", "tcp"])), 1, ToFile(name))
        for name in draw(st.sets(st.sampled_from(["x", "y"])))
    )
    services = frozenset(
        NetworkService(name, port, 1, (), Files(draw(st.sampled_from(["x", "y"])), "", ""))
        for name, port in SERVICES.items()
        if draw(st.booleans())
    )
    attached |= {Attached(each.port) for each in services if draw(st.booleans())}
    gateways = frozenset(
        Gateway(name, port, 1, Forwarding(device=draw(st.sampled_from(["host0", "eth1"]))))
        for name, port in GATEWAYS.items()
        if draw(st.booleans())
    )
    attached |= {Attached(each.port) for each in gateways if draw(st.booleans())}
    cables = draw(st.frozensets(st.sampled_from(CABLES)).filter(each_once))
    attached |= {Attached(each.port) for each in cables if draw(st.booleans())}
    endpoints = frozenset(
        draw(
            st.sampled_from(
                [Endpoint(name, port, TAP), Endpoint(name, port, NETNS, mac=draw(st.integers(0, 1)))]
            )
        )
        for port in frozenset(draw(st.lists(st.sampled_from(PORTS), max_size=2, unique_by=BY)))
        for name in [port.ifname.partition(".")[0]]
        if {port.number, port.ifname}.isdisjoint(key for each in ports for key in (each.number, each.ifname))
    )
    attached |= {Attached(each.port) for each in endpoints if draw(st.booleans())}
    return State(True, True, ports, attached, flows, guests, mirrors, services, gateways, cables, endpoints)


def test_the_port_of_a_service_made_again_of_what_is_left_is_attached_again():
    service = NetworkService("lan", SERVICES["lan"], 1, (), Files("x", "", ""))
    wanted = State(True, True, attached=frozenset({Attached(service.port)}), services=frozenset({service}))
    now = replace(wanted, services=frozenset({remnant("lan")}))
    assert plan(now, wanted) == (act.PutService(service), act.AttachPort(service.port))


@given(states(), states())
def test_a_plan_leads_from_the_one_state_to_the_other(now, wanted):
    assert act.apply(plan(now, wanted), now) == wanted


@st.composite
def changes(draw):
    """A state, and another one whose guests have other sizes, addresses or images."""
    now = draw(states().filter(lambda state: state.guests))
    images, sizes = st.sampled_from(["micro", "micro", "other"]), st.sampled_from([64 << 20, 96 << 20])
    addresses = st.sampled_from([("10.0.0.1/24",), ("10.0.9.1/24",)])
    guests = frozenset(
        replace(
            guest,
            image=draw(images),
            cpus=draw(st.integers(1, 2)),
            memory_bytes=draw(sizes),
            nics=tuple(replace(nic, addresses=draw(addresses)) for nic in guest.nics),
            changed_from=None,
        )
        for guest in sorted(now.guests)
    )
    return now, replace(now, guests=guests)


@given(changes())
def test_a_plan_makes_of_guests_that_run_what_they_should_be_and_starts_none_that_can_go_on(both):
    now, wanted = both
    actions = plan(now, wanted)
    assert act.apply(actions, now) == wanted
    ways = {guest.name: how(guest, wanted.guest(guest.name)) for guest in now.guests}
    for action in actions:
        if isinstance(action, act.ChangeGuest | act.RestartGuest | act.StartGuest):
            kinds = {
                How.LIVE: act.ChangeGuest,
                How.RESTART: act.RestartGuest,
                How.RECREATE: act.StartGuest,
            }
            in_place = action.guest.ports <= now.ports
            assert not in_place or isinstance(action, kinds[ways[action.guest.name]])


@given(states())
def test_nothing_is_planned_where_nothing_differs(state):
    assert plan(state, state) == ()


@given(states(), states(), st.sets(st.sampled_from("abc")))
def test_guests_that_were_suspended_end_with_their_memory_kept(now, wanted, suspended):
    actions = plan(now, wanted, suspended)
    assert act.apply(actions, now) == wanted
    ends = [action for action in actions if isinstance(action, act.SuspendGuest | act.DestroyGuest)]
    assert [action.guest for action in ends] == [
        action.guest for action in plan(now, wanted) if isinstance(action, act.DestroyGuest)
    ]
    assert all(isinstance(each, act.SuspendGuest) == (each.guest.name in suspended) for each in ends)


@given(states(), states())
def test_no_number_and_no_name_is_ever_used_twice(now, wanted):
    state = now
    for action in plan(now, wanted):
        state = act.step(action, state)
        assert len({each.port.number for each in state.attached}) == len(state.attached)
        assert len({port.ifname for port in state.ports}) == len(state.ports)
        assert len({guest.name for guest in state.guests}) == len(state.guests)


@given(states(), states())
def test_a_guest_starts_only_when_its_rules_are_enforced_and_its_ports_are_there(now, wanted):
    state = now
    for action in plan(now, wanted):
        if isinstance(action, act.StartGuest | act.RestartGuest | act.ChangeGuest):
            assert state.flows == wanted.flows
            assert action.guest.ports <= state.ports
        state = act.step(action, state)


@given(states(), states())
def test_a_port_is_removed_only_after_its_guest(now, wanted):
    state = now
    for action in plan(now, wanted):
        if isinstance(action, act.RemovePort):
            assert not any(action.port in guest.ports for guest in state.guests)
        state = act.step(action, state)


@given(states(), states())
def test_no_guest_runs_on_with_a_port_that_was_made_after_it(now, wanted):
    running = set(now.guests)
    for action in plan(now, wanted):
        match action:
            case act.DestroyGuest(guest):
                running.discard(guest)
            case act.ChangeGuest(was, guest):
                running = (running - {was}) | {guest}
            case act.RestartGuest(was, guest):
                running.discard(was)
            case act.CreatePort(port):
                assert all(port not in guest.ports for guest in running)


def test_a_running_guest_whose_port_was_removed_by_hand_is_made_again():
    port = Port(1, "a.eth0")
    guest = Guest("a", "micro", 1, 1, (GuestNic("eth0", port, 1, ()),))
    attached = frozenset({Attached(port)})
    wanted = State(True, True, frozenset({port}), attached, frozenset(), frozenset({guest}))
    now = State(True, True, guests=frozenset({guest}))
    expected = ["re-create a", "create port a.eth0", "attach port a.eth0 as number 1", "start a"]
    assert [str(action) for action in plan(now, wanted)] == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"memory_bytes": 128 << 20}, ["change a while it runs: memory 64M → 128M"]),
        ({"memory_bytes": 48 << 20, "cpus": 2}, ["restart a"]),
        ({"image": "other", "cpus": 2}, ["re-create a", "start a"]),
    ],
)
def test_a_guest_is_changed_restarted_or_made_again_as_the_change_takes(change, expected):
    port = Port(1, "a.eth0")
    built = built_for(1, 64 << 20, 1, "kvm")
    guest = Guest("a", "micro", 1, 64 << 20, (GuestNic("eth0", port, 1, ()),), built=built)
    ports, attached = frozenset({port}), frozenset({Attached(port)})
    now, wanted = (
        State(True, True, ports, attached, frozenset(), frozenset({each}))
        for each in (guest, replace(guest, **change))
    )
    assert [str(action) for action in plan(now, wanted)] == expected


def test_a_new_nic_has_its_port_and_rules_before_the_guest_sees_it_and_keeps_its_port_until_it_is_out():
    ports = [Port(1, "a.eth0"), Port(2, "a.eth1")]
    nics = tuple(GuestNic(f"eth{n}", port, n, ()) for n, port in enumerate(ports))
    one, two = (
        State(
            True,
            True,
            frozenset(ports[:count]),
            frozenset(map(Attached, ports[:count])),
            frozenset(FLOWS[:count]),
            frozenset({Guest("a", "micro", 1, 1, nics[:count], built=built_for(1, 1, 1, "kvm"))}),
        )
        for count in (1, 2)
    )
    assert [type(action) for action in plan(one, two)] == [
        act.CreatePort,
        act.AttachPort,
        act.ApplyFlows,
        act.ChangeGuest,
    ]
    assert [type(action) for action in plan(two, one)] == [
        act.ApplyFlows,
        act.ChangeGuest,
        act.DetachPort,
        act.RemovePort,
    ]


def test_a_guest_whose_change_was_broken_off_is_restarted_even_if_nothing_else_differs():
    guest = Guest("a", "micro", 1, 64 << 20, (), built=built_for(1, 64 << 20, 0, "kvm"))
    half = replace(guest, changed_from=guest)
    now, wanted = (State(True, True, guests=frozenset({each})) for each in (half, guest))
    assert plan(now, wanted) == (act.RestartGuest(half, guest),)


def test_another_rate_is_one_live_action_that_touches_neither_port_nor_guest():
    port, slow, quick = Port(1, "a.eth0"), Line(outward=rate_of(10**7)), Line(outward=rate_of(10**8))
    now, wanted = (
        State(True, True, frozenset({port}), frozenset({Attached(port, line=line)})) for line in (slow, quick)
    )
    assert plan(now, wanted) == (act.LayLine(port, quick),)
    assert str(plan(now, wanted)[0]) == "rate of port a.eth0: out 100M/s"
    none = replace(wanted, attached=frozenset({Attached(port)}))
    assert plan(wanted, none) == (act.LayLine(port, STRAIGHT),)


def line_at(state, port):
    attached = state.attachment(port)
    return attached.line if attached else STRAIGHT


@given(states(), states())
def test_no_new_guest_runs_before_its_nics_have_their_rates(now, wanted):
    state = now
    for action in plan(now, wanted):
        if isinstance(action, act.StartGuest):
            assert all(line_at(state, port) == line_at(wanted, port) for port in action.guest.ports)
        state = act.step(action, state)


def test_another_limit_is_one_live_action_that_touches_neither_port_nor_guest():
    port = Port(1, "a.eth0")
    guests = frozenset({Guest("a", "micro", 1, 1, (GuestNic("eth0", port, 1, ()),))})
    now, wanted = (
        State(
            True, True, frozenset({port}), frozenset({Attached(port, Limits(connections=n))}), guests=guests
        )
        for n in (10, 20)
    )
    assert plan(now, wanted) == (act.LimitPort(port, Limits(connections=20)),)


def test_a_long_interface_name_is_shortened_and_stays_unique():
    names = {ifname(f"frontend-proxy-{n}.eth0") for n in range(100)}
    assert len(names) == 100
    assert max(map(len, names)) <= 15
    assert ifname("web-1.eth0") == "web-1.eth0"


@given(states(), states())
def test_a_service_has_its_port_attached_only_while_it_is_there(now, wanted):
    state = now
    for action in plan(now, wanted):
        if isinstance(action, act.AttachPort) and action.port.ifname.startswith("@"):
            assert action.port in {service.port for service in state.services}
        if isinstance(action, act.RemoveService):
            assert action.service.port not in state.plugged
        state = act.step(action, state)


@given(states(), states())
def test_a_gateway_has_its_port_attached_only_while_it_is_there(now, wanted):
    state = now
    for action in plan(now, wanted):
        if isinstance(action, act.AttachPort) and action.port.ifname.startswith("~"):
            assert action.port in {gateway.port for gateway in state.gateways}
        if isinstance(action, act.RemoveGateway):
            assert action.gateway.port not in state.plugged
        state = act.step(action, state)


def test_a_plan_says_where_a_gateway_leads():
    by_host = Gateway("gw", Port(1, "~gw"), 1, Forwarding(device="host0", host=("169.254.1.0/31",)))
    by_cable = Gateway("gw", Port(1, "~gw"), 1, Forwarding(device="eth1"))
    told = [
        str(each) for each in (act.PutGateway(by_host), act.PutGateway(by_cable), act.RemoveGateway(by_host))
    ]
    assert told == [
        "forward for router gw by the host",
        "forward for router gw by eth1",
        "forward for router gw no more",
    ]


@given(states(), states())
def test_a_cable_is_a_port_only_while_the_fabric_has_it_and_none_is_taken_twice(now, wanted):
    state = now
    for action in plan(now, wanted):
        if isinstance(action, act.AttachPort) and action.port.ifname.startswith("="):
            assert action.port in {cable.port for cable in state.cables}
        if isinstance(action, act.PutCable | act.RemoveCable):
            assert not any(port.ifname == f"={action.cable.uplink}" for port in state.plugged)
        if isinstance(action, act.PutCable):
            assert state.namespace
        state = act.step(action, state)
        assert each_once(state.cables)


@given(states())
def test_the_host_has_its_interfaces_back_before_the_namespace_is_removed(now):
    state = now
    for action in plan(now, State()):
        if isinstance(action, act.RemoveNamespace):
            assert not state.cables
        state = act.step(action, state)


@given(states(), states())
@example(
    State(True, True, frozenset({Port(1, "a.eth0")})),
    State(True, True, endpoints=frozenset({Endpoint("a", Port(1, "a.eth0"), TAP)})),
)
def test_an_endpoint_has_its_port_attached_only_while_it_is_there(now, wanted):
    state = now
    for action in plan(now, wanted):
        after = act.step(action, state)
        there = state.ports | {each.port for each in state.endpoints}
        if isinstance(action, act.AttachPort) and "." in action.port.ifname:
            assert action.port in there
        if isinstance(action, act.RemoveEndpoint):
            assert action.endpoint.port not in state.plugged
        names = [port.ifname for port in after.ports] + [each.port.ifname for each in after.endpoints]
        assert len(set(names)) == len(names)
        state = after


def test_an_endpoint_in_a_namespace_gets_another_address_without_being_taken_out():
    port = Port(1, "box.eth0")
    old, new = (Endpoint("box", port, NETNS, 1, (address,)) for address in ("10.0.0.1/24", "10.0.0.2/24"))
    attached = frozenset({Attached(port)})
    now, wanted = (State(True, True, attached=attached, endpoints=frozenset({each})) for each in (old, new))
    assert plan(now, wanted) == (act.PutEndpoint(new),)


def test_an_endpoint_that_gets_another_name_goes_before_it_comes_again():
    old, new = (Endpoint(name, Port(number, f"{name}.eth0"), TAP) for number, name in ((1, "a"), (2, "b")))
    now, wanted = (
        State(True, True, attached=frozenset({Attached(each.port)}), endpoints=frozenset({each}))
        for each in (old, new)
    )
    told = [str(each) for each in plan(now, wanted)]
    assert told.index("detach endpoint a") < told.index("attach endpoint b: tap tap0")


def test_a_vm_that_becomes_an_endpoint_keeps_its_number_and_gets_another_interface():
    port = Port(1, "a.eth0")
    guest, endpoint = Guest("a", "micro", 1, 1, (GuestNic("eth0", port, 1, ()),)), Endpoint("a", port, TAP)
    vm = State(True, True, frozenset({port}), frozenset({Attached(port)}), guests=frozenset({guest}))
    there = State(True, True, attached=frozenset({Attached(port)}), endpoints=frozenset({endpoint}))
    assert [str(each) for each in plan(vm, there)] == [
        "remove a",
        "detach port a.eth0",
        "remove port a.eth0",
        "attach endpoint a: tap tap0",
        "attach port a.eth0 as number 1",
    ]
    assert [str(each) for each in plan(there, vm)] == [
        "detach port a.eth0",
        "detach endpoint a",
        "create port a.eth0",
        "attach port a.eth0 as number 1",
        "start a",
    ]


def test_another_interface_for_an_uplink_is_a_port_anew():
    old, new = (Cable("lab", interface, Port(11, "=lab")) for interface in ("eth1", "eth2"))
    attached = frozenset({Attached(Port(11, "=lab"))})
    now, wanted = (State(True, True, attached=attached, cables=frozenset({each})) for each in (old, new))
    assert [str(action) for action in plan(now, wanted)] == [
        "detach port =lab",
        "give the interface of uplink lab back",
        "take interface eth2 for uplink lab",
        "attach port =lab as number 11",
    ]
