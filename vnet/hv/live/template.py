"""Templates of warm clones: a guest booted once, stopped before it has an identity, and kept.

A clone maps the template's memory privately, so the kernel copies a page only when the clone writes to
it. QEMU 7.2 insists on opening that file for writing. It is given a sealed memfd instead: it can be
opened and privately mapped, but no clone, however broken, can change what the others are made of.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
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
from vnet.hv.accel import Accel
from vnet.hv.argv import QEMU, Machine, Memory, template_key
from vnet.hv.live.agent_client import AgentClient
from vnet.hv.live.cgroup import Cgroup
from vnet.hv.live.deadline import deadline
from vnet.hv.live.host_files import opened, pieces
from vnet.hv.live.image import Image
from vnet.hv.live.launcher import Confinement, launch_machine
from vnet.hv.live.lock import exclusive
from vnet.hv.live.process import Process, search
from vnet.hv.live.qmp import Monitor
from vnet.hv.live.users import claim_dir
from vnet.hv.snapshot import Build

_BOOT_TIMEOUT_S = 60.0
_SAVE_TIMEOUT_S = 20.0
_ATTEMPTS = 2
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_COPY_BYTES = 1 << 16
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
        self, machine: Machine, image: Image, accel: Accel, progress: Callable[[str], None]
    ) -> Template:
        """The template for clones of a machine, booted now if there is none.

        Raises:
            HostError, PeerError, TimedOut: it could not be made.
        """
        key = template_key(machine, image=image.key, qemu_version=await self._qemu(machine.accel))
        async with self._locks.setdefault(key, asyncio.Lock()):
            if key not in self._loaded:
                await self._make_once(key, machine, image, accel, progress)
                self._loaded[key] = await asyncio.to_thread(_load, key, machine.memory_bytes)
            return self._loaded[key]

    async def _make_once(
        self, key: str, machine: Machine, image: Image, accel: Accel, progress: Callable[[str], None]
    ) -> None:
        """Makes a template unless there is one, alone among all processes of this host."""
        with contextlib.ExitStack() as stack:
            await asyncio.to_thread(stack.enter_context, exclusive(_folder(key).parent))
            if not _is_kept(key):
                progress(f"booting a template of {machine.memory_bytes >> 20} MiB for warm clones")
                await asyncio.to_thread(_sweep)
                await _make(key, machine, image, accel)

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
        build = await self.build(accel)
        return build.qemu + build.cpu

    async def build(self, accel: str) -> Build:
        """What a saved state is bound to besides the command line: QEMU's build, and with KVM the CPU."""
        if not self._version:
            self._version = await asyncio.to_thread(_qemu_version)
        cpu = hashlib.sha256(_cpu_model().encode()).hexdigest()[:16] if accel == "kvm" else ""
        return Build(self._version, accel, cpu)


def _folder(key: str) -> Path:
    return paths.image_dir() / "templates" / key


def _is_kept(key: str) -> bool:
    return (_folder(key) / "manifest.json").exists()


def _qemu_version() -> str:
    try:
        done = subprocess.run([QEMU, "--version"], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise HostError(f"`{QEMU} --version` failed: {error}; install qemu-system-x86") from error
    return done.stdout.splitlines()[0]


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return "\n".join(
        sorted({line for line in lines if line.startswith(("model name", "flags", "microcode"))})
    )


async def _make(key: str, machine: Machine, image: Image, accel: Accel) -> None:
    """Boots, saves and keeps a template; a boot that hangs is tried once more."""
    for attempt in range(1, _ATTEMPTS + 1):
        building = Path(tempfile.mkdtemp(prefix=".building-", dir=_folder(key).parent))
        try:
            await _boot_and_save(machine, image, accel, building)
            await asyncio.to_thread(_keep, key, machine, image, building)
            return
        except TimedOut:
            if attempt == _ATTEMPTS:
                raise
        finally:
            shutil.rmtree(building, ignore_errors=True)


def _keep(key: str, machine: Machine, image: Image, building: Path) -> None:
    """Puts a finished template in its place and removes those of images no longer in use."""
    manifest = {"key": key, "image": image.key, "memory_bytes": machine.memory_bytes}
    (building / "manifest.json").write_text(json.dumps(manifest) + "\n")
    shutil.rmtree(_folder(key), ignore_errors=True)
    building.rename(_folder(key))
    for path in _folder(key).parent.iterdir():
        with contextlib.suppress(OSError, ValueError):
            if json.loads((path / "manifest.json").read_text()).get("image") != image.key:
                shutil.rmtree(path, ignore_errors=True)


def _sweep() -> None:
    """What a manager left that was killed while it made a template. Called with the lock held."""
    for building in (paths.image_dir() / "templates").glob(".building-*"):
        shutil.rmtree(building, ignore_errors=True)
    for run_dir in (paths.run_dir() / "templates").glob("*/"):
        process = search(run_dir / "pid", user=run_dir.stat().st_uid)
        if process:
            process.kill()
            process.close()
        shutil.rmtree(run_dir, ignore_errors=True)


async def _boot_and_save(machine: Machine, image: Image, accel: Accel, building: Path) -> None:
    uuid = str(uuids.uuid4())
    run_dir = paths.run_dir() / "templates" / uuid
    machine = replace(machine, name="template", uuid=uuid, run_dir=str(run_dir), memory=Memory.TEMPLATE)
    with _memory(machine.memory_bytes) as memory:
        try:
            confinement = Confinement(claim_dir(run_dir), _NO_CGROUP, accel)
            process = await launch_machine(machine, image, confinement, memory_fd=memory)
            try:
                await _save(process, run_dir, building / "state")
            finally:
                process.kill()
                await process.wait(None)
                process.close()
        finally:
            shutil.rmtree(run_dir, ignore_errors=True)
        await asyncio.to_thread(_copy_sparse, memory, building / "memory")


async def _save(process: Process, run_dir: Path, state: Path) -> None:
    """Waits for the guest's agent, stops the guest and writes its state."""
    qmp = await Monitor.connect(run_dir / "qmp.sock", alive=process.alive, timeout_s=20)
    try:
        agent = await AgentClient.connect(run_dir / "agent.sock", timeout_s=_BOOT_TIMEOUT_S, fresh=True)
        await agent.close()
        await qmp.execute(monitor.STOP)
        with opened(state, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as descriptor:
            await qmp.execute_all(monitor.save_state(descriptor))
            async with deadline(_SAVE_TIMEOUT_S, "QEMU did not save the template"):
                await qmp.poll(monitor.QUERY_MIGRATE, monitor.is_saved)
    finally:
        await qmp.close()


def _load(key: str, size: int) -> Template:
    """Reads a template's memory into a memfd that nobody can change any more."""
    descriptor = os.memfd_create(f"vnet-template-{key}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, size)
        with opened(_folder(key) / "memory") as source:
            _copy(source, descriptor)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    except OSError as error:
        os.close(descriptor)
        raise HostError(f"the template {key} cannot be loaded: {error}") from error
    return Template(key, descriptor, _folder(key) / "state")


def _copy_sparse(source: int, target: Path) -> None:
    """Writes a memfd to a file, holes and pages of zeros left out."""
    try:
        with opened(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as descriptor:
            os.ftruncate(descriptor, os.fstat(source).st_size)
            _copy(source, descriptor)
    except OSError as error:
        raise HostError(f"the template cannot be written to {target}: {error}") from error


def _copy(source: int, target: int) -> None:
    for offset, data in pieces(source, _COPY_BYTES):
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
