"""Reads requests, and tells of each, for who runs the daemon with -v: what was asked, and how it went."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vnet.base.errors import InputError

log = logging.getLogger(__name__)


async def body_of(request: Request) -> Mapping[str, Any]:
    """The JSON object that is sent along; an empty one if nothing is. Raises InputError."""
    try:
        body = json.loads(await request.body() or b"{}")
    except ValueError as error:
        raise InputError(
            f"the request is not JSON: {error}"
        ) from None  # the whole of it may have a key in it
    if not isinstance(body, dict):
        raise InputError("the request must be a JSON object")
    return body


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
