"""A NIC of a domain of libvirt: which network it is on, its MAC, how fast it is.

Source: https://libvirt.org/formatdomain.html#network-interfaces
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from vnet.base.errors import Fault
from vnet.topology.foreign.sheet import NOTHING_LIKE_IT, Network, Plain, Sheet, Vm
from vnet.topology.foreign.xml import Element, fault
from vnet.topology.values import MAC_PATTERN


def read(nic: Element, index: int, vm: Vm, sheet: Sheet, faults: list[Fault]) -> None:
    """The `index`-th NIC of a domain; faults go to `faults`."""
    called, kind = f"{vm.name}: eth{index}", nic.attributes.get("type", "")
    if kind == "hostdev":
        sheet.leave_out(called, nic.at, "a device of the host that is handed through; there is none here")
        return
    network = _network_of(nic, kind, vm, sheet)
    keys: Plain = {"network": network.name}
    mac = nic.attribute("mac", "address").lower()
    if mac:
        keys["mac"] = mac
        _check_mac(nic, mac, faults)
    keys["dhcp"] = True
    rate = _rate(nic)
    if rate:
        keys["rate"] = rate
    vm.interfaces[f"eth{index}"] = keys
    _rest_of_interface(nic, called, sheet)


def _check_mac(nic: Element, mac: str, faults: list[Fault]) -> None:
    if not re.fullmatch(MAC_PATTERN, mac):
        faults.append(fault(nic.first("mac") or nic, f"expected a MAC, found {mac!r}"))


def _network_of(nic: Element, kind: str, vm: Vm, sheet: Sheet) -> Network:
    """By libvirt's name, or that of the bridge or device; a tag makes another network of the same bridge."""
    source = nic.first("source")
    given: Mapping[str, Any] = {} if source is None else source.attributes
    name = given.get("network") or given.get("bridge") or given.get("dev") or kind or "network"
    if kind == "user":
        name = "user"
    tags = list(nic.all("vlan/tag"))
    if len(tags) == 1 and tags[0].attributes.get("id", "").isdecimal():
        number = int(tags[0].attributes["id"])
        network = sheet.network(f"{name}/{number}", f"{name}-{number}")
        network.vlan = network.vlan or number
    else:
        network = sheet.network(name)
    if len(tags) > 1:
        sheet.leave_out(
            f"{vm.name}: vlan of {name}", nic.at, "it has several tags; give it a NIC for each network"
        )
    if kind == "user":
        network.way_out = True
    if kind in ("bridge", "direct"):
        why = f"{given.get('bridge') or given.get('dev')} leads out of the host: declare an uplink for it"
        sheet.note(f"network {network.name}", nic.at, why)
    network.has_dhcp = network.has_dhcp or not network.subnets
    return network


def _rate(nic: Element) -> Plain:
    """libvirt counts kilobytes a second, and so as the guest sees it."""
    found: Plain = {}
    for key, way in (("in", "inbound"), ("out", "outbound")):
        average = nic.attribute(f"bandwidth/{way}", "average")
        if average.isdecimal() and int(average):
            found[key] = f"{int(average) * 8}K"
    return found


_OF_INTERFACE = (
    *("mac", "source", "model", "address", "alias", "target", "boot", "vlan", "bandwidth", "driver", "guest"),
    *("script", "backend", "rom", "acpi", "tune", "coalesce"),
)
_WHY_NIC = {
    "filterref": "addresses are guarded anyhow (profile: strict); make policies of the rest",
    "link": "a NIC whose link is down is left out of `interfaces` by hand",
    "mtu": "the MTU is the network's: `mtu:` there",
    "port": "see network isolation: `isolation: isolated`",
    "ip": "the guest has its own configuration",
    "route": "the guest has its own configuration",
}


def _rest_of_interface(nic: Element, called: str, sheet: Sheet) -> None:
    for child in nic.children:
        if child.tag not in _OF_INTERFACE:
            why = _WHY_NIC.get(child.tag, NOTHING_LIKE_IT)
            sheet.leave_out(f"{called} {child.tag}", child.at, why)
