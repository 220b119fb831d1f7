"""The groups of attacks, by the names that `--only` takes."""

from __future__ import annotations

from collections.abc import Mapping

GROUPS: Mapping[str, str] = {
    "mac": "source MACs that are not the NIC's",
    "size": "frames too large or too small",
    "link": "control frames of bridges and links, other EtherTypes, 802.3 and LLC/SNAP",
    "vlan": "tags: hopping, QinQ, priority tags, tags where none is looked for",
    "arp": "cache poisoning, ARP that is no ARP",
    "nd": "neighbour discovery that speaks for others",
    "router": "router advertisements and redirects",
    "routing": "what routers and hosts tell groups",
    "dhcp": "rogue servers, starvation",
    "ipv4": "forged sources, stray destinations, malformed headers",
    "ipv6": "the same, and extension headers",
    "fragment": "tiny, overlapping and endless fragments",
    "route": "source routing",
    "tcp": "segments without a connection, source ports",
    "icmp": "unasked answers, errors about others' connections",
    "tunnel": "packets in packets",
    "offload": "lies to the host about a frame",
    "flood": "storms, and connections without number",
}

CONTROL = "control"
"""Stands for the group of honest packets."""
