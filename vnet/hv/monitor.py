"""What is said to QEMU's monitor (QMP) and what it reports, as values.

Source: QEMU 7.2, docs/interop/qemu-qmp-ref. `live/qmp.py` sends and receives.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from vnet.base.errors import HostError
from vnet.hv import faults
from vnet.hv.argv import nic_device
from vnet.hv.disk import Plugged
from vnet.hv.faults import DiskFault


@dataclass(frozen=True, slots=True)
class Command:
    """One command. `fd` is a descriptor of ours that goes along with it (SCM_RIGHTS).

    `is_secret`: what it says is told to nobody else, not in errors either.
    """

    name: str
    arguments: Mapping[str, object] = field(default_factory=dict)
    fd: int | None = None
    is_secret: bool = False


class MonitorEvent(Enum):
    """The events that change what the manager does next; all others are passed over."""

    POWERED_OFF = "SHUTDOWN"
    """The guest switched itself off, by command or by the power button; QEMU is paused."""
    PANICKED = "GUEST_PANICKED"
    """Its kernel gave up; QEMU is paused."""
    REBOOTED = "RESET"
    """The guest boots again by its own wish."""


class RunState(Enum):
    """The values of `query-status` that are told apart."""

    RUNNING = "running"
    PAUSED = "paused"
    INCOMING = "inmigrate"
    POWERED_OFF = "shutdown"
    SAVING = "finish-migrate"
    """It stands still, the rest of its memory is being written."""
    SAVED = "postmigrate"
    DISK_FAILED = "io-error"
    """It stands still for a disk."""
    PANICKED = "guest-panicked"
    OTHER = ""


QUERY_STATUS = Command("query-status")
QUERY_UUID = Command("query-uuid")
QUERY_BLOCK = Command("query-block")
QUERY_NODES = Command("query-named-block-nodes", {"flat": True})
QUERY_MIGRATE = Command("query-migrate")
STOP = Command("stop")
CONTINUE = Command("cont")
POWER_DOWN = Command("system_powerdown")
RESET = Command("system_reset")
QUIT = Command("quit")

_MEMORY_STAYS = Command(
    "migrate-set-capabilities",
    {"capabilities": [{"capability": "x-ignore-shared", "state": True}]},
)
"""Memory that is a shared file is not part of the saved state: clones map the file itself."""


STAYS_SILENT = Command("migrate-set-parameters", {"announce-rounds": 0})
"""What is loaded has not moved: without this QEMU would send RARP frames in its name, only to be dropped."""


def save_state(fd: int) -> tuple[Command, ...]:
    """Writes the state of a stopped guest, without its memory, to a file of ours."""
    send = Command("getfd", {"fdname": "state"}, fd)
    return (_MEMORY_STAYS, send, Command("migrate", {"uri": "fd:state"}))


def load_state(fd: int) -> tuple[Command, ...]:
    """Reads a saved state into a QEMU that was started with `-incoming defer`."""
    send = Command("getfd", {"fdname": "state"}, fd)
    return (_MEMORY_STAYS, STAYS_SILENT, send, Command("migrate-incoming", {"uri": "fd:state"}))


def plug_nic(index: int, mac: int, tap_fd: int, vhost_fd: int | None) -> tuple[Command, ...]:
    """Adds a NIC to a running or paused machine."""
    netdev: dict[str, object] = {"type": "tap", "id": f"net{index}", "fd": f"tap{index}"}
    sent = [Command("getfd", {"fdname": f"tap{index}"}, tap_fd)]
    if vhost_fd is not None:
        netdev |= {"vhost": True, "vhostfd": f"vhost{index}"}
        sent.append(Command("getfd", {"fdname": f"vhost{index}"}, vhost_fd))
    return (*sent, Command("netdev_add", netdev), Command("device_add", dict(nic_device(index, mac))))


def plug_disk(
    disk: Plugged, fd: int, key: bytes | None = None, base_fd: int | None = None
) -> tuple[Command, ...]:
    """Adds a disk to a running or paused machine."""
    return (*open_disk(disk, fd, key, base_fd), Command("device_add", dict(disk.device())))


def open_disk(
    disk: Plugged, fd: int, key: bytes | None = None, base_fd: int | None = None
) -> tuple[Command, ...]:
    """Opens a disk in QEMU, with its key if it is encrypted, and the image that it is made of, if it is.

    No guest sees it yet.
    """
    based = () if base_fd is None else (Command("add-fd", {"fdset-id": disk.base_set_number}, base_fd),)
    return (
        *((add_secret(disk.key, key),) if key is not None else ()),
        *based,
        Command("add-fd", {"fdset-id": disk.set_number}, fd),
        Command("blockdev-add", dict(disk.blockdev(is_based=base_fd is not None))),
    )


def add_secret(name: str, key: bytes) -> Command:
    """Tells QEMU a key; nobody else is told, in errors neither."""
    data = {"qom-type": "secret", "id": name, "format": "base64", "data": b64encode(key).decode()}
    return Command("object-add", data, is_secret=True)


def parse_event(message: Mapping[str, object]) -> MonitorEvent | DiskFault | None:
    """The event in a QMP message, or None if nothing follows from it.

    A SHUTDOWN or RESET that we asked for is no event: who asked knows.
    """
    name, data = message.get("event"), message.get("data")
    if name in ("SHUTDOWN", "RESET"):
        reason = data.get("reason", "") if isinstance(data, Mapping) else ""
        return MonitorEvent(name) if str(reason).startswith("guest") else None
    if name == "GUEST_PANICKED":
        return MonitorEvent.PANICKED
    return faults.parse(message)


def is_saved(answer: object) -> bool:
    """Whether an answer to `query-migrate` says that the state is written.

    Raises:
        HostError: QEMU could not write it.
    """
    status = answer.get("status") if isinstance(answer, Mapping) else None
    if status in ("failed", "cancelled"):
        raise HostError(f"QEMU could not save the guest's state: {answer}")
    return status == "completed"


def parse_status(answer: object) -> RunState:
    """The run state out of an answer to `query-status`."""
    text = answer.get("status") if isinstance(answer, Mapping) else None
    return next((state for state in RunState if state.value == text), RunState.OTHER)
