"""Disks whose heads a guest's QEMU has written: whatever is done to them, no other file is even opened."""

from __future__ import annotations

import ast
import asyncio
import ctypes
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import vnet
from vnet.base.boot import ImageFormat
from vnet.base.errors import HostError, VnetError
from vnet.hv import disk as disks
from vnet.hv import qemu_img, stored
from vnet.hv.disk import Disk, plugged
from vnet.hv.live import (
    disk,
    disk_clone,
    disk_snapshots,
    export,
    image_import,
    image_store,
    image_tool,
    ova,
    root_disk,
)
from vnet.hv.live.backup_restore import _structure
from vnet.hv.live.disk_clone import Order
from vnet.hv.ovf import ExportedVm
from vnet.hv.qemu_img import Call, Image
from vnet.hv.snapshot import SavedDisk

pytestmark = [
    pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root has a secret and takes another user"),
]
SECRET = b"root:$y$j9T$this-is-nobody-else's:19000:0:99999:7:::\n" * 80
MIB = 1 << 20
DATA = Disk("data", 8 * MIB)
_IN_OPEN, _IN_ACCESS, _IN_MODIFY = 0x20, 0x1, 0x2
"""Source: linux/inotify.h."""


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("STATE", "RUN"):
        monkeypatch.setenv(f"VNET_{name}_DIR", str(tmp_path / name.lower()))
    return tmp_path / "state"


class Secret:
    """A file of root's that tells whether anybody has opened it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(SECRET)
        path.chmod(0o600)
        libc = ctypes.CDLL(None, use_errno=True)
        self._events = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        wanted = _IN_OPEN | _IN_ACCESS | _IN_MODIFY
        assert libc.inotify_add_watch(self._events, os.fsencode(path), wanted) > 0

    def was_touched(self) -> bool:
        try:
            return bool(os.read(self._events, 4096))
        except BlockingIOError:
            return False

    def close(self) -> None:
        os.close(self._events)


@pytest.fixture
def secret(tmp_path: Path) -> Iterator[Secret]:
    made = Secret(tmp_path / "shadow")
    yield made
    made.close()


# ---- heads -------------------------------------------------------------------------------------


def _backing(path: Path, secret: Path) -> None:
    _rewrite(path, "-b", str(secret))


def _json(path: Path, secret: Path) -> None:
    node = {"driver": "raw", "file": {"driver": "file", "filename": str(secret)}}
    _rewrite(path, "-b", f"json:{json.dumps(node)}")


def _rewrite(path: Path, *words: str) -> None:
    """As a VM's QEMU could: in the file that is there."""
    command = ("qemu-img", "rebase", "-u", "-q", "-f", "qcow2", "-F", "raw", *words, str(path))
    subprocess.run(command, check=True)


def _data_file(path: Path, secret: Path) -> None:
    """Contents "lie in" the secret: a whole other head, of a disk of the same size."""
    other, decoy = path.with_name("other"), path.with_name("d" * len(str(secret)))
    options = f"data_file={decoy.name},data_file_raw=on"
    command = ("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, other.name, str(8 * MIB))
    subprocess.run(command, check=True, cwd=path.parent)
    data = other.read_bytes().replace(decoy.name.encode(), str(secret).encode())
    assert str(secret).encode() in data
    path.write_bytes(data)
    other.unlink()
    decoy.unlink()


HEADS = {"backing file": _backing, "json": _json, "data file": _data_file}
Forge = Callable[[Path, Path], None]


@pytest.fixture(params=HEADS.values(), ids=HEADS)
def forge(request: pytest.FixtureRequest) -> Forge:
    return request.param  # type: ignore[no-any-return]


# ---- what is done to them ----------------------------------------------------------------------

_SAVED = SavedDisk("data", "qcow2", 8 * MIB)


def _size(path: Path) -> None:
    assert [each.size_bytes for each in disk.kept()] == [8 * MIB]
    assert root_disk.virtual_size_bytes(path) == 8 * MIB


def _grow(path: Path) -> None:
    disk.ensure("lab", "db", Disk("data", 16 * MIB))


def _keep(path: Path) -> None:
    disk_snapshots.keep("lab", "db", [_SAVED], "one")


def _names(path: Path) -> None:
    disk_snapshots.names(path)


def _take_back(path: Path) -> None:
    disk_snapshots._snapshot("-a", "before", path)


def _drop(path: Path) -> None:
    disk_snapshots.drop("lab", "db", [_SAVED], "before")


def _clone(path: Path) -> None:
    asyncio.run(disk_clone.clone(Order("lab", "db", "new"), [DATA], lambda text: None))


def _link(path: Path) -> None:
    asyncio.run(disk_clone.clone(Order("lab", "db", "new", linked=True), [DATA], lambda text: None))


def _export(path: Path) -> None:
    source = export.source("lab", "db", "data")
    asyncio.run(export.pack_disk(source, "db", shared=False, told=lambda text: None))


def _export_ova(path: Path) -> None:
    source = export.source("lab", "db", "data")
    machine = ExportedVm("db", 1, 64 * MIB, (), ())
    asyncio.run(export.pack(machine, [source], shared=True, told=lambda text: None))


def _check(path: Path) -> None:
    image_store.check(path)


def _verify_backup(path: Path) -> None:
    _structure(path, None)


def _import(path: Path) -> None:
    asyncio.run(image_import.put(image_import.Wanted(path), lambda text: None))


def _bring(path: Path) -> None:
    ova.bring(path, path.with_name("brought.qcow2"), "qcow2", lambda text: None)


DONE = (_size, _grow, _keep, _names, _take_back, _drop, _clone, _link, _export, _export_ova, _check)
STRANGE = (_verify_backup, _import, _bring)


@pytest.mark.parametrize("do", [*DONE, *STRANGE], ids=lambda do: do.__name__.strip("_"))
def test_a_head_that_names_another_file_gains_nothing(
    state: Path, secret: Secret, forge: Forge, do: Callable[[Path], None]
) -> None:
    path = disk.ensure("lab", "db", DATA)
    disk_snapshots.keep("lab", "db", [_SAVED], "before")
    forge(path, secret.path)
    if do in DONE and forge is not _data_file:
        do(path)  # as if nothing were named
    else:
        with suppress(VnetError):
            do(path)
    assert not secret.was_touched()
    assert secret.path.read_bytes() == SECRET
    assert not [each for each in state.rglob("*") if each.is_file() and b"nobody-else's" in each.read_bytes()]


def test_the_heads_are_dangerous_to_who_believes_them(state: Path, secret: Secret, forge: Forge) -> None:
    path = disk.ensure("lab", "db", DATA)
    forge(path, secret.path)
    subprocess.run(("qemu-img", "convert", "-O", "raw", str(path), str(path) + ".out"), check=False)
    assert secret.was_touched()


def test_a_disk_whose_contents_would_lie_elsewhere_is_refused(state: Path, secret: Secret) -> None:
    path = disk.ensure("lab", "db", DATA)
    _data_file(path, secret.path)
    for do in (_grow, _keep, _clone, _link, _export, _check):
        with pytest.raises(HostError, match="contents lie in another file"):
            do(path)


def test_a_root_disk_is_the_difference_to_its_image_and_to_nothing_else(state: Path, secret: Secret) -> None:
    image = _image(state)
    wanted = Disk("root", 16 * MIB, is_root=True)
    path = root_disk.ensure("lab", "web", wanted, image, "tiny")
    _backing(path, secret.path)
    root_disk.ensure("lab", "web", Disk("root", 24 * MIB, is_root=True), image, "tiny")
    disk_snapshots.keep("lab", "web", [SavedDisk("root", "qcow2", 16 * MIB)], "one")
    asyncio.run(disk_clone.clone(Order("lab", "web", "new"), [wanted], lambda text: None))
    source = export.source("lab", "web", "root")
    made = asyncio.run(export.pack_disk(source, "web", shared=False, told=lambda text: None))
    assert not secret.was_touched()
    raw = subprocess.run(("qemu-img", "convert", "-O", "raw", made.path, f"{made.path}.raw"), check=True)
    assert raw.returncode == 0
    assert Path(f"{made.path}.raw").read_bytes()[:5] == b"image"
    clone = disk.path_of("lab", "new", Disk("root", 0))
    assert clone.stat().st_blocks * 512 < MIB, "what is in the image is not copied"
    told = json.loads(subprocess.check_output(("qemu-img", "info", "--output=json", str(clone))))
    assert told["backing-filename"] == str(image_store.path_of(image))


def _image(state: Path) -> stored.Stored:
    raw = state.parent / "tiny.raw"
    raw.write_bytes(b"image" + os.urandom(4 * MIB - 5))
    wanted = image_import.Wanted(raw, format=ImageFormat.RAW.value)
    return asyncio.run(image_import.put(wanted, lambda text: None))


# ---- how it is run -----------------------------------------------------------------------------


def test_who_runs_on_a_disk_can_open_no_file_of_root_s(state: Path, secret: Secret) -> None:
    for folder in (secret.path.parent, secret.path.parent.parent):
        folder.chmod(0o755)
    with pytest.raises(HostError, match=r"info.*shadow.*Permission denied"):
        image_tool.run(Call("info", (str(secret.path),)))


def test_two_runs_have_two_users_and_the_group_of_images(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with image_tool._ready(Call("info", ())) as (one, *_), image_tool._ready(Call("info", ())) as (two, *_):
        users = {next(word for word in words if word.startswith("--reuid=")) for words in (one, two)}
    assert len(users) == 2
    assert "--no-new-privs" in one
    assert "--bounding-set=-all" in one


def test_it_is_ended_when_it_takes_too_long_and_when_nobody_waits(state: Path) -> None:
    path = disk.ensure("lab", "db", DATA)
    call = qemu_img.convert(Image(path), path.with_name("copy"))
    with pytest.raises(HostError, match=r"qemu-img convert .*did not end within 0 s"):
        image_tool.run(Call(call.verb, call.words, timeout_s=0))

    async def broken_off() -> None:
        work = asyncio.create_task(image_tool.execute(qemu_img.convert(Image(path), path.with_name("other"))))
        await asyncio.sleep(0)
        work.cancel()
        await work

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(broken_off())


def test_a_file_becomes_no_longer_than_it_may(state: Path) -> None:
    path = state / "large.qcow2"
    state.mkdir()
    with pytest.raises(HostError, match="too large"):
        image_tool.run(qemu_img.create(path, "raw", "preallocation=full", 8 * MIB).within(MIB))


def test_a_key_is_in_no_error_and_no_text() -> None:
    call = qemu_img.info(Image(Path("x")))
    assert "hidden" not in repr(Call(call.verb, call.words, b"hidden")) + call.text


def test_qemu_is_told_that_nothing_is_behind_a_disk() -> None:
    (place,) = plugged((DATA,), 0)
    assert place.blockdev()["backing"] is None
    assert "json" not in disks.create(DATA, Path("x"), None).text


def test_qemu_img_is_run_in_one_place() -> None:
    folder = Path(vnet.__file__).parent
    named = {
        str(path.relative_to(folder))
        for path in folder.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and _is_program(node.value)
    }
    assert named == {"hv/live/image_tool.py"}


def _is_program(text: str) -> bool:
    return text.rpartition("/")[2] in ("qemu-img", "qemu-nbd", "qemu-io", "qemu-storage-daemon")
