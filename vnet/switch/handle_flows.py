"""Flow_mods, alone and in bundles (OpenFlow 1.3.5, section 6.4; ONF extension 230)."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from typing import TYPE_CHECKING

from vnet.openflow.codec import CodecError, decode
from vnet.openflow.message import (
    BadRequest,
    BundleAdd,
    BundleControl,
    BundleControlType,
    BundleFailed,
    BundleFlag,
    ErrorType,
    FlowMod,
    FlowRemovedReason,
    Role,
)
from vnet.switch.connection import Bundle, Connection, Request, head
from vnet.switch.datapath import Counter, FlowKey, Refused
from vnet.switch.expiry import announce_removed
from vnet.switch.flowtable import Draft
from vnet.switch.jobs import Answer, Ask, Commit, Job, Kind, ReadCounters, Refusal

if TYPE_CHECKING:
    from vnet.switch.agent import Agent

GROUP_MODS = 4096
"""How many flow_mods of one connection are committed together at most."""
MAX_BUNDLES = 16
"""Per connection."""
MAX_BUNDLE_MODS = 1 << 18

_FLOW_MOD = 14
_BUNDLE_FLAGS = int(BundleFlag.ATOMIC | BundleFlag.ORDERED)


# -- single flow_mods -----------------------------------------------------------------------------


def flow_mod(agent: Agent, conn: Connection, request: Request, mod: FlowMod) -> Job:
    """The request, together with the flow_mods that stand right behind it: one commit for all."""
    return _change_flows(agent, conn, [request, *_following(conn)])


def _following(conn: Connection) -> Iterator[Request]:
    """The well-formed flow_mods at the front of the inbox."""
    for _ in range(GROUP_MODS - 1):
        raw = conn.peek()
        if not isinstance(raw, bytes) or raw[1] != _FLOW_MOD:
            return
        try:
            xid, message = decode(raw)
        except CodecError:
            return  # answered when it is its turn
        conn.next()
        yield Request(xid, message, head(raw))


def _change_flows(agent: Agent, conn: Connection, requests: list[Request]) -> Job:
    """Carry out flow_mods that do not depend on each other's success; errors follow in their order."""
    verdicts: dict[int, Refusal] = {}
    while True:
        draft, refused, authors = _draft(agent, requests, verdicts)
        refusals = yield from _put_in_force(agent, draft)
        if not refusals:
            break
        culprits = {authors[r.key]: r for r in refusals if r.key is not None and r.key in authors}
        rest = [place for place in range(len(requests)) if place not in refused]
        if not culprits and len(rest) > 1:
            for request in requests:
                yield from _change_flows(agent, conn, [request])
            return
        verdicts |= culprits or {rest[0]: refusals[0]}
    for place, refusal in sorted(refused.items()):
        agent.refuse(conn, requests[place], refusal.error_type, refusal.code)


def _draft(
    agent: Agent, requests: list[Request], verdicts: Mapping[int, Refusal]
) -> tuple[Draft, dict[int, Refusal], dict[FlowKey, int]]:
    """All of `requests` but those already judged; who failed and why; who put which flow last."""
    draft, refused = Draft(agent.flows, agent.now), dict(verdicts)
    authors: dict[FlowKey, int] = {}
    for place, request in enumerate(requests):
        if place in verdicts:
            continue
        assert isinstance(request.message, FlowMod)
        try:
            authors.update(dict.fromkeys(draft.apply(request.message), place))
        except Refused as error:
            refused[place] = Refusal(error.error_type, error.code, error.key)
    return draft, refused, authors


def _put_in_force(agent: Agent, draft: Draft) -> Generator[Ask, Answer, tuple[Refusal, ...]]:
    """Commit a draft; if the datapath refuses, the draft is taken back and the reasons returned."""
    change = draft.change()
    counters: Mapping[FlowKey, Counter] = {}
    if draft.wants_counters():
        answer = yield lambda token: ReadCounters(token, Kind.FLOWS)
        counters = answer.counters
    if change.put or change.remove:
        answer = yield lambda token: Commit(token, change)
        if answer.refusals:
            draft.rollback()
            return answer.refusals
    announce_removed(agent, draft.deleted, FlowRemovedReason.DELETE, counters)
    agent.expiry.plan()
    return ()


# -- bundles --------------------------------------------------------------------------------------


def bundle_add(agent: Agent, conn: Connection, request: Request, add: BundleAdd) -> None:
    """A message for a bundle that is not there opens it, as Open vSwitch does."""
    if add.bundle_id not in conn.bundles and len(conn.bundles) >= MAX_BUNDLES:
        _fail(agent, conn, request, BundleFailed.OUT_OF_BUNDLES)
        return
    bundle = conn.bundles.setdefault(add.bundle_id, Bundle(add.flags))
    fault = _fault(bundle, add)
    if fault is not None:
        bundle.failed = True
        _fail(agent, conn, request, fault)
        return
    assert isinstance(add.message, FlowMod)
    bundle.mods.append((request.xid, add.message, request.head))


def _fault(bundle: Bundle, add: BundleAdd) -> BundleFailed | None:
    if bundle.closed:
        return BundleFailed.BUNDLE_CLOSED
    if bundle.flags != add.flags:
        return BundleFailed.BAD_FLAGS
    if not isinstance(add.message, FlowMod):
        return BundleFailed.MSG_UNSUP
    if len(bundle.mods) >= MAX_BUNDLE_MODS:
        return BundleFailed.MSG_TOO_MANY
    return None


def bundle_control(agent: Agent, conn: Connection, request: Request, control: BundleControl) -> Job | None:
    """One step in the life of a bundle."""
    step = _STEPS.get(control.type)
    if step is None:
        _fail(agent, conn, request, BundleFailed.BAD_TYPE)
        return None
    if control.type != BundleControlType.OPEN_REQUEST and control.bundle_id not in conn.bundles:
        _fail(agent, conn, request, BundleFailed.BAD_ID)
        return None
    return step(agent, conn, request, control)


def _fail(agent: Agent, conn: Connection, request: Request, code: BundleFailed) -> None:
    agent.refuse(conn, request, ErrorType.EXPERIMENTER, code)


def _confirm(agent: Agent, conn: Connection, request: Request, control: BundleControl) -> None:
    """The reply to a control message has the number after the request's."""
    agent.reply(conn, request, BundleControl(control.bundle_id, control.type + 1, control.flags))


def _open(agent: Agent, conn: Connection, request: Request, control: BundleControl) -> None:
    if control.flags & ~_BUNDLE_FLAGS:
        _fail(agent, conn, request, BundleFailed.BAD_FLAGS)
    elif control.bundle_id in conn.bundles:
        _fail(agent, conn, request, BundleFailed.BUNDLE_EXIST)
    elif len(conn.bundles) >= MAX_BUNDLES:
        _fail(agent, conn, request, BundleFailed.OUT_OF_BUNDLES)
    else:
        conn.bundles[control.bundle_id] = Bundle(control.flags)
        _confirm(agent, conn, request, control)


def _close(agent: Agent, conn: Connection, request: Request, control: BundleControl) -> None:
    bundle = conn.bundles[control.bundle_id]
    if bundle.closed:
        _fail(agent, conn, request, BundleFailed.BUNDLE_CLOSED)
    elif bundle.flags != control.flags:
        _fail(agent, conn, request, BundleFailed.BAD_FLAGS)
    else:
        bundle.closed = True
        _confirm(agent, conn, request, control)


def _discard(agent: Agent, conn: Connection, request: Request, control: BundleControl) -> None:
    del conn.bundles[control.bundle_id]
    _confirm(agent, conn, request, control)


def _commit(agent: Agent, conn: Connection, request: Request, control: BundleControl) -> Job:
    """All of it or nothing: every bundle is treated as atomic and ordered."""
    bundle = conn.bundles.pop(control.bundle_id)
    if bundle.flags != control.flags:
        _fail(agent, conn, request, BundleFailed.BAD_FLAGS)
    elif conn.role is Role.SLAVE:
        agent.refuse(conn, request, ErrorType.BAD_REQUEST, BadRequest.IS_SLAVE)
    elif bundle.failed or not (yield from _apply(agent, conn, bundle)):
        _fail(agent, conn, request, BundleFailed.MSG_FAILED)
    else:
        _confirm(agent, conn, request, control)


def _apply(agent: Agent, conn: Connection, bundle: Bundle) -> Generator[Ask, Answer, bool]:
    """Whether all was put in force; if not, the first flow_mod at fault is told its own error."""
    requests = [Request(*parts) for parts in bundle.mods]
    draft, refused, authors = _draft(agent, requests, {})
    if refused:
        draft.rollback()
    else:
        for refusal in (yield from _put_in_force(agent, draft)):
            place = 0 if refusal.key is None else authors.get(refusal.key, 0)
            refused.setdefault(place, refusal)
    for place, refusal in sorted(refused.items())[:1]:
        agent.refuse(conn, requests[place], refusal.error_type, refusal.code)
    return not refused


_Step = Callable[["Agent", Connection, Request, BundleControl], Job | None]

_STEPS: Mapping[int, _Step] = {
    BundleControlType.OPEN_REQUEST: _open,
    BundleControlType.CLOSE_REQUEST: _close,
    BundleControlType.COMMIT_REQUEST: _commit,
    BundleControlType.DISCARD_REQUEST: _discard,
}
