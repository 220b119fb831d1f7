"""The dataplane's maps as one value: where each flow lies, and what to write to change flows.

No I/O: `stage` turns a change into map writes, `live.datapath` carries them out. How a change becomes
visible to packets all at once:

* Rules, actions and masks are written to fresh slots, which no packet can reach yet.
* What a hash key stands for is an *entry* with two variants, each with the version from which on it
  holds. The variant no packet uses is overwritten with the next version.
* The list of masks of each table exists in two banks; the next version's bank is rewritten.
* Then the cell `control.version` goes up by one. Packets read it once, so each sees all or nothing.
* After a grace period nobody reads the old version any more: slots are reused, dead keys deleted.

Two flows of one table with the same mask and words differ in priority only: the entry shows the
higher one, the other is kept here and takes over when the first goes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from vnet.openflow.flow import Flow
from vnet.openflow.message import ErrorType, FlowModFailed
from vnet.switch import abi
from vnet.switch.datapath import Change, FlowKey, Refused
from vnet.switch.lower import Lowered, MaskWords, PortList, lower
from vnet.switch.pool import Full, Numbers, Ranges

Words = tuple[int, ...]
MaskKey = tuple[int, MaskWords]
"""A mask belongs to one table: (table, mask words)."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A flow in the maps: its rule number, its actions' range, its output lists' ranges."""

    flow: Flow
    lowered: Lowered
    rule: int
    first_action: int
    lists: tuple[tuple[int, int], ...]
    """(start, length) in `outputs`, in the order of the flow's port lists."""


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
    """Overwrite one variant of an entry: the rule first, then the version."""

    entry: int
    variant: int
    rule: int
    version: int


@dataclass(frozen=True, slots=True)
class Staged:
    """What to write before the cell is flipped, in this order; then what to remove."""

    version: int
    masks: tuple[tuple[int, MaskKey], ...]
    lists: tuple[tuple[int, tuple[int, ...]], ...]
    """(start, ports) in `outputs`."""
    rules: tuple[Placed, ...]
    """New rules, their actions and OpenFlow text."""
    keys: tuple[tuple[int, Words, int], ...]
    """(mask number, words, entry) to add to the index."""
    entries: tuple[EntryWrite, ...]
    tables: tuple[tuple[int, tuple[tuple[int, int], ...]], ...]
    """(table, ((mask number, highest priority), …)) for the bank of `version`."""
    retired: tuple[Placed, ...]
    """Rules no packet of `version` can reach."""
    dead_keys: tuple[tuple[int, Words, int], ...]


class Image:
    """Mutable bookkeeping of the maps; every method is arithmetic on it.

    A change costs in proportion to itself, not to the flows there are.
    """

    def __init__(self, version: int = 1, ports: Iterable[int] = ()) -> None:
        self.version = version
        self.ports: tuple[int, ...] = tuple(sorted(ports))
        self.placed: dict[FlowKey, Placed] = {}
        self.masks: dict[MaskKey, int] = {}
        self.slots: dict[tuple[int, Words], Slot] = {}
        self.uses: dict[int, MaskUse] = {}
        """By mask number."""
        self.tables: dict[int, set[int]] = {}
        """The mask numbers of each table."""
        self.banks: list[dict[int, tuple[tuple[int, int], ...]]] = [{}, {}]
        self._rules = Numbers(1, abi.RULES)  # rule 0 means "none"
        self._entries = Numbers(0, abi.RULES)
        self._mask_numbers = Numbers(0, abi.MASKS)
        self._actions = Ranges(abi.ACTIONS)
        self._lists = Ranges(abi.OUTPUTS)

    @property
    def flows(self) -> tuple[Flow, ...]:
        """All flows, as OpenFlow knows them."""
        return tuple(placed.flow for placed in self.placed.values())

    def stage(self, change: Change) -> Staged:
        """Bookkeep a change and tell what to write. Raises `Refused`, and then nothing has changed."""
        lowered = [(flow, lower(flow)) for flow in {flow.key: flow for flow in change.put}.values()]
        leaving = [
            key
            for key in dict.fromkeys((*change.remove, *(flow.key for flow, _ in lowered)))
            if key in self.placed
        ]
        self._check_room(lowered, leaving)
        work = _Work(self, self.version + 1)
        arrivals = work.place(lowered)
        for key in leaving:
            work.remove(self.placed.pop(key))
        for placed in arrivals:
            work.add(placed)
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

    def finish(self, staged: Staged) -> None:
        """The grace period is over: the slots of retired rules and dead keys may be used again."""
        for placed in staged.retired:
            self.release(placed)
        for mask, words, entry in staged.dead_keys:
            self._entries.give_back(entry)
            del self.slots[mask, words]
            use = self.uses[mask]
            use.slots -= 1
            if not use.slots:
                del self.uses[mask], self.masks[use.key]
                self.tables[use.key[0]].remove(mask)
                self._mask_numbers.give_back(mask)

    def flooding(self) -> tuple[Flow, ...]:
        """Flows that output to every port: put them again when a port comes or goes."""
        every = PortList(None)
        return tuple(placed.flow for placed in self.placed.values() if every in placed.lowered.actions)

    def port_lists(self, form: Lowered) -> list[tuple[int, ...]]:
        """The ports of each of a flow's port lists."""
        lists = [action.ports for action in form.actions if isinstance(action, PortList)]
        return [self.ports if ports is None else ports for ports in lists]

    def place(self, flow: Flow, form: Lowered) -> Placed:
        """Take a rule number, an action range and output lists for a flow. Raises `Full`, holding nothing."""
        rule = self._rules.take()
        ranges = [(self._actions, len(form.actions))]
        ranges += [(self._lists, len(ports) + 1) for ports in self.port_lists(form)]
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
        return Placed(flow, form, rule, first, tuple((start, length) for _, start, length in lists))

    def release(self, placed: Placed) -> None:
        """Give back what `place` took."""
        self._rules.give_back(placed.rule)
        self._actions.give_back(placed.first_action, len(placed.lowered.actions))
        for start, length in placed.lists:
            self._lists.give_back(start, length)

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

    def adopt(
        self,
        rules: Mapping[int, tuple[Flow, int, tuple[tuple[int, int], ...]]],
        masks: Mapping[MaskKey, int],
        entries: Mapping[tuple[int, Words], tuple[int, list[tuple[int, int]]]],
        banks: list[dict[int, tuple[tuple[int, int], ...]]],
    ) -> None:
        """Take over what the maps hold.

        `rules`: by number, (flow, first action, output lists); `masks` by (table, mask words);
        `entries`: by (mask number, words), (entry number, its two variants); `banks` as read.
        """
        for mask_key, number in masks.items():
            self._use(mask_key, number)
        self.banks = banks
        for (mask, words), (entry, shown) in entries.items():
            self.slots[mask, words] = Slot(entry, [], shown)
            self.uses[mask].slots += 1
        for number, (flow, first, lists) in rules.items():
            form = lower(flow)
            placed = self.placed[flow.key] = Placed(flow, form, number, first, lists)
            mask = self.masks[flow.table, form.mask]
            self.uses[mask].add(flow.priority)
            slot = self.slots[mask, form.words]
            slot.flows.append(placed)
            slot.flows.sort(key=lambda p: -p.flow.priority)
        self._rules.claim(set(rules))
        self._entries.claim({entry for entry, _ in entries.values()})
        self._mask_numbers.claim(set(masks.values()))
        self._actions.claim([(p.first_action, len(p.lowered.actions)) for p in self.placed.values()])
        self._lists.claim([held for p in self.placed.values() for held in p.lists])


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

    def remove(self, placed: Placed) -> None:
        mask = self.image.masks[placed.flow.table, placed.lowered.mask]
        slot = self.image.slots[mask, placed.lowered.words]
        slot.flows.remove(placed)
        self.image.uses[mask].remove(placed.flow.priority)
        self.touched[mask, placed.lowered.words] = slot
        self.retired.append(placed)

    def place(self, lowered: list[tuple[Flow, Lowered]]) -> list[Placed]:
        """Find room for all new flows, or for none."""
        placed: list[Placed] = []
        try:
            for flow, form in lowered:
                placed.append(self.image.place(flow, form))
        except Full as full:
            for taken in placed:
                self.image.release(taken)
            raise _table_full("no room for the flows' actions") from full
        return placed

    def add(self, placed: Placed) -> None:
        flow, form = placed.flow, placed.lowered
        known = len(self.image.masks)
        mask, slot, new = self.image.slot(flow.table, form)
        if len(self.image.masks) > known:
            self.new_masks.append((mask, (flow.table, form.mask)))
        if new:
            self.new_keys.append((mask, form.words, slot.entry))
        self.image.uses[mask].add(flow.priority)
        slot.flows.append(placed)
        slot.flows.sort(key=lambda p: -p.flow.priority)
        self.image.placed[flow.key] = placed
        self.touched[mask, form.words] = slot
        self.rules.append(placed)
        self.lists += zip((start for start, _ in placed.lists), self.image.port_lists(form), strict=True)

    def staged(self) -> Staged:
        self.image.version = self.version
        return Staged(
            self.version,
            tuple(self.new_masks),
            tuple(self.lists),
            tuple(self.rules),
            tuple(self.new_keys),
            tuple(write for slot in self.touched.values() if (write := self._show(slot))),
            tuple(self._bank()),
            tuple(self.retired),
            tuple(
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

    def _bank(self) -> list[tuple[int, tuple[tuple[int, int], ...]]]:
        """Bring the next version's bank up to the other one, then to this change."""
        bank, wanted = self.image.banks[self.version & 1], dict(self.image.banks[~self.version & 1])
        for table in {self.image.uses[mask].key[0] for mask, _ in self.touched}:
            wanted[table] = self.image.search_order(table)
        self.image.banks[self.version & 1] = wanted
        return [(table, masks) for table, masks in sorted(wanted.items()) if bank.get(table, ()) != masks]


def _table_full(why: str) -> Refused:
    return Refused(ErrorType.FLOW_MOD_FAILED, FlowModFailed.TABLE_FULL, why)
