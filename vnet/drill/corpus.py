"""All attacks by group. Imports Scapy, so it is imported by those only who need frames."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping

from vnet.drill import (
    arp,
    dhcp,
    flood,
    fragment,
    icmp,
    ipv4,
    ipv6,
    link,
    mac,
    nd,
    offload,
    ra,
    route,
    routing,
    tcp,
    tunnel,
    vlan,
)
from vnet.drill.attack import Exercise
from vnet.drill.groups import GROUPS
from vnet.drill.scene import Scene

ATTACKS: Mapping[str, Callable[[Scene], Iterator[Exercise]]] = {
    "mac": mac.attacks,
    "size": mac.sizes,
    "link": link.attacks,
    "vlan": vlan.attacks,
    "arp": arp.attacks,
    "nd": nd.attacks,
    "router": ra.attacks,
    "routing": routing.attacks,
    "dhcp": dhcp.attacks,
    "ipv4": ipv4.attacks,
    "ipv6": ipv6.attacks,
    "fragment": fragment.attacks,
    "route": route.attacks,
    "tcp": tcp.attacks,
    "icmp": icmp.attacks,
    "tunnel": tunnel.attacks,
    "offload": offload.attacks,
    "flood": flood.attacks,
}
assert tuple(ATTACKS) == tuple(GROUPS)


def corpus(scene: Scene, only: Collection[str] = ()) -> Iterator[Exercise]:
    """The attacks of the scene's NIC, of all groups or of some; the same scene gives the same frames."""
    for group, attacks in ATTACKS.items():
        if not only or group in only:
            yield from attacks(scene)
