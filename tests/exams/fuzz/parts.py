"""What can be examined, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tests.exams.fuzz.agent import Agent, EbpfAgent
from tests.exams.fuzz.case import Part
from tests.exams.fuzz.codec import Codec
from tests.exams.fuzz.maps import EbpfMaps, Maps
from tests.exams.fuzz.packets import Packets

PARTS: Mapping[str, Callable[[], Part]] = {
    Codec.name: Codec,
    Agent.name: Agent,
    EbpfAgent.name: EbpfAgent,
    Packets.name: Packets,
    Maps.name: Maps,
    EbpfMaps.name: EbpfMaps,
}


def made(name: str) -> Part:
    """A part, to be entered."""
    return PARTS[name]()
