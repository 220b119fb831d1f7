"""The disk by which a guest is told who it is: an ISO 9660 image in memory, which QEMU gets by descriptor.

It may hold a password's hash, so it is never a file of the host.
"""

from __future__ import annotations

import fcntl
import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from vnet.base.cloud_init import CloudInit
from vnet.base.errors import HostError
from vnet.hv.cloud_init import LABEL, seed_files
from vnet.hv.live import ssh_key
from vnet.hv.spec import GuestSpec

_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def iso_image(files: Mapping[str, bytes], label: str = LABEL) -> bytes:
    """A file system with these files in its root, under their names by Rock Ridge and Joliet."""
    import pycdlib  # only here: it costs 50 ms

    image = pycdlib.PyCdlib()
    try:
        image.new(interchange_level=1, joliet=3, rock_ridge="1.09", vol_ident=label)
        for number, (name, data) in enumerate(files.items()):
            short, names = f"/F{number}.;1", {"rr_name": name, "joliet_path": f"/{name}"}
            image.add_fp(io.BytesIO(data), len(data), short, **names)
        written = io.BytesIO()
        image.write_fp(written)
        return written.getvalue()
    except pycdlib.pycdlibexception.PyCdlibException as error:
        raise HostError(f"cannot write the guest's seed image: {error}") from error
    finally:
        image.close()


@contextmanager
def opened_seed(spec: GuestSpec, config: CloudInit) -> Iterator[int]:
    """The seed of a guest; whom its topology lets in by no key, this host's own lets in (`vnet ssh`)."""
    if not config.ssh_keys:
        config = replace(config, ssh_keys=ssh_key.public())
    with opened_image(seed_files(spec, config)) as descriptor:
        yield descriptor


@contextmanager
def opened_image(files: Mapping[str, bytes]) -> Iterator[int]:
    """A descriptor, for reading only, of an image; it is gone with the last of them."""
    memory = os.memfd_create("vnet-seed", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(memory, "wb", closefd=False) as file:
            file.write(iso_image(files))
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _SEALS)
        descriptor = os.open(f"/proc/self/fd/{memory}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(memory)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
