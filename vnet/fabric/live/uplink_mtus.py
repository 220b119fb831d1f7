"""The MTUs of interfaces that uplinks name, wherever they are: on the host, in the fabric, in a gateway."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from vnet.fabric.live import interface, netns
from vnet.fabric.state import CABLE, GATEWAY, ifname
from vnet.switch.live.netns import inside
from vnet.topology.model import Topology, Uplink


def mtus(topology: Topology, fabric_netns: str, host: str | None = None) -> Mapping[str, int]:
    """By the interfaces' names on the host; those that are nowhere are left out.

    Args:
        host: the host's namespace, if it is another than the daemon's.
    """
    found = {}
    for uplink in topology.uplinks.values():
        for space, name in _places(topology, uplink, fabric_netns, host):
            if space is not None and not netns.exists(space):
                continue
            with inside(space):
                mtu_bytes = interface.mtu_bytes(name)
            if mtu_bytes is not None:
                found[uplink.interface] = mtu_bytes
                break
    return found


def _places(
    topology: Topology, uplink: Uplink, fabric_netns: str, host: str | None
) -> Iterator[tuple[str | None, str]]:
    yield fabric_netns, ifname(f"{CABLE}{uplink.name}")
    for router in topology.routers.values():
        if router.uplink == uplink.name:
            yield f"{fabric_netns}.{GATEWAY}{router.name}", uplink.interface
    yield host, uplink.interface
