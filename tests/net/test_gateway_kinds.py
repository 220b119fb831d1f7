"""Gateways of other kinds: an uplink of their own, no translation, hosts that do not forward; conflicts."""

from __future__ import annotations

import json

import pytest

from tests.net.outside import (
    ALONE,
    AT_HOST,
    AT_WORLD,
    FAR,
    HOST,
    OWN,
    PREFIX,
    WORLD,
    Server,
    Talk,
    ask,
    everything,
    host,
    pings,
    serving,
    sh,
    wan,
)
from tests.net.test_gateway import (
    BY_GATEWAY,
    BY_HOST,
    GATEWAY,
    ONE,
    SHOP,
    TEXT,
    TRANSFER,
    WEB,
    behind,
    do,
    gateway,
)
from vnet.base.errors import HostError
from vnet.fabric.live.gateways import HostGateways
from vnet.fabric.state import gateway_remnant

UPLINK = """\
name: shop
networks: {dmz: {vlan: 10, subnets: [10.10.10.0/24, "fd00:10::/64"]}}
uplinks:
  wan:
    interface: wan0
    addresses: [203.0.113.2/24, "2001:db8:113::2/64"]
    gateway: [203.0.113.1, "2001:db8:113::1"]
routers: {gw: {networks: [dmz], uplink: wan, nat: masquerade}}
vms:
  web:
    networks: [dmz]
    replicas: 2
    ports: ["0.0.0.0:8443:443/tcp", "[2001:db8:113::2]:8443:443/tcp"]
  one: {networks: [dmz], floating: [203.0.113.50, "2001:db8:113::50"]}
"""
PLAIN = TEXT.replace("nat: masquerade", "nat: none")


@pytest.fixture(scope="module")
def shop():
    with host(forwards=False), behind() as made:
        yield made


def test_an_uplink_of_its_own_carries_everything_and_is_given_back(shop) -> None:
    with wan():
        before = sh("ip -br link show wan0; ip addr show wan0; ip route; ip -6 route")
        wanted = gateway(UPLINK)
        assert do(shop.gateways.conflicts(frozenset({wanted}))) == ()
        assert shop.put(wanted) == ""
        for version in (4, 6):
            assert ask(SHOP, FAR[version], 80, WEB[version][0]) == "no answer: [Errno 111] Connection refused"
            with serving(Server(WORLD, "far", 80, FAR[version])):
                assert ask(SHOP, FAR[version], 80, WEB[version][0]) == f"far {OWN[version]}"
                assert ask(SHOP, FAR[version], 80, ONE[version]) == f"far {ALONE[version]}"
            assert pings(SHOP, FAR[version], WEB[version][0])
            assert len({ask(WORLD, OWN[version], 8443) for _ in range(4)}) == 2
            assert ask(WORLD, OWN[version], 8443).endswith(f" {FAR[version]}")
            assert ask(SHOP, OWN[version], 8443, ONE[version]).startswith("web-")
            assert ask(WORLD, ALONE[version], 80) == f"one {FAR[version]}"
        with Talk(WORLD, OWN[4], 8443) as talk:
            sh(f"ip netns exec {GATEWAY} nft flush ruleset")
            assert do(shop.gateways.observed()) == {gateway_remnant("gw")}
            assert do(shop.gateways.mend()) == (wanted,)
            assert talk.goes_on()
        do(shop.gateways.remove("gw"))
        after = sh("ip -br link show wan0; ip addr show wan0; ip route; ip -6 route")
        assert after == before


def test_a_router_that_turns_from_its_uplink_to_the_host_gives_the_interface_back(shop) -> None:
    with wan():
        shop.put(gateway(UPLINK))
        shop.put(gateway())
        assert "192.0.2.9/24" in sh("ip addr show wan0")
        assert ask(SHOP, AT_WORLD[4], 80, WEB[4][0]).startswith("world")
        shop.put(gateway(UPLINK))
        assert sh("ip link show group 30317") == ""
        assert ask(WORLD, OWN[4], 8443).startswith("web-")
        do(shop.gateways.remove("gw"))
        assert "192.0.2.9/24" in sh("ip addr show wan0")


def test_without_translation_both_sides_see_each_other(shop) -> None:
    sh("sysctl -qw net.ipv6.conf.all.forwarding=1")
    shop.put(gateway(PLAIN))
    for version, subnet in ((4, "10.10.10.0/24"), (6, "fd00:10::/64")):
        sh(f"ip -n {WORLD} route add {subnet} via {AT_HOST[version]}")
        assert ask(SHOP, AT_WORLD[version], 80, WEB[version][0]) == f"world {WEB[version][0]}"
        assert ask(WORLD, ONE[version], 80) == f"one {AT_WORLD[version]}"
        assert ask(HOST, ONE[version], 80) == f"one {BY_HOST[version]}"
        assert ask(WORLD, AT_HOST[version], 8443).endswith(AT_WORLD[version])
        assert ask(SHOP, AT_HOST[version], 8443, ONE[version]).endswith(f" {BY_GATEWAY[version]}")
        sh(f"ip -n {WORLD} route del {subnet}")
    do(shop.gateways.remove("gw"))
    sh("sysctl -qw net.ipv6.conf.all.forwarding=0")


def test_a_host_that_does_not_forward_forwards_for_gateways_only(shop) -> None:
    before = everything()
    told = shop.put(gateway())
    assert "sysctl -w net.ipv6.conf.all.forwarding=1" in told
    assert ask(SHOP, AT_WORLD[4], 80, WEB[4][0]) == f"world {AT_HOST[4]}"
    assert ask(WORLD, AT_HOST[4], 8443).startswith("web-")
    with wan():
        sh(f"ip -n {WORLD} addr add 192.0.2.1/32 dev wan0")
        sh(f"ip netns add {SHOP}-x")
        try:
            sh(f"ip -n {SHOP}-x link add eth0 type veth peer name other netns {HOST}")
            sh(f"ip -n {SHOP}-x addr add 192.0.3.2/24 dev eth0")
            sh(f"ip -n {SHOP}-x link set eth0 up")
            sh("ip addr add 192.0.3.1/24 dev other")
            sh("ip link set other up")
            sh(f"ip -n {SHOP}-x route add default via 192.0.3.1")
            sh(f"ip -n {WORLD} route add 192.0.3.0/24 via {AT_HOST[4]}")
            assert pings(f"{SHOP}-x", AT_HOST[4])
            assert not pings(f"{SHOP}-x", AT_WORLD[4])
        finally:
            sh(f"ip netns del {SHOP}-x")
    sh("sysctl -qw net.ipv4.ip_forward=0")
    assert do(shop.gateways.mend()) == (gateway(),)
    assert ask(WORLD, AT_HOST[4], 8443).startswith("web-")
    do(shop.gateways.remove("gw"))
    assert everything() == before


def test_a_setting_that_was_hardened_is_hardened_again(shop) -> None:
    sh("sysctl -qw net.ipv4.conf.all.accept_redirects=0")
    shop.put(gateway())
    do(shop.gateways.remove("gw"))
    assert sh("sysctl -n net.ipv4.conf.all.accept_redirects").strip() == "0"
    sh("sysctl -qw net.ipv4.conf.all.accept_redirects=1")


def test_an_uplink_that_is_gone_is_told(shop) -> None:
    with pytest.raises(HostError, match="no interface wan0, which the uplink names"):
        shop.put(gateway(UPLINK))
    do(shop.gateways.remove("gw"))


# ---- conflicts -------------------------------------------------------------------------------


def conflicts(shop, text: str = TEXT) -> str:
    return "\n".join(do(shop.gateways.conflicts(frozenset({gateway(text)}))))


@pytest.mark.parametrize(
    ("before", "after", "text", "told"),
    [
        (
            "ip route add 10.10.10.128/25 via 198.51.100.7",
            "ip route del 10.10.10.128/25",
            TEXT,
            "the fabric's 10.10.10.0/24 collides with the route to 10.10.10.128/25 by eth0",
        ),
        (
            "ip route add 10.0.0.0/8 via 198.51.100.7",
            "ip route del 10.0.0.0/8",
            PLAIN,
            "collides with the route to 10.0.0.0/8",
        ),
        (
            "ip addr add fd00:10::77/64 dev eth0 nodad",
            "ip addr del fd00:10::77/64 dev eth0",
            TEXT,
            "the fabric's fd00:10::/64 collides with the network of the address fd00:10::77/64 on eth0",
        ),
        (
            f"ip addr add {TRANSFER.gateway[0]}/31 dev eth0",
            f"ip addr del {TRANSFER.gateway[0]}/31 dev eth0",
            TEXT,
            "by which host and gateway talk, collides with",
        ),
        (
            "nft 'table ip foreign { chain f { type filter hook forward priority 0; policy drop; }; }'",
            "nft delete table ip foreign",
            TEXT,
            "the chain ip foreign f forwards only what its rules let pass",
        ),
        (
            "nft 'table ip foreign { chain f { type filter hook forward priority 0; counter reject; }; }'",
            "nft delete table ip foreign",
            TEXT,
            "nft insert rule ip foreign f iifname",
        ),
        (
            "true",
            "true",
            TEXT.replace("127.0.0.1:2222", "198.51.100.9:2222"),
            "the host has no address 198.51.100.9",
        ),
        ("true", "true", UPLINK, "there is no interface wan0 on this host"),
        (
            "ip link add wan0 type veth peer wan1; ip addr add 192.0.2.9/24 dev wan0; ip link set wan0 up;"
            " ip route add default via 192.0.2.1",
            "ip link del wan0",
            UPLINK,
            "wan0 has the host's own way out (0.0.0.0/0 via 192.0.2.1)",
        ),
        (
            "ip link add wan0 type veth peer wan1; ip link add br0 type bridge; ip link set wan0 master br0",
            "ip link del wan0; ip link del br0",
            UPLINK,
            "wan0 is part of a bridge",
        ),
    ],
)
def test_what_stands_in_the_way_is_told_before_anything_is_made(shop, before, after, text, told) -> None:
    assert conflicts(shop, TEXT) == ""
    sh(before)
    try:
        assert told in conflicts(shop, text)
    finally:
        sh(after)


def test_a_wide_route_elsewhere_is_no_conflict_where_addresses_are_translated(shop) -> None:
    sh("ip route add 10.0.0.0/8 via 198.51.100.7")
    assert conflicts(shop) == ""
    sh("ip route del 10.0.0.0/8")


def test_a_forward_chain_that_was_told_about_us_is_none(shop) -> None:
    name = told = conflicts(shop)
    sh("nft 'table ip foreign { chain f { type filter hook forward priority 0; policy drop; }; }'")
    told = conflicts(shop)
    commands = [word for word in told.split("`") if word.startswith("nft insert")]
    assert len(commands) == 2
    for command in commands:
        sh(command)
    assert conflicts(shop) == name
    shop.put(gateway())
    assert ask(SHOP, AT_WORLD[4], 80, WEB[4][0]).startswith("world")
    do(shop.gateways.remove("gw"))
    sh("nft delete table ip foreign")


@pytest.mark.parametrize("address", ["0.0.0.0", "198.51.100.1", "::"])
def test_a_port_that_somebody_has_is_told(shop, address: str) -> None:
    with serving(Server(HOST, "owner", 8443, address)):
        found = conflicts(shop)
    assert "8443/tcp cannot be published: a process of the host has it" in found
    assert "ss -lntp sport = :8443" in found


def test_what_another_fabric_has_is_told(shop) -> None:
    shop.put(gateway())
    other = HostGateways("other", f"{PREFIX}other")
    found = "\n".join(do(other.conflicts(frozenset({gateway()}))))
    do(shop.gateways.remove("gw"))
    assert "port 0.0.0.0:8443/tcp cannot be published: the fabric shop has it" in found
    assert "198.51.100.50 is a floating address of the fabric shop already" in found
    assert "the fabric shop has the same addresses between gateway and host" in found
    assert do(other.conflicts(frozenset({gateway()}))) == ()


def test_interface_of_somebody_else_with_our_name_is_told(shop) -> None:
    shop.put(gateway())
    (link,) = filter(None, json.loads(sh("ip -j link show group 30317")))
    do(shop.gateways.remove("gw"))
    sh(f"ip link add {link['ifname']} type veth peer other")
    try:
        assert f"interface {link['ifname']} is not vnet's" in conflicts(shop)
    finally:
        sh(f"ip link del {link['ifname']}")
