"""The log of the rules for people: one line for each record."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import tzinfo
from typing import Any

from vnet.cli.records import clock, printable

_MORE = {
    "allow": "new connections allowed",
    "deny": "packets denied",
    "reject": "packets rejected",
    "audit": "new connections that would be refused",
    None: "records",
}


def in_words(record: Mapping[str, Any], zone: tzinfo | None = None) -> str:
    """One record, as `vnet policy log -o json` has it; `zone` None is the local one."""
    words = _lost(record) if record["lost"] else _told(record)
    return printable(" ".join(filter(None, (clock(record, zone), *words, _rule(record)))))


def _rule(record: Mapping[str, Any]) -> str:
    """Where no rule matched, why; nothing where not even that is known."""
    what = f"{record['policy']} {record['rule']}" if record["policy"] else f'"{record["text"]}"'
    return f"by {what} ({record['at']})" if record["at"] else ""


def _lost(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Of a number of packets nothing else is known."""
    count = "an unknown number of" if record["count"] is None else record["count"]
    who = f"from {record['client']}" if record["client"] else ""
    return "LOST", f"{count} {_MORE[record['verdict']]}", who


def _told(record: Mapping[str, Any]) -> tuple[str, ...]:
    kind = f"type {record['icmp_type']}" if record["icmp_type"] is not None else ""
    many = f"{record['count']} times" if record["count"] > 1 else ""
    ends = _end(record, "client"), "<-" if record["reply"] else "->", _end(record, "server")
    return record["verdict"] or "?", *ends, record["protocol"] or "?", kind, many


def _end(record: Mapping[str, Any], which: str) -> str:
    vm, address, port = (record[f"{which}{part}"] for part in ("", "_address", "_port"))
    shown = address or ""
    if port:
        shown = f"[{shown}]:{port}" if ":" in shown else f"{shown}:{port}"
    return " ".join(filter(None, (vm, f"({shown})" if vm and shown else shown))) or "?"
