"""Interfaces of the host as ports: taken, given back as they were, whatever happens in between."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.bpf.bench import sh
from tests.net import fabric_lab
from tests.net.client import client, run
from tests.net.fabric_lab import NETNS, PREFIX
from tests.unit.fabric.fakes import World
from vnet.base.errors import HostError, InputError
from vnet.fabric.cable import LinkState
from vnet.fabric.live import interface, tending
from vnet.fabric.live.cables import HostCables
from vnet.fabric.live.numbers import Taker
from vnet.fabric.live.service import Service
from vnet.fabric.progress import silent
from vnet.fabric.readiness import unready
from vnet.fabric.state import Cable, Port, cable_remnant
from vnet.fabric.store import Source
from vnet.switch.live import bpf
from vnet.switch.live.netns import inside
from vnet.topology.values import format_mac

HOST, LAN = f"{PREFIX}host", f"{PREFIX}lan"
PLAIN = "name: small\nnetworks: {lan: {vlan: 10, subnets: 10.0.0.0/24}}\nvms: {a: {networks: [lan]}}\n"
TEXT = PLAIN + "uplinks: {campus: {interface: trunk0, mode: trunk, networks: [lan]}}\n"
CAMPUS = Cable("campus", "trunk0", Port(11, "=campus"))


@pytest.fixture
def directory() -> Iterator[Path]:
    with fabric_lab.host() as made, hosts():
        yield made


@contextmanager
def hosts() -> Iterator[None]:
    """A namespace that plays the host, and one of the LAN that its interface trunk0 leads to."""
    for name in (HOST, LAN):
        sh(f"ip netns add {name}")
    try:
        plug_in()
        yield
    finally:
        for name in (HOST, LAN):
            sh(f"ip netns del {name}")


def plug_in() -> None:
    sh(f"ip -n {HOST} link add trunk0 type veth peer name far0 netns {LAN}")
    sh(f"ip -n {HOST} link set trunk0 address 02:00:00:00:00:77 mtu 1600")
    settings = "net.ipv6.conf.trunk0.accept_dad=0 net.ipv4.conf.trunk0.rp_filter=2"
    sh(f"ip netns exec {HOST} sysctl -qw {settings}")
    sh(f"ip -n {HOST} link set trunk0 up")
    sh(f"ip -n {LAN} link set far0 mtu 1600 up")


def ip(netns: str, command: str) -> Any:
    done = subprocess.run(f"ip -n {netns} -j {command}".split(), capture_output=True, text=True, check=False)
    return json.loads(done.stdout or "[]")


def links(netns: str) -> dict[str, Any]:
    """By name, without what is counted and what changes by moving."""
    return {link["ifname"]: link for link in ip(netns, "-d link")}


def as_it_is() -> dict[str, Any]:
    """All of the host that taking an interface could change."""
    link = links(HOST)["trunk0"]
    for changing in ("link_netnsid", "ifindex", "link_index"):
        link.pop(changing)
    with inside(HOST):
        settings = interface.remember("trunk0").settings
    (addresses,) = ip(HOST, "addr show dev trunk0")
    addresses = {"addresses": [each["local"] for each in addresses["addr_info"]]}
    return link | addresses | settings | {"routes": ip(HOST, "-6 route")}


async def settled() -> dict[str, Any]:
    """When the kernel has given it its link-local address."""
    for _ in range(50):
        found = await asyncio.to_thread(as_it_is)
        if found["addresses"] and found["operstate"] == "UP":
            break
        await asyncio.sleep(0.1)
    return found


def living(directory: Path, life: Callable[[Any], Awaitable[None]]) -> None:
    async def whole() -> None:
        engine = fabric_lab.make_engine(directory, World(), host_netns=HOST)
        try:
            await life(engine)
        finally:
            await engine.down("small", silent)
            await engine.close()

    asyncio.run(whole())


def test_an_interface_is_taken_and_given_back_as_it_was(directory: Path) -> None:
    async def life(engine: Any) -> None:
        before = await settled()
        outcome = await engine.up(Source("small.vnet.yaml", TEXT), silent)
        assert "take interface trunk0 for uplink campus" in map(str, outcome.actions)
        assert "trunk0" not in links(HOST)
        taken = links(NETNS)["=campus"]
        assert {"UP", "PROMISC", "LOWER_UP"} <= set(taken["flags"])
        assert (taken["mtu"], taken["address"]) == (1600, "02:00:00:00:00:77")
        assert await engine.fabric("small").parts.cables.links() == {"campus": LinkState.UP}
        assert (await engine.up(Source("small.vnet.yaml", TEXT), silent)).actions == ()
        outcome = await engine.up(Source("small.vnet.yaml", PLAIN), silent)
        assert "give the interface of uplink campus back" in map(str, outcome.actions)
        assert await settled() == before
        await engine.up(Source("small.vnet.yaml", TEXT), silent)
        await engine.down("small", silent)
        assert await settled() == before
        with inside(HOST):
            assert bpf.tcx_programs(links(HOST)["trunk0"]["ifindex"]) == ()

    living(directory, life)


def test_a_network_has_the_mtu_of_the_interface_that_carries_it(directory: Path) -> None:
    async def life(engine: Any) -> None:
        await engine.up(Source("small.vnet.yaml", TEXT), silent)
        (nic,) = engine.fabric("small").declared.inventory.nics
        assert (nic.mtu_bytes, links(NETNS)["a.eth0"]["mtu"]) == (1600, 1600)
        assert (await engine.up(Source("small.vnet.yaml", TEXT), silent)).actions == ()
        longer = TEXT.replace("vlan: 10,", "vlan: 10, mtu: 9000,")
        why = "trunk0, uplink campus, has an MTU of 1600, and network lan has 9000: raise it with"
        with pytest.raises(InputError, match=why):
            await engine.plan(Source("small.vnet.yaml", longer))

    living(directory, life)


ADDRESSES = "ip -n {0} addr add 192.0.2.1/24 dev trunk0; ip -n {0} -6 addr add 2001:db8::1/64 dev trunk0"
REFUSED = {
    ADDRESSES: r"small.vnet.yaml:4:.*addresses 192.0.2.1/24, 2001:db8::1/64 on trunk0",
    "ip -n {0} route add default dev trunk0": "routes by trunk0: default",
    "ip -n {0} -6 route add 2001:db8:1::/48 dev trunk0": "routes by trunk0: 2001:db8:1::/48",
    "ip -n {0} link set trunk0 name other": r"no interface trunk0 on this host\n *it has other",
    "ip -n {0} link del trunk0; ip -n {0} tuntap add trunk0 mode tap": "of the kind tun",
}


@pytest.mark.parametrize(("commands", "why"), REFUSED.items(), ids=list("arRnk"))
def test_an_interface_that_the_host_needs_is_refused_by_its_line(
    directory: Path, commands: str, why: str
) -> None:
    async def life(engine: Any) -> None:
        for command in commands.format(HOST).split("; "):
            sh(command)
        before = links(HOST)
        for ask in (engine.plan, lambda source: engine.up(source, silent)):
            with pytest.raises(InputError, match=why):
                await ask(Source("small.vnet.yaml", TEXT))
        assert links(HOST) == before

    living(directory, life)


class Killed(BaseException):
    """The daemon is no more."""


TAKING, GIVING = ("move", "listen"), ("silence", "move", "restore")


def test_a_daemon_killed_at_any_step_leaves_what_the_next_can_end(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def until_killed(step: str, after: bool) -> None:
        whole = getattr(interface, step)

        def killed(*given: Any) -> None:
            if after:
                whole(*given)
            raise Killed

        monkeypatch.setattr(interface, step, killed)

    async def at(step: str, after: bool, giving: bool) -> None:
        cables, as_put = HostCables("small", NETNS, HOST), frozenset({CAMPUS})
        if giving:
            await cables.put(CAMPUS)
        until_killed(step, after)
        with pytest.raises(Killed):
            await (cables.remove("campus") if giving else cables.put(CAMPUS))
        monkeypatch.undo()
        cables = HostCables("small", NETNS, HOST)
        assert await cables.uplinks() == ("campus",)
        assert await cables.observed() in (as_put, frozenset({cable_remnant("campus")}))
        await cables.remove("campus")
        assert (await cables.uplinks(), await settled()) == ((), before)
        await cables.put(CAMPUS)
        assert await cables.observed() == as_put
        await cables.remove("campus")
        assert await settled() == before

    before: dict[str, Any] = {}

    async def life(engine: Any) -> None:
        await engine.up(Source("small.vnet.yaml", PLAIN), silent)
        before.update(await settled())
        for giving, steps in ((False, TAKING), (True, GIVING)):
            for step in steps:
                for after in (False, True):
                    await at(step, after, giving)

    living(directory, life)


def test_an_interface_that_comes_back_is_taken_again(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    async def life(engine: Any) -> None:
        await engine.up(Source("small.vnet.yaml", TEXT), silent)
        fabric, taker = engine.fabric("small"), Taker(engine)
        sh(f"ip -n {LAN} link set far0 down")
        assert await fabric.parts.cables.links() == {"campus": LinkState.DOWN}
        sh(f"ip -n {LAN} link del far0")
        assert await fabric.parts.cables.links() == {"campus": LinkState.MISSING}
        (told,) = (await Service(engine).inspect("small"))["uplinks"]
        assert (told["uplink"], told["interface"], told["link"]) == ("campus", "trunk0", "missing")
        assert [each.why for each in unready(await taker.take())] == [
            "the interface trunk0 of uplink campus is missing"
        ]
        assert (await engine.up(Source("small.vnet.yaml", TEXT), silent)).actions == ()
        plan = await engine.plan(Source("small.vnet.yaml", PLAIN))
        assert "detach port =campus" in map(str, plan.actions)
        await tending.turn(engine, fabric)
        plug_in()
        await tending.turn(engine, fabric)
        assert await fabric.parts.cables.links() == {"campus": LinkState.UP}
        assert any(each.port.ifname == "=campus" for each in await fabric.parts.switch.ports())
        assert "trunk0 of uplink campus was gone, and is taken again" in caplog.text
        with inside(NETNS):
            assert bpf.tcx_programs(links(NETNS)["=campus"]["ifindex"]) == ("vnet_ingress",)

    living(directory, life)


ACCESS = """\
name: small
networks: {lan: {vlan: 10, subnets: [10.0.0.0/24, "fd00::/64"]}}
vms: {a: {networks: [lan]}}
uplinks: {office: {interface: trunk0, networks: [lan]}}
policies: [{name: a, applied_to: "vm:a", ingress: [{from: [10.0.0.200/32, "fd00::200/128"], ports: [icmp]}]}]
"""


def test_an_access_uplink_joins_a_network_and_a_lan_without_tags(directory: Path) -> None:
    pc = {4: ("10.0.0.200", "10.0.0.201"), 6: ("fd00::200", "fd00::201")}
    vm = {4: "10.0.0.2", 6: "fd00::2"}

    def pings(netns: str, source: str, target: str) -> bool:
        return "1 received" in run(netns, f"ping -c 1 -W 0.5 -I {source} {target}").stdout

    def tried(mac: str) -> None:
        with client(f"{PREFIX}a", NETNS, "a.eth0", mac) as name:
            for family in (4, 6):
                length = 24 if family == 4 else 64
                sh(f"ip -n {name} addr add {vm[family]}/{length} dev eth0")
                for address in pc[family]:
                    sh(f"ip -n {LAN} addr add {address}/{length} dev far0 {'nodad' * (family == 6)}")
                assert pings(name, vm[family], pc[family][1])
                assert pings(LAN, pc[family][0], vm[family])
                assert not pings(LAN, pc[family][1], vm[family])

    async def life(engine: Any) -> None:
        await engine.up(Source("small.vnet.yaml", ACCESS), silent)
        (nic,) = engine.fabric("small").declared.inventory.nics
        await asyncio.to_thread(tried, format_mac(nic.mac))

    living(directory, life)


def test_the_namespace_is_not_removed_while_an_interface_of_the_host_is_in_it(directory: Path) -> None:
    async def life(engine: Any) -> None:
        await engine.up(Source("small.vnet.yaml", TEXT), silent)
        with pytest.raises(HostError, match=r"still in the network namespace.*=campus.*ip -n"):
            await engine.fabric("small").parts.network.remove()
        sh(f"ip -n {HOST} link add trunk0 type veth peer name other")
        with pytest.raises(HostError, match="another of that name by now"):
            await engine.down("small", silent)
        assert "=campus" in links(NETNS)
        sh(f"ip -n {HOST} link del trunk0")

    living(directory, life)
    assert os.path.exists(f"/var/run/netns/{NETNS}") is False
