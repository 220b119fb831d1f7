"""How long packets may be: the MTU of each network, and why one cannot be had.

All that carries a network has one MTU: its ports, its server, its guests. Between networks of different MTUs
the router tells the sender. What interfaces of the host allow is an argument: others look at them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from vnet.topology.model import HOST_UPLINK, Network, Topology, Uplink

ETHERNET_BYTES = 1500
"""Of a network that says nothing else, where no interface of the host is on the way (IEEE 802.3, 3.2.7)."""
MAX_BYTES = 9216
"""What switches carry at most; guests on virtio could do more."""
LEAST_BYTES = {4: 576, 6: 1280}
"""By version of IP. RFC 791, section 3.1: every host takes 576, so DHCP and DNS count on it. RFC 8200,
section 5: no link of IPv6 has less than 1280."""

Interfaces = Mapping[str, int]
"""The MTUs of interfaces of the host by their names, of those that are known."""


def least_bytes(versions: Iterable[int]) -> int:
    """The smallest MTU with which these versions of IP work."""
    return max(LEAST_BYTES[version] for version in versions)


def mtu_bytes(topology: Topology, network: Network, interfaces: Interfaces) -> int:
    """The MTU of a network: what it says, or the smallest of what is on its ways out.

    A network that is carried by an interface has that one's, since all who are beyond are its neighbours; the
    uplink of its router only lowers it.
    """
    if network.mtu_bytes is not None:
        return network.mtu_bytes
    cable, exit_ = _cable(topology, network), _exit(topology, network)
    carried = interfaces.get(cable.interface) if cable else None
    routed = interfaces.get(exit_.interface) if exit_ else None
    own = ETHERNET_BYTES if carried is None else carried
    return min(own if routed is None else min(own, routed), MAX_BYTES)


def largest_bytes(topology: Topology, interfaces: Interfaces) -> int:
    """The largest MTU of all networks: of who gets copies of any packet."""
    found = (mtu_bytes(topology, network, interfaces) for network in topology.networks.values())
    return max(found, default=ETHERNET_BYTES)


def why_not_through(topology: Topology, network: Network, interfaces: Interfaces) -> str:
    """Why a network's packets cannot go by the uplinks on its way, and what to do; empty if they can."""
    least = least_bytes({subnet.version for subnet in network.subnets})
    cable, exit_ = _cable(topology, network), _exit(topology, network)
    for uplink in filter(None, (cable, exit_)):
        allowed = interfaces.get(uplink.interface)
        if allowed is None:
            continue
        lift = f"raise it with `ip link set {uplink.interface} mtu {{}}`"
        its = f"{uplink.interface}, uplink {uplink.name}, has an MTU of {allowed}"
        if allowed < least:
            return f"{its}, and network {network.name} needs {least}: {lift.format(least)}"
        if uplink is cable and network.mtu_bytes is not None and network.mtu_bytes > allowed:
            wanted = f"network {network.name} has {network.mtu_bytes}"
            return f"{its}, and {wanted}: {lift.format(network.mtu_bytes)}, or write `mtu: {allowed}`"
    return ""


def _cable(topology: Topology, network: Network) -> Uplink | None:
    """The uplink that carries the network itself."""
    return next((each for each in topology.uplinks.values() if network.name in each.networks), None)


def _exit(topology: Topology, network: Network) -> Uplink | None:
    """The uplink of its router, unless that is the host."""
    routers = (each for each in topology.routers.values() if network.name in each.networks)
    name = next((each.uplink for each in routers), "")
    return None if name in ("", HOST_UPLINK) else topology.uplinks.get(name)
