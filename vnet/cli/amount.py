"""Amounts of bytes as people write them."""

from __future__ import annotations

import re

from vnet.base.errors import UsageError

_AMOUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?)([KMGT]?)(?:iB|i)?")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def size_bytes(text: str, option: str) -> int:
    """`50M`, `1.5G`, or a plain number of bytes. Raises UsageError."""
    found = _AMOUNT.fullmatch(text)
    size = int(float(found[1]) * _UNITS[found[2]]) if found else 0
    if size <= 0:
        raise UsageError(f"{option} {text}: write an amount such as 50M or 1G")
    return size
