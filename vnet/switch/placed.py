"""Where flows, groups and meters lie in the dataplane's maps, and what a change writes there: values only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vnet.openflow.flow import Flow
from vnet.openflow.group import Group, Meter
from vnet.switch.abi import Kind, Trait
from vnet.switch.lower import Lowered, LoweredGroup, MaskWords, Reads
from vnet.switch.lower_actions import Lowerable, PortList

Words = tuple[int, ...]
MaskKey = tuple[int, MaskWords]
"""A mask belongs to one table: (table, mask words)."""
Masks = tuple[tuple[int, int, Trait], ...]
"""What a table searches, in this order: (mask number, highest priority under it, what all of it asks for)."""
Variants = list[tuple[int, int]]
"""(version, what it shows from that version on) of an entry's two variants."""


@dataclass(frozen=True, slots=True)
class PlacedActions:
    """A list of records in the maps: the rule it belongs to, its range, its output lists' ranges."""

    rule: int
    first_action: int
    records: tuple[Lowerable, ...]
    lists: tuple[tuple[int, int], ...]
    """(start, length) in `outputs`, in the order of the records' port lists."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A flow in the maps."""

    flow: Flow
    lowered: Lowered
    actions: PlacedActions

    @property
    def rule(self) -> int:
        """Its number."""
        return self.actions.rule


@dataclass(frozen=True, slots=True)
class PlacedGroup:
    """A group in the maps: its entry, its slot in `groups`, the rule that counts for it, its buckets."""

    group: Group
    lowered: LoweredGroup
    entry: int
    slot: int
    rule: int
    first_bucket: int
    buckets: tuple[PlacedActions, ...]

    @property
    def number(self) -> int:
        """The number that controllers know it by."""
        return self.group.number

    @property
    def rules(self) -> tuple[int, ...]:
        """The rules that count for it and for its buckets."""
        return (self.rule, *(bucket.rule for bucket in self.buckets))


@dataclass(frozen=True, slots=True)
class PlacedMeter:
    """A meter in the maps: its entry and its slot in `meters`."""

    meter: Meter
    entry: int
    slot: int

    @property
    def number(self) -> int:
        """The number that controllers know it by."""
        return self.meter.number


@dataclass(frozen=True, slots=True)
class EntryWrite:
    """Overwrite one variant of an entry of a map: what it shows first, then the version."""

    entry: int
    variant: int
    rule: int
    version: int
    map: str = "entries"


@dataclass(frozen=True, slots=True)
class TableBank:
    """A table's masks for one version; whether any asks for what the flow cache's key does not tell."""

    table: int
    masks: Masks
    beyond: Kind


@dataclass(frozen=True, slots=True)
class References:
    """What the numbers of groups and meters in records are in the maps: entries by number."""

    groups: Mapping[int, int]
    meters: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Staged:
    """What to write before the cell is flipped, in this order; then what to remove."""

    version: int
    masks: tuple[tuple[int, MaskKey], ...]
    lists: tuple[tuple[int, tuple[int, ...]], ...]
    """(start, ports) in `outputs`."""
    rules: tuple[Placed, ...]
    """New rules, their actions and OpenFlow text."""
    groups: tuple[PlacedGroup, ...]
    meters: tuple[PlacedMeter, ...]
    keys: tuple[tuple[int, Words, int], ...]
    """(mask number, words, entry) to add to the index."""
    entries: tuple[EntryWrite, ...]
    tables: tuple[TableBank, ...]
    """For the bank of `version`."""
    reads: Reads | None
    """For the bank of `version`, None if it has them."""
    references: References
    retired: tuple[Placed, ...]
    """Rules no packet of `version` can reach."""
    retired_groups: tuple[PlacedGroup, ...]
    retired_meters: tuple[PlacedMeter, ...]
    dead_keys: tuple[tuple[int, Words, int], ...]

    @property
    def retired_rules(self) -> tuple[int, ...]:
        """The numbers that nothing will count for any more."""
        groups = (rule for placed in self.retired_groups for rule in placed.rules)
        return (*(placed.rule for placed in self.retired), *groups)


def port_lists(records: Iterable[Lowerable]) -> list[tuple[int, ...]]:
    """The ports of each port list among records."""
    return [record.ports for record in records if isinstance(record, PortList)]


def show(shown: Variants, version: int, what: int) -> int:
    """Let what an entry shows from `version` on take the place of the older variant; which one that is."""
    variant = shown.index(min(shown))
    shown[variant] = version, what
    return variant
