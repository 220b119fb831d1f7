"""A host in memory: the engine's neighbours as plain sets, with a fuse that blows at a chosen call."""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from vnet.base.errors import HostError
from vnet.fabric.live.engine import Engine, Host
from vnet.fabric.live.parts import Parts
from vnet.fabric.live.store import SqliteStore
from vnet.hv.spec import ExecResult, GuestState, GuestStatus


@dataclass
class World:
    """What there is; survives the engine as the kernel survives the daemon."""

    namespaces: set = field(default_factory=set)
    interfaces: dict = field(default_factory=dict)
    switches: dict = field(default_factory=dict)
    attached: dict = field(default_factory=dict)
    guests: set = field(default_factory=set)
    calls: list = field(default_factory=list)
    fuse: int | None = None
    hang: str = ""
    hanging: asyncio.Event = field(default_factory=asyncio.Event)
    tidied: list = field(default_factory=list)
    now: datetime = datetime(2026, 1, 1, tzinfo=UTC)

    async def call(self, what):
        """Every change goes through here; the fuse makes one of them fail."""
        self.calls.append(what)
        if what == self.hang:
            self.hang = ""
            self.hanging.set()
            await asyncio.Event().wait()
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse < 0:
                self.fuse = None
                raise HostError(f"the host refused to {what}")

    def contents(self):
        """All that is there, for comparisons."""
        return (
            frozenset(self.namespaces),
            frozenset(self.interfaces),
            {name: frozenset(flows) for name, flows in self.switches.items()},
            {name: frozenset(ports) for name, ports in self.attached.items()},
            frozenset(self.guests),
        )


@dataclass
class FakeNetwork:
    world: World
    name: str

    async def exists(self):
        return self.name in self.world.namespaces

    async def create(self):
        await self.world.call("create namespace")
        self.world.namespaces.add(self.name)

    async def remove(self):
        await self.world.call("remove namespace")
        self.world.namespaces.discard(self.name)

    async def interfaces(self):
        return {name: kind for (fabric, name), kind in self.world.interfaces.items() if fabric == self.name}

    async def create_port(self, ifname):
        await self.world.call(f"create port {ifname}")
        self.world.interfaces[self.name, ifname] = "tun"

    async def remove_port(self, ifname):
        await self.world.call(f"remove port {ifname}")
        self.world.interfaces.pop((self.name, ifname), None)

    async def close(self):
        pass


@dataclass
class FakeSwitch:
    world: World
    name: str

    async def exists(self):
        return self.name in self.world.switches

    async def open(self):
        if self.name not in self.world.switches:
            await self.world.call("create switch")
            self.world.switches[self.name] = frozenset()
            self.world.attached[self.name] = frozenset()

    async def attach(self, port):
        await self.world.call(f"attach {port.ifname}")
        self.world.attached[self.name] |= {port}

    async def detach(self, port):
        await self.world.call(f"detach {port.ifname}")
        self.world.attached[self.name] -= {port}

    async def ports(self):
        return self.world.attached[self.name]

    async def flows(self):
        return self.world.switches[self.name]

    async def change(self, put, remove):
        await self.world.call("change flows")
        self.world.switches[self.name] = (self.world.switches[self.name] - remove) | put

    async def close(self):
        pass

    async def destroy(self):
        await self.world.call("destroy switch")
        self.world.switches.pop(self.name, None)
        self.world.attached.pop(self.name, None)


@dataclass
class FakeGuests:
    world: World
    name: str

    async def adopt(self, guest):
        pass

    async def start(self, guest, note):
        await self.world.call(f"start {guest.name}")
        self.world.guests.add((self.name, guest.name))
        await self.world.call(f"wait for {guest.name}")
        return ""

    async def stop(self, name, timeout_s):
        await self.world.call(f"stop {name}")
        self.world.guests.discard((self.name, name))

    async def destroy(self, name):
        await self.world.call(f"destroy {name}")
        self.world.guests.discard((self.name, name))

    async def status(self, name):
        running = (self.name, name) in self.world.guests
        return GuestStatus(name, GuestState.RUNNING if running else GuestState.STOPPED, agent=running)

    async def exec(self, name, argv, timeout_s, stdin=b""):
        return ExecResult(0, stdin, b"")

    async def console(self, name):
        return Path("/nowhere")

    async def close(self):
        pass


def make_engine(world: World, directory: Path, memory_bytes: int = 8 << 30, boot: str = "boot-1") -> Engine:
    """An engine on the world, with a real store in `directory`."""
    host = Host(lambda: None, lambda: memory_bytes, lambda: boot, world.tidied.append, lambda: world.now)
    parts = lambda name: Parts(FakeNetwork(world, name), FakeSwitch(world, name), FakeGuests(world, name))  # noqa: E731
    return Engine(SqliteStore(directory / "vnet.db"), parts, host, lambda declared: ())
