"""Copies into and out of a guest: this host's shell plays the guest's."""

from __future__ import annotations

import io
import os
import subprocess
from functools import partial
from pathlib import Path

import pytest

from vnet.base.errors import HostError, InputError, PeerError
from vnet.cli import copying
from vnet.cli.archive import pack, unpack
from vnet.cli.copying import Guest, Ran
from vnet.cli.cp_command import Side, side


@pytest.fixture
def there(tmp_path) -> Path:
    """What the guest sees as its working folder."""
    (tmp_path / "there").mkdir()
    return tmp_path / "there"


@pytest.fixture
def guest(there, monkeypatch) -> Guest:
    monkeypatch.setattr(copying, "PIECE_BYTES", 1 << 17)

    def run(argv, stdin):
        done = subprocess.run(argv, input=stdin, capture_output=True, cwd=there, check=False, timeout=30)
        return Ran(done.returncode, done.stdout, done.stderr)

    return Guest("web", run)


def silent(copied, of):
    pass


def send(guest, content: bytes, path, mode=0o640, name="source"):
    guest.send_file(io.BytesIO(content), mode, str(path), name, silent)


def fetched(guest, path) -> tuple[int, bytes]:
    sink = io.BytesIO()
    return guest.fetch_file(str(path), sink, silent), sink.getvalue()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("size", [0, 1, (1 << 17) - 1, 1 << 17, (1 << 17) + 1, 1 << 19, 777_777])
def test_a_file_of_any_length_arrives_and_comes_back_with_its_mode(guest, there, size):
    content = os.urandom(size)
    send(guest, content, "file", mode=0o751)
    assert names(there) == ["file"]
    assert (there / "file").read_bytes() == content
    assert fetched(guest, "file") == (0o751, content)


@pytest.mark.parametrize("name", ["-n", "with space", "a'b\"c$(d)", "line\nend", "ümläut", "-rf *"])
def test_a_name_is_a_name_whatever_the_shell_would_make_of_it(guest, there, name):
    send(guest, b"x", name)
    assert names(there) == [name]
    assert fetched(guest, name)[1] == b"x"


def test_in_a_folder_it_keeps_its_name_and_an_old_file_is_replaced(guest, there):
    (there / "folder").mkdir()
    for content in (b"old and longer", b"new"):
        send(guest, content, "folder")
        send(guest, content, "folder/")
    assert names(there / "folder") == ["source"]
    assert (there / "folder" / "source").read_bytes() == b"new"


def test_a_link_stays_a_link_and_what_it_names_is_replaced(guest, there):
    (there / "real").write_text("old")
    (there / "link").symlink_to("real")
    send(guest, b"new", "link")
    assert (there / "link").is_symlink() and (there / "real").read_bytes() == b"new"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("no/where", "mkdir"),
        ("absent/", "mkdir"),
        ("pipe", "no regular file"),
        ("folder", "name another target"),
        ("", "name a path"),
    ],
)
def test_a_target_that_cannot_be_is_refused_and_nothing_is_left(guest, there, path, words):
    os.mkfifo(there / "pipe")
    (there / "folder" / "source").mkdir(parents=True)
    with pytest.raises(InputError, match=words):
        send(guest, b"x", path)
    assert names(there) == ["folder", "pipe"] and names(there / "folder") == ["source"]


@pytest.mark.parametrize(("path", "words"), [("absent", "not there"), ("folder", "-r"), ("pipe", "no file")])
def test_what_is_no_file_is_not_fetched(guest, there, path, words):
    os.mkfifo(there / "pipe")
    (there / "folder").mkdir()
    with pytest.raises(InputError, match=words):
        fetched(guest, path)


def test_a_copy_that_breaks_leaves_the_old_file_and_nothing_else(guest, there):
    class Breaking(io.RawIOBase):
        def __init__(self):
            self.left = 3

        def read(self, size=-1):
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt
            return b"x" * (1 << 17)

    (there / "file").write_text("old")
    with pytest.raises(KeyboardInterrupt):
        guest.send_file(Breaking(), 0o600, "file", "file", silent)
    assert names(there) == ["file"] and (there / "file").read_text() == "old"


def test_bytes_that_change_on_their_way_are_noticed(guest, there):
    honest = guest._run

    def run(argv, stdin):
        return honest(argv, stdin[:-1] + b"!" if stdin else stdin)

    with pytest.raises(PeerError, match="not what was copied"):
        Guest("web", run).send_file(io.BytesIO(b"content"), 0o600, "file", "file", silent)
    assert names(there) == []


def test_a_guest_that_answers_nonsense_ends_the_copy(there):
    for answer in (b"", b"file\n/x", b"\xff" * 100):
        with pytest.raises((PeerError, InputError)):
            fetched(Guest("web", lambda argv, stdin, answer=answer: Ran(0, answer, b"")), "x")
    with pytest.raises(HostError, match="No space left"):
        fetched(Guest("web", lambda argv, stdin: Ran(1, b"", b"No space left on device")), "x")


def test_a_guest_that_sends_without_end_is_read_as_far_as_it_said(guest):
    """Its answers announce a file of 5 bytes and then go on for ever."""

    def run(argv, stdin):
        script = argv[2]
        if script == copying._LOOK:
            return Ran(0, b"file\n/x\n", b"")
        return Ran(0, b"644 5" if script.startswith("stat") else b"x" * (1 << 17), b"")

    sink = io.BytesIO()
    with pytest.raises(PeerError):
        Guest("web", run).fetch_file("x", sink, silent)
    assert sink.getvalue() == b"xxxxx"


def test_a_folder_arrives_and_comes_back(guest, there, tmp_path):
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "binary").write_bytes(os.urandom(300_000))
    (source / "tool").write_text("#!/bin/sh\n")
    (source / "tool").chmod(0o755)
    guest.send_folder(partial(pack, source), "copy", "source", silent)
    guest.send_folder(partial(pack, source), ".", "source", silent)
    assert names(there) == ["copy", "source"]
    assert (there / "copy" / "tool").stat().st_mode & 0o777 == 0o755
    sink = io.BytesIO()
    guest.fetch_folder("copy", sink, silent)
    assert names(there) == ["copy", "source"]
    size = sink.tell()
    sink.seek(0)
    (tmp_path / "back").mkdir()
    unpack(sink, size, tmp_path / "back")
    assert (tmp_path / "back/deep/binary").read_bytes() == (source / "deep/binary").read_bytes()


def test_a_folder_that_is_there_is_not_mixed_with_another(guest, there, tmp_path):
    (there / "source").mkdir()
    with pytest.raises(InputError, match="remove it"):
        guest.send_folder(partial(pack, tmp_path / "there"), ".", "source", silent)
    with pytest.raises(InputError, match="copy folders of it"):
        guest.fetch_folder("/", io.BytesIO(), silent)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("web:/etc/hosts", Side("web", "/etc/hosts")),
        ("web:a:b", Side("web", "a:b")),
        ("./a:b", Side("", "./a:b")),
        ("/tmp/a:b", Side("", "/tmp/a:b")),
        ("-", Side("", "-")),
        (":x", Side("", ":x")),
    ],
)
def test_a_colon_before_any_slash_ends_a_vms_name(text, meant):
    assert side(text) == meant
