"""What rules have counted. A packet that the flow cache decides is counted once, for the list of rules
(the path) that it stands for; a packet that the tables decide is counted for each rule.

A rule's count is the sum of three: what it counted itself, what the paths counted that it is part of,
and what was folded from paths that are gone (`rule_folded`, which only the agent writes).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

from vnet.switch import abi
from vnet.switch.datapath import Counter
from vnet.switch.live.bpf import Map


class RuleCounters:
    """Reads and keeps the counters of rules. Call from one thread."""

    def __init__(self, maps: Mapping[str, Map]) -> None:
        self._map = maps
        self._rules: dict[int, tuple[int, ...]] = {}
        """The rules of each path, by its number."""
        self._paths: dict[int, set[int]] = {}
        """The paths that each rule is part of."""

    def all(self, used: int) -> list[Counter]:
        """By rule number, 0…used-1."""
        own = _sums(self._map["rule_counters"], used)
        folded = list(struct.iter_unpack("<QQ", self._map["rule_folded"].first(used)))
        totals = [[a + c, b + d] for (a, b), (c, d) in zip(own, folded, strict=True)]
        self._learn()
        counted = self._counted()
        for path, rules in self._rules.items():
            packets, octets = counted[path]
            for rule in rules if packets else ():
                if rule < used:
                    totals[rule][0] += packets
                    totals[rule][1] += octets
        return [Counter(packets, octets) for packets, octets in totals]

    def retire(self, rules: Iterable[int]) -> dict[int, Counter]:
        """What these rules have counted, and let go of the paths that they were part of.

        No packet may be able to meet them any more.
        """
        gone = set(rules)
        if not gone:
            return {}
        self._learn()
        for path in {path for rule in gone for path in self._paths.get(rule, ())}:
            self._fold(path)
        return {rule: self._single(rule) for rule in gone}

    def carry_over(self, rule: int, counter: Counter) -> None:
        """Let a rule go on counting from here."""
        raw = self._map["rule_folded"].index(rule) or bytes(16)
        packets, octets = struct.unpack("<QQ", raw)
        total = struct.pack("<QQ", packets + counter.packets, octets + counter.bytes)
        self._map["rule_folded"].set(rule, total)

    def _single(self, rule: int) -> Counter:
        """The count of a rule that is part of no path."""
        own = struct.iter_unpack("<QQ", self._map["rule_counters"].index(rule) or b"")
        folded = struct.unpack("<QQ", self._map["rule_folded"].index(rule) or bytes(16))
        parts = [*own, folded]
        return Counter(sum(part[0] for part in parts), sum(part[1] for part in parts))

    def _fold(self, path: int) -> None:
        """Give a path's count to its rules, and its number back to the dataplane."""
        raw = self._map["path_counters"].index(path) or b""
        counted = list(struct.iter_unpack("<QQ", raw))
        total = Counter(sum(part[0] for part in counted), sum(part[1] for part in counted))
        rules = self._rules.pop(path)
        for rule in rules:
            self._paths[rule].discard(path)
            if total.packets:
                self.carry_over(rule, total)
        self._map["path_counters"].set(path, bytes(len(raw)))
        self._map["path_rules"].set(path, bytes(self._map["path_rules"].value_size))
        self._map["path_index"].delete(_pack_path(rules))
        self._map["free_paths"].push(struct.pack("<I", path))

    def _learn(self) -> None:
        """Which rules the paths stand for that have come since."""
        used = self._used()
        raw = self._map["path_rules"].first(used) if used else b""
        size = self._map["path_rules"].value_size
        for path in range(used):
            if path in self._rules:
                continue
            stored = abi.PathRules.from_buffer_copy(raw, path * size)
            if stored.n_rules:
                self._rules[path] = rules = tuple(stored.rules[: stored.n_rules])
                for rule in rules:
                    self._paths.setdefault(rule, set()).add(path)

    def _used(self) -> int:
        control = abi.CtControl.from_buffer_copy(self._map["ct_control"].index(0) or b"")
        return min(int(control.paths), abi.PATHS)

    def _counted(self) -> list[tuple[int, int]]:
        used = self._used()
        return _sums(self._map["path_counters"], used) if used else []


def _pack_path(rules: tuple[int, ...]) -> bytes:
    """`struct vnet_path_rules`."""
    padding = [0] * (abi.PATH_RULES - len(rules))
    return struct.pack(f"<I{abi.PATH_RULES}II", len(rules), *rules, *padding, 0)


def _sums(counters: Map, used: int) -> list[tuple[int, int]]:
    """Packets and bytes over all CPUs, of the first `used` counters."""
    if not used:
        return []
    raw = counters.first(used)
    values = struct.iter_unpack(f"<{counters.value_size // 8}Q", raw)
    return [(sum(numbers[::2]), sum(numbers[1::2])) for numbers in values]
