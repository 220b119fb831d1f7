"""Checks of endpoints: one place each, which nobody else has, and a name that no VM has."""

from __future__ import annotations

from vnet.topology import language as lang
from vnet.topology import language_networks as lang_networks
from vnet.topology import language_vms as lang_vms
from vnet.topology.draft import PLACES, Draft, places
from vnet.topology.reading import Reading, quoted
from vnet.topology.shape import Entry, Read


def check(draft: Draft, reading: Reading) -> None:
    """Reports every fault of them to `reading`."""
    vms = draft.root.get(lang.VMS)
    for name, endpoint in draft.endpoints.items():
        if vms is not None and name in vms.value:
            reading.fault(
                endpoint.at, endpoint.path, f"a VM is called {quoted(name)} too", "rename one of them"
            )
        _check_place(endpoint, reading)
        _check_options(endpoint.value, reading)
    _check_dependencies(draft, reading)
    _check_taken_twice(draft, reading)


def _check_place(endpoint: Read[Entry], reading: Reading) -> None:
    found = places(endpoint.value)
    if len(found) > 1:
        _, second = found[1]
        reading.fault(second.at, second.path, "an endpoint is in one place", "make another one of this")
    elif not any(endpoint.value.given(field) for field in PLACES):
        hint = "tap: one that vnet makes, interface: one of the host, netns: a network namespace"
        reading.fault(endpoint.at, endpoint.path, 'an endpoint needs "tap", "interface" or "netns"', hint)


def _check_options(endpoint: Entry, reading: Reading) -> None:
    for field, of in (
        (lang_vms.ENDPOINT_OWNER, lang_vms.ENDPOINT_TAP),
        (lang_vms.ENDPOINT_DEVICE, lang_vms.ENDPOINT_NETNS),
    ):
        found = endpoint.get(field)
        if found is not None and not endpoint.given(of):
            problem = f'"{field.name}" is for an endpoint with "{of.name}"'
            reading.fault(found.at, found.path, problem, "remove it")


def _check_dependencies(draft: Draft, reading: Reading) -> None:
    for vm in draft.vms.values():
        waits = vm.value.get(lang_vms.VM_DEPENDS_ON)
        for name, entry in {} if waits is None else waits.value.items():
            if name in draft.endpoints:
                problem = f"{quoted(name)} is an endpoint: nothing is known of when it starts"
                reading.fault(entry.at, entry.path, problem, "remove it")


def _check_taken_twice(draft: Draft, reading: Reading) -> None:
    owners: dict[tuple[str, ...], str] = {}
    for name, uplink in draft.uplinks.items():
        interface = uplink.value.get(lang_networks.UPLINK_INTERFACE)
        if interface is not None:
            owners["host", interface.value] = f"uplink {quoted(name)}"
    for name, endpoint in draft.endpoints.items():
        device = endpoint.value.get(lang_vms.ENDPOINT_DEVICE)
        for field, read in places(endpoint.value)[:1]:
            inside = device.value if device else lang_vms.ENDPOINT_DEVICE.default or ""
            place = ("host", read.value) if field is not lang_vms.ENDPOINT_NETNS else (read.value, inside, "")
            own = f"endpoint {quoted(name)}"
            owner = owners.setdefault(place, own)
            if owner != own:
                reading.fault(read.at, read.path, f"{owner} has {quoted(read.value)} already")
