"""Media and disks that boot, made of the micro guest's own kernel, and a hand on the consoles of guests.

What grub-mkrescue makes is a medium and a disk at once, for BIOS and UEFI.
"""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

GRUB = """\
serial --unit=0 --speed=115200
terminal_output serial console
set timeout=0
menuentry micro { linux /boot/vmlinuz console=ttyS0 quiet by=grub; initrd /boot/initrd }
"""


def medium(folder: Path, micro: Path) -> Path:
    """An ISO file that boots the micro guest's kernel."""
    tree = folder / "tree"
    (tree / "boot/grub").mkdir(parents=True)
    (tree / "boot/grub/grub.cfg").write_text(GRUB)
    for name in ("vmlinuz", "initrd"):
        shutil.copy(micro / name, tree / "boot" / name)
    path = folder / "boot.iso"
    subprocess.run(["grub-mkrescue", "-o", str(path), str(tree)], check=True, capture_output=True)
    return path


def disk(source: Path, kind: str) -> Path:
    """The same as a disk."""
    path = source.with_suffix(f".{kind}")
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", kind, str(source), str(path)], check=True)
    return path


class Console:
    """A shell on a guest's serial console. Before it is there nothing is typed: firmware would take it."""

    def __init__(self, path: Path, printed: Callable[[], str]) -> None:
        self._path, self._printed = path, printed

    def until_it_is_there(self, timeout_s: float = 90) -> None:
        deadline = time.monotonic() + timeout_s
        while "/ #" not in self._printed():
            assert time.monotonic() < deadline, f"there is no shell: {self._printed()[-2000:]!r}"
            time.sleep(0.5)

    def run(self, command: str, timeout_s: float = 60) -> str:
        """What a command printed."""
        self.until_it_is_there()
        deadline, count, told = time.monotonic() + timeout_s, 0, b""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as console:
            console.connect(str(self._path))
            console.settimeout(2)
            while time.monotonic() < deadline:
                count += 1
                # The echo of what is typed has no number between the marks.
                console.sendall(f"echo BEGIN$(({count}))-; {command}; echo END$(({count}))-\n".encode())
                told = self._until(console, f"END{count}-".encode(), min(deadline, time.monotonic() + 20))
                if told:
                    return told.decode(errors="replace").split(f"BEGIN{count}-")[-1].split("END")[0].strip()
        raise AssertionError(f"nobody answers on {self._path}: {told!r}")

    def _until(self, console: socket.socket, mark: bytes, deadline: float) -> bytes:
        told = b""
        while mark not in told and time.monotonic() < deadline:
            try:
                more = console.recv(65536)
            except TimeoutError:
                if b"#" not in told:
                    return b""  # nobody there yet: type again
                continue
            told += more
        return told if mark in told else b""


def png_size(data: bytes) -> tuple[int, int]:
    """Width and height of a PNG. Source: ISO/IEC 15948, 11.2.2."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert data[12:16] == b"IHDR"
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def rfb_size(path: Path) -> tuple[int, int]:
    """Width and height of a screen, as its VNC server says. Source: RFC 6143, 7.1 to 7.3."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.settimeout(10)
        server.connect(str(path))
        stream = server.makefile("rb")
        assert stream.read(12) == b"RFB 003.008\n"
        server.sendall(b"RFB 003.008\n")
        kinds = stream.read(stream.read(1)[0])
        assert 1 in kinds  # no password
        server.sendall(b"\x01")
        assert stream.read(4) == bytes(4)
        server.sendall(b"\x01")
        width, height = struct.unpack(">HH", stream.read(4))
        return width, height
