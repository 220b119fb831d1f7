"""Answers about the past, out of the rows of the history.

Two kinds of numbers stand side by side and are never mixed: what counters of the switch counted, which is
exact, and what it reported packet by packet, which is bounded (decision 11) and therefore a least number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from vnet.base.drop import DropReason
from vnet.base.errors import UsageError
from vnet.base.protocols import protocol_name
from vnet.capture.comment import MEANING
from vnet.capture.pcapng import PcapngEncoder
from vnet.capture.record import PacketRecord, Point
from vnet.capture.record import Verdict as Became
from vnet.capture.summary import summarise
from vnet.fabric.logged import stamp
from vnet.fabric.seen import DecidedBy, Seen, Verdict
from vnet.fabric.store import Source
from vnet.fabric.tracked import is_meant

Row = Mapping[str, Any]
Json = Mapping[str, Any]

GROUPINGS = ("reason", "vm", "rule")
EXACT: Mapping[tuple[str, ...], str] = {("reason",): "reason", ("vm",): "nic", ("rule",): "rule"}
"""What the switch counts exactly, by what is grouped by."""


@dataclass(frozen=True, slots=True)
class Question:
    """What of the history is asked for; times are nanoseconds since 1970.

    `vm` is a VM or NIC that sent it or is at either end.
    """

    since_ns: int
    until_ns: int
    by: tuple[str, ...] = ()
    vm: str | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        if not set(self.by) <= set(GROUPINGS) or len(set(self.by)) != len(self.by):
            raise UsageError(f"--by {','.join(self.by)}: write some of {','.join(GROUPINGS)}")
        if self.reason is not None and self.reason not in DropReason.__members__:
            known = ", ".join(reason.name for reason in DropReason if reason)
            raise UsageError(f"--reason {self.reason}: write one of {known}")
        if self.until_ns < self.since_ns:
            raise UsageError("the time ends before it begins")

    def takes(self, row: Row) -> bool:
        """Whether a row is meant."""
        if self.reason not in (None, row["reason"]):
            return False
        ends = row["sender"], row["source"], row["destination"]
        return self.vm is None or any(is_meant(self.vm, each) for each in ends)


def seen(row: Row) -> Seen:
    """A row as a value."""
    return Seen(
        row["source"],
        _address(row["source_address"]),
        row["destination"],
        _address(row["destination_address"]),
        row["network"],
        row["protocol"],
        row["port"],
        Verdict(row["verdict"]),
        row["reason"],
        by(row),
        row["packets"],
        row["bytes"],
        _time(row["first_ns"]),
        _time(row["last_ns"]),
        row["generation"],
    )


def by(row: Row) -> DecidedBy | None:
    """The rule of a row."""
    if row["cookie"] is None:
        return None
    return DecidedBy(row["at"], row["policy"], row["rule"], row["origin_text"], int(row["cookie"], 16))


def _address(text: str | None) -> IPv4Address | IPv6Address | None:
    return None if text is None else ip_address(text)


def _time(time_ns: int) -> datetime:
    seconds, rest_ns = divmod(time_ns, 10**9)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest_ns // 1000)


def plain(row: Row, line: str | None = None) -> Json:
    """A row of `vnet drops --since … -o json` and `vnet history -o json`; `line` is the rule's, as it was."""
    rule = by(row)
    return {
        "id": row["id"],
        "verdict": row["verdict"],
        "reason": row["reason"] or None,
        "sender": row["sender"],
        "client": row["source"],
        "client_address": row["source_address"],
        "server": row["destination"],
        "server_address": row["destination_address"],
        "network": row["network"],
        "protocol": None if row["protocol"] is None else protocol_name(row["protocol"]),
        "port": row["port"],
        "state": row["state"] or None,
        "folded": bool(row["folded"]),
        "packets": row["packets"],
        "bytes": row["bytes"],
        "connections": row["connections"],
        "first": stamp(row["first_ns"]),
        "last": stamp(row["last_ns"]),
        "generation": row["generation"],
        "policy": (rule.policy or None) if rule else None,
        "rule": (rule.rule or None) if rule else None,
        "at": (rule.at or None) if rule else None,
        "text": (rule.text or None) if rule else None,
        "line": line,
        "has_packet": bool(row["has_sample"]),
    }


def groups(rows: Iterable[Row], question: Question, exact: Sequence[Row]) -> list[Json]:
    """Drops summed up by reason, VM and rule, those with most packets first.

    Args:
        exact: what counters counted by the one thing that is grouped by; empty where there are none.
    """
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        key = tuple(_KEYS[name](row) for name in question.by)
        group = found.setdefault(key, _group(question.by, row))
        group["reported"] += row["packets"]
        group["last"] = max(group["last"], stamp(row["last_ns"]))
        group["first"] = min(group["first"], stamp(row["first_ns"]))
        group["packet"] = group["packet"] or (row["id"] if row["has_sample"] else None)
    for name, count in _counted(question, exact).items():
        group = found.setdefault((name,), _unreported(question.by[0], name))
        group["packets"] = count
    return sorted(found.values(), key=lambda group: -(group["packets"] or group["reported"]))


def _vm(nic: str | None) -> str | None:
    return nic.rpartition(".")[0] or nic if nic else None


_KEYS: Mapping[str, Callable[[Row], Any]] = {
    "reason": lambda row: row["reason"],
    "vm": lambda row: _vm(row["sender"]),
    "rule": lambda row: row["cookie"],
}


def _group(wanted: tuple[str, ...], row: Row) -> dict[str, Any]:
    group = _empty(stamp(row["first_ns"]), stamp(row["last_ns"]))
    if "reason" in wanted:
        group |= {"reason": row["reason"], "meaning": MEANING[DropReason[row["reason"]]]}
    if "vm" in wanted:
        group["vm"] = _vm(row["sender"])
    if "rule" in wanted:
        group |= {name: row[name] or None for name in ("policy", "rule", "at")}
        group |= {"text": row["origin_text"], "cookie": row["cookie"]}
    return group


def _empty(first: str | None, last: str | None) -> dict[str, Any]:
    return {"packets": None, "reported": 0, "first": first, "last": last, "packet": None}


def _unreported(what: str, name: Any) -> dict[str, Any]:
    """A group of which nothing but the number is known."""
    group = _empty(None, None)
    if what == "reason":
        return group | {"reason": name, "meaning": MEANING[DropReason[name]]}
    if what == "vm":
        return group | {"vm": name}
    return group | {"policy": None, "rule": None, "at": None, "text": None, "cookie": name}


def _counted(question: Question, exact: Sequence[Row]) -> Mapping[Any, int]:
    counts: dict[Any, int] = {}
    for row in exact:
        name = _vm(row["name"]) if question.by == ("vm",) else row["name"]
        if question.vm is None or (question.by == ("vm",) and name == question.vm):
            counts[name] = counts.get(name, 0) + row["packets"]
    if question.reason is not None:
        return {name: count for name, count in counts.items() if name == question.reason}
    return counts


def exact_for(question: Question) -> str | None:
    """Which of the switch's counters answer a question; None if none does."""
    what = EXACT.get(question.by)
    if what is None or (question.vm is not None and question.by != ("vm",)):
        return None
    if question.vm is not None and "." in question.vm:
        return None
    return what if question.reason is None or question.by == ("reason",) else None


class Lines:
    """The lines of rules, as they were when they were in force."""

    def __init__(self) -> None:
        self._texts: dict[tuple[int, str], Sequence[str]] = {}

    def learn(self, generation: int, source: Source) -> None:
        """The text of a generation, by its id."""
        for file, text in {source.file: source.text, **source.included}.items():
            self._texts[generation, file] = text.splitlines()

    def line(self, row: Row) -> str | None:
        """The line that a row's rule stands on."""
        file, _, number = (row["at"] or "").rpartition(":")
        lines = self._texts.get((row["generation_id"], file))
        if lines is None or not number.isdecimal() or not 0 < int(number) <= len(lines):
            return None
        return lines[int(number) - 1].strip()


# the first packet of a kind


def packet_record(row: Row) -> PacketRecord:
    """A kept packet as captures know it."""
    return PacketRecord(
        time_ns=row["sample_ns"],
        port=0,
        nic=row["sender"] or "?",
        point=Point.GUEST,
        verdict=Became.DROP,
        reason=DropReason[row["reason"]],
        cookie=int(row["cookie"] or "0", 16),
        table=0,
        rule=0,
        ct_state=0,
        generation=row["generation_number"],
        original_length=row["sample_length"],
        data=row["sample"],
    )


def packet_plain(row: Row, said: str) -> Json:
    """The first packet of a kind."""
    return {
        "id": row["id"],
        "time": stamp(row["sample_ns"]),
        "nic": row["sender"],
        "reason": row["reason"],
        "by": said,
        "summary": str(summarise(row["sample"])),
        "length": row["sample_length"],
        "hex": row["sample"].hex(),
    }


def pcapng(rows: Iterable[tuple[Row, str]]) -> Iterator[bytes]:
    """Kept packets as a capture file, each with what it was dropped by."""
    encoder = PcapngEncoder()
    yield encoder.header()
    last_ns = 0
    for row, said in sorted(rows, key=lambda each: each[0]["sample_ns"]):
        record = packet_record(row)
        comment = f"dropped: {row['reason']}{' — ' if said else ''}{said} (generation {record.generation})"
        yield encoder.encode(record, (comment,))
        encoder.wrote(record)
        last_ns = max(last_ns, record.time_ns)
    yield encoder.trailer(last_ns)
