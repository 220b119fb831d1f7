"""Checks of health checks and of what VMs depend on."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter

from vnet.topology import language_vms as lang
from vnet.topology.draft import Draft
from vnet.topology.life import Condition
from vnet.topology.reading import Reading, quoted, suggestion
from vnet.topology.shape import Entry, Read


def check(draft: Draft, reading: Reading) -> None:
    """Reports every fault of them to `reading`."""
    for name, vm in draft.vms.items():
        health = vm.value.get(lang.VM_HEALTHCHECK)
        if health is not None and not health.value.given(lang.HEALTH_TEST):
            reading.fault(health.at, health.path, 'a health check needs "test": a command in the guest')
        for other, dependency in _depends_on(vm).items():
            _check_dependency(name, other, dependency, draft, reading)
    _check_circle(draft, reading)


def _depends_on(vm: Read[Entry]) -> dict[str, Read[Entry]]:
    found = vm.value.get(lang.VM_DEPENDS_ON)
    return {} if found is None else found.value


def _check_dependency(name: str, other: str, dependency: Read[Entry], draft: Draft, reading: Reading) -> None:
    condition = dependency.value.get(lang.DEPENDENCY_CONDITION)
    if other == name:
        reading.fault(dependency.at, dependency.path, "a VM cannot depend on itself")
    elif other not in draft.vms:
        hint = suggestion(other, draft.vms)
        reading.fault(dependency.at, dependency.path, f"there is no VM {quoted(other)}", hint)
    elif condition is not None and condition.value is Condition.HEALTHY and not _is_checked(other, draft):
        problem = f"{quoted(other)} has no health check, so it never becomes healthy"
        reading.fault(condition.at, condition.path, problem, f'give {other} a "healthcheck"')


def _is_checked(name: str, draft: Draft) -> bool:
    return draft.vms[name].value.given(lang.VM_HEALTHCHECK)


def _check_circle(draft: Draft, reading: Reading) -> None:
    edges = {name: [other for other in _depends_on(vm) if other != name] for name, vm in draft.vms.items()}
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        circle: list[str] = error.args[1][::-1]
        last = _depends_on(draft.vms[circle[0]])[circle[1]]
        way = " -> ".join(circle)
        reading.fault(last.at, last.path, f"VMs depend on each other in a circle: {way}")
