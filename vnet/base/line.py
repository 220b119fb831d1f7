"""How fast a NIC may send and be sent, and what becomes of packets on the way: a topology declares it."""

from __future__ import annotations

from dataclasses import dataclass

BPS_MIN, BPS_MAX = 256_000, 32_000_000_000
"""Below, packets wait for seconds; above, the kernel's qdiscs count bytes a second in more than 32 bits."""
BURST_MIN, BURST_MAX = 16 << 10, 64 << 20
"""In bytes. The least holds the largest frame."""
BURST_S = 0.005
"""Of the rate, where nothing else is said: no timer of a busy host is later than that for long."""
WAIT_S = 0.100
"""How much of the rate may wait: TCP needs a queue, and who waits longer is better told by a loss."""
WAIT_BYTES_MIN = 32 << 10
"""Two dozen frames, or half a super packet: with less TCP loses more than it needs to."""


@dataclass(frozen=True, slots=True, order=True)
class Rate:
    """Of one direction: bits of frames a second, and how many bytes may go at once after a pause.

    Without bits it is as fast as it can be.
    """

    bps: int = 0
    burst_bytes: int = 0

    @property
    def depth_bytes(self) -> int:
        """How much may be under way, what goes at once included; beyond that is lost."""
        return self.burst_bytes + max(WAIT_BYTES_MIN, round(self.bps / 8 * WAIT_S))

    def __str__(self) -> str:
        return f"{bits(self.bps)}/s" if self.bps else "no rate"


UNLIMITED = Rate()


def rate_of(bps: int, burst_bytes: int | None = None) -> Rate:
    """A rate with the burst that it has if nobody gives one."""
    return Rate(bps, burst_bytes or min(BURST_MAX, max(BURST_MIN, round(bps / 8 * BURST_S))))


@dataclass(frozen=True, slots=True, order=True)
class Impairment:
    """What a bad cable does to packets, each way: delay and its variation, loss in millionths. 0 is none."""

    delay_us: int = 0
    jitter_us: int = 0
    loss_ppm: int = 0

    def __str__(self) -> str:
        parts = (
            (self.delay_us, f"delay {self.delay_us / 1000:g}ms"),
            (self.jitter_us, f"jitter {self.jitter_us / 1000:g}ms"),
            (self.loss_ppm, f"loss {self.loss_ppm / 10_000:g}%"),
        )
        return ", ".join(text for value, text in parts if value) or "none"


UNIMPAIRED = Impairment()


@dataclass(frozen=True, slots=True, order=True)
class Line:
    """What joins a NIC to the switch: `inward` is into the VM, `outward` out of it."""

    inward: Rate = UNLIMITED
    outward: Rate = UNLIMITED
    impairment: Impairment = UNIMPAIRED

    def __str__(self) -> str:
        if self == STRAIGHT:
            return "no rate"
        parts = [f"in {self.inward}"] if self.inward.bps else []
        parts += [f"out {self.outward}"] if self.outward.bps else []
        parts += [f"impaired: {self.impairment}"] if self.impairment != UNIMPAIRED else []
        return ", ".join(parts)


STRAIGHT = Line()
"""That of a NIC of which nothing is said."""


def bits(number: int) -> str:
    """A number of bits as it is written in a topology: `10M`, `1.5G`."""
    for power, unit in ((9, "G"), (6, "M"), (3, "K")):
        if number >= 10**power:
            return f"{number / 10**power:g}{unit}"
    return str(number)
