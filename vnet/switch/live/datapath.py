"""The eBPF dataplane as the agent's `Datapath`: carries out staged writes, reads counters and events.

All calls are made from one thread at a time. Whatever happens to this process, packets go on being
decided by the version that `control.version` names.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections import Counter as Sizes
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from vnet.base.errors import HostError
from vnet.base.limits import Limits
from vnet.base.line import Line
from vnet.openflow import cookie as cookies
from vnet.openflow.conntrack import Direction
from vnet.openflow.flow import Action, Flow
from vnet.openflow.group import Group, Meter
from vnet.openflow.message import BadRequest, ErrorType, MeterModFailed, PortConfig
from vnet.switch import abi
from vnet.switch.connections import learnt, live
from vnet.switch.datapath import (
    Change,
    Counter,
    FlowKey,
    GroupCounter,
    MeterCounter,
    MeterKey,
    PortCounter,
    Refused,
    SwitchPort,
    TableCounter,
)
from vnet.switch.events import PacketEvent, decode
from vnet.switch.live import adoption, bpf, gauges, migration
from vnet.switch.live.attached import AttachedPorts
from vnet.switch.live.counters import RuleCounters
from vnet.switch.live.maps import PinnedSwitch, ensure_bpffs
from vnet.switch.live.netns import inside
from vnet.switch.live.quiescence import Quiescence
from vnet.switch.live.sandbox import Sandbox, Source
from vnet.switch.live.taps import Taps
from vnet.switch.live.tidy import Tidier
from vnet.switch.live.writer import Writer
from vnet.switch.lower import lower, lower_group, lower_packet_out
from vnet.switch.numbers import SwitchNumbers
from vnet.switch.placed import Staged
from vnet.switch.staging import stage
from vnet.switch.taps import WHOLE, Tap, TapCount

PACKET_OUT_BYTES = 3500
"""What BPF_PROG_TEST_RUN takes: a page without head- and tailroom (net/bpf/test_run.c)."""


class EbpfDatapath:
    """One switch in the kernel. Create or adopt with `open`."""

    def __init__(self, name: str, netns: str | None, pinned: PinnedSwitch) -> None:
        self.name, self.netns, self._pinned = name, netns, pinned
        self._map = pinned.map
        self._closed = False
        self._quiescence = Quiescence()
        self._ring = bpf.RingBuffer(self._map["events"].fd)
        self._control = self._map["control"].window()
        self._writer = Writer(self._map)
        self._rule_counters = RuleCounters(self._map)
        self._retired: dict[int, int] = {}
        """Packets matched by flows that are gone, by table."""
        self._tidier = Tidier(pinned.programs["vnet_tidy"])
        self._ports = AttachedPorts(pinned, netns, self._tidier)
        self._taps = Taps(self._map, self._ports, self._control, self._quiescence.wait)
        self._image = adoption.read(self._map, self._ports.numbers)
        self._in_doubt = False
        """Whether a change could not be carried out, and what is in force not be read afterwards."""
        self._sized: tuple[int, Mapping[int, int]] = (-1, {})
        """A version of the rules, and how many flows each table has in it."""
        self._cookies = {placed.rule: placed.flow.cookie for placed in self._image.placed.values()}
        """By rule number; that of a rule that is gone stays until its number is used again."""

    @classmethod
    def open(cls, name: str, netns: str | None, pin_dir: Path) -> EbpfDatapath:
        """Adopt what is pinned under `pin_dir`, or create it. Raises HostError."""
        ensure_bpffs(pin_dir.parent)
        migration.bring_up_to_date(pin_dir, netns)
        pinned = PinnedSwitch(pin_dir)
        try:
            return cls(name, netns, pinned)
        except BaseException:
            pinned.close()
            raise

    @property
    def adopted(self) -> bool:
        """Whether the switch was already running."""
        return self._pinned.adopted

    @property
    def version(self) -> int:
        """The version of the rules in force."""
        return self._control[0]

    # flows

    def flows(self) -> tuple[Flow, ...]:
        """The flows in force."""
        return self._image.flows

    def groups(self) -> tuple[Group, ...]:
        """The groups in force."""
        return tuple(placed.group for placed in self._image.groups.values())

    def meters(self) -> tuple[Meter, ...]:
        """The meters in force."""
        return tuple(placed.meter for placed in self._image.meters.values())

    def check(self, flow: Flow) -> None:
        """Raise `Refused` if the flow cannot be carried out."""
        lower(flow)

    def check_group(self, group: Group) -> None:
        """Raise `Refused` if the group cannot be carried out."""
        lower_group(group)

    def check_meter(self, meter: Meter) -> None:
        """Raise `Refused` if the meter cannot be carried out."""
        if len(meter.bands) > abi.BANDS:
            code, why = MeterModFailed.OUT_OF_BANDS, f"{len(meter.bands)} bands; {abi.BANDS} fit"
            raise Refused(ErrorType.METER_MOD_FAILED, code, why, MeterKey(meter.number))

    def commit(self, change: Change) -> None:
        """Put a change in force. On return no packet is decided by what it superseded."""
        if change != Change():
            for meter in change.put_meters:
                self.check_meter(meter)
            self._commit(change)

    def _commit(self, change: Change) -> None:
        if self._in_doubt:
            self._learn()
        staged = stage(self._image, change)
        try:
            self._carry_out(staged, {flow.key for flow in change.put} - set(change.remove))
        except HostError:
            self._in_doubt = True
            self._learn()
            raise

    def _learn(self) -> None:
        """After a failure: what is in force now."""
        self._image = adoption.read(self._map, self._image.ports)
        self._in_doubt = False

    def _carry_out(self, staged: Staged, kept: set[FlowKey]) -> None:
        self._writer.write(staged)
        self._cookies |= {placed.rule: placed.flow.cookie for placed in staged.rules}
        self._control[0] = staged.version
        self._quiescence.wait()
        self._retire(staged, kept)
        self._writer.clean(staged)
        self._image.finish(staged)

    def _retire(self, staged: Staged, kept: set[FlowKey]) -> None:
        """Keep what retired rules counted."""
        counted = self._rule_counters.retire(staged.retired_rules)
        for placed in staged.retired:
            table, count = placed.flow.table, counted[placed.rule]
            successor = self._image.placed.get(placed.flow.key)
            if placed.flow.key in kept and successor is not None:
                self._rule_counters.carry_over(successor.rule, count)
            else:
                self._retired[table] = self._retired.get(table, 0) + count.packets

    # counters

    def _counted(self) -> list[Counter]:
        """By rule number, as far as numbers are in use."""
        rules = [placed.rule for placed in self._image.placed.values()]
        rules += [rule for placed in self._image.groups.values() for rule in placed.rules]
        return self._rule_counters.all(1 + max(rules, default=0))

    def flow_counters(self) -> Mapping[FlowKey, Counter]:
        """Packets and bytes of each flow since it was added."""
        counted = self._counted()
        return {key: counted[placed.rule] for key, placed in self._image.placed.items()}

    def group_counters(self) -> Mapping[int, GroupCounter]:
        """Packets and bytes of each group and its buckets."""
        counted = self._counted()
        return {
            number: GroupCounter(
                counted[placed.rule], tuple(counted[bucket.rule] for bucket in placed.buckets)
            )
            for number, placed in self._image.groups.items()
        }

    def meter_counters(self) -> Mapping[int, MeterCounter]:
        """What came to each meter, and what exceeded each of its bands."""
        counters = {}
        for number, placed in self._image.meters.items():
            first = placed.slot * (abi.BANDS + 1)
            total, *bands = (self._counter("meter_counters", first + n) for n in range(abi.BANDS + 1))
            counters[number] = MeterCounter(total, tuple(bands[: len(placed.meter.bands)]))
        return counters

    def _counter(self, name: str, index: int) -> Counter:
        raw = self._map[name].index(index) or b""
        numbers = struct.unpack(f"<{len(raw) // 8}Q", raw)
        return Counter(sum(numbers[::2]), sum(numbers[1::2]))

    def table_counters(self) -> Mapping[int, TableCounter]:
        """Lookups and matches of each table; a flow cache hit counts as the lookups it stands for."""
        matched = dict.fromkeys(range(abi.TABLES), 0) | self._retired
        counted = self._counted()
        for placed in self._image.placed.values():
            matched[placed.flow.table] += counted[placed.rule].packets
        return {
            table: TableCounter(hits + self._sum("table_misses", table), hits)
            for table, hits in matched.items()
        }

    def _sum(self, name: str, index: int) -> int:
        raw = self._map[name].index(index) or b""
        return sum(struct.unpack(f"<{len(raw) // 8}Q", raw))

    def drop_counters(self) -> Mapping[int, int]:
        """Packets lost by reason."""
        return {reason: count for reason in range(128) if (count := self._sum("drop_counters", reason))}

    def lost_events(self) -> Mapping[int, int]:
        """Events not reported, by observation point: the ring was full or the port over its rate."""
        return {point: self._sum("lost_events", point) for point in range(1, 5)}

    def port_counters(self) -> Mapping[int, PortCounter]:
        """By port number."""
        return self._ports.counters()

    def numbers(self) -> SwitchNumbers:
        """All that is cheap to count, at about the same moment; nothing of it depends on how many flows there
        are, but for the first time after they have changed."""
        if self._sized[0] != self.version:
            tables = (placed.flow.table for placed in self._image.placed.values())
            self._sized = self.version, Sizes(tables)
        return SwitchNumbers(
            gauges.ports(self._map, self._ports.numbers),
            self.drop_counters(),
            self.lost_events(),
            self._sized[1],
            gauges.paths(self._map),
        )

    # ports

    def attach(self, number: int, ifname: str, uplink: bool = False) -> None:
        """Make an interface of the namespace the port `number`; one that already is stays untouched.

        Args:
            uplink: whether many hosts are behind it, so that it has no quotas of its own.
        """
        with self._reflooding():
            self._ports.attach(number, ifname, uplink)
        self._taps.joined(number)

    def check_port(self, number: int, ifname: str) -> None:
        """Raise HostError if an interface cannot be this port, and change nothing."""
        self._ports.check(number, ifname)

    def limit(self, number: int, limits: Limits) -> None:
        """Let a port use so much of the switch from now on. Raises HostError if there is none."""
        self._ports.limit(number, limits)

    def limits(self) -> Mapping[int, Limits]:
        """By port number."""
        return self._ports.limits()

    def mtus(self) -> Mapping[int, int]:
        """In bytes, by port number, as the dataplane was told last."""
        return self._ports.mtus()

    def lay(self, number: int, line: Line) -> None:
        """Join a port to what stands behind it by such a line. Raises HostError if there is none."""
        self._ports.lay(number, line)

    def lines(self) -> Mapping[int, Line]:
        """By port number."""
        return self._ports.lines()

    def detach(self, number: int) -> None:
        """Close a port: its interface is left without a program, what was learnt from it is forgotten."""
        with self._reflooding():
            self._ports.detach(number)

    @contextlib.contextmanager
    def _reflooding(self) -> Iterator[None]:
        """Afterwards what outputs to all ports outputs to those that there are then."""
        before = dict(self._ports.ifindexes)
        try:
            yield
        finally:
            if self._ports.ifindexes != before:
                self._image.ports = self._ports.numbers
                self._commit(Change())

    def ports(self) -> tuple[SwitchPort, ...]:
        """The ports attached now; one whose interface is gone is reported down."""
        found, changed = self._ports.look()
        if changed and self._image.groups:
            self._commit(Change())  # which bucket of a group is live is remembered with paths
        return found

    def bare_ports(self) -> frozenset[int]:
        """The ports whose interface does not run the program: nothing comes in there."""
        return self._ports.bare()

    def hear_all(self, number: int) -> None:
        """Have a port's interface take frames for all MACs, as it is to once hosts are behind other ports."""
        self._ports.hear_all(number)

    def configure_port(self, number: int, config: PortConfig) -> None:
        """Put OFPPC_* of a port in force."""
        self._ports.configure(number, config)
        self._commit(Change())  # paths remember groups' live buckets

    # clearing away

    def tidy(self) -> None:
        """Clear away what has aged; nothing depends on it but room."""
        self._tidier.forget_aged()

    def connections(self) -> tuple[Direction, ...]:
        """The live connections, each as the packets of its client go."""
        used = abi.CtControl.from_buffer_copy(self._map["ct_control"].index(0) or b"").fresh
        raw = self._map["conns"].first(min(used, abi.CONNS)) if used else b""
        return tuple(live(raw, time.monotonic_ns()))

    def used_slots(self) -> int:
        """How many slots of the table of connections were ever used: the first ones."""
        used = abi.CtControl.from_buffer_copy(self._map["ct_control"].index(0) or b"").fresh
        return min(int(used), abi.CONNS)

    def slots(self, first: int, count: int) -> bytes:
        """A part of the table of connections, see `vnet.switch.connections.tracked`."""
        return self._map["conns"].part(first, count)

    def learnt(self) -> tuple[tuple[int, int, int, int], ...]:
        """The addresses that OFPP_NORMAL learnt, see `vnet.switch.connections.learnt`; aged ones too."""
        return tuple(learnt(entry for batch in self._map["macs"].batches() for entry in batch))

    def drops_by_cookie(self) -> Mapping[int, int]:
        """Packets that met a flow which gives a reason to drop them, by the flow's cookie."""
        counts: dict[int, int] = {}
        for key, counter in self.flow_counters().items():
            cookie = self._image.placed[key].flow.cookie
            if counter.packets and cookies.gives_reason(cookie):
                counts[cookie] = counts.get(cookie, 0) + counter.packets
        return counts

    def flush_connections(self, zone: int | None = None) -> None:
        """Forget the connections of a zone, or all."""
        self._tidier.forget_connections(zone)

    def flush_addresses(self) -> None:
        """Forget which addresses were learnt where."""
        self._tidier.forget_addresses()

    # observation

    @property
    def event_fd(self) -> int:
        """Readable when `read_events` has something to return."""
        return self._ring.fd

    def read_events(self) -> list[PacketEvent]:
        """Drain the ring buffer, each event with the cookies of the rules that it met."""
        events = [decode(record) for record in self._ring.read()]
        return [replace(e, cookies=tuple(self._cookies.get(rule, 0) for rule in e.rules)) for e in events]

    @property
    def taps(self) -> Mapping[int, Tap]:
        """Who is told of packets now, by number."""
        return self._taps.in_force

    def tap(self, taps: Mapping[int, Tap]) -> None:
        """Tell exactly these of packets; none costs nothing."""
        self._taps.put(taps)

    def tap_count(self, number: int) -> TapCount:
        """What became of the packets that a tap was asked about; for the thread that reads events."""
        return self._taps.count(number)

    def watch(self, ports: frozenset[int], snaplen: int = WHOLE) -> None:
        """Be told of all packets of exactly these ports."""
        self.tap({0: Tap(ports, snaplen_bytes=snaplen)} if ports else {})

    # packets of the controller

    def packet_out(self, in_port: int, actions: tuple[Action, ...], frame: bytes) -> None:
        """Carry out a controller's actions on its packet. Raises `Refused` for what cannot be done."""
        if len(frame) > PACKET_OUT_BYTES:
            why = f"a packet-out of {len(frame)} bytes; {PACKET_OUT_BYTES} are possible"
            raise Refused(ErrorType.BAD_REQUEST, BadRequest.BAD_PACKET, why)
        records = lower_packet_out(actions)
        self._image.check_references(records, None)
        self._writer.write_packet_out(records, self._image.references)
        with inside(self.netns):
            context = bpf.SkBuff()
            context.cb[0] = in_port
            bpf.run(self._pinned.programs["vnet_packet_out"], frame, context)

    def run(self, in_port: int, frame: bytes, repeat: int = 1) -> tuple[int, bytes, bpf.SkBuff]:
        """Run the loaded program on a packet, with all its effects but the last redirect.

        Returns (tc verdict, packet, context); `cb[0]` is the port of the redirect, `cb[1]` the drop
        reason. A tag that the kernel keeps beside the packet is put into its bytes.
        """
        with inside(self.netns):
            context = bpf.SkBuff(ifindex=self._ports.ifindexes[in_port])
            verdict, packet, after, _ = bpf.run(self._pinned.program, frame, context, repeat)
        if after.vlan_present:
            tag = struct.pack("!HH", socket.ntohs(after.vlan_proto), after.vlan_tci)
            packet = packet[:12] + tag + packet[12:]
        return verdict, packet, after

    def sandbox(self) -> Sandbox:
        """A copy of the switch to try packets in, which changes nothing here; the caller closes it."""
        flows = {placed.rule: placed.flow for placed in self._image.placed.values()}
        meters = tuple(placed.slot for placed in self._image.meters.values())
        entries = {number: self._ports.entry(number) for number in self._ports.numbers}
        return Sandbox(Source(self._map, self.netns, entries, flows, meters))

    # end

    def close(self) -> None:
        """Let go; everything stays pinned and in force. Closing again does nothing."""
        if not self._closed:
            self._closed = True
            self._writer.close()
            self._control.release()
            self._ring.close()
            self._quiescence.close()
            self._pinned.close()

    def destroy(self) -> None:
        """Take the switch out of the kernel, also a closed one: ports first, then everything unpinned."""
        with contextlib.suppress(HostError):
            self._ports.detach_programs()
        self.close()
        self._pinned.unpin()
