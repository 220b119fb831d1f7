"""Gateways alone, on a namespace that plays the host: the test plays the switch, and the VMs behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.net.outside import (
    AT_HOST,
    AT_WORLD,
    HOST,
    PREFIX,
    WORLD,
    Server,
    Talk,
    ask,
    ask_udp,
    host,
    pings,
    serving,
    sh,
)
from vnet.fabric.live.gateways import HostGateways
from vnet.fabric.state import Gateway, gateway_remnant, gateways_of
from vnet.hv.spec import format_mac
from vnet.services.gateway import Answer
from vnet.switch.live.netns import inside
from vnet.topology.inventory import expand
from vnet.topology.load import load_text
from vnet.topology.routing import gateway_mac
from vnet.topology.transfer import Transfer

SHOP = f"{PREFIX}shop"
TRANSFER = Transfer.of("shop", "gw")
BY_HOST = {4: str(TRANSFER.host[0]), 6: str(TRANSFER.host[1])}
BY_GATEWAY = {4: str(TRANSFER.gateway[0]), 6: str(TRANSFER.gateway[1])}
WEB = {4: ("10.10.10.2", "10.10.10.3"), 6: ("fd00:10::2", "fd00:10::3")}
ONE = {4: "10.10.10.4", 6: "fd00:10::4"}
FLOATING = {4: "198.51.100.50", 6: "2001:db8:51::50"}
TEXT = """\
name: shop
networks: {dmz: {vlan: 10, subnets: [10.10.10.0/24, "fd00:10::/64"]}}
routers: {gw: {networks: [dmz], uplink: host, nat: masquerade}}
vms:
  web:
    networks: [dmz]
    replicas: 2
    ports: ["0.0.0.0:8443:443/tcp", "[::]:8443:443/tcp", "127.0.0.1:2222:443/tcp", "0.0.0.0:5353:443/udp"]
  one: {networks: [dmz], floating: [198.51.100.50, "2001:db8:51::50"]}
"""
SOON_S = 0.3
"""How long nothing has to come for what must not come."""
BOTH = pytest.mark.parametrize("version", [4, 6])


def gateway(text: str = TEXT) -> Gateway:
    topology = load_text(text, "shop.vnet.yaml", {})
    (found,) = gateways_of(topology, expand(topology, {}))
    return found


def do(call):
    return asyncio.run(call)


def play_the_switch(mac: int) -> None:
    """Behind the port are all VMs, and the fabric's MAC."""
    sh(f"ip -n {SHOP} link set ~gw address {format_mac(gateway_mac('shop'))}")
    with inside(SHOP):
        Path("/proc/sys/net/ipv6/conf/~gw/disable_ipv6").write_text("0")
    for version in (4, 6):
        via = {4: "169.254.0.9", 6: "fe80::9"}[version]
        sh(f"ip -n {SHOP} neigh replace {via} lladdr {format_mac(mac)} dev ~gw")
        sh(f"ip -n {SHOP} -{version} route replace default via {via} dev ~gw onlink")


@dataclass
class Shop:
    """A gateway that is up, and the servers behind it."""

    gateways: HostGateways
    servers: dict[str, Server]

    def serve(self, name: str, port: int, address: str) -> None:
        self.servers[f"{name} {address}"] = Server(SHOP, name, port, address)

    def put(self, wanted: Gateway) -> str:
        told = do(self.gateways.put(wanted))
        play_the_switch(wanted.mac)
        return told


@contextmanager
def behind() -> Iterator[Shop]:
    """The fabric's namespace, in which the VMs are."""
    sh(f"ip netns add {SHOP}")
    sh(f"ip -n {SHOP} link set lo up")
    for address in (*WEB[4], *WEB[6], *ONE.values()):
        sh(f"ip -n {SHOP} addr add {address}/{'128 nodad' if ':' in address else 32} dev lo")
    made = Shop(HostGateways("shop", SHOP), {})
    try:
        for version in (4, 6):
            made.serve("web-0", 443, WEB[version][0])
            made.serve("web-1", 443, WEB[version][1])
            made.serve("one", 80, ONE[version])
        with serving(*(Server(WORLD, "world", 80, AT_WORLD[version]) for version in (4, 6))):
            yield made
    finally:
        for server in made.servers.values():
            server.close()
        do(made.gateways.remove("gw"))
        sh(f"ip netns del {SHOP}")


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    with host(), behind() as made:
        assert do(made.gateways.conflicts(frozenset({gateway()}))) == ()
        assert made.put(gateway()) == ""
        yield made


@BOTH
def test_vms_reach_the_world_and_are_seen_with_the_hosts_address(shop: Shop, version: int) -> None:
    for how in (ask, ask_udp):
        assert how(SHOP, AT_WORLD[version], 80, WEB[version][0]) == f"world {AT_HOST[version]}"
    assert pings(SHOP, AT_WORLD[version], WEB[version][0])


@BOTH
def test_the_world_reaches_a_published_port_and_is_seen_as_itself(shop: Shop, version: int) -> None:
    seen = {ask(WORLD, AT_HOST[version], 8443) for _ in range(4)}
    assert seen == {f"web-{number} {AT_WORLD[version]}" for number in (0, 1)}


def test_udp_is_published_too(shop: Shop) -> None:
    assert ask_udp(WORLD, AT_HOST[4], 5353) in {f"web-{number} {AT_WORLD[4]}" for number in (0, 1)}


def test_what_is_published_at_127_0_0_1_is_the_hosts_alone(shop: Shop) -> None:
    assert ask(HOST, "127.0.0.1", 2222) in {f"web-{number} {BY_HOST[4]}" for number in (0, 1)}
    assert "refused" in ask(WORLD, AT_HOST[4], 2222)


@BOTH
def test_the_host_is_seen_as_the_host_by_all_its_addresses(shop: Shop, version: int) -> None:
    for address in (AT_HOST[version], *(["127.0.0.1"] if version == 4 else [])):
        assert ask(HOST, address, 8443).endswith(f" {BY_HOST[version]}")
    assert ask(HOST, FLOATING[version], 80) == f"one {BY_HOST[version]}"


@BOTH
def test_a_vm_that_asks_for_a_published_port_gets_through_and_is_not_taken_for_the_host(
    shop: Shop, version: int
) -> None:
    for asking in (WEB[version][0], ONE[version]):
        assert ask(SHOP, AT_HOST[version], 8443, asking).endswith(f" {BY_GATEWAY[version]}")


@BOTH
def test_a_floating_address_is_its_vms_both_ways(shop: Shop, version: int) -> None:
    assert ask(WORLD, FLOATING[version], 80) == f"one {AT_WORLD[version]}"
    assert ask(SHOP, AT_WORLD[version], 80, ONE[version]) == f"world {FLOATING[version]}"
    assert ask(SHOP, FLOATING[version], 80, WEB[version][0]) == f"one {BY_GATEWAY[version]}"
    assert pings(WORLD, FLOATING[version])


def test_nothing_else_comes_in(shop: Shop) -> None:
    """Not by routes that a neighbour of the host may make, not to the gateway, not to the host's loopback."""
    sh(f"ip -n {WORLD} route add 10.10.10.0/24 via {AT_HOST[4]}")
    sh(f"ip -n {WORLD} route add {BY_GATEWAY[4]} via {AT_HOST[4]}")
    inner = gateway().forwarding.doors[0].inner
    try:
        assert "no answer" in ask(WORLD, WEB[4][0], 443, timeout_s=SOON_S)
        assert "no answer" in ask(SHOP, BY_GATEWAY[4], 80, WEB[4][0], timeout_s=SOON_S)
        with serving(Server(HOST, "secret", 9000, "127.0.0.1")):
            assert "no answer" in ask(SHOP, "127.0.0.1", 9000, WEB[4][0], timeout_s=SOON_S)
        assert "no answer" in ask(WORLD, BY_GATEWAY[4], inner, timeout_s=SOON_S)
    finally:
        sh(f"ip -n {WORLD} route del 10.10.10.0/24")
        sh(f"ip -n {WORLD} route del {BY_GATEWAY[4]}")


def test_a_target_that_dies_gets_nothing_and_comes_back(shop: Shop) -> None:
    assert do(shop.gateways.check()) == ()
    with Talk(WORLD, AT_HOST[4], 8443) as talk:
        number = 1 - int(talk.greeting[4])  # the other one dies
        dies = WEB[4][number]
        shop.servers[f"web-{number} {dies}"].close()
        assert do(shop.gateways.check()) == (Answer("gw", dies, 443, False),)
        assert {ask(WORLD, AT_HOST[4], 8443) for _ in range(4)} == {f"web-{1 - number} {AT_WORLD[4]}"}
        assert do(shop.gateways.observed()) == {gateway()}
        shop.serve(f"web-{number}", 443, dies)
        assert do(shop.gateways.check()) == (Answer("gw", dies, 443, True),)
        assert len({ask(WORLD, AT_HOST[4], 8443) for _ in range(4)}) == 2
        assert talk.goes_on()


def test_all_targets_stay_when_none_answers(shop: Shop) -> None:
    for name in [name for name in shop.servers if name.startswith("web") and "." in name]:
        shop.servers[name].close()
    assert len(do(shop.gateways.check())) == 2
    assert "refused" in ask(WORLD, AT_HOST[4], 8443)
    for number in (0, 1):
        shop.serve(f"web-{number}", 443, WEB[4][number])
    assert ask(WORLD, AT_HOST[4], 8443).startswith("web-"), "before they have been tried again"
    assert len(do(shop.gateways.check())) == 2


def test_connections_go_on_when_other_ports_change(shop: Shop) -> None:
    with Talk(WORLD, AT_HOST[4], 8443) as inward, Talk(SHOP, AT_WORLD[4], 80, WEB[4][0]) as outward:
        other = gateway(TEXT.replace("0.0.0.0:5353:443/udp", "0.0.0.0:8080:443/tcp"))
        shop.put(other)
        assert do(shop.gateways.observed()) == {other}
        assert ask(WORLD, AT_HOST[4], 8080).startswith("web-")
        assert inward.goes_on() and outward.goes_on()
        shop.put(gateway(TEXT.replace('"0.0.0.0:8443:443/tcp", ', "")))
        assert "refused" in ask(WORLD, AT_HOST[4], 8443)
        assert inward.goes_on() and outward.goes_on()
        shop.put(gateway())


GATEWAY = f"{SHOP}.~gw"
DAMAGE = {
    "the host's table is deleted": f"ip netns exec {HOST} nft delete table inet {SHOP}.gw",
    "all of the host's rules are flushed": f"ip netns exec {HOST} nft flush ruleset",
    "a rule is added": f"ip netns exec {GATEWAY} nft add rule inet vnet forward accept",
    "the gateway's rules are flushed": f"ip netns exec {GATEWAY} nft flush ruleset",
    "the host's interface is deleted": f"ip -n {HOST} link del group 30317",
    "the host's interface is down": f"ip -n {HOST} link set group 30317 down",
    "the port is deleted": f"ip -n {SHOP} link del ~gw",
    "the gateway's routes are flushed": f"ip -n {GATEWAY} route flush table main",
    "a neighbour is deleted": f"ip -n {GATEWAY} neigh flush dev fabric0 nud permanent",
    "the way to a floating address is deleted": f"ip -n {HOST} route del {FLOATING[4]}",
    "nobody answers for a floating address": f"ip -n {HOST} neigh del proxy {FLOATING[6]} dev eth0",
    "the gateway does not forward": f"ip netns exec {GATEWAY} sysctl -qw net.ipv6.conf.all.forwarding=0",
    "the gateway is deleted": f"ip netns del {GATEWAY}",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_was_damaged_is_made_again(shop: Shop, damage: str) -> None:
    assert do(shop.gateways.mend()) == ()
    sh(DAMAGE[damage])
    assert do(shop.gateways.observed()) == {gateway_remnant("gw")}
    assert do(shop.gateways.mend()) == (gateway(),)
    play_the_switch(gateway().mac)
    assert do(shop.gateways.observed()) == {gateway()}
    for version in (4, 6):
        assert ask(WORLD, AT_HOST[version], 8443).startswith("web-")
        assert ask(SHOP, AT_WORLD[version], 80, WEB[version][0]).startswith("world")
        assert ask(WORLD, FLOATING[version], 80).startswith("one")


def test_mending_one_thing_leaves_connections_alone(shop: Shop) -> None:
    with Talk(WORLD, AT_HOST[4], 8443) as inward, Talk(SHOP, AT_WORLD[6], 80, WEB[6][0]) as outward:
        for damage in ("all of the host's rules are flushed", "the gateway's rules are flushed"):
            sh(DAMAGE[damage])
            do(shop.gateways.mend())
            assert inward.goes_on() and outward.goes_on()
