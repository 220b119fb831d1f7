"""The topology language as one table: every key, what it may hold, and what is not built yet.

The reader (`load`), the JSON schema (`schema`) and the manual's completeness test go by this table.
"""

from __future__ import annotations

from enum import Enum
from typing import TypeVar

from vnet.base import limits
from vnet.base.boot import MICRO
from vnet.topology import life, life_text, mirrors, published, quality, selectors, values
from vnet.topology.language_cloud_init import VM_CLOUD_INIT
from vnet.topology.language_images import IMAGE, IMAGE_NAME, VM_BOOT
from vnet.topology.model import (
    LEASE_S,
    TIERS,
    Action,
    Advertised,
    DiskFormat,
    Enforcement,
    Established,
    Isolation,
    MirrorDirection,
    Nat,
    UplinkMode,
)
from vnet.topology.mtu import LEAST_BYTES, MAX_BYTES
from vnet.topology.shape import (
    Field,
    ListOf,
    ListOrMap,
    MapOf,
    Record,
    TextForAll,
    TextOrMap,
    Word,
    YesOrMap,
)

E = TypeVar("E", bound=Enum)

FABRIC_NAME_MAX = 24
"""Socket paths (`/run/vnet/fabrics/FABRIC/vms/VM/...`) must fit into the 108 bytes of sockaddr_un."""
VM_NAME_MAX = 40
"""See FABRIC_NAME_MAX; the replica's number included."""
REPLICAS_MAX = 1000
DISK_NAME_MAX = 20
"""What a virtio disk's serial number has room for (VIRTIO 1.2, 5.2.6.1)."""
CPUS_MAX = 255
VLAN_MAX = 4094
PAIR_ADDRESSES_MAX = 256
"""Of one profile: each is several flows for every NIC that has it."""
SNAPLEN_MAX = 262_144
"""As tcpdump has it: more than any frame."""
TIERS_MAX = 16
"""Each has two tables of the switch to itself."""

# ---- scalars ---------------------------------------------------------------------------------


def _name(what: str, maximum: int = values.NAME_MAX) -> Word[str]:
    expected = f"{what}: {values.NAME_EXPECTED} (at most {maximum})"
    json = {"type": "string", "pattern": values.NAME_PATTERN, "maxLength": maximum}
    return Word(expected, values.name_of(maximum), json)


def _integer(low: int, high: int) -> Word[int]:
    json = {"type": "integer", "minimum": low, "maximum": high}
    return Word(f"a whole number from {low} to {high}", values.integer_from(low, high), json)


_TEXT = Word("text", values.string, {"type": "string"})
_BOOLEAN = Word("true or false", values.boolean, {"type": "boolean"})
_CIDR = Word(
    'a CIDR such as 10.10.10.0/24 or "fd00:10::/64"',
    values.network,
    {"type": "string", "pattern": values.CIDR_PATTERN},
)
_ADDRESSES = Word(
    "an address such as 10.10.10.100, or a CIDR such as 10.10.10.96/29",
    values.addresses,
    {"type": "string", "pattern": values.ADDRESSES_PATTERN},
)
_ADDRESS = Word(
    "an address with its prefix such as 10.10.10.11/24",
    values.address,
    {"type": "string", "pattern": values.CIDR_PATTERN},
)
_HOST = Word("an address such as 10.10.10.1", values.host, {"type": "string", "pattern": values.HOST_PATTERN})
_MAC = Word(
    'a MAC such as "52:54:00:12:34:56"', values.mac, {"type": "string", "pattern": values.MAC_PATTERN}
)
_MEMORY = Word(
    "an amount of memory with its unit such as 96M or 1G",
    values.memory,
    {"type": "string", "pattern": values.MEMORY_PATTERN},
)


def _one_of(kind: type[E]) -> Word[E]:
    words = [each.value for each in kind]
    expected = f"{', '.join(words[:-1])} or {words[-1]}"
    return Word(expected, values.one_of({each.value: each for each in kind}), {"enum": words})


_ACTION = _one_of(Action)
_TIME = Word(
    "a date such as 2026-12-31, or a time such as 2026-12-31T18:00Z",
    values.end_of,
    {"type": "string", "pattern": values.TIME_PATTERN},
)
_LABEL_KEY = Word("a label", values.text, {"type": "string"})
_LABEL_VALUE = Word("text", values.text, {"type": ["string", "number", "boolean"]})
_INTERFACE_NAME = Word(
    "the name of an interface such as eth0 (lowercase letters and digits, at most 15)",
    values.interface_name,
    {"type": "string", "pattern": values.IFNAME_PATTERN, "maxLength": values.IFNAME_MAX},
)
_PEER = Word(selectors.PEER_EXPECTED, selectors.peer, {"type": "string", "minLength": 1})
_PORTS = Word(selectors.PORTS_EXPECTED, selectors.ports, {"type": "string", "minLength": 1})
_PLAIN_PORTS = Word(
    "ports such as 443/tcp or 8000-8999/udp, icmp or any",
    selectors.plain_ports,
    {"type": "string", "pattern": selectors.PLAIN_PORTS_PATTERN},
)
_CLAIM = Word(
    selectors.CLAIM_EXPECTED, selectors.claim, {"type": "string", "pattern": selectors.CLAIM_PATTERN}
)
_PEERS = ListOf(
    _PEER, "a peer or a list of peers", single=True, minimum=1, if_empty='write "any" for everybody'
)
_LABELS = MapOf(_LABEL_KEY, _LABEL_VALUE, "a map of labels")

# ---- networks --------------------------------------------------------------------------------

SUBNET_CIDR = Field("cidr", _CIDR, "the network and its prefix", required=True)
SUBNET_GATEWAY = Field("gateway", _HOST, "the address of its router; its first address if left out")
DHCP_RANGE = Field(
    "range",
    Word(
        "two addresses such as 10.10.10.100-10.10.10.199",
        values.address_range,
        {"type": "string", "pattern": values.RANGE_PATTERN},
    ),
    "the addresses that NICs are given which declare none; all of the subnet if left out",
)
DHCP_LEASE = Field(
    "lease",
    Word(
        "a time with its unit such as 30m, 12h or 7d",
        values.lease,
        {"type": "string", "pattern": values.SPAN_PATTERN},
    ),
    "how long a guest may use an address before it asks again; 1h if left out",
    default=LEASE_S,
)
DHCP_RESERVATIONS = Field(
    "reservations",
    MapOf(
        Word(
            'a NIC such as web-1.eth0, or a MAC such as "52:54:00:12:34:56"',
            values.nic_or_mac,
            {"type": "string", "pattern": f"({values.NIC_PATTERN})|({values.MAC_PATTERN})"},
        ),
        _HOST,
        "a map of addresses by NIC or MAC",
    ),
    "who always gets which address",
    default={},
)
_DHCP = Record("a subnet's DHCP", (DHCP_RANGE, DHCP_LEASE, DHCP_RESERVATIONS))
SUBNET_DHCP = Field(
    "dhcp",
    YesOrMap(_BOOLEAN, _DHCP),
    "whether guests are told their addresses when they ask by DHCP; false if left out",
)
SUBNET_RA = Field(
    "ra",
    _one_of(Advertised),
    "slaac: guests make their addresses of the prefix, managed: they ask by DHCPv6, none: no router "
    "advertises; if left out, managed where dhcp serves the subnet",
)
_SUBNET = Record("a subnet", (SUBNET_CIDR, SUBNET_GATEWAY, SUBNET_DHCP, SUBNET_RA))

NETWORK_VLAN = Field("vlan", _integer(1, VLAN_MAX), "the 802.1Q VLAN id, unique in the file", required=True)
NETWORK_SUBNETS = Field(
    "subnets",
    ListOf(TextOrMap(_CIDR, _SUBNET, SUBNET_CIDR), "a CIDR or a list of CIDRs", single=True, minimum=1),
    "the address ranges; each NIC gets one address of each",
    required=True,
)
NETWORK_INTERNAL = Field(
    "internal", _BOOLEAN, "true: no router may give it a way out; false if left out", default=False
)
NETWORK_ISOLATION = Field(
    "isolation",
    _one_of(Isolation),
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
    ListOf(_HOST, "an address or a list of addresses", single=True, minimum=1),
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
    "uplink", _name("an uplink"), "the uplink that carries it to whoever is beyond; none if left out"
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

ROUTE_TO = Field("to", _CIDR, "the addresses that lie there", required=True)
ROUTE_VIA = Field("via", _HOST, "who carries packets there: an address of one of the networks", required=True)
ROUTE = Record("a route", (ROUTE_TO, ROUTE_VIA))
ROUTER_NETWORKS = Field(
    "networks",
    ListOf(_name("a network"), "a list of networks", minimum=1),
    "the networks between which it carries packets; each is in one router at most",
    required=True,
)
ROUTER_ROUTES = Field(
    "routes", ListOf(ROUTE, "a list of routes"), "what lies beyond hosts of its networks", default=()
)
ROUTER_UPLINK = Field(
    "uplink",
    _name("an uplink"),
    "by which it sends what is for nobody in the fabric: host, or an uplink with addresses; none if left out",
)
ROUTER_NAT = Field(
    "nat",
    _one_of(Nat),
    "masquerade: what leaves by the uplink gets the router's address there; none: it keeps its own; "
    "masquerade if left out",
)
ROUTER = Record("a router", (ROUTER_NETWORKS, ROUTER_ROUTES, ROUTER_UPLINK, ROUTER_NAT))

# ---- uplinks ---------------------------------------------------------------------------------

UPLINK_INTERFACE = Field(
    "interface",
    Word(
        "the name of an interface of the host such as eth1",
        values.device,
        {"type": "string", "pattern": values.DEVICE_PATTERN},
    ),
    "the interface; the fabric has it to itself as long as it is up",
    required=True,
)
UPLINK_MODE = Field(
    "mode",
    _one_of(UplinkMode),
    "access (if left out): one network, without tags; trunk: its networks by their VLAN tags",
)
UPLINK_NETWORKS = Field(
    "networks", ListOf(_name("a network"), "a list of networks", minimum=1), "the networks that it carries"
)
UPLINK_ADDRESSES = Field(
    "addresses",
    ListOf(_ADDRESS, "a list of addresses", minimum=1),
    "of the router that uses it: the addresses that it has there",
)
UPLINK_GATEWAYS = Field(
    "gateway",
    ListOf(_HOST, "an address or a list of addresses", single=True, minimum=1),
    "of the router that uses it: to whom it sends what is for others, one of each version of IP",
    default=(),
)
UPLINK = Record(
    "an uplink", (UPLINK_INTERFACE, UPLINK_MODE, UPLINK_NETWORKS, UPLINK_ADDRESSES, UPLINK_GATEWAYS)
)

# ---- port security ---------------------------------------------------------------------------

LIMIT_CONNECTIONS = Field(
    "connections",
    _integer(1, limits.CONNECTIONS_MAX),
    f"how many connections the NIC may have opened at once; {limits.STRICT.connections} if left out",
    default=limits.STRICT.connections,
)
LIMIT_MACS = Field(
    "macs",
    _integer(1, limits.MACS_MAX),
    f"how many MACs may be learnt from the NIC; {limits.STRICT.macs} if left out",
    default=limits.STRICT.macs,
)
_LIMITS = Record("a profile's limits", (LIMIT_CONNECTIONS, LIMIT_MACS))


def _pps(name: str, what: str, default: int) -> Field[int]:
    doc = f"how many {what} the NIC may send a second, and at once; {default} if left out"
    return Field(name, _integer(1, limits.PPS_MAX), doc, default=default)


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
PAIR_MAC = Field("mac", _MAC, "the MAC that goes with it; the NIC's own if left out")
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

# ---- VMs -------------------------------------------------------------------------------------

INTERFACE_NETWORK = Field("network", _name("a network"), "the network it is plugged into", required=True)
INTERFACE_ADDRESSES = Field(
    "addresses",
    ListOf(
        _ADDRESS,
        "a list of addresses",
        minimum=1,
        if_empty='leave "addresses" out to have one allocated of each subnet',
    ),
    "its addresses; left out, one is allocated of each subnet of the network",
)
INTERFACE_MAC = Field("mac", _MAC, "its MAC; left out, one is derived from the NIC's name")
INTERFACE_PROMISCUOUS = Field(
    "promiscuous",
    _BOOLEAN,
    "true: all NICs of an isolated network may talk to this one; false if left out",
    default=False,
)
INTERFACE_PROFILE = Field(
    "profile", _name("a profile"), "its port-security profile; strict if left out", default="strict"
)
INTERFACE_MIRROR_ONLY = Field(
    "mirror_only",
    _BOOLEAN,
    "true: in no network; it gets what mirrors copy to it, and sends nothing; false if left out",
    default=False,
)
INTERFACE_DHCP = Field(
    "dhcp",
    _BOOLEAN,
    "true: the guest asks for its addresses by DHCP and makes those that are advertised; false if left out: "
    "it is configured with them",
    default=False,
)
_RATE = Word(quality.RATE_EXPECTED, quality.rate, {"type": "string", "pattern": quality.RATE_PATTERN})
RATE_IN = Field("in", _RATE, "into the VM; as fast as it can if left out")
RATE_OUT = Field("out", _RATE, "out of the VM; as fast as it can if left out")
RATE_BURST = Field(
    "burst",
    Word(
        "a number of bytes with its unit such as 64K or 1M",
        quality.burst,
        {"type": "string", "pattern": quality.BURST_PATTERN},
    ),
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
_DELAY = Word(
    "a time with its unit such as 20ms", quality.delay, {"type": "string", "pattern": quality.DELAY_PATTERN}
)
IMPAIR_DELAY = Field("delay", _DELAY, "how long each packet takes, each way")
IMPAIR_JITTER = Field("jitter", _DELAY, "by how much that varies, at most as long as the delay")
IMPAIR_LOSS = Field(
    "loss",
    Word("a share such as 1%", quality.loss, {"type": "string", "pattern": quality.LOSS_PATTERN}),
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

VM_TEMPLATE = Field("template", _name("a template"), "the template that gives what the VM leaves out")
MICRO_MEMORY_MIN = 80 << 20
"""With less its kernel has no room to unpack its files into memory, and panics again and again."""
VM_IMAGE = Field(
    "image",
    IMAGE_NAME,
    "its image: of `images`, of the host's store, or micro; micro if left out",
    default=MICRO,
)
VM_CPUS = Field("cpus", _integer(1, CPUS_MAX), "the number of virtual CPUs; 1 if left out", default=1)
VM_MEMORY = Field("memory", _MEMORY, "the memory, with its unit; 96M if left out", default=96 << 20)
VM_NETWORKS = Field(
    "networks",
    ListOf(_name("a network"), "a list of networks"),
    "the networks it is plugged into, as eth0, eth1 and so on",
)
VM_INTERFACES = Field(
    "interfaces", MapOf(_INTERFACE_NAME, INTERFACE, "a map of interfaces"), "its NICs by name, in order"
)
VM_GROUPS = Field(
    "groups", ListOf(_name("a group"), "a list of groups"), "the groups it is a member of", default=()
)
VM_LABELS = Field("labels", _LABELS, "labels by which groups select VMs")
VM_REPLICAS = Field(
    "replicas", _integer(0, REPLICAS_MAX), "how many of it to run, as NAME-1, NAME-2 and so on"
)
VM_PORTS = Field(
    "ports",
    ListOf(
        Word(
            published.EXPECTED,
            published.port,
            {"type": "string", "pattern": published.PATTERN},
        ),
        "a list of ports",
    ),
    "ports of the host that lead to it, to its replicas in turn; open at 127.0.0.1 unless they say where",
    default=(),
)
VM_FLOATING = Field(
    "floating",
    ListOf(_HOST, "an address or a list of addresses", single=True, minimum=1),
    "addresses outside that are this VM's alone",
    default=(),
)
VM_RESTART = Field(
    "restart",
    Word(
        "no, on-failure, on-failure:TRIES, always or unless-stopped",
        life_text.restart,
        {"anyOf": [{"const": False}, {"type": "string", "pattern": life_text.RESTART_PATTERN}]},
    ),
    "when it is started again after it has ended; no if left out",
    default=life.Restart(),
)
VM_AUTOSTART = Field(
    "autostart",
    _BOOLEAN,
    "true: the daemon starts it when the host was booted; false if left out",
    default=False,
)
_SPAN = Word(
    "a time such as 10s or 2m", life_text.span, {"type": "string", "pattern": life_text.SPAN_PATTERN}
)
HEALTH_TEST = Field(
    "test",
    ListOf(_TEXT, "a command, as one text for the shell or as a list of words", single=True, minimum=1),
    "the command in the guest; exit code 0 means healthy",
    required=True,
)
HEALTH_INTERVAL = Field("interval", _SPAN, "how often it is run; 30s if left out", default=30.0)
HEALTH_TIMEOUT = Field("timeout", _SPAN, "how long it may take; 30s if left out", default=30.0)
HEALTH_RETRIES = Field(
    "retries", _integer(1, 1000), "so many failures in a row mean unhealthy; 3 if left out", default=3
)
HEALTH_START_PERIOD = Field(
    "start_period", _SPAN, "failures so soon after the start do not count; 30s if left out", default=30.0
)
HEALTHCHECK = Record(
    "a health check",
    (HEALTH_TEST, HEALTH_INTERVAL, HEALTH_TIMEOUT, HEALTH_RETRIES, HEALTH_START_PERIOD),
    partial=True,
)
VM_HEALTHCHECK = Field("healthcheck", HEALTHCHECK, "by which it is known whether it does what it is for")
DEPENDENCY_CONDITION = Field(
    "condition",
    _one_of(life.Condition),
    "started (if left out): its agent answers; healthy: its health check has succeeded",
    default=life.Condition.STARTED,
)
VM_DEPENDS_ON = Field(
    "depends_on",
    ListOrMap(
        ListOf(_name("a VM"), "a list of VMs or a map of them"),
        MapOf(_name("a VM"), Record("a dependency", (DEPENDENCY_CONDITION,)), "a map of VMs"),
    ),
    "VMs that `up` starts first",
    default={},
)
_DISK_SIZE = Word(
    "a size with its unit such as 10G", values.disk_size, {"type": "string", "pattern": values.MEMORY_PATTERN}
)
DISK_NAME = Field(
    "name",
    _name("a disk", DISK_NAME_MAX),
    "its name; in the guest it is the disk's serial number",
    required=True,
)
DISK_SIZE = Field("size", _DISK_SIZE, "its size; it may be made larger later", required=True)
DISK_FORMAT = Field(
    "format",
    _one_of(DiskFormat),
    "of its file on the host: qcow2 (if left out) or raw",
    default=DiskFormat.QCOW2,
)
DISK_PREALLOCATED = Field(
    "preallocated",
    _BOOLEAN,
    "true: all of its room is taken at once; false if left out: as the guest writes",
    default=False,
)
DISK_ENCRYPT = Field(
    "encrypt",
    _BOOLEAN,
    "true: its file is of no use without its key, which the host keeps elsewhere; false if left out",
    default=False,
)
_DISK = (DISK_NAME, DISK_SIZE, DISK_FORMAT, DISK_PREALLOCATED, DISK_ENCRYPT)
VM_DISKS = Field(
    "disks",
    ListOf(Record("a disk", _DISK), "a list of disks"),
    "its disks, whose contents stay",
    default=(),
)
VM_DISK = Field("disk", _DISK_SIZE, "the size of its only disk, which is then called disk")
_VM_FIELDS = (
    VM_TEMPLATE,
    VM_IMAGE,
    VM_BOOT,
    VM_CPUS,
    VM_MEMORY,
    VM_NETWORKS,
    VM_INTERFACES,
    VM_GROUPS,
    VM_LABELS,
    VM_REPLICAS,
    VM_PORTS,
    VM_FLOATING,
    VM_RESTART,
    VM_AUTOSTART,
    VM_HEALTHCHECK,
    VM_DEPENDS_ON,
    VM_DISK,
    VM_DISKS,
    VM_CLOUD_INIT,
)
_VM_LATER: tuple[str, ...] = ()
VM = Record("a VM", _VM_FIELDS, _VM_LATER, partial=True)
DEFAULTS = Record("a VM's defaults", _VM_FIELDS, _VM_LATER, partial=True)
TEMPLATE = Record(
    "a template",
    tuple(field for field in _VM_FIELDS if field is not VM_TEMPLATE),
    _VM_LATER,
    misplaced={"template": "a template cannot use another template"},
    partial=True,
)

# ---- endpoints -------------------------------------------------------------------------------

_DEVICE = Word(
    "the name of an interface such as tap-win (at most 15 characters)",
    values.device,
    {"type": "string", "pattern": values.DEVICE_PATTERN},
)
ENDPOINT_TAP = Field(
    "tap", _DEVICE, "the name of a TAP that is made on the host, for another program such as a VMM to open"
)
ENDPOINT_INTERFACE = Field(
    "interface", _DEVICE, "the name of an interface of the host; it may come and go, as the TAP of a VMM does"
)
ENDPOINT_NETNS = Field(
    "netns",
    Word("the name of a network namespace", values.text, {"type": "string", "pattern": r"^[^/\s]+$"}),
    "the name of a network namespace, which gets an interface with MAC and addresses; it may come and go",
)
ENDPOINT_OWNER = Field(
    "owner",
    Word("the name or number of a user", values.text, {"type": ["string", "integer"]}),
    "the user who may open the TAP; root alone if left out",
)
ENDPOINT_DEVICE = Field(
    "device", _DEVICE, "what the interface in the namespace is called; eth0 if left out", default="eth0"
)
ENDPOINT = Record(
    "an endpoint",
    (
        ENDPOINT_TAP,
        ENDPOINT_INTERFACE,
        ENDPOINT_NETNS,
        ENDPOINT_OWNER,
        ENDPOINT_DEVICE,
        *(each for each in INTERFACE.fields if each is not INTERFACE_MIRROR_ONLY),
        VM_GROUPS,
        VM_LABELS,
    ),
    later=("trunk", "native"),
    partial=True,
)

# ---- groups and services ---------------------------------------------------------------------

GROUP_CIDRS = Field(
    "cidrs", ListOf(_CIDR, "a list of CIDRs", minimum=1), "its members are all addresses in these ranges"
)
GROUP_LABELS = Field("labels", _LABELS, "its members are the VMs that carry all of these labels")
GROUP = Record("a group", (GROUP_CIDRS, GROUP_LABELS))
SERVICE = ListOf(_PLAIN_PORTS, "ports or a list of ports", single=True, minimum=1)

# ---- policies --------------------------------------------------------------------------------

RULE_NAME = Field("name", _name("the rule's name"), "what drops and traces call it")
RULE_FROM = Field("from", _PEERS, "who may (or may not) connect to the VM", required=True)
RULE_TO = Field("to", _PEERS, "to whom the VM may (or may not) connect", required=True)
RULE_PORTS = Field(
    "ports",
    ListOf(
        _PORTS,
        "ports or a list of ports",
        single=True,
        minimum=1,
        if_empty='leave "ports" out, or write "any", for all ports',
    ),
    "the destination ports; left out, all of every protocol",
)
RULE_ACTION = Field(
    "action",
    _ACTION,
    "allow (if left out), deny (silently), reject (with an answer) or pass (to the next tier)",
    default=Action.ALLOW,
)
RULE_LOG = Field(
    "log", _BOOLEAN, "whether `vnet policy log` tells what the rule decides; false if left out", default=False
)
RULE_EXPIRES = Field("expires", _TIME, "when it ends (a date: with its last second, UTC); never if left out")
INGRESS_RULE = Record(
    "an ingress rule",
    (RULE_NAME, RULE_FROM, RULE_PORTS, RULE_ACTION, RULE_LOG, RULE_EXPIRES),
    misplaced={"to": '"to" belongs into an egress rule: ingress is into the VM and says "from"'},
)
EGRESS_RULE = Record(
    "an egress rule",
    (RULE_NAME, RULE_TO, RULE_PORTS, RULE_ACTION, RULE_LOG, RULE_EXPIRES),
    misplaced={"from": '"from" belongs into an ingress rule: egress is out of the VM and says "to"'},
)

POLICY_NAME = Field("name", _name("the policy's name"), "its name, unique in the file", required=True)
POLICY_TIER = Field(
    "tier",
    _name("a tier"),
    "the tier in which it is evaluated; application if left out",
    default="application",
)
POLICY_APPLIED_TO = Field("applied_to", _PEERS, "the VMs whose traffic it decides", required=True)
POLICY_INGRESS = Field("ingress", ListOf(INGRESS_RULE, "a list of rules"), "rules for what goes into the VM")
POLICY_EGRESS = Field("egress", ListOf(EGRESS_RULE, "a list of rules"), "rules for what goes out of the VM")
POLICY_ENFORCEMENT = Field(
    "enforcement",
    _one_of(Enforcement),
    "enforce (if left out), or audit: record what it would drop, and let it pass",
    default=Enforcement.ENFORCE,
)
POLICY_ESTABLISHED = Field(
    "established",
    _one_of(Established),
    "what becomes of live connections that it forbids: revalidate (if left out): they are cut; "
    "reset: with an answer; keep: they go on",
    default=Established.REVALIDATE,
)
POLICY = Record(
    "a policy",
    (
        POLICY_NAME,
        POLICY_TIER,
        POLICY_APPLIED_TO,
        POLICY_INGRESS,
        POLICY_EGRESS,
        POLICY_ENFORCEMENT,
        POLICY_ESTABLISHED,
    ),
)

# ---- the file --------------------------------------------------------------------------------

NAME = Field(
    "name",
    _name("the fabric's name", FABRIC_NAME_MAX),
    "the fabric's name, unique on the host",
    required=True,
)
INCLUDE = Field(
    "include",
    ListOf(Word("a file", values.string, {"type": "string"}), "a file or a list of files", single=True),
    "files that are parts of this topology, beside this one",
)
DESCRIPTION = Field("description", _TEXT, "free text", default="")
ALL_DEFAULTS = Field("defaults", DEFAULTS, "what every VM gets unless it or its template says otherwise")
TEMPLATES = Field(
    "templates", MapOf(_name("a template"), TEMPLATE, "a map of templates"), "VM fields to share, by name"
)
NETWORKS = Field("networks", MapOf(_name("a network"), NETWORK, "a map of networks"), "the networks by name")
ROUTERS = Field(
    "routers", MapOf(_name("a router"), ROUTER, "a map of routers"), "what joins networks, by name"
)
UPLINKS = Field(
    "uplinks", MapOf(_name("an uplink"), UPLINK, "a map of uplinks"), "ways out by interfaces of the host"
)
PROFILES = Field(
    "profiles",
    MapOf(_name("a profile"), PROFILE, "a map of profiles"),
    "port-security profiles by name; strict is built in",
)
# ---- mirrors ---------------------------------------------------------------------------------

MIRROR_SOURCE = Field(
    "source",
    Word(mirrors.SOURCE_EXPECTED, mirrors.source, {"type": "string", "pattern": "^[a-z0-9-]+:[a-z0-9-]+$"}),
    "whose packets are copied: VM:INTERFACE, network:NAME for all NICs of a network, or uplink:NAME",
    required=True,
)
MIRROR_DIRECTION = Field(
    "direction",
    _one_of(MirrorDirection),
    "out: what the source sends, in: what it is handed; both if left out",
    default=MirrorDirection.BOTH,
)
MIRROR_FILTER = Field(
    "filter", _TEXT, "which packets, as a pcap-filter(7) expression; all if left out", default=""
)
MIRROR_TO = Field(
    "to",
    Word(mirrors.TARGET_EXPECTED, mirrors.target, {"type": "string", "pattern": "^[a-z0-9-]+:"}),
    "where the copies go: a NIC with mirror_only, a file of the daemon, or another machine",
    required=True,
)
MIRROR_SNAPLEN = Field(
    "snaplen",
    _integer(1, SNAPLEN_MAX),
    "how many bytes of each packet a file keeps; all if left out",
    default=SNAPLEN_MAX,
)
MIRROR = Record("a mirror", (MIRROR_SOURCE, MIRROR_DIRECTION, MIRROR_FILTER, MIRROR_TO, MIRROR_SNAPLEN))

IMAGES = Field("images", MapOf(IMAGE_NAME, IMAGE, "a map of images"), "what VMs boot, by name")
VMS = Field("vms", MapOf(_name("a VM", VM_NAME_MAX), VM, "a map of VMs"), "the VMs by name")
ENDPOINTS = Field(
    "endpoints",
    MapOf(_name("an endpoint", VM_NAME_MAX), ENDPOINT, "a map of endpoints"),
    "what is attached and not launched, by name",
)
GROUPS = Field("groups", MapOf(_name("a group"), GROUP, "a map of groups"), "groups by CIDR or label")
SERVICES = Field("services", MapOf(_name("a service"), SERVICE, "a map of services"), "named lists of ports")
ALL_TIERS = Field(
    "tiers",
    ListOf(_name("a tier"), "a list of tiers", minimum=1),
    f"the tiers in order of evaluation; {', '.join(TIERS)} if left out",
)
POLICIES = Field("policies", ListOf(POLICY, "a list of policies"), "who may talk to whom")
MIRRORS = Field("mirrors", MapOf(_name("a mirror"), MIRROR, "a map of mirrors"), "copies of packets, by name")
VERIFY = Field("verify", ListOf(_CLAIM, "a list of claims"), "what must be provably true")
TOPOLOGY = Record(
    "a topology",
    (
        NAME,
        DESCRIPTION,
        INCLUDE,
        ALL_DEFAULTS,
        TEMPLATES,
        NETWORKS,
        ROUTERS,
        UPLINKS,
        PROFILES,
        IMAGES,
        VMS,
        ENDPOINTS,
        GROUPS,
        SERVICES,
        ALL_TIERS,
        POLICIES,
        MIRRORS,
        VERIFY,
    ),
    partial=True,
)
"""A file: a whole topology, or a part that others include."""
