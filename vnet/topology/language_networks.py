"""The part of the language about networks, the routers between them, and the uplinks out of them."""

from __future__ import annotations

from vnet.topology import values
from vnet.topology.language_words import ADDRESS, BOOLEAN, CIDR, HOST, formed, integer, name_word, one_of
from vnet.topology.model import LEASE_S, Advertised, Isolation, Nat, UplinkMode
from vnet.topology.mtu import LEAST_BYTES, MAX_BYTES
from vnet.topology.shape import Field, ListOf, MapOf, Record, TextOrMap, Word, YesOrMap

VLAN_MAX = 4094

# ---- networks --------------------------------------------------------------------------------

SUBNET_CIDR = Field("cidr", CIDR, "the network and its prefix", required=True)
SUBNET_GATEWAY = Field("gateway", HOST, "the address of its router; its first address if left out")
DHCP_RANGE = Field(
    "range",
    formed("two addresses such as 10.10.10.100-10.10.10.199", values.address_range, values.RANGE_PATTERN),
    "the addresses that NICs are given which declare none; all of the subnet if left out",
)
DHCP_LEASE = Field(
    "lease",
    formed("a time with its unit such as 30m, 12h or 7d", values.lease, values.SPAN_PATTERN),
    "how long a guest may use an address before it asks again; 1h if left out",
    default=LEASE_S,
)
DHCP_RESERVATIONS = Field(
    "reservations",
    MapOf(
        formed(
            'a NIC such as web-1.eth0, or a MAC such as "52:54:00:12:34:56"',
            values.nic_or_mac,
            f"({values.NIC_PATTERN})|({values.MAC_PATTERN})",
        ),
        HOST,
        "a map of addresses by NIC or MAC",
    ),
    "who always gets which address",
    default={},
)
_DHCP = Record("a subnet's DHCP", (DHCP_RANGE, DHCP_LEASE, DHCP_RESERVATIONS))
SUBNET_DHCP = Field(
    "dhcp",
    YesOrMap(BOOLEAN, _DHCP),
    "whether guests are told their addresses when they ask by DHCP; false if left out",
)
SUBNET_RA = Field(
    "ra",
    one_of(Advertised),
    "slaac: guests make their addresses of the prefix, managed: they ask by DHCPv6, none: no router "
    "advertises; if left out, managed where dhcp serves the subnet",
)
_SUBNET = Record("a subnet", (SUBNET_CIDR, SUBNET_GATEWAY, SUBNET_DHCP, SUBNET_RA))

NETWORK_VLAN = Field("vlan", integer(1, VLAN_MAX), "the 802.1Q VLAN id, unique in the file", required=True)
NETWORK_SUBNETS = Field(
    "subnets",
    ListOf(TextOrMap(CIDR, _SUBNET, SUBNET_CIDR), "a CIDR or a list of CIDRs", single=True, minimum=1),
    "the address ranges; each NIC gets one address of each",
    required=True,
)
NETWORK_INTERNAL = Field(
    "internal", BOOLEAN, "true: no router may give it a way out; false if left out", default=False
)
NETWORK_ISOLATION = Field(
    "isolation",
    one_of(Isolation),
    "isolated: its VMs cannot talk to each other, only to promiscuous NICs; none if left out",
    default=Isolation.NONE,
)
_DOMAIN = Word(
    "true, false or a domain such as lab.internal",
    values.domain,
    {"anyOf": [{"type": "boolean"}, {"type": "string", "pattern": values.DOMAIN_PATTERN}]},
)
DNS_DOMAIN = Field(
    "domain", _DOMAIN, "the domain of the network's VMs; true (if left out) for FABRIC.internal", default=True
)
DNS_FORWARDERS = Field(
    "forwarders",
    ListOf(HOST, "an address or a list of addresses", single=True, minimum=1),
    "who is asked for all other names; nobody if left out",
    default=(),
)
NETWORK_DNS = Field(
    "dns",
    TextOrMap(_DOMAIN, Record("a network's DNS", (DNS_DOMAIN, DNS_FORWARDERS)), DNS_DOMAIN),
    "whether guests may ask for names of VMs, true for those of FABRIC.internal; false if left out",
)
NETWORK_MTU = Field(
    "mtu",
    Word(
        f"auto, or a whole number from {LEAST_BYTES[4]} to {MAX_BYTES}",
        values.mtu_bytes(LEAST_BYTES[4], MAX_BYTES),
        {"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": LEAST_BYTES[4], "maximum": MAX_BYTES}]},
    ),
    "the largest packet in bytes, at least 1280 with IPv6; auto (if left out): as the uplinks on the way "
    "allow, else 1500",
)
NETWORK_UPLINK = Field(
    "uplink", name_word("an uplink"), "the uplink that carries it to whoever is beyond; none if left out"
)
NETWORK = Record(
    "a network",
    (
        NETWORK_VLAN,
        NETWORK_SUBNETS,
        NETWORK_INTERNAL,
        NETWORK_ISOLATION,
        NETWORK_MTU,
        NETWORK_DNS,
        NETWORK_UPLINK,
    ),
)

# ---- routers ---------------------------------------------------------------------------------

ROUTE_TO = Field("to", CIDR, "the addresses that lie there", required=True)
ROUTE_VIA = Field("via", HOST, "who carries packets there: an address of one of the networks", required=True)
ROUTE = Record("a route", (ROUTE_TO, ROUTE_VIA))
ROUTER_NETWORKS = Field(
    "networks",
    ListOf(name_word("a network"), "a list of networks", minimum=1),
    "the networks between which it carries packets; each is in one router at most",
    required=True,
)
ROUTER_ROUTES = Field(
    "routes", ListOf(ROUTE, "a list of routes"), "what lies beyond hosts of its networks", default=()
)
ROUTER_UPLINK = Field(
    "uplink",
    name_word("an uplink"),
    "by which it sends what is for nobody in the fabric: host, or an uplink with addresses; none if left out",
)
ROUTER_NAT = Field(
    "nat",
    one_of(Nat),
    "masquerade: what leaves by the uplink gets the router's address there; none: it keeps its own; "
    "masquerade if left out",
)
ROUTER = Record("a router", (ROUTER_NETWORKS, ROUTER_ROUTES, ROUTER_UPLINK, ROUTER_NAT))

# ---- uplinks ---------------------------------------------------------------------------------

UPLINK_INTERFACE = Field(
    "interface",
    formed("the name of an interface of the host such as eth1", values.device, values.DEVICE_PATTERN),
    "the interface; the fabric has it to itself as long as it is up",
    required=True,
)
UPLINK_MODE = Field(
    "mode",
    one_of(UplinkMode),
    "access (if left out): one network, without tags; trunk: its networks by their VLAN tags",
)
UPLINK_NETWORKS = Field(
    "networks",
    ListOf(name_word("a network"), "a list of networks", minimum=1),
    "the networks that it carries",
)
UPLINK_ADDRESSES = Field(
    "addresses",
    ListOf(ADDRESS, "a list of addresses", minimum=1),
    "of the router that uses it: the addresses that it has there",
)
UPLINK_GATEWAYS = Field(
    "gateway",
    ListOf(HOST, "an address or a list of addresses", single=True, minimum=1),
    "of the router that uses it: to whom it sends what is for others, one of each version of IP",
    default=(),
)
UPLINK = Record(
    "an uplink", (UPLINK_INTERFACE, UPLINK_MODE, UPLINK_NETWORKS, UPLINK_ADDRESSES, UPLINK_GATEWAYS)
)
