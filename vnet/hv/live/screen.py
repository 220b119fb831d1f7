"""The screen of a guest that has one: where VNC is spoken, and a picture of it.

QEMU can reach no file: it is handed one in memory for the picture, and that is read here.
"""

from __future__ import annotations

import os
from pathlib import Path

from vnet.base.errors import HostError
from vnet.hv.live.guest import Guest
from vnet.hv.monitor import Command

_PICTURE_SET = 160
"""Of descriptors; those of disks and firmware lie below."""


def vnc_socket(guest: Guest) -> Path:
    """The unix socket on which VNC (RFC 6143) is spoken. Raises HostError if there is no screen."""
    _check(guest)
    return guest.run_dir / "vnc.sock"


async def picture(guest: Guest) -> bytes:
    """What is on the screen, as PNG. Raises HostError if there is no screen."""
    _check(guest)
    reading = os.memfd_create("screen", os.MFD_CLOEXEC)
    try:
        # QEMU wants one that is open for nothing but writing.
        writing = os.open(f"/proc/self/fd/{reading}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            await _dump(guest, writing)
        finally:
            os.close(writing)
        return os.pread(reading, os.fstat(reading).st_size, 0)
    finally:
        os.close(reading)


async def _dump(guest: Guest, descriptor: int) -> None:
    await guest.monitor.execute(Command("add-fd", {"fdset-id": _PICTURE_SET}, descriptor))
    try:
        file = f"/dev/fdset/{_PICTURE_SET}"
        await guest.monitor.execute(Command("screendump", {"filename": file, "format": "png"}))
    finally:
        await guest.monitor.execute(Command("remove-fd", {"fdset-id": _PICTURE_SET}))


def _check(guest: Guest) -> None:
    name = guest.spec.name
    if guest.spec.is_micro:
        raise HostError(f"{name} is a micro guest, which has no screen: use `vnet console {name}`")
    guest.check_up()
