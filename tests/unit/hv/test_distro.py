"""The distribution guest's disk outside its file system, and how its packages are known."""

from __future__ import annotations

import struct

import pytest

from vnet.base.errors import HostError
from vnet.hv import distro


def sectors() -> bytes:
    return distro.boot_sectors(bytes(range(256)) * 2, b"\x11" * 100_000)


def test_the_first_sector_boots_the_second_stage_and_names_one_partition_up_to_the_end() -> None:
    first = sectors()[:512]
    assert first[:0x5C] == bytes(range(0x5C))  # GRUB's own
    assert struct.unpack_from("<Q", first, 0x5C) == (1,)
    active, kind, begin, length = struct.unpack_from("<B3xB3xII", first, 446)
    assert (active, kind, begin) == (0x80, 0x83, distro.PARTITION_SECTOR)
    assert (begin + length) * 512 == distro.SIZE_BYTES
    assert first[462:510] == bytes(48)
    assert first[510:] == b"\x55\xaa"


def test_the_second_stage_knows_where_the_rest_of_it_lies() -> None:
    second = sectors()[512:]
    assert struct.unpack_from("<Q", second, 0x1F4) == (2,)
    assert second[0x1FC : 0x1FC + 10] == b"\x11" * 10
    assert len(sectors()) == distro.PARTITION_SECTOR * 512


@pytest.mark.parametrize(("boot", "core"), [(511, 100_000), (512, 100), (512, 2 << 20)])
def test_what_does_not_fit_before_the_partition_is_refused(boot: int, core: int) -> None:
    with pytest.raises(HostError, match="second stage"):
        distro.boot_sectors(bytes(boot), bytes(core))


def test_an_image_is_known_by_every_package_that_is_in_it() -> None:
    printed = "Inst libc6 (2.36-9 Debian:12.5/stable [amd64])\nInst zlib1g (1.2 X)\nConf libc6 (2.36-9 X)\n"
    versions = distro.parse_versions(printed)
    assert versions == {"libc6": "2.36-9", "zlib1g": "1.2"}
    newer = {**versions, "zlib1g": "1.3"}
    assert distro.key_of(versions) == distro.key_of(dict(reversed(versions.items()))) != distro.key_of(newer)
    with pytest.raises(HostError, match="apt-get update"):
        distro.parse_versions("E: nothing\n")
