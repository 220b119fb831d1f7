"""Endpoints: TAPs, interfaces and namespaces of others as ports, whatever of them comes and goes."""

from __future__ import annotations

import asyncio
import importlib
import os
import select
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.bpf.bench import sh
from tests.net import fabric_lab
from tests.net.fabric_lab import NETNS, PREFIX
from tests.net.test_cables import ip, links
from tests.unit.fabric.fakes import World
from vnet.base import paths
from vnet.base.errors import HostError, InputError
from vnet.fabric.cable import Presence, Was
from vnet.fabric.declared import declare
from vnet.fabric.live import cables, tending
from vnet.fabric.live.cables import HostCables
from vnet.fabric.live.endpoints import HostEndpoints
from vnet.fabric.live.engine import Terms
from vnet.fabric.live.service import Service
from vnet.fabric.progress import silent
from vnet.fabric.state import Cable, Endpoint, Port, endpoint_remnant
from vnet.fabric.store import Source
from vnet.switch.live import ports
from vnet.switch.live.netns import inside

HOST, BOX, PLC = f"{PREFIX}host", f"{PREFIX}box", f"{PREFIX}plc"
MAC = {"vmm": "52:54:00:00:00:01", "plc": "52:54:00:00:00:03"}
NETWORK = "name: small\nnetworks: {lan: {vlan: 10, subnets: [10.0.0.0/24, fd00:10::/64], mtu: 1500}}\n"
TEXT = f"""{NETWORK}endpoints:
  vmm: {{tap: tap-vmm, network: lan, mac: "{MAC["vmm"]}", addresses: [10.0.0.11/24, "fd00:10::11/64"]}}
  box: {{netns: {BOX}, device: lan0, network: lan, addresses: [10.0.0.12/24, "fd00:10::12/64"], groups: [g]}}
  plc:
    interface: port0
    network: lan
    mac: "{MAC["plc"]}"
    addresses: [10.0.0.13/24]
    labels: {{kind: plc}}
groups: {{plcs: {{labels: {{kind: plc}}}}}}
"""
OPEN = "policies: [{name: p, applied_to: any, ingress: [{from: any, ports: [icmp]}]}]\n"
TO_PLC = "policies: [{name: p, applied_to: plcs, ingress: [{from: vm:box, ports: [icmp]}]}]\n"


@pytest.fixture
def directory() -> Iterator[Path]:
    """Files for a daemon; a namespace that plays the host, one to be attached, one behind an interface."""
    with fabric_lab.host() as made:
        for name in (HOST, BOX, PLC):
            sh(f"ip netns add {name}")
        plug_in()
        try:
            yield made
        finally:
            for name in (HOST, BOX, PLC):
                subprocess.run(["ip", "netns", "del", name], check=False)


def plug_in() -> None:
    """What the interface of the host leads to."""
    sh(f"ip -n {HOST} link add port0 type veth peer name eth0 netns {PLC}")
    sh(f"ip -n {HOST} link set port0 up")
    sh(f"ip -n {PLC} link set eth0 address {MAC['plc']} up")
    sh(f"ip -n {PLC} addr add 10.0.0.13/24 dev eth0")


def living(directory: Path, life: Callable[[Any], Awaitable[None]]) -> None:
    async def whole() -> None:
        engine = fabric_lab.make_engine(directory, World(), host_netns=HOST)
        try:
            await life(engine)
        finally:
            await engine.down("small", silent)
            await engine.close()

    asyncio.run(whole())


async def up(engine: Any, text: str) -> list[str]:
    return [
        str(each)
        for each in (await engine.up(Source("small.vnet.yaml", text), silent, Terms(agreed=True))).actions
    ]


async def pings(netns: str, address: str) -> bool:
    command = ["ip", "netns", "exec", netns, "ping", "-c1", "-W1", "-n", address]
    return (await asyncio.to_thread(subprocess.run, command, capture_output=True)).returncode == 0


class Vmm:
    """A program on the host that has the TAP open, as a VMM has."""

    def __init__(self) -> None:
        with inside(HOST):
            self._fd = ports.open_tap("tap-vmm")

    def close(self) -> None:
        os.close(self._fd)

    def asks(self, mac: str = MAC["vmm"], address: str = "10.0.0.11") -> bool:
        """Whether box answers its question for 10.0.0.12."""
        own, source = bytes.fromhex(mac.replace(":", "")), bytes(map(int, address.split(".")))
        question = (
            bytes.fromhex("00010800060400 01".replace(" ", ""))
            + own
            + source
            + bytes(6)
            + bytes((10, 0, 0, 12))
        )
        os.write(self._fd, bytes(10) + b"\xff" * 6 + own + b"\x08\x06" + question + bytes(18))
        while select.select([self._fd], [], [], 1.0)[0]:
            frame = os.read(self._fd, 2000)[10:]
            if (
                frame[12:14] == b"\x08\x06"
                and frame[20:22] == b"\0\x02"
                and frame[28:32] == bytes((10, 0, 0, 12))
            ):
                return True
        return False


async def presence(engine: Any) -> dict[str, str]:
    return {row["vm"]: row["state"] for row in await Service(engine).vms("small")}


def test_each_kind_of_endpoint_is_a_nic_under_the_policies(directory: Path) -> None:
    async def life(engine: Any) -> None:
        actions = await up(engine, TEXT)
        assert "attach endpoint vmm: tap tap-vmm" in actions
        assert f"attach endpoint box: netns {BOX} as lan0" in actions
        assert await presence(engine) == {"vmm": "waiting", "box": "connected", "plc": "connected"}
        assert not await pings(BOX, "10.0.0.13"), "ingress is closed"
        await up(engine, TEXT + OPEN)
        assert await pings(BOX, "10.0.0.13") and await pings(PLC, "10.0.0.12")
        await up(engine, TEXT + TO_PLC)
        assert await pings(BOX, "10.0.0.13") and not await pings(PLC, "10.0.0.12")
        assert await up(engine, TEXT + TO_PLC) == []
        await up(engine, TEXT + OPEN)
        vmm = await asyncio.to_thread(Vmm)
        try:
            assert (await presence(engine))["vmm"] == "connected"
            assert await asyncio.to_thread(vmm.asks)
            assert not await asyncio.to_thread(vmm.asks, "52:54:00:00:00:99"), "a forged MAC"
            assert not await asyncio.to_thread(vmm.asks, MAC["vmm"], "10.0.0.66"), "a forged address"
        finally:
            vmm.close()
        drops = await engine.fabric("small").parts.switch.drops_by_nic()
        assert drops["vmm.eth0"] >= 2

    living(directory, life)


def test_a_namespace_gets_mac_addresses_and_mtu_and_keeps_its_port_when_they_change(directory: Path) -> None:
    async def life(engine: Any) -> None:
        await up(engine, TEXT + OPEN)
        (lan0,) = ip(BOX, "addr show dev lan0")
        assert {each["local"] for each in lan0["addr_info"]} >= {"10.0.0.12", "fd00:10::12"}
        assert (lan0["mtu"], lan0["operstate"]) == (1500, "UP")
        index = links(NETNS)["box.eth0"]["ifindex"]
        actions = await up(
            engine, TEXT.replace("10.0.0.12/24", "10.0.0.22/24").replace("1500", "1400") + OPEN
        )
        assert f"attach endpoint box: netns {BOX} as lan0" in actions
        assert not [each for each in actions if each.startswith(("detach", "remove"))]
        assert links(NETNS)["box.eth0"]["ifindex"] == index
        (lan0,) = ip(BOX, "addr show dev lan0")
        assert "10.0.0.22" in {each["local"] for each in lan0["addr_info"]} and lan0["mtu"] == 1400
        assert await pings(PLC, "10.0.0.22")

    living(directory, life)


def test_what_goes_away_and_comes_back_is_joined_again(directory: Path) -> None:
    async def life(engine: Any) -> None:
        await up(engine, TEXT + OPEN)
        assert await pings(BOX, "10.0.0.13")
        sh(f"ip -n {HOST} link del port0")
        sh(f"ip netns del {BOX}")
        assert await presence(engine) == {"vmm": "waiting", "box": "absent", "plc": "absent"}
        for _ in range(100):  # the kernel takes a namespace apart later
            if "box.eth0" in links(NETNS):
                await asyncio.sleep(0.05)
        await tending.turn(engine, engine.fabric("small"))
        assert await up(engine, TEXT + OPEN) == [], "nothing can be done about it"
        plug_in()
        sh(f"ip netns add {BOX}")
        sh(f"ip -n {HOST} link del tap-vmm")
        await tending.turn(engine, engine.fabric("small"))
        assert await presence(engine) == {"vmm": "waiting", "box": "connected", "plc": "connected"}
        assert await pings(BOX, "10.0.0.13") and await pings(PLC, "10.0.0.12")
        assert await up(engine, TEXT + OPEN) == []

    living(directory, life)


def test_nothing_is_left_on_the_host_and_an_interface_of_its_own_is_as_it_was(directory: Path) -> None:
    async def life(engine: Any) -> None:
        before = links(HOST)
        await up(engine, TEXT)
        assert "tap-vmm" in links(HOST) and "PROMISC" in links(HOST)["port0"]["flags"]
        await up(engine, NETWORK)
        after = links(HOST)
        assert after.keys() == before.keys() and after["port0"]["flags"] == before["port0"]["flags"]
        assert "lan0" not in links(BOX)
        assert not [name for name in links(NETNS) if name.endswith(".eth0")]

    living(directory, life)


def test_a_vm_becomes_an_endpoint_and_a_vm_again(directory: Path) -> None:
    vm = NETWORK + "vms: {vmm: {interfaces: {eth0: {network: lan, addresses: [10.0.0.11/24]}}}}\n"

    async def life(engine: Any) -> None:
        await up(engine, vm)
        assert "attach endpoint vmm: tap tap-vmm" in await up(engine, TEXT)
        assert await presence(engine) == {"vmm": "waiting", "box": "connected", "plc": "connected"}
        actions = await up(engine, vm)
        assert "start vmm" in actions and "tap-vmm" not in links(HOST)
        assert links(NETNS)["vmm.eth0"]["linkinfo"]["info_kind"] == "tun"

    living(directory, life)


@pytest.mark.parametrize(
    ("endpoint", "words"),
    [
        ("{tap: port0, network: lan}", "write `interface: port0` instead of `tap:`"),
        ("{tap: tap9, owner: nobody-knows-him, network: lan}", "has no user nobody-knows-him"),
        ("{interface: busy, network: lan}", "the host has the addresses 192.0.2.1/24 on busy"),
        ("{interface: br9, network: lan}", "is of the kind bridge"),
        (f"{{netns: {PLC}, device: eth0, network: lan}}", "has an interface eth0 already"),
    ],
    ids=["a link of its own", "no such user", "an interface with addresses", "a bridge", "a taken name"],
)
def test_what_somebody_else_needs_is_refused_by_the_plan_and_nothing_changed(
    directory: Path, endpoint: str, words: str
) -> None:
    sh(f"ip -n {HOST} link add busy type veth peer name busy2")
    sh(f"ip -n {HOST} addr add 192.0.2.1/24 dev busy")
    sh(f"ip -n {HOST} link add br9 type bridge")

    async def life(engine: Any) -> None:
        before = links(HOST).keys()
        await up(engine, NETWORK)
        text = f"{NETWORK}endpoints: {{x: {endpoint}}}\n"
        for change in (engine.plan(Source("small.vnet.yaml", text)), up(engine, text)):
            with pytest.raises(InputError, match=words) as refused:
                await change
            assert refused.value.faults[0].where.line == 3
        assert links(HOST).keys() == before
        assert await engine.fabric("small").parts.endpoints.names() == ()

    living(directory, life)


def test_a_plan_says_what_is_waited_for(directory: Path) -> None:
    gone = "{a: {netns: vnet-nobody, network: lan}, b: {interface: port9, network: lan}}"

    async def life(engine: Any) -> None:
        planned = await engine.plan(Source("small.vnet.yaml", f"{NETWORK}endpoints: {gone}\n"))
        assert [(each.vm, each.text.partition(" yet")[0]) for each in planned.advice] == [
            ("a", "there is no namespace vnet-nobody on this host"),
            ("b", "there is no interface port9 on this host"),
        ]
        assert (await engine.plan(Source("small.vnet.yaml", TEXT))).advice == ()

    living(directory, life)


def test_what_the_fabric_itself_has_is_in_nobodys_way(directory: Path) -> None:
    async def life(engine: Any) -> None:
        await up(engine, TEXT)
        renamed = TEXT.replace("  vmm:", "  vmx:").replace("  box:", "  boy:").replace("  plc:", "  plx:")
        assert (await engine.plan(Source("small.vnet.yaml", renamed))).actions
        await up(engine, renamed)
        assert await presence(engine) == {"vmx": "waiting", "boy": "connected", "plx": "connected"}

    living(directory, life)


def test_another_fabric_cannot_have_the_same_tap(directory: Path) -> None:
    async def life(engine: Any) -> None:
        await up(engine, TEXT)
        (vmm,) = [each for each in engine.fabric("small").declared.state().endpoints if each.name == "vmm"]
        other = HostEndpoints("other", NETNS, HOST)
        with pytest.raises(HostError, match="the fabric small has the interface tap-vmm already"):
            await other.put(vmm)

    living(directory, life)


def test_an_interface_that_another_fabric_has_as_an_uplink_is_refused_and_not_waited_for(
    directory: Path,
) -> None:
    note = cables.Note(Cable("wire", "port0", Port(1, "=wire")), Was())

    async def life(engine: Any) -> None:
        HostCables("other", NETNS, HOST)._keep(note)
        try:
            with pytest.raises(InputError, match="the fabric other has the interface port0 already"):
                await engine.plan(Source("small.vnet.yaml", TEXT))
        finally:
            shutil.rmtree(paths.fabric_run_dir("other"))
        await up(engine, NETWORK)

    living(directory, life)


STEPS = (
    ("vnet.fabric.live.endpoints.HostEndpoints._keep",),
    ("vnet.fabric.live.endpoint_links.Veth.make",),
    ("vnet.fabric.live.endpoint_links.make_tap", "vnet.fabric.live.endpoint_links.Veth.lead_into"),
    ("vnet.fabric.live.endpoint_links.join", "vnet.fabric.live.endpoint_links.configure"),
)


class _Killed(BaseException):
    pass


def _killing(real: Callable[..., Any], *, after: bool) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        if after:
            real(*args, **kwargs)
        raise _Killed

    return call


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step[0].rpartition(".")[2])
def test_a_daemon_that_dies_at_any_step_leaves_what_the_next_one_understands(
    directory: Path, monkeypatch: pytest.MonkeyPatch, step: tuple[str, ...]
) -> None:
    async def dies(wanted: Endpoint, *, after: bool) -> int:
        with monkeypatch.context() as patched:
            for path in step:
                patched.setattr(path, _killing(_found(path), after=after))
            try:
                await HostEndpoints("small", NETNS, HOST).put(wanted)
            except _Killed:
                return 1
        return 0

    async def life(engine: Any) -> None:
        await up(engine, NETWORK)
        before, deaths = links(HOST).keys(), 0
        for wanted, after in product(declared(engine), (False, True)):
            deaths += await dies(wanted, after=after)
            endpoints = HostEndpoints("small", NETNS, HOST)
            assert await endpoints.observed() <= {wanted, endpoint_remnant(wanted.name)}
            await endpoints.put(wanted)
            assert await endpoints.observed() == {wanted}
            await endpoints.remove(wanted.name)
            assert (await endpoints.names(), links(HOST).keys()) == ((), before)
        assert deaths >= 4

    living(directory, life)


def declared(engine: Any) -> list[Endpoint]:
    source = Source("small.vnet.yaml", TEXT)
    found = declare(source, {}, engine.host.now()).state().endpoints
    return sorted(found, key=lambda endpoint: endpoint.name)


def _found(path: str) -> Callable[..., Any]:
    owner, _, attribute = path.rpartition(".")
    module, _, name = owner.rpartition(".")
    holder = (
        getattr(importlib.import_module(module), name)
        if name[0].isupper()
        else importlib.import_module(owner)
    )
    return getattr(holder, attribute)  # type: ignore[no-any-return]


def test_presence_words_are_those_of_the_manual() -> None:
    assert {each.value for each in Presence} == {"connected", "waiting", "absent"}
