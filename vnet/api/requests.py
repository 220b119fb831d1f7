"""Tells of each request, for who runs the daemon with -v: what was asked, not with what, and how it went."""

from __future__ import annotations

import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger(__name__)


def logged(app: ASGIApp) -> ASGIApp:
    """The same application; it costs nothing while nobody wants to know."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not log.isEnabledFor(logging.DEBUG):
            await app(scope, receive, send)
            return
        began_s, status = time.monotonic(), 0

        async def note(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await app(scope, receive, note)
        finally:
            took_ms = 1000 * (time.monotonic() - began_s)
            log.debug("%s %s: %d in %.0f ms", scope["method"], scope["path"], status, took_ms)

    return call
