"""What `live/` keeps in files, without any guest."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from vnet.base.errors import HostError, InputError
from vnet.hv.built import Places, built_for
from vnet.hv.live import image, process, record, users
from vnet.hv.live.record import Record, record_path

RECORD = Record(
    "uuid-1",
    60600,
    "tcg",
    True,
    96 << 20,
    ("/sys/fs/cgroup/x",),
    built=built_for(1, 96 << 20, 2, "tcg"),
    places=Places((("eth0", 0),), (("data", 0, 1),)),
    links_down=("eth0",),
)


@pytest.fixture(autouse=True)
def own_roots(tmp_path, monkeypatch):
    monkeypatch.setenv("VNET_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("VNET_STATE_DIR", str(tmp_path / "state"))


def test_a_record_is_read_back_and_lies_outside_the_guests_folder():
    path = record_path("f", "web-1")
    path.parent.mkdir(parents=True)
    RECORD.write(path)
    assert record.read(path) == RECORD
    assert path.name == "web-1.json" and record.names("f") == ("web-1",)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"uuid": "x"}', '{"cgroups": []}'])
def test_a_record_that_cannot_be_read_is_no_record(text):
    path = record_path("f", "web-1")
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert record.read(path) is None


def test_a_vm_with_a_dot_in_its_name_has_a_record_of_its_own():
    assert record_path("f", "web.1") != record_path("f", "web")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give folders away")
def test_every_guest_gets_a_user_of_its_own_and_keeps_it(tmp_path):
    vms = tmp_path / "run/fabrics/f/vms"
    first, second = users.claim_dir(vms / "a"), users.claim_dir(vms / "b")
    assert first != second
    assert users.claim_dir(vms / "a") == first
    assert (vms / "a").stat().st_uid == first and (vms / "a").stat().st_mode & 0o777 == 0o700
    (vms / "a").rmdir()
    assert users.claim_dir(vms / "c") == first


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give folders away")
def test_the_guests_user_can_reach_its_folder_whatever_the_umask(tmp_path):
    before = os.umask(0o077)
    try:
        (tmp_path / "run").mkdir()
        users.claim_dir(tmp_path / "run/fabrics/f/vms/a")
    finally:
        os.umask(before)
    for folder in ("run", "run/fabrics", "run/fabrics/f", "run/fabrics/f/vms"):
        assert (tmp_path / folder).stat().st_mode & 0o001
    assert (tmp_path / "run/fabrics/f/vms/a").stat().st_mode & 0o777 == 0o700


def test_user_numbers_of_the_system_are_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("VNET_QEMU_UID_FIRST", "0")
    with pytest.raises(InputError, match="VNET_QEMU_UID_FIRST=0"):
        users.claim_dir(tmp_path / "x")


def test_a_pid_file_that_names_another_process_is_not_believed(tmp_path):
    pid_file = tmp_path / "pid"
    for text in (str(os.getpid()), "1", "0", "-1", "x", "", "99999999999999999999"):
        pid_file.write_text(text)
        assert process.find(pid_file, user=os.getuid()) is None
    assert process.find(tmp_path / "none", user=0) is None


def test_a_process_is_found_by_the_pid_file_on_its_command_line(tmp_path):
    pid_file = tmp_path / "pid"
    child = subprocess.Popen(["sh", "-c", "sleep 60; :", "-pidfile", str(pid_file)])
    try:
        while not Path(f"/proc/{child.pid}/cmdline").read_bytes():  # exec has begun, but for its arguments
            time.sleep(0.01)
        found = process.search(pid_file, user=os.getuid())
        assert found is not None and found.pid == child.pid and found.alive()
        found.close()
        pid_file.write_text(str(child.pid))
        found = process.find(pid_file, user=os.getuid())
        assert found is not None and found.pid == child.pid
        found.close()
        assert process.search(tmp_path / "pi", user=os.getuid()) is None
    finally:
        child.kill()
        child.wait()


def test_there_is_no_image_before_it_is_built():
    assert image.current() is None


def test_a_missing_tool_is_named(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(HostError, match="apt-cache is missing; the micro guest is made on Debian 12"):
        image.build(lambda text: None)
