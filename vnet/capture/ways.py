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
from vnet.capture.lines import line
from vnet.capture.record import PacketRecord, Verdict
from vnet.capture.summary import summarise

Place = Callable[[int], str]
"""Cookie of a flow to the name of the table that it is in, "" if unknown."""
WIDTH = 14


@dataclass(slots=True)
class WayEncoder:
    """The same verbs as `pcapng.PcapngEncoder`, giving lines of UTF-8 text, with `as_json` JSON Lines."""

    explain: Explain
    place: Place
    as_json: bool = False
    zone: tzinfo | None = None
    _unreported: int = 0

    def header(self) -> bytes:
        """Nothing: each packet says all."""
        return b""

    def encode(self, record: PacketRecord, comments: tuple[str, ...]) -> bytes:
        """One packet, after a line that tells of losses if there were any."""
        shown = self._json(record) if self.as_json else self._text(record)
        return self._losses() + f"{shown}\n".encode()

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

    def wrote(self, record: PacketRecord) -> None:
        """The losses told with this packet need not be told again."""
        self._unreported = 0

    def lose(self, packets: int) -> None:
        """So many packets were seen but could not be kept."""
        self._unreported += packets

    def trailer(self, end_ns: int) -> bytes:
        """Losses after the last packet."""
        return self._losses()

    def _losses(self) -> bytes:
        if not self._unreported:
            return b""
        if self.as_json:
            return json.dumps({"lost": self._unreported}).encode() + b"\n"
        return f"{self._unreported} packets lost here\n".encode()
