"""A suggestion as plain values: `vnet policy suggest -o json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vnet.fabric.evidence import Evidence
from vnet.fabric.suggested import Report, SuggestedRule
from vnet.policy.matrix import words
from vnet.policy.wanted import Wanted


def plain(report: Report) -> Mapping[str, Any]:
    """All of it."""
    return {
        "fabric": report.fabric,
        "asked": report.asked,
        "rules": [_rule(each) for each in report.rules],
        "besides": [
            {
                "client": one.client,
                "server": one.server,
                "network": one.network,
                "ip": one.version,
                "ports": words(one.services),
            }
            for one in report.besides
        ],
        "closes": [
            {"source": one.source, "target": one.target, "ports": words(one.closes)} for one in report.closes
        ],
        "left": [
            {
                "why": left.why.value,
                **_connection(left.wanted),
                "text": left.text,
                "at": str(left.at),
                **_proof(proof),
            }
            for left, proof in report.left
        ],
        "apart": [
            {
                "reason": one.reason,
                "meaning": one.meaning,
                "by": one.by,
                "source": one.source,
                "target": one.target,
                **_proof(one.evidence),
            }
            for one in report.apart
        ],
        "narrowed": report.narrowed,
        "files": sorted(report.texts),
        "diff": report.diff,
    }


def _rule(one: SuggestedRule) -> Mapping[str, Any]:
    added = one.added
    return {
        "policy": added.policy,
        "is_new_policy": one.is_new_policy,
        "direction": added.direction.value,
        "peers": list(map(str, added.peers)),
        "ports": list(added.ports.words),
        "at": str(one.at),
        "connections": [_connection(each) for each in dict.fromkeys(added.serves)],
        "unseen": [{"client": client, "server": server} for client, server in added.unseen],
        **_proof(one.evidence),
    }


def _connection(one: Wanted) -> Mapping[str, Any]:
    return {
        "client": one.client.name,
        "client_address": str(one.client.address),
        "server": one.server.name,
        "server_address": str(one.server.address),
        "protocol": one.protocol,
        "port": one.port,
    }


def _proof(seen: Evidence) -> Mapping[str, Any]:
    return {
        "packets": seen.packets,
        "first": seen.first.isoformat(),
        "last": seen.last.isoformat(),
        "verdicts": sorted(verdict.value for verdict in seen.verdicts),
    }
