"""Takes backups: all disks of a guest at one moment, into an entry of a store.

The order of things makes every crash harmless: an entry counts once its manifest is there, and the count of
what was written since its parent goes on until then.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from vnet import __version__
from vnet.base.boot import UEFI_VARIABLES
from vnet.base.errors import HostError, InputError, PeerError, VnetError
from vnet.hv import backup, monitor, secret
from vnet.hv import backup_commands as commands
from vnet.hv.backup import Base, Kind, Manifest, SavedDisk
from vnet.hv.backup_commands import Copy, File
from vnet.hv.disk import Disk, DiskFormat
from vnet.hv.freeze import Freeze, FreezeMode
from vnet.hv.live.backed_up import refuse_broken_off
from vnet.hv.live.backup_room import refuse_without_room
from vnet.hv.live.backup_store import Store, measured
from vnet.hv.live.blocks import Blocks
from vnet.hv.live.qmp import Monitor
from vnet.hv.live.tasks import uninterrupted
from vnet.hv.live.threads import finished

POLL_S = 0.1
CHAIN_MAX = 30
"""So many increments hang on a full one before there is another: each is read when the last is restored."""
_CANCEL_TIMEOUT_S = 30.0

Moved = Callable[[int], None]
"""Told how many percent are done."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be backed up, and how. `key` is that of encrypted backups; `rate_bytes` of 0 is no limit."""

    fabric: str
    vm: str
    is_full: bool = False
    chain_max: int = CHAIN_MAX
    key: bytes | None = None
    rate_bytes: int = 0
    freeze: FreezeMode = FreezeMode.AUTO
    is_tight: bool = False
    """Begun although the store may have no room for it."""
    declared: Mapping[str, Any] = field(default_factory=dict)
    topology: Mapping[str, str] = field(default_factory=dict)


def newest(entries: Mapping[str, Manifest], fabric: str, vm: str) -> Manifest | None:
    """A VM's last entry; of two of one moment that which is nobody's parent."""
    found = [each for each in entries.values() if (each.fabric, each.vm) == (fabric, vm)]
    parents = {each.parent for each in found}
    return max(found, key=lambda each: (each.taken_at, each.id not in parents), default=None)


async def begin(store: Store, blocks: Blocks, order: Order) -> Manifest:
    """What the next entry is to be. Nothing has been made yet.

    Raises: AdmissionError if the store has no room for it.
    """
    nodes = await blocks.monitor.execute(monitor.QUERY_NODES)
    _refuse_to_open(blocks, order, commands.encrypted(nodes))
    await refuse_broken_off(blocks.monitor, order.vm)
    entries = await asyncio.to_thread(store.complete)
    last = newest(entries, order.fabric, order.vm)
    found = _bitmaps_in(blocks, nodes)
    is_encrypted = order.key is not None
    base = backup.base(last, found, is_encrypted=is_encrypted, full=_why_full(last, entries, order))
    if base.parent is not None and last is not None and is_encrypted:
        await asyncio.to_thread(check_key, last, order.key)  # a chain has one key
    qemu = await blocks.monitor.execute(commands.QUERY_VERSION)
    sizes = commands.sizes(nodes)
    disks = tuple(replace(each, size_bytes=sizes[blocks.nodes[each.name]]) for each in blocks.disks)
    manifest = _manifest(store, disks, order, base, commands.version(qemu))
    if not order.is_tight:
        await asyncio.to_thread(refuse_without_room, store.path, blocks, nodes, found, manifest)
    return manifest


def _refuse_to_open(blocks: Blocks, order: Order, encrypted: frozenset[str]) -> None:
    """What is encrypted stays so, wherever it goes and whatever is declared."""
    if all(each.name == UEFI_VARIABLES for each in blocks.disks):
        raise InputError(f"{order.vm} has no disks: there is nothing to back up")
    locked = ", ".join(each.name for each in blocks.disks if blocks.nodes[each.name] in encrypted)
    if locked and order.key is None:
        raise InputError(
            f"{locked} of {order.vm} is encrypted, its backup would not be: give a key, --key-file FILE"
        )


def _why_full(last: Manifest | None, entries: Mapping[str, Manifest], order: Order) -> str:
    if order.is_full:
        return backup.ASKED_FOR
    missing = backup.gap(last.id, entries) if last else ""
    if missing:
        return missing
    increments = len(backup.chain(last.id, entries)) - 1 if last else 0
    return f"{increments} increments hang on the last full one" if increments >= order.chain_max else ""


def _manifest(store: Store, disks: Sequence[Disk], order: Order, base: Base, qemu: str) -> Manifest:
    taken_at = _now()
    ending = "qcow2.luks" if order.key is not None else "qcow2"
    return Manifest(
        id=backup.new_id(order.vm, taken_at, secrets.token_hex(2)),
        store=store.id,
        fabric=order.fabric,
        vm=order.vm,
        kind=Kind.INCREMENTAL if base.parent else Kind.FULL,
        parent=base.parent,
        taken_at=taken_at,
        freeze=Freeze(False, "it was broken off before"),
        disks=tuple(_saved(each, ending, base) for each in disks),
        is_encrypted=order.key is not None,
        declared=order.declared,
        topology=order.topology,
        vnet=__version__,
        qemu=qemu,
    )


def _now() -> datetime:
    """To the millisecond: several are made within a second, and the last one is to be known."""
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


def _saved(disk: Disk, ending: str, base: Base) -> SavedDisk:
    return SavedDisk(
        name=disk.name,
        size_bytes=disk.size_bytes,
        format=disk.format,
        is_full=disk.is_full,
        is_encrypted=disk.encrypt,
        file=f"{disk.name}.{ending}",
        whole_because=base.whole.get(disk.name, ""),
    )


async def take(store: Store, blocks: Blocks, order: Order, manifest: Manifest, moved: Moved) -> Manifest:
    """Make an entry; on failure there is none, and the next one is as if this had not been tried.

    Raises: HostError, PeerError, CancelledError.
    """
    try:
        await finished(store.begin, manifest, order.key)
        if order.key is not None:
            await blocks.monitor.execute(commands.add_key(order.key))
        await _make_targets(store, blocks, manifest)
        manifest = await _at_one_moment(store, blocks, order, manifest)
        return await complete(store, blocks, order.key, manifest, moved)
    except BaseException as error:
        with contextlib.suppress(VnetError):
            await uninterrupted(undo(store, blocks, manifest))
        if isinstance(error, PeerError):
            told = f"{order.vm} ended while it was being backed up; nothing is left of the backup ({error})"
            raise HostError(told) from error
        if isinstance(error, OSError):
            raise HostError(f"cannot write to {store.path}: {error.strerror}") from error
        raise


async def _make_targets(store: Store, blocks: Blocks, manifest: Manifest) -> None:
    taken = commands.sets(await blocks.monitor.execute(commands.QUERY_SETS))
    first_set = max(taken, default=commands.FIRST_SET - 1) + 1
    for file, disk in zip(_files(manifest, first_set), manifest.disks, strict=True):
        path = store.file(manifest, disk)
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            await blocks.monitor.execute(file.add_fd(descriptor, str(path)))
        finally:
            os.close(descriptor)
        await blocks.monitor.execute_all(commands.make_target(file, disk.size_bytes))
        await wait(blocks.monitor, (commands.job(file.index),))
        await blocks.monitor.execute(commands.open_target(file))


def _files(manifest: Manifest, first_set: int = commands.FIRST_SET) -> tuple[File, ...]:
    is_encrypted, numbers = manifest.is_encrypted, range(len(manifest.disks))
    return tuple(File(number, is_encrypted, first_set=first_set) for number in numbers)


async def _at_one_moment(store: Store, blocks: Blocks, order: Order, manifest: Manifest) -> Manifest:
    """Begin to copy, with the guest's file systems standing still while it is begun."""
    copies = tuple(_copies(blocks, order, manifest))
    freeze = await blocks.freeze(order.freeze)
    try:
        await blocks.monitor.execute(commands.take(copies))
    finally:
        stood_still = freeze != Freeze(True) or await blocks.thaw()
    if not stood_still:
        freeze = Freeze(False, "its file systems went on before the moment had come")
    manifest = replace(manifest, taken_at=_now(), freeze=freeze)
    await finished(store.note, manifest)
    if order.freeze is FreezeMode.REQUIRE and not freeze.is_frozen:
        raise HostError(f"{order.vm} did not stand still: {freeze.why}")
    return manifest


def _copies(blocks: Blocks, order: Order, manifest: Manifest) -> Iterator[Copy]:
    since = backup.bitmap_name(manifest.store, manifest.parent) if manifest.parent else ""
    for file, disk in zip(_files(manifest), manifest.disks, strict=True):
        yield Copy(
            source=blocks.nodes[disk.name],
            target=file,
            counts=backup.bitmap_name(manifest.store, manifest.id),
            is_lasting=disk.format == DiskFormat.QCOW2.value,
            since="" if disk.whole_because else since,
            rate_bytes=order.rate_bytes // len(manifest.disks),
        )


async def is_going_on(blocks: Blocks, manifest: Manifest) -> bool:
    """Whether QEMU still works on an entry whose daemon died, or has done its part of it."""
    name = backup.bitmap_name(manifest.store, manifest.id)
    found = await _bitmaps(blocks)
    counted = all(any(each.name == name for each in found.get(disk.name, ())) for disk in manifest.disks)
    wanted = [commands.job(file.index) for file in _files(manifest)]
    running = commands.jobs(await blocks.monitor.execute(commands.QUERY_JOBS), wanted)
    return counted and len(running) == len(wanted)


async def complete(
    store: Store, blocks: Blocks, key: bytes | None, manifest: Manifest, moved: Moved
) -> Manifest:
    """Wait until QEMU has copied everything, then make the entry count."""
    files = _files(manifest)
    stood_still = blocks.held_up_by

    def goes_on(percent: int) -> None:
        """A guest that writes what cannot be copied to the store waits for it: rather no backup."""
        if blocks.held_up_by and not stood_still:
            raise HostError(f"QEMU could not copy ({blocks.held_up_by}), and the guest waited for it")
        moved(percent)

    await wait(blocks.monitor, [commands.job(file.index) for file in files], goes_on)
    await _close(blocks.monitor, files)
    manifest = await finished(measured, store, manifest)
    if key is not None:
        manifest = replace(manifest, check=secret.mac(key, manifest.id, backup.signed(manifest)))
    await uninterrupted(_count(store, blocks, manifest))
    return manifest


async def _count(store: Store, blocks: Blocks, manifest: Manifest) -> None:
    """The entry counts from here on: it is too late to break it off."""
    await asyncio.to_thread(store.finish, manifest)
    await _forget_counts(blocks, manifest, but=manifest.id)


async def undo(store: Store, blocks: Blocks, manifest: Manifest) -> None:
    """Leave QEMU and the store as if the entry had never been begun."""
    complete_already = await asyncio.to_thread(_counts, store, manifest)
    if complete_already:
        return
    files = _files(manifest)
    with contextlib.suppress(PeerError):
        await _break_off(blocks.monitor, [commands.job(file.index) for file in files])
        await blocks.try_again()
        await _close(blocks.monitor, files)
        await _forget_counts(blocks, manifest, only=manifest.id)
    await asyncio.to_thread(store.remove, manifest.id)


def _counts(store: Store, manifest: Manifest) -> bool:
    try:
        return store.entry(manifest.id).is_complete
    except InputError:
        return False


async def wait(qmp: Monitor, wanted: Sequence[str], moved: Moved = lambda percent: None) -> None:
    """Wait for jobs to end well. Raises HostError saying what one of them failed of; the others go on."""
    while True:
        states = commands.jobs(await qmp.execute(commands.QUERY_JOBS), wanted)
        failed = next((each for each in states if each.has_ended and each.error), None)
        if failed is not None or len(states) < len(wanted):
            raise HostError(f"QEMU could not copy: {failed.error if failed else 'its job has vanished'}")
        moved(commands.percent(states))
        if all(each.has_ended for each in states):
            break
        await asyncio.sleep(POLL_S)
    for each in states:
        await qmp.execute(commands.dismiss(each.id))


async def _break_off(qmp: Monitor, wanted: Sequence[str]) -> None:
    """End jobs, however they stand."""
    async with asyncio.timeout(_CANCEL_TIMEOUT_S):
        while states := commands.jobs(await qmp.execute(commands.QUERY_JOBS), wanted):
            for each in states:
                with contextlib.suppress(HostError):
                    await qmp.execute((commands.dismiss if each.has_ended else commands.cancel)(each.id))
            await asyncio.sleep(POLL_S / 10)


async def _close(qmp: Monitor, files: Sequence[File]) -> None:
    """Let go of targets and key, as far as they are there."""
    for file in files:
        for command in commands.close_target(file):
            with contextlib.suppress(HostError):
                await qmp.execute(command)
    for number in commands.sets(await qmp.execute(commands.QUERY_SETS)):
        with contextlib.suppress(HostError):
            await qmp.execute(commands.remove_set(number))
    if any(file.is_encrypted for file in files):
        with contextlib.suppress(HostError):
            await qmp.execute(commands.REMOVE_KEY)


async def _bitmaps(blocks: Blocks) -> dict[str, Sequence[backup.Bitmap]]:
    """By the names of disks."""
    return _bitmaps_in(blocks, await blocks.monitor.execute(monitor.QUERY_NODES))


def _bitmaps_in(blocks: Blocks, nodes: object) -> dict[str, Sequence[backup.Bitmap]]:
    found = commands.bitmaps(nodes)
    return {disk.name: found.get(blocks.nodes[disk.name], ()) for disk in blocks.disks}


async def _forget_counts(blocks: Blocks, manifest: Manifest, *, but: str = "", only: str = "") -> None:
    """Remove bitmaps of the store: all but one's, or only one's."""
    for disk, found in (await _bitmaps(blocks)).items():
        for each in backup.of_store(found, manifest.store):
            id_ = each.name.rpartition("/")[2]
            if id_ != but and only in ("", id_):
                with contextlib.suppress(HostError):  # one that is used by a job is left
                    await blocks.monitor.execute(commands.remove_bitmap(blocks.nodes[disk], each.name))


def check_key(manifest: Manifest, key: bytes | None) -> None:
    """Raise InputError unless this is the key of an entry. It is not tried on its disks."""
    if not manifest.is_encrypted:
        return
    if key is None:
        raise InputError(f"{manifest.id} is encrypted: give its key with --key-file FILE")
    if not secret.is_mac(key, manifest.id, backup.signed(manifest), manifest.check):
        raise InputError(f"this is not the key of {manifest.id}, or somebody has changed its manifest")
