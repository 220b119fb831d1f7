"""Files into and out of a guest, with the commands that its shell has, over the agent.

A file goes in pieces, since the agent holds a command's input and output in the guest's memory. It is made
beside its place, compared by its SHA-256, and renamed: under its name is the old one or the new one, whole. A
folder goes as an archive, which lies in the guest for a moment.
"""

from __future__ import annotations

import hashlib
import posixpath
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from shutil import copyfileobj
from typing import BinaryIO

from vnet.base.errors import HostError, InputError, PeerError, VnetError
from vnet.cli.archive import Sink
from vnet.cli.records import printable

PIECE_BYTES = 4 << 20
_BLOCK_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command in the guest went."""

    exit_code: int
    stdout: bytes
    stderr: bytes


Run = Callable[[tuple[str, ...], bytes], Ran]
Told = Callable[[int, int], None]
"""Called with the bytes that have been copied, and how many there are (0: not known)."""

_LOOK = """\
if [ -d "$1" ]; then echo folder
elif [ -f "$1" ]; then echo file
elif [ -e "$1" ]; then echo special
elif [ -d "$2" ]; then echo absent
else echo nowhere; fi
readlink -f "$1" || :
"""
_APPEND = 'umask 077; ulimit -f unlimited; exec cat >>"$1"'
"""The agent bounds files that commands write, for the sake of their output."""
_READ = f'exec dd if="$1" bs={_BLOCK_BYTES} skip="$2" count="$3"'
_PUT = 'chmod "$3" "$1" && exec mv -fT "$1" "$2"'
_DIGEST = 'head -c "$2" "$1" | sha256sum'
_PACK = 'umask 077; ulimit -f unlimited; exec tar -cf "$2" -C "$1" .'
_UNPACK = """\
ulimit -f unlimited
mkdir "$1.d" && tar -xf "$1" -C "$1.d" && mv -T "$1.d" "$2" && rm "$1"
"""


@dataclass(frozen=True, slots=True)
class Place:
    """A path in the guest. `kind` is what is there: a folder, file or something special; `absent` if only
    the folder is there that it would lie in, else `nowhere`."""

    kind: str
    path: str


class _Pieces:
    """Hands on what is written in pieces."""

    def __init__(self, send: Callable[[bytes], object], told: Told) -> None:
        self._send, self._told = send, told
        self._waiting = bytearray()
        self.sent = 0
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> None:
        """Take the next bytes."""
        self._waiting += data
        if len(self._waiting) >= PIECE_BYTES:
            self.finish()

    def finish(self) -> None:
        """Send what waits; also an empty file is one."""
        piece = bytes(self._waiting)
        self._waiting.clear()
        self._send(piece)
        self.digest.update(piece)
        self.sent += len(piece)
        self._told(self.sent, 0)


class Guest:
    """One guest's files, and its name for messages."""

    def __init__(self, vm: str, run: Run) -> None:
        self.vm = vm
        self._run = run

    def send_file(self, source: BinaryIO, mode: int, path: str, name: str, told: Told) -> None:
        """Makes a file of what comes; in a folder under the name that it has here.

        Raises: InputError when it cannot be there, HostError when the guest refuses, PeerError when damaged.
        """
        place = self._target(f"{path}." if path.endswith("/") else path, name)
        if place.kind == "special":
            raise InputError(f"{self.vm}:{path} is no regular file: it is not replaced")
        with self._beside(place.path) as part:
            self._upload(lambda sink: copyfileobj(source, sink, _BLOCK_BYTES), part, told)
            self._shell(_PUT, part, place.path, f"{mode & 0o7777:o}")

    def send_folder(self, pack: Callable[[Sink], None], path: str, name: str, told: Told) -> None:
        """Makes a folder of the archive that `pack` writes; in a folder that is there under its name here."""
        place = self._target(path, name)
        if place.kind != "absent":
            raise InputError(f"{self.vm}:{printable(place.path)} is there already: remove it first")
        with self._beside(place.path) as part:
            self._upload(pack, part, told)
            self._shell(_UNPACK, part, place.path)

    def fetch_file(self, path: str, sink: BinaryIO, told: Told) -> int:
        """Writes what a file contains, as long as it is now; returns its mode."""
        place = self._look(path)
        if place.kind == "folder":
            raise InputError(f"{self.vm}:{path} is a folder: copy it with -r")
        self._must_be("file", place, path)
        mode, size_bytes = self._state(place.path)
        self._download(place.path, size_bytes, sink, told)
        return mode

    def fetch_folder(self, path: str, sink: BinaryIO, told: Told) -> None:
        """Writes an archive of a folder's contents."""
        place = self._look(path)
        self._must_be("folder", place, path)
        if place.path == "/":
            raise InputError(f"{self.vm}:/ contains what is no file: copy folders of it")
        with self._beside(place.path) as part:
            self._shell(_PACK, place.path, part)
            _, size_bytes = self._state(part)
            self._download(part, size_bytes, sink, told)

    def _upload(self, fill: Callable[[Sink], None], part: str, told: Told) -> None:
        pieces = _Pieces(lambda piece: self._shell(_APPEND, part, stdin=piece), told)
        fill(pieces)
        pieces.finish()
        self._compare(part, pieces.sent, pieces.digest.hexdigest())

    def _download(self, path: str, size_bytes: int, sink: BinaryIO, told: Told) -> None:
        """A file of /proc says that it has no length: of those as much as is read at once."""
        digest, got, wanted = hashlib.sha256(), 0, size_bytes or PIECE_BYTES
        blocks = PIECE_BYTES // _BLOCK_BYTES
        while got < wanted:
            piece = self._shell(_READ, path, str(got // _BLOCK_BYTES), str(blocks))[: wanted - got]
            digest.update(piece)
            sink.write(piece)
            got += len(piece)
            told(got, size_bytes)
            if len(piece) < PIECE_BYTES:
                break
        self._compare(path, got, digest.hexdigest())

    def _compare(self, path: str, size_bytes: int, digest: str) -> None:
        if self._shell(_DIGEST, path, str(size_bytes)).split()[:1] != [digest.encode()]:
            raise PeerError(
                f"{self.vm}:{printable(path)} is not what was copied: it changed meanwhile. Copy it again"
            )

    def _state(self, path: str) -> tuple[int, int]:
        words = self._shell('stat -c "%a %s" "$1"', path).split()
        try:
            mode, size_bytes = int(words[0], 8), int(words[1])
        except (ValueError, IndexError):
            raise PeerError(f"{self.vm} does not say how long {printable(path)} is") from None
        return mode, size_bytes

    def _target(self, path: str, name: str) -> Place:
        place = self._look(path)
        if place.kind == "folder":
            place = self._look(posixpath.join(path, name))
            if place.kind == "folder":
                raise InputError(
                    f"{self.vm}:{printable(place.path)} is there already: remove it, or name another target"
                )
        if place.kind == "nowhere":
            raise InputError(
                f"{self.vm}:{path}: its folder is not there; `vnet exec {self.vm} mkdir` makes one"
            )
        return place

    def _look(self, path: str) -> Place:
        if not path or "\0" in path:
            raise InputError(f"{self.vm}: name a path in the guest, for instance {self.vm}:/tmp/file")
        path = f"./{path}" if path.startswith("-") else path
        kind, _, real = self._shell(_LOOK, path, posixpath.dirname(path.rstrip("/")) or ".").partition(b"\n")
        return Place(
            kind.decode(errors="replace"), real.removesuffix(b"\n").decode(errors="surrogateescape") or path
        )

    def _must_be(self, kind: str, place: Place, path: str) -> None:
        if place.kind in ("absent", "nowhere"):
            raise InputError(f"{self.vm}:{path} is not there")
        if place.kind != kind:
            raise InputError(f"{self.vm}:{path} is no {kind}")

    @contextmanager
    def _beside(self, path: str) -> Iterator[str]:
        """A name for what is not whole yet; nothing has it afterwards, whatever happens."""
        part = posixpath.join(posixpath.dirname(path), f".vnet-cp-{secrets.token_hex(6)}")
        try:
            yield part
        finally:
            with suppress(VnetError):  # what went wrong before says more
                self._run(("rm", "-rf", part, f"{part}.d"), b"")

    def _shell(self, script: str, *words: str, stdin: bytes = b"") -> bytes:
        ran = self._run(("sh", "-c", script, "sh", *words), stdin)
        if ran.exit_code:
            raise HostError(f"{self.vm} refused: {_last_words(ran) or _without_a_word(ran.exit_code)}")
        return ran.stdout


def _last_words(ran: Ran) -> str:
    """What the guest says, as text for a terminal."""
    lines = (ran.stderr or ran.stdout)[-500:].decode(errors="replace").splitlines()
    return printable("; ".join(line.strip() for line in lines if line.strip()))


def _without_a_word(exit_code: int) -> str:
    """A guest whose memory is full cannot even keep a message."""
    return f"exit code {exit_code} and no message; is its memory full?"
