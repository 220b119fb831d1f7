"""What must be the same in two versions of vnet for one to take over the other's maps: one number.

It follows from the structs, the numbers, the capacities and the places of fields in the key, so a
change of any of them cannot be forgotten. `REVISION` is for what only the C code knows.
"""

from __future__ import annotations

import ctypes
from functools import cache
from hashlib import blake2b

from vnet.switch import abi
from vnet.switch.places import PLACES

REVISION = 3
"""Raise it when a map's content changes its meaning and none of the declarations shows it."""

_CAPACITIES = (
    abi.TABLES, abi.MASKS, abi.TABLE_MASKS, abi.RULES, abi.ACTIONS, abi.OUTPUTS, abi.PORTS, abi.LOW_IFINDEX,
    abi.GROUPS, abi.METERS, abi.BANDS, abi.CACHE, abi.PATHS, abi.CONNS,
)  # fmt: skip


@cache
def layout() -> int:
    """The layout's number, 32 bits, kept in `control.layout` of a running switch."""
    structs = [
        (
            name,
            ctypes.sizeof(struct),
            [(part[0], getattr(struct, part[0]).offset) for part in struct._fields_],
        )
        for name, struct in abi.STRUCTS.items()
    ]
    numbers = [(kind.__name__, list(kind.__members__.items())) for kind in (abi.Op, abi.Word, abi.CtFlag)]
    places = sorted((name, place.word, place.shift, place.has, place.wide) for name, place in PLACES.items())
    described = repr((REVISION, _CAPACITIES, structs, numbers, places))
    return int.from_bytes(blake2b(described.encode(), digest_size=4).digest(), "big")
