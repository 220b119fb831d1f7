"""What the datapath reports about one packet at one observation point, as a frozen value.

The kernel's binary record is turned into this by the fabric layer; everything in `capture` starts
from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from vnet.base.drop import DropReason


class Point(StrEnum):
    """Where on its way the packet was seen, named from the NIC that the record names.

    Those of a NIC show the frame as the guest knows it, so on an access port without a VLAN tag; those of an
    uplink as it is on the wire there.
    """

    GUEST = "guest"
    """As the guest sent it, before any rule."""
    AFTER_GUARDS = "after-guards"
    """Of what it sent, what the guards believe."""
    AFTER_POLICY = "after-policy"
    """Of that, what the policies allow."""
    DELIVERED = "delivered"
    """As it was handed to the guest, after all rules."""
    UPLINK_IN = "uplink-in"
    """As it came in by an uplink, before any rule."""
    UPLINK_OUT = "uplink-out"
    """As it left by an uplink, after all rules."""


SENT = (Point.GUEST, Point.AFTER_GUARDS, Point.AFTER_POLICY)
"""Those that a packet passes on its way from the NIC that sends it, in order."""
AT_UPLINKS = (Point.UPLINK_IN, Point.UPLINK_OUT)


class Verdict(StrEnum):
    """What the switch did with the packet."""

    PASS = "pass"
    DROP = "drop"


@dataclass(frozen=True, slots=True)
class PacketRecord:
    """One packet, where it was seen, what became of it and why.

    `time_ns` is CLOCK_REALTIME, nanoseconds since 1970. `port` is the OpenFlow port number and `nic`
    the name (`web-1.eth0`) of the NIC observed. `cookie`, `table` and `rule` name the flow that
    decided; all are 0 when none did. `cookies` are those of all flows it met, in order, as far as
    known. `ct_state` holds the bits of `vnet.openflow.fields.CtState`. `generation` is that of the rules
    that decided. `data` is the frame from its first Ethernet byte, cut after as many bytes as the
    capture asked for; `original_length` is its whole length. `gso_size` and `gso_segs` are those of
    `segments.segments`. `taps` has a bit for each tap of the switch that wants the packet.
    """

    time_ns: int
    port: int
    nic: str
    point: Point
    verdict: Verdict
    reason: DropReason
    cookie: int
    table: int
    rule: int
    ct_state: int
    generation: int
    original_length: int
    data: bytes
    cookies: tuple[int, ...] = ()
    gso_size: int = 0
    gso_segs: int = 0
    taps: int = 0

    @property
    def interface(self) -> tuple[str, Point]:
        """What a capture file keeps apart as one interface."""
        return self.nic, self.point
