from __future__ import annotations

import pytest

from tests.unit.capture.samples import DENIED_AT, delivered, explain, record, table_name
from vnet.base.drop import DropReason
from vnet.capture.comment import MEANING, annotate, ct_state_text
from vnet.capture.record import Verdict
from vnet.openflow.fields import CtState


def test_a_drop_names_reason_rule_line_table_state_and_generation() -> None:
    assert annotate(record(), explain, table_name) == (
        f"dropped: POLICY — {DENIED_AT} (table ingress, ct_state=+trk+new, generation 3)",
    )


def test_a_drop_by_the_switch_itself_says_what_its_reason_means() -> None:
    malformed = record(reason=DropReason.MALFORMED, cookie=0, table=0, ct_state=0)
    (comment,) = annotate(malformed, explain)
    assert comment == (
        "dropped: MALFORMED — a header is cut off or contradicts itself "
        "(table 0, ct_state=-trk, generation 3)"
    )


def test_a_drop_by_a_flow_nobody_knows_any_more_still_says_what_its_reason_means() -> None:
    (comment,) = annotate(record(cookie=99), explain, table_name)
    assert comment.startswith("dropped: POLICY — no rule allows it, or a rule denies it (table ingress")


def test_a_packet_seen_before_the_rules_passed_and_after_them_is_delivered() -> None:
    assert annotate(record(verdict=Verdict.PASS), explain)[0].startswith(f"passed — {DENIED_AT}")
    assert annotate(delivered(cookie=0), explain)[0].startswith("delivered (table 6")


@pytest.mark.parametrize("reason", DropReason)
def test_every_drop_reason_has_a_sentence(reason: DropReason) -> None:
    assert MEANING[reason]


@pytest.mark.parametrize(
    ("ct_state", "text"),
    [
        (0, "-trk"),
        (CtState.TRK | CtState.EST, "+trk+est"),
        (CtState.TRK | CtState.EST | CtState.RPL, "+trk+est+rpl"),
        (CtState.TRK | CtState.INV, "+trk+inv"),
    ],
)
def test_connection_state_is_written_as_ovs_ofctl_writes_it(ct_state: int, text: str) -> None:
    assert ct_state_text(ct_state) == text
