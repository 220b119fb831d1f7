"""What guests print, kept in files that stay short."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vnet.base import paths
from vnet.hv.live import console_log
from vnet.hv.live.console_log import ROOM_BYTES, Reader, Start, begun, move, put_aside
from vnet.hv.live.process import Process

MIB = 1 << 20


@pytest.fixture(autouse=True)
def own_roots(tmp_path, monkeypatch):
    monkeypatch.setenv("VNET_STATE_DIR", str(tmp_path / "state"))


def kept(start=Start.CURRENT):
    return Reader("shop", "web", start).more()


def start(text=b"", limit_bytes=ROOM_BYTES):
    """A start that printed so; what prints goes on to be able to."""
    with begun("shop", "web", limit_bytes) as descriptor:
        mine = os.dup(descriptor)
    os.write(mine, text)
    return mine


def on_disk():
    return sum(path.stat().st_blocks * 512 for path in paths.console_dir("shop").glob("*/*"))


def test_of_this_start_and_of_the_one_before_is_kept_what_was_printed():
    for text in (b"first\n", b"second\n", b"third\n"):
        os.close(start(text))
    assert (kept(), kept(Start.PREVIOUS)) == (b"third\n", b"second\n")


def test_nobody_else_may_read_it():
    os.close(start())
    folder = paths.console_dir("shop") / "web"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "current").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("limit_bytes", [MIB, 10 * MIB + 5, 1 << 40])
def test_the_kernel_lets_no_process_write_more_than_the_room_whatever_its_limit(limit_bytes):
    """A disk of a TiB lets QEMU make long files; its console's is none of them."""
    descriptor = start(limit_bytes=limit_bytes)
    code = f"""
import os
for _ in range(64):
    try:
        os.write({descriptor}, b"x" * 65536)
    except OSError:
        break
"""

    def bounded():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))

    subprocess.run(
        [sys.executable, "-c", code], pass_fds=[descriptor], preexec_fn=bounded, check=True, timeout=60
    )
    os.close(descriptor)
    assert ROOM_BYTES <= len(kept()) < ROOM_BYTES + 4096
    assert on_disk() < 2 * MIB


@pytest.mark.parametrize("limit_bytes", [MIB, 1 << 40])
def test_a_long_log_is_put_aside_and_its_end_is_kept(limit_bytes):
    descriptor = start(limit_bytes=limit_bytes)
    for number in range(200):
        os.write(descriptor, b"%06d" % number + b"." * 8190 + b"\n")
        put_aside("shop", "web")
    os.close(descriptor)
    lines = kept().splitlines()
    numbers = [int(line[:6]) for line in lines]
    assert numbers == list(range(numbers[0], 200)) and len(numbers) > 64
    assert on_disk() < 2 * MIB


def test_a_follower_misses_and_repeats_nothing_when_something_is_put_aside():
    descriptor = start(b"before\n", limit_bytes=1 << 40)
    reader = Reader("shop", "web", Start.CURRENT)
    read = reader.more()
    for number in range(150):
        os.write(descriptor, b"%06d" % number + b"." * 8190 + b"\n")
        read += reader.more()
        put_aside("shop", "web")
    os.close(descriptor)
    assert [line[:6] for line in read.splitlines()] == [b"before", *(b"%06d" % n for n in range(150))]


def test_a_follower_goes_on_with_the_next_start():
    os.close(start(b"one\n"))
    reader = Reader("shop", "web", Start.CURRENT)
    assert reader.more() == b"one\n"
    os.close(start(b"two\n"))
    assert reader.more() == b"two\n"


def test_a_guest_that_never_started_has_nothing():
    reader = Reader("shop", "web", Start.CURRENT)
    assert not reader.exists and reader.more() == b""


def test_a_guest_that_is_gone_leaves_nothing():
    os.close(start(b"one\n"))
    console_log.remove("shop", "web")
    assert not paths.console_dir("shop").exists()


def test_a_log_that_begins_further_behind_keeps_what_was_printed_and_has_room_again():
    """So it is when a disk that is longer is plugged in."""
    printing = start(b"booting\n", limit_bytes=MIB)
    follower = Reader("shop", "web", Start.CURRENT)
    assert follower.more() == b"booting\n"
    move("shop", "web", 64 * MIB)
    assert follower.more() == b""
    os.write(printing, b"login:\n")
    assert follower.more() == b"login:\n"
    assert kept() == b"booting\nlogin:\n"
    assert os.fstat(printing).st_size > 63 * MIB and on_disk() < 64 << 10
    move("shop", "web", MIB)
    assert kept() == b"booting\nlogin:\n", "it never begins earlier again"
    os.close(printing)


def test_what_a_process_may_write_is_raised_while_it_runs_and_never_lowered():
    child = subprocess.Popen(["prlimit", f"--fsize={MIB}:unlimited", "sleep", "60"])
    try:
        process = Process(child.pid, os.pidfd_open(child.pid), child)
        while b"sleep" not in Path(f"/proc/{child.pid}/cmdline").read_bytes()[:5]:
            time.sleep(0.01)
        process.allow_files(64 * MIB, os.getuid())
        process.allow_files(2 * MIB, os.getuid())
        limits = Path(f"/proc/{child.pid}/limits").read_text()
        assert next(line for line in limits.splitlines() if "file size" in line).split()[3] == str(64 * MIB)
    finally:
        child.kill()
        child.wait()
        os.close(process.pidfd)
