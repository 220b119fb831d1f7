"""Whether everything is as it should be, and what is not: pure, of one snapshot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vnet.fabric.cable import LinkState
from vnet.fabric.numbers import FabricNumbers, Numbers


@dataclass(frozen=True, slots=True)
class Unready:
    """Why a fabric is not ready."""

    fabric: str
    why: str


def unready(numbers: Numbers) -> tuple[Unready, ...]:
    """All reasons; none when every fabric has what is wanted in force and its switch answers."""
    return tuple(Unready(fabric.name, why) for fabric in numbers.fabrics for why in reasons(fabric))


def reasons(fabric: FabricNumbers) -> Iterator[str]:
    """Those of one fabric."""
    if fabric.enforced != fabric.generation:
        yield f"generation {fabric.generation} is wanted, {fabric.enforced} is in force"
    if fabric.unanswered:
        yield fabric.unanswered
    if fabric.trouble:
        yield fabric.trouble
    for network in fabric.unserved:
        yield f"nobody answers the guests of network {network}: its dnsmasq does not run"
    for uplink in fabric.uplinks:
        if uplink.link == LinkState.MISSING:
            yield f"the interface {uplink.interface} of uplink {uplink.name} is missing"
