"""From a draft without faults to the frozen Topology."""

from __future__ import annotations

from vnet.base.limits import Limits
from vnet.base.source import Location
from vnet.topology import language as lang
from vnet.topology.draft import Draft, DraftNic, replicas
from vnet.topology.model import (
    STRICT,
    AddressPair,
    Claim,
    Direction,
    Interface,
    IPNetwork,
    Isolation,
    Mirror,
    Network,
    Peer,
    Policy,
    Profile,
    Rule,
    Service,
    Topology,
    VmSpec,
)
from vnet.topology.selectors import BUILT_IN_SERVICES, Atom, ClaimText, Ports, ServiceName
from vnet.topology.shape import Entry, Field, Read

Services = dict[str, tuple[Service, ...]]


def build(draft: Draft, file: str) -> Topology:
    """The topology; only for a draft that passed all checks."""
    declared = _declared_services(draft)
    services = BUILT_IN_SERVICES | declared
    claims = draft.root.get(lang.VERIFY)
    return Topology(
        name=draft.root.value(lang.NAME),
        description=draft.root.value(lang.DESCRIPTION),
        networks={name: _network(name, each) for name, each in draft.networks.items()},
        vms={name: _vm(name, each, draft.nics[name]) for name, each in draft.vms.items()},
        groups=_groups(draft),
        group_labels=_group_labels(draft),
        tiers=draft.tiers,
        policies=tuple(_policy(each, services) for each in draft.policies),
        claims=() if claims is None else tuple(_claim(each, services) for each in claims.value),
        at=Location(file),
        profiles={name: _profile(name, each.value) for name, each in draft.profiles.items()},
        services=declared,
        mirrors=tuple(_mirror(name, each) for name, each in draft.mirrors.items()),
    )


def _declared_services(draft: Draft) -> Services:
    found = draft.root.get(lang.SERVICES)
    declared = {} if found is None else found.value
    return {name: tuple(item.value for item in items.value) for name, items in declared.items()}


def _network(name: str, network: Read[Entry]) -> Network:
    entry = network.value
    return Network(
        name,
        entry.value(lang.NETWORK_VLAN),
        tuple(each.value for each in entry.value(lang.NETWORK_SUBNETS)),
        network.at,
        is_internal=entry.value(lang.NETWORK_INTERNAL),
        is_isolated=entry.value(lang.NETWORK_ISOLATION) is Isolation.ISOLATED,
    )


def _profile(name: str, entry: Entry) -> Profile:
    limits, storms = entry.part(lang.PROFILE_LIMITS), entry.part(lang.PROFILE_STORM_CONTROL)
    return Profile(
        name,
        Limits(
            connections=limits.value(lang.LIMIT_CONNECTIONS),
            macs=limits.value(lang.LIMIT_MACS),
            broadcast_pps=storms.value(lang.STORM_BROADCAST),
            multicast_pps=storms.value(lang.STORM_MULTICAST),
            unknown_unicast_pps=storms.value(lang.STORM_UNKNOWN),
        ),
        tuple(_pair(each.value) for each in entry.value(lang.PROFILE_PAIRS)),
    )


def _mirror(name: str, mirror: Read[Entry]) -> Mirror:
    entry = mirror.value
    return Mirror(
        name,
        entry.value(lang.MIRROR_SOURCE),
        entry.value(lang.MIRROR_DIRECTION),
        entry.value(lang.MIRROR_FILTER),
        entry.value(lang.MIRROR_TO),
        entry.value(lang.MIRROR_SNAPLEN),
        mirror.at,
    )


def _pair(entry: Entry) -> AddressPair:
    mac = entry.get(lang.PAIR_MAC)
    return AddressPair(entry.value(lang.PAIR_ADDRESS), None if mac is None else mac.value)


def _vm(name: str, vm: Read[Entry], nics: tuple[DraftNic, ...]) -> VmSpec:
    entry = vm.value
    return VmSpec(
        name=name,
        image=entry.value(lang.VM_IMAGE),
        cpus=entry.value(lang.VM_CPUS),
        memory_bytes=entry.value(lang.VM_MEMORY),
        interfaces=tuple(_interface(nic) for nic in nics),
        groups=tuple(group.value for group in entry.value(lang.VM_GROUPS)),
        labels=_labels(entry, lang.VM_LABELS),
        replicas=replicas(entry),
        at=vm.at,
    )


def _interface(nic: DraftNic) -> Interface:
    assert nic.is_mirror_only or nic.network is not None, "checked"
    network = "" if nic.network is None else nic.network.value
    addresses = tuple(address.value for address in nic.addresses)
    mac = None if nic.mac is None else nic.mac.value
    profile = STRICT.name if nic.profile is None else nic.profile.value
    return Interface(
        nic.name, network, addresses, mac, nic.at, nic.is_promiscuous, profile, nic.is_mirror_only
    )


def _labels(entry: Entry, key: Field[dict[str, Read[str]]]) -> dict[str, str]:
    found = entry.get(key)
    return {} if found is None else {name: label.value for name, label in found.value.items()}


def _groups(draft: Draft) -> dict[str, tuple[IPNetwork, ...]]:
    return {
        name: tuple(cidr.value for cidr in cidrs.value)
        for name, group in draft.groups.items()
        if (cidrs := group.value.get(lang.GROUP_CIDRS)) is not None
    }


def _group_labels(draft: Draft) -> dict[str, dict[str, str]]:
    return {
        name: _labels(group.value, lang.GROUP_LABELS)
        for name, group in draft.groups.items()
        if group.value.given(lang.GROUP_LABELS)
    }


def _policy(policy: Read[Entry], services: Services) -> Policy:
    entry = policy.value
    return Policy(
        name=entry.value(lang.POLICY_NAME),
        tier=entry.value(lang.POLICY_TIER),
        applied_to=_peers(entry.value(lang.POLICY_APPLIED_TO)),
        ingress=_rules(entry.get(lang.POLICY_INGRESS), Direction.INGRESS, services),
        egress=_rules(entry.get(lang.POLICY_EGRESS), Direction.EGRESS, services),
        at=policy.at,
        enforcement=entry.value(lang.POLICY_ENFORCEMENT),
        established=entry.value(lang.POLICY_ESTABLISHED),
    )


def _rules(
    found: Read[tuple[Read[Entry], ...]] | None, direction: Direction, services: Services
) -> tuple[Rule, ...] | None:
    if found is None:
        return None
    return tuple(_rule(rule, i, direction, services) for i, rule in enumerate(found.value, start=1))


def _rule(rule: Read[Entry], number: int, direction: Direction, services: Services) -> Rule:
    entry = rule.value
    name = entry.get(lang.RULE_NAME)
    ports, expires = entry.get(lang.RULE_PORTS), entry.get(lang.RULE_EXPIRES)
    return Rule(
        name=f"{direction.value}[{number - 1}]" if name is None else name.value,
        number=number,
        direction=direction,
        peers=_peers(entry.value(lang.RULE_FROM if direction is Direction.INGRESS else lang.RULE_TO)),
        services=() if ports is None else _all_services(ports.value, services),
        action=entry.value(lang.RULE_ACTION),
        log=entry.value(lang.RULE_LOG),
        at=rule.at,
        expires=None if expires is None else expires.value,
    )


def _peers(peers: tuple[Read[Atom], ...]) -> tuple[Peer, ...]:
    return tuple(_peer(peer.value, peer.at) for peer in peers)


def _peer(atom: Atom, at: Location) -> Peer:
    return Peer(atom.kind, atom.value, at)


def _all_services(items: tuple[Read[Ports], ...], services: Services) -> tuple[Service, ...]:
    """The services listed, without repetition, in their order."""
    return tuple(dict.fromkeys(each for item in items for each in _services(item.value, services)))


def _services(ports: Ports, services: Services) -> tuple[Service, ...]:
    return services[ports.name] if isinstance(ports, ServiceName) else (ports,)


def _claim(claim: Read[ClaimText], services: Services) -> Claim:
    found = claim.value
    service = None if found.ports is None else _services(found.ports, services)[0]
    source, target = _peer(found.source, claim.at), _peer(found.target, claim.at)
    return Claim(found.kind, source, target, service, found.text, claim.at)
