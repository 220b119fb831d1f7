"""Drills NICs of a fabric: their scene, the corpus, a twin that stands by, and the outcome of each attack."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from vnet.drill.run import BAD, Outcome, drill
from vnet.drill.scene import Scene
from vnet.fabric.declared import Declared
from vnet.fabric.drill import cast, scene
from vnet.fabric.live.twin import LiveTwin, standing_by
from vnet.fabric.progress import Progress, Report, Status
from vnet.openflow.flow import Flow
from vnet.topology.inventory import Nic

LIMIT_S = 25.0
"""After so long no further attack is begun; a NIC takes about five seconds."""


@dataclass(frozen=True, slots=True)
class Drilled:
    """What became of an attack by one NIC."""

    nic: Nic
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Order:
    """What to drill, by which flows."""

    declared: Declared
    flows: Collection[Flow]
    nics: Sequence[Nic]
    only: Collection[str] = ()
    """Groups; empty is all."""


async def run(order: Order, report: Report) -> list[Drilled]:
    """Carry out all attacks in a thread. A caller that is cancelled waits for the end of the one at hand."""
    loop = asyncio.get_running_loop()

    def tell(progress: Progress) -> None:
        loop.call_soon_threadsafe(report, progress)

    work = _Work(order, tell)
    call = loop.run_in_executor(None, work.run)
    try:
        return await asyncio.shield(call)
    except asyncio.CancelledError:
        work.stop.set()
        await asyncio.wait([call])
        raise


@dataclass(slots=True)
class _Work:
    """One drill, in a thread of its own."""

    order: Order
    report: Callable[[Progress], None]
    stop: threading.Event = field(default_factory=threading.Event)
    _deadline: float = 0.0

    def run(self) -> list[Drilled]:
        self._deadline = time.monotonic() + LIMIT_S
        scenes = {nic: scene(self.order.declared, nic, nic.profile.limits) for nic in self.order.nics}
        needed = {nic.name: nic for each in scenes.values() for nic in cast(self.order.declared, each)}
        begun = self._begin(1, "make a twin of the switch")
        fabric = self.order.declared.topology.name
        with standing_by(fabric, self.order.flows, tuple(needed.values())) as twin:
            begun(f"{len(needed)} stand-ins")
            numbered = enumerate(scenes.items(), 2)
            return [each for step, (nic, acting) in numbered for each in self._drill(step, twin, nic, acting)]

    def _drill(self, step: int, twin: LiveTwin, nic: Nic, acting: Scene) -> list[Drilled]:
        from vnet.drill.control import controls  # these import Scapy
        from vnet.drill.corpus import corpus

        begun = self._begin(step, f"drill {nic.name}")
        outcomes = list(drill(twin, controls(acting), corpus(acting, self.order.only), self._is_over))
        through = sum(outcome.result in BAD for outcome in outcomes)
        begun(f"{len(outcomes)} attacks and controls, {through} not as they should")
        return [Drilled(nic, outcome) for outcome in outcomes]

    def _is_over(self) -> bool:
        return self.stop.is_set() or time.monotonic() > self._deadline

    def _begin(self, step: int, what: str) -> Callable[[str], None]:
        """Tell of a step; the result tells of its end."""
        start = time.monotonic()
        self.report(Progress(step, what, Status.STARTED))

        def end(detail: str) -> None:
            self.report(Progress(step, what, Status.DONE, time.monotonic() - start, detail))

        return end
