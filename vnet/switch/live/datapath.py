"""The eBPF dataplane as the agent's `Datapath`: carries out staged writes, reads counters and events.

All calls are made from one thread at a time. Whatever happens to this process, packets go on being
decided by the version that `control.version` names.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from vnet.base.errors import HostError
from vnet.openflow.flow import Action, Flow, Output, Port
from vnet.openflow.message import BadAction, ErrorType
from vnet.switch import abi
from vnet.switch.abi import PortFlag
from vnet.switch.datapath import Change, Counter, FlowKey, PortCounter, Refused, SwitchPort, TableCounter
from vnet.switch.events import PacketEvent, decode
from vnet.switch.image import Staged
from vnet.switch.live import adoption, attach, bpf
from vnet.switch.live.maps import PinnedSwitch
from vnet.switch.live.netns import inside
from vnet.switch.live.writer import Writer
from vnet.switch.lower import lower

DEFAULT_CONN_QUOTA = 16384
TC_ACT_REDIRECT = 7
LINK_UP = 0x10001
"""IFF_UP and IFF_LOWER_UP (linux/if.h): switched on, and a TAP is being read, a veth's peer is up. The
operational state tells the same up to a second later."""


class EbpfDatapath:
    """One switch in the kernel. Create or adopt with `open`."""

    def __init__(self, name: str, netns: str | None, pinned: PinnedSwitch) -> None:
        self.name, self.netns, self._pinned = name, netns, pinned
        self._map = pinned.map
        self._grace = bpf.GracePeriod()
        self._ring = bpf.RingBuffer(self._map["events"].fd)
        self._control = self._map["control"].window()
        self._writer = Writer(self._map)
        self._base: dict[FlowKey, Counter] = {}
        """What a flow counted under earlier rule numbers."""
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

    def check(self, flow: Flow) -> None:
        """Raise `Refused` if the flow cannot be carried out."""
        lower(flow)

    def commit(self, change: Change) -> None:
        """Put a change in force. On return no packet is decided by what it superseded."""
        if not change.put and not change.remove:
            return
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
        for placed in staged.retired:
            counted = self._rule_counter(placed.rule)
            table = placed.flow.table
            self._retired[table] = self._retired.get(table, 0) + counted.packets
            base = self._base.pop(placed.flow.key, Counter())
            if placed.flow.key in kept:
                total = Counter(base.packets + counted.packets, base.bytes + counted.bytes)
                self._base[placed.flow.key] = total

    # counters

    def _rule_counter(self, rule: int) -> Counter:
        raw = self._map["rule_counters"].index(rule) or b""
        numbers = struct.unpack(f"<{len(raw) // 8}Q", raw)
        return Counter(sum(numbers[::2]), sum(numbers[1::2]))

    def _rule_counters(self) -> list[Counter]:
        """By rule number, as far as numbers are in use."""
        used = 1 + max((placed.rule for placed in self._image.placed.values()), default=0)
        raw, size = self._map["rule_counters"].first(used), self._map["rule_counters"].value_size
        values = struct.iter_unpack(f"<{size // 8}Q", raw)
        return [Counter(sum(numbers[::2]), sum(numbers[1::2])) for numbers in values]

    def flow_counters(self) -> Mapping[FlowKey, Counter]:
        """Packets and bytes of each flow since it was added."""
        counters, counted = {}, self._rule_counters()
        for key, placed in self._image.placed.items():
            now, base = counted[placed.rule], self._base.get(key, Counter())
            counters[key] = Counter(base.packets + now.packets, base.bytes + now.bytes)
        return counters

    def table_counters(self) -> Mapping[int, TableCounter]:
        """Lookups and matches of each table; a flow cache hit counts as the lookups it stands for."""
        matched = dict.fromkeys(range(abi.TABLES), 0) | self._retired
        counted = self._rule_counters()
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
            rx, rx_bytes, dropped, tx, tx_bytes = (sum(values[field::5]) for field in range(5))
            counters[number] = PortCounter(Counter(rx, rx_bytes), Counter(tx, tx_bytes), dropped)
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
        port = abi.Port(ifindex=ifindex, flags=PortFlag.UP, conn_quota=DEFAULT_CONN_QUOTA)
        if self._port(number).ifindex != ifindex:
            self._map["ports"].set(number, bytes(port))
        self._map["port_by_ifindex"].update(struct.pack("<I", ifindex), struct.pack("<I", number))
        attach.attach(self._pinned.program, ifindex, self._pinned.links / str(number))

    def _close_port(self, number: int, ifindex: int) -> None:
        self._map["ports"].set(number, bytes(abi.Port()))
        self._map["port_by_ifindex"].delete(struct.pack("<I", ifindex))

    def detach(self, number: int) -> None:
        """Close a port; its interface is left without a program."""
        ifindex = self._numbers.pop(number, None)
        if ifindex is None:
            return
        self._close_port(number, ifindex)
        with inside(self.netns):
            attach.detach(ifindex, self._pinned.links / str(number))
        self._map["port_counters"].set(number, bytes(self._map["port_counters"].value_size))
        self._reflood()

    def _reflood(self) -> None:
        """Give flows that flood the new set of ports."""
        self._image.ports = tuple(sorted(self._numbers))
        self.commit(Change(put=self._image.flooding()))

    def ports(self) -> tuple[SwitchPort, ...]:
        """The ports attached now; one whose interface is gone is reported down."""
        from pyroute2 import IPRoute

        with inside(self.netns), IPRoute() as route:
            links = {link["index"]: link for link in route.get_links()}
        found = []
        for number, ifindex in sorted(self._numbers.items()):
            link = links.get(ifindex)
            if link is None:
                found.append(SwitchPort(number, f"gone{number}", 0, False))
                continue
            mac = int((link.get("address") or "0").replace(":", ""), 16)
            up = link["flags"] & LINK_UP == LINK_UP
            found.append(SwitchPort(number, link.get("ifname"), mac, up))
        return tuple(found)

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
        """Send a controller's packet. Raises `Refused` for actions that are not outputs."""
        for action in actions:
            if not isinstance(action, Output):
                raise Refused(ErrorType.BAD_ACTION, BadAction.BAD_TYPE, "a packet-out may only output")
            if action.port == Port.TABLE:
                self._run_through_tables(in_port, frame)
                continue
            for number in self._targets(in_port, action.port):
                self._send(number, frame)

    def _targets(self, in_port: int, port: int) -> tuple[int, ...]:
        if port in (Port.FLOOD, Port.ALL):
            return tuple(number for number in self._numbers if number != in_port)
        number = in_port if port == Port.IN_PORT else port
        if number not in self._numbers:
            raise Refused(ErrorType.BAD_ACTION, BadAction.BAD_OUT_PORT, f"no port {number:#x}")
        return (number,)

    def _send(self, number: int, frame: bytes) -> None:
        try:
            with inside(self.netns), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
                sender.bind((socket.if_indextoname(self._numbers[number]), 0))
                sender.send(frame)
        except OSError as error:
            raise HostError(f"cannot send {len(frame)} bytes to port {number}: {error.strerror}") from error

    def _run_through_tables(self, in_port: int, frame: bytes) -> None:
        """Let the program decide the packet as if it had come in by a port (OFPP_TABLE)."""
        if in_port not in self._numbers:
            raise Refused(ErrorType.BAD_ACTION, BadAction.BAD_OUT_PORT, f"no port {in_port:#x} to come in by")
        verdict, packet, after = self.run(in_port, frame)
        if verdict == TC_ACT_REDIRECT:
            self._send(after.cb[0], packet)

    def run(self, in_port: int, frame: bytes) -> tuple[int, bytes, bpf.SkBuff]:
        """Run the loaded program on a packet, with all its effects but the last redirect.

        Returns (tc verdict, packet, context); `cb[0]` is the port of the redirect, `cb[1]` the drop
        reason. A tag that the kernel keeps beside the packet is put into its bytes.
        """
        with inside(self.netns):
            context = bpf.SkBuff(ifindex=self._numbers[in_port])
            verdict, packet, after, _ = bpf.run(self._pinned.program, frame, context)
        if after.vlan_present:
            packet = packet[:12] + struct.pack("!HH", 0x8100, after.vlan_tci) + packet[12:]
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
