"""Checks of policies and claims: every name they use must exist, and each must say something."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vnet.base.source import Location
from vnet.topology import language as lang
from vnet.topology import language_policies as lang_policies
from vnet.topology.draft import Draft, group_names, replicas, rules
from vnet.topology.inventory import replica_names
from vnet.topology.model import Action, Direction, PeerKind
from vnet.topology.reading import Reading, quoted, suggestion
from vnet.topology.selectors import BUILT_IN_SERVICES, Atom, ClaimText, Ports, ServiceName
from vnet.topology.shape import Entry, Read


@dataclass(frozen=True, slots=True)
class _Names:
    """What selectors and ports may refer to."""

    draft: Draft
    instances: frozenset[str]
    groups: frozenset[str]
    services: frozenset[str]


def check(draft: Draft, reading: Reading) -> None:
    """Reports every fault of policies and claims to `reading`."""
    names = _names(draft)
    _check_unique_names(draft.policies, "policy", reading)
    for policy in draft.policies:
        _check_policy(policy, names, reading)
    claims = draft.root.get(lang.VERIFY)
    for claim in () if claims is None else claims.value:
        _check_claim(claim, names, reading)


def _names(draft: Draft) -> _Names:
    instances = (name for spec, vm in draft.vms.items() for name in replica_names(spec, replicas(vm.value)))
    services = frozenset(draft.services) | frozenset(BUILT_IN_SERVICES)
    return _Names(draft, frozenset(instances), group_names(draft), services)


def _check_unique_names(entries: tuple[Read[Entry], ...], what: str, reading: Reading) -> None:
    lines: dict[str, Location] = {}
    key = lang_policies.POLICY_NAME if what == "policy" else lang_policies.RULE_NAME
    for entry in entries:
        name = entry.value.get(key)
        if name is None:
            continue
        first = lines.setdefault(name.value, name.at)
        if first != name.at:
            problem = f"the {what} on line {first.line} is called {quoted(name.value)} already"
            reading.fault(name.at, name.path, problem)


def _check_policy(policy: Read[Entry], names: _Names, reading: Reading) -> None:
    entry = policy.value
    if not entry.given(lang_policies.POLICY_INGRESS) and not entry.given(lang_policies.POLICY_EGRESS):
        problem = 'a policy needs "ingress" or "egress": without them it says nothing'
        reading.fault(policy.at, policy.path, problem)
    _check_tier(policy, names.draft, reading)
    _check_peers(entry.get(lang_policies.POLICY_APPLIED_TO), names, reading)
    for direction, rule in rules(entry):
        key = lang_policies.RULE_FROM if direction is Direction.INGRESS else lang_policies.RULE_TO
        _check_peers(rule.value.get(key), names, reading)
        _check_log(rule.value, reading)
        ports = rule.value.get(lang_policies.RULE_PORTS)
        for item in () if ports is None else ports.value:
            _check_ports(item, item.value, reading, names)
    for list_key in (lang_policies.POLICY_INGRESS, lang_policies.POLICY_EGRESS):
        found = entry.get(list_key)
        _check_unique_names(() if found is None else found.value, "rule", reading)


def _check_log(rule: Entry, reading: Reading) -> None:
    log, action = rule.get(lang_policies.RULE_LOG), rule.get(lang_policies.RULE_ACTION)
    if log is not None and log.value and action is not None and action.value is Action.PASS:
        problem = '"log" is about what a rule decides, and one that says "pass" decides nothing'
        reading.fault(log.at, log.path, problem, "log the rules of the next tier that decide")


def _check_tier(policy: Read[Entry], draft: Draft, reading: Reading) -> None:
    tier = policy.value.get(lang_policies.POLICY_TIER)
    if tier is None:
        default = lang_policies.POLICY_TIER.default
        if default not in draft.tiers and not policy.value.given(lang_policies.POLICY_TIER):
            problem = f'a policy without "tier" is in tier "{default}", which "tiers" does not list'
            reading.fault(policy.at, policy.path, problem, suggestion("", draft.tiers))
    elif tier.value not in draft.tiers:
        problem = f"there is no tier {quoted(tier.value)}"
        reading.fault(tier.at, tier.path, problem, suggestion(tier.value, draft.tiers))


# ---- selectors -------------------------------------------------------------------------------


def _check_peers(peers: Read[tuple[Read[Atom], ...]] | None, names: _Names, reading: Reading) -> None:
    for peer in () if peers is None else peers.value:
        _check_atom(peer, peer.value, names, reading)


def _check_atom(place: Read[object], atom: Atom, names: _Names, reading: Reading) -> None:
    lookup = _LOOKUPS.get(atom.kind)
    found = None if lookup is None else lookup(atom.value, names)
    if found is not None:
        problem, hint = found
        reading.fault(_inside(place.at, atom.offset), place.path, problem, hint)


def _inside(at: Location, offset: int) -> Location:
    return Location(at.file, at.line, at.column + offset)


def _missing_group(name: str, names: _Names) -> tuple[str, str] | None:
    if name in names.groups:
        return None
    problem = f"there is no group {quoted(name)}: none is declared and no VM lists it"
    if name in names.draft.vms:
        return problem, f'did you mean the VM "vm:{name}"?'
    if name in names.draft.networks:
        return problem, f'did you mean the network "network:{name}"?'
    return problem, suggestion(name, names.groups)


def _missing_vm(name: str, names: _Names) -> tuple[str, str] | None:
    vms = names.draft.vms
    if name in vms or name in names.instances:
        return None
    spec = name.rpartition("-")[0]
    count = replicas(vms[spec].value) if spec in vms else None
    if count is not None:
        hint = f'"{spec}" has {count} replicas: "vm:{spec}" means all of them'
    else:
        hint = suggestion(name, vms).replace('did you mean "', 'did you mean "vm:')
    return f"there is no VM {quoted(name)}", hint


def _missing_network(name: str, names: _Names) -> tuple[str, str] | None:
    networks = names.draft.networks
    if name in networks:
        return None
    hint = suggestion(name, networks)
    return f"there is no network {quoted(name)}", hint.replace('did you mean "', 'did you mean "network:')


_LOOKUPS: dict[PeerKind, Callable[[str, _Names], tuple[str, str] | None]] = {
    PeerKind.GROUP: _missing_group,
    PeerKind.VM: _missing_vm,
    PeerKind.NETWORK: _missing_network,
}


# ---- ports and claims ------------------------------------------------------------------------


def _check_ports(place: Read[object], ports: Ports, reading: Reading, names: _Names) -> None:
    if isinstance(ports, ServiceName) and ports.name not in names.services:
        problem = f"there is no service {quoted(ports.name)}"
        hint = suggestion(ports.name, names.services)
        reading.fault(_inside(place.at, ports.offset), place.path, problem, hint)


def _check_claim(claim: Read[ClaimText], names: _Names, reading: Reading) -> None:
    _check_atom(claim, claim.value.source, names, reading)
    _check_atom(claim, claim.value.target, names, reading)
    ports = claim.value.ports
    if ports is None:
        return
    _check_ports(claim, ports, reading, names)
    if isinstance(ports, ServiceName):
        _check_single_service(claim, ports, names, reading)


def _check_single_service(
    claim: Read[ClaimText], ports: ServiceName, names: _Names, reading: Reading
) -> None:
    declared = names.draft.services.get(ports.name)
    count = len(BUILT_IN_SERVICES.get(ports.name, ())) if declared is None else len(declared.value)
    if count > 1:
        problem = f"{quoted(ports.name)} stands for {count} ports, a claim is about one"
        where = _inside(claim.at, ports.offset)
        reading.fault(where, claim.path, problem, "write one claim for each of them")
