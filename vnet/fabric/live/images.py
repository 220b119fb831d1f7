"""The images of this host, with who uses them: what `vnet image` shows and does."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from vnet.base import paths
from vnet.base.boot import MICRO
from vnet.base.errors import HostError, InputError, VnetError
from vnet.fabric.live import cloning
from vnet.fabric.live.registry import Registry
from vnet.hv.distro import NAME as DISTRO
from vnet.hv.live import base_note, distro, image_import, locations
from vnet.hv.live import image as micro
from vnet.hv.live import image_store as store
from vnet.hv.live.base_note import Gone
from vnet.hv.live.image_import import Wanted
from vnet.hv.live.image_store import Listed
from vnet.hv.stored import Stored
from vnet.topology.values import NAME_MAX, is_name

Json = Mapping[str, Any]
Tell = Callable[[str], None]

_ENDINGS = re.compile(r"(\.(qcow2|qcow|img|raw|vdi|vmdk|vhdx|vhd|iso|disk\d*))+$")


async def listed(registry: Registry) -> list[Json]:
    """All images, vnet's own first, those that are not there and that disks need last."""
    found = await asyncio.to_thread(store.listed)
    own = await asyncio.to_thread(_micro)
    known = [_plain(each, await _users(registry, each)) for each in found]
    return [*own, *known, *await asyncio.to_thread(_lost)]


async def put(wanted: Wanted, name: str, tell: Tell) -> Json:
    """Import a file; from then on `name` means it. Without one it is called as the file is."""
    name = name or name_of(wanted.path)
    _refuse_name(name)
    return await _named(await image_import.put(wanted, tell), name)


async def put_own(registry: Registry, fabric: str, vm: str, disk: str, name: str, tell: Tell) -> Json:
    """Make an image of a VM's disk, which `name` means from then on."""
    _refuse_name(name)
    return await _named(await cloning.template(registry, fabric, vm, disk, tell), name)


async def _named(image: Stored, name: str) -> Json:
    await _call_it(image, name)
    return _plain(Listed(image, (name,), store.path_of(image).stat().st_blocks * 512), ())


async def _call_it(image: Stored, name: str) -> None:
    """Has a name mean an image; what it meant before goes if nobody needs it."""
    before = await asyncio.to_thread(store.by_name, name)
    await asyncio.to_thread(store.name_it, image, name)
    if before is not None and before.id != image.id:
        await _remove_if_of_no_use(before)


def name_of(path: Path) -> str:
    """A name for the image of a file."""
    stem = _ENDINGS.sub("", path.name.lower())
    return re.sub(r"[^a-z0-9]+", "-", stem).strip("-")[:NAME_MAX].strip("-")


def _refuse_name(name: str) -> None:
    if name == MICRO:
        raise InputError(f"{MICRO} is vnet's own image: choose another name with --name")
    if not is_name(name):
        raise InputError(
            f"{name!r} is no name for an image (lowercase letters, digits and -, at most {NAME_MAX}): "
            "choose one with --name"
        )


async def _remove_if_of_no_use(image: Stored) -> None:
    """What a name meant before, unless another name or a disk needs it."""
    found = await asyncio.to_thread(store.listed)
    is_named = any(each.names for each in found if each.image.id == image.id)
    is_known = not await asyncio.to_thread(locations.missing)
    if is_known and not is_named and not await asyncio.to_thread(base_note.users, image):
        await asyncio.to_thread(store.remove, image)


async def remove(registry: Registry, word: str) -> Json:
    """Remove an image. Raises InputError if there is none, HostError while somebody needs it."""
    found = _listed(await asyncio.to_thread(store.find, word))
    users = await _users(registry, found)
    await asyncio.to_thread(_refuse_unknown)
    if users:
        raise HostError(
            f"the image {word} is needed by {', '.join(users)}: their disks are the difference to it."
            " Remove them first (`vnet disk ls`, `vnet disk rm`), or take the fabrics down"
        )
    await asyncio.to_thread(store.remove, found.image)
    return _plain(found, ())


async def remove_unused(registry: Registry) -> list[Json]:
    """Remove the images that have no name and that nobody needs: those that topologies brought."""
    removed: list[Json] = []
    await asyncio.to_thread(_refuse_unknown)
    for each in await asyncio.to_thread(store.listed):
        if not each.names and not each.image.is_base and not await _users(registry, each):
            await asyncio.to_thread(store.remove, each.image)
            removed.append(_plain(each, ()))
    return removed


def _refuse_unknown() -> None:
    """Raises HostError if disks that need an image may be where nobody can look."""
    for each in locations.missing():
        raise HostError(
            f"disks at the location {each.name} may need it, and they are missing: {each.trouble}"
        )


async def verify(word: str | None) -> list[Json]:
    """Read all of an image, or of each, and say whether it is as it was imported; also of those that disks
    need and that are not there."""
    if word:
        chosen = [_listed(await asyncio.to_thread(store.find, word))]
    else:
        chosen = list(await asyncio.to_thread(store.listed))
    read: list[Json] = [{**_plain(each, ()), "fault": await _fault(each.image)} for each in chosen]
    return read if word else [*read, *await asyncio.to_thread(_lost)]


async def _fault(image: Stored) -> str:
    try:
        await asyncio.to_thread(store.verify, image)
    except VnetError as error:
        return str(error)
    return ""


async def _build_micro(tell: Tell) -> Json:
    await asyncio.to_thread(micro.build, tell)
    return _micro()[0]


async def _build_distro(tell: Tell) -> Json:
    image = await distro.build(tell)
    await _call_it(image, DISTRO)
    return _plain(await asyncio.to_thread(_listed, image), ())


BUILDERS: Mapping[str, Callable[[Tell], Awaitable[Json]]] = {MICRO: _build_micro, DISTRO: _build_distro}
"""The images that vnet makes itself, of Debian packages."""


async def build(name: str, tell: Tell) -> Json:
    """Make an image. Raises InputError for one that vnet cannot make."""
    if name not in BUILDERS:
        raise InputError(f"vnet makes no image {name}, only: {', '.join(BUILDERS)}")
    return await BUILDERS[name](tell)


def _listed(image: Stored) -> Listed:
    return next(each for each in store.listed() if each.image.id == image.id)


async def _users(registry: Registry, one: Listed) -> tuple[str, ...]:
    """The disks that are made of it, and the VMs of fabrics that are up and name it, as FABRIC/VM."""
    disks = await asyncio.to_thread(base_note.users, one.image)
    vms = {
        f"{name}/{vm.name}"
        for name, fabric in registry.fabrics.items()
        for vm in fabric.vms
        for source in vm.boot.sources
        if source.name in one.names and source.file is None and source.kernel is None
    }
    owners = {disk.rpartition("/")[0] for disk in disks}
    return (*disks, *sorted(vms - owners))


def _plain(one: Listed, users: tuple[str, ...]) -> dict[str, Any]:
    image = one.image
    return {
        "name": ", ".join(one.names),
        "id": image.id,
        "kind": "iso" if image.is_iso else "base" if image.is_base and not one.names else "disk",
        "format": image.format.value,
        "size_bytes": image.size_bytes,
        "taken_bytes": one.taken_bytes,
        "sha256": image.sha256,
        "cloud_init": image.cloud_init,
        "origin": image.origin,
        "imported_s": image.imported_s,
        "users": list(users),
        "path": str(store.path_of(image)),
        "gone": not store.path_of(image).exists(),
    }


def _lost() -> list[Json]:
    """The images that disks are made of and of which the store has nothing at all any more."""
    return [_unknown(each) for each in base_note.gone() if not store.is_known(each.base.id)]


def _unknown(lost: Gone) -> Json:
    base = lost.base
    return {
        "name": "" if base.is_own else base.name,
        "id": base.id,
        "kind": "base" if base.is_own else "disk",
        "format": "",
        "size_bytes": 0,
        "taken_bytes": 0,
        "sha256": "" if base.is_own else base.sha256,
        "cloud_init": False,
        "origin": base.name,
        "imported_s": 0,
        "users": list(lost.users),
        "path": str(paths.image_store() / base.id),
        "gone": True,
        "fault": f"it is gone, and needed by {', '.join(lost.users)}: {base_note.remedy(base)}",
    }


def _micro() -> list[Json]:
    """vnet's own image, if it is made."""
    found = micro.current()
    if found is None:
        return []
    files = (found.kernel, found.initrd)
    return [
        {
            "name": MICRO,
            "id": found.key,
            "kind": "kernel",
            "format": "",
            "size_bytes": sum(each.stat().st_size for each in files),
            "taken_bytes": sum(each.stat().st_blocks * 512 for each in files),
            "sha256": "",
            "cloud_init": False,
            "origin": "Debian packages",
            "imported_s": int(found.kernel.stat().st_mtime),
            "users": [],
            "path": str(found.kernel.parent),
            "gone": False,
        }
    ]
