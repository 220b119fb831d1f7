"""`vnet backup create` of several VMs: one that cannot be backed up keeps none of the others from it."""

from __future__ import annotations

from typing import Any

import pytest

from vnet.base.errors import Exit
from vnet.cli.backup_commands import create
from vnet.cli.client import Client, RemoteError
from vnet.cli.options import Settings

FAILURES = {
    "db": RemoteError("db is suspended", Exit.FAILED),
    "far": RemoteError("no room", Exit.REFUSED),
    "broken": RemoteError("interrupted", Exit.INTERRUPTED),
}
MADE = {
    "fabric": "lab",
    "taken_at": "2026-11-30T01:00:00+00:00",
    "kind": "full",
    "file_bytes": 0,
    "disks": [],
    "freeze": {"is_frozen": True},
    "is_encrypted": False,
    "state": "complete",
}
DISKS = {"app": "data", "db": "data", "fw": "uefi-vars", "web": "data"}


class Some(Client):
    """`away` are the locations that are missing; all else is asked of VMs."""

    away: tuple[str, ...] = ()

    def get(self, path: str, **query: Any) -> Any:
        match path:
            case "/v1/disks":
                return [{"vm": vm, "disk": disk, "use": "declared"} for vm, disk in DISKS.items()]
            case "/v1/disk-locations":
                return [{"location": each, "trouble": "missing"} for each in self.away]
        assert path == "/v1/vms"
        places = {"far": "fast", "web": "default"}
        return [{"vm": vm, "disks": [{"name": "d", "location": each}]} for vm, each in places.items()]

    def run(self, method: str, path: str, body: Any, report: Any) -> Any:
        vm = path.split("/")[-2]
        if vm in FAILURES:
            raise FAILURES[vm]
        return {"backup": {**MADE, "id": f"{vm}-1", "vm": vm}}


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> type[Some]:
    monkeypatch.setattr(Settings, "daemon", lambda settings: Some())
    monkeypatch.setattr(Some, "away", ())
    return Some


def made(text: str) -> list[str]:
    return [line.split()[0] for line in text.splitlines()[1:]]


def test_the_rest_is_backed_up_and_each_failure_told(
    client: type[Some], capsys: pytest.CaptureFixture[str]
) -> None:
    code = create(Settings(name="lab"), ["db", "far", "web"])
    said = capsys.readouterr()
    assert (code, made(said.out)) == (Exit.FAILED, ["web-1"])
    assert said.err.splitlines() == ["vnet: db: db is suspended", "vnet: far: no room"]


def test_all_are_those_with_disks_and_those_whose_disks_nobody_sees_now(
    client: type[Some], capsys: pytest.CaptureFixture[str]
) -> None:
    assert create(Settings(name="lab"), all_=True) == Exit.FAILED
    assert made(capsys.readouterr().out) == ["app-1", "web-1"]
    client.away = ("fast",)
    create(Settings(name="lab"), all_=True)
    assert "far: no room" in capsys.readouterr().err


def test_what_is_broken_off_is_the_last(client: type[Some], capsys: pytest.CaptureFixture[str]) -> None:
    assert create(Settings(name="lab"), ["web", "broken", "app"]) == Exit.INTERRUPTED
    assert made(capsys.readouterr().out) == ["web-1"]
