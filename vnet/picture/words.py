"""What boxes and networks say, as plain lines: for forms that lay out by themselves, and for hover titles."""

from __future__ import annotations

from collections.abc import Iterator

from vnet.picture.scene import Box, Scene, Sign
from vnet.picture.text import clean
from vnet.picture.views import View


def box_words(box: Box, scene: Scene) -> tuple[str, ...]:
    """A VM's name, how many it stands for, state, NICs, groups; what is no VM says what it is."""
    return tuple(map(clean, _box_words(box, scene)))


def _box_words(box: Box, scene: Scene) -> Iterator[str]:
    yield box.name
    yield from box.about
    if box.count > 1:
        yield f"× {box.count} alike"
    for state, count in box.states.items():
        yield state.value if box.count == 1 else f"{count} {state.value}"
    if scene.view is not View.POLICY:
        yield from (f"{line.nic} {line.network} {', '.join(line.addresses)}".strip() for line in box.lines)
        yield from box.copies
    if box.groups:
        yield f"groups: {', '.join(box.groups)}"


def full_words(box: Box) -> str:
    """All about a box, for whoever points at it."""
    lines = [", ".join(box.members), *box.about]
    lines += [
        f"{line.nic} on {line.network}: {', '.join(line.addresses) or 'no address'}".strip()
        for line in box.lines
    ]
    lines += box.copies
    lines += [f"groups: {', '.join(box.groups)}"] if box.groups else []
    lines += [f"{count} {state.value}" for state, count in box.states.items()]
    return "\n".join(map(clean, lines))


def sign_words(sign: Sign) -> tuple[str, ...]:
    """A network's name, VLAN, subnets and what is special."""
    return tuple(map(clean, (sign.name, *sign.lines)))
