"""A VM as an OVF descriptor, with the manifest of its package.

Source: DMTF DSP0243 1.1.1 (Open Virtualization Format), 7 to 9. Controller and NICs are such as VirtualBox
and VMware have; under vnet the guest had virtio.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

_NAMESPACE = "http://schemas.dmtf.org/ovf/envelope/1"
_CIM = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2"
_VMDK = "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"


@dataclass(frozen=True, slots=True)
class ExportedDisk:
    """A disk and its file in the package. `size_bytes` is the disk's, `file_bytes` the file's."""

    name: str
    file: str
    size_bytes: int
    file_bytes: int


@dataclass(frozen=True, slots=True)
class ExportedNic:
    """A NIC; `mac` as text."""

    name: str
    network: str
    mac: str


@dataclass(frozen=True, slots=True)
class ExportedVm:
    """What is told of a VM."""

    name: str
    cpus: int
    memory_bytes: int
    disks: tuple[ExportedDisk, ...]
    nics: tuple[ExportedNic, ...]
    is_uefi: bool = False
    note: str = ""


def descriptor(vm: ExportedVm) -> str:
    """The text of NAME.ovf."""
    return "\n".join(_envelope(vm)) + "\n"


def manifest(sums: Mapping[str, str]) -> str:
    """The text of NAME.mf: SHA-256 in hexadecimal by the name of the file."""
    return "".join(f"SHA256({name})= {digest}\n" for name, digest in sums.items())


def _envelope(vm: ExportedVm) -> Iterator[str]:
    yield '<?xml version="1.0" encoding="UTF-8"?>'
    yield f'<Envelope xmlns="{_NAMESPACE}" xmlns:ovf="{_NAMESPACE}"'
    yield f'    xmlns:rasd="{_CIM}/CIM_ResourceAllocationSettingData"'
    yield f'    xmlns:vssd="{_CIM}/CIM_VirtualSystemSettingData"'
    yield '    xmlns:vmw="http://www.vmware.com/schema/ovf"'
    yield '    xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">'
    yield "  <References>"
    for disk in vm.disks:
        file, where = quoteattr(f"file-{disk.name}"), quoteattr(disk.file)
        yield f'    <File ovf:href={where} ovf:id={file} ovf:size="{disk.file_bytes}"/>'
    yield "  </References>"
    yield from _disks(vm.disks)
    yield from _networks(vm.nics)
    yield from _system(vm)
    yield "</Envelope>"


def _disks(disks: Sequence[ExportedDisk]) -> Iterator[str]:
    yield "  <DiskSection>"
    yield "    <Info>Virtual disks</Info>"
    for disk in disks:
        names = f"ovf:diskId={quoteattr(disk.name)} ovf:fileRef={quoteattr(f'file-{disk.name}')}"
        size = f'ovf:capacity="{disk.size_bytes}" ovf:capacityAllocationUnits="byte"'
        yield f'    <Disk {names} {size} ovf:format="{_VMDK}"/>'
    yield "  </DiskSection>"


def _networks(nics: Sequence[ExportedNic]) -> Iterator[str]:
    yield "  <NetworkSection>"
    yield "    <Info>Logical networks</Info>"
    for network in dict.fromkeys(nic.network for nic in nics):
        yield f"    <Network ovf:name={quoteattr(network)}><Description/></Network>"
    yield "  </NetworkSection>"


def _system(vm: ExportedVm) -> Iterator[str]:
    yield f"  <VirtualSystem ovf:id={quoteattr(vm.name)}>"
    yield "    <Info>A virtual machine</Info>"
    yield f"    <Name>{escape(vm.name)}</Name>"
    if vm.note:
        text = f"<Info>Note</Info><Annotation>{escape(vm.note)}</Annotation>"
        yield f"    <AnnotationSection>{text}</AnnotationSection>"
    yield '    <OperatingSystemSection ovf:id="101"><Info>Linux, 64 bits</Info></OperatingSystemSection>'
    yield "    <VirtualHardwareSection>"
    yield "      <Info>Virtual hardware</Info>"
    yield from _item("System", {"ElementName": "System", "InstanceID": "0"}, vm)
    for words in _items(vm):
        yield from _item("Item", words, vm)
    if vm.is_uefi:
        yield '      <vmw:Config ovf:required="false" vmw:key="firmware" vmw:value="efi"/>'
    yield "    </VirtualHardwareSection>"
    yield "  </VirtualSystem>"


def _item(tag: str, words: Mapping[str, str], vm: ExportedVm) -> Iterator[str]:
    """Its elements, sorted as the schema wants them."""
    prefix = "vssd" if tag == "System" else "rasd"
    if tag == "System":
        words = {**words, "VirtualSystemIdentifier": vm.name, "VirtualSystemType": "vmx-13"}
    yield f"      <{tag}>"
    yield from (f"        <{prefix}:{key}>{escape(words[key])}</{prefix}:{key}>" for key in sorted(words))
    yield f"      </{tag}>"


def _items(vm: ExportedVm) -> Iterator[Mapping[str, str]]:
    cpus, size = str(vm.cpus), str(vm.memory_bytes >> 20)
    yield {
        "AllocationUnits": "hertz * 10^6",
        "ElementName": f"{cpus} virtual CPUs",
        "InstanceID": "1",
        "ResourceType": "3",
        "VirtualQuantity": cpus,
    }
    yield {
        "AllocationUnits": "byte * 2^20",
        "ElementName": f"{size} MB of memory",
        "InstanceID": "2",
        "ResourceType": "4",
        "VirtualQuantity": size,
    }
    yield {
        "Address": "0",
        "ElementName": "SCSI controller",
        "InstanceID": "3",
        "ResourceSubType": "lsilogic",
        "ResourceType": "6",
    }
    for index, disk in enumerate(vm.disks):
        yield {
            "AddressOnParent": str(index),
            "ElementName": disk.name,
            "HostResource": f"ovf:/disk/{disk.name}",
            "InstanceID": str(10 + index),
            "Parent": "3",
            "ResourceType": "17",
        }
    for index, nic in enumerate(vm.nics):
        yield {
            "Address": nic.mac,
            "AddressOnParent": str(index),
            "AutomaticAllocation": "true",
            "Connection": nic.network,
            "ElementName": nic.name,
            "InstanceID": str(100 + index),
            "ResourceSubType": "E1000",
            "ResourceType": "10",
        }
