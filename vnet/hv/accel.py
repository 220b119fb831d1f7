"""Which accelerator QEMU uses: decided from a timed probe, because "there is a /dev/kvm" says nothing.

Under some hypervisors KVM exists but is emulated, a thousand times slower than QEMU's own emulation,
and a stock kernel does not boot. QEMU's own fall-back does not notice. So 20,000 turns of a loop are
run in a guest of two instructions, and KVM is taken only if they end in time.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass

from vnet.base.errors import InputError

TURNS = 20_000
LIMIT_S = 0.005
"""Real KVM needs about 1 ns a turn, 0.02 ms in all; an emulated one was seen to need 24 ms."""

OVERRIDE = "VNET_ACCEL"


@dataclass(frozen=True, slots=True)
class Probe:
    """What the probe found: a time, or the reason why there is none."""

    elapsed_s: float | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Accel:
    """The decision, in words for `vnet doctor`. `group` is the group QEMU needs to open /dev/kvm."""

    name: str
    reason: str
    group: int | None = None


def decide(probe: Probe) -> Accel:
    """KVM if the probe ended in time, else TCG, with the reason."""
    if probe.elapsed_s is None:
        return Accel("tcg", f"KVM is not usable: {probe.problem}")
    turn_ns = probe.elapsed_s * 1e9 / TURNS
    if probe.elapsed_s > LIMIT_S:
        return Accel(
            "tcg", f"KVM is emulated here: {turn_ns:,.0f} ns per turn of a loop, real KVM needs about 1"
        )
    return Accel("kvm", f"KVM works: {turn_ns:.1f} ns per turn of a loop")


def override(value: str | None) -> Accel | None:
    """What `VNET_ACCEL` asks for, or None if it is not set.

    Raises:
        InputError: it is neither `tcg` nor `kvm`.
    """
    if not value:
        return None
    if value not in ("tcg", "kvm"):
        raise InputError(f"{OVERRIDE}={value} is not understood: it can be tcg or kvm")
    return Accel(value, f"{OVERRIDE}={value}")


def for_unprivileged(accel: Accel, mode: int, group: int) -> Accel:
    """The same decision, given who may open /dev/kvm: QEMU does not run as root.

    Args:
        accel: what the probe, run as root, decided.
        mode: permission bits of /dev/kvm.
        group: its group.
    """
    if accel.name != "kvm" or mode & 0o006 == 0o006:
        return accel
    if mode & (stat.S_IRGRP | stat.S_IWGRP) == stat.S_IRGRP | stat.S_IWGRP and group != 0:
        return Accel(accel.name, accel.reason, group)
    return Accel(
        "tcg", "KVM works but only for root (mode of /dev/kvm): `chgrp kvm /dev/kvm; chmod 660 /dev/kvm`"
    )
