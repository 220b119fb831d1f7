"""Backups of this host's VMs: taken, listed, tried, restored, thinned out."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from vnet.base import paths
from vnet.base.errors import HostError, InputError, VnetError
from vnet.fabric import redeclared
from vnet.fabric.events import Kind
from vnet.fabric.live.engine import Engine
from vnet.fabric.live.observe import ALIVE
from vnet.fabric.live.telling import telling
from vnet.fabric.progress import Progress, Report, Status
from vnet.hv import backup as values
from vnet.hv import retention
from vnet.hv.backup import Manifest
from vnet.hv.freeze import FreezeMode
from vnet.hv.live import backup, backup_restore
from vnet.hv.live.backup import Order
from vnet.hv.live.backup_restore import Into
from vnet.hv.live.backup_store import Entry, Store
from vnet.hv.retention import Keep

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Wanted:
    """How a backup is to be made or restored. `store` is its folder; `key` that of encrypted ones."""

    store: str = ""
    key: bytes | None = None
    is_full: bool = False
    chain_max: int = backup.CHAIN_MAX
    rate_bytes: int = 0
    freeze: FreezeMode = FreezeMode.AUTO


@dataclass(frozen=True, slots=True)
class Target:
    """Where a backup is restored to. Empty words mean where it came from; `disk` is one of the VM's.

    `saved` names a disk of the backup. `overwrite`: what is there now may be lost.
    """

    fabric: str = ""
    vm: str = ""
    disk: str = ""
    saved: str = ""
    overwrite: bool = False


@dataclass(slots=True)
class Backups:
    """All on one engine. `running` are the entries at work, by store and name, with the percent done."""

    engine: Engine
    running: dict[tuple[str, str], int] = field(default_factory=dict)
    _busy: set[tuple[str, str]] = field(default_factory=set)

    # ---- taking ----------------------------------------------------------------------------------

    async def create(self, fabric: str, vm: str, wanted: Wanted, report: Report) -> Json:
        """Back a VM up. On failure there is nothing of it."""
        store = await asyncio.to_thread(Store.made, _path(wanted.store))
        order = self._order(fabric, vm, wanted)
        with self._alone(fabric, vm):
            await asyncio.to_thread(_refuse_unfinished, store, fabric, vm)
            return await self._told(store, order, report)

    async def _told(self, store: Store, order: Order, report: Report) -> Json:
        """Take it, and tell what became of it."""
        try:
            manifest = await self._take(store, order, report)
        except VnetError as error:
            text = f"{order.vm} could not be backed up: {error}"
            self.engine.events.tell(Kind.BACKUP_FAILED, text, order.fabric, order.vm, {"why": str(error)})
            raise
        text = f"{order.vm} was backed up: {manifest.id}"
        fields = {"id": manifest.id, "store": str(store.path), "kind": manifest.kind.value}
        self.engine.events.tell(Kind.BACKUP_DONE, text, order.fabric, order.vm, fields)
        return _plain(store, Entry(manifest, True))

    def _order(self, fabric: str, vm: str, wanted: Wanted) -> Order:
        self.engine.guest(fabric, vm)  # refuses those that there are not
        found = self.engine.fabric(fabric)
        assert found.declared is not None
        spec = next(each for each in found.declared.inventory.vms if each.name == vm)
        source = found.record.source
        return Order(
            fabric,
            vm,
            wanted.is_full,
            wanted.chain_max,
            wanted.key,
            wanted.rate_bytes,
            wanted.freeze,
            redeclared.declared(spec),
            {source.file: source.text, **source.included},
        )

    async def _take(self, store: Store, order: Order, report: Report) -> Manifest:
        guest = self.engine.guest(order.fabric, order.vm)
        guests = self.engine.fabric(order.fabric).parts.guests
        async with guests.blocks(guest, "its disks are being backed up") as blocks:
            manifest = await backup.begin(store, blocks, order)
            with self._at_work(store, manifest, "back up", report) as moved:
                manifest = await backup.take(store, blocks, order, manifest, moved)
        _note(report, manifest)
        return manifest

    async def resume(self, id_: str, wanted: Wanted, report: Report) -> Json:
        """Finish an entry that was broken off; from the beginning, if QEMU is not at it any more."""
        store = await asyncio.to_thread(Store.opened, _path(wanted.store))
        manifest = (await self._unfinished(store, id_)).manifest
        order = self._order(manifest.fabric, manifest.vm, wanted)
        if manifest.is_encrypted and wanted.key is None:
            raise InputError(f"{id_} is encrypted: give its key with --key-file FILE")
        with self._alone(manifest.fabric, manifest.vm):
            done = await self._go_on(store, order, manifest, report)
            if done is not None:
                return _plain(store, Entry(done, True))
            what = f"QEMU is not at it any more: a new one is made in place of {id_}"
            report(Progress(0, what, Status.NOTE))
            await self._discard(store, manifest)
            again = {disk.whole_because for disk in manifest.disks} == {values.ASKED_FOR}
            return await self._told(store, replace(order, is_full=again), report)

    async def _go_on(self, store: Store, order: Order, manifest: Manifest, report: Report) -> Manifest | None:
        guest = self.engine.guest(order.fabric, order.vm)
        guests = self.engine.fabric(order.fabric).parts.guests
        async with guests.blocks(guest, "its disks are being backed up") as blocks:
            if not await backup.is_going_on(blocks, manifest):
                return None
            await blocks.thaw()
            with self._at_work(store, manifest, "back up", report) as moved:
                done = await backup.complete(store, blocks, order.key, manifest, moved)
        _note(report, done)
        return done

    async def discard(self, id_: str, wanted: Wanted) -> Json:
        """Remove an entry that was broken off, and what QEMU still does for it."""
        store = await asyncio.to_thread(Store.opened, _path(wanted.store))
        entry = await self._unfinished(store, id_)
        with self._alone(entry.manifest.fabric, entry.manifest.vm):
            await self._discard(store, entry.manifest)
        return _plain(store, entry)

    async def _discard(self, store: Store, manifest: Manifest) -> None:
        """If its VM is still there, its QEMU too forgets it."""
        try:
            guest = self.engine.guest(manifest.fabric, manifest.vm)
            guests = self.engine.fabric(manifest.fabric).parts.guests
            async with guests.blocks(guest, "a backup of it is being discarded") as blocks:
                await blocks.thaw()
                await backup.undo(store, blocks, manifest)
        except (InputError, HostError):
            await asyncio.to_thread(store.remove, manifest.id)

    async def _unfinished(self, store: Store, id_: str) -> Entry:
        entry = await asyncio.to_thread(store.entry, id_)
        if entry.is_complete:
            raise InputError(f"{id_} is complete; `vnet backup rm {id_}` removes it")
        if (str(store.path), id_) in self.running:
            raise InputError(f"{id_} is being made; Ctrl-C where that was asked for breaks it off")
        return entry

    # ---- looking ---------------------------------------------------------------------------------

    async def listed(self, store: str, fabric: str | None, vm: str | None) -> list[Json]:
        """What is in a store; a store that is not there has nothing."""
        path = _path(store)
        if not path.exists() or not any(path.iterdir()):
            return []
        found = await asyncio.to_thread(_read, path)
        rows = [self._row(opened, entry) for opened, entry in found]
        return [row for row in rows if fabric in (None, row["fabric"]) and vm in (None, row["vm"])]

    def _row(self, store: Store, entry: Entry) -> Json:
        percent = self.running.get((str(store.path), entry.manifest.id))
        return {**_plain(store, entry), "percent": percent, "state": _state(entry, percent)}

    async def shown(self, id_: str, store: str, name: str = "", *, same: bool = False) -> Json:
        """All that an entry says of itself, and how its VM is declared again, perhaps by another name."""
        opened = await asyncio.to_thread(Store.opened, _path(store))
        entry = await asyncio.to_thread(opened.entry, id_)
        anew = redeclared.anew(entry.manifest, name or entry.manifest.vm, same=same)
        return {**self._row(opened, entry), "topology": dict(entry.manifest.topology), "anew": anew}

    async def verify(self, ids: Sequence[str], wanted: Wanted, report: Report) -> list[Json]:
        """Read all of entries; of all of them, if none is named."""
        store = await asyncio.to_thread(Store.opened, _path(wanted.store))
        if not ids:
            entries = await asyncio.to_thread(lambda: tuple(store.entries()))
            ids = [
                each.manifest.id
                for each in entries
                if (str(store.path), each.manifest.id) not in self.running
            ]
        rows: list[Json] = []
        for number, id_ in enumerate(ids, start=1):
            with telling(report, number, f"verify {id_}", len(ids)) as remark:
                found = await asyncio.to_thread(backup_restore.verify, store, id_, wanted.key)
                remark.text = "; ".join(found.troubles)
            row = {"id": id_, "is_good": not found.troubles, "read_bytes": found.read_bytes}
            rows.append({**row, "looked_into": found.is_opened, "troubles": list(found.troubles)})
        return rows

    # ---- restoring -------------------------------------------------------------------------------

    async def restore(self, id_: str, target: Target, wanted: Wanted, report: Report) -> Json:
        """Write disks as they were. Nothing is replaced that is not to be."""
        store = await asyncio.to_thread(Store.opened, _path(wanted.store))
        entry = await asyncio.to_thread(store.entry, id_)
        if not entry.is_complete or entry.trouble:
            raise InputError(f"{id_} cannot be restored: {entry.trouble or 'it is not complete'}")
        manifest = entry.manifest
        fabric, vm = target.fabric or manifest.fabric, target.vm or manifest.vm
        places = self._places(manifest, fabric, vm, target)
        with self._alone(fabric, vm):
            guest = self.engine.guest(fabric, vm)
            guests = self.engine.fabric(fabric).parts.guests
            if (await guests.status(vm)).state in ALIVE:
                raise HostError(f"{vm} runs: `vnet stop {vm}` first")
            async with guests.at_rest(guest, f"{id_} is being restored to it") as image:
                root = {"base": image, "image": str(guest.boot.root)}
                places = [
                    replace(each, **root) if each.disk.is_root else each.based()  # type: ignore[arg-type]
                    for each in places
                ]
                with self._at_work(store, manifest, "restore", report) as moved:
                    await backup_restore.restore(
                        store, manifest, wanted.key, places, wanted.rate_bytes, moved
                    )
        return {**_plain(store, entry), "restored": [str(each.path) for each in places]}

    def _places(self, manifest: Manifest, fabric: str, vm: str, target: Target) -> list[Into]:
        """Where each disk goes. Raises InputError when that cannot be, or would replace something."""
        guest = self.engine.guest(fabric, vm)
        declared = {each.name: each for each in guest.disks}
        places = []
        for saved, name in _pairs(manifest, target):
            if name not in declared:
                known = ", ".join(declared) or "none"
                raise InputError(f"{vm} has no disk {name}; its disks: {known}. `--to VM/DISK` names another")
            into = Into(manifest.disk(saved), fabric, vm, declared[name])
            if 0 < into.disk.size_bytes < into.saved.size_bytes:
                needed = into.saved.size_bytes >> 20
                raise InputError(f"the disk {name} of {vm} is too small: declare it with {needed}M or more")
            if into.path.exists() and not target.overwrite:
                raise InputError(
                    f"{vm} has a disk {name} with something on it, {into.path}; "
                    "`--overwrite` replaces it, `--to VM/DISK` names another"
                )
            places.append(into)
        return places

    # ---- thinning out ----------------------------------------------------------------------------

    async def prune(
        self, store: str, keep: Keep, only: Target, *, dry_run: bool, report: Report
    ) -> list[Json]:
        """Remove what no rule keeps, of each VM by itself. What was broken off is not touched."""
        opened = await asyncio.to_thread(Store.opened, _path(store))
        if not keep.is_anything:
            raise InputError(
                "say what to keep: --keep-last N, --keep-daily N, --keep-weekly N, --keep-monthly N"
            )
        complete = await asyncio.to_thread(opened.complete)
        rows: list[Json] = []
        owner = lambda each: (each.fabric, each.vm)  # noqa: E731
        for (fabric, vm), group in groupby(sorted(complete.values(), key=owner), key=owner):
            if only.fabric not in ("", fabric) or only.vm not in ("", vm):
                continue
            for verdict in retention.decide([each.point for each in group], keep):
                row = {"id": verdict.id, "fabric": fabric, "vm": vm, "is_kept": verdict.is_kept}
                size = {"file_bytes": complete[verdict.id].file_bytes}
                rows.append({**row, "reasons": list(verdict.reasons), **size})
        going = [row["id"] for row in rows if not row["is_kept"]]
        if not dry_run:
            await self._remove(opened, going, report)
        return rows

    async def remove(self, store: str, ids: Sequence[str], report: Report) -> list[Json]:
        """Remove entries. Raises InputError, before anything is removed, if others need them."""
        opened = await asyncio.to_thread(Store.opened, _path(store))
        entries = [await asyncio.to_thread(opened.entry, id_) for id_ in ids]
        for each in entries:
            if not each.is_complete:
                await self._unfinished(opened, each.manifest.id)
                raise InputError(
                    f"{each.manifest.id} was broken off: `vnet backup discard {each.manifest.id}`"
                )
        points = [each.point for each in (await asyncio.to_thread(opened.complete)).values()]
        lost = retention.children(frozenset(ids), points)
        if lost:
            named = ", ".join(lost)
            raise InputError(f"increments need what is to be removed: {named}; name them too to remove all")
        await self._remove(opened, list(ids), report)
        return [_plain(opened, each) for each in entries]

    async def _remove(self, store: Store, ids: Sequence[str], report: Report) -> None:
        """Children first: whatever breaks it off, what is left can be restored."""
        parents = {id_: each.parent for id_, each in (await asyncio.to_thread(store.complete)).items()}
        waiting = list(ids)
        number = 0
        while waiting:
            leaves = [id_ for id_ in waiting if not any(parents.get(each) == id_ for each in waiting)]
            for id_ in leaves or waiting:
                number += 1
                with telling(report, number, f"remove {id_}", len(ids)):
                    self._refuse_in_use(store, id_)
                    await asyncio.to_thread(store.remove, id_)
                waiting.remove(id_)

    def _refuse_in_use(self, store: Store, id_: str) -> None:
        if (str(store.path), id_) in self.running:
            raise HostError(f"{id_} is in use")

    # ---- one at a time ---------------------------------------------------------------------------

    @contextlib.contextmanager
    def _alone(self, fabric: str, vm: str) -> Iterator[None]:
        """Nothing else is done to the disks of a VM meanwhile."""
        if (fabric, vm) in self._busy:
            raise HostError(f"{vm} of {fabric} is being backed up or restored already: wait for its end")
        self._busy.add((fabric, vm))
        try:
            yield
        finally:
            self._busy.discard((fabric, vm))

    @contextlib.contextmanager
    def _at_work(
        self, store: Store, manifest: Manifest, what: str, report: Report
    ) -> Iterator[Callable[[int], None]]:
        """The step, and how far it is, for who waits and for who lists."""
        key, step = (str(store.path), manifest.id), f"{what} {manifest.vm}"
        said = -1

        def moved(percent: int) -> None:
            nonlocal said
            self.running[key] = percent
            if percent != said:
                report(Progress(1, step, Status.MOVED, detail=f"{percent} %", of=1))
                said = percent

        self.running[key] = 0
        try:
            with telling(report, 1, step, 1) as remark:
                yield moved
                remark.text = manifest.id
        finally:
            del self.running[key]


def _note(report: Report, manifest: Manifest) -> None:
    """What whoever waits should know of an entry that was made."""
    for disk in manifest.disks:
        if disk.whole_because not in ("", values.ASKED_FOR, values.FIRST):
            text = f"all of {disk.name} was copied: {disk.whole_because}"
            report(Progress(0, text, Status.NOTE))
    if not manifest.freeze.is_frozen:
        why = manifest.freeze.why
        text = f"{manifest.vm} was not frozen ({why}): {manifest.id} is as after a power cut"
        report(Progress(0, text, Status.NOTE))


def _refuse_unfinished(store: Store, fabric: str, vm: str) -> None:
    for each in store.entries():
        if not each.is_complete and (each.manifest.fabric, each.manifest.vm) == (fabric, vm):
            id_ = each.manifest.id
            raise HostError(
                f"a backup of {vm} was broken off: `vnet backup resume {id_}` finishes it, "
                f"`vnet backup discard {id_}` removes it"
            )


def _pairs(manifest: Manifest, target: Target) -> list[tuple[str, str]]:
    """Which saved disk goes to which of the VM's."""
    names = [target.saved] if target.saved else [each.name for each in manifest.disks]
    if target.disk and len(names) > 1:
        raise InputError(f"{manifest.id} has several disks: {', '.join(names)}; say which, --disk NAME")
    return [(name, target.disk or name) for name in names]


def _path(store: str) -> Path:
    path = Path(store) if store else paths.backups_dir()
    if not path.is_absolute():
        raise InputError(f"the store {store} is to be named by its whole path")
    return path


def _read(path: Path) -> list[tuple[Store, Entry]]:
    store = Store.opened(path)
    return [(store, entry) for entry in store.entries()]


def _plain(store: Store, entry: Entry) -> dict[str, Any]:
    """An entry without the long text of its topology."""
    plain = values.plain(entry.manifest) | {"file_bytes": entry.manifest.file_bytes}
    del plain["topology"], plain["check"]
    return plain | {
        "path": str(store.folder(entry.manifest.id)),
        "trouble": entry.trouble,
        "state": _state(entry),
    }


def _state(entry: Entry, percent: int | None = None) -> str:
    if entry.trouble:
        return "damaged"
    if not entry.is_complete:
        return "incomplete" if percent is None else "running"
    return "complete"
