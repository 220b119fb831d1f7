"""What a VM boots, as values that the topology declares and the hypervisor runs."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from vnet.base.cloud_init import UNSAID, CloudInit

MICRO = "micro"
"""The image that vnet makes itself: the only one whose guests have vnet's agent."""
ROOT_DISK = "root"
"""The disk of a VM that is made of its image."""
UEFI_VARIABLES = "uefi-vars"
"""The disk, in a way, on which UEFI firmware keeps its variables."""
DEFAULT_LOCATION = "default"
"""Where disks lie whose location is not declared: in the state directory."""


class Firmware(Enum):
    """What a machine runs first."""

    BIOS = "bios"
    UEFI = "uefi"


class ImageFormat(Enum):
    """How an image lies in its file. Only qcow2 is run, disks in others are converted."""

    QCOW2 = "qcow2"
    RAW = "raw"
    VDI = "vdi"
    VMDK = "vmdk"
    VHDX = "vhdx"
    VPC = "vpc"
    ISO = "iso"
    """A medium for a drive, not a disk."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A file of the host: its absolute path, and the SHA-256 that it must have, if one is declared."""

    path: str
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class ImageSource:
    """An image and where it is: a file, a kernel with its initrd, or, without either, the host's store.

    `name` is that in the topology or the store, empty for a file that has none. `format` is one of
    `ImageFormat`, or empty to have it found out.
    """

    name: str
    file: ImageFile | None = None
    kernel: ImageFile | None = None
    initrd: ImageFile | None = None
    cmdline: str = ""
    format: str = ""
    sha256: str = ""
    """Of the file that an image of the store was imported from, if it must be that one."""
    cloud_init: bool = False
    """Whether the system in it takes its configuration from a cloud-init seed."""

    def __str__(self) -> str:
        files = [each.path for each in (self.file, self.kernel) if each]
        return self.name or files[0]


@dataclass(frozen=True, slots=True)
class Boot:
    """What a machine boots; vnet's own guest by default.

    `image` is a disk, of which its root disk is made, or a kernel. `kernel` is loaded by QEMU instead of what
    is on disks; `iso` is in its drive, behind the disks in boot order unless `iso_first`.
    `firmware` is one of `Firmware`.
    """

    image: ImageSource | None = ImageSource(MICRO)
    kernel: ImageSource | None = None
    iso: ImageSource | None = None
    firmware: str = Firmware.BIOS.value
    iso_first: bool = False
    cloud_init: CloudInit = UNSAID
    """What is in it is told by a seed, if it gets one."""

    @property
    def is_micro(self) -> bool:
        """Whether it is vnet's own guest, with its agent."""
        return self == MICRO_BOOT

    @property
    def is_uefi(self) -> bool:
        """Whether its firmware is UEFI, which keeps variables."""
        return self.firmware == Firmware.UEFI.value

    @property
    def root(self) -> ImageSource | None:
        """The image that its root disk is made of."""
        return None if self.is_micro or self.image is None or self.image.kernel else self.image

    @property
    def loaded(self) -> ImageSource | None:
        """The kernel that QEMU loads."""
        return self.image if self.image and self.image.kernel else self.kernel

    @property
    def sources(self) -> tuple[ImageSource, ...]:
        """All that it needs."""
        return tuple(each for each in (self.image, self.kernel, self.iso) if each)

    def has_seed(self, image_takes_it: bool) -> bool:
        """Whether it gets a cloud-init seed; `image_takes_it` is what the store says of its image."""
        declared = self.image is not None and self.image.cloud_init
        return not self.is_micro and self.cloud_init.is_wanted(declared or image_takes_it)


MICRO_BOOT = Boot()
