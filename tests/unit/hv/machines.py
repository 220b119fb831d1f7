"""Guests and machines for the tests of this folder."""

from __future__ import annotations

from ipaddress import IPv4Interface, IPv6Interface

from vnet.hv.argv import Machine, machine_of
from vnet.hv.spec import GuestNic, GuestSpec

MIB = 1 << 20


def nic(number: int = 0, *, v6: bool = True) -> GuestNic:
    v4 = IPv4Interface(f"10.10.10.{11 + number}/24")
    addresses = (v4, IPv6Interface(f"fd00:10::{11 + number:x}/64")) if v6 else (v4,)
    return GuestNic(f"web-1.eth{number}", f"eth{number}", 0x525400123450 + number, addresses)


def spec(nics: int = 1) -> GuestSpec:
    return GuestSpec("three-tier", "web-1", "micro", 1, 96 * MIB, tuple(nic(n) for n in range(nics)))


def machine(nics: int = 1, *, run_dir: str = "/run/vnet/fabrics/three-tier/vms/web-1") -> Machine:
    return machine_of(
        spec(nics),
        uuid="6f0cbb5c-3a0a-4f6e-9d8e-2f5b1c7d9a10",
        run_dir=run_dir,
        accel="tcg",
        kernel="/proc/self/fd/7",
        initrd="/proc/self/fd/8",
    )
