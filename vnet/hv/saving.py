"""What QEMU is told to save a guest, and to load it again, as values.

Memory is written while the guest runs. QEMU stops the guest when little is left, and waits: then its disks
are snapshotted, and only what it has changed meanwhile is still to be written.

Source: QEMU 7.2, docs/interop/qemu-qmp-ref (migrate, migrate-set-capabilities, transaction).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from vnet.base.errors import HostError
from vnet.hv.disk import Plugged
from vnet.hv.monitor import STAYS_SILENT, Command
from vnet.hv.snapshot import Build

DOWNTIME_MS = 10
"""QEMU stops the guest when the rest can be written in so long."""
PASSES = 4
"""After so many the guest is stopped whatever is left: it writes faster than the host saves."""
NEAR_BYTES = 16 << 20
"""When so little is left a guest is kept from finishing, until all of its group are so far."""
_ALL_THERE_IS_BPS = 100 << 30

CANCEL = Command("migrate_cancel")
CLOSE = Command("closefd", {"fdname": "state"})
"""Where the memory was to go, if QEMU was handed that and not yet told to write."""
SWITCH_OVER = Command("migrate-continue", {"state": "pre-switchover"})
WAKE_CANCELLED = Command("migrate-continue", {"state": "cancelling"})
"""If CANCEL comes when QEMU has decided to wait for SWITCH_OVER and not yet said so, it waits for ever, and
the guest stands still. Source: QEMU 7.2, migration/migration.c, migration_maybe_pause: between its look at
the state and qemu_sem_wait. Woken once more than it needs, it sees to that before it waits again."""


def copies_while_it_runs(build: Build) -> bool:
    """Whether memory can be written while the guest writes to it; otherwise it stands still meanwhile.

    Emulated processors of QEMU 7.2 do not tell of every page that they write: busy guests were found
    corrupted after their restore.
    """
    return build.accel != "tcg"


class Stage(Enum):
    """How far the writing of a guest's memory is, in QEMU's words."""

    NONE = "none"
    SETUP = "setup"
    ACTIVE = "active"
    READY = "pre-switchover"
    """The guest stands still; QEMU waits."""
    DEVICE = "device"
    COMPLETED = "completed"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Course:
    """An answer to `query-migrate`."""

    stage: Stage
    left_bytes: int = 0
    passes: int = 0
    error: str = ""

    @property
    def is_near(self) -> bool:
        """Whether the rest takes no time worth mentioning."""
        return self.stage is Stage.ACTIVE and self.passes > 0 and self.left_bytes < NEAR_BYTES

    @property
    def is_endless(self) -> bool:
        """Whether it will not come to an end while the guest runs."""
        return self.stage is Stage.ACTIVE and self.passes > PASSES

    @property
    def has_ended(self) -> bool:
        """Whether QEMU does no more about it."""
        return self.stage in (Stage.NONE, Stage.COMPLETED, Stage.CANCELLED, Stage.FAILED)


def course(answer: object) -> Course:
    """The course out of an answer to `query-migrate`. Raises HostError for what is none."""
    if not isinstance(answer, Mapping):
        raise HostError(f"QEMU does not tell how far saving is: {answer}")
    ram = answer.get("ram", {})
    try:
        stage = Stage(answer.get("status", "none"))
        left, passes = int(ram.get("remaining", 0)), int(ram.get("dirty-sync-count", 0))
    except (ValueError, AttributeError) as error:
        raise HostError(f"QEMU does not tell how far saving is: {answer}") from error
    return Course(stage, left, passes, str(answer.get("error-desc", "")))


def begin(fd: int) -> tuple[Command, ...]:
    """Begins to write memory and devices to a descriptor of ours."""
    parameters = {"downtime-limit": DOWNTIME_MS, "max-bandwidth": _ALL_THERE_IS_BPS}
    return (
        _capabilities({"x-ignore-shared": False, "pause-before-switchover": True}),
        Command("migrate-set-parameters", parameters),
        Command("getfd", {"fdname": "state"}, fd),
        Command("migrate", {"uri": "fd:state"}),
    )


def load(fd: int) -> tuple[Command, ...]:
    """Reads what `begin` has written, into a QEMU that was started with `-incoming defer`."""
    return (
        _capabilities({"x-ignore-shared": False}),
        STAYS_SILENT,
        Command("getfd", {"fdname": "state"}, fd),
        Command("migrate-incoming", {"uri": "fd:state"}),
    )


def _capabilities(states: Mapping[str, bool]) -> Command:
    values = [{"capability": name, "state": state} for name, state in states.items()]
    return Command("migrate-set-capabilities", {"capabilities": values})


def keep_disks(disks: Iterable[Plugged], name: str) -> tuple[Command, ...]:
    """Keeps the contents of all disks as they are now, in their own files; of all or of none."""
    actions = [
        {"type": "blockdev-snapshot-internal-sync", "data": {"device": disk.node, "name": name}}
        for disk in disks
    ]
    return (Command("transaction", {"actions": actions}),) if actions else ()


def drop_disk(disk: Plugged, name: str) -> Command:
    """Forgets what was kept of one."""
    return Command("blockdev-snapshot-delete-internal-sync", {"device": disk.node, "name": name})
