"""Changes of the guests of a fabric: what each takes, for the plan and for those who read it."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface

from vnet.fabric.state import Guest
from vnet.hv import changing
from vnet.hv.built import Built, unchangeable
from vnet.hv.changing import Difference, How
from vnet.hv.spec import GuestNic, GuestSpec


def spec_of(fabric: str, guest: Guest) -> GuestSpec:
    """A guest as the hypervisor side is asked for it."""
    nics = tuple(
        GuestNic(
            f"{guest.name}.{nic.interface}",
            nic.interface,
            nic.mac,
            tuple(map(ip_interface, nic.addresses)),
            asked=tuple(map(ip_interface, nic.asked)),
            gateways=tuple(map(ip_address, nic.gateways)),
            mtu=nic.mtu_bytes,
            dhcpv6=nic.dhcpv6,
            resolvers=tuple(map(ip_address, nic.resolvers)),
            domain=nic.domain,
        )
        for nic in guest.nics
    )
    sizes = guest.cpus, guest.memory_bytes
    return GuestSpec(fabric, guest.name, guest.image, *sizes, nics, guest.disks, guest.boot)


def differences(now: Guest, wanted: Guest) -> tuple[Difference, ...]:
    """What is another in `wanted`, field by field, each with what it takes of the guest that runs now."""
    found = changing.differences(spec_of("", now), spec_of("", wanted), built_of(now))
    broken_off = Difference("an earlier change of it was broken off", How.RESTART)
    return (*found, broken_off) if now.is_half_changed else found


def how(now: Guest, wanted: Guest) -> How:
    """What the change takes as a whole."""
    return changing.most(differences(now, wanted))


def built_of(guest: Guest) -> Built:
    """What the machine of a guest that runs was built for."""
    return guest.built or unchangeable(guest.cpus, guest.memory_bytes)
