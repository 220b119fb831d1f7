"""Frames into a device, counted at the sinks; through libbpf, without the product under test."""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import struct
import subprocess
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

OBJECT = Path(__file__).parents[1] / "harness.bpf.o"
PINS = Path(f"/sys/fs/bpf/vnet-perf-{os.getpid()}")
LIVE_FRAMES = 2
"""BPF_F_TEST_XDP_LIVE_FRAMES (linux/bpf.h)."""
BATCH = 64


class _TestRun(ctypes.Structure):
    """`struct bpf_test_run_opts` of libbpf 1."""

    _fields_ = [
        ("sz", ctypes.c_size_t),
        ("data_in", ctypes.c_char_p),
        ("data_out", ctypes.c_void_p),
        ("data_size_in", ctypes.c_uint32),
        ("data_size_out", ctypes.c_uint32),
        ("ctx_in", ctypes.c_char_p),
        ("ctx_out", ctypes.c_void_p),
        ("ctx_size_in", ctypes.c_uint32),
        ("ctx_size_out", ctypes.c_uint32),
        ("retval", ctypes.c_uint32),
        ("repeat", ctypes.c_int),
        ("duration", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("cpu", ctypes.c_uint32),
        ("batch_size", ctypes.c_uint32),
    ]


class Vary(IntEnum):
    """Which ports tell one flow from the next (`enum vary` of harness.bpf.c)."""

    BOTH, SOURCE, TARGET = range(3)


@dataclass(frozen=True, slots=True)
class Meter:
    """What the sinks saw."""

    packets: int
    first_ns: int
    last_ns: int

    @property
    def cost(self) -> float:
        """Nanoseconds from one packet to the next; under icount, instructions."""
        return (self.last_ns - self.first_ns) / (self.packets - 1)


class Harness:
    """The loaded programs. `sink` and `redirect` are attached through tc by their pins."""

    def __init__(self) -> None:
        self._lib = ctypes.CDLL("libbpf.so.1", use_errno=True)
        for name in ("open_file", "find_map_by_name", "find_program_by_name"):
            getattr(self._lib, f"bpf_object__{name}").restype = ctypes.c_void_p
        self._object = ctypes.c_void_p(self._lib.bpf_object__open_file(str(OBJECT).encode(), None))
        self._check(self._lib.bpf_object__load(self._object), "load")
        self._meters, self._feeds = self._map("meters"), self._map("feeds")
        self._feed = self._program("feed")
        PINS.mkdir(exist_ok=True)
        for name in ("sink", "redirect", "feed"):
            path = str(PINS / name).encode()
            self._check(self._lib.bpf_obj_pin(self._program(name), path), f"pin {name}")

    def close(self) -> None:
        """Take the pins away; what is still attached stays."""
        shutil.rmtree(PINS)

    def _check(self, result: int, what: str) -> int:
        if result < 0:
            raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")
        return result

    def _map(self, name: str) -> int:
        found = ctypes.c_void_p(self._lib.bpf_object__find_map_by_name(self._object, name.encode()))
        return int(self._lib.bpf_map__fd(found))

    def _program(self, name: str) -> int:
        found = ctypes.c_void_p(self._lib.bpf_object__find_program_by_name(self._object, name.encode()))
        return int(self._lib.bpf_program__fd(found))

    def set_feed(self, flows: int = 1, target: str | None = None, vary: int = Vary.BOTH) -> None:
        """How many flows the frames are made of, and where `redirect` sends them."""
        index = socket.if_nametoindex(target) if target else 0
        self._set(self._feeds, struct.pack("<IIII", flows, 0, index, vary))

    def _set(self, fd: int, value: bytes) -> None:
        update = self._lib.bpf_map_update_elem
        self._check(update(fd, bytes(4), value, ctypes.c_uint64(0)), "write a map")

    def send(self, device: str, frame: bytes, count: int, batch: int = BATCH) -> Meter:
        """Let a frame come in by a device `count` times, one right after the other."""
        self._set(self._meters, bytes(24))
        context = struct.pack("<IIIIII", 0, len(frame), 0, socket.if_nametoindex(device), 0, 0)
        options = _TestRun(
            sz=ctypes.sizeof(_TestRun),
            data_in=frame,
            data_size_in=len(frame),
            ctx_in=context,
            ctx_size_in=len(context),
            repeat=count,
            flags=LIVE_FRAMES,
            batch_size=batch,
        )
        run = self._lib.bpf_prog_test_run_opts(self._feed, ctypes.byref(options))
        self._check(run, f"live frames into {device}")
        return self.meter()

    def meter(self) -> Meter:
        out = ctypes.create_string_buffer(24)
        self._check(self._lib.bpf_map_lookup_elem(self._meters, bytes(4), out), "read the meter")
        return Meter(*struct.unpack("<QQQ", out.raw))


def sh(command: str, given: str | None = None) -> str:
    """Run a command; its output is shown if it fails."""
    done = subprocess.run(command.split(), input=given, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise RuntimeError(f"{command}: {done.stderr}{done.stdout}")
    return done.stdout
