"""The part of the language about VMs, and endpoints, which are attached and not launched."""

from __future__ import annotations

from vnet.base.boot import DEFAULT_LOCATION, MICRO
from vnet.topology import life, life_text, published, values
from vnet.topology.language_cloud_init import VM_CLOUD_INIT
from vnet.topology.language_images import IMAGE_NAME, VM_BOOT
from vnet.topology.language_nics import INTERFACE, INTERFACE_MIRROR_ONLY
from vnet.topology.language_words import BOOLEAN, HOST, LABELS, TEXT, formed, integer, name_word, one_of
from vnet.topology.model import DiskFormat
from vnet.topology.shape import Field, ListOf, ListOrMap, MapOf, Record, Word

REPLICAS_MAX = 1000
DISK_NAME_MAX = 20
"""What a virtio disk's serial number has room for (VIRTIO 1.2, 5.2.6.1)."""
CPUS_MAX = 255

_MEMORY = formed("an amount of memory with its unit such as 96M or 1G", values.memory, values.MEMORY_PATTERN)
_INTERFACE_NAME = Word(
    "the name of an interface such as eth0 (lowercase letters and digits, at most 15)",
    values.interface_name,
    {"type": "string", "pattern": values.IFNAME_PATTERN, "maxLength": values.IFNAME_MAX},
)

# ---- VMs -------------------------------------------------------------------------------------

VM_TEMPLATE = Field("template", name_word("a template"), "the template that gives what the VM leaves out")
MICRO_MEMORY_MIN = 80 << 20
"""With less its kernel has no room to unpack its files into memory, and panics again and again."""
VM_IMAGE = Field(
    "image",
    IMAGE_NAME,
    "its image: of `images`, of the host's store, or micro; micro if left out",
    default=MICRO,
)
VM_CPUS = Field("cpus", integer(1, CPUS_MAX), "the number of virtual CPUs; 1 if left out", default=1)
VM_MEMORY = Field("memory", _MEMORY, "the memory, with its unit; 96M if left out", default=96 << 20)
VM_NETWORKS = Field(
    "networks",
    ListOf(name_word("a network"), "a list of networks"),
    "the networks it is plugged into, as eth0, eth1 and so on",
)
VM_INTERFACES = Field(
    "interfaces", MapOf(_INTERFACE_NAME, INTERFACE, "a map of interfaces"), "its NICs by name, in order"
)
VM_GROUPS = Field(
    "groups", ListOf(name_word("a group"), "a list of groups"), "the groups it is a member of", default=()
)
VM_LABELS = Field("labels", LABELS, "labels by which groups select VMs")
VM_REPLICAS = Field(
    "replicas", integer(0, REPLICAS_MAX), "how many of it to run, as NAME-1, NAME-2 and so on"
)
VM_PORTS = Field(
    "ports",
    ListOf(
        formed(published.EXPECTED, published.port, published.PATTERN),
        "a list of ports",
    ),
    "ports of the host that lead to it, to its replicas in turn; open at 127.0.0.1 unless they say where",
    default=(),
)
VM_FLOATING = Field(
    "floating",
    ListOf(HOST, "an address or a list of addresses", single=True, minimum=1),
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
    BOOLEAN,
    "true: the daemon starts it when the host was booted; false if left out",
    default=False,
)
_SPAN = formed("a time such as 10s or 2m", life_text.span, life_text.SPAN_PATTERN)
HEALTH_TEST = Field(
    "test",
    ListOf(TEXT, "a command, as one text for the shell or as a list of words", single=True, minimum=1),
    "the command in the guest; exit code 0 means healthy",
    required=True,
)
HEALTH_INTERVAL = Field("interval", _SPAN, "how often it is run; 30s if left out", default=30.0)
HEALTH_TIMEOUT = Field("timeout", _SPAN, "how long it may take; 30s if left out", default=30.0)
HEALTH_RETRIES = Field(
    "retries", integer(1, 1000), "so many failures in a row mean unhealthy; 3 if left out", default=3
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
    one_of(life.Condition),
    "started (if left out): its agent answers; healthy: its health check has succeeded",
    default=life.Condition.STARTED,
)
VM_DEPENDS_ON = Field(
    "depends_on",
    ListOrMap(
        ListOf(name_word("a VM"), "a list of VMs or a map of them"),
        MapOf(name_word("a VM"), Record("a dependency", (DEPENDENCY_CONDITION,)), "a map of VMs"),
    ),
    "VMs that `up` starts first",
    default={},
)
_DISK_SIZE = formed("a size with its unit such as 10G", values.disk_size, values.MEMORY_PATTERN)
DISK_NAME = Field(
    "name",
    name_word("a disk", DISK_NAME_MAX),
    "its name; in the guest it is the disk's serial number",
    required=True,
)
DISK_SIZE = Field("size", _DISK_SIZE, "its size; it may be made larger later", required=True)
DISK_FORMAT = Field(
    "format",
    one_of(DiskFormat),
    "of its file on the host: qcow2 (if left out) or raw",
    default=DiskFormat.QCOW2,
)
DISK_PREALLOCATED = Field(
    "preallocated",
    BOOLEAN,
    "true: all of its room is taken at once; false if left out: as the guest writes",
    default=False,
)
DISK_ENCRYPT = Field(
    "encrypt",
    BOOLEAN,
    "true: its file is of no use without its key, which the host keeps elsewhere; false if left out",
    default=False,
)
DISK_LOCATION = Field(
    "location",
    name_word("a location of this host's disks"),
    "where its file lies: a name that the host's administrator gave (`vnet disk location add`); default if "
    "left out",
    default=DEFAULT_LOCATION,
)
_DISK = (DISK_NAME, DISK_SIZE, DISK_FORMAT, DISK_PREALLOCATED, DISK_ENCRYPT, DISK_LOCATION)
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
VM = Record("a VM", _VM_FIELDS, partial=True)
DEFAULTS = Record("a VM's defaults", _VM_FIELDS, partial=True)
TEMPLATE = Record(
    "a template",
    tuple(field for field in _VM_FIELDS if field is not VM_TEMPLATE),
    misplaced={"template": "a template cannot use another template"},
    partial=True,
)

# ---- endpoints -------------------------------------------------------------------------------

_DEVICE = formed(
    "the name of an interface such as tap-win (at most 15 characters)", values.device, values.DEVICE_PATTERN
)
ENDPOINT_TAP = Field(
    "tap", _DEVICE, "the name of a TAP that is made on the host, for another program such as a VMM to open"
)
ENDPOINT_INTERFACE = Field(
    "interface", _DEVICE, "the name of an interface of the host; it may come and go, as the TAP of a VMM does"
)
ENDPOINT_NETNS = Field(
    "netns",
    formed("the name of a network namespace", values.text, r"^[^/\s]+$"),
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
