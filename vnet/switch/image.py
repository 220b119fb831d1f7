"""The dataplane's maps as one value: where each flow lies, and what to write to change flows.

No I/O: `stage` turns a change into map writes, `live.datapath` carries them out. How a change becomes
visible to packets all at once:

* Rules, actions and masks are written to fresh slots, which no packet can reach yet.
* What a hash key stands for is an *entry* with two variants, each with the version from which on it
  holds. The variant no packet uses is overwritten with the next version.
* The list of masks of each table exists in two banks; the next version's bank is rewritten.
* Groups and meters have an entry each, by a number that stays; what it shows is a slot of its own.
* The list of all ports and the bits of the key that rules ask for exist in two banks as well.
* Then the cell `control.version` goes up by one. Packets read it once, so each sees all or nothing.
* After a grace period nobody reads the old version any more: slots are reused, dead keys deleted.

Two flows of one table with the same mask and words differ in priority only: the entry shows the
higher one, the other is kept here and takes over when the first goes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from vnet.openflow.flow import Flow
from vnet.openflow.group import Group, Meter
from vnet.openflow.message import (
    BadAction,
    ErrorType,
    FlowModFailed,
    GroupModFailed,
    MeterModFailed,
)
from vnet.switch import abi
from vnet.switch.abi import Kind
from vnet.switch.datapath import Change, FlowKey, GroupKey, MeterKey, Refused
from vnet.switch.lower import (
    ALWAYS,
    Lowered,
    LoweredGroup,
    MaskWords,
    Reads,
    beyond,
    lower,
    lower_group,
    union,
)
from vnet.switch.lower_actions import GroupRef, Lowerable, MeterRef, PortList
from vnet.switch.pool import Full, Numbers, Ranges

_NO_CHANGE = Change()
Words = tuple[int, ...]
MaskKey = tuple[int, MaskWords]
"""A mask belongs to one table: (table, mask words)."""

FIRST_LIST = 2 * abi.PORTS
"""Output lists begin here; before it lie the two banks of the list of all ports."""
FLOW_ACTIONS = abi.ACTIONS - abi.RULE_ACTIONS
"""Records that flows and buckets may take; behind them lie those of a controller's packet."""


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
    def rules(self) -> tuple[int, ...]:
        """The rules that count for it and for its buckets."""
        return (self.rule, *(bucket.rule for bucket in self.buckets))


@dataclass(frozen=True, slots=True)
class PlacedMeter:
    """A meter in the maps: its entry and its slot in `meters`."""

    meter: Meter
    entry: int
    slot: int


@dataclass(slots=True)
class Slot:
    """All flows of one (mask, words), highest priority first, and the entry that shows the first."""

    entry: int
    flows: list[Placed] = field(default_factory=list)
    shown: list[tuple[int, int]] = field(default_factory=lambda: [(0, 0), (0, 0)])
    """(version, rule) of the entry's two variants."""


@dataclass(slots=True)
class MaskUse:
    """What lies under one mask: how many slots, and how many flows, in all and of each priority."""

    key: MaskKey
    slots: int = 0
    flows: int = 0
    priorities: Counter[int] = field(default_factory=Counter)
    top: int = -1
    """The highest priority, -1 when no flow is left."""

    def add(self, priority: int) -> None:
        """A flow more."""
        self.flows += 1
        self.priorities[priority] += 1
        self.top = max(self.top, priority)

    def remove(self, priority: int) -> None:
        """A flow less; costs a look at all priorities if it was the last of the highest."""
        self.flows -= 1
        self.priorities[priority] -= 1
        if not self.priorities[priority]:
            del self.priorities[priority]
            if priority == self.top:
                self.top = max(self.priorities, default=-1)


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
    """A table's masks for one version, (mask number, highest priority); whether any is beyond the cache."""

    table: int
    masks: tuple[tuple[int, int], ...]
    beyond: Kind


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


@dataclass(frozen=True, slots=True)
class References:
    """What the numbers of groups and meters in records are in the maps: entries by number."""

    groups: Mapping[int, int]
    meters: Mapping[int, int]


@dataclass(slots=True)
class Numbered:
    """What is in force under numbers that controllers choose: groups or meters."""

    entries: dict[int, int] = field(default_factory=dict)
    shown: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    """By entry: (version, slot) of its two variants."""

    def show(self, number: int, slot: int, version: int, map_name: str) -> EntryWrite:
        """Let the entry show a slot from `version` on, in the variant that holds the older version."""
        shown = self.shown.setdefault(self.entries[number], [(0, 0), (0, 0)])
        variant = shown.index(min(shown))
        shown[variant] = (version, slot)
        return EntryWrite(self.entries[number], variant, slot, version, map_name)


class Image:
    """Mutable bookkeeping of the maps; every method is arithmetic on it.

    A change costs in proportion to itself, not to the flows there are.
    """

    def __init__(self, version: int = 1, ports: Iterable[int] = ()) -> None:
        self.version = version
        self.ports: tuple[int, ...] = tuple(sorted(ports))
        self.placed: dict[FlowKey, Placed] = {}
        self.groups: dict[int, PlacedGroup] = {}
        self.meters: dict[int, PlacedMeter] = {}
        self.group_entries, self.meter_entries = Numbered(), Numbered()
        self.masks: dict[MaskKey, int] = {}
        self.slots: dict[tuple[int, Words], Slot] = {}
        self.uses: dict[int, MaskUse] = {}
        """By mask number."""
        self.tables: dict[int, set[int]] = {}
        """The mask numbers of each table."""
        self.banks: list[dict[int, tuple[tuple[int, int], ...]]] = [{}, {}]
        self.port_banks: list[tuple[int, ...] | None] = [None, None]
        self.read_banks: list[Reads | None] = [None, None]
        self.action_reads: Counter[Reads] = Counter()
        self._reads: Reads | None = None
        """What all rules ask for, None while it has to be found out."""
        self._rules = Numbers(1, abi.RULES)  # rule 0 is a controller's packet
        self._entries = Numbers(0, abi.RULES)
        self._mask_numbers = Numbers(0, abi.MASKS)
        self._actions = Ranges(FLOW_ACTIONS)
        self._lists = Ranges(abi.OUTPUTS - FIRST_LIST)
        self._buckets = Ranges(abi.RULES)
        self._group_slots = Numbers(1, 2 * abi.GROUPS)
        self._meter_slots = Numbers(1, 2 * abi.METERS)
        self._group_numbers = Numbers(0, abi.GROUPS)
        self._meter_numbers = Numbers(0, abi.METERS)

    @property
    def flows(self) -> tuple[Flow, ...]:
        """All flows, as OpenFlow knows them."""
        return tuple(placed.flow for placed in self.placed.values())

    @property
    def references(self) -> References:
        """Where groups and meters are."""
        return References(self.group_entries.entries, self.meter_entries.entries)

    def stage(self, change: Change) -> Staged:
        """Bookkeep a change and tell what to write. Raises `Refused`, and then nothing has changed."""
        lowered = [(flow, lower(flow)) for flow in {flow.key: flow for flow in change.put}.values()]
        leaving = [
            key
            for key in dict.fromkeys((*change.remove, *(flow.key for flow, _ in lowered)))
            if key in self.placed
        ]
        self._check_room(lowered, leaving)
        self._check_references(lowered, change)
        work = _Work(self, self.version + 1)
        arrivals, groups, meters = work.place(lowered, change)
        for key in leaving:
            work.remove(self.placed.pop(key))
        for placed in arrivals:
            work.add(placed)
        work.exchange_groups(groups, change.remove_groups)
        work.exchange_meters(meters, change.remove_meters)
        return work.staged()

    def _check_room(self, lowered: list[tuple[Flow, Lowered]], leaving: list[FlowKey]) -> None:
        """Refuse what would not fit; old and new rules exist side by side until the grace period ends."""
        if len(self.placed) + len(lowered) >= abi.RULES:
            raise _table_full(f"{len(self.placed) + len(lowered)} flows; {abi.RULES - 1} fit")
        flows = Counter((flow.table, form.mask) for flow, form in lowered)
        flows.subtract((self.placed[key].flow.table, self.placed[key].lowered.mask) for key in leaving)
        masks = {table: len(self.tables.get(table, ())) for table, _ in flows}
        for key, more in flows.items():
            before = self.uses[self.masks[key]].flows if key in self.masks else 0
            masks[key[0]] += (before + more > 0) - (before > 0)
        for table, count in masks.items():
            if count > abi.TABLE_MASKS:
                raise _table_full(f"table {table} would search {count} masks; {abi.TABLE_MASKS} are allowed")
        if len(self.masks) + sum(key not in self.masks for key in flows) > abi.MASKS:
            raise _table_full(f"more than {abi.MASKS} masks in all tables")

    def _check_references(self, lowered: list[tuple[Flow, Lowered]], change: Change) -> None:
        """What flows refer to must be there after the change; that nothing refers to what goes is the agent's
        concern, as the specification has it."""
        for flow, form in lowered:
            self.check_references(form.actions, flow.key, change)

    def check_references(
        self, records: Iterable[Lowerable], key: FlowKey | None, change: Change = _NO_CHANGE
    ) -> None:
        """Raise `Refused` if records refer to what is not there after a change."""
        for record in records:
            if isinstance(record, GroupRef) and not self._has_group(record.group, change):
                why = f"no group {record.group}"
                raise Refused(ErrorType.BAD_ACTION, BadAction.BAD_OUT_GROUP, why, key)
            if isinstance(record, MeterRef) and not self._has_meter(record.meter, change):
                why = f"no meter {record.meter}"
                raise Refused(ErrorType.METER_MOD_FAILED, MeterModFailed.UNKNOWN_METER, why, key)

    def _has_group(self, number: int, change: Change) -> bool:
        put = any(group.number == number for group in change.put_groups)
        return put or number in self.groups and number not in change.remove_groups

    def _has_meter(self, number: int, change: Change) -> bool:
        put = any(meter.number == number for meter in change.put_meters)
        return put or number in self.meters and number not in change.remove_meters

    def finish(self, staged: Staged) -> None:
        """The grace period is over: the slots of retired rules and dead keys may be used again."""
        for placed in staged.retired:
            self.release(placed.actions)
        for group in staged.retired_groups:
            self.release_group(group)
            if group.group.number not in self.groups:
                self._group_numbers.give_back(self.group_entries.entries.pop(group.group.number))
        for meter in staged.retired_meters:
            self._meter_slots.give_back(meter.slot)
            if meter.meter.number not in self.meters:
                self._meter_numbers.give_back(self.meter_entries.entries.pop(meter.meter.number))
        for mask, words, entry in staged.dead_keys:
            self._entries.give_back(entry)
            del self.slots[mask, words]
            use = self.uses[mask]
            use.slots -= 1
            if not use.slots:
                del self.uses[mask], self.masks[use.key]
                self.tables[use.key[0]].remove(mask)
                self._mask_numbers.give_back(mask)

    # -- room --------------------------------------------------------------------------------------

    def place(self, records: tuple[Lowerable, ...]) -> PlacedActions:
        """Take a rule number, an action range and output lists. Raises `Full`, holding nothing."""
        rule = self._rules.take()
        ranges = [(self._actions, len(records))]
        ranges += [(self._lists, len(ports) + 1) for ports in port_lists(records)]
        taken: list[tuple[Ranges, int, int]] = []
        try:
            for pool, length in ranges:
                taken.append((pool, pool.take(length), length))
        except Full:
            self._rules.give_back(rule)
            for pool, start, length in taken:
                pool.give_back(start, length)
            raise
        (_, first, _), *lists = taken
        held = tuple((start + FIRST_LIST, length) for _, start, length in lists)
        return PlacedActions(rule, first, records, held)

    def release(self, placed: PlacedActions) -> None:
        """Give back what `place` took."""
        self._rules.give_back(placed.rule)
        self._actions.give_back(placed.first_action, len(placed.records))
        for start, length in placed.lists:
            self._lists.give_back(start - FIRST_LIST, length)

    def place_group(self, group: Group, form: LoweredGroup) -> PlacedGroup:
        """Find room for a group and its buckets. Raises `Full`, holding nothing."""
        buckets: list[PlacedActions] = []
        slot = rule = first = -1
        try:
            slot, rule = self._group_slots.take(), self._rules.take()
            first = self._buckets.take(len(form.buckets))
            buckets += (self.place(records) for records in form.buckets)
            entry = self._entry(self.group_entries, self._group_numbers, group.number)
        except Full:
            for bucket in buckets:
                self.release(bucket)
            if slot >= 0:
                self._group_slots.give_back(slot)
            if rule >= 0:
                self._rules.give_back(rule)
            if first >= 0:
                self._buckets.give_back(first, len(form.buckets))
            raise
        return PlacedGroup(group, form, entry, slot, rule, first, tuple(buckets))

    def release_group(self, placed: PlacedGroup) -> None:
        """Give back what `place_group` took, but for the entry, which its successor has."""
        self._group_slots.give_back(placed.slot)
        self._rules.give_back(placed.rule)
        self._buckets.give_back(placed.first_bucket, len(placed.buckets))
        for bucket in placed.buckets:
            self.release(bucket)

    def place_meter(self, meter: Meter) -> PlacedMeter:
        """Find room for a meter. Raises `Full`, holding nothing."""
        slot = self._meter_slots.take()
        try:
            return PlacedMeter(
                meter, self._entry(self.meter_entries, self._meter_numbers, meter.number), slot
            )
        except Full:
            self._meter_slots.give_back(slot)
            raise

    def release_meter(self, placed: PlacedMeter) -> None:
        """Give back what `place_meter` took."""
        self._meter_slots.give_back(placed.slot)

    @staticmethod
    def _entry(numbered: Numbered, pool: Numbers, number: int) -> int:
        if number not in numbered.entries:
            numbered.entries[number] = pool.take()
            numbered.shown.pop(numbered.entries[number], None)
        return numbered.entries[number]

    def drop_entry(self, group: Group | None, meter: Meter | None) -> None:
        """A number that was only taken for a change that was refused is free again."""
        if group is not None and group.number not in self.groups:
            self._group_numbers.give_back(self.group_entries.entries.pop(group.number))
        if meter is not None and meter.number not in self.meters:
            self._meter_numbers.give_back(self.meter_entries.entries.pop(meter.number))

    # -- masks -------------------------------------------------------------------------------------

    def slot(self, table: int, form: Lowered) -> tuple[int, Slot, bool]:
        """(mask number, slot, whether the slot is new) for a flow's mask and words."""
        number = self.masks.get((table, form.mask))
        if number is None:
            number = self._mask_numbers.take()
            self._use((table, form.mask), number)
        slot = self.slots.get((number, form.words))
        if slot is not None:
            return number, slot, False
        slot = self.slots[number, form.words] = Slot(self._entries.take())
        self.uses[number].slots += 1
        return number, slot, True

    def _use(self, key: MaskKey, number: int) -> None:
        self.masks[key] = number
        self.uses[number] = MaskUse(key)
        self.tables.setdefault(key[0], set()).add(number)

    def search_order(self, table: int) -> tuple[tuple[int, int], ...]:
        """The masks of a table in use with their flows' highest priority, highest first."""
        tops = [(number, self.uses[number].top) for number in self.tables.get(table, ())]
        return tuple(sorted((pair for pair in tops if pair[1] >= 0), key=lambda pair: (-pair[1], pair[0])))

    def beyond(self, masks: Sequence[tuple[int, int]]) -> Kind:
        """The kinds of packets of which some of a table's masks ask for what the flow cache's key does not tell."""
        kinds = Kind(0)
        for number, _ in masks:
            kinds |= beyond(self.uses[number].key[1])
        return kinds

    # -- what is asked for --------------------------------------------------------------------------

    def count_use(self, mask: int, priority: int, by: int) -> None:
        """A flow more (1) or less (-1) under a mask."""
        use = self.uses[mask]
        before = use.flows
        use.add(priority) if by > 0 else use.remove(priority)
        if not before or not use.flows:
            self._reads = None

    def count_reads(self, reads: Reads, by: int) -> None:
        """A list of actions more (1) or less (-1) that asks for these bits."""
        before = self.action_reads[reads]
        self.action_reads[reads] += by
        if not self.action_reads[reads]:
            del self.action_reads[reads]
        if not before or before + by == 0:
            self._reads = None

    @property
    def reads(self) -> Reads:
        """The bits of the flow cache's key that some rule in force asks for."""
        if self._reads is None:
            masks = (dict(use.key[1]) for use in self.uses.values() if use.flows)
            asked = (tuple(mask.get(word, 0) for word in range(abi.CACHE_WORDS)) for mask in masks)
            self._reads = union([ALWAYS, *asked, *self.action_reads])
        return self._reads

    # -- adoption ----------------------------------------------------------------------------------

    def adopt(
        self,
        rules: Iterable[Placed],
        groups: Iterable[PlacedGroup],
        meters: Iterable[PlacedMeter],
        masks: Mapping[MaskKey, int],
        entries: Mapping[tuple[int, Words], tuple[int, list[tuple[int, int]]]],
        shown: tuple[dict[int, list[tuple[int, int]]], dict[int, list[tuple[int, int]]]],
        banks: list[dict[int, tuple[tuple[int, int], ...]]],
    ) -> None:
        """Take over what the maps hold.

        `masks` by (table, mask words); `entries`: by (mask number, words), (entry number, its two
        variants); `shown`: the variants of the entries of groups and of meters; `banks` as read.
        """
        for mask_key, number in masks.items():
            self._use(mask_key, number)
        self.banks = banks
        for (mask, words), (entry, variants) in entries.items():
            self.slots[mask, words] = Slot(entry, [], variants)
            self.uses[mask].slots += 1
        for placed in rules:
            self.placed[placed.flow.key] = placed
            mask = self.masks[placed.flow.table, placed.lowered.mask]
            self.count_use(mask, placed.flow.priority, 1)
            self.count_reads(placed.lowered.reads, 1)
            slot = self.slots[mask, placed.lowered.words]
            slot.flows.append(placed)
            slot.flows.sort(key=lambda p: -p.flow.priority)
        for group in groups:
            self.groups[group.group.number] = group
            self.group_entries.entries[group.group.number] = group.entry
            self.count_reads(group.lowered.reads, 1)
        for meter in meters:
            self.meters[meter.meter.number] = meter
            self.meter_entries.entries[meter.meter.number] = meter.entry
        self.group_entries.shown, self.meter_entries.shown = shown
        self._claim({entry for entry, _ in entries.values()})

    def _claim(self, entries: set[int]) -> None:
        """Numbers and ranges in use are not to be given away."""
        lists = [p.actions for p in self.placed.values()]
        lists += [bucket for g in self.groups.values() for bucket in g.buckets]
        self._rules.claim({held.rule for held in lists} | {g.rule for g in self.groups.values()})
        self._entries.claim(entries)
        self._mask_numbers.claim(set(self.masks.values()))
        self._actions.claim([(held.first_action, len(held.records)) for held in lists])
        self._lists.claim([(start - FIRST_LIST, length) for held in lists for start, length in held.lists])
        self._buckets.claim([(g.first_bucket, len(g.buckets)) for g in self.groups.values()])
        self._group_slots.claim({g.slot for g in self.groups.values()})
        self._meter_slots.claim({m.slot for m in self.meters.values()})
        self._group_numbers.claim({g.entry for g in self.groups.values()})
        self._meter_numbers.claim({m.entry for m in self.meters.values()})


def port_lists(records: Iterable[Lowerable]) -> list[tuple[int, ...]]:
    """The ports of each port list among records."""
    return [record.ports for record in records if isinstance(record, PortList)]


class _Work:
    """One change while it is being staged."""

    def __init__(self, image: Image, version: int) -> None:
        self.image, self.version = image, version
        self.touched: dict[tuple[int, Words], Slot] = {}
        self.new_masks: list[tuple[int, MaskKey]] = []
        self.new_keys: list[tuple[int, Words, int]] = []
        self.lists: list[tuple[int, tuple[int, ...]]] = []
        self.rules: list[Placed] = []
        self.retired: list[Placed] = []
        self.groups: list[PlacedGroup] = []
        self.retired_groups: list[PlacedGroup] = []
        self.meters: list[PlacedMeter] = []
        self.retired_meters: list[PlacedMeter] = []
        self.entries: list[EntryWrite] = []

    def remove(self, placed: Placed) -> None:
        mask = self.image.masks[placed.flow.table, placed.lowered.mask]
        slot = self.image.slots[mask, placed.lowered.words]
        slot.flows.remove(placed)
        self.image.count_use(mask, placed.flow.priority, -1)
        self.image.count_reads(placed.lowered.reads, -1)
        self.touched[mask, placed.lowered.words] = slot
        self.retired.append(placed)

    def place(
        self, lowered: list[tuple[Flow, Lowered]], change: Change
    ) -> tuple[list[Placed], list[PlacedGroup], list[PlacedMeter]]:
        """Find room for all that is new, or for none of it."""
        forms = [(group, lower_group(group)) for group in change.put_groups]
        flows: list[Placed] = []
        groups: list[PlacedGroup] = []
        meters: list[PlacedMeter] = []
        what: FlowKey | GroupKey | MeterKey | None = None
        try:
            for group, form in forms:
                what = GroupKey(group.number)
                groups.append(self.image.place_group(group, form))
            for meter in change.put_meters:
                what = MeterKey(meter.number)
                meters.append(self.image.place_meter(meter))
            for flow, form_ in lowered:
                what = flow.key
                flows.append(Placed(flow, form_, self.image.place(form_.actions)))
        except Full as full:
            self._give_back(flows, groups, meters)
            raise _no_room(what) from full
        return flows, groups, meters

    def _give_back(self, flows: list[Placed], groups: list[PlacedGroup], meters: list[PlacedMeter]) -> None:
        for placed in flows:
            self.image.release(placed.actions)
        for group in groups:
            self.image.release_group(group)
            self.image.drop_entry(group.group, None)
        for meter in meters:
            self.image.release_meter(meter)
            self.image.drop_entry(None, meter.meter)

    def add(self, placed: Placed) -> None:
        flow, form = placed.flow, placed.lowered
        known = len(self.image.masks)
        mask, slot, new = self.image.slot(flow.table, form)
        if len(self.image.masks) > known:
            self.new_masks.append((mask, (flow.table, form.mask)))
        if new:
            self.new_keys.append((mask, form.words, slot.entry))
        self.image.count_use(mask, flow.priority, 1)
        self.image.count_reads(form.reads, 1)
        slot.flows.append(placed)
        slot.flows.sort(key=lambda p: -p.flow.priority)
        self.image.placed[flow.key] = placed
        self.touched[mask, form.words] = slot
        self.rules.append(placed)
        self._fill_lists(placed.actions)

    def _fill_lists(self, placed: PlacedActions) -> None:
        starts = (start for start, _ in placed.lists)
        self.lists += zip(starts, port_lists(placed.records), strict=True)

    def exchange_groups(self, arrivals: list[PlacedGroup], remove: tuple[int, ...]) -> None:
        numbered = self.image.group_entries
        for number in dict.fromkeys((*remove, *(placed.group.number for placed in arrivals))):
            if number in self.image.groups:
                gone = self.image.groups.pop(number)
                self.image.count_reads(gone.lowered.reads, -1)
                self.retired_groups.append(gone)
        for placed in arrivals:
            self.image.groups[placed.group.number] = placed
            self.image.count_reads(placed.lowered.reads, 1)
            self.groups.append(placed)
            for bucket in placed.buckets:
                self._fill_lists(bucket)
            self.entries.append(
                numbered.show(placed.group.number, placed.slot, self.version, "group_entries")
            )
        for gone in self.retired_groups:
            if gone.group.number not in self.image.groups:
                self.entries.append(numbered.show(gone.group.number, 0, self.version, "group_entries"))

    def exchange_meters(self, arrivals: list[PlacedMeter], remove: tuple[int, ...]) -> None:
        numbered = self.image.meter_entries
        for number in dict.fromkeys((*remove, *(placed.meter.number for placed in arrivals))):
            if number in self.image.meters:
                self.retired_meters.append(self.image.meters.pop(number))
        for placed in arrivals:
            self.image.meters[placed.meter.number] = placed
            self.meters.append(placed)
            self.entries.append(
                numbered.show(placed.meter.number, placed.slot, self.version, "meter_entries")
            )
        for gone in self.retired_meters:
            if gone.meter.number not in self.image.meters:
                self.entries.append(numbered.show(gone.meter.number, 0, self.version, "meter_entries"))

    def staged(self) -> Staged:
        self.image.version = self.version
        entries = [write for slot in self.touched.values() if (write := self._show(slot))]
        return Staged(
            version=self.version,
            masks=tuple(self.new_masks),
            lists=(*self._all_ports(), *self.lists),
            rules=tuple(self.rules),
            groups=tuple(self.groups),
            meters=tuple(self.meters),
            keys=tuple(self.new_keys),
            entries=(*entries, *self.entries),
            tables=tuple(self._bank()),
            reads=self._reads(),
            references=self.image.references,
            retired=tuple(self.retired),
            retired_groups=tuple(self.retired_groups),
            retired_meters=tuple(self.retired_meters),
            dead_keys=tuple(
                (mask, words, slot.entry) for (mask, words), slot in self.touched.items() if not slot.flows
            ),
        )

    def _show(self, slot: Slot) -> EntryWrite | None:
        """Let the slot's best flow take over in the variant that holds the older version."""
        rule = slot.flows[0].rule if slot.flows else 0
        current = max(slot.shown)
        if current[1] == rule and current[0]:
            return None
        variant = slot.shown.index(min(slot.shown))
        slot.shown[variant] = (self.version, rule)
        return EntryWrite(slot.entry, variant, rule, self.version)

    def _bank(self) -> list[TableBank]:
        """Bring the next version's bank up to the other one, then to this change."""
        bank, wanted = self.image.banks[self.version & 1], dict(self.image.banks[~self.version & 1])
        for table in {self.image.uses[mask].key[0] for mask, _ in self.touched}:
            wanted[table] = self.image.search_order(table)
        self.image.banks[self.version & 1] = wanted
        return [
            TableBank(table, masks, self.image.beyond(masks))
            for table, masks in sorted(wanted.items())
            if bank.get(table, ()) != masks
        ]

    def _all_ports(self) -> list[tuple[int, tuple[int, ...]]]:
        """The list of all ports, if the next version's bank has another."""
        bank = self.version & 1
        if self.image.port_banks[bank] == self.image.ports:
            return []
        self.image.port_banks[bank] = self.image.ports
        return [(bank * abi.PORTS, self.image.ports)]

    def _reads(self) -> Reads | None:
        bank, reads = self.version & 1, self.image.reads
        if self.image.read_banks[bank] == reads:
            return None
        self.image.read_banks[bank] = reads
        return reads


def _table_full(why: str, key: FlowKey | None = None) -> Refused:
    return Refused(ErrorType.FLOW_MOD_FAILED, FlowModFailed.TABLE_FULL, why, key)


def _no_room(what: FlowKey | GroupKey | MeterKey | None) -> Refused:
    """The refusal of what did not fit any more."""
    if isinstance(what, GroupKey):
        why = f"no room for group {what.number}"
        return Refused(ErrorType.GROUP_MOD_FAILED, GroupModFailed.OUT_OF_GROUPS, why, what)
    if isinstance(what, MeterKey):
        why = f"no room for meter {what.number}"
        return Refused(ErrorType.METER_MOD_FAILED, MeterModFailed.OUT_OF_METERS, why, what)
    return _table_full("no room for the flows' actions")
