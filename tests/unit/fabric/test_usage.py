"""What the kernel counts of processes, control groups and the host."""

from __future__ import annotations

import ctypes
import os
import threading
from pathlib import Path

import pytest

from vnet.fabric.live import usage
from vnet.fabric.numbers import Pressure

PSI = "some avg10=1.19 avg60=1.73 avg300=7.05 total=3543385942\nfull avg10=0.00 total=7\n"
PR_SET_NAME = 15


def test_the_time_that_something_waited_is_the_total_of_some() -> None:
    assert usage.stalled_s(PSI) == 3543.385942
    assert usage.stalled_s("") == usage.stalled_s("full avg10=0.00 total=7\n") == 0.0


def test_what_a_kernel_does_not_count_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "memory.pressure").write_text(PSI)
    assert usage.pressure_in(tmp_path, "{}.pressure") == Pressure(memory_s=3543.385942)


def test_the_pressure_of_a_group_that_is_not_the_guests_own_is_not_the_guests(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    group = tmp_path / "own" / "vnet-lab" / "a"
    group.mkdir(parents=True)
    (group / "memory.pressure").write_text(PSI)
    (tmp_path / "cgroup.controllers").write_text("memory\n")
    told = {"cgroup": "4:memory:/x\n0::/own/vnet-lab/a\n"}
    read = usage._read
    monkeypatch.setattr(usage, "_MOUNTS", (tmp_path,))
    monkeypatch.setattr(usage, "_read", lambda path: told.get(path.name) or read(path))
    assert usage.group_pressure(7, "vnet-lab/a").memory_s == 3543.385942
    assert usage.group_pressure(7, "vnet-lab/b") == Pressure()


def test_only_threads_that_run_vcpus_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    waited_ns = {"CPU 0/TCG": 1_500_000_000, "CPU 1/KVM": 500_000_000, "vnc_worker": 9_000_000_000}
    named, go_on = threading.Barrier(len(waited_ns) + 1), threading.Event()

    def live(name: str) -> None:
        ctypes.CDLL(None).prctl(PR_SET_NAME, name.encode())
        named.wait()
        go_on.wait(10)

    threads = [threading.Thread(target=live, args=(name,), daemon=True) for name in waited_ns]
    for thread in threads:
        thread.start()
    named.wait()
    monkeypatch.setattr(usage, "_waited_ns", lambda task: waited_ns[(task / "comm").read_text().rstrip("\n")])
    assert usage.ready_s(os.getpid()) == 2.0
    go_on.set()


def test_the_second_number_of_schedstat_is_the_wait(tmp_path: Path) -> None:
    (tmp_path / "schedstat").write_text("12 34000 5\n")
    assert usage._waited_ns(tmp_path) == 34000
    assert usage._waited_ns(tmp_path / "gone") == 0


def test_the_host_has_cpus_and_memory() -> None:
    found = usage.host()
    assert found.cpus >= 1 and found.memory_bytes > found.available_bytes > 0
