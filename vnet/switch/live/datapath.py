"""The eBPF dataplane as the agent's `Datapath`: carries out staged writes, reads counters and events.

All calls are made from one thread at a time. Whatever happens to this process, packets go on being
decided by the version that `control.version` names.
"""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from vnet.base.errors import HostError
from vnet.openflow.flow import Action, Flow
from vnet.openflow.group import Group, Meter
from vnet.openflow.message import BadRequest, ErrorType, MeterModFailed, PortConfig
from vnet.switch import abi
from vnet.switch.abi import PortFlag
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
from vnet.switch.live import adoption, attach, bpf
from vnet.switch.live.counters import RuleCounters
from vnet.switch.live.maps import PinnedSwitch
from vnet.switch.live.netns import inside
from vnet.switch.live.writer import Writer
from vnet.switch.lower import lower, lower_group, lower_packet_out
from vnet.switch.placed import Staged

DEFAULT_CONN_QUOTA = 16384
DEFAULT_MAC_QUOTA = 4096
LINK_UP = 0x10001
"""IFF_UP and IFF_LOWER_UP (linux/if.h): switched on, and a TAP is being read, a veth's peer is up. The
operational state tells the same up to a second later."""
PACKET_OUT_BYTES = 3500
"""What BPF_PROG_TEST_RUN takes: a page without head- and tailroom (net/bpf/test_run.c)."""

_GET_FLAGS, _GET_MTU = 0x8913, 0x8921
"""SIOCGIFFLAGS, SIOCGIFMTU (linux/sockios.h)."""
_RUNNING = 0x41
"""IFF_UP and IFF_RUNNING."""

_FLAG_OF = {
    PortConfig.NO_RECV: PortFlag.NO_RECV,
    PortConfig.NO_FWD: PortFlag.NO_FWD,
    PortConfig.NO_PACKET_IN: PortFlag.NO_PACKET_IN,
}

_TIDY_CONNS, _TIDY_ZONE, _TIDY_MACS, _TIDY_AGED = 1, 2, 4, 8
_ALL_ZONES = 0x10000
_NOTHING = bytes(14)
"""A frame for programs that look at none."""


class EbpfDatapath:
    """One switch in the kernel. Create or adopt with `open`."""

    def __init__(self, name: str, netns: str | None, pinned: PinnedSwitch) -> None:
        self.name, self.netns, self._pinned = name, netns, pinned
        self._map = pinned.map
        self._grace = bpf.GracePeriod()
        self._ring = bpf.RingBuffer(self._map["events"].fd)
        self._control = self._map["control"].window()
        self._writer = Writer(self._map)
        self._rule_counters = RuleCounters(self._map)
        self._retired: dict[int, int] = {}
        """Packets matched by flows that are gone, by table."""
        self._numbers = self._attached_numbers()
        self._image = adoption.read(self._map, tuple(self._numbers))
        self._in_doubt = False
        """Whether a change could not be carried out, and what is in force not be read afterwards."""
        self._cookies = {placed.rule: placed.flow.cookie for placed in self._image.placed.values()}
        """By rule number; that of a rule that is gone stays until its number is used again."""

    @classmethod
    def open(cls, name: str, netns: str | None, pin_dir: Path) -> EbpfDatapath:
        """Adopt what is pinned under `pin_dir`, or create it. Raises HostError."""
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
        staged = self._image.stage(change)
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
        self._grace.wait()
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
        counters = {}
        for number in self._numbers:
            raw = self._map["port_counters"].index(number) or b""
            values = struct.unpack(f"<{len(raw) // 8}Q", raw)
            rx, rx_bytes, dropped, tx, tx_bytes, tx_dropped = (sum(values[field::6]) for field in range(6))
            counters[number] = PortCounter(Counter(rx, rx_bytes), Counter(tx, tx_bytes), dropped, tx_dropped)
        return counters

    # ports

    def _attached_numbers(self) -> dict[int, int]:
        """Interface index by port number, as the maps say."""
        indexes = self._map["port_by_ifindex"].items()
        return dict(
            sorted(
                (int.from_bytes(number, "little"), int.from_bytes(ifindex, "little"))
                for ifindex, number in indexes
            )
        )

    def _port(self, number: int) -> abi.Port:
        return abi.Port.from_buffer_copy(self._map["ports"].index(number) or b"")

    def attach(self, number: int, ifname: str) -> None:
        """Make an interface of the namespace the port `number`; one that already is stays untouched."""
        if not 0 < number < abi.PORTS:
            raise HostError(f"port number {number}: 1…{abi.PORTS - 1} are possible")
        with inside(self.netns):
            ifindex = _ifindex(ifname)
            for other, index in tuple(self._numbers.items()):
                if (other == number) != (index == ifindex):  # either has become another since
                    self.detach(other)
            try:
                self._open_port(number, ifindex)
            except HostError:
                self._close_port(number, ifindex)
                self._numbers.pop(number, None)
                raise
        if number not in self._numbers:
            self._numbers[number] = ifindex
            self._reflood()

    def _open_port(self, number: int, ifindex: int) -> None:
        if self._port(number).ifindex != ifindex:
            up, mtu = _link(ifindex)
            flags = PortFlag.UP | PortFlag.LIVE if up else PortFlag.UP
            port = abi.Port(ifindex, flags, DEFAULT_CONN_QUOTA, DEFAULT_MAC_QUOTA, mtu)
            self._map["ports"].set(number, bytes(port))
        self._map["port_by_ifindex"].update(struct.pack("<I", ifindex), struct.pack("<I", number))
        if ifindex < abi.LOW_IFINDEX:
            self._map["port_of"].set(ifindex, struct.pack("<I", number))
        attach.attach(self._pinned.program, ifindex, self._pinned.links / str(number))

    def _close_port(self, number: int, ifindex: int) -> None:
        self._map["ports"].set(number, bytes(abi.Port()))
        self._map["port_by_ifindex"].delete(struct.pack("<I", ifindex))
        if ifindex < abi.LOW_IFINDEX:
            self._map["port_of"].set(ifindex, struct.pack("<I", 0))

    def detach(self, number: int) -> None:
        """Close a port: its interface is left without a program, what was learnt from it is forgotten."""
        ifindex = self._numbers.pop(number, None)
        if ifindex is None:
            return
        self._close_port(number, ifindex)
        with inside(self.netns):
            attach.detach(ifindex, self._pinned.links / str(number))
        self._map["port_counters"].set(number, bytes(self._map["port_counters"].value_size))
        self._tidy(_TIDY_CONNS | _TIDY_MACS, number)
        self._reflood()

    def _reflood(self) -> None:
        """Put the new set of ports in force for what outputs to all of them."""
        self._image.ports = tuple(sorted(self._numbers))
        self._commit(Change())

    def ports(self) -> tuple[SwitchPort, ...]:
        """The ports attached now; one whose interface is gone is reported down."""
        from pyroute2 import IPRoute

        with inside(self.netns), IPRoute() as route:
            links = {link["index"]: link for link in route.get_links()}
        found, changed = [], False
        for number, ifindex in sorted(self._numbers.items()):
            link = links.get(ifindex)
            up = link is not None and link["flags"] & LINK_UP == LINK_UP
            changed |= self._note_link(number, up, link.get("mtu") or 0 if link is not None else 0)
            config = self._config(number)
            if link is None:
                found.append(SwitchPort(number, f"gone{number}", 0, False, config))
                continue
            mac = int((link.get("address") or "0").replace(":", ""), 16)
            alive = up and not config & PortConfig.PORT_DOWN
            found.append(SwitchPort(number, link.get("ifname"), mac, alive, config))
        if changed and self._image.groups:
            self._commit(Change())  # which bucket of a group is live is remembered with paths
        return tuple(found)

    def _note_link(self, number: int, up: bool, mtu: int) -> bool:
        """Tell the dataplane of a port's link; whether it has come or gone."""
        port = self._port(number)
        was_up = bool(port.flags & PortFlag.LIVE)
        if was_up == up and port.mtu == mtu:
            return False
        port.flags = PortFlag(port.flags) | PortFlag.LIVE if up else PortFlag(port.flags) & ~PortFlag.LIVE
        port.mtu = mtu
        self._map["ports"].set(number, bytes(port))
        if was_up and not up:
            self._tidy(_TIDY_MACS, number)
        return was_up != up

    def _config(self, number: int) -> PortConfig:
        """OFPPC_* of a port, as its flags say."""
        flags = self._port(number).flags
        config = PortConfig(0) if flags & PortFlag.UP else PortConfig.PORT_DOWN
        for bit, flag in _FLAG_OF.items():
            config |= bit if flags & flag else PortConfig(0)
        return config

    def configure_port(self, number: int, config: PortConfig) -> None:
        """Put OFPPC_* of a port in force."""
        if number not in self._numbers:
            raise HostError(f"no port {number} to configure")
        port = self._port(number)
        flags = PortFlag(port.flags) & (PortFlag.LIVE | PortFlag.CAPTURE)
        flags |= PortFlag(0) if config & PortConfig.PORT_DOWN else PortFlag.UP
        for bit, flag in _FLAG_OF.items():
            flags |= flag if config & bit else PortFlag(0)
        port.flags = flags
        self._map["ports"].set(number, bytes(port))
        if config & PortConfig.PORT_DOWN:
            self._tidy(_TIDY_MACS, number)
        self._commit(Change())  # paths remember groups' live buckets

    # clearing away

    def _tidy(self, what: int, port: int = 0, zone: int = _ALL_ZONES) -> None:
        context = bpf.SkBuff()
        context.cb[0], context.cb[1], context.cb[2] = what, port, zone
        bpf.run(self._pinned.programs["vnet_tidy"], _NOTHING, context)

    def tidy(self) -> None:
        """Clear away what has aged; nothing depends on it but room."""
        self._tidy(_TIDY_AGED)

    def flush_connections(self, zone: int | None = None) -> None:
        """Forget the connections of a zone, or all."""
        self._tidy(_TIDY_ZONE, zone=_ALL_ZONES if zone is None else zone)

    def flush_addresses(self) -> None:
        """Forget which addresses were learnt where."""
        self._tidy(_TIDY_MACS, port=abi.NO_PORT)

    # observation

    @property
    def event_fd(self) -> int:
        """Readable when `read_events` has something to return."""
        return self._ring.fd

    def read_events(self) -> list[PacketEvent]:
        """Drain the ring buffer, each event with the cookies of the rules that it met."""
        events = [decode(record) for record in self._ring.read()]
        return [replace(e, cookies=tuple(self._cookies.get(rule, 0) for rule in e.rules)) for e in events]

    def watch(self, ports: frozenset[int], snaplen: int = 65535) -> None:
        """Capture exactly these ports; an empty set costs nothing."""
        self._control[2] = snaplen
        for number in self._numbers:
            port = self._port(number)
            flags = PortFlag(port.flags) & ~PortFlag.CAPTURE
            port.flags = flags | PortFlag.CAPTURE if number in ports else flags
            self._map["ports"].set(number, bytes(port))

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

    def run(self, in_port: int, frame: bytes) -> tuple[int, bytes, bpf.SkBuff]:
        """Run the loaded program on a packet, with all its effects but the last redirect.

        Returns (tc verdict, packet, context); `cb[0]` is the port of the redirect, `cb[1]` the drop
        reason. A tag that the kernel keeps beside the packet is put into its bytes.
        """
        with inside(self.netns):
            context = bpf.SkBuff(ifindex=self._numbers[in_port])
            verdict, packet, after, _ = bpf.run(self._pinned.program, frame, context)
        if after.vlan_present:
            tag = struct.pack("!HH", socket.ntohs(after.vlan_proto), after.vlan_tci)
            packet = packet[:12] + tag + packet[12:]
        return verdict, packet, after

    # end

    def close(self) -> None:
        """Let go; everything stays pinned and in force."""
        self._release()
        self._pinned.close()

    def _release(self) -> None:
        self._writer.close()
        self._control.release()
        self._ring.close()
        self._grace.close()

    def destroy(self) -> None:
        """Take the switch out of the kernel: ports closed first, then everything unpinned."""
        with contextlib.suppress(HostError), inside(self.netns):
            for number, ifindex in self._numbers.items():
                attach.detach(ifindex, self._pinned.links / str(number))
        self._release()
        self._pinned.destroy()


def _ifindex(ifname: str) -> int:
    try:
        return socket.if_nametoindex(ifname)
    except OSError as error:
        raise HostError(f"no interface {ifname} to make a port of: {error.strerror}") from error


def _link(ifindex: int) -> tuple[bool, int]:
    """Whether an interface has a carrier, and its MTU (netdevice(7)); asked in its namespace."""
    name = socket.if_indextoname(ifindex).encode()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        flags = struct.unpack_from("<H", fcntl.ioctl(any_socket, _GET_FLAGS, name.ljust(32, b"\0")), 16)[0]
        mtu = struct.unpack_from("<i", fcntl.ioctl(any_socket, _GET_MTU, name.ljust(32, b"\0")), 16)[0]
    return flags & _RUNNING == _RUNNING, mtu
