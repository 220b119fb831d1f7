"""What stores of backups have: listed, shown, tried, thinned out, removed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

from vnet.base import paths
from vnet.base.errors import InputError
from vnet.fabric import redeclared
from vnet.fabric.live.backups import Backups, Target, Wanted, path_of, plain, state_of
from vnet.fabric.live.telling import telling
from vnet.fabric.progress import Report
from vnet.hv import backup as values
from vnet.hv import retention
from vnet.hv.backup import Manifest
from vnet.hv.live import backup_restore
from vnet.hv.live.backup_store import Entry, Store, complete_of
from vnet.hv.retention import Keep

Json = Mapping[str, Any]


async def listed(backups: Backups, store: str, fabric: str | None, vm: str | None) -> list[Json]:
    """What is in a store; the host's own has nothing while it is not there.

    Raises: InputError if another one is not there, or a VM has no backups and is not declared.
    """
    path = path_of(store)
    if path == paths.backups_dir() and (not path.exists() or not any(path.iterdir())):
        _refuse_unknown(backups, path, (), fabric or "", vm or "")
        return []
    opened, entries = await asyncio.to_thread(_read, path)
    _refuse_unknown(backups, path, entries, fabric or "", vm or "")
    complete = complete_of(entries)
    rows = [_row(backups, opened, entry, complete) for entry in entries]
    return [row for row in rows if fabric in (None, row["fabric"]) and vm in (None, row["vm"])]


def _refuse_unknown(backups: Backups, path: Path, entries: Sequence[Entry], fabric: str, vm: str) -> None:
    """Raises InputError for a VM, if one is named, that nobody knows."""
    owners = {(each.manifest.fabric, each.manifest.vm) for each in entries}
    declared = {(name, each.name) for name, up in backups.engine.fabrics.items() for each in up.vms}
    if not vm or any(fabric in ("", of) and vm == each for of, each in owners | declared):
        return
    there = ", ".join(sorted({each for of, each in owners if each and fabric in ("", of)})) or "none"
    raise InputError(
        f"{vm} has no backups in {path}, and no fabric that is up declares it; with backups there: {there}"
    )


def _row(backups: Backups, store: Store, entry: Entry, complete: Mapping[str, Manifest]) -> Json:
    id_ = entry.manifest.id
    percent = backups.running.get((str(store.path), id_))
    row = {**plain(store, entry), "percent": percent, "state": state_of(entry, percent)}
    missing = values.gap(id_, complete) if id_ in complete else ""
    return {**row, "state": "orphaned", "trouble": missing} if missing else row


async def shown(backups: Backups, id_: str, store: str, name: str = "", *, same: bool = False) -> Json:
    """All that an entry says of itself, and how its VM is declared again, perhaps by another name.

    Raises: InputError if there is no such entry, or the name is no VM's.
    """
    opened = await asyncio.to_thread(Store.opened, path_of(store))
    entry = await asyncio.to_thread(opened.entry, id_)
    anew = redeclared.anew(entry.manifest, name or entry.manifest.vm, same=same)
    complete = await asyncio.to_thread(opened.complete)
    return {**_row(backups, opened, entry, complete), "topology": dict(entry.manifest.topology), "anew": anew}


async def verify(backups: Backups, ids: Sequence[str], wanted: Wanted, report: Report) -> list[Json]:
    """Read all of entries; of all of them, if none is named."""
    store = await asyncio.to_thread(Store.opened, path_of(wanted.store))
    if not ids:
        entries = await asyncio.to_thread(lambda: tuple(store.entries()))
        ids = [
            each.manifest.id for each in entries if (str(store.path), each.manifest.id) not in backups.running
        ]
    rows: list[Json] = []
    for number, id_ in enumerate(ids, start=1):
        with telling(report, number, f"verify {id_}", len(ids)) as remark:
            found = await asyncio.to_thread(backup_restore.verify, store, id_, wanted.key)
            remark.text = "; ".join(found.troubles)
        row = {"id": id_, "is_good": not found.troubles, "read_bytes": found.read_bytes}
        rows.append({**row, "looked_into": found.is_opened, "troubles": list(found.troubles)})
    return rows


def _read(path: Path) -> tuple[Store, list[Entry]]:
    store = Store.opened(path)
    return store, list(store.entries())


# ---- thinning out ------------------------------------------------------------------------------


async def prune(
    backups: Backups, store: str, keep: Keep, only: Target, *, dry_run: bool, report: Report
) -> list[Json]:
    """Remove what no rule keeps, of each VM by itself. What was broken off is not touched.

    Raises: InputError if nothing is to be kept, or a VM has no backups and is not declared.
    """
    if not keep.is_anything:
        raise InputError("say what to keep: --keep-last N, --keep-daily N, --keep-weekly N, --keep-monthly N")
    opened, entries = await asyncio.to_thread(_read, path_of(store))
    _refuse_unknown(backups, opened.path, entries, only.fabric, only.vm)
    complete = complete_of(entries)
    rows: list[Json] = []
    owner = attrgetter("fabric", "vm")
    for (fabric, vm), group in groupby(sorted(complete.values(), key=owner), key=owner):
        if only.fabric not in ("", fabric) or only.vm not in ("", vm):
            continue
        for verdict in retention.decide([each.point for each in group], keep):
            row = {"id": verdict.id, "fabric": fabric, "vm": vm, "is_kept": verdict.is_kept}
            size = {"file_bytes": complete[verdict.id].file_bytes}
            rows.append({**row, "reasons": list(verdict.reasons), **size})
    going = [row["id"] for row in rows if not row["is_kept"]]
    if not dry_run:
        await _remove(backups, opened, going, report)
    return rows


async def remove(backups: Backups, store: str, ids: Sequence[str], report: Report) -> list[Json]:
    """Remove entries. Raises InputError, before anything is removed, if others need them."""
    opened = await asyncio.to_thread(Store.opened, path_of(store))
    entries = [await asyncio.to_thread(opened.entry, id_) for id_ in ids]
    for each in entries:
        if not each.is_complete:
            await backups.unfinished(opened, each.manifest.id)
            raise InputError(f"{each.manifest.id} was broken off: `vnet backup discard {each.manifest.id}`")
    points = [each.point for each in (await asyncio.to_thread(opened.complete)).values()]
    lost = retention.children(frozenset(ids), points)
    if lost:
        named = ", ".join(lost)
        raise InputError(f"increments need what is to be removed: {named}; name them too to remove all")
    await _remove(backups, opened, list(ids), report)
    return [plain(opened, each) for each in entries]


async def _remove(backups: Backups, store: Store, ids: Sequence[str], report: Report) -> None:
    """Children first: whatever breaks it off, what is left can be restored."""
    parents = {id_: each.parent for id_, each in (await asyncio.to_thread(store.complete)).items()}
    waiting = list(ids)
    number = 0
    while waiting:
        leaves = [id_ for id_ in waiting if not any(parents.get(each) == id_ for each in waiting)]
        for id_ in leaves or waiting:
            number += 1
            with telling(report, number, f"remove {id_}", len(ids)):
                backups.refuse_in_use(store, id_)
                await asyncio.to_thread(store.remove, id_)
            waiting.remove(id_)
