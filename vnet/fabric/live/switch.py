"""The `Switch` of one fabric: the eBPF datapath, its OpenFlow agent, and our controller, joined."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from vnet.base import paths
from vnet.base.drop import DropReason
from vnet.base.errors import HostError
from vnet.base.limits import Limits
from vnet.base.line import Line
from vnet.capture.record import PacketRecord, Verdict
from vnet.capture.record import Point as SeenAt
from vnet.fabric.asked import Sandbox
from vnet.fabric.live.mirrors import HostMirrors, Ports
from vnet.fabric.live.netns import finished
from vnet.fabric.live.watch import Watch
from vnet.fabric.logged import REFERENCE_MASK, Sighting, sighting
from vnet.fabric.mirror import TUNNEL, Mirror
from vnet.fabric.state import CABLE, Attached, Port
from vnet.fabric.store import Record
from vnet.openflow import cookie
from vnet.openflow.conntrack import Direction
from vnet.openflow.fields import CtState
from vnet.openflow.flow import Flow
from vnet.openflow.message import FlowStats, PacketIn, PortConfig
from vnet.policy.difference import diff
from vnet.policy.entry import notes_log
from vnet.policy.live.controller import Controller
from vnet.policy.session import Whose
from vnet.switch.abi import Point
from vnet.switch.datapath import datapath_id
from vnet.switch.events import PacketEvent, packet_in
from vnet.switch.live.datapath import EbpfDatapath
from vnet.switch.live.links import LinkMonitor
from vnet.switch.live.maps import remove
from vnet.switch.live.netns import NETNS_DIR
from vnet.switch.live.server import SwitchServer
from vnet.switch.numbers import SwitchNumbers
from vnet.switch.taps import Tap, TapCount

CONNECT_TIMEOUT_S = 10.0
SLOTS_AT_ONCE = 4096
"""Of the table of connections, 650 KB."""
CLOSED = PortConfig.NO_RECV | PortConfig.NO_FWD
"""Of a port that takes copies only."""
PATIENCE_S = 10.0
"""How long flows wait for an agent that has gone: it is part of this process, so hardly ever."""

T = TypeVar("T")


class HostSwitch:
    """See `vnet.fabric.live.parts.Switch`. `underlay` is the namespace that leads to other machines."""

    def __init__(
        self,
        fabric: str,
        on_logged: Callable[[Sighting], None] = lambda _: None,
        underlay: str | None = None,
    ) -> None:
        self.fabric = fabric
        self.watch = Watch(self._tap, self._tap_count, self._version)
        self._mirrors = HostMirrors(
            fabric, self.watch, Ports(self._close_port, self._detach_closed, self._closed_ports), underlay
        )
        self._on_logged = on_logged
        self._names: Mapping[int, str] = {}
        self._datapath: EbpfDatapath | None = None
        self._server: SwitchServer | None = None
        self._controller: Controller | None = None
        self._links: LinkMonitor | None = None
        self._opened_at: tuple[int, ...] = ()

    @property
    def _pins(self) -> Path:
        return paths.bpf_dir() / self.fabric

    @property
    def is_open(self) -> bool:
        """Whether it can be asked."""
        return self._controller is not None

    async def exists(self) -> bool:
        """Whether its programs and maps are pinned."""
        return self._pins.exists()

    async def open(self) -> None:
        """Create or adopt the datapath, serve it, connect the controller to it.

        One whose pins or namespace somebody has removed since is let go of first.
        """
        if self._controller is not None:
            if self._whereabouts() == self._opened_at:
                return
            await self.close()
        try:
            await self._open()
        except BaseException:
            await self.close()
            raise

    async def _open(self) -> None:
        netns = paths.netns(self.fabric)
        self._datapath = await finished(None, EbpfDatapath.open, self.fabric, netns, self._pins)
        self.watch.inherit(await finished(None, _only_mirrors, self._datapath))
        self._server = SwitchServer(self._datapath, self.fabric, datapath_id(self.fabric))
        await self._server.start(paths.switch_socket(self.fabric))
        self._links = await finished(None, LinkMonitor, netns)
        await self.ports()  # before packets are read, which are told by the names of their NICs
        loop = asyncio.get_running_loop()
        loop.add_reader(self._datapath.event_fd, self._read_events)
        loop.add_reader(self._links.fd, self._link_changed)
        socket = paths.switch_socket(self.fabric)
        self._controller = Controller(socket, patience_s=PATIENCE_S, on_packet=self._told)
        await self._controller.connect(CONNECT_TIMEOUT_S)
        self._opened_at = self._whereabouts()

    def _whereabouts(self) -> tuple[int, ...]:
        """What tells its pins and its namespace from others in their place; empty if one is gone."""
        try:
            return tuple(path.stat().st_ino for path in (self._pins, NETNS_DIR / paths.netns(self.fabric)))
        except OSError:
            return ()

    async def attach(self, port: Port, limits: Limits) -> None:
        """Put an interface into the switch."""
        datapath, server = self._opened()
        self._names = {**self._names, port.number: _shown(port.ifname)}
        await server.run(datapath.attach, port.number, port.ifname, port.ifname.startswith(CABLE))
        await server.run(datapath.limit, port.number, limits)
        server.port_changed()

    async def limit(self, port: Port, limits: Limits) -> None:
        """Let a port use so much of the switch from now on."""
        datapath, server = self._opened()
        await server.run(datapath.limit, port.number, limits)

    async def look(self) -> None:
        """Tell the dataplane at once what has become of the links of its ports."""
        datapath, server = self._opened()
        await server.run(datapath.ports)

    async def lay(self, port: Port, line: Line) -> None:
        """Let a port be as fast as its line from now on."""
        datapath, server = self._opened()
        await server.run(datapath.lay, port.number, line)

    async def detach(self, port: Port) -> None:
        """Take it out."""
        datapath, server = self._opened()
        await server.run(datapath.detach, port.number)
        server.port_changed()

    async def ports(self) -> frozenset[Attached]:
        """What is attached, and runs the program."""
        datapath, server = self._opened()
        found = await server.run(datapath.ports)
        bare, limits = await server.run(datapath.bare_ports), await server.run(datapath.limits)
        mtus, lines = await server.run(datapath.mtus), await server.run(datapath.lines)
        self._names = {port.number: _shown(port.name) for port in found}
        return frozenset(
            Attached(Port(port.number, port.name), limits[port.number], mtus[port.number], lines[port.number])
            for port in found
            if not port.name.startswith(TUNNEL) and (port.number not in bare or not port.mac)
        )

    async def flows(self) -> frozenset[Flow]:
        """The flows in force, read back over OpenFlow."""
        assert self._controller is not None, "the switch is open"
        return frozenset(await self._controller.read_flows())

    async def all_flows(self) -> frozenset[Flow]:
        """The same with those that somebody else added."""
        assert self._controller is not None, "the switch is open"
        return frozenset(await self._controller.read_flows(Whose.ALL))

    async def flow_stats(self) -> tuple[FlowStats, ...]:
        """The same with what each has counted."""
        assert self._controller is not None, "the switch is open"
        return await self._controller.read_stats()

    async def change(self, put: frozenset[Flow], remove: frozenset[Flow]) -> None:
        """One atomic change. Once begun it is carried through: what undoes it comes after it."""
        apply = asyncio.ensure_future(self._change(put, remove))
        try:
            await asyncio.shield(apply)
        except asyncio.CancelledError:
            await asyncio.wait([apply])
            raise

    async def _change(self, put: frozenset[Flow], remove: frozenset[Flow]) -> None:
        assert self._controller is not None, "the switch is open"
        if self._controller.has_applied:
            await self._controller.change(diff(remove, put))
        else:
            await self._controller.apply(tuple((await self.flows() - remove) | put))

    async def connections(self) -> tuple[Direction, ...]:
        """The live connections."""
        datapath, server = self._opened()
        return await server.run(datapath.connections)

    async def in_sandbox(self, work: Callable[[Sandbox, tuple[Direction, ...]], T]) -> T:
        """Try packets in a copy of the switch, which changes nothing in it."""
        datapath, server = self._opened()
        return await server.run(_in_sandbox, datapath, work)

    async def slots(self) -> AsyncIterator[tuple[int, bytes]]:
        """The table of connections by parts, each with the number of its first slot.

        Between two parts others may use the datapath. See `vnet.switch.connections.tracked`.
        """
        datapath, server = self._opened()
        used = await server.run(datapath.used_slots)
        for first in range(0, used, SLOTS_AT_ONCE):
            yield first, await server.run(datapath.slots, first, min(SLOTS_AT_ONCE, used - first))

    async def learnt(self) -> tuple[tuple[int, int, int, int], ...]:
        """Addresses that the switch learnt: VLAN, MAC, port, CLOCK_MONOTONIC (ns) of the last frame."""
        datapath, server = self._opened()
        return await server.run(datapath.learnt)

    def tell(self) -> None:
        """Hand what was reported up to now to those who look."""
        self._read_events()

    async def drops_by_nic(self) -> Mapping[str, int]:
        """Packets lost since the switch was made, by the NIC that sent them."""
        datapath, server = self._opened()
        counters = await server.run(datapath.port_counters)
        return {self._names.get(n, f"port {n}"): each.rx_dropped for n, each in counters.items()}

    async def drops_by_cookie(self) -> Mapping[int, int]:
        """Packets that flows dropped, by cookie; counted for as long as the flow is there."""
        datapath, server = self._opened()
        return await server.run(datapath.drops_by_cookie)

    async def drop_counts(self) -> Mapping[DropReason, int]:
        """Packets lost since the switch was made."""
        datapath, server = self._opened()
        counts = await server.run(datapath.drop_counters)
        return {DropReason(reason): packets for reason, packets in counts.items()}

    async def numbers(self) -> SwitchNumbers:
        """What it counts and how full it is. Raises HostError when it could not be opened."""
        if self._datapath is None or self._server is None:
            raise HostError(f"the switch of {self.fabric} is not open; what is in force stays in force")
        return await self._server.run(self._datapath.numbers)

    async def unreported(self) -> int:
        """Packets that could not be reported, to the log or to anybody else, since the switch was made."""
        if self._datapath is None or self._server is None:
            return 0
        lost = await self._server.run(self._datapath.lost_events)
        return sum(lost.values()) + self._server.missed_packet_ins

    async def unreported_drops(self) -> int:
        """Of what was dropped, so many packets since the switch was made."""
        datapath, server = self._opened()
        return (await server.run(datapath.lost_events))[Point.DROP]

    async def logged_counts(self) -> Mapping[int, int] | None:
        """Packets that flows met which are to be logged, by cookie; None of a switch that is not open."""
        if self._controller is None:
            return None
        counts: Counter[int] = Counter()
        for stats in await self._controller.read_stats(Whose.LOGGED):
            if not notes_log(stats.flow):
                counts[stats.flow.cookie] += stats.packets
        return counts

    # mirrors

    async def mirrors(self) -> frozenset[Mirror]:
        """Those in force."""
        return await self._mirrors.now()

    async def put_mirror(self, mirror: Mirror, record: Callable[[], Record]) -> None:
        """Put a mirror in force in place of what had its name."""
        await self._mirrors.put(mirror, record)

    async def remove_mirror(self, name: str) -> None:
        """Copy no more."""
        await self._mirrors.remove(name)

    def mirror_counts(self) -> Mapping[str, TapCount]:
        """What became of the packets that mirrors were asked about, by their names."""
        return self._mirrors.counts()

    async def _close_port(self, number: int, ifname: str) -> None:
        """Make an interface a port that neither sends nor is sent anything but copies."""
        datapath, server = self._opened()
        await server.run(datapath.attach, number, ifname)
        await server.run(datapath.configure_port, number, CLOSED)
        server.port_changed()

    async def _detach_closed(self, number: int, ifname: str) -> None:
        await self.detach(Port(number, ifname))

    async def _closed_ports(self) -> Mapping[int, str]:
        datapath, server = self._opened()
        found = await server.run(datapath.ports)
        return {port.number: port.name for port in found if port.config & CLOSED == CLOSED}

    async def close(self) -> None:
        """Let go of everything; what is pinned goes on deciding."""
        await self._mirrors.close()
        self.watch.end()
        controller, server, datapath, links = self._controller, self._server, self._datapath, self._links
        self._controller = self._server = self._datapath = self._links = None
        if controller is not None:
            await controller.close()
        if datapath is not None:
            asyncio.get_running_loop().remove_reader(datapath.event_fd)
        if links is not None:
            asyncio.get_running_loop().remove_reader(links.fd)
            links.close()
        if server is not None:
            await server.stop()
        if datapath is not None:
            _only_mirrors(datapath)
            datapath.close()

    async def destroy(self) -> None:
        """Unpin everything: that detaches the programs too, so it needs no switch that can be opened."""
        await self.close()
        await finished(None, remove, self._pins)

    def _opened(self) -> tuple[EbpfDatapath, SwitchServer]:
        assert self._datapath is not None, "the switch is open"
        assert self._server is not None, "the switch is open"
        return self._datapath, self._server

    # packets

    async def _tap(self, taps: Mapping[int, Tap]) -> None:
        if self._datapath is not None and self._server is not None:  # else it is being closed
            await self._server.run(self._datapath.tap, taps)

    def _tap_count(self, number: int) -> TapCount:
        return TapCount() if self._datapath is None else self._datapath.tap_count(number)

    def _version(self) -> int:
        return 0 if self._datapath is None else self._datapath.version

    def _link_changed(self) -> None:
        """A TAP has no carrier until its QEMU has opened it: tell the controllers."""
        _, server = self._opened()
        assert self._links is not None, "the switch is open"
        self._links.drain()
        server.port_changed()

    def _read_events(self) -> None:
        datapath, server = self._opened()
        events = datapath.read_events()
        clock_ns = time.time_ns() - time.monotonic_ns()
        seen = [event for event in events if event.point is not Point.CONTROLLER]
        for event in filter(is_for_log, seen):
            self._on_logged(refusal(event, clock_ns))
        self.watch.take(
            record(event, self._names.get(event.port, f"port {event.port}"), clock_ns) for event in seen
        )
        _hand_in(server, (event for event in events if event.point is Point.CONTROLLER))

    def _told(self, packet: PacketIn) -> None:
        """The switch sent a packet to the controller."""
        seen = sighting(packet, time.time_ns())
        if seen is not None:
            self._on_logged(seen)


def _shown(ifname: str) -> str:
    """How the port behind an interface is called where packets are told of."""
    return f"uplink:{ifname.removeprefix(CABLE)}" if ifname.startswith(CABLE) else ifname


def _in_sandbox(datapath: EbpfDatapath, work: Callable[[Sandbox, tuple[Direction, ...]], T]) -> T:
    with datapath.sandbox() as sandbox:
        return work(sandbox, datapath.connections())


def _only_mirrors(datapath: EbpfDatapath) -> Mapping[int, Tap]:
    """Leave the taps in force that need no daemon; which those are."""
    mirrors = {number: tap for number, tap in datapath.taps.items() if tap.to_port}
    datapath.tap(mirrors)
    return mirrors


def record(event: PacketEvent, nic: str, clock_ns: int) -> PacketRecord:
    """An event of the datapath as captures know it; `clock_ns` is realtime minus monotonic."""
    return PacketRecord(
        time_ns=event.time_ns + clock_ns,
        port=event.port,
        nic=nic,
        point=SeenAt.DELIVERED if event.point is Point.DELIVERED else SeenAt.GUEST,
        verdict=Verdict.DROP if event.dropped else Verdict.PASS,
        reason=event.reason,
        cookie=event.cookie,
        table=event.table,
        rule=event.rules[-1] if event.rules else 0,
        ct_state=event.ct_state,
        generation=event.version,
        original_length=event.length,
        data=event.data,
        cookies=event.cookies,
        gso_size=event.gso_size,
        gso_segs=event.gso_segs,
        taps=event.taps,
    )


def is_for_log(event: PacketEvent) -> bool:
    """Whether a packet is lost whose last rule is logged; where one captures, drops are told as captured."""
    return event.dropped and event.point in (Point.DROP, Point.GUEST) and cookie.is_logged(event.cookie)


def refusal(event: PacketEvent, clock_ns: int) -> Sighting:
    """A packet that a rule refused; or that rules let pass, and that then was lost: by none of them."""
    refused = event.cookie >> 48 & cookie.REASON_MASK == event.reason
    return Sighting(
        event.time_ns + clock_ns,
        event.port,
        event.cookie,
        (event.cookie & REFERENCE_MASK,) if refused else (),
        event.data,
        event.length,
        bool(event.ct_state & CtState.RPL),
    )


def _hand_in(server: SwitchServer, events: Iterable[PacketEvent]) -> None:
    """Packets that a flow sends to the controllers."""
    for event in events:
        server.packet_in(packet_in(event))
