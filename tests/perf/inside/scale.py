"""The rows about many VMs and rules: from the file to what is enforced, one change, and the proof.

A fabric of 10,000 VMs spans hosts; no switch has so many ports. So what is compiled and proved is the whole
fabric, and what is enforced is the part of one host: all rules, and the first `LOCAL` VMs.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.perf.inside.harness import PINS, sh
from tests.perf.inside.labs import ovs_bridge
from tests.perf.inside.rows import Bench
from vnet.openflow import ofctl
from vnet.openflow.flow import Flow, Output
from vnet.policy.compile import Compiler, compile
from vnet.policy.difference import Difference, normal, without_answers
from vnet.policy.live.controller import Controller
from vnet.policy.verify import verify
from vnet.switch.live.datapath import EbpfDatapath
from vnet.switch.live.server import SwitchServer
from vnet.topology.expiry import in_force
from vnet.topology.inventory import Inventory, expand
from vnet.topology.load import load_text
from vnet.topology.model import Policy, Service, Topology

VMS, RULES = 10_000, 100_000
LOCAL = 1_000
NETWORKS, GROUPS, RULES_A_POLICY = 40, 1_000, 100
CLAIMS = 10
CHANGES = 300
NOW = datetime(2026, 1, 1, tzinfo=UTC)
LOADED = "1,000 VMs, 100,000 rules, s"
OWN_PINS = PINS.parent / f"{PINS.name}-scale"
World = tuple[Topology, Inventory]


def text(vms: int) -> str:
    """A topology file: VMs spread over networks and groups, each group with a policy of a hundred rules.

    Generated: ports and peers of rules are counted up in strides, so that most rules differ.
    """
    lines = ["name: scale", "networks:"]
    lines += [f"  n{n}: {{vlan: {n + 1}, subnets: 10.{n}.0.0/16}}" for n in range(NETWORKS)]
    lines += ["vms:"]
    lines += [f"  v{n}: {{networks: [n{n % NETWORKS}], groups: [g{n % GROUPS}]}}" for n in range(vms)]
    lines += ["policies:"]
    for policy in range(RULES // RULES_A_POLICY):
        lines.append(f"  - name: p{policy}\n    applied_to: g{policy % GROUPS}\n    ingress:")
        for rule in range(RULES_A_POLICY):
            peer, port = (policy * 7 + rule * 13) % GROUPS, 1000 + (policy * 31 + rule * 17) % 5000
            action = "" if rule % 10 else ", action: deny"
            lines.append(f"      - {{from: g{peer}, ports: [{port}/tcp]{action}}}")
    lines.append("verify:")
    # on no network together with the first of the pair, so all of them hold
    lines += [f"  - never g{n} -> g{(n + 501) % GROUPS}" for n in range(CLAIMS)]
    return "\n".join(lines) + "\n"


def read(source: str) -> World:
    topology = in_force(load_text(source, "scale.vnet.yaml", {}), NOW)
    return topology, expand(topology, {})


@cache
def whole() -> World:
    """The whole fabric."""
    return read(text(VMS))


@contextmanager
def without_collector() -> Iterator[None]:
    """What a fabric is made of is not garbage."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def timed(action: Callable[[], object]) -> float:
    """Seconds."""
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


# -- row 9: from the file to what is enforced and verified ----------------------------------------


def load(bench: Bench) -> None:
    """The file of one host's VMs and all rules, against the same flows from a file into Open vSwitch."""
    source = text(LOCAL)
    flows = compile(*read(source)).flows
    bench.say(row=9, case=LOADED, peer="ovs-ofctl", value=_into_open_vswitch(flows))

    async def enforced_and_verified() -> float:
        async with switch() as controller:
            begun = time.perf_counter()
            topology, inventory = read(source)
            compiled = compile(topology, inventory)
            await controller.apply(compiled.flows)
            results = verify(topology, inventory, await controller.read_flows(), compiled.provenance)
            taken = time.perf_counter() - begun
            assert all(result.holds for result in results), "the claims hold"
            return taken

    bench.say(row=9, case=LOADED, peer="vnet", value=asyncio.run(enforced_and_verified()))
    bench.say(row=9, case="flows", peer="vnet", value=len(flows))


def _into_open_vswitch(flows: Iterable[Flow]) -> float:
    with ovs_bridge(_namespace()) as folder, TemporaryDirectory() as scratch:
        file = Path(scratch) / "flows"
        file.write_text("".join(ofctl.text(flow) + "\n" for flow in without_answers(flows)))
        add = f"ovs-ofctl -O OpenFlow13 --bundle add-flows unix:{folder}/br0.mgmt {file}"
        return timed(lambda: sh(add))


def _namespace() -> str:
    return f"vnt-perf{os.getpid()}"


@asynccontextmanager
async def switch() -> AsyncIterator[Controller]:
    """An eBPF switch without ports, its agent, and the controller's connection to it."""
    with TemporaryDirectory() as scratch:
        datapath = EbpfDatapath.open("scale", None, OWN_PINS)
        server = SwitchServer(datapath, "scale", 1)
        controller = Controller(Path(scratch) / "switch")
        try:
            await server.start(controller.socket_path)
            await controller.connect(10)
            yield controller
        finally:
            await controller.close()
            await server.stop()
            datapath.destroy()


# -- row 10: one change ----------------------------------------------------------------------------


def change(bench: Bench) -> None:
    """A rule changed, a rule more, a VM in another group, in turn: till it is enforced."""
    asyncio.run(_change(bench))


async def _change(bench: Bench) -> None:
    world = whole()
    compiler = Compiler(*world)
    is_here = _local(world[1])
    draw = random.Random(10)
    compiling, enforcing = [], []
    async with switch() as controller:
        await controller.apply(tuple(filter(is_here, compiler.compiled.flows)))
        with without_collector():
            for number in range(CHANGES):
                world = EDITS[number % len(EDITS)](world, draw)
                begun = time.perf_counter()
                edit = compiler.update(*world)
                compiled = time.perf_counter()
                await controller.change(_of(edit, is_here))
                enforcing.append(1000 * (time.perf_counter() - begun))
                compiling.append(1000 * (compiled - begun))
    for case, values in (("compiled, ms", sorted(compiling)), ("enforced, ms", sorted(enforcing))):
        for name, share in (("p50", 0.5), ("p99", 0.99)):
            value = values[int(share * (len(values) - 1))]
            bench.say(row=10, case=f"{name} {case}", peer="vnet", value=value, low=values[0], high=values[-1])


def _of(edit: Difference, is_here: Callable[[Flow], bool]) -> Difference:
    """The part of a host."""
    parts = (tuple(filter(is_here, flows)) for flows in (edit.added, edit.changed, edit.removed))
    return Difference(*parts, edit.rewritten)


def _local(inventory: Inventory) -> Callable[[Flow], bool]:
    """Whether a flow is of a host that has the first VMs only."""
    remote = [nic for vm in inventory.vms[LOCAL:] for nic in vm.nics]
    ports = {nic.port for nic in remote}
    own: dict[str, set[int]] = {"in_port": ports, "eth_dst": {nic.mac for nic in remote}}
    addresses = {int(address.ip) for nic in remote for address in nic.addresses}
    own |= dict.fromkeys(("arp_tpa", "ipv4_src"), addresses)

    def is_here(flow: Flow) -> bool:
        outputs = (action for action in flow.instructions.apply if isinstance(action, Output))
        return not any(value in own.get(name, ()) for name, value, _ in flow.match) and not any(
            action.port in ports for action in outputs
        )

    return is_here


def _other_rule(world: World, draw: random.Random) -> World:
    return _with_rule(world, draw, in_place_of=1)


def _one_more_rule(world: World, draw: random.Random) -> World:
    return _with_rule(world, draw, in_place_of=0)


def _with_rule(world: World, draw: random.Random, in_place_of: int) -> World:
    """One policy with a new rule at some place, in place of so many that were there."""
    topology, inventory = world
    number = draw.randrange(len(topology.policies))
    policy = topology.policies[number]
    rules = policy.ingress or ()
    place, port = draw.randrange(len(rules)), draw.randrange(1, 60_000)
    new = replace(rules[place], services=(Service(6, (port, port), f"{port}/tcp"),))
    ordered = (*rules[:place], new, *rules[place + in_place_of :])
    numbered = tuple(
        rule if rule.number == n else replace(rule, number=n) for n, rule in enumerate(ordered, 1)
    )
    return _with_policy(topology, number, replace(policy, ingress=numbered)), inventory


def _with_policy(topology: Topology, number: int, policy: Policy) -> Topology:
    policies = topology.policies
    return replace(topology, policies=(*policies[:number], policy, *policies[number + 1 :]))


def _other_group(world: World, draw: random.Random) -> World:
    topology, inventory = world
    number = draw.randrange(LOCAL)
    vm = replace(inventory.vms[number], groups=frozenset({f"g{draw.randrange(GROUPS)}"}))
    vms = (*inventory.vms[:number], vm, *inventory.vms[number + 1 :])
    return topology, replace(inventory, vms=vms)


EDITS = (_other_rule, _one_more_rule, _other_group)


# -- rows 12 and 13: the proof, and what the maps hold --------------------------------------------


def prove(bench: Bench) -> None:
    """Ten claims over all packets, on the flows of the whole fabric."""
    world = whole()
    compiled = compile(*world)
    with without_collector():
        taken = min(timed(lambda: verify(*world, compiled.flows, compiled.provenance)) for _ in range(3))
    bench.say(row=12, case="10,000 VMs, 100,000 rules, s", peer="vnet", value=taken)


def read_back(bench: Bench) -> None:
    """The flows that a second process finds in the maps, against those that were compiled and verified."""
    topology, inventory = read(text(LOCAL))
    wanted = {normal(flow) for flow in compile(topology, inventory).flows}

    async def found() -> set[Flow]:
        async with switch() as controller:
            await controller.apply(tuple(wanted))
            other = EbpfDatapath.open("scale", None, OWN_PINS)
            try:
                return {normal(flow) for flow in other.flows()}
            finally:
                other.close()

    different = len(asyncio.run(found()) ^ wanted)
    bench.say(row=13, case=f"of {len(wanted):,} flows", peer="vnet", value=different)


ROWS: dict[int, Callable[[Bench], None]] = {9: load, 10: change, 12: prove, 13: read_back}
