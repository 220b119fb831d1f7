"""What QEMU's monitor is told to change a machine that runs, as values.

Source: QEMU 7.2, docs/interop/qemu-qmp-ref (device_add, device_del, object-add, block_resize, set_link).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
    """Asks the guest for a device; it is gone when `is_gone` says so."""
    return Command("device_del", {"id": device})


def is_gone(answer: object, device: str) -> bool:
    """Whether an answer to `QUERY_DEVICES` names a device no more."""
    return not any(isinstance(each, Mapping) and each.get("name") == device for each in _listed(answer))


def drop_nic(slot: int) -> tuple[Command, ...]:
    """Lets go of the TAP behind a NIC that is gone."""
    return (Command("netdev_del", {"id": f"net{slot}"}),)


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
    free = sorted(_free_cpus(answer), key=lambda each: sorted(each["props"].items()))
    if len(free) < count:
        raise HostError(f"QEMU has place for {len(free)} more CPUs, not for {count}")
    return tuple(Command("device_add", {"driver": each["type"], **each["props"]}) for each in free[:count])


def _free_cpus(answer: object) -> Iterator[Mapping[str, Any]]:
    return (each for each in _listed(answer) if isinstance(each, Mapping) and "qom-path" not in each)


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


def ask_memory(added_bytes: int) -> Command:
    """Has the guest take or give back memory until so much is added to what it was started with."""
    path = f"/machine/peripheral/{MEMORY_ID}"
    return Command("qom-set", {"path": path, "property": "requested-size", "value": added_bytes})


def added_memory(answer: object) -> int | None:
    """How much is added now, by an answer to `QUERY_MEMORY`; None if there is no such device."""
    data = (each.get("data", {}) for each in _listed(answer) if isinstance(each, Mapping))
    return next((int(each["size"]) for each in data if each.get("id") == MEMORY_ID), None)


def _listed(answer: object) -> Sequence[object]:
    return answer if isinstance(answer, list) else ()
