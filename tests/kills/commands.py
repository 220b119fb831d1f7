"""`vnet` and vnetd in processes that have read all modules already, which takes longer than most commands."""

from __future__ import annotations

import multiprocessing
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.kills import daemon
from tests.vm.fabric_lab import Lab
from vnet.__main__ import main

MADE = multiprocessing.get_context("forkserver")
MADE.set_forkserver_preload([__name__, "vnet.cli.app"])


@dataclass(frozen=True, slots=True)
class Done:
    """What a command ended with and said."""

    code: int | None
    output: str
    told: str


class QuickLab(Lab):
    """The same with commands that begin at once."""

    def run(self, *words: str, timeout_s: float = 300) -> Done:
        """A command to its end, whatever that is."""
        files = [self.directory / f"command.{name}" for name in ("output", "told")]
        process = MADE.Process(target=_command, args=(self.environment, words, *files))
        process.start()
        process.join(timeout_s)
        if process.is_alive():
            process.kill()
            raise AssertionError(f"vnet {' '.join(words)} does not end")
        return Done(process.exitcode, *(each.read_text() for each in files))

    def vnet(self, *words: str, expect: int = 0, timeout_s: float = 300) -> str:
        """What a command printed; its exit code must be the expected one."""
        done = self.run(*words, timeout_s=timeout_s)
        assert done.code == expect, f"vnet {' '.join(words)}: {done.code}\n{done.told}\n{self.log()}"
        return done.output if expect == 0 else done.told


def serve(directory: Path, environment: dict[str, str], cold: bool) -> None:
    """Be the daemon of a lab."""
    os.setsid()
    _be(environment, directory / "killed.log", directory / "killed.log")
    daemon.serve(directory, cold)


def _command(environment: dict[str, str], words: tuple[str, ...], output: Path, told: Path) -> None:
    """Be a command."""
    for each in (output, told):
        each.write_text("")
    _be(environment, output, told)
    sys.argv = ["vnet", *words]
    main()


def _be(environment: dict[str, str], output: Path, told: Path) -> None:
    """A process with this environment that writes to the ends of these files."""
    os.environ.clear()
    os.environ.update(environment)
    for number, file in enumerate((output, told), start=1):
        with file.open("ab") as opened:
            os.dup2(opened.fileno(), number)
