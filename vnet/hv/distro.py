"""The distribution guest as values: Debian out of packages, on a disk that boots by itself.

`live/distro.py` runs the tools; here is which packages, which files, and every byte outside the file system.
The disk has an MBR with one partition, and GRUB in the gap before it: no tool has to open it as a device.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Mapping

from vnet.base.errors import HostError

NAME = "distro"
TITLE = "Debian 12"
_LAYOUT = 1
"""Part of the key: raise it when what this module makes of the same packages changes."""

RELEASE = "bookworm"

PACKAGES = (
    *("linux-image-cloud-amd64", "initramfs-tools", "grub-pc-bin", "kmod", "udev", "e2fsprogs"),
    *("systemd-sysv", "systemd-resolved", "libpam-systemd", "dbus", "procps", "sudo"),
    *("cloud-init", "cloud-guest-utils", "netplan.io", "qemu-guest-agent", "openssh-server"),
    *("iproute2", "iputils-ping", "netcat-openbsd", "curl", "ca-certificates", "less", "vim-tiny"),
)

SIZE_BYTES = 2 << 30
"""What the guest sees at least; it grows its file system to the disk that a VM gives it."""
PARTITION_SECTOR = 2048
SECTOR_BYTES = 512

FILES: Mapping[str, str] = {
    "etc/fstab": "LABEL=root / ext4 defaults,noatime 0 1\n",
    "etc/cloud/cloud.cfg.d/90_vnet.cfg": """\
# vnet tells this guest who it is by a disk with the label cidata.
datasource_list: [NoCloud, None]
ssh_genkeytypes: [ed25519, ecdsa]
locale: C.UTF-8
""",
    "etc/systemd/system/qemu-guest-agent.service.d/early.conf": """\
# It answers as soon as there is a root file system, so that a boot that goes wrong can be looked at.
[Unit]
DefaultDependencies=no
After=local-fs.target
Conflicts=shutdown.target
Before=shutdown.target
""",
    "boot/grub/grub.cfg": """\
# Made with the image by vnet. The links are Debian's own: they name the newest kernel.
set timeout=0
search --no-floppy --label root --set=root
linux /vmlinuz root=LABEL=root ro net.ifnames=0 console=tty0 console=ttyS0,115200n8
initrd /initrd.img
boot
""",
}
"""By path in the guest."""

REMOVED = ("etc/ssh/ssh_host_*", "var/log/*.log", "var/log/apt/*", "var/lib/dbus/machine-id", "etc/hostname")
"""What packages make once for all guests, and what each guest has to have of its own."""
DISABLED_UNITS = ("apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer", "e2scrub_reap.service")
"""They compute and ask the network while a guest that lives for minutes has better things to do."""

EARLY = "search --no-floppy --label root --set=root\nset prefix=($root)/boot/grub\n"
"""What GRUB does before it has found its own files."""
GRUB_MODULES = (
    *("biosdisk", "part_msdos", "part_gpt", "ext2", "search", "search_label"),
    *("linux", "normal", "configfile", "minicmd", "echo", "test", "serial", "terminal"),
)


def bootstrap(folder: str) -> tuple[str, ...]:
    """The command that makes the tree. It ends when the daemon does, and its mounts end with it."""
    return (
        *("setpriv", "--pdeathsig", "KILL", "--"),
        *("unshare", "--mount", "--pid", "--fork", "--kill-child"),
        *("mmdebstrap", "--mode=root", "--variant=apt", "--format=directory"),
        '--aptopt=APT::Install-Recommends "false"',
        '--aptopt=Acquire::Languages "none"',
        '--aptopt=Acquire::Retries "3"',
        *(f"--dpkgopt=path-exclude=/usr/share/{each}/*" for each in ("doc", "man", "locale")),
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        f"--include={','.join(PACKAGES)}",
        *(RELEASE, folder),
    )


def closure() -> tuple[str, ...]:
    """The command that tells what would be installed, with versions; nothing is."""
    options = ("-o", "Dir::State::status=/dev/null", "-o", "Debug::NoLocking=1", "--no-install-recommends")
    return ("apt-get", "--simulate", "-q", *options, "install", *PACKAGES)


def file_system(tree: str, disk: str) -> tuple[str, ...]:
    """The command that writes the tree into a disk, as its first partition; GRUB 2.06 can read it."""
    kib = SIZE_BYTES - PARTITION_SECTOR * SECTOR_BYTES >> 10
    options = (
        f"offset={PARTITION_SECTOR * SECTOR_BYTES},lazy_itable_init=1,lazy_journal_init=1,root_owner=0:0"
    )
    features = "^metadata_csum_seed,^orphan_file"
    return (
        *("mke2fs", "-q", "-F", "-t", "ext4", "-L", "root", "-O", features),
        *("-E", options, "-d", tree, disk, f"{kib}k"),
    )


def grub_core(tree: str) -> tuple[str, ...]:
    """The command that makes GRUB's second stage, with the tree's own GRUB."""
    where = ("-o", "/tmp/core.img", "-c", "/tmp/early.cfg", "-p", "(hd0,msdos1)/boot/grub")
    return ("chroot", tree, "grub-mkimage", "-O", "i386-pc", *where, *GRUB_MODULES)


def parse_versions(simulated: str) -> dict[str, str]:
    """Package name to version, of what `closure` printed.

    Raises:
        HostError: it names none.
    """
    found = dict(re.findall(r"^Inst (\S+) \((\S+)", simulated, re.MULTILINE))
    if not found:
        raise HostError("apt would install nothing: run `apt-get update`")
    return found


def key_of(versions: Mapping[str, str]) -> str:
    """What an image made of these packages is known by."""
    digest = hashlib.sha256(f"{_LAYOUT} {RELEASE} {sorted(FILES.items())} {EARLY}\n".encode())
    for package, version in sorted(versions.items()):
        digest.update(f"{package} {version}\n".encode())
    return digest.hexdigest()[:12]


def boot_sectors(boot: bytes, core: bytes) -> bytes:
    """All before the partition: GRUB's first sector with the partition table in it, and its second stage.

    Args:
        boot: boot.img, of one sector.
        core: what `grub_core` made.

    Raises:
        HostError: they are not as GRUB 2.06 makes them.

    Source: GRUB 2.06, grub-core/boot/i386/pc/boot.S and diskboot.S; include/grub/i386/pc/boot.h.
    """
    gap = (PARTITION_SECTOR - 1) * SECTOR_BYTES
    if len(boot) != SECTOR_BYTES or not 2 * SECTOR_BYTES < len(core) <= gap:
        raise HostError(f"GRUB's boot sector has {len(boot)} bytes and its second stage {len(core)}")
    first, second = bytearray(boot), bytearray(core)
    struct.pack_into("<Q", first, 0x5C, 1)  # the sector where the second stage begins
    first[0x66:0x68] = b"\x90\x90"  # boots from the disk that the firmware says, whichever it is
    first[0x1B8:] = _partition_table()
    struct.pack_into("<Q", second, 0x1F4, 2)  # where the rest of it is; how much is there already
    return bytes(first + second).ljust(PARTITION_SECTOR * SECTOR_BYTES, b"\0")


def _partition_table() -> bytes:
    """From the disk's signature on: one active Linux partition up to the end."""
    sectors = SIZE_BYTES // SECTOR_BYTES - PARTITION_SECTOR
    beyond = b"\xfe\xff\xff"  # in cylinders, heads and sectors: larger than these can say
    partition = struct.pack("<B3sB3sII", 0x80, beyond, 0x83, beyond, PARTITION_SECTOR, sectors)
    return b"vnet\0\0" + partition + bytes(3 * 16) + b"\x55\xaa"
