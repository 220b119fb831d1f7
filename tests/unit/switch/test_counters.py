"""What rules have counted: the dataplane's part is played by maps in memory."""

from __future__ import annotations

import struct

import pytest

from tests.fakes.memory_maps import MemoryMap, numbers, switch_maps
from vnet.switch import abi
from vnet.switch.datapath import Counter
from vnet.switch.live.counters import RuleCounters

RULES = 8
NOTHING = Counter()


class Dataplane:
    """Counts as `bpf/cache.h` does: for one rule that the tables chose, or for a path of several."""

    def __init__(self) -> None:
        self.maps = switch_maps()
        self.counters = RuleCounters(self.maps)  # type: ignore[arg-type]

    def meets(self, *rules: int, cpu: int = 0, packets: int = 1, octets: int = 100) -> int:
        """A packet takes the path of these rules; the path's number."""
        key = bytes(abi.PathRules(len(rules), (abi.c_uint32 * abi.PATH_RULES)(*rules)))
        known = self.maps["path_index"].lookup(key)
        path = struct.unpack("<I", known)[0] if known else self._new_path(key)
        self._add("path_counters", path, cpu, packets, octets)
        return path

    def _new_path(self, key: bytes) -> int:
        free, control = self.maps["free_paths"].pushed, abi.CtControl.from_buffer_copy(self.control)
        if free:
            path = struct.unpack("<I", free.pop(0))[0]
        else:
            path = control.paths
            control.paths += 1
            self.maps["ct_control"].set(0, bytes(control))
        self.maps["path_rules"].set(path, key)
        self.maps["path_index"].update(key, struct.pack("<I", path))
        return path

    @property
    def control(self) -> bytes:
        return self.maps["ct_control"].index(0) or b""

    def walks(self, *rules: int, cpu: int = 0, packets: int = 1, octets: int = 100) -> None:
        """A packet that the cache does not know is counted for each rule."""
        for rule in rules:
            self._add("rule_counters", rule, cpu, packets, octets)

    def _add(self, name: str, index: int, cpu: int, packets: int, octets: int) -> None:
        counters: MemoryMap = self.maps[name]
        values = list(struct.unpack(f"<{counters.value_size // 8}Q", counters.index(index) or b""))
        values[2 * cpu] += packets
        values[2 * cpu + 1] += octets
        counters.set(index, numbers(*values))

    def counted(self) -> dict[int, Counter]:
        """What has counted at all."""
        return {rule: c for rule, c in enumerate(self.counters.all(RULES)) if c != NOTHING}


@pytest.fixture
def plane() -> Dataplane:
    return Dataplane()


def test_a_rule_counts_what_all_processors_and_all_its_paths_counted(plane: Dataplane) -> None:
    plane.walks(1, 2, cpu=0)
    plane.walks(1, cpu=1, octets=50)
    plane.meets(1, 2, cpu=1, packets=3, octets=300)
    plane.meets(1, 3)
    assert plane.counted() == {1: Counter(6, 550), 2: Counter(4, 400), 3: Counter(1, 100)}


def test_reading_twice_counts_once(plane: Dataplane) -> None:
    plane.meets(1, 2)
    assert plane.counted() == plane.counted()


def test_a_path_that_comes_later_is_learnt(plane: Dataplane) -> None:
    plane.meets(1)
    assert plane.counted() == {1: Counter(1, 100)}
    plane.meets(1, 2)
    assert plane.counted() == {1: Counter(2, 200), 2: Counter(1, 100)}


def test_a_rule_that_met_nothing_has_counted_nothing(plane: Dataplane) -> None:
    assert plane.counters.all(0) == []
    assert plane.counters.all(2) == [NOTHING, NOTHING]
    assert plane.counters.retire([]) == {}
    assert plane.counters.retire([5]) == {5: NOTHING}


def test_rules_above_those_in_use_are_not_told(plane: Dataplane) -> None:
    plane.meets(1, 6)
    assert plane.counters.all(3) == [NOTHING, Counter(1, 100), NOTHING]


def test_paths_of_a_retired_rule_are_folded_into_those_that_stay(plane: Dataplane) -> None:
    plane.meets(1, 2, packets=3, octets=300)
    plane.walks(1, 2)
    assert plane.counters.retire([2]) == {2: Counter(4, 400)}
    assert plane.counted()[1] == Counter(4, 400)
    plane.meets(1, packets=2, octets=200)
    assert plane.counted()[1] == Counter(6, 600)


def test_paths_of_other_rules_stay_as_they_are(plane: Dataplane) -> None:
    kept = plane.meets(1, 3)
    plane.meets(1, 2)
    plane.counters.retire([2])
    assert plane.maps["path_counters"].index(kept) == numbers(1, 100, 0, 0)
    assert len(list(plane.maps["path_index"].keys())) == 1
    assert plane.counted()[3] == Counter(1, 100)


def test_a_folded_paths_number_is_used_again_and_counts_for_its_new_rules_only(plane: Dataplane) -> None:
    first = plane.meets(1, 2, packets=5, octets=500)
    plane.counters.retire([2])
    assert plane.maps["free_paths"].pushed == [struct.pack("<I", first)]
    assert plane.meets(1, 4) == first
    assert plane.counted() == {1: Counter(6, 600), 2: Counter(5, 500), 4: Counter(1, 100)}


def test_several_rules_of_one_path_retire_together_and_fold_it_once(plane: Dataplane) -> None:
    plane.meets(1, 2, 3, packets=2, octets=200)
    assert plane.counters.retire([2, 3]) == {2: Counter(2, 200), 3: Counter(2, 200)}
    assert plane.counted()[1] == Counter(2, 200)
    assert len(plane.maps["free_paths"].pushed) == 1


def test_a_rule_that_a_packet_met_twice_has_counted_it_twice(plane: Dataplane) -> None:
    plane.meets(1, 2, 1)
    assert plane.counted() == {1: Counter(2, 200), 2: Counter(1, 100)}
    assert plane.counters.retire([2]) == {2: Counter(1, 100)}
    assert plane.counted()[1] == Counter(2, 200)


def test_a_successor_goes_on_from_where_its_predecessor_was(plane: Dataplane) -> None:
    plane.walks(1)
    plane.meets(1, 2)
    plane.counters.carry_over(3, plane.counters.retire([1])[1])
    plane.meets(3, 2)
    assert plane.counted()[3] == Counter(3, 300)
    plane.counters.carry_over(3, Counter(1, 1))
    assert plane.counted()[3] == Counter(4, 301)


def test_an_agent_that_starts_anew_counts_the_same(plane: Dataplane) -> None:
    plane.walks(1)
    plane.meets(1, 2)
    plane.counters.retire([2])
    plane.meets(1, 3)
    before = plane.counted()
    plane.counters = RuleCounters(plane.maps)  # type: ignore[arg-type]
    assert plane.counted() == before
    assert plane.counters.retire([3]) == {3: Counter(1, 100)}


def test_paths_beyond_what_the_array_holds_are_not_looked_for(
    plane: Dataplane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dataplane goes on asking for new numbers when there are none."""
    plane.meets(1)
    monkeypatch.setattr(abi, "PATHS", 1)
    plane.maps["ct_control"].set(0, bytes(abi.CtControl(paths=5)))
    plane.maps["path_rules"].max_entries = plane.maps["path_counters"].max_entries = 1
    assert plane.counted() == {1: Counter(1, 100)}


def test_a_path_is_given_back_once_however_often_its_rules_numbers_retire(plane: Dataplane) -> None:
    """Else two lists of rules would share one number, and one of them count for the other."""
    plane.meets(1, 2, packets=2, octets=200)
    assert [plane.counters.retire([rule])[rule] for rule in (2, 1)] == [Counter(2, 200)] * 2
    assert plane.counters.retire([2]) == {2: Counter(2, 200)}, "its number was not used again meanwhile"
    assert len(plane.maps["free_paths"].pushed) == 1
