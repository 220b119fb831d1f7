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
class Record:
    """One fabric. `enforced` < `generation` means that the last change has not been completed.

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


class Store(Protocol):
    """Every call is one transaction. Raises HostError when the disk is full or the file unusable."""

    def fabrics(self) -> tuple[str, ...]:
        """Names of all fabrics, sorted."""

    def load(self, name: str) -> Record | None:
        """The fabric, or None."""

    def save(self, record: Record) -> None:
        """Put the fabric as it is now, replacing what was there."""

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
