"""From a draft without faults to the frozen Topology."""

from __future__ import annotations

from types import MappingProxyType

from vnet.base.boot import Boot
from vnet.base.limits import Limits
from vnet.base.line import UNLIMITED, Impairment, Line, Rate, rate_of
from vnet.base.source import Location
from vnet.topology import language as lang
from vnet.topology import language_networks as lang_networks
from vnet.topology import language_nics as lang_nics
from vnet.topology import language_policies as lang_policies
from vnet.topology import language_vms as lang_vms
from vnet.topology.build_cloud_init import Texts
from vnet.topology.build_images import boot_of, disks_of, images_of, title_of
from vnet.topology.draft import (
    Draft,
    DraftNic,
    advertised_in,
    carried,
    dhcp_of,
    forwarders_of,
    gateways_of,
    has_names,
    places,
    replicas,
    served_in,
    subnets_of,
)
from vnet.topology.endpoints import EndpointKind, EndpointSpec
from vnet.topology.life import Dependency, HealthCheck, Life
from vnet.topology.life_text import test_of
from vnet.topology.model import (
    STRICT,
    AddressPair,
    Advertised,
    Claim,
    Dhcp,
    Direction,
    Interface,
    IPNetwork,
    Isolation,
    Mirror,
    Nat,
    Network,
    Peer,
    Policy,
    Profile,
    Published,
    Route,
    Router,
    Rule,
    Served,
    Service,
    Topology,
    Uplink,
    UplinkMode,
    VmSpec,
)
from vnet.topology.published import PortText
from vnet.topology.selectors import BUILT_IN_SERVICES, Atom, ClaimText, Ports, ServiceName
from vnet.topology.shape import Entry, Field, Read

Services = dict[str, tuple[Service, ...]]


def build(draft: Draft, file: str, folder: str = "", texts: Texts = MappingProxyType({})) -> Topology:
    """The topology; only for a draft that passed all checks.

    `folder` is what the names of files are relative to, `file` included; `texts` are those of files that it
    names, by path.
    """
    declared = _declared_services(draft)
    services = BUILT_IN_SERVICES | declared
    claims = draft.root.get(lang.VERIFY)
    fabric = draft.root.value(lang.NAME)
    images = images_of(draft, folder)
    return Topology(
        name=fabric,
        description=draft.root.value(lang.DESCRIPTION),
        networks={name: _network(name, each, fabric) for name, each in draft.networks.items()},
        vms={
            name: _vm(
                name,
                each,
                draft.nics[name],
                name in draft.endpoints,
                boot_of(each.value, images, folder, texts),
            )
            for name, each in draft.vms.items()
        },
        groups=_groups(draft),
        group_labels=_group_labels(draft),
        tiers=draft.tiers,
        policies=tuple(_policy(each, services) for each in draft.policies),
        claims=() if claims is None else tuple(_claim(each, services) for each in claims.value),
        at=Location(file),
        profiles={name: _profile(name, each.value) for name, each in draft.profiles.items()},
        services=declared,
        mirrors=tuple(_mirror(name, each) for name, each in draft.mirrors.items()),
        routers={name: _router(name, each) for name, each in draft.routers.items()},
        uplinks=_uplinks(draft),
        images=images,
    )


def _declared_services(draft: Draft) -> Services:
    found = draft.root.get(lang.SERVICES)
    declared = {} if found is None else found.value
    return {name: tuple(item.value for item in items.value) for name, items in declared.items()}


def _network(name: str, network: Read[Entry], fabric: str) -> Network:
    entry = network.value
    mtu = entry.get(lang_networks.NETWORK_MTU)
    return Network(
        name,
        entry.value(lang_networks.NETWORK_VLAN),
        tuple(cidr.value for cidr in subnets_of(entry)),
        network.at,
        is_internal=entry.value(lang_networks.NETWORK_INTERNAL),
        is_isolated=entry.value(lang_networks.NETWORK_ISOLATION) is Isolation.ISOLATED,
        gateways=tuple(gateway.value for _, gateway in gateways_of(entry) if gateway is not None),
        served=tuple(_served(cidr.value, each) for cidr, each in served_in(entry) if _is_served(each)),
        domain=_domain(entry, fabric),
        forwarders=tuple(each.value for each in forwarders_of(entry)),
        mtu_bytes=None if mtu is None else mtu.value,
    )


def _domain(network: Entry, fabric: str) -> str:
    domain = (
        network.part(lang_networks.NETWORK_DNS).value(lang_networks.DNS_DOMAIN) if has_names(network) else ""
    )
    return f"{fabric}.internal" if domain is True else str(domain)


def _is_served(subnet: Entry) -> bool:
    return dhcp_of(subnet) is not None or advertised_in(subnet) is not Advertised.NONE


def _served(cidr: IPNetwork, subnet: Entry) -> Served:
    entry = dhcp_of(subnet)
    return Served(cidr, None if entry is None else _dhcp(entry), advertised_in(subnet))


def _dhcp(entry: Entry) -> Dhcp:
    chosen = entry.get(lang_networks.DHCP_RANGE)
    reserved = entry.value(lang_networks.DHCP_RESERVATIONS)
    return Dhcp(
        None if chosen is None else chosen.value,
        entry.value(lang_networks.DHCP_LEASE),
        {whose.lower(): address.value for whose, address in reserved.items()},
    )


def _router(name: str, router: Read[Entry]) -> Router:
    entry = router.value
    networks = tuple(each.value for each in entry.value(lang_networks.ROUTER_NETWORKS))
    routes = tuple(map(_route, entry.value(lang_networks.ROUTER_ROUTES)))
    uplink, nat = entry.get(lang_networks.ROUTER_UPLINK), entry.get(lang_networks.ROUTER_NAT)
    masquerades = uplink is not None and (nat is None or nat.value is Nat.MASQUERADE)
    return Router(name, networks, routes, router.at, "" if uplink is None else uplink.value, masquerades)


def _uplinks(draft: Draft) -> dict[str, Uplink]:
    networks = carried(draft)
    return {
        name: _uplink(name, each, tuple(network.value for network in networks[name]))
        for name, each in draft.uplinks.items()
    }


def _uplink(name: str, uplink: Read[Entry], networks: tuple[str, ...]) -> Uplink:
    entry = uplink.value
    mode, addresses = entry.get(lang_networks.UPLINK_MODE), entry.get(lang_networks.UPLINK_ADDRESSES)
    return Uplink(
        name,
        entry.value(lang_networks.UPLINK_INTERFACE),
        uplink.at,
        UplinkMode.ACCESS if mode is None else mode.value,
        networks,
        () if addresses is None else tuple(each.value for each in addresses.value),
        tuple(each.value for each in entry.value(lang_networks.UPLINK_GATEWAYS)),
    )


def _route(route: Read[Entry]) -> Route:
    return Route(
        route.value.value(lang_networks.ROUTE_TO), route.value.value(lang_networks.ROUTE_VIA), route.at
    )


def _profile(name: str, entry: Entry) -> Profile:
    limits, storms = entry.part(lang_nics.PROFILE_LIMITS), entry.part(lang_nics.PROFILE_STORM_CONTROL)
    return Profile(
        name,
        Limits(
            connections=limits.value(lang_nics.LIMIT_CONNECTIONS),
            macs=limits.value(lang_nics.LIMIT_MACS),
            broadcast_pps=storms.value(lang_nics.STORM_BROADCAST),
            multicast_pps=storms.value(lang_nics.STORM_MULTICAST),
            unknown_unicast_pps=storms.value(lang_nics.STORM_UNKNOWN),
        ),
        tuple(_pair(each.value) for each in entry.value(lang_nics.PROFILE_PAIRS)),
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
    mac = entry.get(lang_nics.PAIR_MAC)
    return AddressPair(entry.value(lang_nics.PAIR_ADDRESS), None if mac is None else mac.value)


def _vm(name: str, vm: Read[Entry], nics: tuple[DraftNic, ...], is_endpoint: bool, boot: Boot) -> VmSpec:
    entry = vm.value
    return VmSpec(
        name=name,
        image=title_of(boot),
        cpus=entry.value(lang_vms.VM_CPUS),
        memory_bytes=entry.value(lang_vms.VM_MEMORY),
        interfaces=tuple(_interface(nic) for nic in nics),
        groups=tuple(group.value for group in entry.value(lang_vms.VM_GROUPS)),
        labels=_labels(entry, lang_vms.VM_LABELS),
        replicas=replicas(entry),
        at=vm.at,
        ports=tuple(_published(each) for each in entry.value(lang_vms.VM_PORTS)),
        floating=tuple(each.value for each in entry.value(lang_vms.VM_FLOATING)),
        life=_life(entry),
        disks=disks_of(entry, boot),
        endpoint=_endpoint(entry) if is_endpoint else None,
        boot=boot,
    )


def _endpoint(entry: Entry) -> EndpointSpec:
    ((field, where),) = places(entry)
    kind, owner = EndpointKind(field.name), entry.get(lang_vms.ENDPOINT_OWNER)
    device = entry.value(lang_vms.ENDPOINT_DEVICE) if kind is EndpointKind.NETNS else ""
    return EndpointSpec(kind, where.value, owner.value if owner else "", device)


def _life(vm: Entry) -> Life:
    check = vm.get(lang_vms.VM_HEALTHCHECK)
    depends_on = (
        Dependency(name, each.value.value(lang_vms.DEPENDENCY_CONDITION), each.at)
        for name, each in vm.value(lang_vms.VM_DEPENDS_ON).items()
    )
    return Life(
        vm.value(lang_vms.VM_RESTART),
        vm.value(lang_vms.VM_AUTOSTART),
        None if check is None else _health_check(check.value),
        tuple(depends_on),
    )


def _health_check(entry: Entry) -> HealthCheck:
    return HealthCheck(
        test_of(tuple(word.value for word in entry.value(lang_vms.HEALTH_TEST))),
        entry.value(lang_vms.HEALTH_INTERVAL),
        entry.value(lang_vms.HEALTH_TIMEOUT),
        entry.value(lang_vms.HEALTH_RETRIES),
        entry.value(lang_vms.HEALTH_START_PERIOD),
    )


def _published(port: Read[PortText]) -> Published:
    found = port.value
    return Published(found.listen, found.port, found.guest_port, found.protocol, port.at)


def _interface(nic: DraftNic) -> Interface:
    assert nic.is_mirror_only or nic.network is not None, "checked"
    network = "" if nic.network is None else nic.network.value
    addresses = tuple(address.value for address in nic.addresses)
    mac = None if nic.mac is None else nic.mac.value
    profile = STRICT.name if nic.profile is None else nic.profile.value
    return Interface(
        nic.name,
        network,
        addresses,
        mac,
        nic.at,
        nic.is_promiscuous,
        profile,
        nic.is_mirror_only,
        nic.asks is not None and nic.asks.value,
        _line(nic),
        None if nic.dscp is None else nic.dscp.value,
    )


def _line(nic: DraftNic) -> Line:
    impair = Entry({}) if nic.impair is None else nic.impair.value
    keys = (lang_nics.IMPAIR_DELAY, lang_nics.IMPAIR_JITTER, lang_nics.IMPAIR_LOSS)
    given = (impair.get(key) for key in keys)
    impairment = Impairment(*(0 if each is None else each.value for each in given))
    return Line(_rate(nic, lang_nics.RATE_IN, impair), _rate(nic, lang_nics.RATE_OUT, impair), impairment)


def _rate(nic: DraftNic, way: Field[int], impair: Entry) -> Rate:
    """The slower one of what it is declared to have and what a bad cable leaves of it."""
    rate = Entry({}) if nic.rate is None else nic.rate.value
    both = (rate.get(way), impair.get(lang_nics.IMPAIR_RATE))
    burst, rates = rate.get(lang_nics.RATE_BURST), [each.value for each in both if each is not None]
    return rate_of(min(rates), None if burst is None else burst.value) if rates else UNLIMITED


def _labels(entry: Entry, key: Field[dict[str, Read[str]]]) -> dict[str, str]:
    found = entry.get(key)
    return {} if found is None else {name: label.value for name, label in found.value.items()}


def _groups(draft: Draft) -> dict[str, tuple[IPNetwork, ...]]:
    return {
        name: tuple(cidr.value for cidr in cidrs.value)
        for name, group in draft.groups.items()
        if (cidrs := group.value.get(lang_policies.GROUP_CIDRS)) is not None
    }


def _group_labels(draft: Draft) -> dict[str, dict[str, str]]:
    return {
        name: _labels(group.value, lang_policies.GROUP_LABELS)
        for name, group in draft.groups.items()
        if group.value.given(lang_policies.GROUP_LABELS)
    }


def _policy(policy: Read[Entry], services: Services) -> Policy:
    entry = policy.value
    return Policy(
        name=entry.value(lang_policies.POLICY_NAME),
        tier=entry.value(lang_policies.POLICY_TIER),
        applied_to=_peers(entry.value(lang_policies.POLICY_APPLIED_TO)),
        ingress=_rules(entry.get(lang_policies.POLICY_INGRESS), Direction.INGRESS, services),
        egress=_rules(entry.get(lang_policies.POLICY_EGRESS), Direction.EGRESS, services),
        at=policy.at,
        enforcement=entry.value(lang_policies.POLICY_ENFORCEMENT),
        established=entry.value(lang_policies.POLICY_ESTABLISHED),
    )


def _rules(
    found: Read[tuple[Read[Entry], ...]] | None, direction: Direction, services: Services
) -> tuple[Rule, ...] | None:
    if found is None:
        return None
    return tuple(_rule(rule, i, direction, services) for i, rule in enumerate(found.value, start=1))


def _rule(rule: Read[Entry], number: int, direction: Direction, services: Services) -> Rule:
    entry = rule.value
    name = entry.get(lang_policies.RULE_NAME)
    ports, expires = entry.get(lang_policies.RULE_PORTS), entry.get(lang_policies.RULE_EXPIRES)
    return Rule(
        name=f"{direction.value}[{number - 1}]" if name is None else name.value,
        number=number,
        direction=direction,
        peers=_peers(
            entry.value(lang_policies.RULE_FROM if direction is Direction.INGRESS else lang_policies.RULE_TO)
        ),
        services=() if ports is None else _all_services(ports.value, services),
        action=entry.value(lang_policies.RULE_ACTION),
        log=entry.value(lang_policies.RULE_LOG),
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
