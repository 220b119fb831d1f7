"""Questions about what happened, answered from the history; of fabrics that are gone too."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from vnet.base.errors import InputError, UsageError
from vnet.capture.lines import line
from vnet.capture.record import PacketRecord
from vnet.fabric import happened
from vnet.fabric.declared import sentence
from vnet.fabric.happened import Lines, Question
from vnet.fabric.live.history import Observers
from vnet.fabric.live.history_file import HistoryFile
from vnet.fabric.live.registry import Fabric
from vnet.fabric.live.seeing import is_known
from vnet.fabric.logged import stamp
from vnet.fabric.observed import Names
from vnet.fabric.seen import DecidedBy, Seen, Verdict
from vnet.fabric.tracked import is_meant

Json = Mapping[str, Any]
QUEUED = 4096
"""Drops that one who follows may lag behind before they are counted as lost."""
LOSS_S = 1.0


class Past:
    """The past of all fabrics."""

    def __init__(self, observers: Observers) -> None:
        self.observers, self.history = observers, observers.history

    async def _meant(self, name: str) -> None:
        """Raises InputError for a fabric that there never was."""
        if name in self.observers.registry.fabrics:
            await self.observers.settle(name)
        elif name not in await self.history.ask(HistoryFile.fabrics):
            self.observers.registry.fabric(name)

    async def seen(self, name: str, since_ns: int, until_ns: int) -> tuple[Seen, ...]:
        """What was seen of a fabric in a time, up to now; by kind, what was last first."""
        await self._meant(name)
        rows = await self.history.ask(lambda file: file.sums(name, since_ns, until_ns))
        return tuple(map(happened.seen, rows))

    async def flows(self, name: str, question: Question, limit: int) -> Json:
        """Who talked to whom, of all verdicts."""
        await self._meant(name)
        rows, lines, told = await self.history.ask(lambda file: _rows(file, name, question, (), limit))
        flows = [happened.plain(row, lines.line(row)) for row in rows]
        return {"flows": flows, **told, **self._unknown(name, question, told["total"]), **self._state()}

    async def drops(self, name: str, question: Question, limit: int) -> Json:
        """What was dropped: by kind, or grouped."""
        await self._meant(name)
        denied = (Verdict.DENIED,)

        def ask(file: HistoryFile) -> Json:
            rows, lines, told = _rows(file, name, question, denied, None if question.by else limit)
            if not question.by:
                return {"kinds": [happened.plain(row, lines.line(row)) for row in rows], **told}
            what = happened.exact_for(question)
            exact = file.exact(name, question.since_ns, question.until_ns, what) if what else []
            return {"groups": happened.groups(rows, question, exact), **told}

        told = await self.history.ask(ask)
        return {**told, **self._unknown(name, question, told["total"]), **self._state()}

    def _unknown(self, name: str, question: Question, found: int) -> Json:
        """A VM of which nothing was found and that is not there now: it may have been mistyped."""
        fabric, vm = self.observers.registry.fabrics.get(name), question.vm
        if found or vm is None or ":" in vm or fabric is None or fabric.declared is None:
            return {"unknown": None}
        return {"unknown": None if is_known(fabric.declared, vm) else vm}

    async def packets(self, name: str, wanted: tuple[int, ...]) -> list[tuple[happened.Row, str]]:
        """The first packets of kinds, each with what it was dropped by. Raises InputError."""

        def ask(file: HistoryFile) -> list[tuple[happened.Row, str]]:
            found = [(number, file.sample(number)) for number in wanted]
            missing = [number for number, row in found if row is None or row["fabric"] != name]
            if missing:
                raise InputError(f"there is no packet {missing[0]}; `vnet drops --since 1h` lists them by ID")
            return [(row, _sentence(row)) for _, row in found if row is not None]

        return await self.history.ask(ask)

    async def generations(self, name: str) -> Json:
        """The generations that are remembered."""
        await self._meant(name)
        rows = await self.history.ask(lambda file: file.generations(name))
        told = [
            {
                "id": row["id"],
                "generation": row["number"],
                "since": stamp(row["since_ns"]),
                "file": row["file"],
            }
            for row in rows
        ]
        return {"generations": told, **await self.state()}

    async def text(self, name: str, number: int) -> Json:
        """The topology of a generation, the last of that number. Raises InputError."""
        rows = await self.history.ask(lambda file: file.generations(name))
        found = next((row["id"] for row in rows if row["number"] == number), None)
        source = await self.history.ask(lambda file: file.source(found)) if found is not None else None
        if source is None:
            raise InputError(f"generation {number} of {name} is not remembered; `vnet history --generations`")
        return {"file": source.file, "text": source.text, "included": dict(source.included)}

    def _state(self) -> Json:
        return {"trouble": self.history.trouble or None}

    async def state(self) -> Json:
        """How much is kept."""

        def ask(file: HistoryFile) -> Json:
            first_ns, lines = file.extent()
            return {
                "file": str(file.path),
                "size_bytes": file.size_bytes(),
                "limit_bytes": file.limit_bytes,
                "since": None if first_ns is None else stamp(first_ns),
                "lines": lines,
            }

        return {**await self.history.ask(ask), **self._state()}

    # as it happens

    def follow(
        self, name: str, vm: str | None, reason: str | None, as_json: bool
    ) -> Callable[[asyncio.Queue[bytes | None]], Awaitable[None]]:
        """Drops as they are reported; how many were not is told each second. Raises UsageError."""
        self.observers.registry.fabric(name)
        question = Question(0, 0, (), vm, reason)
        if name not in self.observers.each:
            raise UsageError(f"{name} is only just coming up; try again in a second")
        observer = self.observers.each[name]

        async def produce(blocks: asyncio.Queue[bytes | None]) -> None:
            queue: asyncio.Queue[bytes] = asyncio.Queue(QUEUED)
            lost = 0

            def take(names: Names, record: PacketRecord) -> None:
                nonlocal lost
                if not _is_wanted(question, names, record):
                    return
                try:
                    queue.put_nowait(_line(names, record, as_json))
                except asyncio.QueueFull:
                    lost += 1

            observer.on_drop.append(take)
            try:
                before = await _unreported(observer.fabric)
                while name in self.observers.registry.fabrics:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(LOSS_S):
                            line = await queue.get()
                        await blocks.put(line)
                    if queue.empty():
                        now = await _unreported(observer.fabric)
                        if now + lost > before:
                            await blocks.put(_loss(now + lost - before, as_json))
                        before, lost = now, 0
            finally:
                observer.on_drop.remove(take)

        return produce


def _rows(
    file: HistoryFile, name: str, question: Question, verdicts: tuple[Verdict, ...], limit: int | None
) -> tuple[list[happened.Row], Lines, Json]:
    """What is meant, the lines of its rules as they were, and what is missing."""
    found = file.sums(name, question.since_ns, question.until_ns)
    meant = [row for row in found if question.takes(row) and (not verdicts or row["verdict"] in verdicts)]
    shown, lines = meant if limit is None else meant[:limit], Lines()
    for generation in {row["generation_id"] for row in shown}:
        source = file.source(generation)
        if source is not None:
            lines.learn(generation, source)
    told = {
        "since": stamp(question.since_ns),
        "until": stamp(question.until_ns),
        "total": len(meant),
        "gaps": [
            {"since": stamp(row["since_ns"]), "until": stamp(row["until_ns"]), "why": row["why"]}
            for row in file.gaps(name, question.since_ns, question.until_ns)
        ],
        "kept_since": stamp(first_ns) if (first_ns := file.extent()[0]) is not None else None,
    }
    return shown, lines, told


def _sentence(row: happened.Row) -> str:
    if row["cookie"] is None or not row["at"]:
        return ""
    return sentence({**row, "text": row["origin_text"]})


def _is_wanted(question: Question, names: Names, record: PacketRecord) -> bool:
    if question.reason not in (None, record.reason.name):
        return False
    if question.vm is None or is_meant(question.vm, record.nic):
        return True
    kind, _ = names.dropped(record)
    return any(is_meant(question.vm, each) for each in (kind.source, kind.destination))


def _line(names: Names, record: PacketRecord, as_json: bool) -> bytes:
    rule = names.by(record.cookie)
    if not as_json:
        said = "" if rule is None or not rule.at else sentence(_texts(rule))
        return f"{line(record, lambda _: said)}\n".encode()
    kind, _ = names.dropped(record)
    told = {
        "time": stamp(record.time_ns),
        "nic": record.nic,
        "reason": kind.reason,
        "client": kind.source,
        "client_address": _text(kind.source_address),
        "server": kind.destination,
        "server_address": _text(kind.destination_address),
        "protocol": kind.protocol,
        "port": kind.port,
        "state": kind.state,
        "policy": rule.policy if rule else None,
        "rule": rule.rule if rule else None,
        "at": rule.at if rule else None,
        "generation": names.era.generation,
        "length": record.original_length,
        "lost": 0,
    }
    return json.dumps(told, ensure_ascii=False).encode() + b"\n"


def _texts(rule: DecidedBy) -> Mapping[str, str]:
    return {"policy": rule.policy, "rule": rule.rule, "text": rule.text, "at": rule.at}


def _text(address: object) -> str | None:
    return None if address is None else str(address)


def _loss(packets: int, as_json: bool) -> bytes:
    if as_json:
        return json.dumps({"time": stamp(time.time_ns()), "lost": packets}).encode() + b"\n"
    return f"{packets} dropped packets were not reported (rate limit)\n".encode()


async def _unreported(fabric: Fabric | None) -> int:
    return await fabric.parts.switch.unreported_drops() if fabric is not None else 0
