"""Takes an OVA apart into a folder: `NAME.vnet.yaml`, and a qcow2 file for each disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from vnet.cli.foreign_commands import check
from vnet.cli.progress import Step
from vnet.hv.live import ova
from vnet.topology.foreign.ovf import Appliance, imported

Report = Callable[[dict[str, Any]], None]


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
            with Step(f"import disk {disk.name} of {disk.vm}", report) as step:
                ova.unpack(package, disk.source, disk.size_bytes, part / disk.target, step.moved)
                step.done(str(folder / disk.target))
        text = yaml.safe_dump(appliance.document, sort_keys=False, allow_unicode=True)
        name = f"{appliance.document['name']}.vnet.yaml"
        (part / name).write_text(text, encoding="utf-8")
    if package.sums is None:
        report(
            {"type": "progress", "status": "note", "what": f"{file} has no manifest: nothing was verified"}
        )
    report({"type": "progress", "status": "done", "what": f"import {file}", "detail": str(folder / name)})
