"""The lines of ports: what delays the packets of a NIC that has a rate, or is to be impaired.

What goes to the port waits in the qdisc of its own interface. What comes from it waits in that of one end of
a veth, to which the dataplane redirects it, and comes in at the other end (`bpf/line.h`). Losses are the
dataplane's, so the qdiscs have more room and are a little faster than what is declared. Impairments
(sch_netem) are the kernel's alone.

All calls are made in the network namespace of the ports.
"""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Callable, Mapping
from typing import Any

from pyroute2 import IPRoute, NetlinkError
from pyroute2.netlink.rtnl.tcmsg.common import tick_in_usec

from vnet.base.line import (
    BPS_MAX,
    STRAIGHT,
    UNIMPAIRED,
    UNLIMITED,
    Impairment,
    Line,
    Rate,
    rate_of,
)
from vnet.switch import abi
from vnet.switch.abi import PortFlag
from vnet.switch.live import attach
from vnet.switch.live.maps import PinnedSwitch
from vnet.switch.live.netlink import netlink_to

FLAGS = PortFlag.LINE_IN | PortFlag.LINE_OUT
FASTER = 1.01
"""By how much a qdisc is faster than what the dataplane lets through."""
SPARE_BYTES, SPARE_S = 256 << 10, 0.020
"""How much more room it has: for packets that are cut by it, and for the dataplane's clock, which ticks."""
HELD_PACKETS = 100_000
"""Of a qdisc that impairs: so many are under way at once at most."""
MTU = 65535
"""Of both ends: what is too large for the port is told by the port."""
DRAIN_S = 0.3
"""How long a queue that is given up may take to hand over what is in it."""

QDISCS = "it needs sch_tbf, and impairments sch_netem, of the kernel: `modprobe -a sch_tbf sch_netem`"

_ROOT, _IMPAIRS, _IMPAIRED, _OUTER, _INNER = 0xFFFFFFFF, 0x10000, 0x10001, 0x20000, 0x30000
"""Handles (linux/pkt_sched.h): TC_H_ROOT, 1: of sch_netem with its class 1:1, and of sch_tbf 2: at the root
and 3: behind sch_netem; each kind has its own, so that none is taken for another."""


def name_of(number: int) -> str:
    """The interface at which packets of a port enter their line; no NIC's has a name without a dot."""
    return f"line{number}"


def _end_of(number: int) -> str:
    return f"line{number}-end"


class Lines:
    """The lines of one switch's ports."""

    def __init__(self, pinned: PinnedSwitch) -> None:
        self._pinned, self._map = pinned, pinned.map

    def put(self, number: int, ifindex: int, line: Line, flag: Callable[[PortFlag], None]) -> None:
        """Give a port a line in place of what it has; what is under way arrives.

        Args:
            flag: tells the dataplane which of FLAGS the port has.
        """
        with netlink_to(f"give port {number} its rate", QDISCS) as route:
            wanted = abi.Line(_rate(line.inward), _rate(line.outward))
            leads_through = bool(line.outward.bps or line.impairment != UNIMPAIRED)
            _queue(route, ifindex, line.inward, line.impairment)
            if leads_through:
                wanted.ifindex = self._lay(route, number)
                _queue(route, wanted.ifindex, line.outward, line.impairment)
            self._map["lines"].set(number, bytes(wanted))
            flag(
                (PortFlag.LINE_IN if line.inward.bps else PortFlag(0))
                | (PortFlag.LINE_OUT if leads_through else PortFlag(0))
            )
            if not leads_through:
                self._take_up(route, number)

    def remove(self, number: int) -> None:
        """Take away what a port that is no more had."""
        pin = self._pinned.links / attach.line_pin(number)
        if not _is_told(self._told(number)) and not pin.exists():
            return
        with netlink_to(f"give port {number} its rate", QDISCS) as route:
            self._take_up(route, number)
        self._map["lines"].set(number, bytes(abi.Line()))

    def end(self, number: int) -> int | None:
        """The interface by which the packets of a port come in at last, if it is not the port's own."""
        for index, value in self._map["port_by_ifindex"].items():
            if _number(value) == number and _number(index) != self._port(number).ifindex:
                return _number(index)
        return None

    def all(self, ifindexes: Mapping[int, int]) -> Mapping[int, Line]:
        """What is in force, by port: of what was put, that which the kernel still has.

        Args:
            ifindexes: of the ports.
        """
        told = {number: self._told(number) for number in ifindexes}
        if not any(map(_is_told, told.values())):
            return dict.fromkeys(ifindexes, STRAIGHT)
        with IPRoute() as route:
            queues = _queues(route)
        return {
            number: _in_force(told[number], queues.get(ifindex, {}), queues.get(told[number].ifindex, {}))
            for number, ifindex in ifindexes.items()
        }

    def _told(self, number: int) -> abi.Line:
        return abi.Line.from_buffer_copy(self._map["lines"].index(number) or b"")

    def _port(self, number: int) -> abi.Port:
        return abi.Port.from_buffer_copy(self._map["ports"].index(number) or b"")

    # the veth

    def _lay(self, route: IPRoute, number: int) -> int:
        """Make the veth of a port's line unless it is there; the interface at which it begins."""
        begin, end = name_of(number), _end_of(number)
        if not route.link_lookup(ifname=begin):
            route.link("add", ifname=begin, kind="veth", mtu=MTU, peer={"ifname": end, "mtu": MTU})
        (first,), (last,) = route.link_lookup(ifname=begin), route.link_lookup(ifname=end)
        for index in (first, last):
            route.link("set", index=index, state="up")
        if last < abi.LOW_IFINDEX:
            self._map["port_of"].set(last, struct.pack("<I", number))
        self._map["port_by_ifindex"].update(struct.pack("<I", last), struct.pack("<I", number))
        attach.attach(self._pinned.program, last, self._pinned.links / attach.line_pin(number))
        return first

    def _take_up(self, route: IPRoute, number: int) -> None:
        begin = route.link_lookup(ifname=name_of(number))
        if begin:
            _hurry(route, begin[0], _OUTER, _ROOT)
        end = self.end(number)
        if end is not None:
            self._map["port_by_ifindex"].delete(struct.pack("<I", end))
            if end < abi.LOW_IFINDEX:
                self._map["port_of"].set(end, struct.pack("<I", 0))
            attach.detach(end, self._pinned.links / attach.line_pin(number))
        if begin:
            route.link("del", index=begin[0])


def _is_told(line: abi.Line) -> bool:
    """Whether a port was given a line."""
    return any(bytes(line))


# qdiscs


def _queue(route: IPRoute, ifindex: int, rate: Rate, impairment: Impairment) -> None:
    """Let an interface send so: impaired first, then at the rate. What waits there is kept."""
    if impairment != UNIMPAIRED:
        route.tc("replace", "netem", ifindex, _IMPAIRS, parent=_ROOT, **_netem(impairment))
        _pace(route, ifindex, rate, _INNER, _IMPAIRED)
    else:
        _pace(route, ifindex, rate, _OUTER, _ROOT)


def _pace(route: IPRoute, ifindex: int, rate: Rate, handle: int, parent: int) -> None:
    """Put sch_tbf there, change it, or take away what is there.

    It never lets go of a packet that is larger than its burst, and compares packets with that when they come:
    one whose burst shrinks is emptied, and made anew.
    """
    had = _queues(route).get(ifindex, {}).get("tbf")
    if had is not None and (not rate.bps or _burst(had) > rate.burst_bytes):
        _hurry(route, ifindex, handle, parent)
    if rate.bps:
        route.tc("replace", "tbf", ifindex, handle, parent=parent, **_tbf(rate))
    else:
        _delete(route, ifindex, parent)


def _burst(options: Any) -> int:
    """How many bytes sch_tbf lets go at once: it knows the time that these take."""
    parms = options.get_attr("TCA_TBF_PARMS")
    return int(parms["buffer"] / tick_in_usec * parms["rate"] / 1_000_000)


def _hurry(route: IPRoute, ifindex: int, handle: int, parent: int) -> None:
    """Let what waits for its turn go now, and then make an end of the queue."""
    with contextlib.suppress(NetlinkError):  # it is elsewhere, and goes with what impairs
        route.tc("change", "tbf", ifindex, handle, parent=parent, **_tbf(rate_of(BPS_MAX)))
        _drain(route, ifindex)
    _delete(route, ifindex, parent)


def _delete(route: IPRoute, ifindex: int, parent: int) -> None:
    with contextlib.suppress(NetlinkError):  # there is none
        route.tc("del", index=ifindex, parent=parent)


def _tbf(rate: Rate) -> Mapping[str, Any]:
    room = rate.depth_bytes + SPARE_BYTES + round(rate.bps / 8 * SPARE_S)
    return {"rate": _tbf_rate(rate.bps), "burst": rate.burst_bytes, "limit": room}


def _tbf_rate(bps: int) -> int:
    """In bytes a second."""
    return round(bps * FASTER / 8)


def _netem(impairment: Impairment) -> Mapping[str, Any]:
    return {
        "delay": impairment.delay_us,
        "jitter": impairment.jitter_us,
        "loss": impairment.loss_ppm / 10_000,
        "limit": HELD_PACKETS,
    }


def _drain(route: IPRoute, ifindex: int) -> None:
    """Wait until nothing waits there any more, but not for long."""
    end = time.monotonic() + DRAIN_S
    while time.monotonic() < end:
        mine = [each for each in route.get_qdiscs() if each["index"] == ifindex]
        if not any(_backlog(each) for each in mine):
            return
        time.sleep(0.005)


def _backlog(qdisc: Any) -> int:
    stats = qdisc.get_attr("TCA_STATS2")
    queue = stats.get_attr("TCA_STATS_QUEUE") if stats is not None else None
    return 0 if queue is None else int(queue["backlog"])


def _queues(route: IPRoute) -> Mapping[int, Mapping[str, Any]]:
    """The options of every qdisc that holds back packets, by interface and kind."""
    found: dict[int, dict[str, Any]] = {}
    for qdisc in route.get_qdiscs():
        kind = qdisc.get_attr("TCA_KIND")
        if kind in ("tbf", "netem"):
            found.setdefault(qdisc["index"], {})[kind] = qdisc.get_attr("TCA_OPTIONS")
    return found


def _in_force(told: abi.Line, inward: Mapping[str, Any], outward: Mapping[str, Any]) -> Line:
    impaired = [_impairment(each) for each in (inward, outward)]
    return Line(
        _rate_in_force(told.inward, inward),
        _rate_in_force(told.outward, outward),
        impaired[0] if impaired[0] == impaired[1] else UNIMPAIRED,
    )


def _rate_in_force(told: abi.Rate, queues: Mapping[str, Any]) -> Rate:
    """What the dataplane lets through, if the qdisc that delays it is still there."""
    options = queues.get("tbf")
    if not told.bps or options is None:
        return UNLIMITED
    has = options.get_attr("TCA_TBF_PARMS")["rate"]
    return Rate(told.bps, told.burst) if has == _tbf_rate(told.bps) else UNLIMITED


def _impairment(queues: Mapping[str, Any]) -> Impairment:
    options = queues.get("netem")
    if options is None:
        return UNIMPAIRED
    return Impairment(
        round(options["delay"] / tick_in_usec),
        round(options["jitter"] / tick_in_usec),
        round(options["loss"] / (2**32 - 1) * 1_000_000),
    )


def _rate(rate: Rate) -> abi.Rate:
    if not rate.bps:
        return abi.Rate()
    depth_us = min(abi.NO_SLOT, rate.depth_bytes * 8_000_000 // rate.bps)
    return abi.Rate(rate.bps, depth_us, rate.burst_bytes)


def _number(raw: bytes) -> int:
    return int.from_bytes(raw, "little")
