"""Who a guest is: the lines that `guest/configure` reads."""

from __future__ import annotations

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
