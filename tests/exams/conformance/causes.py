"""What a case needs, and why a switch fails it: data for docs/conformance.md."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum


class Need(Enum):
    """What a case needs beyond Ethernet, VLAN and IP."""

    NOTHING = ""
    MPLS = "MPLS"
    PBB = "PBB"


def need(description: str) -> Need:
    """Told by the case's own words."""
    if re.search("itag|pbb", description, re.IGNORECASE):
        return Need.PBB
    return Need.MPLS if re.search("mpls", description, re.IGNORECASE) else Need.NOTHING


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason for which cases of these files are failed; of several that fit, the first counts."""

    title: str
    file: str
    """A regular expression for the beginning of the file's name."""
    text: str
    needs: Callable[[Need], bool] = lambda _need: True

    def covers(self, file: str, description: str) -> bool:
        """Whether a failure in this case is explained."""
        return re.match(self.file, file) is not None and self.needs(need(description))


CAUSES = (
    Cause(
        "Provider backbone bridging",
        "",
        "Neither switch has IEEE 802.1ah. vnet refuses `push_pbb`, `pop_pbb` and the field `pbb_isid` with"
        " the errors that the standard names (BAD_ACTION BAD_TYPE, BAD_MATCH BAD_FIELD).",
        lambda need: need is Need.PBB,
    ),
    Cause(
        "SCTP checksums",
        "action/25_SET_FIELD/1[78]_SCTP",
        "No switch can pass these as shipped: os-ken takes the checksum of its SCTP packets, those sent and"
        " those expected, over the text `bytearray(b'…')` instead of over the bytes. A switch corrects or"
        " renews the checksum of the bytes. With `--repair-sctp`, which gives the packets correct checksums,"
        " both switches pass all of them.",
    ),
    Cause(
        "IPv6 extension headers",
        "match/39_IPV6_EXTHDR",
        "Open vSwitch does not match `ipv6_exthdr`.",
    ),
    Cause(
        "EtherType, IP protocol, bottom of stack",
        "action/25_SET_FIELD/(05_ETH_TYPE|10_IP_PROTO|36_MPLS_BOS)",
        "Open vSwitch does not write them (BAD_ACTION BAD_SET_ARGUMENT); OpenFlow 1.3.5, section 7.2.5, lets"
        " Set-Field write any header field.",
    ),
    Cause("Copying a TTL", "action/1[12]_COPY_TTL", "Open vSwitch has no such action."),
    Cause(
        "Second VLAN tag",
        "action/17_PUSH_VLAN_multiple",
        "A pushed tag has the VLAN and priority of the tag before it (section 5.12.1); in Open vSwitch both"
        " are 0.",
    ),
    Cause(
        "Pushed label",
        "action/19_PUSH_MPLS",
        "Open vSwitch guesses a label of 2 before IPv6, and a TTL of 64 before what is no IP.",
    ),
    Cause(
        "Frames that get too short",
        r"(match|action/25_SET_FIELD)/(19|20)_ICMPV4",
        "A frame of 60 bytes that loses its label is expected with 60 bytes still, as Ethernet demands. vnet"
        " pads it, Open vSwitch does not.",
        lambda need: need is Need.MPLS,
    ),
    Cause(
        "Select groups",
        "group/01_SELECT",
        "Open vSwitch tells flows apart by addresses and ports of IP, and what is no IP by its MACs: packets"
        " that differ in MACs under one pair of IP addresses, and ARP for different addresses, all take one"
        " bucket. vnet looks at all of these.",
    ),
    Cause(
        "Meters that drop",
        "meter/01_DROP",
        "A band without a burst size is read back with one by Open vSwitch, which chooses the rate; so the"
        " tester does not come to send a packet. vnet chooses the same burst and reads back what was sent.",
    ),
    Cause("Meters that remark", "meter/02_DSCP_REMARK", "Open vSwitch has no such band (BAD_BAND)."),
)


def cause(file: str, description: str) -> Cause | None:
    """Why a case was failed, if it is known."""
    return next((known for known in CAUSES if known.covers(file, description)), None)
