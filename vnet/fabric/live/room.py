"""Whether guests fit beside those of all fabrics of this host that run and stay."""

from __future__ import annotations

from vnet.fabric.live.observe import running
from vnet.fabric.live.parts import Parts
from vnet.fabric.live.registry import Registry
from vnet.fabric.state import Guest, State
from vnet.hv.admission import Commitment, admit


async def refuse_what_does_not_fit(
    registry: Registry, name: str, parts: Parts, now: frozenset[Guest], wanted: State
) -> None:
    """Raises AdmissionError when the guests of `wanted` that are not in `now` lack memory."""
    asked = wanted.guests - now
    if not asked:
        return
    leave = [await parts.guests.status(guest.name) for guest in now - wanted.guests]
    available = registry.host.available_memory_bytes() + sum(status.resident_bytes for status in leave)
    stay = [await _commitment(parts, guest) for guest in now & wanted.guests]
    others = (other for other in registry.fabrics if other != name)
    stay += [each for other in others for each in await _committed(registry, other)]
    admit([(guest.name, guest.memory_bytes) for guest in sorted(asked)], stay, available)


async def _committed(registry: Registry, name: str) -> list[Commitment]:
    """What the guests of another fabric may take, those included that it is about to start."""
    fabric = registry.fabrics[name]
    guests = await running(fabric.parts, registry.store, name) | fabric.starting
    return [await _commitment(fabric.parts, guest) for guest in guests]


async def _commitment(parts: Parts, guest: Guest) -> Commitment:
    return Commitment(guest.memory_bytes, (await parts.guests.status(guest.name)).resident_bytes)
