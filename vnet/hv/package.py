"""What may be in an OVA, and what its manifest says: a stranger's archive, bounded before anything is read.

Source: DMTF DSP0243 1.1.1, 5.1 (the manifest) and 5.3 (one archive of all files).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from vnet.base.errors import InputError

MEMBERS_MAX = 128
DESCRIPTOR_MAX_BYTES = 8 << 20
MANIFEST_MAX_BYTES = 1 << 20
_LINE = re.compile(r"(SHA1|SHA256|SHA512) ?\((.+)\) ?= ?([0-9a-fA-F]+)")
_DIGITS = {"SHA1": 40, "SHA256": 64, "SHA512": 128}


@dataclass(frozen=True, slots=True)
class Member:
    """A file of a package: so many bytes of the file `path`, from `offset` on."""

    name: str
    path: str
    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Sum:
    """What a manifest says of a file: the hash function as Python calls it, and the hash in hexadecimal."""

    function: str
    digest: str


def refuse_name(name: str, package: str) -> None:
    """Raises InputError for a name that is no plain file name: it could lead anywhere."""
    is_plain = name and "/" not in name and "\\" not in name and name not in (".", "..")
    if not is_plain or not name.isprintable() or len(name.encode()) > 255:
        raise InputError(f"{package} is refused: it has a file {name!r}, and only plain names are taken")


def descriptor_of(members: Sequence[Member], package: str) -> Member:
    """The member that describes the others. Raises InputError if there is none, several, or a huge one."""
    found = [each for each in members if each.name.lower().endswith(".ovf")]
    if len(found) != 1:
        raise InputError(f"{package} has {len(found) or 'no'} descriptors (*.ovf); an OVA has one")
    if found[0].size_bytes > DESCRIPTOR_MAX_BYTES:
        raise InputError(f"{package} is refused: its descriptor has {found[0].size_bytes >> 20} MiB")
    return found[0]


def manifest_of(members: Sequence[Member], descriptor: Member, package: str) -> Member | None:
    """The manifest, called as the descriptor; None if there is none."""
    name = descriptor.name[:-4] + ".mf"
    found = next((each for each in members if each.name.lower() == name.lower()), None)
    if found is not None and found.size_bytes > MANIFEST_MAX_BYTES:
        raise InputError(f"{package} is refused: its manifest has {found.size_bytes >> 20} MiB")
    return found


def sums(text: str, package: str) -> Mapping[str, Sum]:
    """What a manifest says of each file. Raises InputError for lines that it cannot have."""
    told: dict[str, Sum] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        found = _LINE.fullmatch(line.strip())
        if found is None or len(found[3]) != _DIGITS[found[1]] or found[2] in told:
            raise InputError(
                f"{package}: line {number} of its manifest is no checksum of a file: {line[:80]!r}"
            )
        told[found[2]] = Sum(found[1].lower(), found[3].lower())
    return told


def refuse_unnamed(told: Mapping[str, Sum], used: Iterable[str], package: str) -> None:
    """Raises InputError if the manifest keeps silent about a file that is used."""
    missing = [name for name in used if name not in told]
    if missing:
        raise InputError(f"{package} is refused: its manifest has no checksum of {', '.join(missing)}")


def member(members: Sequence[Member], name: str, package: str) -> Member:
    """The file of that name. Raises InputError if the descriptor names one that is not there."""
    found = next((each for each in members if each.name == name), None)
    if found is None:
        raise InputError(f"{package} is not whole: its descriptor names {name!r}, and it is not there")
    return found
