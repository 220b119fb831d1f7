"""Why a packet was lost: one numbered list shared with the dataplane.

The same numbers stand in `vnet/switch/bpf/abi.h` (`enum vnet_drop`); a test compares both through
BTF. Numbers are never reused. Reasons from 64 up are given by a flow: the policy compiler writes
them into the cookie (`vnet.openflow.cookie`), the switch only passes them on.
"""

from __future__ import annotations

from enum import IntEnum


class DropReason(IntEnum):
    """Every way to lose a packet. NONE means "not dropped"."""

    NONE = 0
    # decided by the switch itself
    TABLE_MISS = 1
    """No flow of the table matched and the table has no miss flow."""
    RULE = 2
    """The matched flow has no output and its cookie gives no reason."""
    PORT_CLOSED = 3
    """The port has no complete generation of rules yet, or is administratively down."""
    MALFORMED = 4
    """A header is truncated or contradicts itself."""
    FRAGMENT = 5
    """A fragment that cannot be attributed to a connection."""
    CT_INVALID = 6
    CT_FULL = 7
    CT_QUOTA = 8
    MTU = 9
    TTL = 10
    NO_PORT = 11
    """The output port does not exist or is down."""
    LOOP = 12
    """More table lookups than one packet is allowed."""
    SAME_PORT = 13
    """The only output is the port the packet came in by."""
    ACTION_FAILED = 14
    """The kernel refused an action, for example out of memory when cloning."""
    RATE = 15
    STORM = 16
    """More frames for many or for nobody than the port may send."""
    UNSUPPORTED = 17
    """The packet needs something this datapath refuses, for example more actions than a path holds."""
    NO_BUCKET = 18
    """A group without a bucket that could take the packet."""
    NAT_FULL = 19
    """No address and port are left that a translation could use."""
    REFUSAL_QUOTA = 20
    """So many packets of the port were just refused that no more are looked at for a moment."""
    # given by the flow's cookie
    POLICY = 64
    SPOOF_MAC = 65
    SPOOF_IP = 66
    SPOOF_ARP = 67
    SPOOF_ND = 68
    ROGUE_DHCP = 69
    ROGUE_RA = 70
    VLAN_NOT_ALLOWED = 71
    ETHERTYPE = 72
    ISOLATED = 73
    NO_DST = 74
    """No NIC of this network has the destination's address."""
    NO_ROUTE = 75
    INVALID_STATE = 76
    """Not the first packet of a connection, and of no connection known."""
    MULTICAST = 77
    """IP broadcast or multicast that the fabric does not carry."""
    REJECTED = 78
    """No rule allows it or a rule rejects it, and the sender is told."""
