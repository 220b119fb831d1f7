"""Checks of images and of what VMs boot: which keys go together, and which image is for what."""

from __future__ import annotations

from typing import Any

from vnet.base.boot import MICRO, ROOT_DISK, UEFI_VARIABLES, Firmware, ImageFormat
from vnet.topology import language_images as words
from vnet.topology import language_vms as lang
from vnet.topology.draft import Draft
from vnet.topology.model import DiskFormat
from vnet.topology.reading import Reading, quoted
from vnet.topology.shape import Entry, Field, Read
from vnet.topology.values import is_name


def check(draft: Draft, reading: Reading) -> None:
    """Reports every fault to `reading`."""
    for name, image in draft.images.items():
        if name == MICRO:
            reading.fault(image.at, image.path, f"{quoted(name)} is built in", "choose another name")
        _check_image(image, reading)
    for vm in draft.vms.values():
        _check_boot(vm, draft, reading)
        _check_root_disk(vm.value, draft, reading)


def is_micro(vm: Entry) -> bool:
    """Whether a VM is to be vnet's own guest."""
    image, boot = vm.get(lang.VM_IMAGE), vm.part(words.VM_BOOT)
    has_own = boot.given(words.BOOT_KERNEL) or boot.given(words.BOOT_ISO)
    return not has_own and not vm.broken & {lang.VM_IMAGE.name} and (image is None or image.value == MICRO)


def has_root_disk(vm: Entry, draft: Draft) -> bool:
    """Whether one of a VM's disks is made of its image."""
    image = vm.get(lang.VM_IMAGE)
    return image is not None and image.value != MICRO and not _is_kernel(image, draft)


def _is_kernel(image: Read[str] | None, draft: Draft) -> bool:
    """Whether the file declares that image, as a kernel."""
    declared = None if image is None else draft.images.get(image.value)
    return declared is not None and declared.value.given(words.IMAGE_KERNEL)


# ---- images ----------------------------------------------------------------------------------


def _check_image(image: Read[Entry], reading: Reading) -> None:
    entry = image.value
    path, kernel = entry.given(words.IMAGE_PATH), entry.given(words.IMAGE_KERNEL)
    if path == kernel and not entry.broken:
        problem = f'expected either "path" or "kernel", found {"both" if path else "neither"}'
        reading.fault(image.at, image.path, problem)
        return
    needs_kernel = (words.IMAGE_INITRD, words.IMAGE_CMDLINE)
    _refuse(entry, () if kernel else needs_kernel, 'belongs to a "kernel"', reading)
    _refuse(entry, () if path else (words.IMAGE_FORMAT,), 'belongs to a "path"', reading)
    _check_sums(entry, reading)


def _check_sums(image: Entry, reading: Reading) -> None:
    sums = image.part(words.IMAGE_SHA256)
    of = (
        (words.SUM_PATH, words.IMAGE_PATH),
        (words.SUM_KERNEL, words.IMAGE_KERNEL),
        (words.SUM_INITRD, words.IMAGE_INITRD),
    )
    for key, file in of:
        found = sums.get(key)
        if found is not None and not image.given(file):
            problem = f'it is the SHA-256 of "{file.name}", which the image does not have'
            hint = "a kernel image has {kernel: …, initrd: …}" if key is words.SUM_PATH else ""
            reading.fault(found.at, found.path, problem, hint)


def _refuse(entry: Entry, keys: tuple[Field[Any], ...], why: str, reading: Reading) -> None:
    for key in keys:
        found = entry.get(key)
        if found is not None:
            reading.fault(found.at, found.path, f'"{key.name}" {why}', f'leave "{key.name}" out')


# ---- VMs -------------------------------------------------------------------------------------


def _check_boot(vm: Read[Entry], draft: Draft, reading: Reading) -> None:
    entry = vm.value.part(words.VM_BOOT)
    kernel, has_kernel = entry.get(words.BOOT_KERNEL), entry.given(words.BOOT_KERNEL)
    image = vm.value.get(lang.VM_IMAGE)
    is_kernel = _is_kernel(image, draft)
    if kernel is not None and image is not None and is_kernel:
        problem = f"its image {quoted(image.value)} is a kernel already"
        reading.fault(kernel.at, kernel.path, problem, "use one of them")
    _refuse(entry, () if has_kernel else (words.BOOT_INITRD,), 'belongs to a "kernel"', reading)
    of_kernel = () if has_kernel or is_kernel else (words.BOOT_CMDLINE,)
    _refuse(entry, of_kernel, 'belongs to a "kernel": what is on disks has its own', reading)
    if is_micro(vm.value):
        why = "means nothing to the micro guest, which needs neither disk nor firmware"
        _refuse(entry, (words.BOOT_FIRST, words.BOOT_FIRMWARE), why, reading)
    else:
        of_iso = () if entry.given(words.BOOT_ISO) else (words.BOOT_FIRST,)
        _refuse(entry, of_iso, 'belongs to an "iso"', reading)
        _check_room_for_uefi(vm.value, reading)
    _check_kinds(image, entry.get(words.BOOT_ISO), draft, reading)


def _check_room_for_uefi(vm: Entry, reading: Reading) -> None:
    firmware, memory = vm.part(words.VM_BOOT).get(words.BOOT_FIRMWARE), vm.value(lang.VM_MEMORY)
    if firmware is not None and firmware.value is Firmware.UEFI and memory < words.UEFI_MEMORY_MIN:
        problem = f"with {memory >> 20}M there is no room for a boot loader beside UEFI firmware"
        hint = f"give it {words.UEFI_MEMORY_MIN >> 20}M or more"
        reading.fault(firmware.at, firmware.path, problem, hint)


def _check_kinds(image: Read[str] | None, iso: Read[str] | None, draft: Draft, reading: Reading) -> None:
    """A medium is for the drive, all else is not."""
    if image is not None and _format(image, draft) is ImageFormat.ISO:
        problem = f"{quoted(image.value)} is a medium and not a disk"
        reading.fault(image.at, image.path, problem, f"boot: {{iso: {image.value}}} puts it into the drive")
    if iso is None or not is_name(iso.value):
        return
    is_other = _format(iso, draft) not in (None, ImageFormat.ISO)
    if iso.value == MICRO or _is_kernel(iso, draft) or is_other:
        reading.fault(iso.at, iso.path, f"{quoted(iso.value)} is no medium", f"image: {iso.value} boots it")


def _format(image: Read[str], draft: Draft) -> ImageFormat | None:
    declared = draft.images.get(image.value)
    found = None if declared is None else declared.value.get(words.IMAGE_FORMAT)
    return None if found is None else found.value


def _check_root_disk(vm: Entry, draft: Draft, reading: Reading) -> None:
    """It is the difference to an image, which only qcow2 can be, and takes no room of its own at first."""
    disks = vm.get(lang.VM_DISKS)
    for each in () if disks is None else disks.value:
        name = each.value.get(lang.DISK_NAME)
        if name is None:
            continue
        if name.value == UEFI_VARIABLES:
            problem = f"{quoted(name.value)} is where UEFI firmware keeps its variables"
            reading.fault(name.at, name.path, problem, "choose another name")
        if name.value == ROOT_DISK and has_root_disk(vm, draft):
            _check_is_difference(each.value, reading)


def _check_is_difference(disk: Entry, reading: Reading) -> None:
    why = "the root disk is the difference to its image"
    form, full, key = (
        disk.get(each) for each in (lang.DISK_FORMAT, lang.DISK_PREALLOCATED, lang.DISK_ENCRYPT)
    )
    if form is not None and form.value is not DiskFormat.QCOW2:
        reading.fault(form.at, form.path, f"{why}, which only qcow2 can be", 'leave "format" out')
    if full is not None and full.value:
        reading.fault(full.at, full.path, f"{why}, and takes what is written", 'leave "preallocated" out')
    if key is not None and key.value:
        reading.fault(key.at, key.path, f"{why}, and lies open as that does", "encrypt a disk beside it")
