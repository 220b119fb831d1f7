"""vnetd, which kills itself with SIGKILL at a step.

A step is the moment before or after anything that changes the world: an action of a plan, an action of a
VM's life, a command to QEMU, a process that is started, a write to the database, a file that gets another
name or goes. Steps are counted while there is the file `armed`, which has the number of the deadly one, and
are written down in `steps`, from 0.
"""

from __future__ import annotations

import asyncio
import functools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vnet.api.__main__ import main
from vnet.fabric.live.apply import Performer
from vnet.fabric.live.store import SqliteStore
from vnet.hv.live.manager import HvManager
from vnet.hv.live.performing import Performer as GuestPerformer
from vnet.hv.live.qmp import Monitor

STORE = ("save", "save_pending", "save_enforced", "remove", "save_guest", "remove_guest")
CHANGES_NOTHING = ("query-", "qom-get", "qom-set guest-stats", "block-latency-histogram-set")
"""Beginnings of commands to QEMU."""


class Steps:
    """Counts, writes down, and ends it all."""

    def __init__(self, directory: Path) -> None:
        self._armed, self._log = directory / "armed", directory / "steps"

    def at(self, what: str) -> None:
        """One step. What has been counted is what has been written down: it begins anew with each command."""
        try:
            deadly = int(self._armed.read_text())
        except FileNotFoundError:
            return
        with self._log.open("a+") as log:
            log.seek(0)
            number = len(log.readlines())
            log.write(f"{number} {what}\n")
        if number == deadly:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, function: Callable[..., Any], name: Callable[..., str]) -> Callable[..., Any]:
        """The same function with a step before it and one after it. A `name` of "" is no step."""
        if asyncio.iscoroutinefunction(function):

            @functools.wraps(function)
            async def stepping_async(*given: Any, **more: Any) -> Any:
                what = name(*given, **more)
                if not what:
                    return await function(*given, **more)
                self.at(f"before {what}")
                answer = await function(*given, **more)
                self.at(f"after {what}")
                return answer

            return stepping_async

        @functools.wraps(function)
        def stepping(*given: Any, **more: Any) -> Any:
            what = name(*given, **more)
            if not what:
                return function(*given, **more)
            self.at(f"before {what}")
            answer = function(*given, **more)
            self.at(f"after {what}")
            return answer

        return stepping

    def watch(self, owner: Any, method: str, name: Callable[..., str]) -> None:
        """From now on a method has steps."""
        setattr(owner, method, self.around(getattr(owner, method), name))


def _command(_: Monitor, command: Any) -> str:
    words = f"{command.name} {command.arguments.get('property', '')}"
    return "" if words.startswith(CHANGES_NOTHING) else f"QMP {command.name}"


def _file(path: Path, *_: Any, **__: Any) -> str:
    """Of the VMs' and the daemon's own; what is known of hosts in general is none."""
    text = str(path)
    ours = any(text.startswith(os.environ[root]) for root in ("VNET_RUN_DIR", "VNET_STATE_DIR"))
    noise = ("/events/", "/log/", "/history/", "/policy-log/", "/consoles/")
    return f"file {path.name}" if ours and not any(each in text for each in noise) else ""


def _program(words: Sequence[str]) -> str:
    """What is run, and not what takes its rights away before: each of these ends with `--`."""
    behind = max((place + 1 for place, word in enumerate(words) if word == "--"), default=0)
    return Path(words[behind]).name


def install(steps: Steps) -> None:
    """Everywhere."""
    steps.watch(Performer, "perform", lambda _, action, *__: f"plan: {type(action).__name__}")
    steps.watch(Monitor, "execute", _command)
    for method in STORE:
        steps.watch(SqliteStore, method, lambda *_, method=method: f"database: {method}")
    for method in ("rename", "replace", "unlink", "rmdir"):
        steps.watch(Path, method, _file)
    steps.watch(shutil, "rmtree", lambda path, *_, **__: _file(Path(path)))
    steps.watch(subprocess.Popen, "__init__", lambda _, words, *__, **___: f"process {_program(words)}")
    actions = GuestPerformer.actions

    def watched(performer: GuestPerformer) -> dict[Any, Any]:
        return {
            action: steps.around(do, lambda action=action: f"life: {action.value}")
            for action, do in actions(performer).items()
        }

    GuestPerformer.actions = watched  # type: ignore[method-assign]


def boot_always() -> None:
    """Without templates."""
    begin = HvManager.__init__

    def cold(self: HvManager, *given: Any, **more: Any) -> None:
        begin(self, *given, **{**more, "warm": False})

    HvManager.__init__ = cold  # type: ignore[method-assign]


def serve(directory: Path, cold: bool) -> None:
    """Be the daemon."""
    install(Steps(directory))
    if cold:
        boot_always()
    sys.argv = ["vnetd", "--auto"]
    sys.exit(main())
