"""`vnet down` without a daemon: one is started if there may be something to remove."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vnet.cli.client import Client
from vnet.cli.fabric_commands import down
from vnet.cli.options import Settings

ROWS = {
    "disks_removed": [{"vm": "db", "disk": "data"}],
    "snapshots_removed": [{"vm": "db", "snapshot": "one"}],
}


class Started(Client):
    """One of a daemon that was started for the command."""

    def get(self, path: str, **query: Any) -> Any:
        return []

    def run(self, method: str, path: str, body: Any, report: Any) -> Any:
        assert (method, path) == ("DELETE", "/v1/fabrics/shop?disks=1")
        return {"fabric": "shop", "actions": [], "daemon_ends": False, **ROWS}


def test_with_disks_a_daemon_is_started_to_remove_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("VNET_RUN_DIR", "VNET_STATE_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setattr(Settings, "daemon", lambda settings: Started())
    down(Settings(name="shop"), disks=True)
    assert capsys.readouterr().err.splitlines() == [
        "shop: not up",
        "its VMs' disks are removed (1): db data",
        "its VMs' snapshots are removed (1): db one",
    ]
