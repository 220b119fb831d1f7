"""What comes out of and goes into real guests: logs of their consoles, files."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.vm.fabric_lab import ROOT, Lab, lab
from tests.waiting import until

TEXT = """\
name: transfer
defaults: {image: micro, cpus: 1, memory: 96M}
networks: {lan: {vlan: 10, subnets: 10.0.0.0/24}}
vms: {web: {networks: [lan], disks: [{name: data, size: 1G}]}}
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    file = tmp_path_factory.mktemp("transfer") / "transfer.vnet.yaml"
    file.write_text(TEXT)
    with lab() as made:
        made.vnet("up", "-f", str(file))
        yield made
        made.vnet("stop", "web", "--wait", "0")  # what it printed goes with the fabric all the same
        made.vnet("down", "-n", "transfer", "--disks")
        assert not list(made.directory.glob("state/consoles/*"))
        made.vnet("serve", "--stop")


def sh(host: Lab, command: str) -> str:
    return host.vnet("exec", "web", "--", "sh", "-c", command)


def piped(host: Lab, *words: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """A command whose input and output are bytes."""
    command = [sys.executable, "-m", "vnet", *words]
    return subprocess.run(
        command, input=given, capture_output=True, env=host.environment, cwd=ROOT, check=True
    )


def until_logged(host: Lab, text: str, *options: str) -> list[str]:
    """The lines of its console, once the text is in there."""

    def logged() -> list[str]:
        printed = host.vnet("logs", "web", *options, "-o", "json").splitlines()
        return [json.loads(line)["text"] for line in printed]

    return until(logged, every_s=0.2, holds=lambda lines: any(text in line for line in lines))


def test_what_a_guest_prints_is_kept_and_followed(host: Lab) -> None:
    follower = host.start("logs", "web", "--follow")
    try:
        sh(host, "printf 'one\\n\\033[31mred\\n' >/dev/ttyS0")
        assert "one" in until_logged(host, "red")
        assert host.vnet("logs", "web", "--lines", "1") == "red\n"
        assert follower.stdout is not None and "one" in follower.stdout.readline()
    finally:
        follower.send_signal(signal.SIGINT)
        follower.wait(10)


def test_the_console_can_be_attached_while_it_is_logged(host: Lab) -> None:
    with socket.socket(socket.AF_UNIX) as console:
        console.connect(str(host.directory / "run/fabrics/transfer/vms/web/console.sock"))
        console.settimeout(20)
        console.sendall(b"echo $((6 * 7)) of both\n")
        seen = b""
        while b"42 of both" not in seen:
            seen += console.recv(4096)
    assert any("42 of both" in line for line in until_logged(host, "42 of both"))


def test_a_large_file_is_the_same_there_and_back(host: Lab, tmp_path: Path) -> None:
    sh(host, "mke2fs /dev/disk/data >/dev/null && mkdir -p /data && mount -t ext4 /dev/disk/data /data")
    file, back = tmp_path / "binary", tmp_path / "back"
    file.write_bytes(os.urandom(20 << 20))
    file.chmod(0o751)
    host.vnet("cp", str(file), "web:/data")
    assert sh(host, "cd /data; stat -c '%a %s' binary; ls -A") == "751 20971520\nbinary\nlost+found\n"
    host.vnet("cp", "web:/data/binary", str(back))
    assert back.read_bytes() == file.read_bytes()
    assert back.stat().st_mode & 0o777 == 0o751
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "binary"]


def test_a_folder_goes_there_and_comes_back(host: Lab, tmp_path: Path) -> None:
    source = tmp_path / "site"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "page").write_text("hello")
    (source / "tool").write_text("#!/bin/sh\necho works\n")
    (source / "tool").chmod(0o755)
    (source / "link").symlink_to("deep/page")
    assert "-r" in host.vnet("cp", str(source), "web:/root", expect=1)
    host.vnet("cp", "-r", str(source), "web:/root")
    assert sh(host, "/root/site/tool; cat /root/site/link; ls -A /root") == "works\nhellosite\n"
    sh(host, "ln -s /etc/passwd /root/site/out; ln -s ../../.. /root/site/up")
    told = piped(host, "cp", "-r", "web:/root/site", str(tmp_path / "back")).stderr
    assert b"'out'" in told and b"'up'" in told
    back = tmp_path / "back"
    assert sorted(path.name for path in back.rglob("*")) == ["deep", "link", "page", "tool"]
    assert (back / "link").read_text() == "hello" and os.access(back / "tool", os.X_OK)
    host.vnet("cp", "-r", "web:/root/site", str(back))
    assert "there already" in host.vnet("cp", "-r", "web:/root/site", str(back), expect=1)


def test_standard_input_and_output_are_files_too(host: Lab) -> None:
    piped(host, "cp", "-", "web:/tmp/given", given=b"\0\xff")
    assert piped(host, "cp", "web:/tmp/given", "-").stdout == b"\0\xff"
    assert host.vnet("cp", "web:/proc/sys/kernel/hostname", "-") == "web\n"


def test_what_cannot_be_copied_is_refused_and_leaves_nothing(host: Lab, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * (6 << 20))
    assert "mkdir" in host.vnet("cp", str(file), "web:/no/where", expect=1)
    assert "not there" in host.vnet("cp", "web:/no/where", str(tmp_path), expect=1)
    assert "no file" in host.vnet("cp", "web:/dev/zero", str(tmp_path / "zero"), expect=1)
    assert "no regular file" in host.vnet("cp", "web:/etc/rc", "/dev/null", expect=1)
    assert "there is no VM" in host.vnet("cp", str(file), "nobody:/tmp", expect=1)
    sh(host, "mkdir /small && mount -t tmpfs -o size=5M none /small")
    assert "No space left" in host.vnet("cp", str(file), "web:/small", expect=1)
    assert sh(host, "ls -A /small") == ""
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def is_copying_or_done(host: Lab, process: subprocess.Popen[str]) -> bool:
    return process.poll() is not None or ".vnet-cp-" in sh(host, "ls -A /data")


def test_a_copy_that_is_interrupted_leaves_nothing(host: Lab, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * (64 << 20))
    for _ in range(5):  # it can be quicker than we
        process = host.start("cp", str(tmp_path / "file"), "web:/data/interrupted")
        until(partial(is_copying_or_done, host, process), every_s=0)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
        if process.returncode:
            break
        sh(host, "rm /data/interrupted")
    assert process.returncode == 130
    assert sh(host, "ls -A /data") == "binary\nlost+found\n"


def test_the_log_of_a_guest_that_panicked_says_why(host: Lab) -> None:
    sh(host, "(sleep 0.3; echo c >/proc/sysrq-trigger) >/dev/null 2>&1 &")
    lines = until_logged(host, "Kernel panic")
    assert any("sysrq triggered crash" in line for line in lines)
    host.until_vm("web", state="crashed")
    host.vnet("start", "web")
    assert any("Kernel panic" in line for line in until_logged(host, "Kernel panic", "--previous"))


def test_the_log_outlives_qemu_and_the_next_start(host: Lab) -> None:
    sh(host, "echo last words >/dev/ttyS0")
    until_logged(host, "last words")
    os.kill(host.json("ps")[0]["pid"], signal.SIGKILL)
    assert any("last words" in line for line in until_logged(host, "last words"))
    host.vnet("start", "web")
    assert any("last words" in line for line in until_logged(host, "last words", "--previous"))
    assert "last words" not in host.vnet("logs", "web")
