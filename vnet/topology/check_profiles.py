"""Checks of port-security profiles: what is built in, and whose addresses others are allowed."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network

from vnet.topology import language_nics as lang
from vnet.topology.draft import Draft
from vnet.topology.model import STRICT, IPAddress, IPInterface, IPNetwork
from vnet.topology.reading import Reading, quoted
from vnet.topology.shape import Entry, Read
from vnet.topology.values import format_mac


def check(draft: Draft, reading: Reading) -> None:
    """Reports every fault of the profiles to `reading`."""
    own = {address.value.ip: name for name, address in _declared_addresses(draft)}
    macs = {mac.value: name for name, mac in _declared_macs(draft)}
    for name, profile in draft.profiles.items():
        if name == STRICT.name:
            reading.fault(profile.at, profile.path, f"{quoted(name)} is built in", "choose another name")
        _check_numbers(profile.value, reading)
        for pair in _pairs(profile.value):
            _check_pair(pair.value, own, macs, reading)


def _pairs(profile: Entry) -> tuple[Read[Entry], ...]:
    found = profile.get(lang.PROFILE_PAIRS)
    return () if found is None else found.value


def _declared_addresses(draft: Draft) -> Iterator[tuple[str, Read[IPInterface]]]:
    for vm, nics in draft.nics.items():
        for nic in nics:
            yield from ((f"{vm}.{nic.name}", address) for address in nic.addresses)


def _declared_macs(draft: Draft) -> Iterator[tuple[str, Read[int]]]:
    for vm, nics in draft.nics.items():
        yield from ((f"{vm}.{nic.name}", nic.mac) for nic in nics if nic.mac is not None)


def _check_numbers(profile: Entry, reading: Reading) -> None:
    pairs = profile.get(lang.PROFILE_PAIRS)
    if pairs is None:
        return
    addresses = [each.value.get(lang.PAIR_ADDRESS) for each in pairs.value]
    count = sum(address.value.num_addresses for address in addresses if address is not None)
    if count > lang.PAIR_ADDRESSES_MAX:
        problem = f"expected at most {lang.PAIR_ADDRESSES_MAX} addresses in all, found {count}"
        reading.fault(pairs.at, pairs.path, problem, "list the addresses that are in use")
    found = [each.value.get(lang.PAIR_MAC) for each in pairs.value]
    macs = {mac.value for mac in found if mac is not None}
    limit = profile.part(lang.PROFILE_LIMITS).get(lang.LIMIT_MACS)
    most = lang.LIMIT_MACS.default if limit is None else limit.value
    if most is not None and len(macs) >= most:
        problem = f"with these {len(macs)} MACs and its own a NIC has more than its limit of {most}"
        reading.fault(pairs.at, pairs.path, problem, 'raise "macs" of "limits"')


def _check_pair(pair: Entry, own: dict[IPAddress, str], macs: dict[int, str], reading: Reading) -> None:
    address, mac = pair.get(lang.PAIR_ADDRESS), pair.get(lang.PAIR_MAC)
    if address is not None:
        kind = _kind(address.value)
        taken = next((ip for ip in own if ip in address.value), None)
        if kind:
            reading.fault(address.at, address.path, f"{address.value} is {kind} and cannot be allowed")
        elif taken is not None:
            problem = f"{taken} is the address of {quoted(own[taken])}: nobody else can have it"
            reading.fault(address.at, address.path, problem, "list addresses that belong to no NIC")
    if mac is not None and mac.value in macs:
        problem = f"{format_mac(mac.value)} is the MAC of {quoted(macs[mac.value])} already"
        reading.fault(mac.at, mac.path, problem)


def _kind(addresses: IPNetwork) -> str:
    """What addresses are that nobody can be given; empty for others."""
    first = addresses.network_address
    kinds = (
        (first.is_multicast, "multicast"),
        (first.is_loopback, "loopback"),
        (first.is_link_local, "link-local"),
        (isinstance(addresses, IPv4Network) and int(first) >> 28 == 0xF, "reserved"),
        (int(first) >> (addresses.max_prefixlen - 8) == 0, "reserved"),
    )
    return next((kind for applies, kind in kinds if applies), "")
