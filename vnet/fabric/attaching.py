"""A NIC or a disk that a VM of a fabric that is up gets or loses by hand: the text that is in force, edited.

The user's file is not touched, so the next `vnet plan` of it shows what would go again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from difflib import unified_diff
from functools import partial
from itertools import count

from vnet.base.errors import InputError
from vnet.fabric.declared import load
from vnet.fabric.store import Source
from vnet.topology import edit_vms
from vnet.topology.edit import CannotEdit
from vnet.topology.model import Topology, VmSpec

Has = tuple[list[str], list[str]]
"""The networks of a VM's NICs, and the names of its disks."""


def attached(source: Source, vm: str, what: str) -> Source:
    """With a NIC more in the network `what`, or, of `NAME:SIZE` or `NAME:SIZE:LOCATION`, with a disk more.

    Raises: InputError for what there is not, and where the text has no place for it.
    """
    topology = load(source)
    spec = _spec(topology, vm)
    networks, disks = _has(spec)
    name, colon, rest = what.partition(":")
    if colon:
        size, _, location = rest.partition(":")
        edit = partial(edit_vms.with_disk, vm=vm, name=name, size=size, location=location)
        return _edited(source, vm, edit, (networks, [*disks, name]))
    if what not in topology.networks:
        known = ", ".join(topology.networks) or "none"
        raise InputError(
            f"there is no network {what}; networks: {known}; a disk is written NAME:SIZE[:LOCATION]"
        )
    taken = {nic.name for nic in spec.interfaces}
    interface = next(name for name in (f"eth{number}" for number in count()) if name not in taken)
    put = partial(edit_vms.with_network, vm=vm, network=what, interface=interface)
    return _edited(source, vm, put, ([*networks, what], disks))


def detached(source: Source, vm: str, what: str) -> Source:
    """Without the NIC of that name or in that network, or the disk of that name. Raises: InputError."""
    spec = _spec(load(source), vm)
    networks, disks = _has(spec)
    nics = [number for number, nic in enumerate(spec.interfaces) if what in (nic.name, nic.network)]
    if len(nics) + disks.count(what) != 1:
        names = ", ".join([*(f"{nic.name} ({nic.network})" for nic in spec.interfaces), *disks])
        raise InputError(f"{vm} has {'no' if not nics else 'more than one'} {what}: {names}")
    if not nics:
        edit = partial(edit_vms.without_disk, vm=vm, name=what)
        return _edited(source, vm, edit, (networks, [name for name in disks if name != what]))
    (number,) = nics
    interface = spec.interfaces[number].name
    unplug = partial(edit_vms.without_nic, vm=vm, interface=interface, index=number)
    left = [name for index, name in enumerate(networks) if index != number]
    nics_left = [nic.name for nic in spec.interfaces if nic.name != interface]
    return _edited(source, vm, unplug, (left, disks), nics_left)


def difference(before: Source, after: Source) -> str:
    """What was edited, as a patch of the user's files."""
    old, new = ({each.file: each.text, **each.included} for each in (before, after))
    parts = [
        line
        for file in old
        for line in unified_diff(old[file].splitlines(True), new[file].splitlines(True), file, file)
    ]
    return "".join(line if line.endswith("\n") else f"{line}\n" for line in parts)


def _spec(topology: Topology, vm: str) -> VmSpec:
    if vm in topology.vms:
        return topology.vms[vm]
    of, _, number = vm.rpartition("-")
    if of in topology.vms and number.isdecimal():
        raise InputError(f"{vm} is one of the replicas of {of}, which are alike: name {of}")
    raise InputError(f"there is no VM {vm}; VMs: {', '.join(topology.vms) or 'none'}")


def _has(spec: VmSpec) -> Has:
    return [nic.network for nic in spec.interfaces], [disk.name for disk in spec.disks]


def _edited(
    source: Source, vm: str, edit: Callable[[str], str], wanted: Has, nics: list[str] | None = None
) -> Source:
    """The source with the file edited that declares the VM, if it then says what was wanted."""
    try:
        texts = {source.file: source.text, **source.included}
        file = next(file for file, text in texts.items() if edit_vms.declares(text, vm))
        text = edit(texts[file])
    except (CannotEdit, StopIteration) as error:
        raise InputError(
            f"{error or f'{vm} is written in a way that cannot be edited'}; edit the file"
        ) from None
    included = {**source.included, **({file: text} if file != source.file else {})}
    after = replace(source, text=text if file == source.file else source.text, included=included)
    spec = load(after).vms.get(vm)
    if spec is None or _has(spec) != wanted:
        raise InputError(f"{vm} is written in a way that cannot be edited without a person: edit the file")
    if nics is not None and [nic.name for nic in spec.interfaces] != nics:
        raise InputError(
            f"{vm} lists its networks, so its NICs behind that one would get other names: edit the file, or"
            " name its NICs there (`interfaces`)"
        )
    return after
