"""Which packets a capture keeps. `live.libpcap` compiles pcap filter expressions into such filters.

Filters see the frame as the guest does: on an access port it has no VLAN tag, so `vlan 10` matches
nothing there and `host 10.10.10.2` needs no `vlan and` before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class Filter(Protocol):
    """Decides on one frame."""

    @property
    def expression(self) -> str:
        """The text the filter was made from; empty when it keeps everything."""
        ...

    def matches(self, data: bytes, original_length: int) -> bool:
        """Whether the frame is wanted.

        Args:
            data: from the first Ethernet byte, perhaps cut.
            original_length: what `len`, `less` and `greater` compare with.
        """
        ...


@dataclass(frozen=True, slots=True)
class Everything:
    """The filter of a capture that was given no expression."""

    expression: str = ""

    def matches(self, data: bytes, original_length: int) -> bool:
        """Every frame is wanted."""
        return True


EVERYTHING = Everything()
