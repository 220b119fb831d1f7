"""The micro guest as a list of files: what goes into its initramfs, and how that is written.

Nothing is shipped: kernel, modules, busybox and a netcat come out of Debian packages, the scripts out
of `guest/`. `live/image.py` fetches and unpacks; here it is decided what of it is taken, in which
order modules load, and every byte of the archive is made. The same input gives the same bytes.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from vnet.base.errors import HostError

LAYOUT = 2
"""Part of the cache key: raise it when what this module makes of the same packages changes."""

KERNEL_META_PACKAGE = "linux-image-cloud-amd64"
"""Its dependency names the package of the current kernel, for example linux-image-6.1.0-56-cloud-amd64."""

TOOL_PACKAGES = (
    "busybox-static",
    *("netcat-openbsd", "libbsd0", "libmd0", "libc6"),
    *("wide-dhcpv6-client", "libfl2"),
)
"""busybox's own `nc` knows no UDP: netcat-openbsd does, and brings the C library. Debian's busybox cannot ask
by DHCPv6 either."""

MODULES = (
    "virtio_pci",
    "virtio_net",
    "virtio_console",
    "virtio_rng",
    "virtio_blk",
    "virtio_balloon",
    "virtio_mem",
    "pvpanic_pci",
    "ext4",
    "8021q",
    "button",
    "evdev",
)
"""What the guest loads at boot; what these depend on is found and loaded before them."""

LIBRARIES = (
    "lib/x86_64-linux-gnu/libc.so.6",
    "lib/x86_64-linux-gnu/libresolv.so.2",
    "usr/lib/x86_64-linux-gnu/libbsd.so.0",
    "usr/lib/x86_64-linux-gnu/libmd.so.0",
    "usr/lib/x86_64-linux-gnu/libfl.so.2",
)

DIRECTORIES = (
    "bin",
    "dev",
    "etc",
    "etc/acpi",
    "etc/acpi/PWRF",
    "lib",
    "lib/modules",
    "lib/x86_64-linux-gnu",
    "lib64",
    "proc",
    "root",
    "run",
    "sbin",
    "sys",
    "tmp",
    "var",
    "var/lib",
    "var/lib/dhcpv6",
)

SCRIPTS: Mapping[str, str] = {
    "inittab": "etc/inittab",
    "rc": "etc/rc",
    "agent": "sbin/agent",
    "configure": "sbin/configure",
    "leased": "sbin/leased",
    "leased6": "sbin/leased6",
    "power-button": "etc/acpi/PWRF/00000080",
}
"""Where the files of `guest/` go. acpid looks for the power button under that name."""

SBIN_APPLETS = frozenset({"init", "ip", "insmod", "poweroff", "reboot", "halt", "sysctl", "udhcpc"})


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of the archive. `mode` has the type bits of stat(2); `device` is (major, minor)."""

    path: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def directory(path: str) -> Entry:
    """An archive entry for a directory everyone may read."""
    return Entry(path, 0o040755)


def regular(path: str, data: bytes, *, executable: bool = False) -> Entry:
    """An archive entry for a file."""
    return Entry(path, 0o100755 if executable else 0o100644, data)


def symlink(path: str, target: str) -> Entry:
    """An archive entry for a symbolic link."""
    return Entry(path, 0o120777, target.encode())


def write_cpio(entries: Iterable[Entry]) -> bytes:
    """The archive in "newc" form, which the kernel unpacks into its first root file system.

    Source: Documentation/driver-api/early-userspace/buffer-format.rst of Linux.
    """
    parts = [_record(number, entry) for number, entry in enumerate(entries, start=1)]
    return b"".join(parts) + _record(0, Entry("TRAILER!!!", 0))


def _record(inode: int, entry: Entry) -> bytes:
    links = 2 if entry.mode & 0o170000 == 0o040000 else 1
    name = entry.path.encode() + b"\0"
    major, minor = entry.device
    numbers = (inode, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, major, minor, len(name), 0)
    header = b"070701" + b"".join(b"%08X" % number for number in numbers)
    return _padded(header + name) + _padded(entry.data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def module_dependencies(elf: bytes) -> tuple[str, ...]:
    """What a kernel module's `.modinfo` section says that it needs, as `modinfo -F depends` prints it."""
    fields = _section(elf, b".modinfo").split(b"\0")
    depends = [field[8:].decode() for field in fields if field.startswith(b"depends=")]
    return tuple(name for text in depends for name in text.split(",") if name)


def _section(elf: bytes, wanted: bytes) -> bytes:
    """The contents of one section of a 64-bit little-endian ELF file; empty without such a section."""
    table_offset = struct.unpack_from("<Q", elf, 0x28)[0]
    entry_size, count, names_index = struct.unpack_from("<HHH", elf, 0x3A)
    headers = [struct.unpack_from("<II16xQQ", elf, table_offset + i * entry_size) for i in range(count)]
    names_offset = headers[names_index][2]
    for name, _type, offset, size in headers:
        start = names_offset + name
        if elf[start : elf.index(b"\0", start)] == wanted:
            return elf[offset : offset + size]
    return b""


def module_order(wanted: Iterable[str], dependencies: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """The modules and all they need, each after what it needs.

    Args:
        wanted: module names.
        dependencies: of every module that is a file; names not in it are built into the kernel.
    """
    order: dict[str, None] = {}

    def visit(name: str) -> None:
        if name in order or name not in dependencies:
            return
        for needed in dependencies[name]:
            visit(needed)
        order[name] = None

    for name in wanted:
        visit(name)
    return tuple(order)


def module_name(path: str) -> str:
    """The kernel's name of a module file: `.../virtio-rng.ko` is `virtio_rng`."""
    return path.rsplit("/", 1)[-1].removesuffix(".ko").replace("-", "_")


def kernel_package(meta_depends: str) -> str:
    """The package with the kernel itself, out of the `Depends:` of the meta package."""
    found = re.match(r"linux-image-[^\s(,]+", meta_depends)
    if not found:
        raise HostError(f"{KERNEL_META_PACKAGE} depends on no kernel image: {meta_depends!r}")
    return found[0]


def cache_key(versions: Mapping[str, str], scripts: Mapping[str, bytes]) -> str:
    """A name for the image made of these packages and these files of `guest/`."""
    digest = hashlib.sha256(f"layout {LAYOUT}\n{' '.join(MODULES)}\n".encode())
    for package, version in sorted(versions.items()):
        digest.update(f"{package} {version}\n".encode())
    for name, data in sorted(scripts.items()):
        digest.update(f"{name} {len(data)}\n".encode() + data)
    return digest.hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Ingredients:
    """What the initramfs is made of, as read from the unpacked packages.

    `applets` are paths as `busybox --list-full` prints them; `modules` maps file name to content in
    the order of loading; `libraries` maps path to content; `scripts` are the files of `guest/`.
    """

    busybox: bytes
    applets: tuple[str, ...]
    netcat: bytes
    dhcp6c: bytes
    loader: bytes
    libraries: Mapping[str, bytes]
    modules: Mapping[str, bytes]
    scripts: Mapping[str, bytes]


def contents(ingredients: Ingredients) -> tuple[Entry, ...]:
    """Every file of the initramfs, directories before what is in them."""
    return (
        *(directory(path) for path in DIRECTORIES),
        Entry("dev/console", 0o020600, device=(5, 1)),
        regular("bin/busybox", ingredients.busybox, executable=True),
        *_applet_links(ingredients.applets),
        symlink("init", "sbin/init"),
        regular("bin/nc.openbsd", ingredients.netcat, executable=True),
        regular("sbin/dhcp6c", ingredients.dhcp6c, executable=True),
        regular("lib64/ld-linux-x86-64.so.2", ingredients.loader, executable=True),
        *(
            regular(f"lib/x86_64-linux-gnu/{path.rsplit('/', 1)[-1]}", data)
            for path, data in ingredients.libraries.items()
        ),
        *(regular(f"lib/modules/{name}", data) for name, data in ingredients.modules.items()),
        regular("lib/modules/order", "".join(f"{name}\n" for name in ingredients.modules).encode()),
        *(
            regular(target, ingredients.scripts[name], executable=target != "etc/inittab")
            for name, target in SCRIPTS.items()
        ),
        regular("sbin/reseed", reseed_program(), executable=True),
        regular("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n"),
        regular("etc/group", b"root:x:0:\n"),
    )


def _applet_links(applets: Iterable[str]) -> Iterator[Entry]:
    """Links in /bin, and in /sbin those that are looked for there."""
    names = sorted({path.rsplit("/", 1)[-1] for path in applets} - {"busybox"})
    for name in names:
        folder = "sbin" if name in SBIN_APPLETS else "bin"
        yield symlink(f"{folder}/{name}", "/bin/busybox")


def reseed_program() -> bytes:
    """An ELF program that makes the kernel take new random numbers at once: ioctl RNDRESEEDCRNG.

    Warm clones begin with the same generator state. What is written to /dev/urandom is used only at the
    next reseeding, up to a minute later, and neither the shell nor busybox 1.35 has a way to ask for it.

    Source: random(4); include/uapi/linux/random.h; ELF-64 Object File Format, version 1.5.
    """
    base, headers_size = 0x400000, 0x78
    path = b"/dev/urandom\0"
    code_head = bytes.fromhex("48 8d 3d 2c 00 00 00")  # lea rdi, [rip+44]: the path behind the code
    code = code_head + bytes.fromhex(
        "be 01 00 00 00"  # mov esi, O_WRONLY
        "b8 02 00 00 00"  # mov eax, 2 (open)
        "0f 05"  # syscall
        "89 c7"  # mov edi, eax
        "be 07 52 00 00"  # mov esi, RNDRESEEDCRNG
        "31 d2"  # xor edx, edx
        "b8 10 00 00 00"  # mov eax, 16 (ioctl)
        "0f 05"  # syscall
        "31 ff"  # xor edi, edi
        "85 c0"  # test eax, eax
        "40 0f 95 c7"  # setne dil: exit code 1 unless the ioctl returned 0
        "b8 3c 00 00 00"  # mov eax, 60 (exit)
        "0f 05"  # syscall
        "90"  # nop, to the 44 bytes counted above
    )
    assert len(code) == len(code_head) + 44, len(code)
    size = headers_size + len(code) + len(path)
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    header = struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, base + headers_size, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 0x1000)
    return ident + header + segment + code + path
