"""bpf(2) for Python: maps, programs, links and the ring buffer, through libbpf.

libbpf loads the object (ELF, BTF, relocations); the rest are thin calls by file descriptor. Keys and
values are bytes, in the kernel's layout (`vnet.switch.abi`). Every refusal is a HostError.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import mmap
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vnet.base.errors import HostError

BPF_LINK_CREATE, BPF_LINK_UPDATE, BPF_OBJ_GET_INFO_BY_FD = 28, 29, 15
BPF_TCX_INGRESS = 46
MPROG_MAX = 64
"""Programs at one place (BPF_MPROG_MAX, include/linux/bpf_mprog.h)."""
BPF_NOEXIST = 1
BATCH = 4096
"""Entries that are read by one system call."""
_SYSCALL_BPF = {"x86_64": 321, "aarch64": 280}

_PRINT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_SAMPLE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_log: list[str] = []


class _MapInfo(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("key_size", ctypes.c_uint32),
        ("value_size", ctypes.c_uint32),
        ("max_entries", ctypes.c_uint32),
        ("map_flags", ctypes.c_uint32),
        ("name", ctypes.c_char * 16),
        ("ifindex", ctypes.c_uint32),
        ("kernel_value_type", ctypes.c_uint32),
        ("netns_dev", ctypes.c_uint64),
        ("netns_ino", ctypes.c_uint64),
        ("btf_id", ctypes.c_uint32),
        ("btf_key_type", ctypes.c_uint32),
        ("btf_value_type", ctypes.c_uint32),
        ("rest", ctypes.c_uint8 * 28),
    ]


class _BtfInfo(ctypes.Structure):
    """`struct bpf_btf_info`."""

    _fields_ = [
        ("btf", ctypes.c_void_p),
        ("size", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("rest", ctypes.c_uint8 * 16),
    ]


class _TestRun(ctypes.Structure):
    """`struct bpf_test_run_opts`."""

    _fields_ = [
        ("sz", ctypes.c_size_t),
        ("data_in", ctypes.c_void_p),
        ("data_out", ctypes.c_void_p),
        ("data_size_in", ctypes.c_uint32),
        ("data_size_out", ctypes.c_uint32),
        ("ctx_in", ctypes.c_void_p),
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


class SkBuff(ctypes.Structure):
    """`struct __sk_buff` (linux/bpf.h) up to what tests and packet-outs need."""

    _fields_ = [
        ("len", ctypes.c_uint32),
        ("pkt_type", ctypes.c_uint32),
        ("mark", ctypes.c_uint32),
        ("queue_mapping", ctypes.c_uint32),
        ("protocol", ctypes.c_uint32),
        ("vlan_present", ctypes.c_uint32),
        ("vlan_tci", ctypes.c_uint32),
        ("vlan_proto", ctypes.c_uint32),
        ("priority", ctypes.c_uint32),
        ("ingress_ifindex", ctypes.c_uint32),
        ("ifindex", ctypes.c_uint32),
        ("tc_index", ctypes.c_uint32),
        ("cb", ctypes.c_uint32 * 5),
        ("unused", ctypes.c_uint8 * 108),
        ("gso_size", ctypes.c_uint32),
        ("rest", ctypes.c_uint8 * 12),
    ]


@functools.cache
def _libbpf() -> ctypes.CDLL:
    try:
        lib = ctypes.CDLL("libbpf.so.1", use_errno=True)
    except OSError as error:
        raise HostError(f"libbpf is missing ({error}): apt-get install libbpf1") from error
    for name in ("bpf_object__open_file", "bpf_object__find_map_by_name", "bpf_object__find_program_by_name",
                 "ring_buffer__new"):  # fmt: skip
        getattr(lib, name).restype = ctypes.c_void_p
    lib.libbpf_set_print(_on_print)
    return lib


@functools.cache
def _vsnprintf() -> Any:
    return ctypes.CDLL(None).vsnprintf


@_PRINT  # type: ignore[untyped-decorator]
def _on_print(level: int, text: bytes, arguments: int) -> int:
    """Keep libbpf's warnings, which hold the verifier's log, for the error message."""
    if level == 0:
        buffer = ctypes.create_string_buffer(1 << 16)
        _vsnprintf()(buffer, ctypes.c_size_t(len(buffer)), text, ctypes.c_void_p(arguments))
        _log.append(buffer.value.decode(errors="replace"))
    return 0


def _fail(action: str, code: int) -> HostError:
    detail = "".join(_log)[-4000:]
    _log.clear()
    hint = " (need root)" if code in (errno.EPERM, errno.EACCES) else ""
    return HostError(f"{action}: {os.strerror(code)}{hint}" + (f"\n{detail}" if detail else ""))


def _check(result: int | None, action: str) -> int:
    if result is None or result < 0:
        raise _fail(action, -result if result is not None and result < -1 else ctypes.get_errno())
    return result


def call(command: int, attributes: bytes, action: str) -> int:
    """bpf(2) itself."""
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    number = _SYSCALL_BPF[platform.machine()]
    return _check(libc.syscall(number, command, buffer, len(attributes)), action)


@functools.cache
def possible_cpus() -> int:
    """How many values a per-CPU map holds for each key."""
    return int(_check(_libbpf().libbpf_num_possible_cpus(), "count CPUs"))


class Map:
    """A BPF map by file descriptor. Per-CPU values are the concatenation of all CPUs' values."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        info = _MapInfo()
        size = ctypes.c_uint32(ctypes.sizeof(info))
        _check(_libbpf().bpf_obj_get_info_by_fd(fd, ctypes.byref(info), ctypes.byref(size)), "read map info")
        self.name: str = info.name.decode()
        self.key_size: int = info.key_size
        self.max_entries: int = info.max_entries
        self.id: int = info.id
        self.btf_id: int = info.btf_id
        """Of the types its values were declared with; 0 = not known."""
        self.key_type: int = info.btf_key_type
        self.value_type: int = info.btf_value_type
        self.per_cpu: bool = info.type in (5, 6, 10)
        one = info.value_size
        self.value_size: int = -(-one // 8) * 8 * possible_cpus() if self.per_cpu else one
        self._out = ctypes.create_string_buffer(self.value_size)

    def lookup(self, key: bytes) -> bytes | None:
        """The value of a key, None if there is none."""
        result = _libbpf().bpf_map_lookup_elem(self.fd, key, self._out)
        if result == 0:
            return self._out.raw
        if ctypes.get_errno() == errno.ENOENT:
            return None
        raise _fail(f"look up in map {self.name}", ctypes.get_errno())

    def update(self, key: bytes, value: bytes) -> None:
        """Write a key's value."""
        if len(key) != self.key_size or len(value) != self.value_size:
            raise AssertionError(f"{self.name}: {len(key)}/{len(value)} bytes")
        if _libbpf().bpf_map_update_elem(self.fd, key, value, ctypes.c_uint64(0)):
            raise _fail(f"write map {self.name}", ctypes.get_errno())

    def insert(self, key: bytes, value: bytes) -> bool:
        """Write a key's value if the key is new; whether it was."""
        if _libbpf().bpf_map_update_elem(self.fd, key, value, ctypes.c_uint64(BPF_NOEXIST)) == 0:
            return True
        if ctypes.get_errno() in (errno.EEXIST, errno.E2BIG):
            return False
        raise _fail(f"write map {self.name}", ctypes.get_errno())

    def delete(self, key: bytes) -> None:
        """Remove a key; one that is not there is no error."""
        if _libbpf().bpf_map_delete_elem(self.fd, key) and ctypes.get_errno() != errno.ENOENT:
            raise _fail(f"delete from map {self.name}", ctypes.get_errno())

    def keys(self) -> Iterator[bytes]:
        """All keys of a hash map; keys that come or go meanwhile may be missed."""
        key, after = None, ctypes.create_string_buffer(self.key_size)
        while _libbpf().bpf_map_get_next_key(self.fd, key, after) == 0:
            key = after.raw
            yield key

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """All keys with their values."""
        for key in self.keys():
            value = self.lookup(key)
            if value is not None:
                yield key, value

    def index(self, number: int) -> bytes | None:
        """The value at an array's index."""
        return self.lookup(number.to_bytes(4, "little"))

    def set(self, number: int, value: bytes) -> None:
        """Write an array's value."""
        self.update(number.to_bytes(4, "little"), value)

    def first(self, count: int) -> bytes:
        """The values of an array's first `count` indexes, one behind the other, by one system call."""
        return self.part(0, count)

    def part(self, first: int, count: int) -> bytes:
        """The values of an array's indexes from `first` on, at most `count`, by one system call."""
        before = ctypes.c_uint32(first - 1) if first else None
        return self._batch(before, ctypes.c_uint32(), count)[1]

    def dump(self) -> tuple[bytes, bytes, int]:
        """All keys one behind the other, all values likewise, how many: what is there meanwhile."""
        keys, values, counts = zip(*self._batches(min(self.max_entries, BATCH)), strict=True)
        return b"".join(keys), b"".join(values), sum(counts)

    def fill(self, keys: bytes, values: bytes, count: int) -> None:
        """Write so many values, as `dump` gives them."""
        done = ctypes.c_uint32(count)
        if count and _libbpf().bpf_map_update_batch(self.fd, keys, values, ctypes.byref(done), None):
            raise _fail(f"write map {self.name}", ctypes.get_errno())

    def batches(self, size: int = 1024) -> Iterator[list[tuple[bytes, bytes]]]:
        """The keys and values of a map, about `size` by one system call.

        Those of a hash map that come or go meanwhile may be missed.
        """
        for keys, values, count in self._batches(size):
            cut = [
                [data[n * width : (n + 1) * width] for n in range(count)]
                for data, width in ((keys, self.key_size), (values, self.value_size))
            ]
            yield list(zip(*cut, strict=True))

    def _batches(self, size: int) -> Iterator[tuple[bytes, bytes, int]]:
        before, after = None, ctypes.create_string_buffer(max(64, self.key_size))
        error = 0
        while error != errno.ENOENT:  # which says that the map ends there
            keys, values, count, error = self._batch(before, after, size)
            if error == errno.ENOSPC:  # one bucket of the hash holds more
                size *= 2
                continue
            yield keys, values, count
            before = ctypes.create_string_buffer(after.raw, len(after))

    def _batch(self, before: Any, after: Any, room: int) -> tuple[bytes, bytes, int, int]:
        """One system call: keys, values and the number of at most so many elements, and its errno.

        Args:
            before: the place to go on from, None for the beginning; after: gets the next such place.
        """
        keys, values = (ctypes.create_string_buffer(room * size) for size in (self.key_size, self.value_size))
        done = ctypes.c_uint32(room)
        start = None if before is None else ctypes.byref(before)
        failed = _libbpf().bpf_map_lookup_batch(
            self.fd, start, ctypes.byref(after), keys, values, ctypes.byref(done), None
        )
        error = ctypes.get_errno() if failed else 0
        if error not in (0, errno.ENOENT, errno.ENOSPC):
            raise _fail(f"read map {self.name}", error)
        count = done.value if error != errno.ENOSPC else 0
        return keys.raw[: count * self.key_size], values.raw[: count * self.value_size], count, error

    def window(self) -> memoryview:
        """The memory of a BPF_F_MMAPABLE array as 32-bit words; a store is one atomic write."""
        size = -(-self.value_size // 8) * 8 * self.max_entries
        length = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        return memoryview(mmap.mmap(self.fd, length, mmap.MAP_SHARED)).cast("I")

    def push(self, value: bytes) -> None:
        """Append to a queue."""
        if _libbpf().bpf_map_update_elem(self.fd, None, value, ctypes.c_uint64(0)):
            raise _fail(f"push to map {self.name}", ctypes.get_errno())

    def pop(self) -> bytes | None:
        """Take the first of a queue; None if it is empty."""
        if _libbpf().bpf_map_lookup_and_delete_elem(self.fd, None, self._out) == 0:
            return self._out.raw
        if ctypes.get_errno() == errno.ENOENT:
            return None
        raise _fail(f"take from map {self.name}", ctypes.get_errno())

    def close(self) -> None:
        """Close the descriptor; a pinned map lives on."""
        os.close(self.fd)


class Object:
    """A compiled eBPF object: opened, optionally bound to existing maps, loaded by the verifier."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise HostError(f"{path} is missing: make bpf")
        self.path = path
        self._lib = _libbpf()
        self._pointer = ctypes.c_void_p(self._lib.bpf_object__open_file(str(path).encode(), None))
        if not self._pointer:
            raise _fail(f"open {path}", ctypes.get_errno())

    def reuse(self, name: str, fd: int) -> None:
        """Use an existing map instead of creating the object's own."""
        pointer = self._lib.bpf_object__find_map_by_name(self._pointer, name.encode())
        if not pointer:
            raise HostError(f"{self.path} has no map {name}: make bpf")
        _check(self._lib.bpf_map__reuse_fd(ctypes.c_void_p(pointer), fd), f"reuse map {name}")

    def resize(self, name: str, entries: int, flags: int | None = None) -> None:
        """Let a map that is to be created hold so many entries, maybe with other BPF_F_* flags."""
        pointer = self._lib.bpf_object__find_map_by_name(self._pointer, name.encode())
        if not pointer:
            raise HostError(f"{self.path} has no map {name}: make bpf")
        _check(self._lib.bpf_map__set_max_entries(ctypes.c_void_p(pointer), entries), f"resize map {name}")
        if flags is not None:
            _check(self._lib.bpf_map__set_map_flags(ctypes.c_void_p(pointer), flags), f"resize map {name}")

    def load(self) -> None:
        """Create the maps and have the programs verified."""
        _log.clear()
        _check(self._lib.bpf_object__load(self._pointer), f"load {self.path.name} into the kernel")

    def map_fd(self, name: str) -> int:
        """A duplicate of the descriptor of a map, which outlives the object."""
        pointer = self._lib.bpf_object__find_map_by_name(self._pointer, name.encode())
        if not pointer:
            raise HostError(f"{self.path} has no map {name}: make bpf")
        return os.dup(_check(self._lib.bpf_map__fd(ctypes.c_void_p(pointer)), f"map {name}"))

    def program_fd(self, name: str) -> int:
        """A duplicate of the descriptor of a program."""
        pointer = self._lib.bpf_object__find_program_by_name(self._pointer, name.encode())
        return os.dup(_check(self._lib.bpf_program__fd(ctypes.c_void_p(pointer)), f"program {name}"))

    def close(self) -> None:
        """Free the object; duplicated descriptors and pins stay."""
        self._lib.bpf_object__close(self._pointer)


def pin(fd: int, path: Path) -> None:
    """Give a map, program or link a name in bpffs, which keeps it alive."""
    _check(_libbpf().bpf_obj_pin(fd, str(path).encode()), f"pin {path}")


def get(path: Path) -> int:
    """Open what is pinned at a path."""
    return _check(_libbpf().bpf_obj_get(str(path).encode()), f"open {path}")


def attach_tcx(program: int, ifindex: int) -> int | None:
    """Attach at tc ingress as a link; None if the kernel has no TCX (before 6.6).

    Source: include/uapi/linux/bpf.h, `link_create`. Must run in the interface's namespace.
    """
    attributes = b"".join(n.to_bytes(4, "little") for n in (program, ifindex, BPF_TCX_INGRESS, 0)) + bytes(48)
    try:
        return call(BPF_LINK_CREATE, attributes, f"attach to interface {ifindex}")
    except HostError:
        if ctypes.get_errno() == errno.EINVAL:
            return None
        raise


def tcx_programs(ifindex: int) -> tuple[str, ...]:
    """The names of the programs at tc ingress of an interface; none if the kernel has no TCX.

    Must run in the interface's namespace.
    """
    numbers, count = (ctypes.c_uint32 * MPROG_MAX)(), ctypes.c_uint32(MPROG_MAX)
    if _libbpf().bpf_prog_query(ifindex, BPF_TCX_INGRESS, 0, None, numbers, ctypes.byref(count)):
        return ()
    return tuple(filter(None, map(_program_name, numbers[: count.value])))


def _program_name(number: int) -> str:
    """Empty if the program has gone meanwhile. Source: include/uapi/linux/bpf.h, `bpf_prog_info`."""
    fd = _libbpf().bpf_prog_get_fd_by_id(number)
    if fd < 0:
        return ""
    info, size = ctypes.create_string_buffer(128), ctypes.c_uint32(128)
    _check(_libbpf().bpf_obj_get_info_by_fd(fd, info, ctypes.byref(size)), "read program info")
    os.close(fd)
    return info.raw[64:80].rstrip(b"\0").decode()


def update_link(link: int, program: int) -> None:
    """Exchange the program of a link; every packet meets the old or the new one."""
    attributes = b"".join(n.to_bytes(4, "little") for n in (link, program, 0, 0)) + bytes(48)
    call(BPF_LINK_UPDATE, attributes, "exchange a program")


def detach_link(link: int) -> None:
    """Take a link's program off its interface; one that is gone is no error."""
    _check(_libbpf().bpf_link_detach(link), "detach a program")


def btf(number: int) -> bytes:
    """The types of a loaded object, by the number that its maps tell."""
    fd = _check(_libbpf().bpf_btf_get_fd_by_id(number), f"open the types {number}")
    try:
        info, size = _BtfInfo(), ctypes.c_uint32(ctypes.sizeof(_BtfInfo))
        _check(_libbpf().bpf_obj_get_info_by_fd(fd, ctypes.byref(info), ctypes.byref(size)), "read types")
        data = ctypes.create_string_buffer(info.size)
        info = _BtfInfo(btf=ctypes.addressof(data), size=info.size)
        _check(_libbpf().bpf_obj_get_info_by_fd(fd, ctypes.byref(info), ctypes.byref(size)), "read types")
        return data.raw
    finally:
        os.close(fd)


def link_ifindex(link: int) -> int:
    """The interface a TCX link is attached to; 0 once the interface is gone."""
    info = (ctypes.c_uint32 * 32)()
    size = ctypes.c_uint32(ctypes.sizeof(info))
    _check(_libbpf().bpf_obj_get_info_by_fd(link, info, ctypes.byref(size)), "read link info")
    return int(info[4])  # type, id, prog_id, pad, then tcx.ifindex


def run(
    program: int, frame: bytes, context: SkBuff | None = None, repeat: int = 1
) -> tuple[int, bytes, SkBuff, int]:
    """BPF_PROG_TEST_RUN: (verdict, packet afterwards, context afterwards, ns per run)."""
    out, after = ctypes.create_string_buffer(len(frame) + 256), SkBuff()
    given = context or SkBuff()
    data = ctypes.create_string_buffer(frame, len(frame))
    options = _TestRun(
        sz=ctypes.sizeof(_TestRun),
        data_in=ctypes.addressof(data),
        data_out=ctypes.addressof(out),
        data_size_in=len(frame),
        data_size_out=len(out),
        ctx_in=ctypes.addressof(given),
        ctx_out=ctypes.addressof(after),
        ctx_size_in=ctypes.sizeof(given),
        ctx_size_out=ctypes.sizeof(after),
        repeat=repeat,
    )
    _check(_libbpf().bpf_prog_test_run_opts(program, ctypes.byref(options)), "run the program")
    return options.retval, out.raw[: options.data_size_out], after, options.duration


class RingBuffer:
    """Drains a ring buffer map; `fd` becomes readable when there is something."""

    def __init__(self, map_fd: int) -> None:
        self._records: list[bytes] = []
        self._callback = _SAMPLE(self._sample)  # must outlive the buffer
        self._pointer = ctypes.c_void_p(_libbpf().ring_buffer__new(map_fd, self._callback, None, None))
        if not self._pointer:
            raise _fail("open the ring buffer", ctypes.get_errno())
        self.fd: int = _libbpf().ring_buffer__epoll_fd(self._pointer)

    def _sample(self, _context: int, data: int, size: int) -> int:
        self._records.append(ctypes.string_at(data, size))
        return 0

    def read(self) -> list[bytes]:
        """All records there are now."""
        _check(_libbpf().ring_buffer__consume(self._pointer), "read the ring buffer")
        records, self._records = self._records, []
        return records

    def close(self) -> None:
        """Release the mapping."""
        _libbpf().ring_buffer__free(self._pointer)


class GracePeriod:
    """Waits until no packet that is being decided now is still being decided.

    Programs at tc run inside an RCU read-side section, and the kernel waits for one grace period
    when an element of an array of maps is replaced from user space (kernel/bpf/syscall.c,
    maybe_wait_bpf_programs): that is the documented way to wait for running programs.
    """

    def __init__(self) -> None:
        lib = _libbpf()
        self._inner = _check(lib.bpf_map_create(2, b"vnet_grace_in", 4, 4, 1, None), "create a map")
        options = (ctypes.c_uint32 * 16)()
        options[0], options[6] = ctypes.sizeof(options), self._inner  # size_t sz; …; inner_map_fd
        self._outer = _check(lib.bpf_map_create(12, b"vnet_grace", 4, 4, 1, options), "create a map of maps")

    def wait(self) -> None:
        """Return when every packet that entered before the call has been decided."""
        key, value = bytes(4), self._inner.to_bytes(4, "little")
        if _libbpf().bpf_map_update_elem(self._outer, key, value, ctypes.c_uint64(0)):
            raise _fail("wait for a grace period", ctypes.get_errno())

    def close(self) -> None:
        """Free both maps."""
        os.close(self._inner)
        os.close(self._outer)
