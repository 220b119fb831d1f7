"""Tells of one step of a long operation: that it began, how far it is, and how it ended, whichever way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from vnet.base.errors import VnetError
from vnet.fabric.progress import Progress, Report, Status


@dataclass(slots=True)
class Remark:
    """What is told of a step besides: `moved` says how far it is, `text` stands behind it when it is done."""

    moved: Callable[[str], None]
    text: str = ""


@contextmanager
def telling(report: Report, number: int, what: str, of: int = 0) -> Iterator[Remark]:
    """The body is the step; `number` of `of`, 0 if nobody knows how many there will be."""
    began = time.monotonic()
    remark = Remark(lambda detail: report(Progress(number, what, Status.MOVED, detail=detail, of=of)))
    report(Progress(number, what, Status.STARTED, of=of))
    try:
        yield remark
    except (VnetError, asyncio.CancelledError) as error:
        why = str(error) or "interrupted"
        report(Progress(number, what, Status.FAILED, time.monotonic() - began, why, of))
        raise
    report(Progress(number, what, Status.DONE, time.monotonic() - began, remark.text, of))


def notes(report: Report) -> Callable[[str], None]:
    """Tells lines that are no steps."""
    return lambda text: report(Progress(1, text, Status.NOTE))
