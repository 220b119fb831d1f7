"""The part of the language about NICs: what they may send by their profile, and how each is plugged in."""

from __future__ import annotations

from vnet.base import limits
from vnet.topology import quality, values
from vnet.topology.language_words import ADDRESS, BOOLEAN, MAC, formed, integer, name_word
from vnet.topology.shape import Field, ListOf, Record, TextForAll, Word

PAIR_ADDRESSES_MAX = 256
"""Of one profile: each is several flows for every NIC that has it."""

_ADDRESSES = formed(
    "an address such as 10.10.10.100, or a CIDR such as 10.10.10.96/29",
    values.addresses,
    values.ADDRESSES_PATTERN,
)

# ---- port security ---------------------------------------------------------------------------

LIMIT_CONNECTIONS = Field(
    "connections",
    integer(1, limits.CONNECTIONS_MAX),
    f"how many connections the NIC may have opened at once; {limits.STRICT.connections} if left out",
    default=limits.STRICT.connections,
)
LIMIT_MACS = Field(
    "macs",
    integer(1, limits.MACS_MAX),
    f"how many MACs may be learnt from the NIC; {limits.STRICT.macs} if left out",
    default=limits.STRICT.macs,
)
_LIMITS = Record("a profile's limits", (LIMIT_CONNECTIONS, LIMIT_MACS))


def _pps(name: str, what: str, default: int) -> Field[int]:
    doc = f"how many {what} the NIC may send a second, and at once; {default} if left out"
    return Field(name, integer(1, limits.PPS_MAX), doc, default=default)


STORM_BROADCAST = _pps("broadcast", "frames to all", limits.STRICT.broadcast_pps)
STORM_MULTICAST = _pps("multicast", "frames to groups", limits.STRICT.multicast_pps)
STORM_UNKNOWN = _pps(
    "unknown_unicast", "frames to addresses that nobody has", limits.STRICT.unknown_unicast_pps
)
_STORM_CONTROL = Record("a profile's storm control", (STORM_BROADCAST, STORM_MULTICAST, STORM_UNKNOWN))
PROFILE_STORM_CONTROL = Field(
    "storm_control", _STORM_CONTROL, "how much the NIC may send that is for many, or for nobody"
)
PROFILE_LIMITS = Field("limits", _LIMITS, "how much the NIC may use of the switch that all share")
PAIR_ADDRESS = Field("address", _ADDRESSES, "an address, or a CIDR for all in it", required=True)
PAIR_MAC = Field("mac", MAC, "the MAC that goes with it; the NIC's own if left out")
_PAIR = Record("an address pair", (PAIR_ADDRESS, PAIR_MAC))
PROFILE_PAIRS = Field(
    "allowed_address_pairs",
    ListOf(_PAIR, "a list of address pairs"),
    "addresses that the NIC may use besides its own, and others too",
    default=(),
)
PROFILE = Record(
    "a profile",
    (PROFILE_PAIRS, PROFILE_LIMITS, PROFILE_STORM_CONTROL),
    misplaced={
        "ethertypes": "no ethertypes can be let through besides IPv4, IPv6 and ARP: policies judge "
        "connections of IP, and none could say who may send other frames to whom"
    },
)

# ---- interfaces ------------------------------------------------------------------------------

INTERFACE_NETWORK = Field("network", name_word("a network"), "the network it is plugged into", required=True)
INTERFACE_ADDRESSES = Field(
    "addresses",
    ListOf(
        ADDRESS,
        "a list of addresses",
        minimum=1,
        if_empty='leave "addresses" out to have one allocated of each subnet',
    ),
    "its addresses; left out, one is allocated of each subnet of the network",
)
INTERFACE_MAC = Field("mac", MAC, "its MAC; left out, one is derived from the NIC's name")
INTERFACE_PROMISCUOUS = Field(
    "promiscuous",
    BOOLEAN,
    "true: all NICs of an isolated network may talk to this one; false if left out",
    default=False,
)
INTERFACE_PROFILE = Field(
    "profile", name_word("a profile"), "its port-security profile; strict if left out", default="strict"
)
INTERFACE_MIRROR_ONLY = Field(
    "mirror_only",
    BOOLEAN,
    "true: in no network; it gets what mirrors copy to it, and sends nothing; false if left out",
    default=False,
)
INTERFACE_DHCP = Field(
    "dhcp",
    BOOLEAN,
    "true: the guest asks for its addresses by DHCP and makes those that are advertised; false if left out: "
    "it is configured with them",
    default=False,
)
_RATE = formed(quality.RATE_EXPECTED, quality.rate, quality.RATE_PATTERN)
RATE_IN = Field("in", _RATE, "into the VM; as fast as it can if left out")
RATE_OUT = Field("out", _RATE, "out of the VM; as fast as it can if left out")
RATE_BURST = Field(
    "burst",
    formed("a number of bytes with its unit such as 64K or 1M", quality.burst, quality.BURST_PATTERN),
    "how many bytes may go at once after a pause; what 5 ms carry if left out, and 16K at least",
)
INTERFACE_RATE = Field(
    "rate",
    TextForAll(_RATE, Record("a rate", (RATE_IN, RATE_OUT, RATE_BURST)), (RATE_IN, RATE_OUT)),
    "how fast it may be sent and send, one rate for each way or a map; as fast as it can if left out",
)
INTERFACE_DSCP = Field(
    "dscp",
    Word(
        "a DSCP from 0 to 63, or its name such as EF or AF41",
        quality.dscp,
        {
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": quality.DSCP_MAX},
                {"enum": list(quality.DSCPS)},
            ]
        },
    ),
    "the code point that IP packets get which it sends; their own if left out",
)
_DELAY = formed("a time with its unit such as 20ms", quality.delay, quality.DELAY_PATTERN)
IMPAIR_DELAY = Field("delay", _DELAY, "how long each packet takes, each way")
IMPAIR_JITTER = Field("jitter", _DELAY, "by how much that varies, at most as long as the delay")
IMPAIR_LOSS = Field(
    "loss",
    formed("a share such as 1%", quality.loss, quality.LOSS_PATTERN),
    "how many packets are lost, each way",
)
IMPAIR_RATE = Field("rate", _RATE, "how fast it carries, each way")
INTERFACE_IMPAIR = Field(
    "impair",
    Record("an impairment", (IMPAIR_DELAY, IMPAIR_JITTER, IMPAIR_LOSS, IMPAIR_RATE)),
    "what a bad cable does to its packets, for labs; the kernel must have sch_netem",
)
INTERFACE = Record(
    "an interface",
    (
        INTERFACE_NETWORK,
        INTERFACE_ADDRESSES,
        INTERFACE_MAC,
        INTERFACE_PROMISCUOUS,
        INTERFACE_PROFILE,
        INTERFACE_MIRROR_ONLY,
        INTERFACE_DHCP,
        INTERFACE_RATE,
        INTERFACE_DSCP,
        INTERFACE_IMPAIR,
    ),
    later=("trunk", "native"),
    partial=True,
)
