"""Settings of the host's kernel that gateways need, and what they were before.

They are noted in a file that a reboot removes, as it does the settings.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from vnet.base import paths
from vnet.base.errors import HostError

ROOT = Path("/proc/sys/net")


def get(name: str) -> str:
    """The value of a setting (`ipv4/ip_forward`); empty where the kernel has none of that name."""
    try:
        return (ROOT / name).read_text().strip()
    except OSError:
        return ""


def put(values: Mapping[str, str]) -> None:
    """Give settings these values, those that there are."""
    for name, value in values.items():
        try:
            if get(name) not in ("", value):
                (ROOT / name).write_text(value)
        except OSError as error:
            raise HostError(f"cannot set net.{name.replace('/', '.')}={value}: {error.strerror}") from error


def borrow(values: Mapping[str, str], also_changes: tuple[str, ...] = ()) -> None:
    """Change settings of the host until they are given back. `also_changes` are those that go with them."""
    noted = _noted()
    fresh = {name: get(name) for name in (*values, *also_changes) if name not in noted}
    if fresh:
        _note({**noted, **fresh})
    put(values)


def is_borrowed(name: str) -> bool:
    """Whether a setting was changed for gateways."""
    return name in _noted()


def give_back() -> None:
    """Make all settings what they were, in the order in which they were changed."""
    put({name: value for name, value in _noted().items() if value})
    paths.borrowed_settings().unlink(missing_ok=True)


def _noted() -> dict[str, str]:
    try:
        found: dict[str, str] = json.loads(paths.borrowed_settings().read_text())
    except (OSError, ValueError):
        return {}
    return found


def _note(values: Mapping[str, str]) -> None:
    path = paths.borrowed_settings()
    fresh = path.with_suffix(".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(json.dumps(values))
        fresh.replace(path)
    except OSError as error:
        raise HostError(f"cannot write {path}: {error.strerror}") from error
