"""Takes an OVA apart into a folder: `NAME.vnet.yaml`, and a qcow2 file for each disk."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from vnet.cli.foreign_commands import check
from vnet.hv.live import ova
from vnet.topology.foreign.ovf import Appliance, imported

Report = Callable[[dict[str, Any]], None]
_TOLD_EVERY_S = 0.5


def opened(file: str, fabric: str) -> Appliance:
    """What an OVA holds, by its descriptor."""
    package = ova.read(Path(file))
    return imported(package.descriptor.name, package.text(), fabric)


def into_folder(file: str, appliance: Appliance, folder: Path, report: Report) -> None:
    """Makes the folder; it is there when all is in it, and not before."""
    package = ova.read(Path(file))
    check(appliance.document)
    with ova.staging(folder) as part:
        for disk in appliance.disks:
            step = _Step(f"import disk {disk.name} of {disk.vm}", report)
            ova.unpack(package, disk.source, disk.size_bytes, part / disk.target, step.told)
            step.done(str(folder / disk.target))
        text = yaml.safe_dump(appliance.document, sort_keys=False, allow_unicode=True)
        name = f"{appliance.document['name']}.vnet.yaml"
        (part / name).write_text(text, encoding="utf-8")
    if package.sums is None:
        report(
            {"type": "progress", "status": "note", "what": f"{file} has no manifest: nothing was verified"}
        )
    report({"type": "progress", "status": "done", "what": f"import {file}", "detail": str(folder / name)})


class _Step:
    """Something that takes its time, told of twice a second."""

    def __init__(self, what: str, report: Report) -> None:
        self._what, self._report = what, report
        self._began_s = self._told_s = time.monotonic()
        self._tell("started")

    def told(self, detail: str) -> None:
        if time.monotonic() - self._told_s > _TOLD_EVERY_S:
            self._told_s = time.monotonic()
            self._tell("moved", detail=detail)

    def done(self, detail: str) -> None:
        self._tell("done", detail=detail, elapsed_s=time.monotonic() - self._began_s)

    def _tell(self, status: str, **more: Any) -> None:
        self._report({"type": "progress", "status": status, "what": self._what, **more})
