"""A network of libvirt: its subnets, who is told which address, and whether it leads outside.

Source: https://libvirt.org/formatnetwork.html
"""

from __future__ import annotations

from ipaddress import ip_interface

from vnet.base.errors import Fault
from vnet.topology.foreign.sheet import Plain, Sheet
from vnet.topology.foreign.xml import Element, fault


def read(root: Element, sheet: Sheet, faults: list[Fault]) -> None:
    """What `virsh net-dumpxml` prints; faults go to `faults`."""
    name = root.text_of("name")
    if not name:
        faults.append(fault(root, "a network needs <name>"))
        return
    network = sheet.network(name)
    mode = root.attribute("forward", "mode", "nat" if root.first("forward") is not None else "")
    network.way_out = mode in ("nat", "route", "open")
    tag = root.first("vlan/tag")
    if tag is not None:
        network.vlan = _number(tag, "id", faults)
    domain = root.attribute("domain", "name")
    if domain:
        network.extra["dns"] = domain
    for address in root.all("ip"):
        subnet = _subnet(address, sheet, faults)
        if subnet is not None:
            network.subnets.append(subnet)
    network.has_dhcp = any("dhcp" in each for each in network.subnets)
    if mode in ("bridge", "passthrough", "private", "vepa", "hostdev"):
        where = root.attribute("bridge", "name") or root.attribute("forward/interface", "dev")
        why = f"its way out is {where or mode}: declare it as an uplink of the network"
        sheet.leave_out(f"network {name}: forward", root.at, why)


def _subnet(address: Element, sheet: Sheet, faults: list[Fault]) -> Plain | None:
    given = address.attributes
    length = given.get("prefix") or given.get("netmask") or ("64" if given.get("family") == "ipv6" else "")
    try:
        found = ip_interface(f"{given['address']}/{length}" if length else given["address"])
    except (KeyError, ValueError):
        faults.append(fault(address, "expected an address with its netmask or prefix"))
        return None
    subnet: Plain = {"cidr": str(found.network), "gateway": str(found.ip)}
    dhcp = address.first("dhcp")
    if dhcp is not None:
        subnet["dhcp"] = _dhcp(dhcp) or True
    for kind in address.all("tftp"):
        sheet.leave_out("network tftp", kind.at, "nothing boots from the network")
    return subnet


def _dhcp(dhcp: Element) -> Plain:
    told: Plain = {}
    for each in dhcp.all("range"):
        start, end = each.attributes.get("start"), each.attributes.get("end")
        if start and end:
            told.setdefault("range", f"{start}-{end}")
    reserved = {
        each.attributes["mac"].lower(): each.attributes["ip"]
        for each in dhcp.all("host")
        if "mac" in each.attributes and "ip" in each.attributes
    }
    if reserved:
        told["reservations"] = reserved
    return told


def _number(element: Element, name: str, faults: list[Fault]) -> int | None:
    text = element.attributes.get(name, "")
    if text.isdecimal():
        return int(text)
    faults.append(fault(element, f"expected a number in {name}=, found {text!r}"))
    return None
