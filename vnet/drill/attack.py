"""What a drill consists of: attacks, controls, and what could not be tried."""

from __future__ import annotations

from dataclasses import dataclass

PLAIN = bytes(10)
"""What a NIC of virtio says of a frame that is as it should be on the wire (struct virtio_net_hdr)."""


NO_CLOSED_PORT = "the rules let this NIC use every port"
"""Why an attack on a closed one cannot be tried."""


@dataclass(frozen=True, slots=True)
class Step:
    """Frames that one NIC sends at once, in order.

    `harmless`: it matters not whether they arrive, they only prepare what follows.
    `offload` is what the NIC tells the host of each of them (struct virtio_net_hdr).
    """

    sender: str
    frames: tuple[bytes, ...]
    harmless: bool = False
    offload: bytes = PLAIN


@dataclass(frozen=True, slots=True)
class Attack:
    """Frames of which nobody may get any, but for what `harmless` steps send.

    Args:
        group: what `--only` names.
        what: in a few words.
        source: where it is described (RFC, CVE) or what does it (a tool).
        may_pass: of a flood: so many frames may arrive before it is stopped.
    """

    group: str
    what: str
    source: str
    steps: tuple[Step, ...]
    may_pass: int = 0


@dataclass(frozen=True, slots=True)
class Control:
    """Honest frames that must arrive at one NIC: without them a port that is dead would pass the drill."""

    what: str
    step: Step
    receiver: str


@dataclass(frozen=True, slots=True)
class NotTried:
    """An attack that this fabric offers no occasion for."""

    group: str
    what: str
    source: str
    why: str


Exercise = Attack | NotTried


@dataclass(frozen=True, slots=True)
class Maker:
    """Makes the attacks of one group by one NIC."""

    group: str
    sender: str

    def attack(self, what: str, source: str, *frames: bytes, offload: bytes = PLAIN) -> Attack:
        """One that consists of frames which must not arrive."""
        return Attack(self.group, what, source, (Step(self.sender, frames, offload=offload),))

    def after(self, first: Step, what: str, source: str, *frames: bytes) -> Attack:
        """The same after a step that prepares it."""
        return Attack(self.group, what, source, (first, Step(self.sender, frames)))

    def missing(self, what: str, source: str, why: str) -> NotTried:
        """One that cannot be tried."""
        return NotTried(self.group, what, source, why)
