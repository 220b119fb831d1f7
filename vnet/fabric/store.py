"""What must outlive the daemon: what was asked for, what was assigned, what runs.

The kernel and QEMU are the truth for what *is*; the store is the truth for what should be, and for
what only the one who made it can know (who owns a namespace, with which specification a guest runs).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from vnet.fabric.state import Guest
from vnet.topology.inventory import Assignment


@dataclass(frozen=True, slots=True)
class Source:
    """A topology file as the user gave it, the environment variables it mentions, the files it includes."""

    file: str
    text: str
    env: Mapping[str, str] = field(default_factory=dict)
    included: Mapping[str, str] = field(default_factory=dict)
    """Their texts by path."""


@dataclass(frozen=True, slots=True)
class Pending:
    """A change that waits for its confirmation, and what it is brought back to without.

    `before` is None for a fabric that was new: it is removed. `ran` are the VMs that ran, `suspended` those
    whose memory was kept. `deadline_s` counts from the boot `boot_id` of the host, so that no clock that is
    set moves it; it is None while the change is being made.
    """

    boot_id: str
    deadline_s: float | None
    before: Record | None
    ran: frozenset[str] = frozenset()
    suspended: frozenset[str] = frozenset()

    def is_due(self, boot_id: str, uptime_s: float) -> bool:
        """Whether nobody can confirm it any more: its time is over, or the host was booted since."""
        return self.boot_id != boot_id or (self.deadline_s is not None and self.deadline_s <= uptime_s)


@dataclass(frozen=True, slots=True)
class Record:
    """One fabric. `generation` is the one wanted, `enforced` the one whose flows were last put in force.

    `enforced` < `generation` means that a change is under way or was broken off.

    `boot_id` is that of the boot in which its namespace was made: after another boot there is none.
    `provenance` says for each cookie of the generation what made it (`policy`, `rule`, `at`, `text`).
    """

    name: str
    source: Source
    generation: int
    enforced: int
    boot_id: str
    assignments: Mapping[str, Assignment] = field(default_factory=dict)
    stopped: frozenset[str] = frozenset()
    provenance: Mapping[int, Mapping[str, str]] = field(default_factory=dict)
    pending: Pending | None = None


class Store(Protocol):
    """Every call is one transaction. Raises HostError when the disk is full or the file unusable."""

    def fabrics(self) -> tuple[str, ...]:
        """Names of all fabrics, sorted."""

    def load(self, name: str) -> Record | None:
        """The fabric, or None."""

    def save(self, record: Record) -> None:
        """Put the fabric as it is now, replacing what was there."""

    def save_pending(self, record: Record) -> None:
        """Put what waits for confirmation, and nothing else of the record."""

    def save_enforced(self, name: str, generation: int) -> None:
        """Note that the flows of a generation are in force."""

    def remove(self, name: str) -> None:
        """Forget the fabric and its guests."""

    def guests(self, name: str) -> tuple[Guest, ...]:
        """The guests that were started, with the specification they were started with."""

    def save_guest(self, name: str, guest: Guest) -> None:
        """Remember a guest; before it is started, so that a crash cannot orphan it."""

    def remove_guest(self, name: str, guest: str) -> None:
        """Forget a guest; after it is gone."""

    def close(self) -> None:
        """Release the file."""
