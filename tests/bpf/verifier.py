"""What the running kernel's verifier makes of the compiled programs, out of its log.

Needs nothing but libbpf and `vnet`, so that it runs in guests too.
"""

from __future__ import annotations

import ctypes
import os
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from vnet.base.errors import HostError
from vnet.switch.live import bpf

STATISTICS = 4
"""BPF_LOG_STATS (include/linux/bpf_verifier.h): no trace, only the sums at the end."""
LOG_BYTES = 1 << 16
CALL, LOAD_ADDRESS = 0x85, 0x18
PSEUDO_CALL, PSEUDO_FUNC = 1, 4
LOOP_HELPER = 181
LOOP_BYTES = 24
"""What the kernel adds to a frame whose `bpf_loop` it unrolls into the program, after it checked the sum."""
GRANULE = 32
"""Frames are rounded up to this by 6.1; kernels from 6.9 on round a compiled program's to 16."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one program. The verifier stops at 1,000,000 instructions and at 512 bytes of stack."""

    instructions: int
    """Processed by the verifier: what it takes to load."""
    translated: int
    """Instructions of the program as it is kept, after the verifier's rewriting."""
    stack_bytes: int
    """The deepest chain of calls, callbacks of `bpf_loop` included, counted as 6.1 does."""


def costs(path: Path) -> Mapping[str, Cost]:
    """Load all programs of an object and tell what each costs, by name. Raises HostError."""
    loaded = _Measured(path)
    try:
        return loaded.costs()
    finally:
        loaded.close()


def plain(measured: Mapping[str, Cost]) -> dict[str, dict[str, int]]:
    """For JSON."""
    return {name: asdict(cost) for name, cost in measured.items()}


class _Measured(bpf.Object):
    def costs(self) -> dict[str, Cost]:
        programs = list(self._programs())
        logs = [ctypes.create_string_buffer(LOG_BYTES) for _ in programs]
        for program, log in zip(programs, logs, strict=True):
            self._lib.bpf_program__set_log_level(program, STATISTICS)
            self._lib.bpf_program__set_log_buf(program, log, ctypes.c_size_t(LOG_BYTES))
        try:
            self.load()
        except HostError as error:
            said = "\n".join(log.value.decode() for log in logs if log.value)
            raise HostError(f"{error}\n{said}") from error
        return {
            self._text("name", program): self._cost(program, log.value.decode())
            for program, log in zip(programs, logs, strict=True)
        }

    def _programs(self) -> Iterator[ctypes.c_void_p]:
        following = self._lib.bpf_object__next_program
        following.restype = ctypes.c_void_p
        pointer = following(self._pointer, None)
        while pointer:
            yield ctypes.c_void_p(pointer)
            pointer = following(self._pointer, ctypes.c_void_p(pointer))

    def _text(self, what: str, program: ctypes.c_void_p) -> str:
        asked = getattr(self._lib, f"bpf_program__{what}")
        asked.restype = ctypes.c_char_p
        return str(asked(program).decode())

    def _code(self, program: ctypes.c_void_p) -> bytes:
        start, count = self._lib.bpf_program__insns, self._lib.bpf_program__insn_cnt
        start.restype, count.restype = ctypes.c_void_p, ctypes.c_size_t
        return ctypes.string_at(start(program), 8 * count(program))

    def _cost(self, program: ctypes.c_void_p, log: str) -> Cost:
        processed = re.search(r"processed (\d+) insns", log)
        depths = re.search(r"stack depth ([\d+]+)", log)
        assert processed and depths, log
        code = self._code(program)  # with what it calls, now that it is loaded
        frames = [int(depth) for depth in depths[1].split("+")]
        return Cost(int(processed[1]), _translated(self._lib, program), deepest(code, frames))


def _translated(lib: ctypes.CDLL, program: ctypes.c_void_p) -> int:
    """`xlated_prog_len` of `struct bpf_prog_info` (linux/bpf.h), in instructions."""
    info, size = ctypes.create_string_buffer(256), ctypes.c_uint32(256)
    assert not lib.bpf_obj_get_info_by_fd(lib.bpf_program__fd(program), info, ctypes.byref(size))
    return int(struct.unpack_from("<I", info, 20)[0]) // 8


def deepest(code: bytes, frames: list[int]) -> int:
    """The bytes of the deepest chain of calls.

    Args:
        code: a program and all it calls, before the kernel's rewriting.
        frames: bytes of stack of each function, in the order in which they lie in `code`.

    Source: check_max_stack_depth and optimize_bpf_loop, kernel/bpf/verifier.c of Linux 6.1.
    """
    calls = list(_calls(code))
    starts = sorted({0, *(target for _, target in calls)})
    assert len(starts) == len(frames), f"{len(starts)} functions, {len(frames)} frames"
    begin = dict(zip(starts, range(len(starts)), strict=True))
    callees: list[set[int]] = [set() for _ in starts]
    loops: set[int] = set()
    for at, target in calls:
        callees[_owner(starts, at)].add(begin[target])
    for at, (opcode, registers, _, immediate) in enumerate(struct.iter_unpack("<BBhi", code)):
        if opcode == CALL and registers >> 4 == 0 and immediate == LOOP_HELPER:
            loops.add(_owner(starts, at))

    def depth(function: int) -> int:
        own = frames[function] - (LOOP_BYTES if function in loops else 0)
        rounded = -(-max(own, 1) // GRANULE) * GRANULE
        return rounded + max((depth(callee) for callee in callees[function]), default=0)

    return depth(0)


def _calls(code: bytes) -> Iterator[tuple[int, int]]:
    """Where functions are called or handed to a helper, and where they begin."""
    for at, (opcode, registers, _, immediate) in enumerate(struct.iter_unpack("<BBhi", code)):
        if (opcode, registers >> 4) in ((CALL, PSEUDO_CALL), (LOAD_ADDRESS, PSEUDO_FUNC)):
            yield at, at + immediate + 1


def _owner(starts: list[int], at: int) -> int:
    return max(index for index, start in enumerate(starts) if start <= at)


def host_series() -> str:
    """The release series of the running kernel, for example 6.18."""
    return ".".join(os.uname().release.split(".")[:2])
