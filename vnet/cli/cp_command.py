"""`vnet cp`: files and folders into and out of VMs."""

from __future__ import annotations

import os
import posixpath
import shutil
import stat
import sys
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vnet.base.errors import HostError, InputError, UsageError
from vnet.cli.client import path
from vnet.cli.options import Settings, command
from vnet.cli.output import tell
from vnet.cli.progress import Step

if TYPE_CHECKING:
    from vnet.cli.copying import Guest, Ran, Told

STREAM = "-"
_TIMEOUT_S = 60.0
"""For each piece."""


def register(app: typer.Typer) -> None:
    """Add this command."""
    command(app)(cp)


def cp(
    settings: Settings,
    source: Annotated[str, typer.Argument(metavar="FILE|VM:PATH|-", show_default=False)],
    target: Annotated[str, typer.Argument(metavar="FILE|VM:PATH|-", show_default=False)],
    recursive: Annotated[bool, typer.Option("-r", "--recursive", help="Copy a folder.")] = False,
) -> None:
    """Copy a file into a VM or out of it, through its agent.

    Modes are kept; - is standard input or output.
    """
    given, taken = side(source), side(target)
    if bool(given.vm) == bool(taken.vm):
        raise UsageError("one of the two is VM:PATH, the other a file here; a file with a colon is ./a:b")
    if recursive and STREAM in (source, target):
        raise UsageError("-r copies a folder: name one instead of -")
    copy = _Copy(settings, given, taken)
    work = {
        (True, True): copy.folder_out,
        (True, False): copy.file_out,
        (False, True): copy.folder_in,
        (False, False): copy.file_in,
    }
    copy.watched(work[bool(given.vm), recursive])


@dataclass(frozen=True, slots=True)
class Side:
    """Where something is: in a VM, or here if `vm` is empty."""

    vm: str
    path: str


def side(text: str) -> Side:
    """As scp reads it: a colon before any slash ends a VM's name."""
    vm, colon, rest = text.partition(":")
    return Side(vm, rest) if colon and vm and "/" not in vm else Side("", text)


class _Copy:
    """One copy, and what is told of it."""

    def __init__(self, settings: Settings, given: Side, taken: Side) -> None:
        self._settings, self._given, self._taken = settings, given, taken
        self._what = f"copy {_shown(given)} to {_shown(taken)}"
        self._copied = 0

    def watched(self, work: Callable[[Guest, Told], None]) -> None:
        """Carries it out and tells how far it is."""
        from vnet.cli.copying import Guest  # only here: not every command copies

        def told(copied: int, of: int) -> None:
            self._copied = copied
            step.moved(f"{_mib(copied)} of {_mib(of)}" if of else _mib(copied))

        with Step(self._what, self._settings.report) as step:
            work(Guest(self._given.vm or self._taken.vm, self._run()), told)
            step.done(_mib(self._copied))

    def _run(self) -> Callable[[tuple[str, ...], bytes], Ran]:
        from vnet.cli.copying import Ran

        client = self._settings.daemon()
        client.timeout_s = None
        where = path("fabrics", self._settings.fabric, "vms", self._given.vm or self._taken.vm, "exec")
        timeout_s = self._settings.timeout_s or _TIMEOUT_S

        def run(argv: tuple[str, ...], stdin: bytes) -> Ran:
            body = {"argv": argv, "timeout_s": timeout_s, "stdin": b64encode(stdin).decode()}
            answer = client.run("POST", where, body, lambda message: None)
            return Ran(answer["exit_code"], b64decode(answer["stdout"]), b64decode(answer["stderr"]))

        return run

    def file_in(self, guest: Guest, told: Told) -> None:
        """A file here, or what comes in, to a file there."""
        if self._given.path == STREAM:
            guest.send_file(sys.stdin.buffer, 0o644, self._taken.path, STREAM, told)
            return
        local = Path(self._given.path)
        if local.is_dir():
            raise InputError(f"{local} is a folder: copy it with -r")
        try:
            file = local.open("rb")
        except OSError as error:
            raise InputError(f"cannot read {local}: {error.strerror}") from None
        with file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            guest.send_file(file, mode, self._taken.path, local.name, told)

    def folder_in(self, guest: Guest, told: Told) -> None:
        """A folder here to one there."""
        from vnet.cli.archive import pack

        local = Path(self._given.path).absolute()
        if not local.is_dir():
            raise InputError(f"{local} is no folder" if local.exists() else f"{local} is not there")
        guest.send_folder(partial(pack, local), self._taken.path, local.resolve().name, told)

    def file_out(self, guest: Guest, told: Told) -> None:
        """A file there to one here, or to standard output."""
        if self._taken.path == STREAM:
            # on a terminal, progress would be written into what the file says
            guest.fetch_file(self._given.path, sys.stdout.buffer, _silent if sys.stdout.isatty() else told)
            sys.stdout.buffer.flush()
            return
        target = _target(self._taken.path, self._given.path)
        if target.is_dir() or (target.exists() and not target.is_file()):
            raise InputError(f"{target} is there and no regular file: it is not replaced")
        with _beside(target) as part:
            with open(part, "xb", opener=_private) as file:
                mode = guest.fetch_file(self._given.path, file, told)
            part.chmod(mode & 0o777)
            part.replace(target)

    def folder_out(self, guest: Guest, told: Told) -> None:
        """A folder there to one here."""
        from vnet.cli.archive import unpack

        target = _target(self._taken.path, self._given.path)
        if target.exists():
            raise InputError(f"{target} is there already: remove it first")
        with (
            _beside(target) as part,
            _beside(target) as packed,
            open(packed, "x+b", opener=_private) as archive,
        ):
            guest.fetch_folder(self._given.path, archive, told)
            size_bytes = archive.tell()
            archive.seek(0)
            part.mkdir(mode=0o700)
            left_out = unpack(archive, size_bytes, part)
            part.rename(target)
        for name in left_out:
            tell(f"left out: the link {name!r}, which leads out of the folder")


def _target(here: str, there: str) -> Path:
    """The path here; in a folder under the name that the user wrote, not one that the guest says."""
    target = Path(os.path.realpath(here))
    if target.is_dir():
        name = posixpath.basename(there.rstrip("/"))
        if name in ("", ".", ".."):
            raise UsageError(f"{here} is a folder: name what {there} is to be called in it")
        target = target / name
    elif here.endswith("/"):
        raise InputError(f"{here} is no folder")
    if not target.parent.is_dir():
        raise InputError(f"{here}: its folder is not there")
    return target


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A name for what is not whole yet; nothing has it afterwards, whatever happens."""
    part = target.with_name(f".vnet-cp-{os.urandom(6).hex()}")
    try:
        yield part
    except OSError as error:
        raise HostError(f"cannot write {target}: {error.strerror}") from error
    finally:
        shutil.rmtree(part) if part.is_dir() and not part.is_symlink() else part.unlink(missing_ok=True)


def _private(name: str, flags: int) -> int:
    """For nobody else, until it has the mode that it had there."""
    return os.open(name, flags, 0o600)


def _shown(where: Side) -> str:
    return f"{where.vm}:{where.path}" if where.vm else where.path


def _silent(copied: int, of: int) -> None:
    """Nobody is told."""


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 20):.1f} MiB"
