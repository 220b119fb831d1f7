"""Bundles: flow_mods, group_mods and meter_mods that are put in force together (ONF extension 230)."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping

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
from vnet.switch.desk import Desk
from vnet.switch.draft import Mod
from vnet.switch.handle_changes import draft, put_in_force
from vnet.switch.jobs import Answer, Ask, Job

MAX_BUNDLES = 16
"""Per connection."""
MAX_BUNDLE_MODS = 1 << 18
MAX_BUNDLE_BYTES = 1 << 26
"""Of all bundles of a connection, as on the wire; as many mods as can be have 256 each."""

_FLAGS = int(BundleFlag.ATOMIC | BundleFlag.ORDERED)


def bundle_add(desk: Desk, conn: Connection, request: Request, add: BundleAdd) -> None:
    """A message for a bundle that is not there opens it, as Open vSwitch does."""
    if add.bundle_id not in conn.bundles and len(conn.bundles) >= MAX_BUNDLES:
        _fail(desk, conn, request, BundleFailed.OUT_OF_BUNDLES)
        return
    bundle = conn.bundles.setdefault(add.bundle_id, Bundle(add.flags))
    fault = _fault(conn, bundle, request, add)
    if fault is not None:
        bundle.failed = True
        _fail(desk, conn, request, fault)
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


def bundle_control(desk: Desk, conn: Connection, request: Request, control: BundleControl) -> Job | None:
    """One step in the life of a bundle."""
    step = _STEPS.get(control.type)
    if step is None:
        _fail(desk, conn, request, BundleFailed.BAD_TYPE)
        return None
    if control.type != BundleControlType.OPEN_REQUEST and control.bundle_id not in conn.bundles:
        _fail(desk, conn, request, BundleFailed.BAD_ID)
        return None
    return step(desk, conn, request, control)


def _fail(desk: Desk, conn: Connection, request: Request, code: BundleFailed) -> None:
    desk.refuse(conn, request, ErrorType.EXPERIMENTER, code)


def _confirm(desk: Desk, conn: Connection, request: Request, control: BundleControl) -> None:
    """The reply to a control message has the number after the request's."""
    desk.reply(conn, request, BundleControl(control.bundle_id, control.type + 1, control.flags))


def _open(desk: Desk, conn: Connection, request: Request, control: BundleControl) -> None:
    if control.flags & ~_FLAGS:
        _fail(desk, conn, request, BundleFailed.BAD_FLAGS)
    elif control.bundle_id in conn.bundles:
        _fail(desk, conn, request, BundleFailed.BUNDLE_EXIST)
    elif len(conn.bundles) >= MAX_BUNDLES:
        _fail(desk, conn, request, BundleFailed.OUT_OF_BUNDLES)
    else:
        conn.bundles[control.bundle_id] = Bundle(control.flags)
        _confirm(desk, conn, request, control)


def _close(desk: Desk, conn: Connection, request: Request, control: BundleControl) -> None:
    bundle = conn.bundles[control.bundle_id]
    if bundle.closed:
        _fail(desk, conn, request, BundleFailed.BUNDLE_CLOSED)
    elif bundle.flags != control.flags:
        _fail(desk, conn, request, BundleFailed.BAD_FLAGS)
    else:
        bundle.closed = True
        _confirm(desk, conn, request, control)


def _discard(desk: Desk, conn: Connection, request: Request, control: BundleControl) -> None:
    del conn.bundles[control.bundle_id]
    _confirm(desk, conn, request, control)


def _commit(desk: Desk, conn: Connection, request: Request, control: BundleControl) -> Job:
    """All of it or nothing: every bundle is treated as atomic and ordered."""
    bundle = conn.bundles.pop(control.bundle_id)
    if bundle.flags != control.flags:
        _fail(desk, conn, request, BundleFailed.BAD_FLAGS)
    elif conn.role is Role.SLAVE:
        desk.refuse(conn, request, ErrorType.BAD_REQUEST, BadRequest.IS_SLAVE)
    elif bundle.failed or not (yield from _apply(desk, conn, bundle)):
        _fail(desk, conn, request, BundleFailed.MSG_FAILED)
    else:
        _confirm(desk, conn, request, control)


def _apply(desk: Desk, conn: Connection, bundle: Bundle) -> Generator[Ask, Answer, bool]:
    """Whether all was put in force; if not, the first request at fault is told its own error."""
    requests = [Request(*parts) for parts in bundle.mods]
    trial, refused, authors = draft(desk, requests, {})
    if refused:
        trial.rollback()
    else:
        for refusal in (yield from put_in_force(desk, trial)):
            place = 0 if refusal.key is None else authors.get(refusal.key, 0)
            refused.setdefault(place, refusal)
    for place, refusal in sorted(refused.items())[:1]:
        desk.refuse(conn, requests[place], refusal.error_type, refusal.code)
    return not refused


_Step = Callable[[Desk, Connection, Request, BundleControl], Job | None]

_STEPS: Mapping[int, _Step] = {
    BundleControlType.OPEN_REQUEST: _open,
    BundleControlType.CLOSE_REQUEST: _close,
    BundleControlType.COMMIT_REQUEST: _commit,
    BundleControlType.DISCARD_REQUEST: _discard,
}
