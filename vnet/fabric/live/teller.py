"""Names what packets report as the fabric's user thinks of it, also across changes of its rules."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace

from vnet.capture.live import stream
from vnet.capture.record import PacketRecord, Verdict
from vnet.fabric.declared import sentence
from vnet.fabric.live.watch import GENERATIONS_KEPT
from vnet.fabric.store import Record
from vnet.policy import pipeline


class Teller:
    """Of one capture or mirror. `record` gives the fabric's record as it is now."""

    def __init__(self, record: Callable[[], Record]) -> None:
        self._record = record
        self._known = [record().provenance]
        """Of all generations since it began, the latest first."""

    def _origin(self, cookie: int) -> Mapping[str, str]:
        provenance = self._record().provenance
        if provenance is not self._known[0]:
            self._known = [provenance, *self._known[: GENERATIONS_KEPT - 1]]
        return next((known[cookie] for known in self._known if cookie in known), {})

    def explain(self, cookie: int) -> str:
        """Where a flow came from, in one sentence."""
        origin = self._origin(cookie)
        return sentence(origin) if origin else ""

    async def told(
        self, records: stream.Source, generation: Callable[[int], int | None]
    ) -> AsyncIterator[PacketRecord | stream.Lost]:
        """Records with the generation of the fabric that decided in place of the switch's count of changes.

        And for what passed with the policy that allowed it in place of the flow that at last put it out.
        """
        async for record in records:
            if isinstance(record, stream.Lost):
                yield record
            else:
                cookie = record.cookie if record.verdict is Verdict.DROP else self._allowed_by(record)
                decided = generation(record.generation)
                enforced = self._record().enforced if decided is None else decided
                yield replace(record, generation=enforced, cookie=cookie)

    def _allowed_by(self, record: PacketRecord) -> int:
        """The last flow on its way that a policy's rule gave rise to; the very last one if there is none."""
        ruled = [cookie for cookie in record.cookies if self._origin(cookie).get("policy")]
        return ruled[-1] if ruled else record.cookie


def table_name(number: int) -> str:
    """A table's name, or its number if the pipeline has none of it."""
    return pipeline.name_of(number) or str(number)
