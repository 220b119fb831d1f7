"""`python -m tests.net.fabric_child DIRECTORY TERMS FILE WHERE STEP`: a daemon that is killed amid a change.

It adopts what is there and brings up what FILE declares. Before or after (that is WHERE) it does STEP it
kills itself as the kernel would. It prints each step that it gets to.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from tests.net.fabric_lab import make_engine
from tests.unit.fabric.fakes import World
from vnet.fabric.live.engine import Terms
from vnet.fabric.live.parts import Parts
from vnet.fabric.progress import silent
from vnet.fabric.store import Source

_CHANGING = frozenset(
    {
        "create",
        "remove",
        "create_port",
        "remove_port",
        "open",
        "attach",
        "detach",
        "change",
        "destroy",
        "start",
    }
    | {"save", "save_enforced", "save_pending", "save_guest", "remove_guest"}
)


@dataclass
class Fuse:
    """Counts the steps of everything it watches, and kills at one of them."""

    where: str
    step: int

    def __post_init__(self) -> None:
        self._steps = count()

    def watch(self, watched: Any) -> Any:
        return Watched(watched, self)

    def begin(self, what: str) -> int:
        step = next(self._steps)
        print(what, flush=True)
        self.spring("before", step)
        return step

    def spring(self, where: str, step: int) -> None:
        if (where, step) == (self.where, self.step):
            os.kill(os.getpid(), signal.SIGKILL)


class Watched:
    """Something whose changing calls are steps."""

    def __init__(self, watched: Any, fuse: Fuse) -> None:
        self._watched, self._fuse = watched, fuse

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._watched, name)
        if name not in _CHANGING:
            return found
        return self._later(name, found) if asyncio.iscoroutinefunction(found) else self._now(name, found)

    def _later(self, name: str, call: Any) -> Any:
        async def step(*given: Any) -> Any:
            number = self._fuse.begin(name)
            result = await call(*given)
            self._fuse.spring("after", number)
            return result

        return step

    def _now(self, name: str, call: Any) -> Any:
        def step(*given: Any) -> Any:
            number = self._fuse.begin(name)
            result = call(*given)
            self._fuse.spring("after", number)
            return result

        return step


async def main(directory: Path, terms: Terms, file: Path, fuse: Fuse) -> None:
    engine = make_engine(directory, World())
    await engine.adopt()
    for fabric in engine.fabrics.values():
        fabric.parts = _watched(fabric.parts, fuse)
    make_parts = engine.make_parts
    engine.make_parts = lambda name: _watched(make_parts(name), fuse)
    engine.store = fuse.watch(engine.store)
    await engine.up(Source("small.vnet.yaml", file.read_text()), silent, terms)
    await engine.close()


def _watched(parts: Parts, fuse: Fuse) -> Parts:
    return Parts(*map(fuse.watch, (parts.network, parts.switch, parts.guests)))


if __name__ == "__main__":
    directory, terms, file, where, step = sys.argv[1:]
    fuse = Fuse(where, int(step))
    asyncio.run(main(Path(directory), Terms(**json.loads(terms)), Path(file), fuse))
