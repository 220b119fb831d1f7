"""Commits, counters, adoption and failure of the eBPF datapath."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.bpf.bench import Bench
from tests.fakes.memory_maps import index_keys
from tests.waiting import until
from vnet.base.drop import DropReason
from vnet.base.errors import HostError
from vnet.openflow import cookie
from vnet.openflow.flow import (
    Flow,
    Instructions,
    Move,
    Output,
    OutputField,
    Port,
    PushVlan,
    SetField,
    ToGroup,
    match,
)
from vnet.openflow.group import Bucket, Group, GroupType
from vnet.switch import abi
from vnet.switch.abi import Point
from vnet.switch.datapath import Change, Counter, Refused
from vnet.switch.live import attach, bpf, maps
from vnet.switch.live.datapath import EbpfDatapath
from vnet.switch.live.netns import inside
from vnet.switch.staging import stage

FRAME = bytes.fromhex("02000000000202000000000188b5") + bytes(50)
OTHER = bytes.fromhex("02000000000302000000000188b5") + bytes(50)
MAC2, MAC3 = 0x020000000002, 0x020000000003


def to(port: int, priority: int = 10, table: int = 0, **wanted: int | tuple[int, int]) -> Flow:
    return Flow(table, priority, match(**wanted), Instructions((Output(port),)))


def test_new_switch_drops_everything(bench: Bench) -> None:
    assert bench.decide(1, FRAME).drop is DropReason.TABLE_MISS


def test_port_that_was_never_attached_is_closed(bench: Bench) -> None:
    bench.load([to(2)])
    bench.datapath.detach(1)
    with pytest.raises(KeyError):
        bench.decide(1, FRAME)


def test_higher_priority_wins_under_another_mask(bench: Bench) -> None:
    bench.load([to(2, 10, in_port=1), to(3, 20, eth_dst=MAC2)])
    assert bench.decide(1, FRAME).outputs == ((3, None),)
    assert bench.decide(1, OTHER).outputs == ((2, None),)


def test_flow_hidden_by_an_equal_match_takes_over_when_it_goes(bench: Bench) -> None:
    low, high = to(2, 10, in_port=1), to(3, 20, in_port=1)
    bench.load([low, high])
    assert bench.decide(1, FRAME).outputs == ((3, None),)
    bench.load([low])
    assert bench.decide(1, FRAME).outputs == ((2, None),)


def test_cached_path_does_not_outlive_its_rules(bench: Bench) -> None:
    bench.load([to(2, in_port=1)])
    for _ in range(3):
        assert bench.decide(1, FRAME).outputs == ((2, None),)
    bench.load([to(3, in_port=1)])
    assert bench.decide(1, FRAME).outputs == ((3, None),)
    bench.load([])
    assert bench.decide(1, FRAME).drop is DropReason.TABLE_MISS


def test_flow_counters_are_exact_for_cached_packets_too(bench: Bench) -> None:
    flow = to(2, in_port=1)
    bench.load([flow])
    for _ in range(7):
        bench.decide(1, FRAME)
    assert bench.datapath.flow_counters()[flow.key] == Counter(7, 7 * len(FRAME))
    assert bench.datapath.table_counters()[0].lookups == 7
    assert bench.datapath.table_counters()[0].matched == 7


def test_replaced_flow_keeps_its_counters_and_removed_one_starts_anew(bench: Bench) -> None:
    flow, changed = to(2, in_port=1), to(3, in_port=1)
    bench.load([flow])
    bench.decide(1, FRAME)
    bench.datapath.commit(Change(put=(changed,)))
    assert bench.datapath.flow_counters()[flow.key].packets == 1
    bench.decide(1, FRAME)
    assert bench.datapath.flow_counters()[flow.key].packets == 2
    bench.datapath.commit(Change(put=(flow,), remove=(flow.key,)))
    assert bench.datapath.flow_counters()[flow.key].packets == 0


def test_drop_names_the_reason_of_the_flows_cookie(bench: Bench) -> None:
    bench.load([Flow(0, 1, cookie=cookie.make("test", DropReason.SPOOF_MAC))])
    assert bench.decide(1, FRAME).drop is DropReason.SPOOF_MAC
    bench.datapath.watch(frozenset())
    bench.datapath.run(1, FRAME)
    (event,) = [e for e in bench.datapath.read_events() if e.point is Point.DROP]
    assert (event.port, event.reason, event.data) == (1, DropReason.SPOOF_MAC, FRAME)
    assert event.cookie == cookie.make("test", DropReason.SPOOF_MAC)
    assert bench.datapath.drop_counters() == {DropReason.SPOOF_MAC: 2}


def test_packet_that_no_rule_saw_is_told_with_nothing_of_the_one_before(bench: Bench) -> None:
    """Metadata and registers say whose rules a packet met: it would be put down to them."""
    flow = Flow(0, 1, match(), Instructions(metadata=(0xABCD, 0xFFFF)))
    bench.load([flow])
    bench.datapath.run(1, FRAME)
    bench.datapath.run(1, bytes.fromhex("0200000000020200000000010800") + bytes(50))  # no IP
    told = [(e.reason, e.metadata) for e in bench.datapath.read_events() if e.point is Point.DROP]
    assert told == [(DropReason.RULE, 0xABCD), (DropReason.MALFORMED, 0)]


def test_drops_beyond_the_rate_are_counted_not_reported(bench: Bench) -> None:
    for _ in range(2000):
        bench.datapath.run(1, FRAME)
    reported = len(bench.datapath.read_events())
    assert 0 < reported < 2000
    assert reported + bench.datapath.lost_events()[Point.DROP] == 2000
    counted = bench.datapath.drop_counters()
    assert set(counted) <= {DropReason.TABLE_MISS, DropReason.REFUSAL_QUOTA}
    assert sum(counted.values()) == 2000


def test_captured_port_reports_whole_packets_with_their_verdict(bench: Bench) -> None:
    big = FRAME + bytes(1400)
    bench.load([to(2, in_port=1)])
    bench.datapath.watch(frozenset({1, 2}))
    bench.datapath.run(1, big)
    bench.datapath.watch(frozenset())
    bench.datapath.run(1, big)
    events = bench.datapath.read_events()
    assert [(e.point, e.port, e.dropped, e.data) for e in events] == [
        (Point.GUEST, 1, False, big),
        (Point.DELIVERED, 2, False, big),
    ]


@pytest.fixture
def filled(bench: Bench) -> tuple[Bench, list[Flow]]:
    flows = [
        to(2, 10, in_port=1),
        to(3, 20, eth_dst=MAC3),
        to(2, 5, in_port=1),
        Flow(3, 7, match(eth_type=0x806)),
    ]
    flows.append(Flow(0, 4, match(in_port=3), Instructions((Output(4), Output(5), Output(6)))))
    flows.append(Flow(0, 3, match(in_port=4), Instructions((Output(Port.FLOOD),))))
    bench.load(flows)
    return bench, flows


def test_restarted_agent_finds_its_flows_in_the_kernel(filled: tuple[Bench, list[Flow]]) -> None:
    bench, flows = filled
    before = bench.decide(1, FRAME), bench.decide(3, FRAME), bench.decide(4, FRAME)
    version = bench.datapath.version
    bench.restart()
    assert bench.datapath.adopted
    assert set(bench.datapath.flows()) == set(flows)
    assert bench.datapath.version == version, "adoption changes nothing"
    assert (bench.decide(1, FRAME), bench.decide(3, FRAME), bench.decide(4, FRAME)) == before
    bench.load(flows[1:3])
    assert bench.decide(1, FRAME).outputs == ((2, None),)
    assert bench.decide(3, FRAME).drop is DropReason.TABLE_MISS


def test_flood_reaches_every_port_but_the_ingress(filled: tuple[Bench, list[Flow]]) -> None:
    bench, _ = filled
    assert bench.decide(4, FRAME).outputs == tuple((port, None) for port in range(1, 9) if port != 4)
    bench.datapath.detach(8)
    assert bench.decide(4, FRAME).outputs == tuple((port, None) for port in range(1, 8) if port != 4)


@pytest.mark.parametrize("writes", range(10))
def test_agent_killed_while_writing_leaves_the_old_rules(
    filled: tuple[Bench, list[Flow]], monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    """The writer fails after `writes` map updates: nothing of the change may ever be seen."""
    bench, flows = filled
    from vnet.switch.live.bpf import Map

    left, update = [writes], Map.update

    def failing(self: Map, key: bytes, value: bytes) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise HostError("killed")
        update(self, key, value)

    change = Change(put=(to(7, 30, in_port=1), to(7, 30, eth_dst=MAC3)), remove=(flows[0].key, flows[3].key))
    monkeypatch.setattr(Map, "update", failing)
    with pytest.raises(HostError, match="killed"):
        bench.datapath.commit(change)
    monkeypatch.undo()
    assert bench.decide(1, FRAME).outputs == ((2, None),)
    bench.restart()
    assert set(bench.datapath.flows()) == set(flows)
    bench.datapath.commit(Change(put=(to(4, 40, in_port=8),)))  # the next version must not reveal leftovers
    assert bench.decide(1, FRAME).outputs == ((2, None),)
    assert bench.decide(1, OTHER).outputs == ((3, None),)
    bench.datapath.commit(change)
    assert bench.decide(1, FRAME).outputs == ((7, None),)


@pytest.mark.parametrize("step", ["flip", "wait", "clean"])
def test_failure_after_the_flip_is_no_doubt_about_what_is_in_force(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    from vnet.switch.live.bpf import Map
    from vnet.switch.live.quiescence import Quiescence

    def failing(*_: object) -> None:
        raise HostError("no")

    old, new = to(2, in_port=1), to(3, eth_dst=MAC2)
    bench.load([old])
    target, name = {"flip": (Map, "update"), "wait": (Quiescence, "wait"), "clean": (Map, "delete")}[step]
    monkeypatch.setattr(target, name, failing)
    with pytest.raises(HostError):
        bench.datapath.commit(Change(put=(new,), remove=(old.key,)))
    monkeypatch.undo()
    bench.datapath.commit(Change(put=(to(4, in_port=8),)))
    assert set(bench.datapath.flows()) == {old if step == "flip" else new, to(4, in_port=8)}
    assert bench.decide(1, FRAME).outputs == ((2 if step == "flip" else 3, None),)
    bench.load([new])
    assert len(index_keys(bench.datapath._map)) == 1


def test_nothing_of_a_change_shows_before_the_flip_even_to_new_packets(bench: Bench) -> None:
    """Packets that no cache knows, so that they meet the tables as they are being written."""
    bench.load([to(2, in_port=1)])
    datapath = bench.datapath
    staged = stage(datapath._image, Change(put=(to(3, in_port=1), to(4, 20, eth_dst=MAC3))))
    datapath._writer.write(staged)
    assert [bench.decide(1, frame).outputs for frame in (FRAME, OTHER)] == [((2, None),)] * 2
    datapath._control[0] = staged.version
    assert [bench.decide(1, frame).outputs for frame in (FRAME, OTHER)] == [((3, None),), ((4, None),)]
    bench.restart()


def test_commit_waits_for_packets_in_flight_between_flip_and_cleaning(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vnet.switch.live.quiescence import Quiescence

    flow, waited = to(2, in_port=1), list[tuple[int, int]]()
    bench.load([flow])
    before = bench.datapath.version
    wait = Quiescence.wait

    def noted(self: Quiescence) -> None:
        waited.append((bench.datapath.version, len(index_keys(bench.datapath._map))))
        wait(self)

    monkeypatch.setattr(Quiescence, "wait", noted)
    bench.datapath.commit(Change(remove=(flow.key,)))
    assert waited == [(before + 1, 1)], "the new version is in force, the old key is still there"
    assert index_keys(bench.datapath._map) == set()


@pytest.mark.parametrize("how", ["unknown interface", "down"])
def test_closed_port_lets_nothing_in_whatever_the_flows_say(bench: Bench, how: str) -> None:
    bench.load([to(2, 1)])
    maps = bench.datapath._map
    if how == "down":
        port = abi.Port.from_buffer_copy(maps["ports"].index(1) or b"")
        maps["ports"].set(1, bytes(abi.Port(ifindex=port.ifindex)))
    else:
        maps["port_of"].set(bench.datapath._ports.ifindexes[1], bytes(4))
    assert bench.decide(1, FRAME).drop is DropReason.PORT_CLOSED


def test_forged_neighbour_does_not_pass_on_a_cached_path(bench: Bench) -> None:
    """What words 8-11 tell apart, the sender's hardware address and the target, is not in the cache's key."""
    bench.load(
        [
            to(2, 10, eth_type=0x806, arp_sha=MAC2),
            to(2, 10, eth_type=0x86DD, ip_proto=58, icmpv6_type=135, ipv6_nd_target=5),
        ]
    )
    for mac, drop in ((MAC2, None), (MAC2, None), (MAC3, DropReason.TABLE_MISS)):
        arp = struct.pack("!HHBBH6sI6sI", 1, 0x800, 6, 4, 1, mac.to_bytes(6, "big"), 1, bytes(6), 2)
        assert bench.decide(1, FRAME[:12] + bytes.fromhex("0806") + arp).drop is drop
    for target, drop in ((5, None), (5, None), (6, DropReason.TABLE_MISS)):
        message = bytes.fromhex("8700000000000000") + target.to_bytes(16, "big")
        header = struct.pack("!IHBB", 6 << 28, len(message), 58, 255) + bytes(32)
        assert bench.decide(1, FRAME[:12] + bytes.fromhex("86dd") + header + message).drop is drop


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_closed_switch_holds_no_descriptor(bench: Bench) -> None:
    bench.load([to(2, in_port=1)])
    bench.restart()
    before = open_descriptors()
    for _ in range(5):
        bench.restart()
    assert open_descriptors() == before
    kept = bench.datapath
    kept.close()
    assert open_descriptors() < before - 20
    bench.open()


def test_switch_of_another_layout_is_replaced_and_holds_no_more_descriptors(bench: Bench) -> None:
    """What the successor carries over, tests/net/test_upgrade.py tells."""
    flow = Flow(0, 5, match(in_port=1), Instructions((Output(2),)))
    bench.load([flow])
    bench.datapath.close()
    before, control = open_descriptors(), bpf.Map(bpf.get(bench.pins / "control"))
    told = abi.Control.from_buffer_copy(control.index(0) or b"")
    version, told.layout = told.version, 99
    control.set(0, bytes(told))
    control.close()
    bench.open()
    assert bench.datapath.adopted
    assert (bench.datapath.flows(), bench.datapath.version) == ((flow,), version + 1)
    bench.datapath.close()
    assert open_descriptors() == before
    bench.open()


def test_switch_that_does_not_tell_its_layout_is_refused_and_left_alone(bench: Bench) -> None:
    bench.datapath.close()
    plain = bpf._libbpf().bpf_map_create(2, b"plain", 4, ctypes.sizeof(abi.Control), 1, None)
    (bench.pins / "control").unlink()
    bpf.pin(plain, bench.pins / "control")
    os.close(plain)
    before = open_descriptors(), sorted(bench.pins.iterdir())
    try:
        with pytest.raises(HostError, match="does not tell what its map control holds"):
            bench.open()
        assert (open_descriptors(), sorted(bench.pins.iterdir())) == before
    finally:
        maps.remove(bench.pins)
        bench.open()


def test_leftovers_of_a_killed_daemon_are_swept(bench: Bench) -> None:
    for what in ("new", "gone"):
        (bench.pins.parent / f"{bench.pins.name}+{what}-1" / "links").mkdir(parents=True)
    bench.restart()
    assert [path for path in bench.pins.parent.iterdir() if "+" in path.name] == []


def test_interface_that_is_not_there_cannot_be_a_port(bench: Bench) -> None:
    with pytest.raises(HostError, match="no interface nothing"):
        bench.datapath.attach(9, "nothing")
    assert len(bench.datapath.ports()) == 8


def test_port_that_cannot_be_attached_stays_closed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> None:
        raise HostError("no")

    bench.load([to(9, in_port=1)])
    monkeypatch.setattr(attach, "attach", failing)
    with pytest.raises(HostError):
        bench.datapath.attach(9, "q1")
    monkeypatch.undo()
    assert bench.decide(1, FRAME).drop is DropReason.NO_PORT
    assert len(bench.datapath.ports()) == 8


class Killed(BaseException):
    """Stands for SIGKILL: nobody catches it."""


@pytest.mark.parametrize("doing", ["attach", "detach"])
@pytest.mark.parametrize("killed_at", range(6))
def test_agent_killed_while_a_port_is_made_or_removed_leaves_none_that_is_dead(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, doing: str, killed_at: int
) -> None:
    """What a new agent finds as a port carries packets; what it does not can be made one, with any number."""
    bench.load([to(2, in_port=1), to(2, in_port=9), to(2, in_port=11)])
    left = [killed_at]

    def until_killed(function: Callable[..., object]) -> Callable[..., object]:
        def step(*arguments: object) -> object:
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return function(*arguments)

        return step

    with monkeypatch.context() as patch:
        steps = ((bpf.Map, "update"), (bpf.Map, "delete"), (bpf, "attach_tcx"), (bpf, "pin"),
                 (bpf, "detach_link"), (Path, "unlink"))  # fmt: skip
        for owner, name in steps:
            patch.setattr(owner, name, until_killed(getattr(owner, name)))
        number, ifname = (9, "q1") if doing == "attach" else (1, "p1")
        with suppress(Killed):
            bench.datapath.attach(9, "q1") if doing == "attach" else bench.datapath.detach(1)
    bench.restart()
    found = {port.number for port in bench.datapath.ports()}
    assert {path.name for path in (bench.pins / "links").iterdir()} == {str(port) for port in found}
    if number not in found:
        bench.datapath.attach(number := 11, ifname)
    assert bench.decide(number, FRAME).outputs == ((2, None),)


def test_tag_is_written_only_where_there_is_one(bench: Bench) -> None:
    """Set-Field and Move neither make a tag nor take it away."""
    tagged = FRAME[:12] + bytes.fromhex("8100a007") + FRAME[12:]
    bench.load([Flow(0, 1, match(in_port=1), Instructions((SetField("vlan_vid", 9), Output(2))))])
    assert bench.decide(1, FRAME).outputs == ((2, None),)
    assert bench.decide(1, tagged).outputs == ((2, 0xA009),)
    move = Instructions((SetField("reg0", 9), Move("reg0", "vlan_vid", 13), Output(2)))
    bench.load([Flow(0, 1, match(in_port=1), move)])
    assert bench.decide(1, FRAME).outputs == ((2, None),)
    assert bench.decide(1, tagged).outputs == ((2, 0xA009),)


@pytest.mark.parametrize("offset", [0, 2])
def test_port_zero_is_not_the_port_of_a_packet_that_has_none(bench: Bench, offset: int) -> None:
    """A later fragment has no ports: a match on any port, 0 too, passes it by."""
    bench.load([to(2, 10, eth_type=0x800, ip_proto=17, udp_dst=0), to(3, 1)])
    header = struct.pack("!BBHHHBBHII", 0x45, 0, 44, 1, offset, 64, 17, 0, 0x0A000001, 0x0A000002)
    frame = FRAME[:12] + bytes.fromhex("0800") + header + bytes(24)
    assert bench.decide(1, frame).outputs == ((3 if offset else 2, None),)


def test_neighbour_discovery_without_its_option_matches_address_zero(bench: Bench) -> None:
    """Linux answers a unicast solicitation without the option: the guard must know it from a forged one."""
    bench.load([to(2, 10, eth_type=0x86DD, ip_proto=58, icmpv6_type=136, ipv6_nd_tll=0), to(3, 1)])
    option = bytes.fromhex("0201020000000009")
    for options, port in ((b"", 2), (option, 3), (bytes.fromhex("0201000000000000") + option, 2)):
        message = bytes.fromhex("8800000000000000") + bytes(16) + options
        header = struct.pack("!IHBB", 6 << 28, len(message), 58, 255) + bytes(32)
        frame = FRAME[:12] + bytes.fromhex("86dd") + header + message
        assert bench.decide(1, frame).outputs == ((port, None),)


def test_output_to_a_narrow_field_is_that_field_only(bench: Bench) -> None:
    push = (PushVlan(), SetField("vlan_vid", 0x1003), OutputField("vlan_pcp"))
    tagged = FRAME[:12] + bytes.fromhex("8100a007") + FRAME[12:]
    bench.load(
        [
            Flow(0, 1, match(in_port=1), Instructions((OutputField("vlan_pcp"),))),
            Flow(0, 1, match(in_port=2), Instructions(push)),
        ]
    )
    assert bench.decide(1, tagged).outputs == ((5, 0xA007),)
    assert bench.decide(2, FRAME).drop is not None, "priority 0 is no port"


def test_output_to_a_part_of_a_field_is_that_part_only(bench: Bench) -> None:
    of_register = (SetField("reg3", 0xA5B), OutputField("reg3", 4, 4))
    of_metadata = Instructions((SetField("metadata", 0x7_0006), OutputField("metadata", 0, 16)))
    bench.load(
        [Flow(0, 1, match(in_port=1), Instructions(of_register)), Flow(0, 1, match(in_port=2), of_metadata)]
    )
    for _ in range(2):  # the second comes out of the cache
        assert bench.decide(1, FRAME).outputs == ((5, None),)
        assert bench.decide(2, FRAME).outputs == ((6, None),)


def test_change_that_does_not_fit_changes_nothing(bench: Bench) -> None:
    bench.load([to(2, in_port=1)])
    many = tuple(to(3, 10, eth_dst=(1 << bit, (1 << bit) | (1 << 47))) for bit in range(47))
    many += tuple(to(3, 10, eth_src=(1 << bit, (1 << bit) | (1 << 47))) for bit in range(47))
    with pytest.raises(Refused, match="64 are allowed"):
        bench.datapath.commit(Change(put=many))
    assert set(bench.datapath.flows()) == {to(2, in_port=1)}
    assert bench.decide(1, FRAME).outputs == ((2, None),)


def test_maps_are_the_same_after_a_change_and_back(bench: Bench) -> None:
    """Law 5, for what packets can reach: the same decisions and the same number of entries."""
    flows = [to(2, 10, in_port=1), to(3, 20, eth_dst=MAC3)]
    bench.load(flows)
    entries = index_keys(bench.datapath._map)
    for extra in range(1, 9):
        bench.load([*flows, *(to(4, 30 + n, in_port=n, eth_src=n) for n in range(1, extra + 1))])
    bench.load(flows)
    assert index_keys(bench.datapath._map) == entries
    texts = {struct.unpack("<II", key)[0] for key, _ in bench.datapath._map["rule_text"].items()}
    assert len(texts) == len(flows)


def test_packet_out_to_the_tables_is_decided_by_them(bench: Bench) -> None:
    flow = to(2, in_port=1)
    bench.load([flow])
    bench.datapath.packet_out(1, (Output(Port.TABLE),), FRAME)
    assert bench.datapath.flow_counters()[flow.key].packets == 1


def test_filter_of_kernels_without_tcx_attaches_the_same_program(bench: Bench) -> None:
    import socket

    with inside(bench.netns):
        ifindex = socket.if_nametoindex("q1")
        for _ in range(2):
            attach.attach_filter(bench.datapath._pinned.program, ifindex)
        from pyroute2 import IPRoute

        with IPRoute() as route:
            names = [
                f.get_attr("TCA_OPTIONS").get_attr("TCA_BPF_NAME")
                for f in route.get_filters(ifindex, parent=0xFFFFFFF2)
                if f.get_attr("TCA_OPTIONS")
            ]
        assert names == [attach.FILTER_NAME], "a restarted daemon replaces its filter"
        assert attach._has_filter(ifindex)
        attach.detach(ifindex, bench.pins / "links" / "none")
        assert not attach._has_filter(ifindex)
        with IPRoute() as route:
            assert not route.get_filters(ifindex, parent=0xFFFFFFF2)


def test_port_whose_program_was_taken_off_is_bare_until_it_is_attached_again(bench: Bench) -> None:
    assert bench.datapath.bare_ports() == frozenset()
    (bench.pins / "links" / "1").unlink()
    until(lambda: bench.datapath.bare_ports() == {1})  # the kernel lets go of the link when it comes to it
    bench.datapath.attach(1, next(port.name for port in bench.datapath.ports() if port.number == 1))
    assert bench.datapath.bare_ports() == frozenset()


def test_switch_that_was_closed_is_destroyed_and_nobody_elses_files_with_it(bench: Bench) -> None:
    bench.datapath.close()
    bench.datapath.close()
    others = [os.open("/dev/null", os.O_RDONLY) for _ in range(100)]  # take the numbers that became free
    bench.datapath.destroy()
    for other in others:
        os.close(other)
    assert not bench.pins.exists()
    bench.open()
    assert not bench.datapath.adopted
    assert bench.datapath.ports() == ()


def test_what_leaves_by_a_captured_port_names_its_rules_also_when_its_path_is_remembered(
    bench: Bench,
) -> None:
    other = Flow(0, 9, match(in_port=3), Instructions((Output(4),)), cookie=0x9)
    bench.load([Flow(0, 5, match(in_port=1), Instructions((Output(2),)), cookie=0x5), other])
    bench.datapath.watch(frozenset({2, 4}))
    for port in (1, 3, 1, 3, 1):  # each time after a packet that met another rule
        bench.datapath.read_events()
        bench.datapath.run(port, FRAME)
        (event,) = bench.datapath.read_events()
        assert event.cookie == {1: 0x5, 3: 0x9}[port]


def test_a_packet_that_is_too_long_is_counted_once_also_when_its_path_is_remembered(bench: Bench) -> None:
    bench.load([Flow(0, 5, match(in_port=1), Instructions((Output(2),)), cookie=0x5)])
    bench.datapath.watch(frozenset())
    bench.datapath.run(1, FRAME)
    for number in (1, 2, 3):
        bench.datapath.read_events()
        _, _, after = bench.datapath.run(1, FRAME + bytes(3000))
        (event,) = bench.datapath.read_events()
        assert (after.cb[1], event.cookie) == (DropReason.MTU, 0x5)
        assert bench.datapath.port_counters()[2].tx_dropped == number
        assert bench.datapath.port_counters()[1].rx_dropped == number


def test_a_group_that_needs_one_that_is_not_there_is_refused_and_changes_nothing(bench: Bench) -> None:
    before = bench.datapath.version
    with pytest.raises(Refused, match="no group 7"):
        bench.load([], [Group(3, GroupType.ALL, (Bucket((ToGroup(7),)),))])
    assert bench.datapath.version == before
    bench.load([], [Group(3, GroupType.ALL, (Bucket((Output(1),)),))])
    assert [group.number for group in bench.datapath.groups()] == [3]


def test_a_switch_whose_layout_number_is_rubbish_is_made_anew_with_its_rules(bench: Bench) -> None:
    bench.load([to(2, in_port=1)])
    bench.datapath._control[1] ^= 0x5A5A5A5A
    bench.restart()
    assert bench.datapath.flows() == (to(2, in_port=1),)
    assert bench.decide(1, FRAME).outputs == ((2, None),)


@pytest.mark.parametrize("layout", [0, 0x5A5A5A5A], ids=["this layout", "another layout"])
def test_a_switch_with_half_a_text_is_refused_in_words_and_goes_on(bench: Bench, layout: int) -> None:
    bench.load([Flow(0, 9, match(in_port=1), Instructions((*[SetField("reg0", 1)] * 20, Output(2))))])
    texts = bench.datapath._map["rule_text"]
    chunk = next(key for key, _ in texts.items() if struct.unpack("<II", key)[1] == 1)
    value = texts.lookup(chunk) or b""
    texts.delete(chunk)
    bench.datapath._control[1] ^= layout
    whole = bench.datapath
    try:
        with pytest.raises(HostError, match="cannot be read back"):
            EbpfDatapath.open("bench", bench.netns, bench.pins)
        assert bench.decide(1, FRAME).outputs == ((2, None),)
    finally:
        whole._control[1] ^= layout
        texts.update(chunk, value)
