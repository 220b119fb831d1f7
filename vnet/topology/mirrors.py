"""How the source and the target of a mirror are read: `db:eth0`, `pcap:db.pcapng`, `vxlan:IP/VNI`."""

from __future__ import annotations

import re
from ipaddress import ip_address

from vnet.topology.model import (
    MirrorNetwork,
    MirrorNic,
    MirrorSource,
    MirrorUplink,
    ToErspan,
    ToFile,
    ToVxlan,
)
from vnet.topology.reading import quoted
from vnet.topology.shape import Refused
from vnet.topology.yaml import Scalar

SOURCE_EXPECTED = '"VM:INTERFACE", "network:NAME" or "uplink:NAME"'
TARGET_EXPECTED = '"VM:INTERFACE", "pcap:FILE", "vxlan:IP/VNI" or "erspan:IP/ID"'
FILE_EXPECTED = "a plain file name of letters, digits, dot, dash and underscore, without a folder"
VXLAN_PORT = 4789
"""RFC 7348, section 4.1."""
VNI_MAX, ERSPAN_ID_MAX = (1 << 24) - 1, 1023
"""Bits of the VXLAN network identifier, and of the ERSPAN session ID (draft-foschiano-erspan)."""

_NIC = re.compile(r"([a-z0-9][a-z0-9-]*):([a-z][a-z0-9]*)")
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_TUNNEL = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+))(?::(\d+))?/(\d+)")


def source(scalar: Scalar) -> MirrorSource:
    """Whose packets are copied."""
    kind, _, name = scalar.text.partition(":")
    if kind == "network" and name:
        return MirrorNetwork(name)
    return MirrorUplink(name) if kind == "uplink" and name else _nic(scalar)


def target(scalar: Scalar) -> MirrorNic | ToFile | ToVxlan | ToErspan:
    """Where the copies go."""
    kind, colon, rest = scalar.text.partition(":")
    if kind == "pcap" and colon:
        if not _FILE.fullmatch(rest):
            raise Refused(f"expected {FILE_EXPECTED}, found {quoted(rest)}", offset=len("pcap:"))
        return ToFile(rest)
    if kind in ("vxlan", "erspan") and colon:
        return _tunnel(kind, rest)
    return _nic(scalar)


def _nic(scalar: Scalar) -> MirrorNic:
    found = _NIC.fullmatch(scalar.text)
    if found is None:
        raise Refused
    return MirrorNic(found[1], found[2])


def _tunnel(kind: str, text: str) -> ToVxlan | ToErspan:
    offset = len(kind) + 1
    found = _TUNNEL.fullmatch(text)
    if found is None or (kind == "erspan" and found[3]):
        shape = "IP[:PORT]/VNI" if kind == "vxlan" else "IP/ID"
        hint = "an IPv6 address stands in brackets: [fd00::1]"
        raise Refused(f"expected {kind}:{shape}, found {quoted(text)}", hint, offset)
    try:
        address = ip_address(found[1] or found[2])
    except ValueError:
        raise Refused(f"{quoted(found[1] or found[2])} is no IP address", offset=offset) from None
    port, number = int(found[3] or VXLAN_PORT), int(found[4])
    most = VNI_MAX if kind == "vxlan" else ERSPAN_ID_MAX
    if number > most or not 0 < port < 1 << 16:
        raise Refused(f"the number of {kind} is 0 to {most}, a port 1 to 65535", offset=offset)
    return ToVxlan(address, port, number) if kind == "vxlan" else ToErspan(address, number)
