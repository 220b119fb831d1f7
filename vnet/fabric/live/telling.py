"""Tells of one step of a long operation: that it began, and how it ended, whichever way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from vnet.base.errors import VnetError
from vnet.fabric.progress import Progress, Report, Status


@dataclass(slots=True)
class Remark:
    """What stands behind a step that is done."""

    text: str = ""


@contextmanager
def telling(report: Report, number: int, what: str, of: int = 0) -> Iterator[Remark]:
    """The body is the step; `number` of `of`, 0 if nobody knows how many there will be."""
    began = time.monotonic()
    remark = Remark()
    report(Progress(number, what, Status.STARTED, of=of))
    try:
        yield remark
    except (VnetError, asyncio.CancelledError) as error:
        why = str(error) or "interrupted"
        report(Progress(number, what, Status.FAILED, time.monotonic() - began, why, of))
        raise
    report(Progress(number, what, Status.DONE, time.monotonic() - began, remark.text, of))
