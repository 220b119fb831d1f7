"""Runs qemu-img, on whatever file: the only place that does.

It gets a user number that nobody else has, no capabilities and no way to new ones, no network, bounds, and
the files that vnet means as descriptors. It reopens those by /proc/self/fd, for which the files belong to a
group that only it is in; they lie in folders that only root enters. A header that names another file gains
nothing: such names are not followed, and what runs could open nothing of root's.
"""

from __future__ import annotations

import asyncio
import json
import os
import selectors
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from vnet.base import paths
from vnet.base.errors import HostError
from vnet.hv import qcow2, qemu_img
from vnet.hv.live import users
from vnet.hv.live.luks import secret_fd
from vnet.hv.live.process import confinement
from vnet.hv.qemu_img import BaseOf, Call, Image, Target, Word

Percent = Callable[[float], None]
"""Told how far a conversion is, about once a second."""

_MEMORY_BYTES = 8 << 30
"""Of addresses. A damaged disk's tables may want any amount."""
_DESCRIPTORS = 256
_TRIES = 10
_MOODY = "Unable to get accurate CPU usage"
"""qemu-img measures how fast it is at LUKS and at random cannot (seen with 7.2): it is asked again."""
_KEPT_BYTES = 16 << 20
"""Of what it says."""
_TOLD_EVERY_S = 1.0
_LOOK_EVERY_S = 0.2
_ENDS_IN_S = 0.005


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended: its exit code, what it printed and what it said of errors."""

    code: int
    output: str
    errors: str


def run(call: Call, told: Percent | None = None, broken_off: threading.Event | None = None) -> Ended:
    """Runs it to its end.

    Raises:
        HostError: it cannot be started, takes too long, was broken off, or ends as it should not.
    """
    with _ready(call) as (words, fds, names, folder):
        for _ in range(_TRIES):
            _point_at_targets(call, names, folder)
            ended = _once(call, words, fds, folder, told, broken_off or threading.Event())
            if ended.code in call.accept:
                return ended
            if _MOODY not in ended.errors:
                break
    raise qemu_img.explained(call, ended.code, qemu_img.named(ended.errors or ended.output, names))


async def execute(call: Call, told: Percent | None = None) -> Ended:
    """The same for who does not wait; broken off, it is ended before this returns."""
    loop, broken_off = asyncio.get_running_loop(), threading.Event()

    def tell(done: float) -> None:
        if told is not None:
            loop.call_soon_threadsafe(told, done)

    work = asyncio.create_task(asyncio.to_thread(run, call, tell, broken_off))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        broken_off.set()
        await asyncio.wait([work])
        work.exception()  # it is known why
        raise


def head(path: Path) -> qcow2.Head:
    """What a qcow2 file's head says."""
    with _opened(path, os.O_RDONLY) as descriptor:
        return qcow2.head(os.pread(descriptor, qcow2.HEAD_BYTES, 0), str(path))


def held_bytes(image: Image, key: bytes | None = None) -> int:
    """How many bytes a disk's contents take, unpacked."""
    return int(json.loads(run(qemu_img.measure(image, key)).output)["required"])


# ---- its files ---------------------------------------------------------------------------------

_Ready = tuple[tuple[str, ...], tuple[int, ...], Mapping[str, Path], Path]


@contextmanager
def _ready(call: Call) -> Iterator[_Ready]:
    """Its command line, the descriptors that it inherits, whose they are, and the folder that it runs in."""
    with ExitStack() as stack:
        folder, user = stack.enter_context(_folder())
        names: dict[Path, str] = {}
        for image in call.images:
            _open_image(image, names, stack)
        for target in call.targets:
            names[target.path] = _target(target, stack)
        words, fds = [_word(word, names) for word in call.words], [_number(each) for each in names.values()]
        for target in call.targets:
            words[call.words.index(target)] = target.path.name
        for name, key in ((qemu_img.KEY, call.key), (qemu_img.NEW_KEY, call.new_key)):
            if key is not None:
                fds.append(stack.enter_context(secret_fd(key)))
                words[:0] = ("--object", f"secret,id={name},file=/proc/self/fd/{fds[-1]}")
        command = (*_before(call, user), "qemu-img", call.verb, *words)
        yield command, tuple(fds), {name: path for path, name in names.items()}, folder


@contextmanager
def _folder() -> Iterator[tuple[Path, int | None]]:
    """An empty one of its own and, as root, the user whose it is."""
    if os.geteuid() != 0:
        with tempfile.TemporaryDirectory() as own:
            yield Path(own), None
        return
    folder = paths.workers_run_dir() / str(uuid.uuid4())
    user = users.claim_dir(folder)
    try:
        yield folder, user
    finally:
        users.release(folder)


def _open_image(image: Image, names: dict[Path, str], stack: ExitStack) -> None:
    wanted = [(image.path, image.kind, image.is_written)]
    if image.base is not None:
        wanted.append((image.base, "qcow2", False))
    for path, kind, is_written in wanted:
        if path in names:
            continue
        descriptor = stack.enter_context(_opened(path, os.O_RDWR if is_written else os.O_RDONLY))
        if kind == "qcow2" and not image.is_in_luks:
            qcow2.refuse_data_file(os.pread(descriptor, qcow2.HEAD_BYTES, 0), str(path))
        _share(descriptor, path, is_written=is_written)
        names[path] = _name(descriptor)


def _target(target: Target, stack: ExitStack) -> str:
    descriptor = target.descriptor
    if descriptor is None:
        made = os.O_RDWR | os.O_CREAT | os.O_EXCL
        descriptor = stack.enter_context(_opened(target.path, made))
        _share(descriptor, target.path, is_written=True)
    return _name(descriptor)


def _point_at_targets(call: Call, names: Mapping[str, Path], folder: Path) -> None:
    """A VMDK has the name in it under which it is made: so that is its own, and a link to the descriptor.

    qemu-img removes by its name what it could not make: without a new link another try would make a file that
    nobody looks at, and leave what the first had begun.
    """
    descriptors = {path: name for name, path in names.items()}
    for target in call.targets:
        link = folder / target.path.name
        link.unlink(missing_ok=True)
        link.symlink_to(descriptors[target.path])


def _word(word: Word, names: Mapping[Path, str]) -> str:
    if isinstance(word, Image):
        return word.opened(names[word.path], None if word.base is None else names[word.base])
    if isinstance(word, BaseOf):
        assert word.image.base is not None, "who names it knows"
        return names[word.image.base]
    return word if isinstance(word, str) else names[word.path]


@contextmanager
def _opened(path: Path, how: int) -> Iterator[int]:
    try:
        descriptor = os.open(path, how | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise HostError(f"cannot open {path}: {error.strerror}") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _share(descriptor: int, path: Path, *, is_written: bool) -> None:
    """Lets who has the descriptor and is in the group reopen the file; it is never taken back.

    Two may be at work on one file, and the path still leads through folders of root's.
    """
    if os.geteuid() != 0:
        return
    found, wanted = os.fstat(descriptor), 0o060 if is_written else 0o040
    try:
        if found.st_gid != users.images_group():
            os.fchown(descriptor, -1, users.images_group())
        if found.st_mode & wanted != wanted:
            os.fchmod(descriptor, (found.st_mode & 0o707) | (found.st_mode & 0o060) | wanted)
    except OSError as error:
        raise HostError(
            f"{path} lies on a file system where it cannot be given to a group ({error.strerror}), which "
            "qemu-img without rights needs: keep it on a local one"
        ) from error


def _name(descriptor: int) -> str:
    return f"/proc/self/fd/{descriptor}"


def _number(name: str) -> int:
    return int(name.rpartition("/")[2])


# ---- the process -------------------------------------------------------------------------------


def _before(call: Call, user: int | None) -> tuple[str, ...]:
    """What stands before qemu-img; who is not root has no rights that it could lose."""
    writes = bool(call.targets) or any(image.is_written for image in call.images)
    limit_bytes = call.limit_bytes if writes else 0
    bounds = (
        *("prlimit", f"--as={_MEMORY_BYTES}", f"--nofile={_DESCRIPTORS}", f"--cpu={int(call.timeout_s) * 2}"),
        *(f"--fsize={limit_bytes}", "--core=0", "--"),
    )
    ends = ("setpriv", "--no-new-privs", "--pdeathsig=KILL", "--")  # with the thread that waits for it
    rights = () if user is None else confinement(user, (users.images_group(),), limit_bytes)
    return (*rights, *ends, *bounds)


def _once(
    call: Call,
    words: tuple[str, ...],
    fds: tuple[int, ...],
    folder: Path,
    told: Percent | None,
    broken_off: threading.Event,
) -> Ended:
    pipe = subprocess.PIPE
    try:
        child = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=pipe,
            stderr=pipe,
            pass_fds=fds,
            cwd=folder,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
            restore_signals=False,  # a file that becomes too long is an error and not the end
        )
    except OSError as error:
        raise HostError(f"`{call.text}` failed: {error}; install qemu-utils and util-linux") from error
    with child:
        try:
            output, errors = _follow(call, child, told, broken_off)
        except BaseException:
            child.kill()
            raise
    return Ended(child.returncode, output.decode(errors="replace"), errors.decode(errors="replace"))


def _follow(
    call: Call, child: subprocess.Popen[bytes], told: Percent | None, broken_off: threading.Event
) -> tuple[bytes, bytes]:
    """What it says, until it has ended."""
    assert child.stdout is not None, "it is a pipe"
    assert child.stderr is not None, "it is a pipe"
    said = {child.stdout.fileno(): b"", child.stderr.fileno(): b""}
    out, err = said
    began_s, told_s = time.monotonic(), -_TOLD_EVERY_S
    with selectors.DefaultSelector() as selector:
        for descriptor in said:
            selector.register(descriptor, selectors.EVENT_READ)
        while selector.get_map() or child.poll() is None:
            for key, _ in selector.select(_LOOK_EVERY_S if selector.get_map() else _ENDS_IN_S):
                data = os.read(key.fd, 1 << 16)
                said[key.fd] = (said[key.fd] + data)[-_KEPT_BYTES:]
                if not data:
                    selector.unregister(key.fd)
            now_s = time.monotonic()
            if broken_off.is_set():
                raise HostError(f"`{call.text}` was broken off")
            if now_s - began_s > call.timeout_s:
                raise HostError(f"`{call.text}` did not end within {call.timeout_s:g} s")
            done = qemu_img.percent(said[out][-64:]) if told and now_s - told_s > _TOLD_EVERY_S else None
            if told and done is not None:
                told_s = now_s
                told(done)
    return said[out], said[err]
