"""What the classifier's maps hold: which masks each table searches, and which flows lie under them.

Two flows of one table with the same mask and words differ in priority only: the entry shows the
higher one, the other is kept here and takes over when the first goes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from operator import and_

from vnet.openflow.message import ErrorType, FlowModFailed
from vnet.switch import abi
from vnet.switch.abi import Kind, Trait
from vnet.switch.datapath import FlowKey, Refused
from vnet.switch.lower import ALWAYS, Lowered, Reads, beyond, traits, union
from vnet.switch.placed import EntryWrite, MaskKey, Masks, Placed, Variants, Words, show
from vnet.switch.pool import Numbers


@dataclass(slots=True)
class Slot:
    """All flows of one (mask, words), highest priority first, and the entry that shows the first."""

    entry: int
    flows: list[Placed] = field(default_factory=list)
    shown: Variants = field(default_factory=lambda: [(0, 0), (0, 0)])

    def add(self, placed: Placed) -> None:
        """A flow more."""
        self.flows.append(placed)
        self.flows.sort(key=lambda p: -p.flow.priority)

    def show(self, version: int) -> EntryWrite | None:
        """Let the best flow take over from `version` on; None if it is the one that is shown."""
        rule = self.flows[0].rule if self.flows else 0
        if max(self.shown)[1] == rule and max(self.shown)[0]:
            return None
        return EntryWrite(self.entry, show(self.shown, version, rule), rule, version)


@dataclass(slots=True)
class MaskUse:
    """What lies under one mask: how many slots, and how many flows: in all, of each priority, by traits."""

    key: MaskKey
    slots: int = 0
    flows: int = 0
    priorities: Counter[int] = field(default_factory=Counter)
    wants: Counter[Trait] = field(default_factory=Counter)
    top: int = -1
    """The highest priority, -1 when no flow is left."""

    @property
    def traits(self) -> Trait:
        """What all flows ask for."""
        return reduce(and_, self.wants)

    def add(self, priority: int, wanted: Trait) -> None:
        """A flow more."""
        self.flows += 1
        self.wants[wanted] += 1
        self.priorities[priority] += 1
        self.top = max(self.top, priority)

    def remove(self, priority: int, wanted: Trait) -> None:
        """A flow less; costs a look at all priorities if it was the last of the highest."""
        self.flows -= 1
        self.wants[wanted] -= 1
        if not self.wants[wanted]:
            del self.wants[wanted]
        self.priorities[priority] -= 1
        if not self.priorities[priority]:
            del self.priorities[priority]
            if priority == self.top:
                self.top = max(self.priorities, default=-1)


class Classifier:
    """Mutable bookkeeping of masks, keys and of what rules ask for."""

    def __init__(self) -> None:
        self.masks: dict[MaskKey, int] = {}
        self.slots: dict[tuple[int, Words], Slot] = {}
        """By (mask number, words)."""
        self._uses: dict[int, MaskUse] = {}
        """By mask number."""
        self._tables: dict[int, set[int]] = {}
        """The mask numbers of each table."""
        self._action_reads: Counter[Reads] = Counter()
        self._reads: Reads | None = None
        """What all rules ask for, None while it has to be found out."""
        self._mask_numbers = Numbers(0, abi.MASKS)
        self._entries = Numbers(0, abi.RULES)

    # -- room --------------------------------------------------------------------------------------

    def check_room(self, arriving: Iterable[MaskKey], leaving: Iterable[MaskKey]) -> None:
        """Refuse flows under more masks than can be searched; each mask of a flow stands for that flow."""
        flows = Counter(arriving)
        flows.subtract(leaving)
        masks = {table: len(self._tables.get(table, ())) for table, _ in flows}
        for key, more in flows.items():
            before = self._uses[self.masks[key]].flows if key in self.masks else 0
            masks[key[0]] += (before + more > 0) - (before > 0)
        for table, count in masks.items():
            if count > abi.TABLE_MASKS:
                raise table_full(f"table {table} would search {count} masks; {abi.TABLE_MASKS} are allowed")
        if len(self.masks) + sum(key not in self.masks for key in flows) > abi.MASKS:
            raise table_full(f"more than {abi.MASKS} masks in all tables")

    def mask(self, key: MaskKey) -> tuple[int, bool]:
        """The number of a mask, and whether it is new."""
        if key in self.masks:
            return self.masks[key], False
        number = self._mask_numbers.take()
        self._use(key, number)
        return number, True

    def slot(self, mask: int, words: Words) -> tuple[Slot, bool]:
        """The slot of a mask and words, and whether it is new."""
        slot = self.slots.get((mask, words))
        if slot is not None:
            return slot, False
        slot = self.slots[mask, words] = Slot(self._entries.take())
        self._uses[mask].slots += 1
        return slot, True

    def _use(self, key: MaskKey, number: int) -> None:
        self.masks[key] = number
        self._uses[number] = MaskUse(key)
        self._tables.setdefault(key[0], set()).add(number)

    def release(self, mask: int, words: Words) -> None:
        """Give back a slot without flows, and its mask with the last one."""
        self._entries.give_back(self.slots.pop((mask, words)).entry)
        use = self._uses[mask]
        use.slots -= 1
        if not use.slots:
            del self._uses[mask], self.masks[use.key]
            self._tables[use.key[0]].remove(mask)
            self._mask_numbers.give_back(mask)

    # -- flows -------------------------------------------------------------------------------------

    def add(self, placed: Placed) -> None:
        """A flow more, whose mask and slot are there."""
        mask, slot = self.where(placed)
        slot.add(placed)
        self._count_use(mask, placed, 1)
        self.count_reads(placed.lowered.reads, 1)

    def remove(self, placed: Placed) -> None:
        """A flow less; its slot stays until it is released."""
        mask, slot = self.where(placed)
        slot.flows.remove(placed)
        self._count_use(mask, placed, -1)
        self.count_reads(placed.lowered.reads, -1)

    def where(self, placed: Placed) -> tuple[int, Slot]:
        """The number of a flow's mask, and its slot."""
        mask = self.masks[mask_key(placed.flow.table, placed.lowered)]
        return mask, self.slots[mask, placed.lowered.words]

    def search_order(self, table: int) -> Masks:
        """The masks of a table in use with their flows' highest priority, highest first."""
        used = [(number, self._uses[number]) for number in self._tables.get(table, ())]
        found = [(number, use.top, use.traits) for number, use in used if use.flows]
        return tuple(sorted(found, key=lambda each: (-each[1], each[0])))

    def table_of(self, mask: int) -> int:
        """The table that a mask belongs to."""
        return self._uses[mask].key[0]

    def beyond(self, masks: Masks) -> Kind:
        """The kinds of packets of which some mask asks for what is not in the flow cache's key."""
        kinds = Kind(0)
        for number, _, _ in masks:
            kinds |= beyond(self._uses[number].key[1])
        return kinds

    # -- what is asked for --------------------------------------------------------------------------

    def _count_use(self, mask: int, placed: Placed, by: int) -> None:
        use = self._uses[mask]
        before = use.flows
        count = use.add if by > 0 else use.remove
        count(placed.flow.priority, traits(placed.lowered.mask, placed.lowered.words))
        if not before or not use.flows:
            self._reads = None

    def count_reads(self, reads: Reads, by: int) -> None:
        """A list of actions more (1) or less (-1) that asks for these bits."""
        before = self._action_reads[reads]
        self._action_reads[reads] += by
        if not self._action_reads[reads]:
            del self._action_reads[reads]
        if not before or before + by == 0:
            self._reads = None

    @property
    def reads(self) -> Reads:
        """The bits of the flow cache's key that some rule in force asks for."""
        if self._reads is None:
            masks = (dict(use.key[1]) for use in self._uses.values() if use.flows)
            asked = (tuple(mask.get(word, 0) for word in range(abi.CACHE_WORDS)) for mask in masks)
            self._reads = union([ALWAYS, *asked, *self._action_reads])
        return self._reads

    # -- adoption ----------------------------------------------------------------------------------

    def adopt(
        self, masks: Mapping[MaskKey, int], entries: Mapping[tuple[int, Words], tuple[int, Variants]]
    ) -> None:
        """Take over what the maps hold: mask numbers; by (mask number, words), (entry, its variants)."""
        for key, number in masks.items():
            self._use(key, number)
        for (mask, words), (entry, shown) in entries.items():
            self.slots[mask, words] = Slot(entry, [], shown)
            self._uses[mask].slots += 1
        self._mask_numbers.claim(set(masks.values()))
        self._entries.claim({entry for entry, _ in entries.values()})


def mask_key(table: int, form: Lowered) -> MaskKey:
    """The mask under which a flow of `table` lies."""
    return table, form.mask


def table_full(why: str, key: FlowKey | None = None) -> Refused:
    """The refusal of flows that do not fit."""
    return Refused(ErrorType.FLOW_MOD_FAILED, FlowModFailed.TABLE_FULL, why, key)
