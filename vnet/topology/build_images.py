"""From a draft without faults to what VMs boot: paths are absolute from here on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import PurePosixPath
from posixpath import normpath

from vnet.base.boot import MICRO, MICRO_BOOT, ROOT_DISK, Boot, Firmware, ImageFile, ImageSource
from vnet.base.source import Location
from vnet.topology import language_images as words
from vnet.topology import language_vms as lang
from vnet.topology.build_cloud_init import Texts, cloud_init_of
from vnet.topology.draft import Draft
from vnet.topology.include import beside
from vnet.topology.model import DeclaredImage, DiskFormat, DiskSpec
from vnet.topology.shape import Entry, Field, Read
from vnet.topology.values import is_name

Images = Mapping[str, DeclaredImage]

ONLY_DISK = "disk"
"""What the disk is called that is declared by its size alone, of a VM without an image of its own."""


def images_of(draft: Draft, folder: str) -> dict[str, DeclaredImage]:
    """The images of a file.

    Args:
        draft: without faults.
        folder: what relative names of files are relative to.
    """
    return {
        name: DeclaredImage(_image(name, each.value, folder), each.at) for name, each in draft.images.items()
    }


def _image(name: str, entry: Entry, folder: str) -> ImageSource:
    sums, form = entry.part(words.IMAGE_SHA256), entry.get(words.IMAGE_FORMAT)
    cmdline = entry.get(words.IMAGE_CMDLINE)
    return ImageSource(
        name,
        file=_file(entry, words.IMAGE_PATH, folder, sums.get(words.SUM_PATH)),
        kernel=_file(entry, words.IMAGE_KERNEL, folder, sums.get(words.SUM_KERNEL)),
        initrd=_file(entry, words.IMAGE_INITRD, folder, sums.get(words.SUM_INITRD)),
        cmdline="" if cmdline is None else cmdline.value,
        format="" if form is None else form.value.value,
        cloud_init=entry.value(words.IMAGE_CLOUD_INIT),
    )


def _file(entry: Entry, key: Field[str], folder: str, checksum: Read[str] | None = None) -> ImageFile | None:
    found = entry.get(key)
    if found is None:
        return None
    return ImageFile(_absolute(found, folder), "" if checksum is None else checksum.value)


def _absolute(path: Read[str], folder: str) -> str:
    """The path of a file that is relative to the one where it is named."""
    return normpath(PurePosixPath(folder or "/") / beside(path.at.file, path.value))


def boot_of(vm: Entry, images: Images, folder: str, texts: Texts) -> Boot:
    """What a VM boots."""
    entry, name = vm.part(words.VM_BOOT), vm.value(lang.VM_IMAGE)
    kernel, iso = entry.get(words.BOOT_KERNEL), entry.get(words.BOOT_ISO)
    first, firmware = entry.get(words.BOOT_FIRST), entry.get(words.BOOT_FIRMWARE)
    if name == MICRO and kernel is None and iso is None:
        return MICRO_BOOT
    image = None if name == MICRO else _source(name, images)
    return Boot(
        _with_cmdline(image, entry) if image and image.kernel else image,
        _kernel(entry, folder),
        None if iso is None else _iso(iso, images, folder),
        (Firmware.BIOS if firmware is None else firmware.value).value,
        first is not None and first.value,
        cloud_init_of(vm, texts),
    )


def _source(name: str, images: Images) -> ImageSource:
    return images[name].source if name in images else ImageSource(name)


def _with_cmdline(image: ImageSource, boot: Entry) -> ImageSource:
    found = boot.get(words.BOOT_CMDLINE)
    return image if found is None else replace(image, cmdline=found.value)


def _kernel(boot: Entry, folder: str) -> ImageSource | None:
    kernel = _file(boot, words.BOOT_KERNEL, folder)
    if kernel is None:
        return None
    return _with_cmdline(ImageSource("", kernel=kernel, initrd=_file(boot, words.BOOT_INITRD, folder)), boot)


def _iso(iso: Read[str], images: Images, folder: str) -> ImageSource:
    if is_name(iso.value):
        return _source(iso.value, images)
    return ImageSource("", file=ImageFile(_absolute(iso, folder)))


def title_of(boot: Boot) -> str:
    """What tables call that which a VM boots: its image, or the file that it has instead."""
    return PurePosixPath(str(boot.sources[0])).name


def disks_of(vm: Entry, boot: Boot) -> tuple[DiskSpec, ...]:
    """The disks of a VM, its root disk first."""
    found = list(_declared(vm, boot))
    roots = [each for each in found if each.name == ROOT_DISK]
    if boot.root is not None:
        of = roots[0] if roots else DiskSpec(ROOT_DISK, 0, DiskFormat.QCOW2, False, _at_image(vm))
        return (replace(of, is_root=True), *(each for each in found if each.name != ROOT_DISK))
    return tuple(found)


def _at_image(vm: Entry) -> Location:
    found = vm.get(lang.VM_IMAGE)
    assert found is not None, "only a VM that names an image has a root disk"
    return found.at


def _declared(vm: Entry, boot: Boot) -> Iterator[DiskSpec]:
    only = vm.get(lang.VM_DISK)
    if only is not None:
        name = ONLY_DISK if boot.is_micro else ROOT_DISK
        yield DiskSpec(name, only.value, DiskFormat.QCOW2, False, only.at)
    for each in vm.value(lang.VM_DISKS):
        entry = each.value
        yield DiskSpec(
            entry.value(lang.DISK_NAME),
            entry.value(lang.DISK_SIZE),
            entry.value(lang.DISK_FORMAT),
            entry.value(lang.DISK_PREALLOCATED),
            each.at,
            is_encrypted=entry.value(lang.DISK_ENCRYPT),
            location=entry.value(lang.DISK_LOCATION),
        )
