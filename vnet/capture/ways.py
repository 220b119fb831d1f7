"""Prints the way of each packet: one line for it, one for each rule that it met, or all of it as a JSON line.

14:03:22.120075 app.eth1 guest DROP POLICY 10.10.20.3:41024 > 10.10.20.11:22 tcp S (74 bytes)
    source_guard  "app.eth1 sends from its own addresses" at three-tier.vnet.yaml:8
    ingress 3     "ingress of db: no rule matched; policies applied: db-from-app" at three-tier.vnet.yaml:15
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo

from vnet.capture.comment import MEANING, Explain, ct_state_text
from vnet.capture.lines import TextEncoder, line
from vnet.capture.record import PacketRecord, Verdict
from vnet.capture.summary import summarise

Place = Callable[[int], str]
"""Cookie of a flow to the name of the table that it is in, "" if unknown."""
WIDTH = 14


@dataclass(frozen=True, slots=True)
class Ways:
    """Tells ways as text, and for programs as JSON."""

    explain: Explain
    place: Place
    zone: tzinfo | None = None

    def encoder(self, as_json: bool) -> TextEncoder:
        """Of JSON Lines or of text."""
        if as_json:
            return TextEncoder(self._json, lambda lost: json.dumps({"lost": lost}))
        return TextEncoder(self._text)

    def _text(self, record: PacketRecord) -> str:
        rules = (
            f"    {self.place(cookie) or '?':<{WIDTH}}{self._origin(cookie)}" for cookie in record.cookies
        )
        first = line(record, lambda _: "", self.zone)
        return "\n".join((f"{first} {ct_state_text(record.ct_state)}", *rules))

    def _origin(self, cookie: int) -> str:
        return self.explain(cookie) or f"a flow that the file does not know, cookie {cookie:#018x}"

    def _json(self, record: PacketRecord) -> str:
        rules = [
            {"table": self.place(cookie), "cookie": f"{cookie:#018x}", "from": self.explain(cookie)}
            for cookie in record.cookies
        ]
        dropped = record.verdict is Verdict.DROP
        told = {
            "time": datetime.fromtimestamp(record.time_ns / 1e9, UTC).astimezone(self.zone).isoformat(),
            "nic": record.nic,
            "packet": str(summarise(record.data)),
            "length_bytes": record.original_length,
            "verdict": str(record.verdict),
            "reason": record.reason.name,
            "meaning": MEANING[record.reason] if dropped else "",
            "ct_state": ct_state_text(record.ct_state),
            "generation": record.generation,
            "rules": rules,
        }
        return json.dumps(told, ensure_ascii=False)
