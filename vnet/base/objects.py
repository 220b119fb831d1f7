"""Many objects that stay: how often the garbage collector looks at them, which of them are others."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from itertools import compress, count
from operator import is_not
from typing import TypeVar

T = TypeVar("T")


def expect_many() -> None:
    """Have it look less often: a fabric of thousands of VMs is millions of objects that stay, and looking at
    all of them whenever they have become a few more takes a third of the time to compile it."""
    gc.set_threshold(50_000, 20, 100)


ENDS = 32
"""After so many VMs have ended the collector looks at everything."""
_ends = count(1)


def vm_has_ended() -> None:
    """Connections to a QEMU and its agent refer to each other; with the collector as it is set here, what is
    left of a VM, half a megabyte, would stay for ever."""
    if next(_ends) % ENDS == 0:
        gc.collect()


def not_the_same(before: Sequence[T], after: Sequence[T]) -> tuple[list[T], list[T]]:
    """What either of two long lists has that is not, at its place, the very object of the other.

    Lists of different lengths are compared without regard to places.
    """
    if len(before) == len(after):
        differs = [*map(is_not, before, after)]
        return [*compress(before, differs)], [*compress(after, differs)]
    had, has = set(map(id, before)), set(map(id, after))
    return [one for one in before if id(one) not in has], [one for one in after if id(one) not in had]
