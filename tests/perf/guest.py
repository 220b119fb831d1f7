"""Boots the guest whose clock counts instructions, and yields what the bench inside it says."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.perf.image import Image

MEMORY_MIB = 1536
KERNEL_LINE = (
    "console=ttyS0 quiet panic=-1 nokaslr mitigations=off init_on_alloc=0 tsc=reliable no_timer_check audit=0"
)
QEMU = (
    "qemu-system-x86_64 -M q35,vmport=off,i8042=off,sata=off,smbus=off,hpet=off -nodefaults -no-user-config "
    "-display none -no-reboot -accel tcg -icount shift=0,sleep=off -cpu max,-erms,-fsrm,-cx16 -smp 1 "
    "-serial stdio"
)
"""With shift=0 one instruction is one nanosecond. Without fast string instructions a copy costs what it
copies, and does not count as one instruction. Without cmpxchg16b, because QEMU 7.2 now and then leaves
wrong flags behind it under icount and the kernel dies of a double fault in its allocator; a packet costs
20 instructions more, with and without a switch."""

MARK = "@@"


def run(image: Image, tree: bytes, folder: Path, limit_s: float) -> Iterator[dict[str, Any]]:
    """Each figure as it comes. What else the guest prints is kept in `folder/console.log`."""
    initrd = folder / "initrd"
    initrd.write_bytes(image.initrd.read_bytes() + tree)
    command = [*QEMU.split(), "-m", str(MEMORY_MIB), "-kernel", str(image.kernel), "-initrd", str(initrd),
               "-append", KERNEL_LINE]  # fmt: skip
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
