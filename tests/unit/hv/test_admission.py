from __future__ import annotations

import pytest

from vnet.base.errors import AdmissionError, Exit
from vnet.hv.admission import HOST_RESERVE_BYTES, OVERHEAD_BYTES, Commitment, admit

MIB = 1 << 20


def test_guests_that_fit_are_admitted():
    admit([("a", 96 * MIB)], [], 96 * MIB + OVERHEAD_BYTES + HOST_RESERVE_BYTES)


def test_one_byte_less_is_refused_with_the_sum():
    with pytest.raises(AdmissionError) as caught:
        admit(
            [("a", 96 * MIB), ("b", 96 * MIB)], [], 2 * (96 * MIB + OVERHEAD_BYTES) + HOST_RESERVE_BYTES - 1
        )
    assert caught.value.exit_code is Exit.REFUSED
    text = str(caught.value)
    assert "not enough memory for a, b: needs 320 MiB" in text and "320 MiB are left" in text


def test_what_running_guests_have_not_taken_yet_is_kept_for_them():
    young = Commitment(96 * MIB, resident_bytes=32 * MIB)
    assert young.outstanding_bytes == 64 * MIB + OVERHEAD_BYTES
    free = 96 * MIB + OVERHEAD_BYTES + HOST_RESERVE_BYTES
    with pytest.raises(AdmissionError, match="128 MiB are promised to running guests"):
        admit([("b", 96 * MIB)], [young], free)
    admit([("b", 96 * MIB)], [young], free + young.outstanding_bytes)


def test_a_guest_that_has_all_its_memory_asks_for_nothing_more():
    assert Commitment(96 * MIB, resident_bytes=400 * MIB).outstanding_bytes == 0


def test_nothing_wanted_is_always_admitted():
    admit([], [], HOST_RESERVE_BYTES)
