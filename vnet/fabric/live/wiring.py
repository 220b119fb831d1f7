"""The engine of this host with its real neighbours."""

from __future__ import annotations

import shutil
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial

from vnet.base import paths
from vnet.fabric.live import disk_sizes, host
from vnet.fabric.live.cables import HostCables
from vnet.fabric.live.endpoints import HostEndpoints
from vnet.fabric.live.engine import Engine
from vnet.fabric.live.event_log import EventLog
from vnet.fabric.live.gateways import HostGateways
from vnet.fabric.live.guests import HostGuests
from vnet.fabric.live.journal import forget_oldest
from vnet.fabric.live.network import HostNetwork
from vnet.fabric.live.parts import Parts
from vnet.fabric.live.registry import Host
from vnet.fabric.live.rule_log import RuleLog
from vnet.fabric.live.service import failed_claims
from vnet.fabric.live.services import HostServices
from vnet.fabric.live.store import SqliteStore
from vnet.fabric.live.switch import HostSwitch
from vnet.fabric.live.twin import sweep
from vnet.hv.live import boot, disk
from vnet.hv.live.manager import HvManager
from vnet.switch.live import queues


def make_engine(manager: HvManager) -> Engine:
    """An engine on the host's store; `adopt` comes next. The manager stays the caller's."""

    def parts(fabric: str) -> Parts:
        network, log = HostNetwork(paths.netns(fabric)), RuleLog(paths.log_dir(fabric))
        guests = HostGuests(fabric, manager, network.open_tap)
        services = HostServices(fabric, paths.netns(fabric))
        gateways = HostGateways(fabric, paths.netns(fabric))
        cables = HostCables(fabric, paths.netns(fabric))
        endpoints = HostEndpoints(fabric, paths.netns(fabric))
        switch = HostSwitch(fabric, log.see)
        return Parts(network, switch, guests, log, services, gateways, cables=cables, endpoints=endpoints)

    now = partial(datetime.now, UTC)
    here = Host(
        host.require,
        host.available_memory_bytes,
        host.boot_id,
        tidy,
        now,
        host.uptime_s,
        queues.has,
        host.cpus,
        host.memory_bytes,
        host.vcpus_per_cpu,
        disk.missing_bytes,
        disk.room,
        lambda fabric, guest: boot.obstacles(fabric, guest.name, guest.boot, guest.disks),
        disk_sizes.look,
    )
    engine = Engine(SqliteStore(paths.state_dir() / "vnet.db"), parts, here, failed_claims)
    engine.events = EventLog(paths.event_dir())
    return engine


def tidy(fabric: str) -> None:
    """Remove the run directory of a fabric that is gone, what its VMs printed, what a drill of it left, and
    empty directories."""
    for directory in (paths.fabric_run_dir(fabric), paths.console_dir(fabric)):
        shutil.rmtree(directory, ignore_errors=True)
    sweep(fabric)
    forget_oldest()
    for directory in (paths.fabric_run_dir(fabric).parent, paths.bpf_dir()):
        with suppress(OSError):
            directory.rmdir()
