"""Flow_mods, group_mods and meter_mods (OpenFlow 1.3.5, sections 6.4 to 6.6)."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping

from vnet.openflow.codec import CodecError, decode
from vnet.openflow.message import (
    ErrorType,
    FlowMod,
    GroupMod,
    GroupModFailed,
    MeterMod,
    MeterModFailed,
)
from vnet.switch.connection import Connection, Request, head
from vnet.switch.datapath import Change, ChangeKey, Counter, FlowKey, Refused
from vnet.switch.desk import Desk
from vnet.switch.draft import Draft, Mod
from vnet.switch.expiry import announce_removed
from vnet.switch.jobs import UNKNOWN, Answer, Ask, Commit, Job, Kind, ReadCounters, Refusal

TOGETHER = 4096
"""How many requests of one connection are committed together at most."""

_MODS = (14, 15, 29)
"""OFPT_FLOW_MOD, GROUP_MOD, METER_MOD."""


def change(desk: Desk, conn: Connection, request: Request, mod: Mod) -> Job:
    """The request, together with those like it that stand right behind it: one commit for all."""
    return _carry_out(desk, conn, [request, *_following(conn)])


def _following(conn: Connection) -> Iterator[Request]:
    """The well-formed changes at the front of the inbox."""
    for _ in range(TOGETHER - 1):
        raw = conn.peek()
        if not isinstance(raw, bytes) or raw[1] not in _MODS:
            return
        try:
            xid, message = decode(raw)
        except CodecError:
            return  # answered when it is its turn
        conn.next()
        yield Request(xid, message, head(raw))


def _carry_out(desk: Desk, conn: Connection, requests: list[Request]) -> Job:
    """Carry out all that can be, in their order; errors follow in the same order."""
    verdicts: dict[int, Refusal] = {}
    while True:
        trial, refused, authors = draft(desk, requests, verdicts)
        refusals = yield from put_in_force(desk, trial)
        if not refusals:
            break
        culprits = {authors[r.key]: r for r in refusals if r.key is not None and r.key in authors}
        rest = [place for place in range(len(requests)) if place not in refused]
        if not culprits and len(rest) > 1:
            for request in requests:
                yield from _carry_out(desk, conn, [request])
            return
        verdicts |= culprits or {rest[0]: _of(requests[rest[0]], refusals[0])}
    for place, refusal in sorted(refused.items()):
        desk.refuse(conn, requests[place], refusal.error_type, refusal.code)


def _of(request: Request, refusal: Refusal) -> Refusal:
    """What the kernel did not do is told in the words of the request."""
    return _FAILED[type(request.message)] if refusal == UNKNOWN else refusal


_FAILED = {
    FlowMod: UNKNOWN,
    GroupMod: Refusal(ErrorType.GROUP_MOD_FAILED, GroupModFailed.EPERM),
    MeterMod: Refusal(ErrorType.METER_MOD_FAILED, MeterModFailed.UNKNOWN),
}


def draft(
    desk: Desk, requests: list[Request], verdicts: Mapping[int, Refusal]
) -> tuple[Draft, dict[int, Refusal], dict[ChangeKey, int]]:
    """All of `requests` but those already judged; who failed and why; who put what last."""
    trial, refused = Draft(desk.tables, desk.now), dict(verdicts)
    authors: dict[ChangeKey, int] = {}
    for place, request in enumerate(requests):
        if place in verdicts:
            continue
        assert isinstance(request.message, Mod)
        try:
            authors.update(dict.fromkeys(trial.apply(request.message), place))
        except Refused as error:
            refused[place] = Refusal(error.error_type, error.code, error.key)
    return trial, refused, authors


def put_in_force(desk: Desk, draft: Draft) -> Generator[Ask, Answer, tuple[Refusal, ...]]:
    """Commit a draft; if the datapath refuses, the draft is taken back and the reasons returned."""
    change = draft.change()
    counters: Mapping[FlowKey, Counter] = {}
    if draft.wants_counters():
        answer = yield lambda token: ReadCounters(token, Kind.FLOWS)
        counters = answer.counters
    if change != Change():
        answer = yield lambda token: Commit(token, change)
        if answer.refusals:
            draft.rollback()
            return answer.refusals
    announce_removed(desk, draft.deleted, counters)
    return ()
