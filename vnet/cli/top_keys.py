"""What keys do in `vnet top`: bytes of the terminal to keys, keys to the next view."""

from __future__ import annotations

from dataclasses import dataclass, replace

from vnet.cli.top_form import Sort, View


@dataclass(frozen=True, slots=True)
class Quit:
    """The user has seen enough."""


_SEQUENCES = {
    b"\x1b[A": "up",
    b"\x1bOA": "up",
    b"\x1b[B": "down",
    b"\x1bOB": "down",
    b"\x1b[5~": "page up",
    b"\x1b[6~": "page down",
    b"\x1b[H": "home",
    b"\x1bOH": "home",
    b"\x1b[1~": "home",
    b"\x1b[F": "end",
    b"\x1bOF": "end",
    b"\x1b[4~": "end",
}


def keys(data: bytes) -> tuple[str, ...]:
    """What was typed, key by key; what is no key that we know is left out."""
    found: list[str] = []
    while data:
        known = next((each for each in _SEQUENCES if data.startswith(each)), b"")
        if known:
            found.append(_SEQUENCES[known])
            data = data[len(known) :]
        elif data[:1] == b"\x1b" and len(data) > 1:
            data = data[_sequence_length(data) :]
        else:
            found.append(_SINGLE.get(data[:1]) or data[:1].decode("ascii", "ignore"))
            data = data[1:]
    return tuple(filter(None, found))


_SINGLE = {b"\x1b": "escape", b"\r": "enter", b"\n": "enter", b"\x7f": "backspace", b"\x08": "backspace"}


def _sequence_length(data: bytes) -> int:
    """Of an escape sequence that stands for nothing here: up to its final byte (ECMA-48, section 5.4)."""
    if data[1:2] != b"[":
        return 2
    return next((n + 1 for n in range(2, len(data)) if 0x40 <= data[n] <= 0x7E), len(data))


def press(view: View, key: str, count: int, room: int) -> View | Quit:
    """The view after a key, with so many VMs in it and room for so many."""
    if view.typing is not None:
        return _type(view, key)
    if view.help:
        return replace(view, help=False)
    most = max(0, count - room)
    offset = min(view.offset, most)
    moves = {
        "up": offset - 1,
        "k": offset - 1,
        "down": offset + 1,
        "j": offset + 1,
        "page up": offset - room,
        "page down": offset + room,
        "home": 0,
        "end": most,
    }
    match key:
        case "q" | "\x03":
            return Quit()
        case "s":
            order = list(Sort)
            return replace(view, sort=order[(order.index(view.sort) + 1) % len(order)], offset=0)
        case "c":
            return replace(view, connections=not view.connections, resources=False, offset=0)
        case "m":
            return replace(view, resources=not view.resources, connections=False, offset=0)
        case "/":
            return replace(view, typing=view.filter, offset=0)
        case "p" | " ":
            return replace(view, paused=not view.paused)
        case "?" | "h":
            return replace(view, help=True)
        case "escape":
            return replace(view, filter="", offset=0)
        case _ if key in moves:
            return replace(view, offset=max(0, min(moves[key], most)))
    return view


def _type(view: View, key: str) -> View | Quit:
    typed = view.typing or ""
    match key:
        case "enter":
            return replace(view, filter=typed, typing=None)
        case "escape":
            return replace(view, filter="", typing=None)
        case "backspace":
            return replace(view, typing=typed[:-1])
        case "\x03":
            return Quit()
        case _ if len(key) == 1 and key.isprintable():
            return replace(view, typing=typed + key)
    return view
