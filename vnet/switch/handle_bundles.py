"""Bundles: flow_mods, group_mods and meter_mods that are put in force together (ONF extension 230)."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING

from vnet.openflow.message import (
    BadRequest,
    BundleAdd,
    BundleControl,
    BundleControlType,
    BundleFailed,
    BundleFlag,
    ErrorType,
    Role,
)
from vnet.switch.connection import Bundle, Connection, Request
from vnet.switch.draft import Mod
from vnet.switch.handle_changes import draft, put_in_force
from vnet.switch.jobs import Answer, Ask, Job

if TYPE_CHECKING:
    from vnet.switch.agent import Agent

MAX_BUNDLES = 16
"""Per connection."""
MAX_BUNDLE_MODS = 1 << 18
MAX_BUNDLE_BYTES = 1 << 26
"""Of all bundles of a connection, as on the wire; as many mods as can be have 256 each."""

_FLAGS = int(BundleFlag.ATOMIC | BundleFlag.ORDERED)


def bundle_add(agent: Agent, conn: Connection, request: Request, add: BundleAdd) -> None:
    """A message for a bundle that is not there opens it, as Open vSwitch does."""
    if add.bundle_id not in conn.bundles and len(conn.bundles) >= MAX_BUNDLES:
        _fail(agent, conn, request, BundleFailed.OUT_OF_BUNDLES)
        return
    bundle = conn.bundles.setdefault(add.bundle_id, Bundle(add.flags))
    fault = _fault(conn, bundle, request, add)
    if fault is not None:
        bundle.failed = True
        _fail(agent, conn, request, fault)
        return
    assert isinstance(add.message, Mod)
    bundle.mods.append((request.xid, add.message, request.head))
    bundle.size_bytes += request.size_bytes


def spoil(conn: Connection, bundle_id: int) -> None:
    """A message for a bundle could not be read: that bundle, opened by it or not, is not committed."""
    if bundle_id in conn.bundles or len(conn.bundles) < MAX_BUNDLES:
        conn.bundles.setdefault(bundle_id, Bundle(0)).failed = True


def _fault(conn: Connection, bundle: Bundle, request: Request, add: BundleAdd) -> BundleFailed | None:
    if bundle.closed:
        return BundleFailed.BUNDLE_CLOSED
    if bundle.flags != add.flags:
        return BundleFailed.BAD_FLAGS
    if not isinstance(add.message, Mod):
        return BundleFailed.MSG_UNSUP
    held = sum(each.size_bytes for each in conn.bundles.values())
    if len(bundle.mods) >= MAX_BUNDLE_MODS or held + request.size_bytes > MAX_BUNDLE_BYTES:
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
    if control.flags & ~_FLAGS:
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
    """Whether all was put in force; if not, the first request at fault is told its own error."""
    requests = [Request(*parts) for parts in bundle.mods]
    trial, refused, authors = draft(agent, requests, {})
    if refused:
        trial.rollback()
    else:
        for refusal in (yield from put_in_force(agent, trial)):
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
