"""What of a host's configuration stands in the way of a gateway: found before anything is changed.

Works in the network namespace of the calling thread: the host's.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from ipaddress import ip_address, ip_interface, ip_network
from itertools import product
from typing import Any

from vnet.base.protocols import TCP
from vnet.fabric.live import gateway_links, nft
from vnet.fabric.live.gateway_links import Names
from vnet.fabric.live.gateway_side import read
from vnet.fabric.state import Gateway
from vnet.services.gateway import GROUP, Address, Door, Forwarding, Side
from vnet.services.gateway_rules import FORWARD_TABLE
from vnet.switch.live.netlink import netlink_to
from vnet.topology.model import IPNetwork

_POOL = {4: 16, 6: 48}
"""Of the prefixes that have all addresses between hosts and gateways (`topology.transfer`): a network as wide
leaves room for them."""
_WORD = {4: "ip", 6: "ip6"}
_FROM = {"meta": {"key": "iifname"}}
_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}


@dataclass(frozen=True, slots=True)
class Other:
    """What a gateway of another fabric of this host does."""

    fabric: str
    forwarding: Forwarding


def of(gateway: Gateway, names: Names, others: tuple[Other, ...]) -> Iterator[str]:
    """All of them in words, each with what to do."""
    if nft.find_program() is None:
        yield "there is no nft; install it with `apt install nftables`"
        return
    forwarding = gateway.forwarding
    if forwarding.host:
        here = _here(names.host)
        yield from _of_interface(names.host)
        yield from _of_addresses(forwarding, here)
        yield from _of_ports(forwarding, here)
        for other in others:
            yield from _of_other(forwarding, other)
        yield from _of_forwarding(names.host, forwarding.versions)
    elif not gateway_links.has(names, forwarding.device):
        yield from _of_uplink(forwarding.device)


def proxies(forwarding: Forwarding, device: str) -> tuple[Address, ...]:
    """The floating addresses that the host has to answer for, in networks where others ask it.

    Where such an address is routed to the host nobody asks.
    """
    near = [(each.device, ip_interface(each.address)) for each in _here(device).addresses]
    found = {
        Address(name, floating.address)
        for floating in forwarding.floating
        for name, own in near
        if ip_address(floating.address) in own.network
    }
    return tuple(sorted(found))


def _here(but: str) -> Side:
    """What the host has by all its interfaces but one, and those that lead to gateways."""
    with netlink_to("read the host's routes") as netlink:
        links = netlink.get_links()
        names = [each.get_attr("IFLA_IFNAME") for each in links if each.get_attr("IFLA_GROUP") != GROUP]
        return read(netlink, [name for name in names if name not in (but, "lo")])


# ---- the interface, addresses and routes -----------------------------------------------------


def _of_interface(name: str) -> Iterator[str]:
    if gateway_links.exists(name) and gateway_links.group(name) != GROUP:
        yield f"the host's interface {name} is not vnet's; rename it, or give the router another name"


def _of_addresses(forwarding: Forwarding, here: Side) -> Iterator[str]:
    """A route of everything is no conflict, and one that leads to a gateway of ours is another fabric's."""
    taken = dict(_networks(here))
    for text in forwarding.host:
        own = ip_interface(text).network
        for network, what in _within(own, taken):
            if network.prefixlen > _POOL[own.version]:
                yield (f"{own}, by which host and gateway talk, collides with {what}; rename the router")
    for text in forwarding.subnets:
        subnet = ip_network(text)
        for network, what in _within(subnet, taken):
            if not forwarding.masquerades or "the route" not in what or network.subnet_of(subnet):  # type: ignore[arg-type]
                yield (
                    f"the fabric's {subnet} collides with {what} of the host: what is for the one would go to"
                    " the other; choose other addresses for the network"
                )


def _networks(here: Side) -> Iterator[tuple[IPNetwork, str]]:
    for route in here.routes:
        prefix = ip_network(route.prefix)
        if prefix.prefixlen:
            yield prefix, f"the route to {prefix} by {route.device}"
    for each in here.addresses:
        own = ip_interface(each.address)
        yield own.network, f"the network of the address {own} on {each.device}"


def _within(one: IPNetwork, taken: dict[IPNetwork, str]) -> Iterator[tuple[IPNetwork, str]]:
    for network, what in taken.items():
        if network.version == one.version and network.overlaps(one):
            yield network, what


# ---- published ports -------------------------------------------------------------------------


def _of_ports(forwarding: Forwarding, here: Side) -> Iterator[str]:
    own = {str(ip_interface(each.address).ip) for each in here.addresses}
    for door in forwarding.doors:
        at = ip_address(door.listen)
        if not at.is_unspecified and not at.is_loopback and door.listen not in own:
            yield f"port {door} cannot be published: the host has no address {door.listen}"
        elif _is_taken(door):
            kind = "t" if door.protocol == TCP else "u"
            yield (
                f"port {door} cannot be published: a process of the host has it (`ss -ln{kind}p sport ="
                f" :{door.port}` tells which); end it, or publish another port"
            )
    for each in forwarding.floating:
        if each.address in own:
            yield f"the host has the floating address {each.address} itself; take it away, or choose another"


def _is_taken(door: Door) -> bool:
    """Whether a process of the host has the port: then it cannot be had."""
    kind = socket.SOCK_STREAM if door.protocol == TCP else socket.SOCK_DGRAM
    with socket.socket(_FAMILY[door.version], kind) as trial:
        if door.version == 6:
            trial.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_STREAM:  # connections that have ended are no process
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((door.listen, door.port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False


# ---- other fabrics ---------------------------------------------------------------------------


def _of_other(forwarding: Forwarding, other: Other) -> Iterator[str]:
    theirs, fabric = other.forwarding, f"the fabric {other.fabric}"
    if set(forwarding.host) & set(theirs.host):
        yield f"{fabric} has the same addresses between gateway and host; rename one of the routers"
    if not forwarding.masquerades and not theirs.masquerades:
        for one, another in product(map(ip_network, forwarding.subnets), map(ip_network, theirs.subnets)):
            if one.version == another.version and one.overlaps(another):
                yield f"{one} collides with {another} of {fabric}, and neither is translated (`nat: none`)"
    for door, their in product(forwarding.doors, theirs.doors):
        if theirs.host and _collide(door, their):
            yield f"port {door} cannot be published: {fabric} has it"
    for address in {each.address for each in forwarding.floating} & {
        each.address for each in theirs.floating
    }:
        yield f"{address} is a floating address of {fabric} already"


def _collide(one: Door, other: Door) -> bool:
    same = (one.port, one.protocol, one.version) == (other.port, other.protocol, other.version)
    everywhere = any(ip_address(each.listen).is_unspecified for each in (one, other))
    return same and (everywhere or one.listen == other.listen)


# ---- other people's rules --------------------------------------------------------------------


def _of_forwarding(device: str, versions: tuple[int, ...]) -> Iterator[str]:
    """Chains that forward nothing by themselves: no rule of ours can overrule them."""
    families = {"inet", *(_WORD[version] for version in versions)}
    found = nft.ruleset()
    rules = [each["rule"] for each in found if "rule" in each]
    for chain in (each["chain"] for each in found if "chain" in each):
        if chain.get("hook") != "forward" or chain["family"] not in families:
            continue
        table = [rule for rule in rules if _where(rule) == _where(chain)]
        own = [rule for rule in table if rule["chain"] == chain["name"]]
        is_ours = chain["table"] == FORWARD_TABLE
        if not is_ours and _refuses(chain, own) and not _names_device(table, device):
            yield _closed(f"{chain['family']} {chain['table']} {chain['name']}", device)


def _closed(chain: str, device: str) -> str:
    return (
        f"the chain {chain} forwards only what its rules let pass, and none lets {device} pass; add"
        f" `nft insert rule {chain} iifname '\"{device}\"' accept` and"
        f" `nft insert rule {chain} oifname '\"{device}\"' accept`"
        f" (with Docker: `iptables -I DOCKER-USER -i {device} -j ACCEPT`, and with `-o`;"
        f" with firewalld: `firewall-cmd --zone=trusted --add-interface={device}`)"
    )


def _where(of: dict[str, Any]) -> tuple[str, str]:
    return of["family"], of["table"]


def _refuses(chain: dict[str, Any], rules: list[dict[str, Any]]) -> bool:
    """Whether it drops what no rule of it names: by its policy, or by its last rule."""
    last = [set(each) - {"counter"} for each in rules[-1]["expr"]] if rules else []
    return chain.get("policy") == "drop" or [each for each in last if each] in ([{"drop"}], [{"reject"}])


def _names_device(rules: list[dict[str, Any]], device: str) -> bool:
    """Whether some rule says what becomes of packets from an interface: whoever wrote it knows of it."""
    return any(_lets(rule["expr"], device) for rule in rules)


def _lets(expressions: list[dict[str, Any]], device: str) -> bool:
    matches = [each["match"] for each in expressions if "match" in each]
    fits = any(
        match["left"] == _FROM and match["op"] == "==" and _is_one(match["right"], device)
        for match in matches
    )
    return fits and any(verdict in each for each in expressions for verdict in ("accept", "jump", "goto"))


def _is_one(right: Any, device: str) -> bool:
    names = right["set"] if isinstance(right, dict) and "set" in right else [right]
    return any(isinstance(name, str) and fnmatchcase(device, name) for name in names)


# ---- an interface that is to be a gateway's --------------------------------------------------


def _of_uplink(device: str) -> Iterator[str]:
    if not gateway_links.exists(device):
        yield f"there is no interface {device} on this host; `ip link` shows those there are"
        return
    with netlink_to(f"read the interface {device}") as netlink:
        (link,) = netlink.get_links(netlink.link_lookup(ifname=device)[0])
        side = read(netlink, (device,))
    if link.get_attr("IFLA_MASTER"):
        yield f"{device} is part of a bridge or a bond; take it out with `ip link set {device} nomaster`"
    everything = [route for route in side.routes if not ip_network(route.prefix).prefixlen]
    if everything:
        yield (
            f"{device} has the host's own way out ({everything[0].prefix} via {everything[0].via}), and would"
            ' be the fabric\'s alone; use another interface, or "uplink: host"'
        )
