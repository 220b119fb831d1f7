"""Records and frames that the capture tests share."""

from __future__ import annotations

from typing import Any

from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from vnet.base.drop import DropReason
from vnet.capture.record import PacketRecord, Point, Verdict
from vnet.openflow.fields import CtState

DENIED_AT = 'policy db-from-app, rule 2 "deny any" at topologies/three-tier.vnet.yaml:21'
DENIED_COOKIE = 0x7640_0000_0000_0001

SSH_SYN = bytes(
    Ether(src="52:54:00:00:00:03", dst="52:54:00:12:34:56")
    / IP(src="10.10.20.3", dst="10.10.20.11")
    / TCP(sport=41022, dport=22, flags="S")
)


def record(**changed: Any) -> PacketRecord:
    """The packet of the demo: app's SSH to db, denied by the second rule of db-from-app."""
    values: dict[str, Any] = {
        "time_ns": 1_700_000_000_123_456_789,
        "port": 4,
        "nic": "app.eth1",
        "point": Point.GUEST,
        "verdict": Verdict.DROP,
        "reason": DropReason.POLICY,
        "cookie": DENIED_COOKIE,
        "table": 6,
        "rule": 17,
        "ct_state": CtState.TRK | CtState.NEW,
        "generation": 3,
        "original_length": len(SSH_SYN),
        "data": SSH_SYN,
    }
    return PacketRecord(**(values | changed))


def delivered(**changed: Any) -> PacketRecord:
    """A packet that db is handed."""
    passed: dict[str, Any] = {
        "nic": "db.eth0",
        "point": Point.DELIVERED,
        "verdict": Verdict.PASS,
        "reason": DropReason.NONE,
    }
    return record(**(passed | changed))


def explain(cookie: int) -> str:
    """The provenance of the one flow these tests know."""
    return DENIED_AT if cookie == DENIED_COOKIE else ""


def table_name(number: int) -> str:
    """The names of two tables."""
    return {5: "egress", 6: "ingress"}.get(number, str(number))
