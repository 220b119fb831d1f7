"""Takes the numbers of all fabrics: from the switches' maps, from what is known of guests, from /proc."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from vnet import __version__
from vnet.base.drop import DropReason
from vnet.base.errors import VnetError
from vnet.fabric import idle
from vnet.fabric.cable import LinkState
from vnet.fabric.live import confirmation, usage
from vnet.fabric.live.registry import Fabric, Registry
from vnet.fabric.numbers import (
    DaemonNumbers,
    FabricNumbers,
    NicNumbers,
    Numbers,
    Traffic,
    UplinkNumbers,
    VmNumbers,
)
from vnet.fabric.rates import Rates, rates
from vnet.hv.live.cgroup import group_of
from vnet.hv.spec import GuestState, GuestStatus
from vnet.hv.vitals import Vitals
from vnet.policy import pipeline
from vnet.switch.abi import Point
from vnet.switch.numbers import PortNumbers, SwitchNumbers
from vnet.topology.inventory import Nic, Vm

ANSWER_S = 5.0
"""How long a switch may take to answer: it is busy while a change of many flows is put in force."""
SHARED_S = 0.2
"""Who asks so soon after another is given the same answer: nobody can keep the daemon busy by asking."""
LAG_POLL_S = 0.25
LAG_KEPT = 240
"""A minute of measurements."""
RECENT_S = 10.0
"""Over how long it is told what VMs use and wait for, where nobody asks for another time."""

_REASONS: Mapping[int, str] = {int(reason): reason.name for reason in DropReason}
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Taker:
    """Takes snapshots of everything on one host. Belongs to one event loop."""

    def __init__(
        self,
        registry: Registry,
        operations: Callable[[], int] = lambda: 0,
        history_stopped: Callable[[], str] = lambda: "",
    ) -> None:
        self._registry, self._operations, self._history_stopped = registry, operations, history_stopped
        self._lags: deque[float] = deque(maxlen=LAG_KEPT)
        self._began_s = time.monotonic()
        self._turn = asyncio.Lock()
        self._last: Numbers | None = None
        self._kept: deque[Numbers] = deque()
        self._peaks: idle.Peaks = {}
        self.messages: Counter[str] = Counter()
        """What was logged, by level: whoever logs counts here."""

    async def measure_lag(self) -> None:
        """For ever: how late the event loop comes to what is due."""
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + LAG_POLL_S
            await asyncio.sleep(LAG_POLL_S)
            self._lags.append(max(0.0, loop.time() - due_s))

    async def take(self) -> Numbers:
        """All numbers of now, or of a moment ago."""
        async with self._turn:
            if self._last is None or time.monotonic() - self._last.clock_s > SHARED_S:
                now = await self._take()
                self._keep(now)
                self._peaks = idle.follow(now, self.recent(), self._peaks)
                self._last = idle.told(now, self._peaks)
            return self._last

    def recent(self) -> Rates:
        """What happened in the last seconds, between two snapshots that were taken for whomever."""
        return rates(self._kept[0], self._kept[-1]) if self._kept else Rates()

    def last(self) -> Numbers | None:
        """The last that were taken."""
        return self._last

    def _keep(self, now: Numbers) -> None:
        self._kept.append(now)
        while now.clock_s - self._kept[0].clock_s > RECENT_S:
            self._kept.popleft()

    async def _take(self) -> Numbers:
        fabrics = [self._registry.fabrics[name] for name in sorted(self._registry.fabrics)]
        taken = await asyncio.gather(*(self._fabric(fabric) for fabric in fabrics))
        return Numbers(time.time_ns(), time.monotonic(), self._daemon(), tuple(taken), usage.host())

    def pulse(self) -> Mapping[str, float]:
        """What is known without asking anybody."""
        return {
            "uptime_s": round(time.monotonic() - self._began_s, 1),
            "lag_s": round(max(self._lags, default=0.0), 4),
        }

    def _daemon(self) -> DaemonNumbers:
        return DaemonNumbers(
            __version__,
            os.getpid(),
            time.monotonic() - self._began_s,
            time.process_time(),
            int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES,
            sum(1 for _ in Path("/proc/self/fd").iterdir()),
            max(self._lags, default=0.0),
            dict(self.messages),
            self._operations(),
            self._history_stopped(),
        )

    async def _fabric(self, fabric: Fabric) -> FabricNumbers:
        record = fabric.record
        numbers, unanswered = await _asked(fabric)
        vms, guests = fabric.vms, fabric.parts.guests
        statuses = [await guests.status(vm.name) for vm in vms]
        vitals = await asyncio.gather(*(guests.vitals(vm.name) for vm in vms))
        told, drops = zip(vms, statuses, vitals, strict=True), fabric.parts.switch.watch.by_port
        return FabricNumbers(
            record.name,
            record.generation,
            record.enforced,
            tuple(_vm(record.name, vm, status, inner, numbers, drops) for vm, status, inner in told),
            {_reason(reason): packets for reason, packets in numbers.drops.items()},
            {Point(point).name.lower(): events for point, events in numbers.lost.items()},
            {table_name(table): flows for table, flows in sorted(numbers.flows.items())},
            numbers.paths,
            fabric.trouble,
            unanswered,
            confirmation.left_s(self._registry, fabric),
            await fabric.parts.services.dead(),
            await _uplinks(fabric, numbers),
        )


async def _asked(fabric: Fabric) -> tuple[SwitchNumbers, str]:
    """What its switch counts, or why it does not say so."""
    try:
        async with asyncio.timeout(ANSWER_S):
            return await fabric.parts.switch.numbers(), ""
    except TimeoutError:
        return SwitchNumbers(), f"its switch has not answered for {ANSWER_S:g} s"
    except VnetError as error:
        return SwitchNumbers(), str(error)


async def _uplinks(fabric: Fabric, numbers: SwitchNumbers) -> tuple[UplinkNumbers, ...]:
    links = await fabric.parts.cables.links()
    cables = fabric.declared.inventory.uplinks if fabric.declared else ()
    return tuple(
        UplinkNumbers(
            each.uplink,
            each.interface,
            each.port,
            links.get(each.uplink, LinkState.MISSING).value,
            _traffic(numbers.ports.get(each.port, PortNumbers())),
        )
        for each in cables
    )


def _vm(
    fabric: str,
    vm: Vm,
    status: GuestStatus,
    vitals: Vitals,
    numbers: SwitchNumbers,
    reasons: Mapping[int, Mapping[DropReason, int]],
) -> VmNumbers:
    ready = status.state is GuestState.RUNNING and status.agent
    nothing: Mapping[DropReason, int] = {}
    found = VmNumbers(
        vm.name,
        "ready" if ready else status.state.value,
        vm.cpus,
        vm.memory_bytes,
        tuple(_nic(nic, numbers.ports.get(nic.port), reasons.get(nic.port, nothing)) for nic in vm.nics),
        status.resident_bytes,
        uptime_s=status.uptime_s,
        detail=status.reason,
        vitals=vitals,
        is_failing=status.is_failing,
    )
    return _with_usage(found, status.pid, fabric) if status.pid else found


def _with_usage(vm: VmNumbers, pid: int, fabric: str) -> VmNumbers:
    return replace(
        vm,
        cpu_s=usage.cpu_s(pid),
        ready_s=usage.ready_s(pid),
        swapped_bytes=usage.swapped_bytes(pid),
        pressure=usage.group_pressure(pid, group_of(fabric, vm.name)),
    )


def _nic(nic: Nic, port: PortNumbers | None, reasons: Mapping[DropReason, int]) -> NicNumbers:
    if port is None:
        return NicNumbers(nic.name, nic.network, nic.port)
    return NicNumbers(
        nic.name,
        nic.network,
        nic.port,
        port.up,
        _traffic(port),
        port.connections,
        port.connection_quota,
        port.macs,
        port.mac_quota,
        {reason.name: packets for reason, packets in reasons.items()},
        nic.line.inward.bps,
        nic.line.outward.bps,
    )


def _traffic(port: PortNumbers) -> Traffic:
    rx, tx = port.counter.rx, port.counter.tx
    return Traffic(
        rx.packets, rx.bytes, port.counter.rx_dropped, tx.packets, tx.bytes, port.counter.tx_dropped
    )


def _reason(number: int) -> str:
    """A flow's cookie may give a number that stands for nothing."""
    return _REASONS.get(number, str(number))


def table_name(number: int) -> str:
    """A table as people know it."""
    return pipeline.name_of(number) or str(number)
