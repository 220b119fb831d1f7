"""What happens when something breaks: the manager, QEMU, the guest, the template, the host."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from tests.breaking_off import broken_off
from tests.vm.hv_lab import FABRIC, carrier, lab, left_over, processes, spec
from tests.waiting import until
from vnet.base import paths
from vnet.base.errors import AdmissionError, HostError
from vnet.hv import monitor
from vnet.hv.live import image, record
from vnet.hv.live.record import record_path


@pytest.fixture
def place():
    with lab() as made:
        yield made


def start_manager(place, *words):
    """Another process that manages guests, ready to be killed."""
    command = [sys.executable, "-m", "tests.vm.hv_lab", place.namespace, *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def kill(process):
    process.kill()
    process.wait()
    process.stdout.close()


def test_guests_outlive_their_manager_and_the_next_one_adopts_them(place):
    other = start_manager(place, 1, 2)
    assert other.stdout.readline() == "ready\n"
    kill(other)
    began = time.monotonic()
    statuses = place.run(place.manager.adopt(FABRIC, [spec(1), spec(2), spec(3)]))
    assert time.monotonic() - began < 15
    assert [status.state.value for status in statuses] == ["running", "running", "stopped"]
    assert carrier(place.namespace, "t1e0")
    assert place.exec(1, "ping", "-c", "1", "-W", "5", "10.9.0.2").exit_code == 0
    place.run(place.manager.stop(FABRIC, "vm-1"))
    assert place.status(1).state.value == "stopped"


@pytest.mark.parametrize("after_s", [0.3, 0.6, 0.9, 1.2, 1.5, 2.0])
def test_a_manager_killed_in_the_middle_of_a_start_leaves_nothing_that_the_next_start_minds(place, after_s):
    other = start_manager(place, 1)
    time.sleep(after_s)
    kill(other)
    place.start(spec(1))
    assert place.exec(1, "hostname").stdout == b"vm-1\n"
    assert len(processes(str(paths.run_dir()))) == 1


def test_a_manager_killed_while_it_makes_a_template_leaves_nothing_that_the_next_one_minds(
    place, tmp_path, monkeypatch
):
    images = tmp_path / "images"
    images.mkdir()
    made = image.ensure(place.progress.append).kernel.parent
    shutil.copytree(made, images / made.name)
    (images / "micro").symlink_to(made.name)
    monkeypatch.setenv("VNET_STATE_DIR", str(tmp_path))
    other = start_manager(place, 1)
    until(lambda: processes(str(paths.run_dir())))
    kill(other)
    assert len(processes(str(paths.run_dir()))) == 1, "the template's QEMU goes on"
    (status,) = place.start(spec(1))
    assert status.warm
    assert len(processes(str(paths.run_dir()))) == 1
    assert [path.name for path in (images / "templates").glob(".building-*")] == []


def test_a_half_made_guest_is_not_adopted_but_ended(place):
    place.start(spec(1))
    path = record_path(FABRIC, "vm-1")
    place.run(place.manager.close())
    replace(record.read(path), ready=False).write(path)
    place.manager = place.new_manager()
    (status,) = place.run(place.manager.adopt(FABRIC, [spec(1)]))
    assert status.state.value == "stopped"
    assert processes(str(paths.run_dir())) == []


def test_a_stale_pid_file_and_stale_sockets_are_cleared_away(place):
    place.start(spec(1))
    pid = place.status(1).pid
    place.run(place.manager.close())
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.5)
    assert (paths.vm_run_dir(FABRIC, "vm-1") / "qmp.sock").exists()
    place.manager = place.new_manager()
    place.start(spec(1))
    assert place.status(1).pid != pid
    assert place.exec(1, "true").exit_code == 0


def test_half_a_command_of_a_manager_that_was_killed_is_not_run(place):
    """Its agent stands still meanwhile, so it reads what two managers wrote as one."""
    place.start(spec(1))
    still = "(sleep 1; kill -STOP $(pidof agent); sleep 6; kill -CONT $(pidof agent)) >/dev/null 2>&1 &"
    place.exec(1, "sh", "-c", still)
    place.run(place.manager.close())
    time.sleep(3)
    for written in (b"\nrun 1 'touch' '/tmp/whole' #\nrun 2 'touch' '/tmp/half'", b"\nsync 0\n"):
        with socket.socket(socket.AF_UNIX) as dying:
            dying.connect(str(paths.vm_run_dir(FABRIC, "vm-1") / "agent.sock"))
            dying.sendall(written)
            time.sleep(0.5)
    place.manager = place.new_manager()
    place.run(place.manager.adopt(FABRIC, [spec(1)]))
    until(lambda: place.exec(1, "ls", "/tmp/whole").exit_code == 0)
    assert place.exec(1, "ls", "/tmp/half").exit_code != 0


def test_destroy_ends_a_guest_that_no_manager_remembers(place):
    place.start(spec(1))
    place.run(place.manager.close())
    place.manager = place.new_manager()
    assert place.manager.left_over(FABRIC, []) == ("vm-1",)
    place.run(place.manager.destroy(FABRIC, "vm-1"))
    assert left_over(str(paths.run_dir())) == []


def test_the_death_of_qemu_is_reported_and_the_guest_starts_again(place):
    place.start(spec(1))
    os.kill(place.status(1).pid, signal.SIGKILL)
    place.settle(1)
    assert [(event.name, event.state.value) for event in place.events] == [("vm-1", "crashed")]
    assert "killed" in place.status(1).reason
    with pytest.raises(HostError, match="vm-1 is crashed: start it with `vnet start vm-1`"):
        place.exec(1, "true")
    place.start(spec(1))
    assert place.status(1).state.value == "running"


def test_the_death_of_an_adopted_qemu_is_reported(place):
    place.start(spec(1))
    place.run(place.manager.close())
    place.manager = place.new_manager()
    (status,) = place.run(place.manager.adopt(FABRIC, [spec(1)]))
    os.kill(status.pid, signal.SIGKILL)
    place.settle(1)
    assert [event.state.value for event in place.events] == ["crashed"]


def test_a_guest_that_switches_itself_off_is_stopped_and_nothing_is_left(place):
    place.start(spec(1))
    place.run(place.manager.stop(FABRIC, "vm-1"))
    place.start(spec(1))
    place.settle(0.5)
    assert place.events == [], "an earlier power-off was taken for one of this run"
    place.exec(1, "sh", "-c", "(sleep 2; poweroff -f) >/dev/null 2>&1 &")
    place.settle(5)
    assert [(event.state.value, event.text) for event in place.events] == [("stopped", "switched itself off")]
    assert processes(str(paths.run_dir())) == []


def test_a_guest_that_does_not_fit_is_refused_before_anything_is_made(place):
    with pytest.raises(AdmissionError, match="not enough memory for vm-1"):
        place.start(replace(spec(1), memory_bytes=1 << 50))
    assert not paths.vm_run_dir(FABRIC, "vm-1").exists()


def test_a_tap_that_cannot_be_opened_fails_the_start_and_leaves_nothing(place):
    def refuse(nic):
        raise HostError(f"no TAP for {nic}")

    with pytest.raises(HostError, match=r"no TAP for vm-1\.eth0"):
        place.run(place.manager.start(spec(1), refuse))
    assert left_over(str(paths.run_dir())) == []
    assert place.start(spec(1))[0].state.value == "running"


def test_a_template_that_qemu_refuses_is_replaced_by_a_cold_boot(place, monkeypatch):
    def broken(descriptor):
        return monitor.Command("migrate-incoming", {"uri": "fd:nowhere"}), 0

    monkeypatch.setattr(monitor, "load_state", lambda fd: broken(fd)[:1])
    (status,) = place.start(spec(1))
    assert (status.state.value, status.warm) == ("running", False)
    assert any("booting it instead" in text for text in place.progress)


def test_a_start_that_is_broken_off_anywhere_leaves_nothing(place):
    place.start(spec(1))  # makes the template that the others start from
    place.run(place.manager.destroy(FABRIC, "vm-1"))
    for wait in range(1, 200, 2):
        try:
            place.run(broken_off(place.manager.start(spec(1), place.open_tap), wait))
        except asyncio.CancelledError:
            if place.status(1).state.value != "running":
                assert processes(str(paths.run_dir())) == []
                assert left_over(str(paths.run_dir())) == []
                continue
        break  # it was complete before
    assert place.exec(1, "true").exit_code == 0
    assert wait > 30, "it did not wait as often as there are steps"


def test_a_folder_too_deep_for_sockets_is_named(place, monkeypatch):
    deep = f"{paths.run_dir()}/{'x' * 80}"
    monkeypatch.setenv("VNET_RUN_DIR", deep)
    with pytest.raises(HostError, match="the kernel takes 107"):
        place.start(spec(1))


def test_a_paused_guest_keeps_its_memory_and_goes_on(place):
    place.start(spec(1))
    place.exec(1, "sh", "-c", "while :; do echo >>/tmp/turns; sleep 0.1; done >/dev/null 2>&1 &")
    place.run(place.manager.pause(FABRIC, "vm-1"))
    place.run(place.manager.pause(FABRIC, "vm-1"))
    assert place.status(1).state.value == "paused"
    with pytest.raises(HostError, match="vm-1 is paused: resume it with `vnet resume vm-1`"):
        place.exec(1, "true")
    place.run(place.manager.resume(FABRIC, "vm-1"))
    before = int(place.exec(1, "wc", "-l", "/tmp/turns").stdout.split()[0])
    place.settle(1)
    assert int(place.exec(1, "wc", "-l", "/tmp/turns").stdout.split()[0]) > before > 0


def test_a_paused_guest_is_found_paused_by_the_next_manager_and_can_be_stopped(place):
    place.start(spec(1))
    place.run(place.manager.pause(FABRIC, "vm-1"))
    place.run(place.manager.close())
    place.manager = place.new_manager()
    (status,) = place.run(place.manager.adopt(FABRIC, [spec(1)]))
    assert status.state.value == "paused"
    place.run(place.manager.stop(FABRIC, "vm-1"))
    assert place.status(1).state.value == "stopped"


def test_a_reset_guest_boots_again_and_gets_its_addresses(place):
    place.start(spec(1))
    pid = place.status(1).pid
    place.exec(1, "touch", "/tmp/there")
    place.run(place.manager.reset(FABRIC, "vm-1"))
    assert place.status(1).pid == pid
    assert place.exec(1, "ls", "/tmp/there").exit_code != 0
    assert b"10.9.0.1/24" in place.exec(1, "ip", "addr").stdout
    assert place.events == []


def test_a_guest_that_reboots_itself_gets_its_addresses_again(place):
    place.start(spec(1))
    place.exec(1, "sh", "-c", "(sleep 1; reboot -f) >/dev/null 2>&1 &")
    until(lambda: place.settle(0.5) or place.events, 60)
    assert [(event.what.value, event.state.value) for event in place.events] == [("rebooted", "running")]
    assert b"10.9.0.1/24" in place.exec(1, "ip", "addr").stdout


@pytest.mark.parametrize("after_s", [0.05, 0.5, 1.5])
def test_a_reset_that_the_manager_did_not_live_to_see_is_completed_by_the_next(place, after_s):
    other = start_manager(place, 1, "reset")
    assert other.stdout.readline() == "ready\n"
    time.sleep(after_s)
    kill(other)
    (status,) = place.run(place.manager.adopt(FABRIC, [spec(1)]))
    assert status.state.value == "running"
    assert b"10.9.0.1/24" in place.exec(1, "ip", "addr").stdout
    place.settle(0.5)
    assert place.events == []
