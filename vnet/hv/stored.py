"""Images in the host's store as values: what is kept of each, and by which name it lies there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from vnet.base.boot import ImageFormat
from vnet.base.errors import HostError

ID_LENGTH = 32


@dataclass(frozen=True, slots=True)
class Stamp:
    """What of a file changes when somebody writes to it."""

    size_bytes: int
    changed_ns: int


@dataclass(frozen=True, slots=True)
class Stored:
    """An image of the store.

    `sha256` is that of the file it was imported from, `kept_sha256` that of the file that is kept: they
    differ where it was converted. `size_bytes` is what a guest sees, `origin` where it came from in words,
    and `imported_s` when, since 1970.
    """

    id: str
    format: ImageFormat
    """Of the file that it was imported from."""
    sha256: str
    kept_sha256: str
    size_bytes: int
    stamp: Stamp
    origin: str
    imported_s: int
    cloud_init: bool = False
    is_base: bool = False
    """Made of a VM's disk for linked clones: it goes with the last of them, unless it has a name."""

    @property
    def is_iso(self) -> bool:
        """Whether it is a medium and not a disk."""
        return self.format is ImageFormat.ISO

    @property
    def file(self) -> str:
        """The name of its file in its folder."""
        return "image.iso" if self.is_iso else "disk.qcow2"


def identify(sha256: str, kind: ImageFormat) -> str:
    """The ID of what is imported from such a file: the same bytes are the same image, whoever brings them."""
    return hashlib.sha256(f"{kind.value} {sha256}".encode()).hexdigest()[:ID_LENGTH]


def to_json(stored: Stored) -> str:
    """The manifest of an image."""
    return json.dumps({**asdict(stored), "format": stored.format.value}, indent=2) + "\n"


def from_json(text: str, path: str) -> Stored:
    """The image that a manifest tells of.

    Raises:
        HostError: it cannot be read.
    """
    try:
        raw: Mapping[str, object] = json.loads(text)
        stamp = raw["stamp"]
        assert isinstance(stamp, dict)
        return Stored(**{**raw, "format": ImageFormat(raw["format"]), "stamp": Stamp(**stamp)})  # type: ignore[arg-type]
    except (ValueError, TypeError, KeyError, AssertionError) as error:
        raise HostError(
            f"the image's manifest {path} is damaged ({error}): import the image again"
        ) from error


def refuse_pin(name: str, pin: str, sha256: str) -> None:
    """Raises HostError for a file that is not the one that was meant."""
    if pin and pin != sha256:
        raise HostError(f"{name} is not the one that is wanted: its SHA-256 is {sha256}, declared is {pin}")
