"""Which losses that the switch reports are for the log."""

from dataclasses import replace

import pytest

from vnet.base.drop import DropReason
from vnet.fabric.live.switch import is_for_log, refusal
from vnet.openflow import cookie
from vnet.openflow.fields import CtState
from vnet.switch.abi import Point
from vnet.switch.events import PacketEvent

DENY = cookie.make("rule", DropReason.POLICY, log=True)
EVENT = PacketEvent(
    5, Point.DROP, 3, 3, True, DropReason.POLICY, DENY, 31, (1,), CtState.TRK | CtState.RPL, 1, 0, 60, b"x"
)


def test_a_packet_that_a_logged_rule_refused_is_one():
    assert is_for_log(EVENT)
    seen = refusal(EVENT, 100)
    assert (seen.time_ns, seen.port, seen.references, seen.is_reply) == (105, 3, (DENY & 0xFFFFFFFF,), True)


@pytest.mark.parametrize(
    "change",
    [
        {"cookie": cookie.make("rule", DropReason.POLICY)},
        {"dropped": False},
        {"point": Point.DELIVERED},
        {"point": Point.CONTROLLER},
    ],
)
def test_others_are_not(change):
    assert not is_for_log(replace(EVENT, **change))


def test_a_refused_packet_of_a_captured_port_is_one():
    assert is_for_log(replace(EVENT, point=Point.GUEST))


def test_what_a_rule_let_pass_and_then_was_lost_is_no_refusal():
    """The flow counted it, so that it must not seem to be missing."""
    lost = replace(EVENT, cookie=cookie.make("commit", log=True), reason=DropReason.CT_QUOTA)
    assert is_for_log(lost)
    assert refusal(lost, 0).references == ()
