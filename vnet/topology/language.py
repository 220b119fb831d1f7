"""The topology language as one table: every key, what it may hold, and what is not built yet.

Here are the keys of a file; what they hold is in the modules `language_*` beside this one. The reader
(`load`), the JSON schema (`schema`) and the manual's completeness test go by this table.
"""

from __future__ import annotations

from vnet.topology import mirrors, selectors, values
from vnet.topology.language_images import IMAGE, IMAGE_NAME
from vnet.topology.language_networks import NETWORK, ROUTER, UPLINK
from vnet.topology.language_nics import PROFILE
from vnet.topology.language_policies import GROUP, POLICY, SERVICE
from vnet.topology.language_vms import DEFAULTS, ENDPOINT, TEMPLATE, VM
from vnet.topology.language_words import TEXT, formed, integer, name_word, one_of
from vnet.topology.model import TIERS, MirrorDirection
from vnet.topology.shape import Field, ListOf, MapOf, Record, Word

FABRIC_NAME_MAX = 24
"""Socket paths (`/run/vnet/fabrics/FABRIC/vms/VM/...`) must fit into the 108 bytes of sockaddr_un."""
VM_NAME_MAX = 40
"""See FABRIC_NAME_MAX; the replica's number included."""
SNAPLEN_MAX = 262_144
"""As tcpdump has it: more than any frame."""

_CLAIM = formed(selectors.CLAIM_EXPECTED, selectors.claim, selectors.CLAIM_PATTERN)

# ---- mirrors ---------------------------------------------------------------------------------

MIRROR_SOURCE = Field(
    "source",
    formed(mirrors.SOURCE_EXPECTED, mirrors.source, "^[a-z0-9-]+:[a-z0-9-]+$"),
    "whose packets are copied: VM:INTERFACE, network:NAME for all NICs of a network, or uplink:NAME",
    required=True,
)
MIRROR_DIRECTION = Field(
    "direction",
    one_of(MirrorDirection),
    "out: what the source sends, in: what it is handed; both if left out",
    default=MirrorDirection.BOTH,
)
MIRROR_FILTER = Field(
    "filter", TEXT, "which packets, as a pcap-filter(7) expression; all if left out", default=""
)
MIRROR_TO = Field(
    "to",
    formed(mirrors.TARGET_EXPECTED, mirrors.target, "^[a-z0-9-]+:"),
    "where the copies go: a NIC with mirror_only, a file of the daemon, or another machine",
    required=True,
)
MIRROR_SNAPLEN = Field(
    "snaplen",
    integer(1, SNAPLEN_MAX),
    "how many bytes of each packet a file keeps; all if left out",
    default=SNAPLEN_MAX,
)
MIRROR = Record("a mirror", (MIRROR_SOURCE, MIRROR_DIRECTION, MIRROR_FILTER, MIRROR_TO, MIRROR_SNAPLEN))

# ---- the file --------------------------------------------------------------------------------

NAME = Field(
    "name",
    name_word("the fabric's name", FABRIC_NAME_MAX),
    "the fabric's name, unique on the host",
    required=True,
)
INCLUDE = Field(
    "include",
    ListOf(Word("a file", values.string, {"type": "string"}), "a file or a list of files", single=True),
    "files that are parts of this topology, beside this one",
)
DESCRIPTION = Field("description", TEXT, "free text", default="")
ALL_DEFAULTS = Field("defaults", DEFAULTS, "what every VM gets unless it or its template says otherwise")
TEMPLATES = Field(
    "templates", MapOf(name_word("a template"), TEMPLATE, "a map of templates"), "VM fields to share, by name"
)
NETWORKS = Field(
    "networks", MapOf(name_word("a network"), NETWORK, "a map of networks"), "the networks by name"
)
ROUTERS = Field(
    "routers", MapOf(name_word("a router"), ROUTER, "a map of routers"), "what joins networks, by name"
)
UPLINKS = Field(
    "uplinks", MapOf(name_word("an uplink"), UPLINK, "a map of uplinks"), "ways out by interfaces of the host"
)
PROFILES = Field(
    "profiles",
    MapOf(name_word("a profile"), PROFILE, "a map of profiles"),
    "port-security profiles by name; strict is built in",
)
IMAGES = Field("images", MapOf(IMAGE_NAME, IMAGE, "a map of images"), "what VMs boot, by name")
VMS = Field("vms", MapOf(name_word("a VM", VM_NAME_MAX), VM, "a map of VMs"), "the VMs by name")
ENDPOINTS = Field(
    "endpoints",
    MapOf(name_word("an endpoint", VM_NAME_MAX), ENDPOINT, "a map of endpoints"),
    "what is attached and not launched, by name",
)
GROUPS = Field("groups", MapOf(name_word("a group"), GROUP, "a map of groups"), "groups by CIDR or label")
SERVICES = Field(
    "services", MapOf(name_word("a service"), SERVICE, "a map of services"), "named lists of ports"
)
ALL_TIERS = Field(
    "tiers",
    ListOf(name_word("a tier"), "a list of tiers", minimum=1),
    f"the tiers in order of evaluation; {', '.join(TIERS)} if left out",
)
POLICIES = Field("policies", ListOf(POLICY, "a list of policies"), "who may talk to whom")
MIRRORS = Field(
    "mirrors", MapOf(name_word("a mirror"), MIRROR, "a map of mirrors"), "copies of packets, by name"
)
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
