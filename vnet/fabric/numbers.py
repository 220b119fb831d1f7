"""All numbers of all fabrics at one moment, as one frozen value: `vnet top`, metrics and readiness read it.

Directions are the VM's: it sends `sent`, it gets `received`. Counters only grow, until what counts is made
anew; `vnet.fabric.rates` works out what happened between two moments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

Json = Mapping[str, Any]


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
    """One VM. What it costs the host is 0 when it does not run; `cpu_s` is the time its QEMU has used."""

    name: str
    state: str
    cpus: int
    memory_bytes: int
    nics: tuple[NicNumbers, ...] = ()
    resident_bytes: int = 0
    cpu_s: float = 0.0
    uptime_s: float = 0.0
    detail: str = ""


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
class Numbers:
    """Everything, taken at `time_ns` since 1970; `clock_s` is of a clock that nobody can set."""

    time_ns: int
    clock_s: float
    daemon: DaemonNumbers
    fabrics: tuple[FabricNumbers, ...] = ()


def to_json(numbers: Numbers) -> Json:
    """As the daemon's answer."""
    return asdict(numbers)


def from_json(answer: Json) -> Numbers:
    """The same again."""
    fabrics = tuple(map(_fabric, answer["fabrics"]))
    return Numbers(answer["time_ns"], answer["clock_s"], DaemonNumbers(**answer["daemon"]), fabrics)


def _fabric(answer: Json) -> FabricNumbers:
    lists = {
        "vms": tuple(map(_vm, answer["vms"])),
        "unserved": tuple(answer["unserved"]),
        "uplinks": tuple(map(_uplink, answer["uplinks"])),
    }
    return FabricNumbers(**{**answer, **lists})


def _vm(answer: Json) -> VmNumbers:
    return VmNumbers(**{**answer, "nics": tuple(map(_nic, answer["nics"]))})


def _uplink(answer: Json) -> UplinkNumbers:
    return UplinkNumbers(**{**answer, "traffic": Traffic(**answer["traffic"])})


def _nic(answer: Json) -> NicNumbers:
    return NicNumbers(**{**answer, "traffic": Traffic(**answer["traffic"])})
