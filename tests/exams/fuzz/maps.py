"""What a restarted agent reads out of the maps is what was committed, refused changes in between or not.

A piece of rubbish in the maps is refused in words, or what is adopted is what had been committed: never is
something else believed to be in force, and nothing ends in a traceback.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import ClassVar, Self

from tests.bpf.bench import Bench
from tests.exams.fuzz.case import Step, Steps
from tests.exams.fuzz.mutate import mutated
from tests.fakes.memory_maps import MemoryMap
from tests.net.twin_generator import Program, programs
from tests.unit.switch.test_adoption import known
from tests.unit.switch.written import Switch
from vnet.base.errors import HostError
from vnet.openflow.codec import CodecError, decode, encode
from vnet.openflow.flow import Flow, Instructions, Match, Output, SetField, match
from vnet.openflow.group import ALL_GROUPS, ALL_METERS, Band, BandType, Group, GroupType, Meter, MeterFlag
from vnet.openflow.message import (
    FlowCommand,
    FlowMod,
    GroupCommand,
    GroupMod,
    Message,
    MeterCommand,
    MeterMod,
)
from vnet.switch import abi
from vnet.switch.datapath import Change, Refused
from vnet.switch.draft import Draft, Mod, Tables, tables
from vnet.switch.image import Image
from vnet.switch.live import adoption

_READ = (
    *("rule_text", "rule_text", "rule_text", "rules", "actions", "groups", "buckets", "meters", "masks"),
    *("tables", "rule_index", "outputs", "entries", "group_entries", "meter_entries", "control"),
)
"""The maps that adoption reads; texts are the largest part."""
_MOST_COMMITS = 6
_MOST_MODS = 12
_FIRST = 40
"""Of an array the indexes that small programs use."""


class Maps:
    """The part, with maps that are memory: these may be spoiled."""

    name: ClassVar[str] = "maps"
    spoils: ClassVar[bool] = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        """Nothing to let go."""

    def steps(self, dice: random.Random) -> Steps:
        program, steps = programs(dice), list[Step]()
        for _ in range(dice.randint(1, _MOST_COMMITS)):
            mods = (_mod(dice, program) for _ in range(dice.randint(1, _MOST_MODS)))
            steps.append(("commit", *(encode(mod, 0).hex() for mod in mods)))
            if not dice.randrange(3):
                steps.append(("restart",))
        if self.spoils:
            steps.append(("spoil", dice.choice(_READ), str(dice.getrandbits(32))))
        return *steps, ("restart",)

    def fault(self, steps: Steps) -> str | None:
        self._begin()
        there, spoiled = tables((), (), (), 0.0), False
        for number, (word, *rest) in enumerate(steps):
            if word == "commit":
                found = self._commit(there, rest)
            elif word == "spoil":
                spoiled, found = True, _spoil(self._switch.maps, *rest)
            else:
                found, adopted = self._adopt(there, spoiled)
                if not adopted:
                    return found
            if found:
                return f"step {number}: {found}"
        return None

    def _begin(self) -> None:
        """A switch that has nothing."""
        self._switch: Switch = Switch()

    def _commit(self, there: Tables, mods: list[str]) -> str | None:
        """As the agent does: what its own checks refuse is left out, the rest is one change."""
        draft = Draft(there, 0.0)
        for text in mods:
            with suppress(CodecError, Refused):
                _, mod = decode(bytes.fromhex(text))
                assert isinstance(mod, Mod)
                draft.apply(mod)
        try:
            self._switch.commit(draft.change())
        except Refused:
            draft.rollback()
        return _differs(self._switch.image, there)

    def _adopt(self, there: Tables, spoiled: bool) -> tuple[str | None, bool]:
        """What is wrong, and whether it was adopted."""
        before = known(self._switch.image)
        try:
            self._switch.restart()
        except HostError as error:
            return None if spoiled else f"not adopted: {error}", False
        after = known(self._switch.image)
        if not spoiled and after != before:
            return f"adopted {after} instead of {before}", False
        return _differs(self._switch.image, there, spoiled), True


class _Kernel:
    """A switch in the kernel, as one in memory is used."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    @property
    def image(self) -> Image:
        return self._bench.datapath._image

    def commit(self, change: Change) -> None:
        self._bench.datapath.commit(change)

    def restart(self) -> None:
        """By far the largest part of a real one is to open what is pinned."""
        datapath = self._bench.datapath
        datapath._image = adoption.read(datapath._map, datapath._image.ports)


class EbpfMaps(Maps):
    """The part, with maps in the kernel."""

    name: ClassVar[str] = "maps-ebpf"
    spoils: ClassVar[bool] = False

    def __init__(self) -> None:
        self._bench = Bench(1)

    def __enter__(self) -> Self:
        self._bench.__enter__()
        return self

    def __exit__(self, *details: object) -> None:
        self._bench.__exit__(None, None, None)

    def _begin(self) -> None:
        self._bench.load(())
        self._switch = _Kernel(self._bench)  # type: ignore[assignment]


def _differs(image: Image, there: Tables, spoiled: bool = False) -> str | None:
    """Of what is in force and what was committed.

    Of a flow that no packet meets, because there is one like it of a higher priority, there is only a text:
    if that is gone, nothing tells that it was there.
    """
    hidden = set(_hidden(there)) if spoiled else set()
    wanted: tuple[set[object], ...] = (
        {entry.flow for entry in there.flows},
        {held.value for held in there.groups.select(ALL_GROUPS)},
        {held.value for held in there.meters.select(ALL_METERS)},
    )
    found: tuple[set[object], ...] = (
        set(image.flows),
        {placed.group for placed in image.groups.values()},
        {placed.meter for placed in image.meters.values()},
    )
    for kind, one, other in zip(("flows", "groups", "meters"), found, wanted, strict=True):
        if one - other or other - one - hidden:
            return f"{kind} in force {one - other}, committed {other - one}"
    return None


def _hidden(there: Tables) -> Iterator[object]:
    best: dict[tuple[int, Match], int] = {}
    for entry in there.flows:
        place = entry.flow.table, entry.flow.match
        best[place] = max(entry.flow.priority, best.get(place, 0))
    for entry in there.flows:
        if entry.flow.priority < best[entry.flow.table, entry.flow.match]:
            yield entry.flow


# -- changes --------------------------------------------------------------------------------------


def _mod(dice: random.Random, program: Program) -> Message:
    """Of few flows, groups and meters, so that they meet again; at times one that is refused."""
    kind = dice.randrange(10)
    if kind < 2:
        group = dice.choice(program.groups or (Group(1, GroupType.ALL),))
        return GroupMod(dice.choice((*GroupCommand, GroupCommand.ADD, GroupCommand.ADD)), group)
    if kind < 4:
        return MeterMod(dice.choice((*MeterCommand, MeterCommand.ADD)), _meter(dice))
    return FlowMod(dice.choice((*FlowCommand, FlowCommand.ADD, FlowCommand.ADD)), _flow(dice, program))


def _meter(dice: random.Random) -> Meter:
    band = Band(BandType.DROP, dice.choice((1, 1000)), dice.choice((0, 100)))
    bands = (band,) * dice.choice((1, 1, 2, abi.BANDS + 1))
    return Meter(
        dice.randrange(1, 4), dice.choice((MeterFlag.KBPS, MeterFlag.PKTPS | MeterFlag.STATS)), bands
    )


def _flow(dice: random.Random, program: Program) -> Flow:
    kind = dice.randrange(12)
    if kind == 0:
        return Flow(
            0, dice.randrange(9), match(in_port=1), Instructions((Output(1),), meter=dice.randrange(1, 4))
        )
    if kind == 1:  # more than a rule can hold
        return Flow(0, 1, match(in_port=2), Instructions((SetField("reg0", 1), Output(1)) * 150))
    flow = dice.choice(program.flows)
    timeouts = {"idle_timeout_s": dice.choice((0, 30)), "hard_timeout_s": dice.choice((0, 300))}
    return replace(flow, cookie=dice.choice((0, 7, 0x7640 << 48)), flags=dice.choice((0, 1)), **timeouts)


# -- rubbish --------------------------------------------------------------------------------------


def _spoil(maps: dict[str, MemoryMap], name: str, seed: str) -> None:
    """Of the control cell all but the version: that is what says what is in force."""
    version = maps["control"].lookup(bytes(4)) or b""
    _rot(maps[name], random.Random(seed))
    maps["control"].set(0, version[:4] + (maps["control"].lookup(bytes(4)) or b"")[4:])


def _rot(spoiled: MemoryMap, dice: random.Random) -> None:
    """Change, replace or remove one of a map's values; or one comes that was not there."""
    keys = sorted(spoiled.keys()) or [bytes(spoiled.key_size)]
    key, is_hash = dice.choice(keys), not spoiled.max_entries
    if not is_hash and dice.randrange(4) == 0:
        key = dice.randrange(min(_FIRST, spoiled.max_entries)).to_bytes(4, "little")
    before = spoiled.lookup(key) or bytes(spoiled.value_size)
    kind = dice.randrange(6)
    if is_hash and kind == 0:
        spoiled.delete(key)
    elif is_hash and kind == 1:
        spoiled.update(_sized(mutated(dice, key), spoiled.key_size), before)
    elif kind == 2:
        spoiled.update(
            key, dice.choice((bytes(len(before)), b"\xff" * len(before), dice.randbytes(len(before))))
        )
    elif kind == 3:
        spoiled.update(key, spoiled.lookup(dice.choice(keys)) or before)
    else:
        spoiled.update(key, _sized(mutated(dice, before), len(before)))


def _sized(data: bytes, size: int) -> bytes:
    return data[:size].ljust(size, b"\0")
