"""The timed KVM probe: a guest of two instructions, run with a clock beside it.

`python -m vnet.hv.live.kvm` prints what QEMU will run guests with, and why.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import mmap
import os
import signal
import stat
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vnet.base import paths
from vnet.hv.accel import OVERRIDE, TURNS, Accel, Probe, decide, for_unprivileged, override

_DEVICE = Path("/dev/kvm")
_GUARD_S = 0.25
"""The probe is broken off after this time, whatever the host does."""

# Source: include/uapi/linux/kvm.h and arch/x86/include/uapi/asm/kvm.h; the numbers are ABI.
_GET_API_VERSION, _API_VERSION = 0xAE00, 12
_CREATE_VM = 0xAE01
_GET_VCPU_MMAP_SIZE = 0xAE04
_CREATE_VCPU = 0xAE41
_SET_USER_MEMORY_REGION = 0x4020AE46
_RUN = 0xAE80
_SET_REGS = 0x4090AE82
_GET_SREGS, _SREGS_BYTES = 0x8138AE83, 312
_SET_SREGS = 0x4138AE84
_EXIT_REASON_OFFSET, _EXIT_HLT = 8, 5

_MEMORY_BYTES = 2 << 20
_PML4, _PDPT, _PD, _CODE = 0x1000, 0x2000, 0x3000, 0x4000
_PRESENT_WRITABLE, _LARGE = 0x3, 0x80
_LOOP = bytes.fromhex("48 ff c9 75 fb f4")  # 1: dec rcx; jnz 1b; hlt
_CODE_SEGMENT = struct.pack("<QIHBBBBBBBBBx", 0, 0xFFFFFFFF, 8, 11, 1, 0, 0, 1, 1, 1, 0, 0)
_DATA_SEGMENT = struct.pack("<QIHBBBBBBBBBx", 0, 0xFFFFFFFF, 16, 3, 1, 0, 1, 1, 0, 1, 0, 0)
_CONTROL_OFFSET = 224  # of cr0 in struct kvm_sregs, behind eight segments and two tables
_PROTECTED_PAGED, _PAE, _LONG_MODE = 0x80000001, 0x20, 0x500


def choose() -> Accel:
    """The accelerator for this host, from `VNET_ACCEL`, the cache of this boot, or the probe."""
    chosen = override(os.environ.get(OVERRIDE)) or _cached() or _probe_and_keep()
    if chosen.name != "kvm":
        return chosen
    status = _DEVICE.stat()
    return for_unprivileged(chosen, stat.S_IMODE(status.st_mode), status.st_gid)


def probe() -> Probe:
    """Runs the loop and says how long it took. Only in the main thread: a timer's signal guards it."""
    if threading.current_thread() is not threading.main_thread():
        return Probe(None, "the probe can only run in the main thread")
    try:
        with _deadline():
            return Probe(_timed_run())
    except FileNotFoundError:
        return Probe(None, f"there is no {_DEVICE}")
    except PermissionError:
        return Probe(None, f"no permission to open {_DEVICE}")
    except TimeoutError:
        return Probe(None, f"{TURNS:,} turns of a loop did not end in {_GUARD_S * 1000:.0f} ms")
    except OSError as error:
        return Probe(None, f"{_DEVICE}: {error.strerror}")


@contextmanager
def _deadline() -> Iterator[None]:
    def expire(*_: object) -> None:
        raise TimeoutError

    previous = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, _GUARD_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def _timed_run() -> float:
    descriptors: list[int] = []
    try:
        kvm = os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC)
        descriptors.append(kvm)
        if fcntl.ioctl(kvm, _GET_API_VERSION) != _API_VERSION:
            raise OSError(0, "an unknown version of the KVM interface")
        vm = fcntl.ioctl(kvm, _CREATE_VM, 0)
        descriptors.append(vm)
        vcpu = fcntl.ioctl(vm, _CREATE_VCPU, 0)
        descriptors.append(vcpu)
        _set_registers(vcpu)
        with _guest_memory(vm), mmap.mmap(vcpu, fcntl.ioctl(kvm, _GET_VCPU_MMAP_SIZE)) as run:
            began = time.perf_counter()
            fcntl.ioctl(vcpu, _RUN, 0)
            elapsed = time.perf_counter() - began
            reason = struct.unpack_from("<I", run, _EXIT_REASON_OFFSET)[0]
        if reason != _EXIT_HLT:
            raise OSError(0, f"the loop did not end but left with KVM exit reason {reason}")
        return elapsed
    finally:
        for descriptor in reversed(descriptors):
            os.close(descriptor)


def _guest_memory(vm: int) -> mmap.mmap:
    """One 2 MB page that holds its own page tables and the loop, mapped at guest address 0."""
    memory = mmap.mmap(-1, _MEMORY_BYTES)
    memory[_PML4 : _PML4 + 8] = struct.pack("<Q", _PDPT | _PRESENT_WRITABLE)
    memory[_PDPT : _PDPT + 8] = struct.pack("<Q", _PD | _PRESENT_WRITABLE)
    memory[_PD : _PD + 8] = struct.pack("<Q", _PRESENT_WRITABLE | _LARGE)
    memory[_CODE : _CODE + len(_LOOP)] = _LOOP
    view = ctypes.c_char.from_buffer(memory)
    region = struct.pack("<IIQQQ", 0, 0, 0, _MEMORY_BYTES, ctypes.addressof(view))
    del view
    fcntl.ioctl(vm, _SET_USER_MEMORY_REGION, region)
    return memory


def _set_registers(vcpu: int) -> None:
    """64-bit mode, privilege level 0, at the loop."""
    special = bytearray(_SREGS_BYTES)
    fcntl.ioctl(vcpu, _GET_SREGS, special)
    special[0:24] = _CODE_SEGMENT
    for segment in range(1, 6):
        special[segment * 24 : segment * 24 + 24] = _DATA_SEGMENT
    cr0, cr2, cr3, cr4, cr8, efer = struct.unpack_from("<6Q", special, _CONTROL_OFFSET)
    cr0, cr3, cr4, efer = cr0 | _PROTECTED_PAGED, _PML4, cr4 | _PAE, efer | _LONG_MODE
    struct.pack_into("<6Q", special, _CONTROL_OFFSET, cr0, cr2, cr3, cr4, cr8, efer)
    fcntl.ioctl(vcpu, _SET_SREGS, bytes(special))
    # rax rbx rcx rdx rsi rdi rsp rbp r8…r15 rip rflags
    fcntl.ioctl(vcpu, _SET_REGS, struct.pack("<18Q", 0, 0, TURNS, *[0] * 13, _CODE, 0x2))


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _cache() -> Path:
    return paths.state_dir() / "accel.json"


def _cached() -> Accel | None:
    """What this boot's probe decided; a missing device is looked for again, it costs nothing."""
    try:
        kept = json.loads(_cache().read_text())
        if kept["boot_id"] == _boot_id() and _DEVICE.exists():
            return Accel(kept["name"], kept["reason"])
    except (OSError, ValueError, KeyError):
        return None
    return None


def _probe_and_keep() -> Accel:
    found = probe()
    decision = decide(found)
    if found.elapsed_s is not None:
        _cache().parent.mkdir(parents=True, exist_ok=True)
        beside = _cache().with_suffix(f".{os.getpid()}")
        kept = {"boot_id": _boot_id(), "name": decision.name, "reason": decision.reason}
        beside.write_text(json.dumps(kept))
        beside.rename(_cache())
    return decision


if __name__ == "__main__":
    chosen = choose()
    print(f"{chosen.name}: {chosen.reason}")
