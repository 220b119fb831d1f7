"""A ban looks at everything that a VM is handed, not only at what is for its addresses."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given, settings

from tests.generators import World, three_tier, worlds
from vnet.openflow.fields import CtState
from vnet.openflow.flow import Flow, Instructions, Move, Output, OutputField, Port, SetField, match
from vnet.policy.compile import compile
from vnet.policy.endpoint import endpoints
from vnet.policy.pipeline import OUT_PORT, Stage
from vnet.policy.strays import strays
from vnet.policy.verify import ClaimResult, verify

TOPOLOGY, INVENTORY = three_tier().build()
FLOWS = compile(TOPOLOGY, INVENTORY).flows
PORTS = {nic.name: nic.port for nic in INVENTORY.nics}
WEB, DB, INTRUDER = PORTS["web-1.eth0"], PORTS["db.eth0"], PORTS["intruder.eth1"]
INVALID = CtState.TRK | CtState.INV


def check(claim: str, *more: Flow) -> ClaimResult:
    builder = three_tier()
    builder.claims.clear()
    topology, inventory = builder.verify(claim).build()
    (result,) = verify(topology, inventory, (*FLOWS, *more))
    return result


def added(port: int, *apply: object, table: int = 0, goto: int | None = None, **wanted: int) -> Flow:
    return Flow(table, 999, match(in_port=port, **wanted), Instructions(apply, goto=goto))


ELSEWHERE = added(WEB, Output(DB), eth_type=0x0800, ipv4_dst=0x09090909)
OTHER_TYPE = added(WEB, Output(DB), eth_type=0x88B5)


@pytest.mark.parametrize(
    ("flow", "told"),
    [
        (ELSEWHERE, "web-1.eth0 10.10.10.11"),
        (OTHER_TYPE, "EtherType 0x88b5 from web-1.eth0"),
        (added(WEB, Output(Port.FLOOD), eth_type=0x88B5), "EtherType 0x88b5"),
        (added(WEB, SetField(OUT_PORT, DB), goto=Stage.DELIVER, eth_type=0x88B5), "EtherType"),
        (added(WEB, SetField("reg9", DB), OutputField("reg9"), eth_type=0x88B5), "EtherType 0x88b5"),
    ],
)
def test_what_is_handed_over_for_nobody_breaks_a_ban(flow: Flow, told: str) -> None:
    assert told in str(check("never web -> db", flow))
    assert check("deny app -> db:22/tcp", flow).holds, "that is of another sender, and of no service"


def test_only_speaks_of_everybody_and_of_everything() -> None:
    assert check("only app -> db:5432/tcp").holds
    assert not check("only app -> db:5432/tcp", OTHER_TYPE).holds
    own = added(PORTS["app.eth1"], Output(DB), eth_type=0x88B5)
    assert "app.eth1" in str(check("only app -> db:5432/tcp", own))
    assert check("only app -> db:5432/tcp", added(DB, Output(DB), eth_type=0x88B5)).holds, "its own affair"


def test_arp_and_neighbour_discovery_are_beside_bans() -> None:
    arp = added(WEB, Output(DB), eth_type=0x0806)
    nd = added(WEB, Output(DB), eth_type=0x86DD, ip_proto=58, icmpv6_type=135)
    assert check("never web -> db", arp, nd).holds


def test_what_fits_no_connection_breaks_a_ban_if_it_passes() -> None:
    invalid = Flow(
        Stage.CONNECTION, 999, match(ct_state=(INVALID, INVALID)), Instructions(goto=Stage.DELIVER)
    )
    assert not check("deny app -> db:22/tcp", invalid).holds
    assert check("allow app -> db:5432/tcp", invalid).holds


@pytest.mark.parametrize(
    "apply",
    [
        (Output(Port.NORMAL),),
        (Output(7),),
        (SetField(OUT_PORT, 7),),
        (SetField(OUT_PORT, 7, 0xF),),
        (Move("reg9", OUT_PORT, 32),),
        (OutputField("reg9"),),
        (OutputField(OUT_PORT, 0, 16),),
    ],
)
def test_every_way_to_hand_something_over_is_seen(apply: tuple[object, ...]) -> None:
    flow = Flow(0, 1, match(in_port=1), Instructions(apply))
    (found,) = strays([flow], {})
    assert found.reaches(7)


@settings(max_examples=40, deadline=None)
@given(worlds())
def test_compiled_flows_hand_a_nic_only_what_is_for_it(world: World) -> None:
    owned = defaultdict(set)
    for end in endpoints(world.topology, world.inventory):
        owned[end.nic.port].add((f"ipv{end.address.version}_dst", int(end.address)))
    for port in (
        *(each.port for each in world.inventory.exits),
        *(each.port for each in world.inventory.uplinks),
    ):
        owned[port] |= {("eth_type", 0x0800), ("eth_type", 0x86DD)}
    frozen = {port: frozenset(own) for port, own in owned.items()}
    assert strays(compile(world.topology, world.inventory).flows, frozen) == ()
