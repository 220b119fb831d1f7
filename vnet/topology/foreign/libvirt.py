"""libvirt's XML as a topology: `virsh dumpxml DOMAIN` and `virsh net-dumpxml NETWORK`, a file each.

Source: https://libvirt.org/formatdomain.html and formatnetwork.html. A domain's first disk is its image. What
hardware a guest has vnet decides itself, so devices that every guest has are not told of.
"""

from __future__ import annotations

from collections.abc import Mapping

from vnet.base.errors import Fault, InputError
from vnet.topology.foreign import libvirt_interfaces, libvirt_networks
from vnet.topology.foreign.sheet import NOTHING_LIKE_IT, Plain, Sheet, Vm, memory
from vnet.topology.foreign.xml import Element, fault, parse, shown

_FORMATS = ("qcow2", "raw")
_UNITS = {
    "b": 1,
    "bytes": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "k": 1 << 10,
    "KiB": 1 << 10,
    "M": 1 << 20,
    "MiB": 1 << 20,
    "G": 1 << 30,
    "GiB": 1 << 30,
    "T": 1 << 40,
    "TiB": 1 << 40,
}
_OWN = (
    *("emulator", "controller", "input", "console", "serial", "parallel", "channel", "memballoon", "rng"),
    *("graphics", "video", "audio", "sound", "panic", "disk", "interface"),
)
"""Devices that vnet gives a guest itself or has no use for, and those that are taken over."""
_OF_DOMAIN = (
    *("name", "uuid", "title", "description", "metadata", "memory", "currentMemory", "maxMemory", "vcpu"),
    *("os", "features", "cpu", "clock", "on_poweroff", "on_reboot", "on_crash", "on_lockfailure", "pm"),
    *("devices", "resource", "seclabel", "genid", "iothreads", "commandline", "deprecated", "bootloader"),
)
"""Elements of a domain that are read, or that vnet decides itself; others are told of."""


def imported(texts: Mapping[str, str], fabric: str) -> Plain:
    """The topology of some domains. Raises InputError with every fault found.

    Args:
        texts: one domain or network for each file.
    """
    sheet, faults = Sheet(), list[Fault]()
    roots = []
    for file, text in texts.items():
        try:
            roots.append(parse(text, file))
        except InputError as error:
            faults += error.faults
    for root in roots:
        if root.tag == "network":
            libvirt_networks.read(root, sheet, faults)
    domains = [root for root in roots if root.tag == "domain"]
    for domain in domains:
        _domain(domain, sheet, faults)
    for root in roots:
        if root.tag not in ("domain", "network"):
            faults.append(fault(root, f"expected <domain> or <network>, found <{root.tag}>"))
    if not domains and not faults:
        file = next(iter(texts))
        raise InputError(f"{file}: there is no domain: `virsh dumpxml DOMAIN` prints one")
    if faults:
        raise InputError(shown(each, texts[each.where.file]) for each in faults)
    return sheet.document(fabric)


# ---- domains ---------------------------------------------------------------------------------


def _domain(root: Element, sheet: Sheet, faults: list[Fault]) -> None:
    name = root.text_of("name")
    if not name:
        faults.append(fault(root, "a domain needs <name>"))
        return
    vm = sheet.vm(name, root.at)
    vm.keys["cpus"] = _cpus(root, faults)
    vm.keys["memory"] = memory(_memory_bytes(root, faults))
    _os(root, vm, sheet)
    _disks(root, vm, sheet)
    for index, nic in enumerate(root.all("devices/interface")):
        libvirt_interfaces.read(nic, index, vm, sheet, faults)
    _rest(root, vm, sheet)


def _cpus(root: Element, faults: list[Fault]) -> int:
    vcpu = root.first("vcpu")
    if vcpu is None:
        return 1
    text = vcpu.attributes.get("current", vcpu.text)
    if not text.isdecimal() or not int(text):
        faults.append(fault(vcpu, f"expected a number of CPUs, found {text!r}"))
        return 1
    return int(text)


def _memory_bytes(root: Element, faults: list[Fault]) -> int:
    """What the guest has, not what it could be given: `currentMemory`, where there is one."""
    found = root.first("currentMemory") or root.first("memory")
    if found is None:
        faults.append(fault(root, "a domain needs <memory>"))
        return 0
    unit = found.attributes.get("unit", "KiB")
    if not found.text.isdecimal() or unit not in _UNITS:
        faults.append(fault(found, f"expected an amount of memory, found {found.text!r} {unit}"))
        return 0
    return int(found.text) * _UNITS[unit]


def _os(root: Element, vm: Vm, sheet: Sheet) -> None:
    boot: Plain = {}
    kernel = root.text_of("os/kernel")
    if kernel:
        words = {"kernel": kernel, "initrd": root.text_of("os/initrd"), "cmdline": root.text_of("os/cmdline")}
        boot |= {key: value for key, value in words.items() if value}
    is_uefi = root.attribute("os", "firmware") == "efi" or root.attribute("os/loader", "type") == "pflash"
    if is_uefi:
        boot["firmware"] = "uefi"
    if boot:
        vm.keys["boot"] = boot
    kind, machine = root.first("os/type"), root.attribute("os/type", "arch", "x86_64")
    if kind is not None and machine != "x86_64":
        sheet.leave_out(f"{vm.name}: architecture", kind.at, f"{machine}: guests are x86_64 here")
    for each in root.all("os/nvram"):
        sheet.leave_out(
            f"{vm.name}: nvram", each.at, f"UEFI begins with new variables, {each.text} is not read"
        )


def _disks(root: Element, vm: Vm, sheet: Sheet) -> None:
    found = list(root.all("devices/disk"))
    plain = [each for each in found if each.attributes.get("device", "disk") == "disk"]
    first = min(plain, key=_boot_order, default=None)
    for disk in found:
        called = (
            f"{vm.name}: {disk.attributes.get('device', 'disk')} {disk.attribute('target', 'dev')}".rstrip()
        )
        source, why = _source(disk)
        if disk.attributes.get("device", "disk") not in ("disk", "cdrom"):
            sheet.leave_out(called, disk.at, "there is no such device here")
        elif why:
            sheet.leave_out(called, disk.at, why)
        elif disk.attributes.get("device") == "cdrom":
            _cdrom(disk, source, vm, sheet, called, is_first=_boots_from_cdrom(root))
        elif disk is first:
            _root(disk, source, vm, sheet, called)
        elif source:
            sheet.leave_out(called, disk.at, _second(vm.name, disk, source))


def _root(disk: Element, source: str, vm: Vm, sheet: Sheet, called: str) -> None:
    form = disk.attribute("driver", "type", "raw")
    if form not in _FORMATS:
        sheet.note(called, disk.at, f"{form} is read only: `qemu-img convert -O qcow2 {source} FILE` first")
    vm.image = {"path": source, "format": form if form in _FORMATS else "qcow2"}
    if source.startswith("/dev/"):
        how = f"`qemu-img convert -f {form} -O qcow2 {source} {vm.name}.qcow2`, and name that file"
        sheet.note(called, disk.at, f"an image is a file: {how}")
    if disk.first("backingStore/source") is not None:
        sheet.note(called, disk.at, "it stands on another file; keep both, or `qemu-img convert` it")


def _second(name: str, disk: Element, source: str) -> str:
    called = disk.attribute("target", "dev") or "data"
    return (
        f"declare it with its size in `disks`, then `vnet import disk {name} {called} {source}` before `up`"
    )


def _source(disk: Element) -> tuple[str, str]:
    """The path of a disk's contents, or why it has none here."""
    source = disk.first("source")
    if source is None:
        return "", "" if disk.attributes.get("device") == "cdrom" else "it has no source"
    path = source.attributes.get("file") or source.attributes.get("dev") or ""
    if path:
        return path, ""
    kind = disk.attributes.get("type", "file")
    if kind == "volume":
        pool, volume = source.attributes.get("pool", "POOL"), source.attributes.get("volume", "VOLUME")
        return "", f"`virsh vol-path --pool {pool} {volume}` tells its file: make an image of it"
    return "", f"it lies on a {kind}: copy it here with qemu-img convert"


def _cdrom(disk: Element, source: str, vm: Vm, sheet: Sheet, called: str, *, is_first: bool) -> None:
    if source and is_first:
        vm.keys["boot"] = {**vm.keys.get("boot", {}), "iso": source, "first": "iso"}
    elif source:
        sheet.leave_out(called, disk.at, f"{source} is not what it boots from")


def _boots_from_cdrom(root: Element) -> bool:
    order = [each.attributes.get("dev") for each in root.all("os/boot")]
    ordered = sorted((d for d in root.all("devices/disk") if d.first("boot") is not None), key=_boot_order)
    if ordered:
        return ordered[0].attributes.get("device") == "cdrom"
    return order[:1] == ["cdrom"]


def _boot_order(disk: Element) -> int:
    text = disk.attribute("boot", "order", "")
    return int(text) if text.isdecimal() else 1 << 16


# ---- what is left ----------------------------------------------------------------------------

_WHY = {
    "hostdev": "devices of the host are not handed through",
    "filesystem": "folders are not shared; copy them with `vnet cp`",
    "tpm": "there is no TPM",
    "watchdog": "use `healthcheck`",
    "cputune": "give it fewer `cpus`",
    "memoryBacking": "memory is the host's plain memory",
    "numatune": "memory is the host's plain memory",
    "blkiotune": "disks have no limits",
    "launchSecurity": "memory is not encrypted",
}


def _rest(root: Element, vm: Vm, sheet: Sheet) -> None:
    others = [each for each in root.children if each.tag not in _OF_DOMAIN]
    devices = root.first("devices")
    others += [each for each in (devices.children if devices else ()) if each.tag not in _OWN]
    for each in others:
        why = _WHY.get(each.tag, NOTHING_LIKE_IT)
        sheet.leave_out(f"{vm.name}: {each.tag}", each.at, why)
