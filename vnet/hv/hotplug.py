"""What QEMU's monitor is told to change a machine that runs, as values.

Source: QEMU 7.2, docs/interop/qemu-qmp-ref (device_add, device_del, object-add, block_resize, set_link).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vnet.base.errors import HostError
from vnet.hv.built import Built
from vnet.hv.disk import Plugged
from vnet.hv.monitor import Command

MEMORY_ID = "memory"
"""Of the device that memory is added by, and, with "-ram" behind it, of what it is backed by."""

QUERY_CPUS = Command("query-hotpluggable-cpus")
QUERY_MEMORY = Command("query-memory-devices")
QUERY_DEVICES = Command("qom-list", {"path": "/machine/peripheral"})


def unplug(device: str) -> Command:
    """Asks the guest for a device; it is gone when `devices` names it no more."""
    return Command("device_del", {"id": device})


def devices(answer: object) -> frozenset[str]:
    """What is plugged in by name, by an answer to `QUERY_DEVICES`."""
    return frozenset(str(each["name"]) for each in _maps(answer) if "name" in each)


def query_mac(slot: int) -> Command:
    """Asks for the MAC of the NIC in a slot, which is answered as text."""
    return Command("qom-get", {"path": f"/machine/peripheral/nic{slot}", "property": "mac"})


def query_serial(index: int) -> Command:
    """Asks for the serial number of a disk, which is answered as text."""
    return Command("qom-get", {"path": f"/machine/peripheral/blk{index}", "property": "serial"})


def mac(answer: object) -> int:
    """The MAC in an answer to `query_mac`."""
    return int(str(answer).replace(":", ""), 16)


def formats(answer: object) -> Mapping[str, str]:
    """The drivers of all that is open, by an answer to `monitor.QUERY_NODES`: a disk's is its format."""
    return {str(each.get("node-name")): str(each.get("drv")) for each in _maps(answer)}


def drop_nic(slot: int) -> tuple[Command, ...]:
    """Lets go of the TAP behind a NIC that is gone."""
    return (Command("netdev_del", {"id": f"net{slot}"}),)


def forget_tap(slot: int) -> tuple[Command, ...]:
    """Closes what was sent for a NIC that has not come to be."""
    return tuple(Command("closefd", {"fdname": f"{each}{slot}"}) for each in ("tap", "vhost"))


def drop_disk(disk: Plugged, *, is_based: bool = False) -> tuple[Command, ...]:
    """Closes the file behind a disk that is gone, and the image that it was made of, if it was."""
    return (
        Command("blockdev-del", {"node-name": disk.node}),
        Command("remove-fd", {"fdset-id": disk.set_number}),
        *((Command("remove-fd", {"fdset-id": disk.base_set_number}),) if is_based else ()),
        *((Command("object-del", {"id": disk.key}),) if disk.disk.encrypt else ()),
    )


def resize_disk(disk: Plugged, size_bytes: int) -> Command:
    """Makes a disk larger, and tells the guest."""
    return Command("block_resize", {"node-name": disk.node, "size": size_bytes})


def set_link(slot: int, *, is_up: bool) -> Command:
    """Pulls the cable of a NIC, or plugs it in again."""
    return Command("set_link", {"name": f"nic{slot}", "up": is_up})


def plug_cpus(answer: object, count: int) -> tuple[Command, ...]:
    """Adds so many CPUs, the first of those that an answer to `QUERY_CPUS` says are free.

    Raises: HostError when there are not so many.
    """
    free = [each for each in _maps(answer) if "qom-path" not in each]
    free.sort(key=lambda each: sorted(each["props"].items()))
    if len(free) < count:
        raise HostError(f"QEMU has place for {len(free)} more CPUs, not for {count}")
    return tuple(Command("device_add", {"driver": each["type"], **each["props"]}) for each in free[:count])


def cpus(answer: object) -> int:
    """How many CPUs are there, by an answer to `QUERY_CPUS`."""
    return sum("qom-path" in each for each in _maps(answer))


def add_memory(built: Built, added_bytes: int) -> tuple[Command, ...]:
    """Adds memory to a machine that has had none added. What is not asked for takes nothing of the host."""
    ram = f"{MEMORY_ID}-ram"
    backend = {"qom-type": "memory-backend-ram", "id": ram, "size": built.growth_bytes, "reserve": False}
    device = {
        "driver": "virtio-mem-pci",
        "id": MEMORY_ID,
        "memdev": ram,
        "bus": f"slot{built.memory_slot}",
        "requested-size": added_bytes,
    }
    return (Command("object-add", backend), Command("device_add", device))


def drop_memory() -> Command:
    """Lets go of what memory was to be added from, when it has not come to that."""
    return Command("object-del", {"id": f"{MEMORY_ID}-ram"})


def ask_memory(added_bytes: int) -> Command:
    """Has the guest take or give back memory until so much is added to what it was started with."""
    path = f"/machine/peripheral/{MEMORY_ID}"
    return Command("qom-set", {"path": path, "property": "requested-size", "value": added_bytes})


def added_memory(answer: object) -> int | None:
    """How much is added now, by an answer to `QUERY_MEMORY`; None if there is no such device."""
    data = (each.get("data", {}) for each in _maps(answer))
    return next((int(each["size"]) for each in data if each.get("id") == MEMORY_ID), None)


def _maps(answer: object) -> list[Mapping[str, Any]]:
    return [each for each in answer if isinstance(each, Mapping)] if isinstance(answer, list) else []
