"""A guest that is changed while it runs: what is refused before anything is done, what a failure leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from vnet.base.errors import HostError
from vnet.hv.argv import places_of
from vnet.hv.built import built_for
from vnet.hv.disk import Disk
from vnet.hv.live.changing import refuse_what_was_changed
from vnet.hv.live.guest import Guest
from vnet.hv.live.record import Record
from vnet.hv.spec import GuestNic, GuestSpec

MIB = 1 << 20
DATA, MORE = Disk("data", 8 * MIB), Disk("more", 8 * MIB)
SPEC = GuestSpec("lab", "db", "micro", 1, 96 * MIB, (GuestNic("db.eth0", "eth0", 1, ()),), (DATA, MORE))


@pytest.fixture
def guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Guest:
    monkeypatch.setenv("VNET_RUN_DIR", str(tmp_path))
    made = Guest(SPEC, lambda event: None)
    made.run_dir.parent.mkdir(parents=True)
    built = built_for(1, 96 * MIB, 3, "tcg")
    made.keep(Record("", 0, "tcg", False, 96 * MIB, (), built=built, places=places_of(SPEC)))
    return made


def test_only_who_can_keep_disks_alone_is_told_to(guest: Guest) -> None:
    guest.note(places=places_of(SPEC).without_disk("more"))
    with pytest.raises(HostError, match="once it has been restarted$"):
        refuse_what_was_changed(guest)
    with pytest.raises(HostError, match="restarted; its disks can$"):
        refuse_what_was_changed(guest, "; its disks can")
