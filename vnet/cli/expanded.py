"""A topology written out: defaults and templates merged, replicas, addresses and MACs spelled out.

The result is a topology again, with the same meaning and nothing left to be chosen. Replicas that share
published ports stay one VM, as VMs of their own cannot share them; their addresses and MACs are chosen again,
and the same ones, since those of all others are given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from vnet.base.line import bits, rate_of
from vnet.hv.spec import format_mac
from vnet.topology import written_vm
from vnet.topology.endpoints import NIC, EndpointSpec
from vnet.topology.inventory import Inventory, Listener, Nic, Vm, instances
from vnet.topology.model import (
    LEASE_S,
    STRICT,
    Claim,
    Dhcp,
    IPNetwork,
    Mirror,
    MirrorNetwork,
    MirrorNic,
    Nat,
    Network,
    Peer,
    PeerKind,
    Policy,
    Profile,
    Router,
    Rule,
    ToErspan,
    ToFile,
    Topology,
    ToVxlan,
    Uplink,
    VmSpec,
)

Plain = dict[str, Any]


def expanded(topology: Topology, inventory: Inventory) -> Plain:
    """The document to print."""
    document: Plain = {"name": topology.name}
    if topology.description:
        document["description"] = topology.description
    together = frozenset(each.name for each in topology.vms.values() if _is_kept_together(each))
    own = [nic for vm in inventory.vms if vm.spec not in together for nic in vm.nics]
    told = frozenset(word for nic in own for word in (nic.name, format_mac(nic.mac)))
    document["networks"] = {
        net.name: _network(net, topology.name, told) for net in topology.networks.values()
    }
    document["routers"] = {each.name: _router(each) for each in topology.routers.values()}
    document["uplinks"] = {each.name: _uplink(each) for each in topology.uplinks.values()}
    document["images"] = written_vm.images(topology.images)
    document["profiles"] = {each.name: _profile(each) for each in topology.profiles.values()}
    document["groups"] = _groups(topology)
    document["tiers"] = list(topology.tiers)
    named = {peer.value for peer in _peers(topology) if peer.kind is PeerKind.VM}
    apart = (vm for vm in inventory.vms if vm.spec != vm.name and vm.spec not in together)
    replicated = frozenset(vm.spec for vm in apart if vm.spec in named)
    names = {vm.name: vm.spec if vm.spec in together else vm.name for vm in inventory.vms}
    isolated = frozenset(net.name for net in topology.networks.values() if net.is_isolated)
    for name, kept in (("vms", False), ("endpoints", True)):
        among = (vm for vm in inventory.vms if bool(vm.endpoint) is kept)
        document[name] = {names[vm.name]: _vm(vm, names, replicated, isolated, topology) for vm in among}
    document["policies"] = [_policy(policy, replicated) for policy in topology.policies]
    document["mirrors"] = {
        name: each for mirror in topology.mirrors for name, each in _mirrors(mirror, inventory)
    }
    document["verify"] = [_claim(claim, replicated) for claim in topology.claims]
    return {key: value for key, value in document.items() if value}


def _is_kept_together(spec: VmSpec) -> bool:
    """Whether its replicas share what VMs of their own cannot share."""
    return bool(spec.ports) and len(instances(spec)) > 1


def _network(net: Network, fabric: str, told: frozenset[str]) -> Plain:
    plain: Plain = {"vlan": net.vlan, "subnets": [_subnet(net, subnet, told) for subnet in net.subnets]}
    internal = {"internal": True} if net.is_internal else {}
    mtu = {} if net.mtu_bytes is None else {"mtu": net.mtu_bytes}
    dns = {"dns": _dns(net, fabric)} if net.domain else {}
    return plain | internal | ({"isolation": "isolated"} if net.is_isolated else {}) | mtu | dns


def _dns(net: Network, fabric: str) -> bool | str | Plain:
    domain = True if net.domain == f"{fabric}.internal" else net.domain
    return {"domain": domain, "forwarders": list(map(str, net.forwarders))} if net.forwarders else domain


def _subnet(net: Network, subnet: IPNetwork, told: frozenset[str]) -> str | Plain:
    given = next((each for each in net.gateways if each in subnet), None)
    plain: Plain = {"gateway": str(given)} if given else {}
    served = net.serves(subnet)
    plain |= {"dhcp": _dhcp(served.dhcp, told)} if served.dhcp else {}
    plain |= {"ra": served.ra.value} if served in net.served and subnet.version == 6 else {}
    return {"cidr": str(subnet), **plain} if plain else str(subnet)


def _dhcp(dhcp: Dhcp, told: frozenset[str]) -> bool | Plain:
    plain: Plain = {"range": str(dhcp.range)} if dhcp.range else {}
    plain |= {"lease": f"{dhcp.lease_s}s"} if dhcp.lease_s != LEASE_S else {}
    # Those of NICs whose address is told stand at the NICs.
    reserved = {whose: str(address) for whose, address in dhcp.reservations.items() if whose not in told}
    return plain | ({"reservations": reserved} if reserved else {}) or True


def _router(router: Router) -> Plain:
    routes = [{"to": str(route.to), "via": str(route.via)} for route in router.routes]
    plain: Plain = {"networks": list(router.networks), **({"routes": routes} if routes else {})}
    nat = Nat.MASQUERADE if router.masquerades else Nat.NONE
    return plain | ({"uplink": router.uplink, "nat": nat.value} if router.uplink else {})


def _uplink(uplink: Uplink) -> Plain:
    plain: Plain = {"interface": uplink.interface}
    if uplink.networks:
        return plain | {"mode": uplink.mode.value, "networks": list(uplink.networks)}
    plain |= {"addresses": [str(each) for each in uplink.addresses]}
    return plain | ({"gateway": [str(each) for each in uplink.gateways]} if uplink.gateways else {})


def _profile(profile: Profile) -> Plain:
    limits = profile.limits
    pairs = [
        {"address": str(pair.addresses), **({} if pair.mac is None else {"mac": format_mac(pair.mac)})}
        for pair in profile.pairs
    ]
    return {
        **({"allowed_address_pairs": pairs} if pairs else {}),
        "limits": {"connections": limits.connections, "macs": limits.macs},
        "storm_control": {
            "broadcast": limits.broadcast_pps,
            "multicast": limits.multicast_pps,
            "unknown_unicast": limits.unknown_unicast_pps,
        },
    }


def _vm(
    vm: Vm,
    names: Mapping[str, str],
    replicated: frozenset[str],
    isolated: frozenset[str],
    topology: Topology,
) -> Plain:
    """A VM as it is declared; `names` are those of all VMs in the document."""
    groups = sorted(vm.groups | ({_group(vm.spec)} if vm.spec in replicated else set()))
    spec = topology.vms[vm.spec]
    together = _is_kept_together(spec)
    interfaces = {
        nic.interface: {
            "network": nic.network,
            **({} if together else {"addresses": list(map(str, nic.addresses)), **_mac(nic)}),
            **({"promiscuous": True} if nic.network in isolated and not nic.is_isolated else {}),
            **({"profile": nic.profile.name} if nic.profile != STRICT else {}),
            **({"dhcp": True} if nic.asked else {}),
            **_line(nic),
        }
        for nic in vm.nics
    }
    interfaces |= {
        nic.interface: {"mirror_only": True, **({} if together else _mac(nic))} for nic in vm.listeners
    }
    if vm.endpoint:
        return _place(vm.endpoint) | interfaces[NIC] | ({"groups": groups} if groups else {})
    plain: Plain = {"cpus": vm.cpus, "memory": f"{vm.memory_bytes >> 20}M"}
    plain |= {"replicas": spec.replicas} if together else {}
    plain = written_vm.rest(vm, topology, names) | plain
    return plain | {"interfaces": interfaces} | ({"groups": groups} if groups else {})


def _mac(nic: Nic | Listener) -> Plain:
    return {"mac": format_mac(nic.mac)}


def _place(where: EndpointSpec) -> Plain:
    more = {"owner": where.owner, "device": where.device}
    return {where.kind.value: where.target, **{key: value for key, value in more.items() if value}}


def _line(nic: Nic) -> Plain:
    """How fast a NIC is, and what befalls its packets."""
    ways = {"in": nic.line.inward, "out": nic.line.outward}
    rate = {way: bits(each.bps) for way, each in ways.items() if each.bps}
    bursts = {each.burst_bytes for each in ways.values() if each.bps and each != rate_of(each.bps)}
    impairment = nic.line.impairment
    impair = {
        **({"delay": f"{impairment.delay_us}us"} if impairment.delay_us else {}),
        **({"jitter": f"{impairment.jitter_us}us"} if impairment.jitter_us else {}),
        **({"loss": f"{impairment.loss_ppm / 10_000:g}%"} if impairment.loss_ppm else {}),
    }
    return {
        **({"rate": rate | {"burst": f"{bursts.pop() >> 10}K"} if bursts else rate} if rate else {}),
        **({} if nic.dscp is None else {"dscp": nic.dscp}),
        **({"impair": impair} if impair else {}),
    }


def _mirrors(mirror: Mirror, inventory: Inventory) -> Iterator[tuple[str, Plain]]:
    """The mirror; of a NIC that all replicas of a VM have one for each of them, with a file of its own."""
    source, to = mirror.source, mirror.to
    rest: Plain = {"direction": mirror.direction.value, "to": _copied_to(to)}
    rest |= {"filter": mirror.filter} if mirror.filter else {}
    rest |= {"snaplen": mirror.snaplen_bytes} if isinstance(to, ToFile) else {}
    if not isinstance(source, MirrorNic):
        kind = "network" if isinstance(source, MirrorNetwork) else "uplink"
        yield mirror.name, {"source": f"{kind}:{source.name}"} | rest
        return
    for vm in inventory.vms:
        if source.vm == vm.name:
            yield mirror.name, {"source": f"{vm.name}:{source.interface}"} | rest
        elif source.vm == vm.spec:
            own = {"to": f"pcap:{vm.name}-{to.name}"} if isinstance(to, ToFile) else {}
            yield f"{mirror.name}-{vm.name}", {"source": f"{vm.name}:{source.interface}"} | rest | own


def _copied_to(to: MirrorNic | ToFile | ToVxlan | ToErspan) -> str:
    return f"{to.vm}:{to.interface}" if isinstance(to, MirrorNic) else str(to)


def _peers(topology: Topology) -> Iterator[Peer]:
    """Every selector of the file."""
    for policy in topology.policies:
        yield from policy.applied_to
        for rule in (*(policy.ingress or ()), *(policy.egress or ())):
            yield from rule.peers
    for claim in topology.claims:
        yield from (claim.source, claim.target)


def _group(spec: str) -> str:
    """The group that stands for all replicas of a VM, which `vm:NAME` means before they are spelled out."""
    return f"replicas-of-{spec}"


def _policy(policy: Policy, replicated: frozenset[str]) -> Plain:
    plain: Plain = {
        "name": policy.name,
        "tier": policy.tier,
        "applied_to": [_peer(peer, replicated) for peer in policy.applied_to],
    }
    if policy.ingress is not None:
        plain["ingress"] = [_rule(rule, "from", replicated) for rule in policy.ingress]
    if policy.egress is not None:
        plain["egress"] = [_rule(rule, "to", replicated) for rule in policy.egress]
    return plain | {"enforcement": policy.enforcement.value, "established": policy.established.value}


def _rule(rule: Rule, toward: str, replicated: frozenset[str]) -> Plain:
    plain: Plain = {} if "[" in rule.name else {"name": rule.name}
    plain[toward] = [_peer(peer, replicated) for peer in rule.peers]
    if rule.services:
        plain["ports"] = [str(service) for service in rule.services]
    plain["action"] = rule.action.value
    if rule.log:
        plain["log"] = True
    if rule.expires:
        plain["expires"] = rule.expires.isoformat()
    return plain


def _peer(peer: Peer, replicated: frozenset[str]) -> str:
    if peer.kind is PeerKind.VM and peer.value in replicated:
        return _group(peer.value)
    return str(peer)


def _claim(claim: Claim, replicated: frozenset[str]) -> str:
    service = f":{claim.service}" if claim.service else ""
    source, target = _peer(claim.source, replicated), _peer(claim.target, replicated)
    return f"{claim.kind.value} {source} -> {target}{service}"


def _groups(topology: Topology) -> Plain:
    """Declared groups by CIDR; members of groups by label are listed with the VMs."""
    return {name: {"cidrs": [str(cidr) for cidr in cidrs]} for name, cidrs in topology.groups.items()}
