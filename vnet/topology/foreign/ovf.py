"""An OVF descriptor as a topology: what hypervisors export, of version 1 and 2.

Source: DMTF DSP0243 (Open Virtualization Format), 7 to 9; CIM_ResourceAllocationSettingData (DSP1041). What
VirtualBox and VMware write differs in details; both are read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from vnet.base.boot import ROOT_DISK
from vnet.base.errors import Fault, InputError
from vnet.topology.foreign.sheet import NOTHING_LIKE_IT, Plain, Sheet, Vm, memory
from vnet.topology.foreign.xml import Element, fault, parse, shown
from vnet.topology.names import Names
from vnet.topology.values import MAC_PATTERN

_CPU, _MEMORY, _NIC, _DISK = "3", "4", "10", "17"
_CONTROLLERS = ("5", "6", "20")
_OWN = ("1", "13", "14", "15", "16", "21", "23", "24", "31", "32", "35", *_CONTROLLERS)
"""Drives without media, ports, screens, sound: vnet has its own or none."""
_FORMATS = ("vmdk", "qcow")
"""What the identifier of a format (a URL) has in it."""
_UNITS = {"kilobytes": 1 << 10, "megabytes": 1 << 20, "gigabytes": 1 << 30, "bytes": 1, "byte": 1, "": 1}


@dataclass(frozen=True, slots=True)
class PackedFile:
    """A file of the package, by its name there. `size_bytes` is None where the descriptor does not tell."""

    name: str
    size_bytes: int | None
    is_compressed: bool


@dataclass(frozen=True, slots=True)
class PackedDisk:
    """A disk of a VM: the file that holds it, and the name of the file that it becomes."""

    vm: str
    name: str
    source: str
    target: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Appliance:
    """All that a descriptor says: the topology, its files, and the disks that VMs of it have."""

    document: Plain
    files: tuple[PackedFile, ...]
    disks: tuple[PackedDisk, ...]


def imported(file: str, text: str, fabric: str = "") -> Appliance:
    """What a descriptor stands for. Raises InputError with every fault found.

    Args:
        fabric: what it is to be called; by default as the first machine.
    """
    root = parse(text, file)
    reader = _Reader(root)
    appliance = reader.appliance(fabric)
    if reader.faults:
        raise InputError(shown(each, text) for each in reader.faults)
    return appliance


class _Reader:
    def __init__(self, root: Element) -> None:
        self._root = root
        self._sheet = Sheet()
        self._targets = Names()
        self.faults: list[Fault] = []
        self._disks: list[PackedDisk] = []
        self._files = {each.attributes.get("id", ""): each for each in root.all("References/File")}
        self._declared = {each.attributes.get("diskId", ""): each for each in root.all("DiskSection/Disk")}

    def _fault(self, element: Element, problem: str, hint: str = "") -> None:
        self.faults.append(fault(element, problem, hint))

    def appliance(self, fabric: str) -> Appliance:
        if self._root.tag != "Envelope":
            self._fault(self._root, f"expected an OVF <Envelope>, found <{self._root.tag}>")
        systems = list(_systems(self._root))
        if not systems:
            self._fault(self._root, "there is no <VirtualSystem> in it")
        for system in systems:
            self._system(system)
        names = list(self._sheet.vms)
        document = self._sheet.document(fabric or (names[0] if names else "appliance"))
        return Appliance(document, tuple(self._packed()), tuple(self._disks))

    def _packed(self) -> Iterator[PackedFile]:
        for each in self._files.values():
            size = each.attributes.get("size", "")
            compressed = each.attributes.get("compression", "identity") not in ("identity", "")
            name = each.attributes.get("href", "")
            if not name:
                self._fault(each, "a file needs ovf:href")
            yield PackedFile(name, int(size) if size.isdecimal() else None, compressed)

    # -- machines

    def _system(self, system: Element) -> None:
        name = system.text_of("Name") or system.attributes.get("id", "") or "vm"
        vm = self._sheet.vm(name, system.at)
        hardware = system.first("VirtualHardwareSection")
        if hardware is None:
            self._fault(system, "the machine has no <VirtualHardwareSection>")
            return
        items = [item for item in _items(hardware) if self._is_meant(item)]
        vm.keys["cpus"] = self._number(items, _CPU, 1)
        vm.keys["memory"] = memory(self._number(items, _MEMORY, 512 << 20))
        if _is_uefi(system, hardware):
            vm.keys["boot"] = {"firmware": "uefi"}
        for index, item in enumerate(each for each in items if _kind(each) == _NIC):
            self._nic(item, index, vm)
        self._plug(vm, items)
        self._rest(system, vm, items)

    def _is_meant(self, item: Element) -> bool:
        """Not a bound of a quantity, and of the configuration that is chosen if nobody chooses."""
        options = list(self._root.all("DeploymentOptionSection/Configuration"))
        default = next((each for each in options if each.attributes.get("default") == "true"), None)
        chosen = default or (options[0] if options else None)
        wanted = item.attributes.get("configuration", "").split()
        is_chosen = not wanted or (chosen is not None and chosen.attributes.get("id") in wanted)
        return is_chosen and item.attributes.get("bound", "normal") == "normal"

    def _number(self, items: list[Element], kind: str, default: int) -> int:
        """CPUs, or bytes; what a configuration says wins over what holds for all."""
        found = [each for each in items if _kind(each) == kind]
        found.sort(key=lambda each: "configuration" in each.attributes)
        if not found:
            return default
        text = found[-1].text_of("VirtualQuantity")
        if not text.isdecimal() or not int(text):
            self._fault(found[-1], f"expected a number in <VirtualQuantity>, found {text!r}")
            return default
        unit = self._unit(found[-1], found[-1].text_of("AllocationUnits")) if kind == _MEMORY else 1
        return int(text) * unit

    def _unit(self, element: Element, text: str) -> int:
        word = text.strip().lower()
        if word in _UNITS:
            return _UNITS[word]
        power = re.fullmatch(r"bytes? *\* *(2|10) *\^ *([0-9]{1,2})", word)
        plain = re.fullmatch(r"bytes? *\* *([0-9]{1,15})", word)
        if power:
            size: int = int(power[1]) ** int(power[2])
            return size
        if plain:
            return int(plain[1])
        self._fault(element, f"expected a unit such as byte * 2^20, found {text!r}")
        return 1

    def _nic(self, item: Element, index: int, vm: Vm) -> None:
        network = self._sheet.network(item.text_of("Connection") or "network")
        network.has_dhcp = True
        network.way_out = network.way_out or network.name == "nat"  # what VirtualBox calls it
        nic: Plain = {"network": network.name}
        mac = item.text_of("Address").lower().replace("-", ":")
        if re.fullmatch(r"[0-9a-f]{12}", mac):
            mac = ":".join(re.findall("..", mac))
        if re.fullmatch(MAC_PATTERN, mac):
            nic["mac"] = mac
        vm.interfaces[f"eth{index}"] = nic | {"dhcp": True}

    # -- disks

    def _plug(self, vm: Vm, items: list[Element]) -> None:
        parents = {each.text_of("InstanceID"): each for each in items}
        found = [each for each in items if _kind(each) == _DISK]
        found.sort(key=lambda each: _place(each, parents))
        for index, item in enumerate(found):
            resource = item.text_of("HostResource")
            declared = self._declared.get(resource.rpartition("/")[2])
            if declared is None:
                self._fault(item, f"there is no disk {resource!r} in its <DiskSection>")
                continue
            self._disk(declared, index, vm)

    def _disk(self, declared: Element, index: int, vm: Vm) -> None:
        size_bytes = self._capacity(declared)
        file = self._files.get(declared.attributes.get("fileRef", ""))
        name = f"disk{index}" if index else ROOT_DISK
        if index:
            vm.keys.setdefault("disks", []).append({"name": name, "size": memory(size_bytes)})
        if file is None:
            if index == 0:
                why = "its first disk is empty: it boots nothing until that has an image"
                self._sheet.note(f"{vm.name}: disk", declared.at, why)
            return
        form = declared.attributes.get("format", "").lower()
        if not any(word in form for word in _FORMATS) or declared.attributes.get("parentRef"):
            self._fault(declared, f"a disk of the format {form!r} is not read", "export it as one VMDK each")
        target = self._targets.fresh(f"{vm.name}-{name}") + ".qcow2"
        self._disks.append(PackedDisk(vm.name, name, file.attributes.get("href", ""), target, size_bytes))
        if index == 0:
            vm.image = {"path": target, "format": "qcow2"}
        else:
            how = f"`vnet import disk {vm.name} {name} {target}` before its first start"
            self._sheet.note(f"{vm.name}: {name}", declared.at, how)

    def _capacity(self, declared: Element) -> int:
        text = declared.attributes.get("capacity", "")
        if not text.isdecimal() or not int(text):
            self._fault(declared, f"expected a number in ovf:capacity, found {text!r}")
            return 0
        return int(text) * self._unit(declared, declared.attributes.get("capacityAllocationUnits", ""))

    # -- what is left

    def _rest(self, system: Element, vm: Vm, items: list[Element]) -> None:
        for item in items:
            if _kind(item) not in (_CPU, _MEMORY, _NIC, _DISK, *_OWN):
                what = item.text_of("ElementName") or item.text_of("Caption") or f"resource {_kind(item)}"
                self._sheet.leave_out(f"{vm.name}: {what}", item.at, NOTHING_LIKE_IT)
        if any(True for _ in system.all("ProductSection/Property")):
            why = "what the appliance is to be told, its guest has to be told another way"
            self._sheet.leave_out(f"{vm.name}: properties", system.at, why)


def _systems(root: Element) -> Iterator[Element]:
    """The machines, those of collections too."""
    yield from root.all("VirtualSystem")
    for collection in root.all("VirtualSystemCollection"):
        yield from _systems(collection)


def _items(hardware: Element) -> Iterator[Element]:
    yield from (each for each in hardware.children if each.tag in _ITEMS)


_ITEMS = ("Item", "StorageItem", "EthernetPortItem")


def _kind(item: Element) -> str:
    return item.text_of("ResourceType")


def _place(item: Element, parents: Mapping[str, Element]) -> tuple[int, int, int]:
    """By controller and place there, as firmware counts disks."""
    parent = item.text_of("Parent")
    controller = parents.get(parent)
    kind = _CONTROLLERS.index(_kind(controller)) if controller and _kind(controller) in _CONTROLLERS else 9
    return kind, int(parent) if parent.isdecimal() else 0, _whole(item.text_of("AddressOnParent"))


def _whole(text: str) -> int:
    return int(text) if text.isdecimal() else 0


def _is_uefi(system: Element, hardware: Element) -> bool:
    """As VMware says it, and as VirtualBox does."""
    for config in hardware.all("Config"):
        if config.attributes.get("key") == "firmware" and config.attributes.get("value") == "efi":
            return True
    return system.attribute("Machine/Hardware/Firmware", "type").upper().startswith("EFI")
