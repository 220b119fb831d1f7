"""The part of the language that says what VMs boot: `images` and a VM's `image` and `boot`."""

from __future__ import annotations

from vnet.base.boot import Firmware, ImageFormat
from vnet.topology import values
from vnet.topology.language_words import BOOLEAN, TEXT, formed, name_word, one_of
from vnet.topology.shape import Field, Record, TextOrMap, Word

FILE = Word("the path of a file, relative to this one", values.file, {"type": "string", "minLength": 1})
SHA256 = formed("a SHA-256 of 64 hexadecimal digits", values.sha256, values.SHA256_PATTERN)
IMAGE_NAME = name_word("an image")

# ---- images ----------------------------------------------------------------------------------

IMAGE_PATH = Field("path", FILE, "its file, relative to this one: a disk, or a medium (ISO 9660)")
IMAGE_KERNEL = Field("kernel", FILE, "instead of a disk: a kernel, which QEMU loads itself")
IMAGE_INITRD = Field("initrd", FILE, "the kernel's initial RAM disk")
IMAGE_CMDLINE = Field("cmdline", TEXT, "the kernel's command line; console=ttyS0 if left out")
IMAGE_FORMAT = Field(
    "format",
    one_of(ImageFormat),
    "of its file; found out if left out, and needed only for raw disks without partitions",
)
SUM_PATH = Field("path", SHA256, "of `path`")
SUM_KERNEL = Field("kernel", SHA256, "of `kernel`")
SUM_INITRD = Field("initrd", SHA256, "of `initrd`")
IMAGE_SHA256 = Field(
    "sha256",
    TextOrMap(SHA256, Record("an image's checksums", (SUM_PATH, SUM_KERNEL, SUM_INITRD)), SUM_PATH),
    "the SHA-256 that its file must have, or a map of those of its files; any if left out",
)
IMAGE_CLOUD_INIT = Field(
    "cloud_init", BOOLEAN, "true: what is in it takes a cloud-init seed; false if left out", default=False
)
IMAGE = Record(
    "an image",
    (IMAGE_PATH, IMAGE_KERNEL, IMAGE_INITRD, IMAGE_CMDLINE, IMAGE_SHA256, IMAGE_FORMAT, IMAGE_CLOUD_INIT),
)

# ---- boot ------------------------------------------------------------------------------------

BOOT_KERNEL = Field("kernel", FILE, "a kernel that QEMU loads itself, instead of what is on disks")
BOOT_INITRD = Field("initrd", FILE, "its initial RAM disk")
BOOT_CMDLINE = Field("cmdline", TEXT, "its command line; console=ttyS0 if left out")
BOOT_ISO = Field("iso", FILE, "the medium in its drive: a file, or the name of an image")
_FIRST = {"disk": False, "iso": True}
BOOT_FIRST = Field(
    "first",
    Word("disk or iso", values.one_of(_FIRST), {"enum": list(_FIRST)}),
    "disk (if left out): the medium boots only when no disk does; iso: the other way round",
)
UEFI_MEMORY_MIN = 256 << 20
"""With 192M GRUB finds no memory for its kernel and waits for a key, for ever."""
BOOT_FIRMWARE = Field("firmware", one_of(Firmware), "what runs first; bios if left out")
BOOT = Record("a VM's boot", (BOOT_KERNEL, BOOT_INITRD, BOOT_CMDLINE, BOOT_ISO, BOOT_FIRST, BOOT_FIRMWARE))
VM_BOOT = Field("boot", BOOT, "what it boots besides its image, or instead of one")
