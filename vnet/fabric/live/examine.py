"""Looks at everything that the doctor judges: the host, the kernel's side of each fabric, what is left over.

It asks the kernel and files, not the daemon, and changes nothing: so it tells the same whether a daemon runs,
hangs or is gone. Only root sees all of it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from vnet.base import paths
from vnet.base.errors import HostError, VnetError
from vnet.fabric.declared import load, work_out
from vnet.fabric.live import disk_sizes, dnsmasq, netns, remnants, service_port
from vnet.fabric.live.cables import HostCables
from vnet.fabric.live.gateways import HostGateways
from vnet.fabric.live.host import available_memory_bytes, cpus, memory_bytes
from vnet.fabric.live.store import SqliteStore
from vnet.fabric.live.uplink_mtus import mtus
from vnet.fabric.state import SERVICE, ifname
from vnet.fabric.store import Record
from vnet.fabric.symptoms import (
    DaemonSeen,
    FabricSeen,
    HostSeen,
    Interface,
    Leftovers,
    LocationSeen,
    Seen,
    ServiceSeen,
    SwitchSeen,
)
from vnet.hv.live import base_note, kvm, locations, record, snapshot_files
from vnet.hv.live.finding import find_recorded
from vnet.hv.snapshot import is_old
from vnet.openflow.cookie import OWNER
from vnet.openflow.flow import Flow
from vnet.openflow.message import FlowMod
from vnet.policy.difference import normal
from vnet.switch.layout import layout
from vnet.switch.live import attach, ports
from vnet.switch.live.described import DescribedSwitch
from vnet.switch.live.netns import inside

HELLO_S = 1.0
_UP, _LOWER_UP = 0x1, 0x10000
"""IFF_UP and IFF_LOWER_UP (linux/if.h): switched on; somebody holds the other end."""


def examine(daemon: DaemonSeen) -> Seen:
    """All that can be seen, with what the daemon said. Raises HostError when the host cannot be looked at."""
    host = _host()
    if os.geteuid() != 0:
        return Seen(host, daemon)
    try:
        fabrics = tuple(_fabrics())
    except HostError as error:
        return Seen(host, daemon, store_problem=str(error))
    return Seen(host, daemon, fabrics, _leftovers(fabrics))


def lock_holder() -> int:
    """The process that holds the daemon's lock; 0 if none does. Source: proc(5), /proc/locks."""
    try:
        found = (paths.run_dir() / "vnetd.lock").stat()
    except OSError:
        return 0
    wanted = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    locks = (line.split() for line in Path("/proc/locks").read_text().splitlines())
    return next((int(lock[4]) for lock in locks if lock[1] == "FLOCK" and lock[5] == wanted), 0)


# ---- the host --------------------------------------------------------------------------------


def _host() -> HostSeen:
    state = paths.state_dir()
    nearest = next(parent for parent in (state, *state.parents) if parent.exists())
    accel = kvm.choose() if os.geteuid() == 0 else None
    return HostSeen(
        str(state),
        available_memory_bytes(),
        shutil.disk_usage(nearest).free,
        accel.name if accel else "kvm",
        accel.reason if accel else "",
        time.time(),
        max((path.stat().st_mtime for path in state.glob("*.db*")), default=0.0),
        cpus(),
        memory_bytes(),
        _old_snapshots() if accel else (),
        _locations() if accel else (),
        tuple((each.base.id, each.users) for each in base_note.gone()) if accel else (),
    )


def _locations() -> tuple[LocationSeen, ...]:
    _, *added = locations.listed()
    return tuple(LocationSeen(each.name, str(each.folder), each.free_bytes, each.trouble) for each in added)


def _old_snapshots() -> tuple[tuple[str, int], ...]:
    now_s = time.time()
    old = Counter(each.fabric for each in snapshot_files.known() if is_old(each, now_s))
    return tuple(sorted(old.items()))


# ---- fabrics ---------------------------------------------------------------------------------


def _fabrics() -> Iterator[FabricSeen]:
    path = paths.state_dir() / "vnet.db"
    if not path.exists():
        return
    with closing(SqliteStore.reading(path)) as store:
        for name in store.fabrics():
            if found := store.load(name):
                yield _fabric(found, {guest.name for guest in store.guests(name)})


def _fabric(found: Record, started: Iterable[str]) -> FabricSeen:
    name, space = found.name, paths.netns(found.name)
    try:
        topology = load(found.source)
        declared = work_out(topology, found.assignments, datetime.now(UTC), interfaces=mtus(topology, space))
        wanted, unreadable = declared.state(found.stopped), ""
    except VnetError as error:
        wanted, unreadable = None, str(error)
    there = netns.exists(space)
    networks = {service.network for service in wanted.services} if wanted else set()
    running = frozenset(guest for guest in started if _runs(name, guest))
    guests = wanted.guests if wanted else ()
    return FabricSeen(
        name,
        found.source.file,
        found.generation,
        found.enforced,
        space,
        str(paths.bpf_dir() / name),
        str(paths.switch_socket(name)),
        wanted,
        unreadable,
        there,
        _interfaces(space) if there else {},
        _switch(name, space if there else None),
        _answers(paths.switch_socket(name)),
        tuple(_service(name, network, there) for network in sorted(networks | _served(name))),
        running,
        asyncio.run(HostGateways(name, space).observed()),
        asyncio.run(HostCables(name, space).links()),
        tuple(disk for each in guests if each.name in running for disk in disk_sizes.look(name, each)),
    )


def _interfaces(space: str) -> Mapping[str, Interface]:
    from pyroute2 import IPRoute

    with inside(space), IPRoute() as netlink:
        return {
            link.get_attr("IFLA_IFNAME"): Interface(
                ports.kind(link),
                bool(link["flags"] & _UP),
                bool(link["flags"] & _LOWER_UP),
                attach.is_attached(link["index"]),
            )
            for link in netlink.get_links()
            if link.get_attr("IFLA_IFNAME") != "lo"
        }


def _switch(name: str, space: str | None) -> SwitchSeen | None:
    folder = paths.bpf_dir() / name
    if not folder.exists():
        return None
    try:
        with closing(DescribedSwitch(folder)) as opened:
            return _described(opened, space)
    except (HostError, KeyError, ValueError) as error:
        return SwitchSeen(unreadable=f"its maps do not hold what they should ({error})")


def _described(opened: DescribedSwitch, space: str | None) -> SwitchSeen:
    if opened.layout != layout():
        return SwitchSeen(is_other=True)
    with inside(space):
        names = dict(socket.if_nameindex())
    interfaces = {number: names.get(index, "") for number, index in opened.ports().items()}
    flows = [message.flow for message, _ in opened.messages().values() if isinstance(message, FlowMod)]
    foreign = Counter(flow.cookie for flow in flows if not _is_own(flow))
    return SwitchSeen(
        "", False, interfaces, frozenset(normal(flow) for flow in flows if _is_own(flow)), foreign
    )


def _is_own(flow: Flow) -> bool:
    return flow.cookie >> 56 == OWNER


def _answers(path: Path) -> bool:
    """Whether somebody greets as OpenFlow switches do, who speak first."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(HELLO_S)
        try:
            probe.connect(str(path))
            return bool(probe.recv(8))
        except OSError:
            return False


def _served(name: str) -> set[str]:
    """The networks of which a dnsmasq has files."""
    return {path.parent.stem for path in paths.service_dir(name).glob("*.d/service.json")}


def _service(name: str, network: str, there: bool) -> ServiceSeen:
    folder, space = paths.service_dir(name), paths.netns(name)
    folders = dnsmasq.Folders(folder / f"{network}.d", folder / network)
    own = f"{space}.{network}"
    veth = there and service_port.exists(ifname(f"{SERVICE}{network}"), space, own)
    found = dnsmasq.find(folders)
    if found:
        found.close()
    leases = folders.own / dnsmasq.LEASES
    is_odd = leases.is_symlink() or (leases.exists() and not leases.is_file())
    return ServiceSeen(
        network, netns.exists(own), veth, found.pid if found else 0, str(leases) if is_odd else ""
    )


def _runs(name: str, guest: str) -> bool:
    """Whether the QEMU of a guest lives."""
    noted = record.read(record.record_path(name, guest))
    found = find_recorded(paths.vm_run_dir(name, guest), noted) if noted else None
    if found is None:
        return False
    with closing(found):
        return found.alive()


# ---- what is left over -----------------------------------------------------------------------


def _leftovers(fabrics: Iterable[FabricSeen]) -> Leftovers:
    known = {fabric.name for fabric in fabrics}
    return Leftovers(
        tuple(remnants.namespaces(known)), tuple(remnants.folders(known)), tuple(remnants.processes(known))
    )
