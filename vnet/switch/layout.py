"""What must be the same in two versions of vnet for one to take over the other's maps: one number.

It follows from the structs, the numbers, the capacities and the places of fields in the key, so a
change of any of them cannot be forgotten. `REVISION` is for what only the C code knows.
"""

from __future__ import annotations

import ctypes
from dataclasses import astuple
from functools import cache
from hashlib import blake2b

from vnet.switch import abi
from vnet.switch.places import PLACES

REVISION = 4
"""Raise it when a map's content changes its meaning and none of the declarations shows it."""

_ENUMS = (abi.Op, abi.Word, abi.Has, abi.Need, abi.Kind, abi.Trait, abi.CtFlag, abi.PortFlag, abi.PathKind)
"""Those whose numbers stay in maps."""


@cache
def layout() -> int:
    """The layout's number, 32 bits, kept in `control.layout` of a running switch."""
    return int.from_bytes(blake2b(repr(_described()).encode(), digest_size=4).digest(), "big")


def _described() -> tuple[object, ...]:
    capacities = {name: number for name, number in vars(abi).items() if name.isupper() and name != "STRUCTS"}
    numbers = [(kind.__name__, [(name, int(n)) for name, n in kind.__members__.items()]) for kind in _ENUMS]
    places = sorted((name, *astuple(place)) for name, place in PLACES.items())
    return REVISION, sorted(capacities.items()), list(map(_members, abi.STRUCTS.values())), numbers, places


def _members(struct: type[ctypes.Structure]) -> tuple[object, ...]:
    offsets = [(part[0], getattr(struct, part[0]).offset) for part in struct._fields_]
    return struct.__name__, ctypes.sizeof(struct), offsets
