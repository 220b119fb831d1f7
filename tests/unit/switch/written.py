"""A switch whose maps are memory: the image, what is written for it, and how to read that."""

from __future__ import annotations

import ctypes
import struct

from tests.fakes.memory_maps import switch_maps
from vnet.openflow.codec import decode
from vnet.switch.datapath import Change
from vnet.switch.image import Image
from vnet.switch.live import adoption
from vnet.switch.live.writer import Writer
from vnet.switch.placed import Staged
from vnet.switch.staging import stage


def read(struct_: type[ctypes.Structure], raw: bytes | None) -> dict[str, object]:
    """The members of a struct that is exactly these bytes."""
    assert raw is not None
    assert len(raw) == ctypes.sizeof(struct_)
    return values(struct_.from_buffer_copy(raw))


def values(found: object) -> dict[str, object]:
    assert isinstance(found, ctypes.Structure)
    return {name: _plain(getattr(found, name)) for name, *_ in found._fields_ if name != "pad"}


def _plain(value: object) -> object:
    if isinstance(value, ctypes.Structure):
        return values(value)
    return [_plain(each) for each in value] if isinstance(value, ctypes.Array) else value


class Switch:
    """An image and the maps that it stands for."""

    def __init__(self) -> None:
        self.maps = switch_maps()
        self.image = Image(ports=(1, 2))
        self.writer = Writer(self.maps)  # type: ignore[arg-type]

    def write(self, change: Change) -> Staged:
        """All of a change up to the flip."""
        staged = stage(self.image, change)
        self.writer.write(staged)
        return staged

    def flip(self, staged: Staged) -> None:
        """What was written is in force."""
        window = self.maps["control"].window()  # type: ignore[attr-defined]
        window[0] = staged.version

    def commit(self, change: Change) -> Staged:
        """All of a change, with the grace period."""
        staged = self.write(change)
        self.flip(staged)
        self.writer.clean(staged)
        self.image.finish(staged)
        return staged

    def restart(self) -> None:
        """The agent is killed, another one adopts what it finds."""
        self.image = adoption.read(self.maps, self.image.ports)  # type: ignore[arg-type]
        self.writer = Writer(self.maps)  # type: ignore[arg-type]

    def at(self, name: str, struct_: type[ctypes.Structure], index: int) -> dict[str, object]:
        """A struct in an array."""
        return read(struct_, self.maps[name].index(index))

    def texts(self) -> dict[int, tuple[object, tuple[int, ...]]]:
        """By number: the message, and since, until, where."""
        chunks: dict[int, dict[int, bytes]] = {}
        for key, value in self.maps["rule_text"].items():
            number, chunk = struct.unpack("<II", key)
            chunks.setdefault(number, {})[chunk] = value
        found = {}
        for number, parts in chunks.items():
            since, until, length, place = struct.unpack_from("<IIII", parts[0])
            text = b"".join(parts[n][16:] for n in sorted(parts))[:length]
            found[number] = decode(text)[1], (since, until, place)
        return found
