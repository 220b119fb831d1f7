"""How often the garbage collector looks for cycles."""

from __future__ import annotations

import gc


def expect_many() -> None:
    """Have it look less often: a fabric of thousands of VMs is millions of objects that stay, and looking at
    all of them whenever they have become a few more takes a third of the time to compile it."""
    gc.set_threshold(50_000, 20, 100)
