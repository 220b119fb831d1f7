"""A host in memory: the engine's neighbours as plain sets, with traps that spring at a chosen step."""

import asyncio
from collections.abc import Callable
from contextlib import asynccontextmanager, contextmanager
from copy import copy
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from tests.fakes.twin_sandbox import TwinSandbox
from vnet.base.errors import HostError
from vnet.fabric.cable import Interface, LinkState, missing, obstacle
from vnet.fabric.live.engine import Engine
from vnet.fabric.live.parts import Parts
from vnet.fabric.live.registry import Host
from vnet.fabric.live.store import SqliteStore
from vnet.fabric.live.watch import Watch
from vnet.fabric.state import CABLE, Attached, cable_remnant, gateway_remnant, remnant
from vnet.hv.built import built_for
from vnet.hv.spec import ExecResult, GuestState, GuestStatus
from vnet.hv.vitals import Vitals
from vnet.openflow.message import FlowStats
from vnet.switch.numbers import SwitchNumbers


class Killed(BaseException):
    """The daemon is no more: nothing that it would do from here on happens."""


def refuse(world, what):
    """The host says no."""
    raise HostError(f"the host refused to {what}")


def refuse_host(world, what):
    """The host says no; the store can still be written."""
    if not is_write(what):
        refuse(world, what)


def is_write(what):
    """Whether a step is a write to the store."""
    return what.startswith(("save ", "forget "))


def interrupt(world, what):
    """The user breaks off the operation that `watched` runs."""
    world.operation.cancel()


def kill(world, what):
    """The daemon is killed."""
    world.dead = True
    raise Killed(what)


@dataclass
class Trap:
    """Springs at the step of that number: before it or after it has had its effect, once or from there on."""

    step: int
    springs: Callable[["World", str], None]
    after: bool = False
    lasting: bool = False
    sprung: bool = False

    def at(self, world, step, what, after):
        due = step >= self.step if self.lasting else step == self.step
        if due and after == self.after:
            self.sprung = True
            self.springs(world, what)


@dataclass
class World:
    """What there is; survives the engine as the kernel survives the daemon.

    `calls` are the changes to it so far, `steps` those and writes to the store. `traps` make some go wrong.
    """

    namespaces: set = field(default_factory=set)
    interfaces: dict = field(default_factory=dict)
    mtus: dict = field(default_factory=dict)
    switches: dict = field(default_factory=dict)
    attached: dict = field(default_factory=dict)
    connections: dict = field(default_factory=dict)
    mirrors: dict = field(default_factory=dict)
    services: dict = field(default_factory=dict)
    gateways: dict = field(default_factory=dict)
    damaged: set = field(default_factory=set)
    cables: dict = field(default_factory=dict)
    host: dict = field(default_factory=lambda: {name: Interface(name) for name in ("eth1", "eth2")})
    guests: set = field(default_factory=set)
    suspended: set = field(default_factory=set)
    paused: set = field(default_factory=set)
    other_memory: set = field(default_factory=set)
    specs: dict = field(default_factory=dict)
    vitals: dict = field(default_factory=dict)
    calls: list = field(default_factory=list)
    steps: list = field(default_factory=list)
    traps: tuple[Trap, ...] = ()
    dead: bool = False
    operation: asyncio.Task | None = None
    hang: str = ""
    hanging: asyncio.Event = field(default_factory=asyncio.Event)
    tidied: list = field(default_factory=list)
    numbers: dict = field(default_factory=dict)
    asked: Callable[[], None] = lambda: None
    now: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    uptime_s: float = 1000.0

    def copy(self):
        """The same once more, without traps."""
        containers = (
            "namespaces",
            "interfaces",
            "mtus",
            "switches",
            "attached",
            "mirrors",
            "services",
            "gateways",
            "cables",
            "host",
            "guests",
            "suspended",
            "paused",
            "specs",
            "calls",
            "steps",
        )
        copies = {name: copy(getattr(self, name)) for name in containers}
        return World(**copies, now=self.now, uptime_s=self.uptime_s)

    def fuse(self, calls):
        """Have one of the next calls refused, after so many that are not."""
        self.traps = (Trap(len(self.steps) + calls, refuse),)

    @asynccontextmanager
    async def call(self, what):
        """Every change goes through here."""
        step = self._begin(what)
        self.calls.append(what)
        if what == self.hang:
            self.hang = ""
            self.hanging.set()
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        yield
        self._spring(step, what, after=True)

    @contextmanager
    def write(self, what):
        """So does every write to the store."""
        step = self._begin(what)
        yield
        self._spring(step, what, after=True)

    def _begin(self, what):
        step = len(self.steps)
        self.steps.append(what)
        self._spring(step, what, after=False)
        return step

    def _spring(self, step, what, after):
        if self.dead:
            raise Killed(what)
        for trap in self.traps:
            trap.at(self, step, what, after)

    async def watched(self, work):
        """Do something that `interrupt` can break off."""
        self.operation = asyncio.current_task()
        return await work

    def contents(self):
        """All that is there, for comparisons."""
        return (
            frozenset(self.namespaces),
            frozenset(self.interfaces),
            {name: frozenset(flows) for name, flows in self.switches.items()},
            {name: frozenset(ports) for name, ports in self.attached.items()},
            dict(self.services),
            dict(self.gateways),
            dict(self.cables),
            dict(self.host),
            frozenset(self.suspended),
            frozenset((key, self.specs[key]) for key in self.guests),
        )


@dataclass
class FakeNetwork:
    world: World
    name: str

    async def exists(self):
        return self.name in self.world.namespaces

    async def create(self):
        async with self.world.call("create namespace"):
            self.world.namespaces.add(self.name)

    async def remove(self):
        if any(ifname.startswith(CABLE) for name, ifname in self.world.interfaces if name == self.name):
            raise HostError("interfaces of the host are still in the namespace")
        async with self.world.call("remove namespace"):
            self.world.namespaces.discard(self.name)
            for key in [key for key in self.world.interfaces if key[0] == self.name]:
                del self.world.interfaces[key]
                self.world.mtus.pop(key, None)

    async def interfaces(self):
        return {name: kind for (fabric, name), kind in self.world.interfaces.items() if fabric == self.name}

    async def create_port(self, ifname):
        async with self.world.call(f"create port {ifname}"):
            self.world.interfaces[self.name, ifname] = "tun"

    async def resize_port(self, ifname, mtu_bytes):
        if self.world.mtus.get((self.name, ifname), 1500) != mtu_bytes:
            async with self.world.call(f"resize {ifname}"):
                self.world.mtus[self.name, ifname] = mtu_bytes

    async def remove_port(self, ifname):
        async with self.world.call(f"remove port {ifname}"):
            self.world.interfaces.pop((self.name, ifname), None)
            self.world.mtus.pop((self.name, ifname), None)

    async def close(self):
        pass


@dataclass
class FakeSwitch:
    world: World
    name: str
    watch: Watch = field(default_factory=Watch, init=False)

    @property
    def is_open(self):
        return self.name in self.world.switches

    async def exists(self):
        return self.is_open

    async def open(self):
        if self.name not in self.world.switches:
            async with self.world.call("create switch"):
                self.world.switches[self.name] = frozenset()
                self.world.attached[self.name] = frozenset()

    async def attach(self, port, limits):
        async with self.world.call(f"attach {port.ifname}"):
            self._replace(port, {Attached(port, limits, self._mtu(port))})

    async def limit(self, port, limits):
        async with self.world.call(f"limit {port.ifname}"):
            self._replace(port, {replace(each, limits=limits) for each in self._of(port)})

    async def lay(self, port, line):
        async with self.world.call(f"lay {port.ifname}"):
            self._replace(port, {replace(each, line=line) for each in self._of(port)})

    async def look(self):
        seen = (replace(each, mtu_bytes=self._mtu(each.port)) for each in self.world.attached[self.name])
        self.world.attached[self.name] = frozenset(seen)

    def _mtu(self, port):
        return self.world.mtus.get((self.name, port.ifname), 1500)

    async def detach(self, port):
        async with self.world.call(f"detach {port.ifname}"):
            self._replace(port, set())

    def _of(self, port):
        return {each for each in self.world.attached[self.name] if each.port == port}

    def _replace(self, port, by):
        rest = {each for each in self.world.attached[self.name] if each.port != port}
        self.world.attached[self.name] = frozenset(rest | by)

    async def ports(self):
        return self.world.attached[self.name]

    async def flows(self):
        return self.world.switches[self.name]

    async def all_flows(self):
        return await self.flows()

    async def flow_stats(self):
        return tuple(FlowStats(flow, 60 * 10**9) for flow in self.world.switches[self.name])

    async def connections(self):
        return self.world.connections.get(self.name, ())

    async def slots(self):
        for part in ():
            yield part

    async def numbers(self):
        self.world.asked()
        return self.world.numbers.get(self.name, SwitchNumbers())

    async def in_sandbox(self, work):
        return work(TwinSandbox(self.world.switches[self.name]), await self.connections())

    async def unreported(self):
        return 0

    async def logged_counts(self):
        return {}

    async def mirrors(self):
        return self.world.mirrors.get(self.name, frozenset())

    async def put_mirror(self, mirror, record):
        async with self.world.call(f"mirror {mirror.name}"):
            self.world.mirrors[self.name] = {
                each for each in await self.mirrors() if each.name != mirror.name
            }
            self.world.mirrors[self.name] = frozenset(self.world.mirrors[self.name] | {mirror})

    async def remove_mirror(self, name):
        async with self.world.call(f"end mirror {name}"):
            kept = frozenset(each for each in await self.mirrors() if each.name != name)
            self.world.mirrors[self.name] = kept

    def mirror_counts(self):
        return {}

    async def change(self, put, remove):
        async with self.world.call("change flows"):
            self.world.switches[self.name] = (self.world.switches[self.name] - remove) | put

    async def close(self):
        pass

    async def destroy(self):
        async with self.world.call("destroy switch"):
            self.world.switches.pop(self.name, None)
            self.world.attached.pop(self.name, None)
            self.world.mirrors.pop(self.name, None)


@dataclass
class FakeGuests:
    world: World
    name: str

    async def adopt(self, guest):
        pass

    async def recover(self):
        pass

    async def start(self, guest, note):
        async with self.world.call(f"start {guest.name}"):
            self.world.guests.add((self.name, guest.name))
            self.world.suspended.discard((self.name, guest.name))
            self.world.specs[self.name, guest.name] = guest
        async with self.world.call(f"wait for {guest.name}"):
            return ""

    async def change(self, guest):
        key = self.name, guest.name
        before = self.world.specs[key]
        if key in self.world.paused:
            raise HostError(f"{guest.name} is paused")
        try:
            async with self.world.call(f"change {guest.name}"):
                self.world.specs[key] = guest
        except HostError:
            self.world.specs[key] = before  # as it is promised
            raise

    async def take_up(self, was, guest):
        self.world.specs[self.name, guest.name] = was
        await self.change(guest)

    async def stop(self, name, timeout_s):
        async with self.world.call(f"stop {name}"):
            self.world.guests.discard((self.name, name))

    async def refuse_memory(self, guest):
        if (self.name, guest.name) in self.world.other_memory:
            raise HostError(f"the memory of {guest.name} cannot be loaded")

    async def forget_memory(self, name):
        async with self.world.call(f"forget the memory of {name}"):
            self.world.suspended.discard((self.name, name))
            self.world.other_memory.discard((self.name, name))

    async def pause(self, name):
        async with self.world.call(f"pause {name}"):
            self.world.paused.add((self.name, name))

    async def resume(self, name):
        async with self.world.call(f"resume {name}"):
            self.world.paused.discard((self.name, name))

    async def suspend(self, guest):
        async with self.world.call(f"suspend {guest.name}"):
            self.world.guests.discard((self.name, guest.name))
            self.world.suspended.add((self.name, guest.name))
            return 0

    async def destroy(self, name):
        async with self.world.call(f"destroy {name}"):
            self.world.guests.discard((self.name, name))
            self.world.suspended.discard((self.name, name))

    async def status(self, name):
        running = (self.name, name) in self.world.guests
        built = built_for(1, 96 << 20, 1, "kvm") if running else None
        off = GuestState.SUSPENDED if (self.name, name) in self.world.suspended else GuestState.STOPPED
        paused = (self.name, name) in self.world.paused
        state = (GuestState.PAUSED if paused else GuestState.RUNNING) if running else off
        return GuestStatus(name, state, agent=running, built=built)

    async def vitals(self, name):
        return self.world.vitals.get((self.name, name), Vitals())

    async def exec(self, name, argv, timeout_s, stdin=b""):
        return ExecResult(0, stdin, b"")

    async def console(self, name):
        return Path("/nowhere")

    async def close(self):
        pass


@dataclass
class FakeServices:
    world: World
    name: str

    async def observed(self):
        own = {key: each for key, each in self.world.services.items() if key[0] == self.name}
        there = {ifname for fabric, ifname in self.world.interfaces if fabric == self.name}
        return frozenset(
            each if each.port.ifname in there else remnant(each.network) for each in own.values()
        )

    async def networks(self):
        return tuple(sorted(network for name, network in self.world.services if name == self.name))

    async def put(self, service):
        async with self.world.call(f"serve {service.network}"):
            self.world.interfaces[self.name, service.port.ifname] = "veth"
            self.world.services[self.name, service.network] = service

    async def remove(self, network):
        async with self.world.call(f"end serving {network}"):
            self.world.services.pop((self.name, network), None)
            self.world.interfaces.pop((self.name, f"@{network}"), None)

    async def revive(self):
        return ()

    async def dead(self):
        return ()

    async def leases(self):
        return ()


@dataclass
class FakeGateways:
    world: World
    name: str
    in_the_way: tuple[str, ...] = ()
    answers: list = field(default_factory=list)

    async def observed(self):
        own = {key: each for key, each in self.world.gateways.items() if key[0] == self.name}
        there = {ifname for fabric, ifname in self.world.interfaces if fabric == self.name}
        damaged = {key for key, each in own.items() if each.port.ifname not in there} | self.world.damaged
        return frozenset(
            gateway_remnant(each.router) if key in damaged else each for key, each in own.items()
        )

    async def routers(self):
        return tuple(sorted(router for name, router in self.world.gateways if name == self.name))

    async def conflicts(self, wanted):
        return self.in_the_way if wanted else ()

    async def put(self, gateway):
        async with self.world.call(f"forward for {gateway.router}"):
            self.world.interfaces[self.name, gateway.port.ifname] = "veth"
            self.world.gateways[self.name, gateway.router] = gateway
            self.world.damaged.discard((self.name, gateway.router))
        return ""

    async def remove(self, router):
        async with self.world.call(f"end forwarding for {router}"):
            self.world.gateways.pop((self.name, router), None)
            self.world.interfaces.pop((self.name, f"~{router}"), None)

    async def mend(self):
        mended = [key for key in self.world.damaged if key[0] == self.name]
        for key in mended:
            await self.put(self.world.gateways[key])
        return tuple(self.world.gateways[key] for key in mended)

    async def silent(self):
        return ()

    async def check(self):
        return tuple(self.answers.pop()) if self.answers else ()


@dataclass
class FakeCables:
    world: World
    name: str

    def _own(self):
        return [each for (fabric, _), each in self.world.cables.items() if fabric == self.name]

    def _is_inside(self, cable):
        return (self.name, cable.port.ifname) in self.world.interfaces

    async def observed(self):
        return frozenset(
            each
            if self._is_inside(each) or each.interface not in self.world.host
            else cable_remnant(each.uplink)
            for each in self._own()
        )

    async def uplinks(self):
        return tuple(sorted(each.uplink for each in self._own()))

    async def obstacles(self, cables):
        own = {each.interface for each in self._own()}
        found = {
            each.uplink: obstacle(self.world.host[each.interface])
            if each.interface in self.world.host
            else missing(each.interface, tuple(self.world.host))
            for each in cables
            if each.interface not in own
        }
        return {uplink: why for uplink, why in found.items() if why}

    async def put(self, cable):
        async with self.world.call(f"note {cable.uplink}"):
            self.world.cables[self.name, cable.uplink] = cable
        async with self.world.call(f"take {cable.interface}"):
            if not self._is_inside(cable):
                del self.world.host[cable.interface]
                self.world.interfaces[self.name, cable.port.ifname] = "veth"

    async def remove(self, uplink):
        cable = self.world.cables.get((self.name, uplink))
        if cable is None:
            return
        if cable.port in {each.port for each in self.world.attached.get(self.name, ())}:
            raise HostError(f"{cable.interface} is still a port of a switch")
        async with self.world.call(f"give back {cable.interface}"):
            if self.world.interfaces.pop((self.name, cable.port.ifname), None):
                self.world.host[cable.interface] = Interface(cable.interface)
        async with self.world.call(f"forget {uplink}"):
            self.world.cables.pop((self.name, uplink), None)

    async def links(self):
        states = {True: LinkState.UP, False: LinkState.MISSING}
        return {each.uplink: states[self._is_inside(each)] for each in self._own()}

    async def mtus(self, topology):
        return {}

    async def retake(self):
        lost = [
            each for each in self._own() if not self._is_inside(each) and each.interface in self.world.host
        ]
        for cable in lost:
            await self.put(cable)
        return tuple(lost)


class FakeStore(SqliteStore):
    """The real store, whose writes are steps too."""

    def __init__(self, path, world):
        super().__init__(path)
        self.world = world

    def save(self, record):
        with self.world.write("save the record"):
            super().save(record)

    def save_enforced(self, name, generation):
        with self.world.write("save what is enforced"):
            super().save_enforced(name, generation)

    def save_pending(self, record):
        with self.world.write("save what is pending"):
            super().save_pending(record)

    def remove(self, name):
        with self.world.write("forget the record"):
            super().remove(name)

    def save_guest(self, name, guest):
        with self.world.write(f"save guest {guest.name}"):
            super().save_guest(name, guest)

    def remove_guest(self, name, guest):
        with self.world.write(f"forget guest {guest}"):
            super().remove_guest(name, guest)


def make_engine(world: World, directory: Path, memory_bytes: int = 8 << 30, boot: str = "boot-1") -> Engine:
    """An engine on the world, with a real store in `directory`."""
    host = Host(
        require=lambda: None,
        available_memory_bytes=lambda: memory_bytes,
        boot_id=lambda: boot,
        tidy=world.tidied.append,
        now=lambda: world.now,
        uptime_s=lambda: world.uptime_s,
    )

    def parts(name):
        network, switch, guests = FakeNetwork(world, name), FakeSwitch(world, name), FakeGuests(world, name)
        services, gateways = FakeServices(world, name), FakeGateways(world, name)
        cables = FakeCables(world, name)
        return Parts(network, switch, guests, services=services, gateways=gateways, cables=cables)

    return Engine(FakeStore(directory / "vnet.db", world), parts, host, lambda declared: ())
