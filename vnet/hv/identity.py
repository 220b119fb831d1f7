"""Who a guest is: the lines that `guest/configure` reads."""

from __future__ import annotations

from collections.abc import Iterator

from vnet.hv.spec import GuestNic, GuestSpec, format_mac

ENTROPY_BYTES = 64


def identity_lines(spec: GuestSpec, clock_s: float, entropy: bytes) -> bytes:
    """Hostname, clock, randomness, addresses, gateways and disks of one guest.

    Args:
        spec: the guest.
        clock_s: seconds since 1970, now.
        entropy: `ENTROPY_BYTES` random bytes of the host, for this start of this guest only.
    """
    lines = [f"hostname {spec.name}", f"clock {int(clock_s)}", f"entropy {entropy.hex()}"]
    for nic in spec.nics:
        lines += _nic_lines(nic)
    lines += [f"disk {disk.name}" for disk in spec.disks]
    return "".join(f"{line}\n" for line in lines).encode()


def change_lines(old: GuestSpec, new: GuestSpec) -> bytes:
    """What a guest that runs as `old` is to do to be `new`; connections over what stays go on."""
    lines = [f"forget {name}" for name in sorted(_moved(old, new))]
    lines += [line for nic in old.nics for line in _lost(nic, new)]
    lines += [
        f"undisk {disk.name}" for disk in old.disks if disk.name not in {each.name for each in new.disks}
    ]
    for nic in new.nics:
        lines += _nic_lines(nic)
    lines += [f"disk {disk.name}" for disk in new.disks]
    lines += [f"cpus {new.cpus}"] if new.cpus > old.cpus else []
    return "".join(f"{line}\n" for line in lines).encode()


def _moved(old: GuestSpec, new: GuestSpec) -> frozenset[str]:
    """The interfaces of which nothing stays as it was: gone, another NIC, in another network."""
    will = {nic.interface: nic for nic in new.nics}
    return frozenset(
        nic.interface
        for nic in old.nics
        if nic.interface not in will or _is_another(nic, will[nic.interface])
    )


def _is_another(old: GuestNic, new: GuestNic) -> bool:
    asked = old.asked != new.asked or old.dhcpv6 != new.dhcpv6
    return asked or old.mac != new.mac or not set(old.addresses) & set(new.addresses)


def _lost(nic: GuestNic, new: GuestSpec) -> Iterator[str]:
    """Of a NIC that stays, what it has no more."""
    after = next((each for each in new.nics if each.interface == nic.interface), None)
    if after is None or _is_another(nic, after):
        return
    yield from (
        f"unaddress {nic.interface} {each.with_prefixlen}"
        for each in nic.addresses
        if each not in after.addresses
    )
    yield from (f"ungateway {nic.interface} {each}" for each in nic.gateways if each not in after.gateways)


def _nic_lines(nic: GuestNic) -> list[str]:
    has_v6 = any(address.version == 6 for address in nic.addresses)
    asked = {address.version for address in nic.asked}
    lines = [f"nic {nic.interface} {format_mac(nic.mac)} {nic.mtu} {has_v6 + (6 in asked)}"]
    given = (address for address in nic.addresses if address not in nic.asked)
    lines += [f"address {nic.interface} {address.with_prefixlen}" for address in given]
    told = (gateway for gateway in nic.gateways if gateway.version not in asked)
    lines += [f"gateway {nic.interface} {gateway}" for gateway in told]
    lines += [f"resolver {resolver} {nic.domain}" for resolver in nic.resolvers]
    lines += [f"dhcp {nic.interface}"] if 4 in asked else []
    return lines + ([f"dhcp6 {nic.interface} {nic.dhcpv6}"] if nic.dhcpv6 else [])
