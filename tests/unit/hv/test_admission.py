from __future__ import annotations

import pytest

from vnet.base.errors import AdmissionError, Exit, InputError
from vnet.hv.admission import (
    DISK_RESERVE_BYTES,
    HOST_RESERVE_BYTES,
    OVERHEAD_BYTES,
    VCPUS_PER_CPU,
    Commitment,
    Room,
    admit,
    admit_backup,
    admit_disks,
    admit_restored,
    admit_vcpus,
    vcpus_per_cpu,
)

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


def test_fifty_small_guests_may_share_two_cpus():
    admit_vcpus([(f"vm-{n}", 1) for n in range(50)], 0, 2, VCPUS_PER_CPU)


def test_one_vcpu_too_many_is_refused_with_the_sum():
    admit_vcpus([("a", 4), ("b", 2)], 2, 2, 4)
    with pytest.raises(AdmissionError) as caught:
        admit_vcpus([("a", 4), ("b", 3)], 2, 2, 4)
    assert caught.value.exit_code is Exit.REFUSED
    text = str(caught.value)
    assert "not enough CPUs for a, b: 7 vCPUs are asked for and 2 run already" in text
    assert "2 CPUs with 4 vCPUs each are enough for 8: 6 are left" in text and "VNET_VCPUS_PER_CPU" in text


def test_who_asks_for_no_vcpu_is_admitted_however_many_run():
    admit_vcpus([], 900, 2, 4)


def test_how_many_share_a_cpu_can_be_said():
    assert (vcpus_per_cpu(None), vcpus_per_cpu(""), vcpus_per_cpu("4")) == (32, 32, 4)
    for wrong in ("0", "-1", "many", "1.5"):
        with pytest.raises(InputError, match=f"VNET_VCPUS_PER_CPU={wrong}"):
            vcpus_per_cpu(wrong)


def test_a_backup_that_the_store_has_no_room_for_is_refused_with_the_sum():
    wanted = [("data", 600 * MIB), ("logs", 400 * MIB)]
    admit_backup(wanted, Room(1, 1500 * MIB, "/b"), 500 * MIB)
    with pytest.raises(AdmissionError) as caught:
        admit_backup(wanted, Room(1, 1500 * MIB - 1, "/b"), 500 * MIB)
    assert caught.value.exit_code is Exit.REFUSED
    text = str(caught.value)
    assert "a backup of data, logs: 1,000 MiB are to be copied" in text
    assert "1,500 MiB that are free in /b 500 MiB are kept for what grows: 1,000 MiB are left" in text
    with pytest.raises(AdmissionError, match=r"of 10 MiB that are free in /b 10 MiB are left"):
        admit_backup(wanted, Room(1, 10 * MIB, "/b"), 0)


def test_preallocated_disks_that_do_not_fit_are_refused_with_the_sum():
    wanted = [("db/data", 600 * MIB), ("db/logs", 400 * MIB), ("db/thin", 0)]
    admit_disks(wanted, Room(1, 1000 * MIB + DISK_RESERVE_BYTES, "/d"))
    with pytest.raises(AdmissionError) as caught:
        admit_disks(wanted, Room(1, 1000 * MIB + DISK_RESERVE_BYTES - 1, "/d"))
    assert caught.value.exit_code is Exit.REFUSED
    text = str(caught.value)
    assert "disks db/data, db/logs: they take 1,000 MiB" in text and "1,000 MiB are left" in text
    admit_disks([("db/thin", 0)], Room(1, 0, "/d"))


def test_a_restore_that_does_not_fit_beside_what_it_replaces_is_refused_with_the_sum():
    wanted = [("data", 600 * MIB), ("logs", 400 * MIB)]
    admit_restored(wanted, Room(1, 1000 * MIB + DISK_RESERVE_BYTES, "/d"))
    with pytest.raises(AdmissionError) as caught:
        admit_restored(wanted, Room(1, 1000 * MIB + DISK_RESERVE_BYTES - MIB, "/d"))
    assert caught.value.exit_code is Exit.REFUSED
    text = str(caught.value)
    assert "what is restored of data, logs: 1,000 MiB or more are written" in text
    assert "512 MiB are kept for what grows: 999 MiB are left" in text and "--disk" in text
