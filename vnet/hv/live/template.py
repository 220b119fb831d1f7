"""Templates of warm clones: a guest booted once, stopped before it has an identity, and kept.

A clone maps the template's memory privately, so the kernel copies a page only when the clone writes to
it. QEMU 7.2 insists on opening that file for writing. It is given a sealed memfd instead: it can be
opened and privately mapped, but no clone, however broken, can change what the others are made of.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import uuid as uuids
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from vnet.base import paths
from vnet.base.errors import HostError, TimedOut
from vnet.hv import monitor
from vnet.hv.argv import QEMU, Machine, Memory, command_line, template_key
from vnet.hv.live.agent_client import AgentClient
from vnet.hv.live.cgroup import Cgroup
from vnet.hv.live.image import Image
from vnet.hv.live.process import Process, launch
from vnet.hv.live.qmp import Monitor
from vnet.hv.live.users import claim_dir

_BOOT_TIMEOUT_S = 60.0
_SAVE_TIMEOUT_S = 20.0
_ATTEMPTS = 2
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_NO_CGROUP = Cgroup(())


@dataclass(frozen=True, slots=True)
class Template:
    """A loaded template: its memory as a sealed memfd, and the file with the rest of the machine's state."""

    key: str
    memory_fd: int
    state: Path


class Templates:
    """All templates of this host. Each is booted at most once, whoever asks for it first."""

    def __init__(self) -> None:
        self._loaded: dict[str, Template] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._version = ""

    async def get(
        self, machine: Machine, image: Image, groups: tuple[int, ...], progress: Callable[[str], None]
    ) -> Template:
        """The template for clones of a machine, booted now if there is none.

        Raises:
            HostError, PeerError, TimedOut: it could not be made.
        """
        key = template_key(machine, image=image.key, qemu_version=await self._qemu(machine.accel))
        async with self._locks.setdefault(key, asyncio.Lock()):
            if key not in self._loaded:
                folder = _folder(key)
                if not (folder / "manifest.json").exists():
                    progress(f"booting a template of {machine.memory_bytes >> 20} MiB for warm clones")
                    await _make(key, machine, image, groups)
                self._loaded[key] = await asyncio.to_thread(_load, key, machine.memory_bytes)
            return self._loaded[key]

    def forget(self, template: Template) -> None:
        """Drops a template that no clone could be made of; the next one is booted anew."""
        if self._loaded.get(template.key) is template:
            del self._loaded[template.key]
            os.close(template.memory_fd)
            shutil.rmtree(_folder(template.key), ignore_errors=True)

    def close(self) -> None:
        """Gives back the memory; running clones keep theirs."""
        for template in self._loaded.values():
            os.close(template.memory_fd)
        self._loaded.clear()

    async def _qemu(self, accel: str) -> str:
        """What a saved state is bound to besides the command line: QEMU's build, and with KVM the CPU."""
        if not self._version:
            self._version = await asyncio.to_thread(_qemu_version)
        return self._version + (_cpu_model() if accel == "kvm" else "")


def _folder(key: str) -> Path:
    return paths.image_dir() / "templates" / key


def _qemu_version() -> str:
    try:
        done = subprocess.run([QEMU, "--version"], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise HostError(f"`{QEMU} --version` failed: {error}; install qemu-system-x86") from error
    return done.stdout.splitlines()[0]


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "microcode"))}))


async def _make(key: str, machine: Machine, image: Image, groups: tuple[int, ...]) -> None:
    """Boots, saves and keeps a template; a boot that hangs is tried once more."""
    folder = _folder(key)
    folder.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(1, _ATTEMPTS + 1):
        building = Path(tempfile.mkdtemp(prefix=".building-", dir=folder.parent))
        try:
            await _boot_and_save(machine, image, groups, building)
            manifest = {"key": key, "image": image.key, "memory_bytes": machine.memory_bytes}
            (building / "manifest.json").write_text(json.dumps(manifest) + "\n")
            shutil.rmtree(folder, ignore_errors=True)
            building.rename(folder)
            _remove_outdated(folder.parent, image.key)
            return
        except TimedOut:
            if attempt == _ATTEMPTS:
                raise
        finally:
            shutil.rmtree(building, ignore_errors=True)


def _remove_outdated(folder: Path, image_key: str) -> None:
    """Templates of images that are no longer in use."""
    for path in folder.iterdir():
        with contextlib.suppress(OSError, ValueError):
            if json.loads((path / "manifest.json").read_text()).get("image") != image_key:
                shutil.rmtree(path, ignore_errors=True)


async def _boot_and_save(machine: Machine, image: Image, groups: tuple[int, ...], building: Path) -> None:
    run_dir = paths.run_dir() / "templates" / uuids.uuid4().hex[:12]
    user = claim_dir(run_dir)
    with _memory(machine.memory_bytes) as memory, _opened(image.kernel) as kernel, _opened(image.initrd) as initrd:
        template = replace(
            machine,
            name="template",
            uuid=str(uuids.uuid4()),
            run_dir=str(run_dir),
            kernel=f"/proc/self/fd/{kernel}",
            initrd=f"/proc/self/fd/{initrd}",
            memory=Memory.TEMPLATE,
            memory_path=f"/proc/self/fd/{memory}",
        )
        process = launch(
            command_line(template),
            user=user,
            groups=groups,
            fds=(memory, kernel, initrd),
            log=run_dir / "qemu.log",
            cgroup=_NO_CGROUP,
        )
        try:
            await _save(process, run_dir, building / "state")
        finally:
            process.kill()
            await process.wait(10)
            process.close()
            shutil.rmtree(run_dir, ignore_errors=True)
        await asyncio.to_thread(_copy_sparse, memory, building / "memory")


async def _save(process: Process, run_dir: Path, state: Path) -> None:
    """Waits for the guest's agent, stops the guest and writes its state."""
    qmp = await Monitor.connect(run_dir / "qmp.sock", alive=process.alive, timeout_s=20)
    try:
        agent = await AgentClient.connect(run_dir / "agent.sock", timeout_s=_BOOT_TIMEOUT_S, fresh=True)
        await agent.close()
        await qmp.execute(monitor.STOP)
        descriptor = os.open(state, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            await qmp.execute_all(monitor.save_state(descriptor))
            await _await_saved(qmp)
        finally:
            os.close(descriptor)
    finally:
        await qmp.close()


async def _await_saved(qmp: Monitor) -> None:
    async with asyncio.timeout(_SAVE_TIMEOUT_S):
        while True:
            answer = await qmp.execute(monitor.QUERY_MIGRATE)
            status = answer.get("status") if isinstance(answer, dict) else None
            if status == "completed":
                return
            if status in ("failed", "cancelled"):
                raise HostError(f"QEMU could not save the template's state: {answer}")
            await asyncio.sleep(0.01)


def _load(key: str, size: int) -> Template:
    """Reads a template's memory into a memfd that nobody can change any more."""
    descriptor = os.memfd_create(f"vnet-template-{key}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, size)
        with _opened(_folder(key) / "memory") as source:
            for start, length in _data_ranges(source):
                _copy_range(source, descriptor, start, length)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    except OSError as error:
        os.close(descriptor)
        raise HostError(f"the template {key} cannot be loaded: {error}") from error
    return Template(key, descriptor, _folder(key) / "state")


def _copy_sparse(source: int, target: Path) -> None:
    """Writes a memfd to a file, holes and pages of zeros left out."""
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.ftruncate(descriptor, os.fstat(source).st_size)
        for start, length in _data_ranges(source):
            _copy_range(source, descriptor, start, length)
    except OSError as error:
        raise HostError(f"the template cannot be written to {target}: {error}") from error
    finally:
        os.close(descriptor)


def _data_ranges(descriptor: int) -> Iterator[tuple[int, int]]:
    """Where a sparse file has contents: (offset, length)."""
    size, start = os.fstat(descriptor).st_size, 0
    while start < size:
        try:
            start = os.lseek(descriptor, start, os.SEEK_DATA)
        except OSError:
            return
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, end - start
        start = end


def _copy_range(source: int, target: int, start: int, length: int) -> None:
    block = 1 << 16
    for offset in range(start, start + length, block):
        data = os.pread(source, min(block, start + length - offset), offset)
        if data.strip(b"\0"):
            os.pwrite(target, data, offset)


@contextlib.contextmanager
def _memory(size: int) -> Iterator[int]:
    descriptor = os.memfd_create("vnet-template", os.MFD_CLOEXEC)
    try:
        os.ftruncate(descriptor, size)
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
