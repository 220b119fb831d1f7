"""What may be wrong, as a table: what is looked at, what it tells in words, and the command that mends it.

What was seen goes in, findings come out; `vnet.fabric.live.examine` is what looks. Whoever wants one more
thing looked at gives `vnet.fabric.symptoms` what can be seen of it, and a table here a line.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from vnet.fabric import disk_sizing, idle
from vnet.fabric.cable import LinkState
from vnet.fabric.sizing import advice
from vnet.fabric.state import NetworkService, Port
from vnet.fabric.strain import Lack
from vnet.fabric.symptoms import FabricSeen, Seen, ServiceSeen
from vnet.hv.spec import GuestState

T = TypeVar("T")

LOW_MEMORY_BYTES = 256 << 20
LOW_DISK_BYTES = 512 << 20
CLOCK_SLACK_S = 120
TAP = "tun"
AGAIN = "vnet serve --stop; vnet ps"
"""Ends the daemon and starts the next one, which takes everything over."""


class Level(StrEnum):
    """How bad it is. BROKEN: something that was asked for is not so."""

    OK = "ok"
    WARNING = "warning"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Trouble:
    """What a check found: of what, in words, and the command that mends it."""

    subject: str
    text: str
    mend: str


@dataclass(frozen=True, slots=True)
class Check(Generic[T]):
    """One line of the table. `looks_at` completes "it is looked at …"."""

    name: str
    looks_at: str
    level: Level
    find: Callable[[T], Iterator[Trouble]]


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of one check of one thing. `mend` is empty when no command mends it, or nothing is wrong."""

    check: str
    fabric: str
    subject: str
    level: Level
    text: str
    mend: str = ""


def diagnose(seen: Seen) -> tuple[Finding, ...]:
    """All findings: one for each check that found nothing, and one for each trouble."""
    return tuple(_findings(seen))


def is_broken(findings: tuple[Finding, ...]) -> bool:
    """Whether something that was asked for is not so."""
    return any(finding.level is Level.BROKEN for finding in findings)


def _findings(seen: Seen) -> Iterator[Finding]:
    for check in HOST:
        yield from _of(check, seen, "")
    for fabric in seen.fabrics:
        patient = Patient(seen, fabric)
        for each in FABRIC:
            yield from _of(each, patient, fabric.name)


def _of(check: Check[T], of: T, fabric: str) -> Iterator[Finding]:
    found = list(check.find(of))
    if not found:
        yield Finding(check.name, fabric, fabric or check.name, Level.OK, check.looks_at)
    for each in found:
        yield Finding(check.name, fabric, each.subject, check.level, each.text, each.mend)


# ---- the host and its daemon -----------------------------------------------------------------


def _memory(seen: Seen) -> Iterator[Trouble]:
    available = seen.host.available_memory_bytes
    if available < LOW_MEMORY_BYTES:
        text = f"{available >> 20} MiB can be had: guests that need more are refused"
        yield Trouble("memory", text, "vnet ps -o wide")


def _disk(seen: Seen) -> Iterator[Trouble]:
    free = seen.host.free_disk_bytes
    if free < LOW_DISK_BYTES:
        text = f"{free >> 20} MiB are left for {seen.host.state_dir}: without room no change can be noted"
        yield Trouble("disk", text, f"du -xsh {shlex.quote(seen.host.state_dir)}/* | sort -h")


def _locations(seen: Seen) -> Iterator[Trouble]:
    for each in seen.host.locations:
        if each.trouble:
            yield Trouble(each.name, each.trouble, "vnet disk location ls")
        elif each.free_bytes < LOW_DISK_BYTES:
            text = f"{each.free_bytes >> 20} MiB are left in {each.folder}: VMs whose disks grow stand still"
            yield Trouble(each.name, text, "vnet disk ls -o wide")


def _images(seen: Seen) -> Iterator[Trouble]:
    for image, users in seen.host.gone_images:
        text = f"it is gone: VMs cannot be started whose disks are made of it: {', '.join(users)}"
        yield Trouble(f"image {image[:12]}", text, "vnet image verify")


def _snapshots(seen: Seen) -> Iterator[Trouble]:
    for fabric, count in seen.host.old_snapshots:
        text = f"{count} older than 30 days: disks keep all that was overwritten since"
        yield Trouble(fabric, text, f"vnet -n {fabric} snapshot prune --older-than 30d --dry-run")


def _clock(seen: Seen) -> Iterator[Trouble]:
    behind_s = seen.host.newest_s - seen.host.now_s
    if behind_s > CLOCK_SLACK_S:
        text = (
            f"it is {behind_s:,.0f} s behind what vnet wrote last: rules expire late, history is out of order"
        )
        yield Trouble("clock", text, "timedatectl set-ntp true")


def _accel(seen: Seen) -> Iterator[Trouble]:
    if seen.host.accel != "kvm":
        yield Trouble("kvm", f"{seen.host.accel_reason}; guests are emulated, which is slower", "")


def _daemon_runs(seen: Seen) -> Iterator[Trouble]:
    if seen.fabrics and not seen.daemon.pid and not seen.daemon.listens:
        text = (
            "vnetd does not run: traffic goes on under the rules in force, but what dies is not started"
            " again, rules do not expire and nothing is recorded"
        )
        yield Trouble("vnetd", text, "vnet ps")


def _daemon_answers(seen: Seen) -> Iterator[Trouble]:
    daemon = seen.daemon
    end = f"kill -9 {daemon.pid}; vnet ps"
    if daemon.pid and not daemon.listens:
        yield Trouble("vnetd", f"vnetd (pid {daemon.pid}) runs, and nobody answers at {daemon.socket}", end)
    elif daemon.problem:
        yield Trouble("vnetd", f"vnetd (pid {daemon.pid}) {daemon.problem}", end)


def _daemon_version(seen: Seen) -> Iterator[Trouble]:
    daemon = seen.daemon
    if daemon.answers and daemon.version != daemon.client:
        yield Trouble("vnetd", f"vnetd is of version {daemon.version}, vnet of {daemon.client}", AGAIN)


def _history(seen: Seen) -> Iterator[Trouble]:
    stopped = seen.daemon.numbers.daemon.history_stopped if seen.daemon.numbers else ""
    if stopped:
        yield Trouble("history", stopped, f"du -xsh {shlex.quote(seen.host.state_dir)}/* | sort -h")


def _store(seen: Seen) -> Iterator[Trouble]:
    if seen.store_problem:
        yield Trouble("database", seen.store_problem, f"ls -l {shlex.quote(seen.host.state_dir)}")


def _left_processes(seen: Seen) -> Iterator[Trouble]:
    for each in seen.leftovers.processes:
        text = f"a {each.program} runs for fabric {each.fabric}, of which this host knows nothing"
        yield Trouble(f"pid {each.pid}", text, f"kill -9 {each.pid}")


def _left_namespaces(seen: Seen) -> Iterator[Trouble]:
    for name in seen.leftovers.namespaces:
        text = "a network namespace of a fabric that is no more, or of somebody else's with such a name"
        yield Trouble(name, text, f"ip netns delete {name}")


def _left_folders(seen: Seen) -> Iterator[Trouble]:
    for path in seen.leftovers.folders:
        yield Trouble(path, "of a fabric that is no more", f"rm -r {shlex.quote(path)}")


def _strained(seen: Seen) -> Iterator[Trouble]:
    for each in seen.daemon.strains:
        if not each.fabric:
            yield Trouble(each.subject, each.text, "vnet top --sort memory")


HOST: tuple[Check[Seen], ...] = (
    Check("memory", "memory for more guests", Level.WARNING, _memory),
    Check("pressure", "whether somebody waits for memory", Level.WARNING, _strained),
    Check("disk", "room in the state directory", Level.WARNING, _disk),
    Check("locations", "whether locations of disks are there, and have room", Level.WARNING, _locations),
    Check("images", "whether the images that disks are made of are there", Level.WARNING, _images),
    Check("snapshots", "snapshots that are older than 30 days", Level.WARNING, _snapshots),
    Check("clock", "whether the clock goes forward", Level.WARNING, _clock),
    Check("kvm", "how guests are run, by a timed probe", Level.WARNING, _accel),
    Check("database", "what is known of fabrics", Level.BROKEN, _store),
    Check("daemon", "whether vnetd runs, if there are fabrics", Level.BROKEN, _daemon_runs),
    Check("daemon-answers", "whether a vnetd that runs answers", Level.BROKEN, _daemon_answers),
    Check("daemon-version", "whether vnetd and vnet are of one version", Level.WARNING, _daemon_version),
    Check("history", "whether what happens is kept", Level.WARNING, _history),
    Check("left-processes", "QEMU and dnsmasq of no fabric", Level.WARNING, _left_processes),
    Check("left-namespaces", "network namespaces of no fabric", Level.WARNING, _left_namespaces),
    Check("left-folders", "pins and run directories of no fabric", Level.WARNING, _left_folders),
)


# ---- one fabric ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Patient:
    """A fabric, and what was seen beside it."""

    seen: Seen
    fabric: FabricSeen

    @property
    def up(self) -> str:
        """The command that brings it to what its file says."""
        return f"vnet up -f {shlex.quote(self.fabric.file)}"

    def trouble(self, subject: str, text: str, mend: str = "") -> Trouble:
        """A trouble that `vnet up` mends, unless something else does."""
        return Trouble(subject, text, mend or self.up)

    def again(self, guest: str) -> str:
        """The command that ends a guest and starts it anew."""
        name = self.fabric.name
        return f"vnet stop -n {name} {guest} --wait 1; vnet start -n {name} {guest}"


def _declared(of: Patient) -> Iterator[Trouble]:
    if of.fabric.wanted is None:
        yield of.trouble(of.fabric.name, f"its topology can be read no more: {of.fabric.unreadable}")


def _generation(of: Patient) -> Iterator[Trouble]:
    wanted, enforced = of.fabric.generation, of.fabric.enforced
    if wanted != enforced:
        yield of.trouble(of.fabric.name, f"generation {wanted} is wanted, {enforced} is in force")


def _adopted(of: Patient) -> Iterator[Trouble]:
    numbers = of.seen.daemon.fabric(of.fabric.name)
    if numbers and numbers.trouble:
        yield of.trouble(of.fabric.name, f"vnetd could not bring it to what it should be: {numbers.trouble}")


def _namespace(of: Patient) -> Iterator[Trouble]:
    if not of.fabric.namespace:
        text = "its network namespace is gone, and with it every port"
        yield of.trouble(of.fabric.netns, text)


def _switch(of: Patient) -> Iterator[Trouble]:
    switch, pins = of.fabric.switch, of.fabric.pins
    if switch is None:
        yield of.trouble(pins, "its switch is not pinned there any more: every port is closed")
    elif switch.is_other:
        yield of.trouble(pins, "its switch is of another version of vnet; the next vnetd converts it", AGAIN)
    elif switch.unreadable:
        mend = f"vnet down -n {of.fabric.name}; {of.up}"
        yield of.trouble(pins, f"its switch cannot be read: {switch.unreadable}", mend)


def _session(of: Patient) -> Iterator[Trouble]:
    numbers = of.seen.daemon.fabric(of.fabric.name)
    if numbers is None or of.fabric.switch is None:
        return
    if numbers.unanswered:
        yield of.trouble(of.fabric.name, f"vnetd has no session with the switch: {numbers.unanswered}", AGAIN)
    elif not of.fabric.agent:
        yield of.trouble(of.fabric.openflow, "nobody speaks OpenFlow there", AGAIN)


def _ports(of: Patient) -> Iterator[Trouble]:
    for port in _wanted_ports(of):
        found = of.fabric.interfaces.get(port.ifname)
        if found is None or found.kind != TAP:
            yield of.trouble(port.ifname, f"there is no such TAP in {of.fabric.netns}")


def _attached(of: Patient) -> Iterator[Trouble]:
    switch = of.fabric.switch
    for port in _there(of):
        if switch and not switch.unreadable and switch.ports.get(port.number) != port.ifname:
            yield of.trouble(port.ifname, f"it is not port {port.number} of the switch")


def _programs(of: Patient) -> Iterator[Trouble]:
    if of.fabric.switch is None:
        return
    for port in _there(of):
        if not of.fabric.interfaces[port.ifname].program:
            text = "the switch's program is not attached to it: what it sends goes nowhere"
            yield of.trouble(port.ifname, text)


def _links(of: Patient) -> Iterator[Trouble]:
    running = of.fabric.wanted.guests if of.fabric.wanted else ()
    held = {port for guest in running if guest.name in of.fabric.running for port in guest.ports}
    for port in _there(of):
        found = of.fabric.interfaces[port.ifname]
        if not found.up:
            mend = f"ip -n {of.fabric.netns} link set {port.ifname} up"
            yield of.trouble(port.ifname, "it is switched off", mend)
        elif port in held and not found.carrier:
            guest = port.ifname.rpartition(".")[0]
            owner = next((each.name for each in running if port in each.ports), guest)
            yield of.trouble(
                port.ifname, f"it has no carrier: the QEMU of {owner} does not hold it", of.again(owner)
            )


def _flows(of: Patient) -> Iterator[Trouble]:
    fabric = of.fabric
    if fabric.wanted is None or not _is_readable(of) or fabric.generation != fabric.enforced:
        return
    assert fabric.switch is not None
    missing, more = fabric.wanted.flows - fabric.switch.flows, fabric.switch.flows - fabric.wanted.flows
    if missing or more:
        text = (
            f"the switch lacks {len(missing)} of {len(fabric.wanted.flows)} flows and has {len(more)} others"
        )
        yield of.trouble(fabric.name, text)


def _foreign_flows(of: Patient) -> Iterator[Trouble]:
    for cookie, count in sorted((of.fabric.switch.foreign if of.fabric.switch else {}).items()):
        text = f"{count} flows of cookie {cookie:#x} are not vnet's; they decide beside the policies"
        mend = f"ovs-ofctl -O OpenFlow13 del-flows unix:{of.fabric.openflow} cookie={cookie:#x}/-1"
        yield of.trouble(of.fabric.name, text, mend)


def _services(of: Patient) -> Iterator[Trouble]:
    for service, found in _wanted_services(of):
        name = service.network
        if not found.namespace:
            yield of.trouble(name, f"the namespace {of.fabric.netns}.{name} of its dnsmasq is gone")
        elif not found.veth:
            yield of.trouble(name, "the veth between its dnsmasq and the switch is gone")
        elif not _has_program(of, service.port):
            yield of.trouble(name, f"the switch's program is not attached to {service.port.ifname}")


def _answering(of: Patient) -> Iterator[Trouble]:
    mend = "" if of.seen.daemon.answers else "vnet ps"
    for service, found in _wanted_services(of):
        if not found.pid and found.namespace:
            text = "its dnsmasq does not run: guests get no addresses and no names; vnetd starts it again"
            yield of.trouble(service.network, text, mend)


def _leases(of: Patient) -> Iterator[Trouble]:
    for service, found in _wanted_services(of):
        if found.leases:
            mend = f"rm -r {shlex.quote(found.leases)}; kill {found.pid}"
            yield of.trouble(service.network, f"its leases cannot be read: {found.leases}", mend)


def _surplus(of: Patient) -> Iterator[Trouble]:
    wanted = of.fabric.wanted
    for found in of.fabric.services if wanted else ():
        if wanted and wanted.service(found.network) is None:
            yield of.trouble(found.network, "something answers there, and the topology does not ask for it")


def _gateways(of: Patient) -> Iterator[Trouble]:
    wanted = of.fabric.wanted
    for gateway in sorted(wanted.gateways, key=lambda each: each.router) if wanted else ():
        if not of.fabric.namespace:
            continue
        if gateway not in of.fabric.gateways:
            text = "its gateway is not as it was made: nothing leads outside; vnetd makes it again"
            yield of.trouble(gateway.router, text)
        elif not _has_program(of, gateway.port):
            text = f"the switch's program is not attached to {gateway.port.ifname}"
            yield of.trouble(gateway.router, text)


def _uplinks(of: Patient) -> Iterator[Trouble]:
    wanted = of.fabric.wanted
    for cable in sorted(wanted.cables) if wanted and of.fabric.namespace else ():
        state = of.fabric.links.get(cable.uplink)
        if state is None:
            yield of.trouble(cable.uplink, f"the fabric has not got the interface {cable.interface}")
        elif state is LinkState.MISSING:
            text = f"the interface {cable.interface} is gone from this host; it is taken when it is back"
            yield of.trouble(cable.uplink, text, f"ip link show {cable.interface}")
        elif not _has_program(of, cable.port):
            yield of.trouble(cable.uplink, f"the switch's program is not attached to {cable.port.ifname}")


def _unplugged(of: Patient) -> Iterator[Trouble]:
    wanted = of.fabric.wanted
    for cable in sorted(wanted.cables) if wanted else ():
        if of.fabric.links.get(cable.uplink) is LinkState.DOWN:
            text = f"the interface {cable.interface} has no carrier: is the other end there, and on?"
            mend = f"ip netns exec {of.fabric.netns} ip link show {cable.port.ifname}"
            yield of.trouble(cable.uplink, text, mend)


def _guests(of: Patient) -> Iterator[Trouble]:
    wanted = of.fabric.wanted
    numbers = of.seen.daemon.fabric(of.fabric.name)
    why = {vm.name: vm.detail for vm in numbers.vms} if numbers else {}
    for guest in sorted(wanted.guests if wanted else ()):
        if guest.name not in of.fabric.running:
            told = f": {why[guest.name]}" if why.get(guest.name) else ""
            mend = f"vnet start -n {of.fabric.name} {guest.name}"
            yield of.trouble(guest.name, f"its QEMU does not run{told}", mend)


def _silent(of: Patient) -> Iterator[Trouble]:
    for fabric, guest in sorted(of.seen.daemon.silent):
        if fabric == of.fabric.name:
            yield of.trouble(guest, "its QEMU runs, and nobody in it answers", of.again(guest))


def _failing_disks(of: Patient) -> Iterator[Trouble]:
    numbers = of.seen.daemon.fabric(of.fabric.name)
    for vm in numbers.vms if numbers else ():
        if vm.is_failing:
            halted = vm.state == GuestState.PAUSED.value
            mend = f"vnet resume -n {of.fabric.name} {vm.name}" if halted else of.again(vm.name)
            yield of.trouble(vm.name, vm.detail, mend)


_SHOWN = {
    Lack.CPU: "vnet top --sort ready -n {fabric}",
    Lack.MEMORY: "vnet top --sort memory -n {fabric}",
    Lack.GUEST_MEMORY: "vnet top --resources -n {fabric}",
    Lack.DISK: "vnet top --resources -n {fabric}",
    Lack.ANSWER: "vnet stop --wait 0 {vm} -n {fabric}; vnet start {vm} -n {fabric}",
}


def _short(of: Patient) -> Iterator[Trouble]:
    for each in of.seen.daemon.strains:
        if each.fabric == of.fabric.name:
            mend = _SHOWN[each.lack].format(fabric=each.fabric, vm=each.subject)
            yield of.trouble(each.subject, each.text, mend)


def _sizes(of: Patient) -> Iterator[Trouble]:
    host = of.seen.host
    for each in advice(of.fabric.wanted.guests if of.fabric.wanted else (), host.cpus, host.memory_bytes):
        yield of.trouble(each.vm, each.text)
    numbers = of.seen.daemon.fabric(of.fabric.name)
    unused = idle.advice(numbers) if numbers else ()
    yield from (of.trouble(each.vm, each.text) for each in (*unused, *disk_sizing.advice(of.fabric.disks)))


FABRIC: tuple[Check[Patient], ...] = (
    Check("topology", "the topology that it was made of", Level.BROKEN, _declared),
    Check("generation", "whether what is wanted is in force", Level.BROKEN, _generation),
    Check("adopted", "whether vnetd could take it over", Level.BROKEN, _adopted),
    Check("namespace", "its network namespace", Level.BROKEN, _namespace),
    Check("switch", "programs and maps of its switch", Level.BROKEN, _switch),
    Check("session", "agent and controller of its switch", Level.BROKEN, _session),
    Check("port", "a TAP for each NIC", Level.BROKEN, _ports),
    Check("attached", "each TAP's port of the switch", Level.BROKEN, _attached),
    Check("program", "the switch's program at each port", Level.BROKEN, _programs),
    Check("link", "who holds the other end of each TAP", Level.BROKEN, _links),
    Check("flows", "whether the flows are those the topology asks for", Level.BROKEN, _flows),
    Check("foreign-flows", "flows of somebody else", Level.WARNING, _foreign_flows),
    Check("service", "namespace and port of each network's dnsmasq", Level.BROKEN, _services),
    Check("dnsmasq", "whether each network's dnsmasq runs", Level.BROKEN, _answering),
    Check("leases", "what each network's dnsmasq has given out", Level.BROKEN, _leases),
    Check("left-service", "dnsmasq of networks that have none", Level.WARNING, _surplus),
    Check("gateway", "what forwards for each router with an uplink", Level.BROKEN, _gateways),
    Check("uplink", "the interface of each uplink that carries networks", Level.BROKEN, _uplinks),
    Check("cable", "whether something is at the other end of it", Level.WARNING, _unplugged),
    Check("guest", "a QEMU for each VM that is to run", Level.BROKEN, _guests),
    Check("guest-answers", "whether somebody in each VM answers", Level.BROKEN, _silent),
    Check("guest-disks", "whether the disks of each VM can be written to", Level.BROKEN, _failing_disks),
    Check(
        "size",
        "whether each VM fits this host well, and on its disks what is to be there",
        Level.WARNING,
        _sizes,
    ),
    Check("guest-waits", "whether VMs wait for CPUs or memory of the host", Level.WARNING, _short),
)


def _wanted_ports(of: Patient) -> list[Port]:
    """Those that there should be; none when their namespace is gone, which says enough."""
    wanted = of.fabric.wanted
    return sorted(wanted.ports) if wanted and of.fabric.namespace else []


def _there(of: Patient) -> list[Port]:
    """Those that are there."""
    return [port for port in _wanted_ports(of) if port.ifname in of.fabric.interfaces]


def _has_program(of: Patient, port: Port) -> bool:
    found = of.fabric.interfaces.get(port.ifname)
    return of.fabric.switch is None or (found is not None and found.program)


def _is_readable(of: Patient) -> bool:
    switch = of.fabric.switch
    return switch is not None and not switch.unreadable and not switch.is_other


def _wanted_services(of: Patient) -> Iterator[tuple[NetworkService, ServiceSeen]]:
    wanted = of.fabric.wanted
    for service in sorted(wanted.services, key=lambda each: each.network) if wanted else ():
        if of.fabric.namespace:
            yield service, of.fabric.service(service.network)
