"""How qemu-img is run: what it fails at is tried again on the file that is meant."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vnet.hv import qemu_img
from vnet.hv.live import image_tool
from vnet.hv.qemu_img import Call, Target

MOODY = """\
#!/bin/sh
echo x >>tries
if [ $(wc -l <tries) -lt 3 ]; then
    echo half >disk.qcow2
    rm disk.qcow2
    echo "Unable to get accurate CPU usage" >&2
    exit 1
fi
echo whole >disk.qcow2
"""


def test_another_try_makes_the_file_that_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """qemu-img removes what it could not make by the name that it has of it."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    program = tmp_path / "bin" / "qemu-img"
    program.parent.mkdir()
    program.write_text(MOODY)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    target = tmp_path / "disk.qcow2"
    image_tool.run(Call("create", (Target(target),)))
    assert target.read_text() == "whole\n"


def test_luks_is_made_at_the_first_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """QEMU measures its speed with the key's hash, and cannot with one that is too quick for it."""
    monkeypatch.setattr(image_tool, "_TRIES", 1)
    for _ in range(3):
        descriptor = os.memfd_create("luks", os.MFD_CLOEXEC)
        try:
            image_tool.run(qemu_img.create_luks(descriptor, b"a key of the test's"))
            assert os.pread(descriptor, 6, 0) == b"LUKS\xba\xbe"
        finally:
            os.close(descriptor)
