"""What comes of an operation, as clients read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from vnet.fabric.outcome import Outcome, Summary
from vnet.fabric.replay import VerdictChange


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """An outcome: its actions one by one, and what they come to."""
    return {
        "fabric": outcome.fabric,
        "generation": outcome.generation,
        "actions": [str(action) for action in outcome.actions],
        **_summary(outcome.summary),
        "advice": [asdict(each) for each in outcome.advice],
        "verdicts": [_verdict(change) for change in outcome.summary.verdicts],
    }


def _verdict(change: VerdictChange) -> Mapping[str, Any]:
    """A recorded flow that would be decided otherwise."""
    return {
        "source": change.source,
        "target": change.target,
        "service": change.service,
        "was": change.was.value,
        "becomes": change.becomes.value,
        "by": change.by.text,
        "at": change.by.at,
        "packets": change.packets,
        "last": change.last.isoformat(),
        "text": str(change),
    }


def _summary(summary: Summary) -> Mapping[str, Any]:
    return {
        "changes": [asdict(line) for line in summary.lines],
        "counts": {
            "vms": asdict(summary.vms),
            "ports": asdict(summary.ports),
            "flows": asdict(summary.flows),
        },
        "removes_most": summary.removes_most,
    }
