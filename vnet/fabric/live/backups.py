"""Backups of this host's VMs: who is at work on what, and what the modules about them share."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vnet.base import paths
from vnet.base.errors import HostError, InputError
from vnet.fabric.live.engine import Engine
from vnet.fabric.live.telling import telling
from vnet.fabric.progress import Report
from vnet.hv import backup as values
from vnet.hv.backup import Manifest
from vnet.hv.freeze import FreezeMode
from vnet.hv.live import backup
from vnet.hv.live.backup_store import Entry, Store

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Wanted:
    """How a backup is to be made or restored. `store` is its folder; `key` that of encrypted ones.

    `is_tight`: also where there may be no room for it.
    """

    store: str = ""
    key: bytes | None = None
    is_full: bool = False
    chain_max: int = backup.CHAIN_MAX
    rate_bytes: int = 0
    freeze: FreezeMode = FreezeMode.AUTO
    is_tight: bool = False


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

    @contextlib.contextmanager
    def alone(self, fabric: str, vm: str) -> Iterator[None]:
        """Nothing else is done to the disks of a VM meanwhile."""
        if (fabric, vm) in self._busy:
            raise HostError(f"{vm} of {fabric} is being backed up or restored already: wait for its end")
        self._busy.add((fabric, vm))
        try:
            yield
        finally:
            self._busy.discard((fabric, vm))

    @contextlib.contextmanager
    def at_work(
        self, store: Store, manifest: Manifest, step: str, report: Report
    ) -> Iterator[Callable[[int], None]]:
        """The step, and how far it is, for who waits and for who lists."""
        key, said = (str(store.path), manifest.id), -1

        def moved(percent: int) -> None:
            nonlocal said
            self.running[key] = percent
            if percent != said:
                remark.moved(f"{percent} %")
                said = percent

        self.running[key] = 0
        try:
            with telling(report, 1, step, 1) as remark:
                yield moved
                remark.text = manifest.id
        finally:
            del self.running[key]

    def refuse_in_use(self, store: Store, id_: str) -> None:
        """What is being made or read stays. Raises HostError."""
        if (str(store.path), id_) in self.running:
            raise HostError(f"{id_} is in use")

    async def unfinished(self, store: Store, id_: str) -> Entry:
        """An entry that was broken off. Raises InputError for another."""
        entry = await asyncio.to_thread(store.entry, id_)
        if entry.is_complete:
            raise InputError(f"{id_} is complete; `vnet backup rm {id_}` removes it")
        if (str(store.path), id_) in self.running:
            raise InputError(f"{id_} is being made; Ctrl-C where that was asked for breaks it off")
        return entry


def path_of(store: str) -> Path:
    """The folder of a store; the host's own without a name."""
    path = Path(store) if store else paths.backups_dir()
    if not path.is_absolute():
        raise InputError(f"the store {store} is to be named by its whole path")
    return path


def plain(store: Store, entry: Entry) -> dict[str, Any]:
    """An entry without the long text of its topology."""
    plain = values.plain(entry.manifest) | {"file_bytes": entry.manifest.file_bytes}
    del plain["topology"], plain["check"]
    return plain | {
        "path": str(store.folder(entry.manifest.id)),
        "trouble": entry.trouble,
        "state": state_of(entry),
    }


def state_of(entry: Entry, percent: int | None = None) -> str:
    """How it is with an entry; `percent` is given of one that is at work."""
    if entry.trouble:
        return "damaged"
    if not entry.is_complete:
        return "incomplete" if percent is None else "running"
    return "complete"
