"""The rules of gateways and their hosts: which packets pass, and whose addresses they get.

A port published on the host is handed over by a number of the gateway's own (`Door.inner`), and by another
one (`Door.turned`) when a VM of this gateway asks for it: to that VM's peer it comes from the gateway, since
what is let in from the host is not for everybody who gets its packets back from there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_address, ip_network

from vnet.base.protocols import PORT_PROTOCOLS
from vnet.services.gateway import AS_HOST, FABRIC, GROUP, HOST, Dead, Door, Forwarding
from vnet.services.nft import Chain, Table, either
from vnet.topology.transfer import POOL, STRANGER

TABLE = "vnet"
"""The gateway's own."""
FORWARD_TABLE = "vnet-forward"
"""The host's, if vnet had to switch forwarding on."""
_WORD = {4: "ip", 6: "ip6"}


def gateway_table(forwarding: Forwarding, dead: Dead = frozenset()) -> Table:
    """The rules of the gateway's namespace; `dead` targets get nothing while others live."""
    return Table(
        TABLE,
        (
            Chain("sources", "filter hook prerouting priority raw", _sources()),
            Chain("input", "filter hook input priority filter", tuple(_input(forwarding)), "drop"),
            Chain("forward", "filter hook forward priority filter", tuple(_forward(forwarding)), "drop"),
            Chain("inward", "nat hook prerouting priority dstnat", tuple(_inward(forwarding, dead))),
            Chain("outward", "nat hook postrouting priority srcnat", tuple(_outward(forwarding))),
        ),
    )


def _sources() -> tuple[str, ...]:
    """Nobody uses an address to which the way leads by another interface."""
    return (
        "meta nfproto ipv4 fib saddr . iif oif missing drop",
        "ip6 saddr != { ::, fe80::/10 } fib saddr . iif oif missing drop",
    )


def _input(forwarding: Forwarding) -> Iterator[str]:
    yield "ct state established,related accept"
    yield f'iifname "{forwarding.device}" meta l4proto {{ icmp, ipv6-icmp }} accept'


def _forward(forwarding: Forwarding) -> Iterator[str]:
    """What belongs to no connection would leave with the VM's own address."""
    yield "ct state invalid drop"
    yield "ct state established,related accept"
    yield f'iifname "{FABRIC}" oifname "{forwarding.device}" accept'
    yield f'oifname "{FABRIC}" ct status dnat accept'
    if not forwarding.masquerades:
        yield f'iifname "{forwarding.device}" oifname "{FABRIC}" accept'


def _inward(forwarding: Forwarding, dead: Dead) -> Iterator[str]:
    for each in forwarding.floating:
        word = _WORD[ip_address(each.address).version]
        yield f"{word} daddr {each.address} dnat {word} to {each.target}"
    for door in forwarding.doors:
        asked = (
            _handed_over(door, forwarding) if forwarding.host else f"{_at(door)} {_dport(door, door.port)}"
        )
        yield f"{asked} dnat {_WORD[door.version]} to {_in_turn(door, dead)}:{door.target_port}"


def _handed_over(door: Door, forwarding: Forwarding) -> str:
    """That the host hands a packet over; what is open to the host only has to be its own."""
    word, version = _WORD[door.version], door.version
    by = f" {word} saddr {forwarding.host_end(version)}" if door.is_local else ""
    numbers = tuple(number for number in (door.inner, door.turned) if number)
    return f'iifname "{HOST}"{by} {word} daddr {forwarding.own(version)} {_dport(door, *numbers)}'


def _dport(door: Door, *numbers: int) -> str:
    return f"{PORT_PROTOCOLS[door.protocol]} dport {either(tuple(map(str, numbers)))}"


def _at(door: Door) -> str:
    """That a packet is for the address at which a door is open."""
    if ip_address(door.listen).is_unspecified:
        return f"meta nfproto ipv{door.version} fib daddr type local"
    return f"{_WORD[door.version]} daddr {door.listen}"


def _in_turn(door: Door, dead: Dead) -> str:
    """One of the targets that live; of all when none does: perhaps the try alone is not let through."""
    alive = tuple(each for each in door.targets if (each, door.target_port) not in dead) or door.targets
    if len(alive) == 1:
        return f"[{alive[0]}]" if door.version == 6 else alive[0]
    targets = ", ".join(f"{number} : {each}" for number, each in enumerate(alive))
    return f"numgen inc mod {len(alive)} map {{ {targets} }}"


def _outward(forwarding: Forwarding) -> Iterator[str]:
    """The first that fits: who has an address of its own; the host; who turns round here; who leaves."""
    ways = either((f'"{FABRIC}"', f'"{forwarding.device}"'))
    for each in forwarding.floating:
        word = _WORD[ip_address(each.address).version]
        yield f"oifname {ways} {word} saddr {each.target} snat {word} to {each.address}"
    for version in forwarding.versions:
        word, own = _WORD[version], forwarding.own(version)
        if forwarding.host:
            host = forwarding.host_end(version)
            yield f'oifname "{FABRIC}" meta nfproto ipv{version} meta mark {AS_HOST} snat {word} to {host}'
        yield from _turning(forwarding, version)
        if forwarding.masquerades:
            yield f'oifname "{forwarding.device}" meta nfproto ipv{version} snat {word} to {own}'


def _turning(forwarding: Forwarding, version: int) -> Iterator[str]:
    """What comes from VMs and goes back to VMs has to come back here, so it comes from here.

    So does what comes from other gateways of the host.
    """
    word, own = _WORD[version], forwarding.own(version)
    subnets = tuple(each for each in forwarding.subnets if ip_network(each).version == version)
    if forwarding.host:
        yield f'oifname "{FABRIC}" {word} saddr {STRANGER[version]} snat {word} to {own}'
    if subnets:
        yield f'oifname "{FABRIC}" {word} saddr {either(subnets)} snat {word} to {own}'
    for protocol, numbers in _turned(forwarding, version).items():
        asked = f"ct original {word} daddr {own} ct original proto-dst {either(numbers)}"
        yield f'oifname "{FABRIC}" meta l4proto {protocol} {asked} snat {word} to {own}'


def _turned(forwarding: Forwarding, version: int) -> Mapping[str, tuple[str, ...]]:
    """The numbers of doors that VMs asked for, by protocol."""
    found: dict[str, tuple[str, ...]] = {}
    for door in forwarding.doors:
        if door.turned and door.version == version:
            protocol = PORT_PROTOCOLS[door.protocol]
            found[protocol] = (*found.get(protocol, ()), str(door.turned))
    return found


def host_table(name: str, device: str, forwarding: Forwarding) -> Table:
    """The rules of the host for one gateway; `device` leads to it."""
    return Table(
        name,
        (
            Chain("guard", "filter hook prerouting priority raw", tuple(_guard(device, forwarding))),
            Chain("inward", "nat hook prerouting priority dstnat", tuple(_host_inward(device, forwarding))),
            Chain("own", "nat hook output priority -100", tuple(_host_own(forwarding))),
            Chain(
                "outward",
                "nat hook postrouting priority srcnat - 1",
                tuple(_host_outward(device, forwarding)),
            ),
        ),
    )


def _guard(device: str, forwarding: Forwarding) -> Iterator[str]:
    """The host's loopback is not for gateways, nobody hands anything over but the host, and nobody is it."""
    yield f'iifname "{device}" ip daddr 127.0.0.0/8 drop'
    for version in forwarding.versions:
        yield f'iifname != "{device}" {_WORD[version]} daddr {forwarding.own(version)} drop'
        yield f'iifname != "lo" {_WORD[version]} saddr {forwarding.host_end(version)} drop'


def _host_inward(device: str, forwarding: Forwarding) -> Iterator[str]:
    for door in forwarding.doors:
        if not door.is_local:
            yield f'iifname "{device}" {_hand_over(door, forwarding, door.turned)}'
            yield _hand_over(door, forwarding, door.inner)


def _host_own(forwarding: Forwarding) -> Iterator[str]:
    """What the host itself asks for."""
    return (_hand_over(door, forwarding, door.inner) for door in forwarding.doors)


def _hand_over(door: Door, forwarding: Forwarding, number: int) -> str:
    word, own = _WORD[door.version], forwarding.own(door.version)
    to = f"[{own}]" if door.version == 6 else own
    return f"{_at(door)} {_dport(door, door.port)} dnat {word} to {to}:{number}"


def _host_outward(device: str, forwarding: Forwarding) -> Iterator[str]:
    """Before other people's translations: whom they give the address of the device is not the host.

    Nor is who comes from another gateway, which leaves it to this one what becomes of that.
    """
    for version in forwarding.versions:
        word, own, host = _WORD[version], forwarding.own(version), forwarding.host_end(version)
        for protocol, numbers in _turned(forwarding, version).items():
            which = f"{word} daddr {own} {protocol} dport {either(numbers)}"
            yield f'oifname "{device}" {which} snat {word} to {host}'
        yield f'oifname "{device}" meta nfproto ipv{version} fib saddr type local snat {word} to {host}'
        other = f"iifgroup {GROUP} {word} saddr {POOL[version]}"
        yield f'{other} oifname "{device}" snat {word} to {STRANGER[version]}'
        yield f'oifname "{device}" snat {word} to {word} saddr'
        if forwarding.masquerades:
            yield f"oifgroup != {GROUP} {word} saddr {own} masquerade"


def forward_table() -> Table:
    """Of a host that did not forward before: now it does, but only what gateways send and get."""
    rules = (f"iifgroup {GROUP} accept", f"oifgroup {GROUP} accept", "meta nfproto ipv4 drop")
    return Table(FORWARD_TABLE, (Chain("forward", "filter hook forward priority filter", rules),))
