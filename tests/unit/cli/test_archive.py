"""Folders as archives: there and back, and what a guest may not make of the host."""

from __future__ import annotations

import io
import os
import tarfile

import pytest

from vnet.base.errors import HostError, InputError, PeerError
from vnet.cli.archive import pack, unpack


def tar(*members: tuple[tarfile.TarInfo, bytes]) -> io.BytesIO:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    made.seek(0)
    return made


def member(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644):
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname, info.mode = len(content), kind, link, mode
    return info, content


def unpacked(archive: io.BytesIO, folder):
    folder.mkdir()
    return unpack(archive, len(archive.getvalue()), folder)


def test_a_folder_comes_out_as_it_went_in(tmp_path):
    source = tmp_path / "source"
    (source / "deep" / "er").mkdir(parents=True)
    (source / "deep" / "er" / "binary").write_bytes(os.urandom(100_000))
    (source / "a name with spaces\nand lines").write_text("")
    (source / "tool").write_text("#!/bin/sh\n")
    (source / "tool").chmod(0o750)
    (source / "read-only").mkdir(mode=0o555)
    (source / "deep" / "up").symlink_to("../tool")
    os.link(source / "tool", source / "twin")
    made = io.BytesIO()
    pack(source, made)
    made.seek(0)
    assert unpacked(made, tmp_path / "out") == ()
    out = tmp_path / "out"
    names = {path.relative_to(source) for path in source.rglob("*")}
    assert {path.relative_to(out) for path in out.rglob("*")} == names
    for name in names:
        assert (out / name).lstat().st_mode == (source / name).lstat().st_mode
        assert (out / name).is_dir() or (out / name).read_bytes() == (source / name).read_bytes()
    assert os.readlink(out / "deep" / "up") == "../tool"


@pytest.mark.parametrize(
    "evil",
    [
        [member("../outside", b"x")],
        [member("/outside", b"x")],
        [member("a/../../outside", b"x")],
        [member("..", kind=tarfile.DIRTYPE)],
        [member("link", kind=tarfile.LNKTYPE, link="../secret")],
        [member("link", kind=tarfile.LNKTYPE, link="/etc/passwd")],
        [member("device", kind=tarfile.CHRTYPE)],
        [member("pipe", kind=tarfile.FIFOTYPE)],
        [member(".", b"x")],
        [member("twice", b"x"), member("twice", b"y")],
        [member("file", b"x"), member("file/below", b"y")],
        [member("down", kind=tarfile.SYMTYPE, link="inner"), member("down", b"x")],
    ],
    ids=lambda members: (
        members[-1][0].name + (f"-to-{members[-1][0].linkname}" if members[-1][0].linkname else "")
    ),
)
def test_what_leaves_the_folder_or_is_no_file_is_refused(tmp_path, evil):
    (tmp_path / "secret").write_text("secret")
    with pytest.raises((PeerError, HostError)):
        unpacked(tar(*evil), tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "secret"]


@pytest.mark.parametrize(
    "target", ["/etc", "..", "../..", "inner/../../x", "inner/..", "../../../etc/shadow", ""]
)
def test_a_link_that_leads_out_is_left_out_and_nothing_goes_through_it(tmp_path, target):
    archive = tar(member("way", kind=tarfile.SYMTYPE, link=target), member("kept", b"x"))
    assert unpacked(archive, tmp_path / "out") == ("way",)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["kept"]


def test_a_file_below_a_link_makes_a_folder_and_the_link_is_refused(tmp_path):
    """The oldest trick: a link that leads out, then a file through it."""
    archive = tar(member("way", kind=tarfile.SYMTYPE, link=".."), member("way/outside", b"x"))
    assert unpacked(archive, tmp_path / "out") == ("way",)
    assert (tmp_path / "out" / "way" / "outside").read_bytes() == b"x"
    assert not (tmp_path / "outside").exists()
    inner = tar(member("way", kind=tarfile.SYMTYPE, link="kept"), member("way/outside", b"x"))
    with pytest.raises(HostError, match="exists"):
        unpacked(inner, tmp_path / "again")


def test_a_link_below_a_link_would_lie_elsewhere_and_is_refused(tmp_path):
    to_the_top = member("deep/er/top", kind=tarfile.SYMTYPE, link="../..")
    through = member("deep/er/top/way", kind=tarfile.SYMTYPE, link="../../../secret")
    with pytest.raises(PeerError, match="link below a link"):
        unpacked(
            tar(member("deep/er", kind=tarfile.DIRTYPE, mode=0o755), through, to_the_top), tmp_path / "out"
        )


def test_rights_beyond_the_usual_do_not_come_along(tmp_path):
    unpacked(tar(member("tool", b"x", mode=0o6755)), tmp_path / "out")
    assert (tmp_path / "out" / "tool").stat().st_mode & 0o7777 == 0o755


def test_holes_that_would_fill_the_disk_are_refused(tmp_path):
    info, _ = member("hole")
    info.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.realsize": str(1 << 50),
        "GNU.sparse.name": "hole",
    }
    info.size = 512
    with pytest.raises(PeerError, match="larger than the archive"):
        unpacked(tar((info, b"0\n".ljust(512, b"\0"))), tmp_path / "out")


def test_noise_is_no_archive(tmp_path):
    with pytest.raises(PeerError, match="no archive"):
        unpacked(io.BytesIO(b"noise" * 1000), tmp_path / "out")


def test_a_pipe_is_not_packed(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="pipe is neither"):
        pack(tmp_path, io.BytesIO())
