"""The pipeline as data: the tables a packet of a guest walks through, and what each may look at.

`docs/pipeline.md` holds the table that `markdown()` makes of this, and a test compares the two;
another checks that the compiler's flows match on nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from vnet.base.drop import DropReason
from vnet.topology.model import Direction


class Stage(IntEnum):
    """Table numbers, in the order in which a packet meets them.

    EGRESS and INGRESS are those of the first tier; each further tier has the next number.
    """

    ADMIT = 0
    SOURCE_GUARD = 1
    NEIGHBOUR = 2
    ROUTE = 3
    DESTINATION = 4
    CONNECTION = 5
    EGRESS = 10
    INGRESS = 30
    DELIVER = 50


CLIENT, CLIENT_PEER = "reg0", "reg7"
"""Identity of the client, as the one whom policies apply to and as the one whom rules name; until the
direction is known, of the sender."""
SERVER, SERVER_PEER = "reg1", "reg8"
"""Identity of the server likewise; until the direction is known, of the receiver."""
OUT_PORT = "reg2"
SERVICE = "reg3"
"""Protocol (ICMP for ICMPv6 too) in the upper half, the server's port in the lower; 0 for other protocols."""
SCRATCH = "reg4"
APART = "reg6"
"""Whether the sender and the receiver are isolated: on an isolated network and not promiscuous."""
SENDER_APART, RECEIVER_APART = 1, 2
BOTH_APART = SENDER_APART | RECEIVER_APART
ADMITTED = "ct_mark", 1
"""Connections are committed with this mark, so that a packet of one that was let in can be told."""
OUTSIDER = "ct_mark", 2
"""Connections of which one end is outside have this bit too: errors about them may come from any router."""
NEIGHBOUR_KIND = "reg5"
"""What source_guard found an ARP or ND packet to be: ANNOUNCE or PROBE; ASKS or ANSWERS what is asked of the
network's own server, or answered by it; FOREIGN from outside; else 0."""
LOGGED = "reg9"
"""1 when a rule that lets the packet pass wants its connection logged."""
LOGGED_BY = {Direction.EGRESS: "reg10", Direction.INGRESS: "reg11"}
"""Which rules those are: the low 32 bits of their cookies."""
ROUTER = "reg12"
"""The zone of the router that the sender's network is in, else 0."""

SERVED = "reg13"
"""Whether the packet goes to the network's own server (DHCP, DNS) or comes from it."""

ANNOUNCE, PROBE, ASKS, ANSWERS, FOREIGN = 1, 2, 3, 4, 5
TO_SERVICE, FROM_SERVICE = 1, 2

REGISTERS = (
    (
        CLIENT,
        "identity of the client as the one whom policies apply to (before table 5: of the sender); "
        "1 = it is outside",
    ),
    (SERVER, "identity of the server as the one whom policies apply to (before table 5: of the receiver)"),
    (OUT_PORT, "port of the receiver"),
    (
        SERVICE,
        "protocol (1 = ICMP and ICMPv6, 6, 17, 132) << 16 \\| the server's port, of ICMP the request's type; "
        "0 = another protocol",
    ),
    (SCRATCH, "scratch, to swap client and server in replies"),
    (
        NEIGHBOUR_KIND,
        "1 = announcement of an own address, 2 = probe for an own address, "
        "3 = asked of the network's server (DHCP, router solicitation), 4 = answered by it, "
        "5 = from outside",
    ),
    (APART, "1 = the sender is isolated, 2 = the receiver is"),
    (CLIENT_PEER, "identity of the client as the one whom rules name (before table 5: of the sender)"),
    (SERVER_PEER, "identity of the server as the one whom rules name (before table 5: of the receiver)"),
    (LOGGED, "1 = a rule that lets it pass wants its connection logged"),
    (LOGGED_BY[Direction.EGRESS], "low half of the cookie of the egress rule that does"),
    (LOGGED_BY[Direction.INGRESS], "low half of the cookie of the ingress rule that does"),
    (ROUTER, "zone of the router that the sender's network is in"),
    (SERVED, "1 = to the network's own server, 2 = from it"),
)


@dataclass(frozen=True, slots=True)
class Table:
    """One table: `fields` is what its flows may match on, `miss` what befalls a packet no flow takes.

    `drops` are all the reasons for which packets are lost in it, `onward` the stages it leads to.
    """

    number: Stage
    name: str
    purpose: str
    fields: tuple[str, ...]
    miss: str
    drops: tuple[DropReason, ...]
    onward: tuple[Stage, ...] = ()

    @property
    def question(self) -> str:
        """What it answers: the beginning of its purpose."""
        asked, mark, _ = self.purpose.partition("?")
        return asked + mark


TIERED = (Stage.EGRESS, Stage.INGRESS)
"""The stages that have a table for each tier."""

TABLES = (
    Table(
        Stage.ADMIT,
        "admit",
        "Which network is this? Untagged packets of a known port get the tag of its network",
        ("in_port", "vlan_vid", "eth_src"),
        "drop PORT_CLOSED",
        (DropReason.PORT_CLOSED, DropReason.VLAN_NOT_ALLOWED, DropReason.SPOOF_MAC),
        (Stage.SOURCE_GUARD,),
    ),
    Table(
        Stage.SOURCE_GUARD,
        "source_guard",
        "Is the sender who it says it is? MAC, IPv4, IPv6, ARP and ND source guard; rogue DHCP and RA; "
        "later fragments. Sets the sender's identity",
        (
            *("in_port", "vlan_vid", "eth_src", "eth_dst"),
            *("eth_type", "ip_proto", "ip_frag", "ipv4_src", "ipv6_src"),
            *("arp_op", "arp_sha", "arp_spa", "arp_tpa", "udp_src", "udp_dst"),
            *("icmpv4_type", "icmpv6_type", "ipv6_nd_target", "ipv6_nd_sll", "ipv6_nd_tll"),
        ),
        "drop SPOOF_MAC",
        (
            *(DropReason.SPOOF_MAC, DropReason.SPOOF_IP, DropReason.SPOOF_ARP, DropReason.SPOOF_ND),
            *(DropReason.ETHERTYPE, DropReason.FRAGMENT, DropReason.ROGUE_DHCP, DropReason.ROGUE_RA),
            *(DropReason.MULTICAST, DropReason.NO_ROUTE),
        ),
        (Stage.NEIGHBOUR, Stage.ROUTE, Stage.DESTINATION),
    ),
    Table(
        Stage.NEIGHBOUR,
        "neighbour",
        "Who has this address? ARP and neighbour discovery: a request goes to the owner only, "
        "announcements to the whole network",
        (
            *("vlan_vid", "eth_dst", "eth_type", "ip_proto", "arp_op", "arp_tpa"),
            *("icmpv6_type", "ipv6_nd_target", NEIGHBOUR_KIND, APART),
        ),
        "drop NO_DST",
        (DropReason.NO_DST,),
    ),
    Table(
        Stage.ROUTE,
        "route",
        "Which network does it go to? Packets for a gateway go on into another network, by the longest "
        "prefix; an echo request for it is answered. Only packets from networks of a router come here",
        (
            *("vlan_vid", "eth_dst", "eth_type", "ipv4_dst", "ipv6_src", "ipv6_dst", ROUTER),
            *("ip_proto", "ip_frag", "icmpv4_type", "icmpv4_code", "icmpv6_type", "icmpv6_code"),
            *("udp_dst", "tcp_dst", CLIENT),
        ),
        "goto destination",
        (DropReason.NO_ROUTE, DropReason.NO_DST),
        (Stage.DESTINATION,),
    ),
    Table(
        Stage.DESTINATION,
        "destination",
        "Who is it for? Sets the receiver's identity and port, and asks the connection tracker "
        "in the network's zone, or the router's",
        (
            *("vlan_vid", "eth_dst", "eth_type", "ipv4_dst", "ipv6_dst", ROUTER, CLIENT),
            *("ip_proto", "udp_dst", "tcp_dst", "icmpv4_type", "icmpv6_type"),
        ),
        "drop NO_DST",
        (DropReason.NO_DST, DropReason.MULTICAST, DropReason.NO_ROUTE),
        (Stage.CONNECTION,),
    ),
    Table(
        Stage.CONNECTION,
        "connection",
        "Which end is the client? Swaps the identities of replies and notes protocol and server's port; "
        "ICMP errors about a known connection skip the policies if one of its ends sends them. VMs of an "
        "isolated network part here",
        (
            *("ct_state", "eth_type", "ip_proto", "icmpv4_type", "icmpv6_type", "ipv4_src", "ipv6_src"),
            *("ct_nw_src", "ct_nw_dst", "ct_ipv6_src", "ct_ipv6_dst", OUTSIDER[0], CLIENT, APART, SERVED),
        ),
        "drop INVALID_STATE",
        (DropReason.INVALID_STATE, DropReason.ISOLATED),
        (Stage.EGRESS, Stage.INGRESS, Stage.DELIVER),
    ),
    Table(
        Stage.EGRESS,
        "egress",
        "May the client open this connection? Its egress rules in order, a table for each tier that has any; "
        "in that of the last tier also what holds if no rule matches",
        (CLIENT, SERVER_PEER, SERVICE, ADMITTED[0]),
        "goto the next tier; of the last: goto ingress (egress is open until a policy lists it)",
        (DropReason.POLICY, DropReason.REJECTED),
        (Stage.EGRESS, Stage.INGRESS),
    ),
    Table(
        Stage.INGRESS,
        "ingress",
        "May the server be reached by it? Its ingress rules in order, tables as for egress",
        (SERVER, CLIENT_PEER, SERVICE, ADMITTED[0]),
        "goto the next tier; of the last: drop POLICY",
        (DropReason.POLICY, DropReason.REJECTED),
        (Stage.INGRESS, Stage.DELIVER),
    ),
    Table(
        Stage.DELIVER,
        "deliver",
        "Commit a new connection, tell the controller of one that a rule logs, remove the tag, send to the "
        "receiver's port",
        ("vlan_vid", "eth_type", "ct_state", "ct_zone", ADMITTED[0], LOGGED, CLIENT, SERVER, OUT_PORT),
        "drop NO_DST",
        (DropReason.NO_DST,),
    ),
)


def table_of(number: int) -> Table | None:
    """The description of a table by its number, of any tier; None if the pipeline has no such table."""
    found = [table for table in TABLES if table.number <= number]
    if not found or (found[-1].number != number and found[-1].number not in TIERED):
        return None
    return found[-1]


def name_of(number: int) -> str:
    """What a table is called: `admit`, `ingress 2` for the ingress table of the second tier."""
    table = table_of(number)
    if table is None:
        return ""
    return f"{table.name} {number - table.number + 1}" if table.number in TIERED else table.name


def markdown() -> str:
    """The pipeline as the tables of `docs/pipeline.md`."""
    lines = ["| # | table | purpose | matches | miss |", "|---|---|---|---|---|"]
    for table in TABLES:
        fields = " ".join(f"`{field}`" for field in table.fields)
        number = f"{table.number}…" if table.number in TIERED else f"{table.number}"
        lines.append(f"| {number} | `{table.name}` | {table.purpose} | {fields} | {table.miss} |")
    lines += ["", "| register | holds |", "|---|---|"]
    lines += [f"| `{register}` | {purpose} |" for register, purpose in REGISTERS]
    return "\n".join(lines) + "\n"
