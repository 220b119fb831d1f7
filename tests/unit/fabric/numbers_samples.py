"""Snapshots to try things on."""

from __future__ import annotations

from dataclasses import replace

from vnet.fabric.numbers import (
    DaemonNumbers,
    FabricNumbers,
    HostNumbers,
    NicNumbers,
    Numbers,
    Pressure,
    Traffic,
    UplinkNumbers,
    VmNumbers,
)
from vnet.hv.latency import BOUNDS_S, Latencies
from vnet.hv.vitals import DiskNumbers, GuestMemory, Vitals

NOON_S = 1_796_040_000


def nic(name: str, sent: int = 0, received: int = 0, dropped: int = 0, **more: object) -> NicNumbers:
    """Packets of 100 bytes."""
    traffic = Traffic(sent, 100 * sent, dropped, received, 100 * received, 0)
    quotas = {"connections": 3, "connection_quota": 16384, "macs": 1, "mac_quota": 64}
    return NicNumbers(name, "lan", 1, True, traffic, **{**quotas, **more})  # type: ignore[arg-type]


def vm(
    name: str, *nics: NicNumbers, state: str = "ready", cpu_s: float = 0.0, ready_s: float = 0.0
) -> VmNumbers:
    """One that runs, unless it has crashed."""
    if state == "crashed":
        return VmNumbers(name, state, 2, 96 << 20, nics)
    return VmNumbers(name, state, 2, 96 << 20, nics, 40 << 20, cpu_s, 61.25, ready_s=ready_s)


def answers(fast: int = 0, slow: int = 0) -> Latencies:
    """So many that took a millisecond, and so many of six seconds."""
    bins = [0] * (len(BOUNDS_S) + 1)
    bins[BOUNDS_S.index(0.001)], bins[-1] = fast, slow
    return Latencies(tuple(bins), fast * 0.001 + slow * 6.0)


def vitals(
    reads: int = 0,
    writes: int = 0,
    slow: int = 0,
    available_bytes: int = 8 << 20,
    told_at_s: float = 0.0,
    **more: object,
) -> Vitals:
    """Of a guest with 80 of 96 MiB, of which the kernel has 62, and one disk."""
    memory = GuestMemory(62 << 20, available_bytes, 4 << 20, 5 << 20, 0, 0, 7, NOON_S + int(told_at_s))
    disk = DiskNumbers(
        *("data", reads + slow, 4096 * (reads + slow), writes, 4096 * writes, 0, 0),
        reads=answers(reads, slow),
        writes=answers(writes),
    )
    return replace(Vitals(memory, 80 << 20, (disk,), told_at_s), **more)  # type: ignore[arg-type]


def uplink(name: str, link: str = "up", sent: int = 0, dropped: int = 0) -> UplinkNumbers:
    """One by whose interface packets of 100 bytes came in."""
    return UplinkNumbers(name, "eth1", 9, link, Traffic(sent, 100 * sent, dropped))


def fabric(*vms: VmNumbers, name: str = "small", **more: object) -> FabricNumbers:
    """One whose third generation is in force."""
    return replace(FabricNumbers(name, 3, 3, vms), **more)  # type: ignore[arg-type]


def numbers(*fabrics: FabricNumbers, at_s: float = 0.0) -> Numbers:
    """Taken so many seconds after noon."""
    daemon = DaemonNumbers("0.1.0", 4711, 100.0 + at_s, 1.5, 90 << 20, 31, 0.0125, {"warning": 2}, 1)
    host = HostNumbers(2, 24 << 30, 5 << 30, Pressure(50.0 + 0.4 * at_s, 0.02 * at_s, 0.0))
    return Numbers(NOON_S * 1_000_000_000 + round(at_s * 1e9), 1000.0 + at_s, daemon, fabrics, host)
