"""All numbers of all fabrics at one moment, as one frozen value: `vnet top`, metrics and readiness read it.

Directions are the VM's: it sends `sent`, it gets `received`. Counters only grow, until what counts is made
anew; `vnet.fabric.rates` works out what happened between two moments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from vnet.hv import vitals
from vnet.hv.admission import OVERHEAD_BYTES
from vnet.hv.vitals import Vitals

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Pressure:
    """How long something waited for CPU, memory and disks, since it was first counted; 0 where it is not.

    Source: Linux Documentation/accounting/psi.rst, the lines `some`.
    """

    cpu_s: float = 0.0
    memory_s: float = 0.0
    io_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a NIC sent, what it got, and what was lost of either.

    `sent_dropped` are packets it sent that never arrived, for whatever reason; `received_dropped` those that
    were too long or too many for it.
    """

    sent_packets: int = 0
    sent_bytes: int = 0
    sent_dropped: int = 0
    received_packets: int = 0
    received_bytes: int = 0
    received_dropped: int = 0


@dataclass(frozen=True, slots=True)
class NicNumbers:
    """One NIC. `reasons` tells why packets of it were lost, as far as that was reported: it is a sample."""

    name: str
    network: str
    port: int
    up: bool = False
    traffic: Traffic = Traffic()
    connections: int = 0
    connection_quota: int = 0
    macs: int = 0
    mac_quota: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)
    inward_bps: int = 0
    """How fast it is sent, and sends; 0 = as fast as it can."""
    outward_bps: int = 0


@dataclass(frozen=True, slots=True)
class VmNumbers:
    """One VM. What it costs the host is 0 when it does not run; `cpu_s` is the time its QEMU has used.

    `ready_s` is how long its vCPUs, taken together, could have run and had no CPU of the host. `pressure` is
    that of its control group of version 2. `vitals` are what the guest and its QEMU tell.
    `peak_cpus` is the most processors that it used at once, over ten seconds, in the `watched_s` that it was
    looked at.
    """

    name: str
    state: str
    cpus: int
    memory_bytes: int
    nics: tuple[NicNumbers, ...] = ()
    resident_bytes: int = 0
    cpu_s: float = 0.0
    uptime_s: float = 0.0
    detail: str = ""
    ready_s: float = 0.0
    swapped_bytes: int = 0
    pressure: Pressure = Pressure()
    vitals: Vitals = vitals.NOTHING
    peak_cpus: float = 0.0
    watched_s: float = 0.0
    is_failing: bool = False
    """A disk of it fails, `detail` says how."""

    @property
    def ballooned_bytes(self) -> int:
        """Memory that its balloon has taken from it."""
        return max(0, self.memory_bytes - self.vitals.left_bytes) if self.vitals.left_bytes else 0

    @property
    def committed_bytes(self) -> int:
        """What the host has promised it, QEMU's own included; 0 when it does not run."""
        return self.memory_bytes + OVERHEAD_BYTES if self.runs else 0

    @property
    def runs(self) -> bool:
        """Whether it has a QEMU."""
        return self.uptime_s > 0


@dataclass(frozen=True, slots=True)
class UplinkNumbers:
    """One uplink that is a port. `link` is a `LinkState`; what comes in by it is `sent`, as by a NIC."""

    name: str
    interface: str
    port: int
    link: str
    traffic: Traffic = Traffic()


@dataclass(frozen=True, slots=True)
class FabricNumbers:
    """One fabric. `unanswered` says why its switch could not be asked; then all that it counts is missing.

    `drops` is exact, by reason; `lost_events` what was not reported, by observation point; `flows` those in
    force, by table; `paths` the most lists of rules that were remembered at once for the flow cache.
    """

    name: str
    generation: int
    enforced: int
    vms: tuple[VmNumbers, ...] = ()
    drops: Mapping[str, int] = field(default_factory=dict)
    lost_events: Mapping[str, int] = field(default_factory=dict)
    flows: Mapping[str, int] = field(default_factory=dict)
    paths: int = 0
    trouble: str = ""
    unanswered: str = ""
    confirm_left_s: float | None = None
    unserved: tuple[str, ...] = ()
    """The networks whose guests ask in vain: their dnsmasq does not run."""
    uplinks: tuple[UplinkNumbers, ...] = ()


@dataclass(frozen=True, slots=True)
class DaemonNumbers:
    """The daemon itself. `lag_s` is the longest that anything had to wait for its turn in the last minute.

    `messages` counts what it logged, by level; `operations` are those that run; `history_stopped` says why
    what happens is not kept, empty if it is.
    """

    version: str
    pid: int
    uptime_s: float = 0.0
    cpu_s: float = 0.0
    resident_bytes: int = 0
    open_files: int = 0
    lag_s: float = 0.0
    messages: Mapping[str, int] = field(default_factory=dict)
    operations: int = 0
    history_stopped: str = ""


@dataclass(frozen=True, slots=True)
class HostNumbers:
    """What all guests share: CPUs that the daemon may use, memory, and who waits for either."""

    cpus: int = 0
    memory_bytes: int = 0
    available_bytes: int = 0
    pressure: Pressure = Pressure()


@dataclass(frozen=True, slots=True)
class Numbers:
    """Everything, taken at `time_ns` since 1970; `clock_s` is of a clock that nobody can set."""

    time_ns: int
    clock_s: float
    daemon: DaemonNumbers
    fabrics: tuple[FabricNumbers, ...] = ()
    host: HostNumbers = HostNumbers()

    @property
    def running_vcpus(self) -> int:
        """Of all guests that run."""
        return sum(vm.cpus for fabric in self.fabrics for vm in fabric.vms if vm.runs)


def grown(before: float, now: float) -> float:
    """How much a counter has grown; one that is smaller than before began anew, from 0."""
    return now - before if now >= before else now


def to_json(numbers: Numbers) -> Json:
    """As the daemon's answer."""
    return asdict(numbers)


def from_json(answer: Json) -> Numbers:
    """The same again."""
    fabrics = tuple(map(_fabric, answer["fabrics"]))
    daemon = DaemonNumbers(**answer["daemon"])
    return Numbers(answer["time_ns"], answer["clock_s"], daemon, fabrics, _host(answer["host"]))


def _host(answer: Json) -> HostNumbers:
    return HostNumbers(**{**answer, "pressure": Pressure(**answer["pressure"])})


def _fabric(answer: Json) -> FabricNumbers:
    lists = {
        "vms": tuple(map(_vm, answer["vms"])),
        "unserved": tuple(answer["unserved"]),
        "uplinks": tuple(map(_uplink, answer["uplinks"])),
    }
    return FabricNumbers(**{**answer, **lists})


def _vm(answer: Json) -> VmNumbers:
    parts = {
        "nics": tuple(map(_nic, answer["nics"])),
        "pressure": Pressure(**answer["pressure"]),
        "vitals": vitals.from_json(answer["vitals"]),
    }
    return VmNumbers(**{**answer, **parts})


def _uplink(answer: Json) -> UplinkNumbers:
    return UplinkNumbers(**{**answer, "traffic": Traffic(**answer["traffic"])})


def _nic(answer: Json) -> NicNumbers:
    return NicNumbers(**{**answer, "traffic": Traffic(**answer["traffic"])})
