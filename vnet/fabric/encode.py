"""Assignments, guests and what waits for confirmation as JSON text and back, for the store."""

from __future__ import annotations

import json
from dataclasses import asdict
from ipaddress import ip_interface
from typing import Any

from vnet.base.boot import MICRO_BOOT, Boot, ImageFile, ImageSource
from vnet.base.cloud_init import CloudInit
from vnet.fabric.state import Guest, GuestNic, Port
from vnet.fabric.store import Pending, Record, Source
from vnet.hv.disk import Disk
from vnet.topology.inventory import Assignment
from vnet.topology.mtu import ETHERNET_BYTES


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
    return json.dumps(_guest_to_plain(guest))


def _guest_to_plain(guest: Guest) -> dict[str, Any]:
    nics = [
        {
            "interface": nic.interface,
            "port": nic.port.number,
            "ifname": nic.port.ifname,
            "mac": nic.mac,
            "addresses": nic.addresses,
            "asked": nic.asked,
            "gateways": nic.gateways,
            "mtu": nic.mtu_bytes,
            "dhcpv6": nic.dhcpv6,
            "resolvers": nic.resolvers,
            "domain": nic.domain,
        }
        for nic in guest.nics
    ]
    head = {"name": guest.name, "image": guest.image, "cpus": guest.cpus, "memory": guest.memory_bytes}
    disks = {"disks": [asdict(disk) for disk in guest.disks]}
    boot = {} if guest.boot.is_micro else {"boot": asdict(guest.boot)}
    was = {"changed_from": _guest_to_plain(guest.changed_from)} if guest.changed_from else {}
    return head | {"nics": nics} | disks | boot | was


def guest_from_json(text: str) -> Guest:
    """The guest that `guest_to_json` wrote."""
    return _guest_from_plain(json.loads(text))


def _guest_from_plain(raw: dict[str, Any]) -> Guest:
    nics = tuple(
        GuestNic(
            nic["interface"],
            Port(nic["port"], nic["ifname"]),
            nic["mac"],
            tuple(nic["addresses"]),
            tuple(nic.get("asked", ())),
            tuple(nic.get("gateways", ())),  # records of earlier versions have none
            nic.get("mtu", ETHERNET_BYTES),
            nic.get("dhcpv6", ""),
            tuple(nic.get("resolvers", ())),
            nic.get("domain", ""),
        )
        for nic in raw["nics"]
    )
    disks = tuple(Disk(**disk) for disk in raw.get("disks", ()))
    was = _guest_from_plain(raw["changed_from"]) if "changed_from" in raw else None
    boot = _boot_from_plain(raw["boot"]) if "boot" in raw else MICRO_BOOT
    head = raw["name"], raw["image"], raw["cpus"], raw["memory"]
    return Guest(*head, nics, disks, boot, changed_from=was)


def _boot_from_plain(raw: dict[str, Any]) -> Boot:
    sources = {key: _source_from_plain(raw[key]) for key in ("image", "kernel", "iso") if raw[key]}
    cloud_init = CloudInit(**{key: _tuples(value) for key, value in raw.get("cloud_init", {}).items()})
    return Boot(**{**raw, **sources, "cloud_init": cloud_init})


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _source_from_plain(raw: dict[str, Any]) -> ImageSource:
    files = {key: ImageFile(**raw[key]) for key in ("file", "kernel", "initrd") if raw[key]}
    return ImageSource(**{**raw, **files})


def pending_to_json(pending: Pending) -> str:
    """What waits for confirmation as JSON; provenance is left out, it follows from the source."""
    before = _record_to_plain(pending.before) if pending.before else None
    return json.dumps(
        {
            "boot_id": pending.boot_id,
            "deadline_s": pending.deadline_s,
            "before": before,
            "ran": sorted(pending.ran),
            "suspended": sorted(pending.suspended),
        }
    )


def pending_from_json(text: str) -> Pending:
    """What `pending_to_json` wrote."""
    raw = json.loads(text)
    before = _record_from_plain(raw["before"]) if raw["before"] else None
    ran, suspended = frozenset(raw["ran"]), frozenset(raw.get("suspended", ()))
    return Pending(raw["boot_id"], raw["deadline_s"], before, ran, suspended)


def _record_to_plain(record: Record) -> dict[str, Any]:
    source = record.source
    assignments = record.assignments.items()
    return {
        "name": record.name,
        "source": [source.file, source.text, dict(source.env), dict(source.included)],
        "generation": record.generation,
        "enforced": record.enforced,
        "boot_id": record.boot_id,
        "assignments": {nic: assignment_to_json(value) for nic, value in assignments},
        "stopped": sorted(record.stopped),
    }


def _record_from_plain(raw: dict[str, Any]) -> Record:
    assignments = raw["assignments"].items()
    return Record(
        raw["name"],
        Source(*raw["source"]),
        raw["generation"],
        raw["enforced"],
        raw["boot_id"],
        {nic: assignment_from_json(value) for nic, value in assignments},
        frozenset(raw["stopped"]),
    )
