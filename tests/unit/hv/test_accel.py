from __future__ import annotations

import pytest

from vnet.base.errors import InputError
from vnet.hv.accel import LIMIT_S, Accel, Probe, decide, for_unprivileged, override


def test_real_kvm_is_taken():
    assert decide(Probe(0.00002)) == Accel("kvm", "KVM works: 1.0 ns per turn of a loop")


def test_emulated_kvm_is_refused_although_it_works():
    assert decide(Probe(0.024)) == Accel(
        "tcg", "KVM is emulated here: 1,200 ns per turn of a loop, real KVM needs about 1"
    )


def test_the_limit_itself_is_in_time():
    assert decide(Probe(LIMIT_S)).name == "kvm"
    assert decide(Probe(LIMIT_S * 1.001)).name == "tcg"


def test_the_reason_of_a_probe_that_found_nothing_is_told():
    assert decide(Probe(None, "there is no /dev/kvm")) == Accel(
        "tcg", "KVM is not usable: there is no /dev/kvm"
    )


def test_the_environment_overrides():
    assert override(None) is None and override("") is None
    assert override("kvm") == Accel("kvm", "VNET_ACCEL=kvm")
    with pytest.raises(InputError, match="VNET_ACCEL=xen is not understood: it can be tcg or kvm"):
        override("xen")


@pytest.mark.parametrize(
    ("mode", "group", "name", "given_group"),
    [
        (0o666, 0, "kvm", None),
        (0o660, 106, "kvm", 106),
        (0o660, 0, "tcg", None),
        (0o600, 106, "tcg", None),
        (0o640, 106, "tcg", None),
    ],
)
def test_kvm_is_only_used_if_qemu_may_open_it_without_being_root(mode, group, name, given_group):
    found = for_unprivileged(Accel("kvm", "KVM works"), mode, group)
    assert (found.name, found.group) == (name, given_group)


def test_tcg_needs_no_group():
    assert for_unprivileged(Accel("tcg", "x"), 0o660, 106) == Accel("tcg", "x")
