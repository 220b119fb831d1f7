"""Assignments and guests as JSON text and back, for the store."""

from __future__ import annotations

import json
from ipaddress import ip_interface

from vnet.fabric.state import Guest, GuestNic, Port
from vnet.topology.inventory import Assignment


def assignment_to_json(assignment: Assignment) -> str:
    """An assignment as JSON."""
    addresses = [str(address) for address in assignment.addresses]
    return json.dumps({"port": assignment.port, "mac": assignment.mac, "addresses": addresses})


def assignment_from_json(text: str) -> Assignment:
    """The assignment that `assignment_to_json` wrote."""
    raw = json.loads(text)
    return Assignment(raw["port"], raw["mac"], tuple(ip_interface(text) for text in raw["addresses"]))


def guest_to_json(guest: Guest) -> str:
    """A guest as JSON."""
    nics = [
        {
            "interface": nic.interface,
            "port": nic.port.number,
            "ifname": nic.port.ifname,
            "mac": nic.mac,
            "addresses": nic.addresses,
        }
        for nic in guest.nics
    ]
    head = {"name": guest.name, "image": guest.image, "cpus": guest.cpus, "memory": guest.memory_bytes}
    return json.dumps(head | {"nics": nics})


def guest_from_json(text: str) -> Guest:
    """The guest that `guest_to_json` wrote."""
    raw = json.loads(text)
    nics = tuple(
        GuestNic(nic["interface"], Port(nic["port"], nic["ifname"]), nic["mac"], tuple(nic["addresses"]))
        for nic in raw["nics"]
    )
    return Guest(raw["name"], raw["image"], raw["cpus"], raw["memory"], nics)
