"""Boots a guest of `tests.guests.image` in QEMU, and yields what the program inside says."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.guests.image import Image

QEMU = (
    "qemu-system-x86_64 -M q35,vmport=off,i8042=off,sata=off,smbus=off,hpet=off -nodefaults -no-user-config "
    "-display none -no-reboot -accel tcg -serial stdio"
)
KERNEL_LINE = "console=ttyS0 quiet panic=-1 audit=0 mitigations=off"
MARK = "@@"


@dataclass(frozen=True, slots=True)
class Machine:
    """What the guest runs on: options of QEMU and words of the kernel's command line besides ours."""

    options: str
    memory_mib: int
    kernel_line: str = ""


def run(
    image: Image, machine: Machine, tree: bytes, folder: Path, limit_s: float
) -> Iterator[dict[str, Any]]:
    """Each saying as it comes; `tree` is an archive that unpacks as `/tree`.

    What else the guest prints is kept in `folder/console.log`.
    """
    initrd = folder / "initrd"
    initrd.write_bytes(image.initrd.read_bytes() + tree)
    command = [*QEMU.split(), *machine.options.split(), "-m", str(machine.memory_mib),
               "-kernel", str(image.kernel), "-initrd", str(initrd),
               "-append", f"{KERNEL_LINE} {machine.kernel_line}"]  # fmt: skip
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None
    watch = threading.Timer(limit_s, process.kill)
    watch.start()
    try:
        with (folder / "console.log").open("w") as console:
            for raw in process.stdout:
                line = raw.decode(errors="replace").rstrip()
                if line.startswith(MARK):
                    yield json.loads(line.removeprefix(MARK))
                else:
                    print(line, file=console, flush=True)
    finally:
        watch.cancel()
        process.kill()
        process.wait()
        initrd.unlink(missing_ok=True)
