"""Makes the distribution guest from Debian packages, and puts it into the host's store of images.

Nothing is installed on the host. Packages are fetched and checked by apt; the tree, the disk and all between
lie in one folder, which is gone when the build ends, however it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from vnet.base import paths
from vnet.base.errors import HostError, TimedOut, VnetError
from vnet.hv import distro, qemu_img
from vnet.hv.live import image_import, image_tool
from vnet.hv.live import image_store as store
from vnet.hv.live.workshop import workshop
from vnet.hv.qemu_img import Image
from vnet.hv.stored import Stored

_TIMEOUT_S = 1800.0
_KEPT_LINES = 30

Progress = Callable[[str], None]


async def build(progress: Progress) -> Stored:
    """The image of the packages that apt now offers; made only if it is not the one that there is.

    Raises:
        HostError: a tool is missing or failed, no package lists, no room.
    """
    versions = distro.parse_versions(await _run(distro.closure()))
    origin = f"{distro.TITLE}, {len(versions)} packages, {distro.key_of(versions)}"
    there = await asyncio.to_thread(store.by_name, distro.NAME)
    if there is not None and there.origin == origin:
        progress(f"{distro.NAME}: made of these {len(versions)} packages already")
        return await asyncio.to_thread(store.sound, there)
    async with workshop(paths.image_store()) as folder:
        progress(f"{distro.NAME}: {len(versions)} Debian packages, about 200 MiB to fetch")
        tree, disk = folder / "tree", folder / "disk.raw"
        await _run(distro.bootstrap(str(tree)), lambda line: _tell(line, progress))
        progress(f"{distro.NAME}: writing the disk")
        await asyncio.to_thread(_finish, tree)
        await _write_disk(tree, disk)
        await asyncio.to_thread(shutil.rmtree, tree)
        image = await _compressed(disk, folder / f"{distro.NAME}.qcow2", progress)
    made = replace(image, origin=origin)
    await asyncio.to_thread(store.write_manifest, made, store.folder_of(made))
    return made


def _tell(line: str, progress: Progress) -> None:
    if line.startswith("I: "):
        progress(f"{distro.NAME}: {line.removeprefix('I: ')}")


def _finish(tree: Path) -> None:
    """What packages do not do: files of ours, and nothing that all guests would share."""
    for name, text in distro.FILES.items():
        target = tree / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    for pattern in distro.REMOVED:
        for path in tree.glob(pattern):
            path.unlink()
    for unit in distro.DISABLED_UNITS:
        link = tree / "etc/systemd/system" / unit
        link.unlink(missing_ok=True)
        link.symlink_to("/dev/null")
    (tree / "etc/machine-id").write_text("")
    (tree / "tmp/early.cfg").write_text(distro.EARLY)


async def _write_disk(tree: Path, disk: Path) -> None:
    await _run(distro.grub_core(str(tree)))
    boot, core = tree / "usr/lib/grub/i386-pc/boot.img", tree / "tmp/core.img"
    sectors = distro.boot_sectors(boot.read_bytes(), core.read_bytes())
    core.unlink()
    (tree / "tmp/early.cfg").unlink()
    with disk.open("wb") as file:
        file.truncate(distro.SIZE_BYTES)
    await _run(distro.file_system(str(tree), str(disk)))
    with disk.open("r+b") as file:
        file.write(sectors)


async def _compressed(disk: Path, packed: Path, progress: Progress) -> Stored:
    options = ("-c", "-o", "compression_type=zstd")
    await image_tool.execute(qemu_img.convert(Image(disk, "raw"), packed, "qcow2", options))
    disk.unlink()
    return await image_import.put(image_import.Wanted(packed, cloud_init=True), progress)


async def _run(command: tuple[str, ...], told: Callable[[str], None] = lambda line: None) -> str:
    """Runs a tool to its end and returns what it printed; broken off, it is ended with all its children.

    Raises:
        HostError: with the end of what it said.
    """
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise HostError(f"{command[0]} is missing: {distro_needs()}") from error
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            output, said = await asyncio.gather(_all_of(process.stdout), _lines_of(process.stderr, told))
            code = await process.wait()
    except TimeoutError as error:
        raise TimedOut(f"`{command[0]}` did not end within {_TIMEOUT_S:g} s") from error
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await asyncio.shield(process.wait())
    if code:
        shown = " ".join(command[:7])
        raise HostError(f"`{shown} …` failed with {code}:\n{said or output[-2000:]}\n{distro_needs(said)}")
    return output


def distro_needs(said: str = "") -> str:
    """What to do when a tool is missing, or apt knows no packages."""
    if said and "No such file" not in said and "failed to execute" not in said:
        return "if packages cannot be found: `apt-get update`"
    return "`apt-get install mmdebstrap e2fsprogs qemu-utils`"


async def _all_of(stream: asyncio.StreamReader | None) -> str:
    assert stream is not None
    return (await stream.read()).decode(errors="replace")


async def _lines_of(stream: asyncio.StreamReader | None, told: Callable[[str], None]) -> str:
    """Tells each line as it comes; returns the last of them."""
    assert stream is not None
    kept: list[str] = []
    while line := await stream.readline():
        text = line.decode(errors="replace").rstrip()
        told(text)
        kept = [*kept[-_KEPT_LINES:], text]
    return "\n".join(kept)


def main(arguments: Sequence[str]) -> int:
    """Builds the image under its name, progress on stderr, its file on stdout; `--made` asks for one."""
    if arguments not in ([], ["--made"]):
        print("usage: python -m vnet.hv.live.distro [--made]", file=sys.stderr)
        return 2
    if arguments:
        return int(store.by_name(distro.NAME) is None)
    try:
        made = asyncio.run(build(lambda text: print(text, file=sys.stderr, flush=True)))
        store.name_it(made, distro.NAME)
    except VnetError as error:
        print(f"vnet: {error}", file=sys.stderr)
        return int(error.exit_code)
    print(store.path_of(made))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
