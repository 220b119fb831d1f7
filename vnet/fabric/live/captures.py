"""Captures: what is asked for, told to the switch, and the packets brought into the form that is wanted."""

from __future__ import annotations

import asyncio
import platform
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from vnet import __version__
from vnet.base.errors import InputError
from vnet.capture.limits import WHOLE_PACKET_BYTES, Limits
from vnet.capture.lines import line_encoder
from vnet.capture.live import stream
from vnet.capture.live.bounded import compile_bounded
from vnet.capture.pcapng import PcapngEncoder, Producer
from vnet.capture.record import AT_UPLINKS, Point
from vnet.capture.recorder import Recorder, Totals
from vnet.capture.ways import Ways
from vnet.fabric.capturing import Wanted, points
from vnet.fabric.declared import Declared
from vnet.fabric.live.registry import Fabric, Registry
from vnet.fabric.live.seeing import (
    UPLINK_PREFIX,
    declared_of,
    nics_of,
    refuse_unknown_network,
    uplink_ports,
)
from vnet.fabric.live.teller import Teller, table_name
from vnet.fabric.live.watch import Watch
from vnet.policy import pipeline
from vnet.switch.taps import TapCount, check
from vnet.topology.inventory import Nic

Json = Mapping[str, Any]
Produce = Callable[[asyncio.Queue[bytes | None]], Awaitable[None]]
"""What runs a capture: it puts its output into the queue it is given."""


@dataclass(frozen=True, slots=True)
class CaptureRequest:
    """What a capture is asked for; None and empty mean "no limit" and "all"."""

    nics: tuple[str, ...] = ()
    filter: str = ""
    snaplen_bytes: int | None = None
    count: int | None = None
    duration_s: float | None = None
    lines: bool = False
    only_dropped: bool = False
    networks: tuple[str, ...] = ()
    points: tuple[str, ...] = ()


def capture(
    registry: Registry, name: str, request: CaptureRequest, summed_up: Callable[[Json], None]
) -> Produce:
    """A capture ready to run: it puts its output into the queue it is given, and at its end sums up.

    Raises: InputError for an unknown NIC, network or point, or a filter that libpcap does not understand.
    """
    fabric = registry.fabric(name)
    teller = _teller(registry, fabric)
    wanted, recorder = _wanted(declared_of(fabric), request), _recorder(teller.explain, request)
    return _capturing(fabric.parts.switch.watch, wanted, teller, recorder, summed_up)


def follow(registry: Registry, name: str, request: CaptureRequest) -> Produce:
    """The ways of real packets, ready to be told: each that a NIC sends, with the rules that it met.

    Args:
        request: with `lines` as text, else as JSON Lines.

    Raises: InputError for an unknown NIC or a filter that libpcap does not understand.
    """
    fabric = registry.fabric(name)
    declared, teller = declared_of(fabric), _teller(registry, fabric)
    wanted = _wanted(declared, replace(request, points=(Point.GUEST,)))
    recorder = _recorder(teller.explain, request)
    recorder.encoder = Ways(teller.explain, _places(declared)).encoder(as_json=not request.lines)
    return _capturing(fabric.parts.switch.watch, wanted, teller, recorder, lambda _: None)


def _teller(registry: Registry, fabric: Fabric) -> Teller:
    name = fabric.record.name
    return Teller(lambda: registry.fabrics.get(name, fabric).record)


def _capturing(
    watch: Watch, wanted: Wanted, teller: Teller, recorder: Recorder, summed_up: Callable[[Json], None]
) -> Produce:
    """What runs a capture."""

    async def produce(blocks: asyncio.Queue[bytes | None]) -> None:
        async with watch.subscribed(wanted) as subscription:
            records = teller.told(subscription.records(), watch.generation)
            try:
                async for block in stream.blocks(records, recorder):
                    await blocks.put(block)
            finally:  # after Ctrl-C too: the end belongs to the file
                recorder.lost(await subscription.rest())
                await blocks.put(recorder.encoder.trailer(time.time_ns()))
                summed_up(_summary(recorder.totals, subscription.count))

    return produce


def _places(declared: Declared) -> Callable[[int], str]:
    """The names of the tables in which flows of a cookie are."""
    tables: dict[int, set[int]] = defaultdict(set)
    for flow in declared.compiled.flows:
        tables[flow.cookie].add(flow.table)
    return lambda cookie: " or ".join(pipeline.name_of(table) for table in sorted(tables.get(cookie, ())))


def _wanted(declared: Declared, request: CaptureRequest) -> Wanted:
    """What a capture is asked for, as the switch can be."""
    uplinks = tuple(name for name in request.nics if name.startswith(UPLINK_PREFIX))
    names = tuple(name for name in request.nics if name not in uplinks)
    wanted_points = points(request.points)
    if uplinks and not {*AT_UPLINKS} & {*wanted_points}:
        wanted_points += AT_UPLINKS
    only_uplinks = uplinks or {*wanted_points} <= {*AT_UPLINKS}
    named = nics_of(declared, names) if names or not (request.networks or only_uplinks) else ()
    if request.only_dropped and {*wanted_points} <= {Point.DELIVERED, Point.UPLINK_OUT}:
        raise InputError("of packets that are delivered none is dropped: leave away --dropped, or --point")
    snaplen = request.snaplen_bytes or WHOLE_PACKET_BYTES
    program = compile_bounded(request.filter)
    check(program)
    nics = (*named, *_nics_of_networks(declared, request.networks))
    ports = frozenset(nic.port for nic in nics)
    beyond = uplink_ports(declared, uplinks) if {*AT_UPLINKS} & {*wanted_points} else frozenset()
    return Wanted(ports, wanted_points, program, snaplen, request.only_dropped, beyond)


def _nics_of_networks(declared: Declared, names: tuple[str, ...]) -> Iterator[Nic]:
    """All NICs of some networks."""
    for name in names:
        refuse_unknown_network(declared, name)
    yield from (nic for nic in declared.inventory.nics if nic.network in names)


def _recorder(explain: Callable[[int], str], request: CaptureRequest) -> Recorder:
    snaplen = request.snaplen_bytes or WHOLE_PACKET_BYTES
    limits = Limits(snaplen, request.count, request.duration_s)
    producer = Producer(platform.machine(), f"Linux {platform.release()}", f"vnet {__version__}")
    encoder = line_encoder(explain) if request.lines else PcapngEncoder(producer, request.filter, snaplen)
    return Recorder(encoder, explain, table_name, limits)


def _summary(totals: Totals, count: TapCount) -> Json:
    """The closing figures: `kept` packets are in the output, one for each point that it was seen at."""
    return {"seen": count.seen, "matched": count.matched, "kept": totals.kept, "lost": totals.lost}
