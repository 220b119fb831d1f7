"""What dnsmasq is told for one network: configuration, who gets which address, who has which name.

Nothing here knows of paths or processes: the files' names are on dnsmasq's command line. Everybody is known
beforehand, so dnsmasq chooses no address itself (`static` ranges). Source: dnsmasq(8), version 2.90.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vnet.topology.inventory import Inventory, ServicePort
from vnet.topology.model import Advertised, IPAddress, Network, Served, Topology
from vnet.topology.routing import Routing
from vnet.topology.values import format_mac

INTERFACE = "eth0"
"""In the namespace of the service."""
RA_INTERVAL_S = 60
ROUTER_LIFETIME_S = 1800
"""RFC 4861, section 6.2.1: three times the longest interval of those that send as seldom as possible."""
LEASES_MAX = 100_000
TOP_DOMAIN = "internal"
"""Kept for private use, so that nobody outside has names in it (ICANN board, 2024-07-29)."""
TTL_S = 5
"""A VM may get another address; who asked for its name is to notice soon."""


@dataclass(frozen=True, slots=True)
class Files:
    """The contents of dnsmasq's files: its configuration, and what it reads again when it gets SIGHUP."""

    config: str
    hosts: str
    """Addresses by MAC (`dhcp-hostsfile`)."""
    names: str
    """Names by address (hosts(5))."""


def files(topology: Topology, inventory: Inventory, service: ServicePort) -> Files:
    """The files of one network's dnsmasq."""
    network = topology.networks[service.network]
    is_routed = Routing(topology).router(network.name) is not None
    config = _config(topology.name, network, service, is_routed)
    return Files(
        "\n".join(config) + "\n",
        "".join(f"{line}\n" for line in _hosts(network, inventory)),
        "".join(f"{line}\n" for line in _names(topology, inventory)) if network.domain else "",
    )


def _config(fabric: str, network: Network, service: ServicePort, is_routed: bool) -> Iterator[str]:
    yield f"# For network {network.name} of fabric {fabric}. Made by vnet: changes are lost."
    yield from (f"interface={INTERFACE}", "except-interface=lo", "bind-interfaces")
    yield from ("no-resolv", "no-hosts", "no-ping")
    yield from ("quiet-dhcp", "quiet-dhcp6", "quiet-ra", "log-facility=-")
    yield from _dns(fabric, network)
    yield from _dhcp(network, service, is_routed)
    yield from _advertisements(network, is_routed, service.mtu_bytes)


def _dns(fabric: str, network: Network) -> Iterator[str]:
    """Without `server` lines dnsmasq refuses what it does not know itself; unknown `local` names are none.

    Forwarders may tell addresses of the fabric's own subnets too: they are chosen by who wrote the file.
    """
    if not network.domain:
        yield "port=0"
        return
    yield "port=53"
    yield from ("localise-queries", "bogus-priv", f"local-ttl={TTL_S}", f"local=/{TOP_DOMAIN}/")
    if not f".{network.domain}".endswith(f".{TOP_DOMAIN}"):
        yield f"local=/{network.domain}/"
    yield f"domain={network.domain}"
    yield from (f"server={forwarder}" for forwarder in network.forwarders)


def _dhcp(network: Network, service: ServicePort, is_routed: bool) -> Iterator[str]:
    if network.served:
        yield from ("dhcp-authoritative", f"dhcp-lease-max={LEASES_MAX}")
    for number, served in enumerate(network.served):
        own = next(each.ip for each in service.addresses if each.ip in served.subnet)
        yield _range(f"s{number}", served)
        if served.dhcp is not None or served.ra is Advertised.SLAAC:
            yield from _options(f"s{number}", own, network, is_routed, service.mtu_bytes)


def _range(tag: str, served: Served) -> str:
    subnet, dhcp = served.subnet, served.dhcp
    lease = f",{dhcp.lease_s}" if dhcp else ""
    if subnet.version == 4:
        return f"dhcp-range=set:{tag},{subnet.network_address},static,{subnet.netmask}{lease}"
    by_itself = served.ra is Advertised.SLAAC
    modes = [*(["static"] if dhcp else []), *(["slaac" if dhcp else "ra-only"] if by_itself else [])]
    return f"dhcp-range=set:{tag},{subnet.network_address},{','.join(modes)},{subnet.prefixlen}{lease}"


def _options(tag: str, own: IPAddress, network: Network, is_routed: bool, mtu_bytes: int) -> Iterator[str]:
    """What guests are told besides their address; an option without a value is not sent at all."""
    option = "option" if own.version == 4 else "option6"
    address = str(own) if own.version == 4 else f"[{own}]"
    servers = f",{address}" if network.domain else ""
    if own.version == 4:
        yield f"dhcp-option=tag:{tag},option:router{f',{own}' if is_routed else ''}"
        yield f"dhcp-option=tag:{tag},option:mtu,{mtu_bytes}"
    if own.version == 4 or servers:
        yield f"dhcp-option=tag:{tag},{option}:dns-server{servers}"
    if network.domain:
        search = "domain-search"
        yield f"dhcp-option=tag:{tag},{option}:{search},{network.domain}"


def _advertisements(network: Network, is_routed: bool, mtu_bytes: int) -> Iterator[str]:
    """Who advertises without a router says that it is none: its lifetime is 0 (RFC 4861, 4.2)."""
    told = {served.ra for served in network.served} - {Advertised.NONE}
    if Advertised.MANAGED in told:
        yield "enable-ra"
    if told:
        lifetime_s = ROUTER_LIFETIME_S if is_routed else 0
        yield f"ra-param={INTERFACE},mtu:{mtu_bytes},{RA_INTERVAL_S},{lifetime_s}"


def _hosts(network: Network, inventory: Inventory) -> Iterator[str]:
    """Each NIC gets what the fabric gave it; what is reserved for other MACs comes after."""
    served = [each for each in network.served if each.dhcp is not None]
    macs = set()
    for nic in inventory.nics:
        macs.add(format_mac(nic.mac))
        own = [each.ip for each in nic.addresses if any(each.ip in one.subnet for one in served)]
        if nic.network == network.name and own:
            yield ",".join([format_mac(nic.mac), *map(_bracketed, own), nic.vm])
    for each in served:
        for whose, address in each.dhcp.reservations.items() if each.dhcp else ():
            if ":" in whose and whose not in macs:
                yield f"{whose},{_bracketed(address)}"


def _bracketed(address: IPAddress) -> str:
    return f"[{address}]" if address.version == 6 else str(address)


def _names(topology: Topology, inventory: Inventory) -> Iterator[str]:
    """All VMs of the fabric in `FABRIC.internal`, by network too, replicas also by the name they share.

    The first name is the one that is told for the address.
    """
    fabric = f"{topology.name}.{TOP_DOMAIN}"
    for vm in inventory.vms:
        for nic in vm.nics:
            network = topology.networks[nic.network]
            domains = [fabric, f"{nic.network}.{fabric}"]
            domains += [network.domain] if network.domain not in ("", fabric) else []
            spoken = dict.fromkeys(f"{name}.{domain}" for name in (vm.name, vm.spec) for domain in domains)
            yield from (f"{address.ip} {' '.join(spoken)}" for address in nic.addresses)
