"""The scripts that let a guest's file systems stand still, in a shell whose `fsfreeze` only writes down."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from vnet.hv.freeze import FREEZE, NOTHING_THERE, REST, THAW, WATCH, WATCHDOG_S

MOUNTS = r"""proc /proc proc rw 0 0
/dev/vda1 / ext4 rw,relatime 0 0
/dev/vda15 /boot\040efi vfat rw 0 0
/dev/vdb /srv/data xfs rw 0 0
/dev/vdb /srv/data/twice xfs rw 0 0
/dev/vdc /read iso9660 ro,relatime 0 0
tmpfs /run tmpfs rw 0 0
"""


@pytest.fixture
def run(tmp_path: Path):
    """Runs a script; the watchdog waits a second."""
    (tmp_path / "mounts").write_text(MOUNTS)
    tool = tmp_path / "fsfreeze"
    tool.write_text(f'#!/bin/sh\n[ "$2" != "$REFUSED" ] || exit 1\necho "$1 $2" >>{tmp_path}/done\n')
    tool.chmod(0o755)

    def run(script: str, refused: str = "none") -> int:
        here = script.replace("/proc/mounts", f"{tmp_path}/mounts").replace("/run/", f"{tmp_path}/")
        words = ["sh", "-c", here.replace(f"sleep {WATCHDOG_S}", "sleep 1")]
        return subprocess.run(words, env={"PATH": f"{tmp_path}:/usr/bin:/bin", "REFUSED": refused}).returncode

    return run


def done(folder: Path) -> list[str]:
    path = folder / "done"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return [line.removeprefix("--") for line in lines]


def test_what_was_mounted_last_is_frozen_first_and_each_file_system_once(run, tmp_path: Path) -> None:
    assert run(FREEZE) == 0
    assert done(tmp_path) == ["freeze /srv/data", "freeze /boot efi", "freeze /"]
    assert run(FREEZE) == 1, "it is frozen already"
    assert run(THAW) == 0
    assert done(tmp_path) == ["unfreeze /srv/data", "unfreeze /boot efi", "unfreeze /"]
    assert run(THAW) == NOTHING_THERE


def test_if_one_cannot_be_frozen_those_before_it_are_thawed(run, tmp_path: Path) -> None:
    assert run(FREEZE, refused="/") == 1
    assert done(tmp_path) == [
        "freeze /srv/data",
        "freeze /boot efi",
        "unfreeze /srv/data",
        "unfreeze /boot efi",
    ]


@pytest.mark.parametrize("script", [FREEZE, WATCH])
def test_a_guest_that_is_forgotten_thaws_itself(run, tmp_path: Path, script: str) -> None:
    run(script)
    done(tmp_path)
    time.sleep(1.5)
    assert {"unfreeze /", "unfreeze /boot efi", "unfreeze /srv/data"} <= set(done(tmp_path))
    assert run(THAW) == NOTHING_THERE


@pytest.mark.parametrize(("script", "end"), [(FREEZE, THAW), (WATCH, REST), (WATCH, WATCH + REST)])
def test_once_thawed_nobody_watches_any_more(run, tmp_path: Path, script: str, end: str) -> None:
    run(script)
    run(end)
    done(tmp_path)
    time.sleep(1.3)
    assert done(tmp_path) == []


def test_where_nothing_is_mounted_it_says_so(run, tmp_path: Path) -> None:
    (tmp_path / "mounts").write_text("tmpfs /run tmpfs rw 0 0\n")
    assert run(FREEZE) == NOTHING_THERE
