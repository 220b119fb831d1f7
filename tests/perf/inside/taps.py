"""Two TAPs as two VMs hold them: super-frames go in by one file descriptor and come out by the other."""

from __future__ import annotations

import fcntl
import os
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.perf.inside import frames
from tests.perf.inside.frames import End
from tests.perf.inside.harness import sh

TUNSETIFF, TUNSETOFFLOAD = 0x400454CA, 0x400454D0
TAP, NO_PI, VNET_HDR = 0x0002, 0x1000, 0x4000
CSUM, TSO4, TSO6 = 1, 2, 4
"""TUN_F_* (linux/if_tun.h): what the VM takes without having it done."""
SEGMENT = 1448
SEGMENTS = 44
AT_ONCE = 16


@contextmanager
def taps(names: Sequence[str]) -> Iterator[list[int]]:
    """TAPs that are up and gone with their descriptors."""
    opened = [os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK) for _ in names]
    try:
        for fd, name in zip(opened, names, strict=True):
            fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), TAP | NO_PI | VNET_HDR))
            fcntl.ioctl(fd, TUNSETOFFLOAD, CSUM | TSO4 | TSO6)
            sh(f"ip link set {name} up")
        yield opened
    finally:
        for fd in opened:
            os.close(fd)


def super_frame(source: End, target: End) -> bytes:
    """A TCP segment of 64 KB that is cut by whoever puts it on a wire, with its `virtio_net_hdr`."""
    frame = frames.tcp(source, target, (40000, 80), 1, 1, frames.ACK, bytes(SEGMENT * SEGMENTS))
    pseudo = struct.pack("!IIHH", source.ip, target.ip, frames.TCP, len(frame) - 34)
    partial = ~frames.checksum(pseudo) & 0xFFFF
    needs_checksum, tcp_v4 = 1, 1
    header = struct.pack("<BBHHHH", needs_checksum, tcp_v4, 54, SEGMENT, 34, 16)
    return header + frame[:50] + struct.pack("!H", partial) + frame[52:]


def _take(fd: int, size: int) -> None:
    """The next super-frame; what a bridge says for itself is small and passed over."""
    while (length := len(os.read(fd, size + 64))) != size:
        if length > 1000:
            raise RuntimeError(f"a super-frame of {size} bytes was cut to {length}")


def rate(pair: Sequence[int], frame: bytes, seconds: float = 0.4) -> float:
    """Gb/s of payload from one TAP to the other; every frame must come out whole."""
    into, out = pair
    begun, count = time.monotonic(), 0
    while (now := time.monotonic()) < begun + seconds:
        for _ in range(AT_ONCE):
            os.write(into, frame)
        for _ in range(AT_ONCE):
            _take(out, len(frame))
        count += AT_ONCE
    return count * SEGMENT * SEGMENTS * 8 / (now - begun) / 1e9
