"""defaults, then the template, then the VM's own fields: maps merge, lists and scalars replace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vnet.topology.language import ALL_DEFAULTS, TEMPLATES, VMS
from vnet.topology.language_vms import VM_DISK, VM_DISKS, VM_INTERFACES, VM_NETWORKS, VM_TEMPLATE
from vnet.topology.shape import Entry, Field, Read

_EITHER: tuple[tuple[Field[Any], ...], ...] = ((VM_NETWORKS, VM_INTERFACES), (VM_DISK, VM_DISKS))
"""Two ways to say the same: the more special entry's way replaces the other."""


def merged_vms(root: Entry) -> dict[str, Read[Entry]]:
    """The VMs with all that their templates and the defaults give them."""
    vms = root.get(VMS)
    defaults = root.get(ALL_DEFAULTS)
    templates = root.get(TEMPLATES)
    base = Entry({}) if defaults is None else defaults.value
    ready = {name: merge(base, each.value) for name, each in templates.value.items()} if templates else {}
    return {
        name: Read(merge(_base_of(vm.value, base, ready), vm.value), vm.at, vm.path)
        for name, vm in (vms.value.items() if vms else ())
    }


def _base_of(vm: Entry, base: Entry, ready: Mapping[str, Entry]) -> Entry:
    template = vm.get(VM_TEMPLATE) or base.get(VM_TEMPLATE)
    return base if template is None else ready.get(template.value, base)


def merge(general: Entry, special: Entry) -> Entry:
    """`special` completed by `general`."""
    hidden = set(special.broken)
    for ways in _EITHER:
        if any(special.given(each) for each in ways):
            hidden |= {each.name for each in ways if not special.given(each)}
    values = {key: value for key, value in general.values.items() if key not in hidden}
    for key, value in special.values.items():
        values[key] = _merge_values(values[key], value) if key in values else value
    return Entry(values, (general.broken - values.keys() - hidden) | special.broken)


def _merge_values(general: Read[Any], special: Read[Any]) -> Read[Any]:
    if isinstance(special.value, Entry) and isinstance(general.value, Entry):
        return Read(merge(general.value, special.value), special.at, special.path)
    if isinstance(special.value, dict):
        both = dict(general.value)
        for key, value in special.value.items():
            both[key] = _merge_values(both[key], value) if key in both else value
        return Read(both, special.at, special.path)
    return special
