"""A pinned switch of any version of vnet, read by what the kernel says of its maps."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

from vnet.base.errors import HostError
from vnet.openflow.codec import CodecError, decode
from vnet.openflow.message import FlowMod, GroupMod, Message, MeterMod
from vnet.switch.datapath import Counter, FlowKey
from vnet.switch.live import bpf
from vnet.switch.live.btf import Array, Btf, Form, Record, Struct
from vnet.switch.live.maps import MAPS, PROGRAMS

Counts = FlowKey | tuple[int, int]
"""What a rule counts for: a flow, or (group, bucket), the bucket -1 for the group itself."""


class DescribedSwitch:
    """The maps that a folder has of those this version knows. Nothing is changed by opening it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.map: dict[str, bpf.Map] = {}
        self._types: dict[int, Btf] = {}
        try:
            for name in MAPS:
                if (folder / name).exists():
                    self.map[name] = bpf.Map(bpf.get(folder / name))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close all descriptors."""
        for opened in self.map.values():
            opened.close()
        self.map.clear()

    def program(self, name: str) -> int:
        """A descriptor of one of its programs, to be closed."""
        assert name in PROGRAMS
        return bpf.get(self.folder / name)

    # forms

    def form(self, name: str) -> Form:
        """Of a map's values; of one CPU's, if each has its own."""
        return self._form(name, self.map[name].value_type)

    def key_form(self, name: str) -> Form:
        """Of a map's keys."""
        return self._form(name, self.map[name].key_type)

    def _form(self, name: str, number: int) -> Form:
        types = self.map[name].btf_id
        if not types or not number:
            raise HostError(
                f"the running switch {self.folder.name} does not tell what its map {name} holds: take the "
                "fabric down with the vnet that started it, then up again"
            )
        if types not in self._types:
            self._types[types] = Btf(bpf.btf(types))
        return self._types[types].form(number)

    def struct(self, name: str) -> Struct:
        """The form of a map's values, which are structs."""
        form = self.form(name)
        assert isinstance(form, Struct), name
        return form

    def at(self, name: str, index: int) -> Record:
        """A value of an array of structs."""
        return Record(self.struct(name), self.map[name].index(index) or b"")

    def records(self, name: str, count: int) -> Iterator[Record]:
        """The first so many values of an array of structs, which is not per CPU."""
        form, opened = self.struct(name), self.map[name]
        raw = opened.first(count) if count else b""
        for start in range(0, len(raw), opened.value_size):
            yield Record(form, raw[start : start + opened.value_size])

    # what is in force

    @property
    def layout(self) -> int:
        """The number of its layout."""
        return self.at("control", 0)["layout"]

    @property
    def version(self) -> int:
        """The version in force."""
        return self.at("control", 0)["version"]

    def ports(self) -> dict[int, int]:
        """Interface index by port number; where a port's line ends is not its own."""
        pairs = self._entries()
        return {port: index for index, port in pairs if self.at("ports", port)["ifindex"] == index}

    def line_ends(self) -> dict[int, int]:
        """The interfaces where the lines of ports end, by port number."""
        pairs = self._entries()
        return {port: index for index, port in pairs if self.at("ports", port)["ifindex"] != index}

    def _entries(self) -> list[tuple[int, int]]:
        pairs = self.map["port_by_ifindex"].items()
        return [(int.from_bytes(index, "little"), int.from_bytes(port, "little")) for index, port in pairs]

    def messages(self) -> dict[int, tuple[Message, int]]:
        """By number of the rule: the OpenFlow message in force, and where the maps have what it made."""
        chunks: dict[tuple[int, int], Record] = {}
        form = self.struct("rule_text")
        for key, value in self.map["rule_text"].items():
            number, chunk = struct.unpack("<II", key)
            chunks[number, chunk] = Record(form, value)
        version, found = self.version, {}
        for (number, chunk), head in chunks.items():
            if chunk or head["since"] > version or 0 < head["until"] <= version:
                continue
            try:
                found[number] = decode(_text(chunks, number, head["length"]))[1], head["pad"]
            except (CodecError, KeyError) as error:
                raise HostError(
                    f"the rules of the running switch {self.folder.name} cannot be read back ({error}): take "
                    "the fabric down and up again"
                ) from error
        return found

    def rules(self) -> dict[Counts, int]:
        """The numbers of the rules that count."""
        found: dict[Counts, int] = {}
        for number, (message, place) in self.messages().items():
            if isinstance(message, FlowMod):
                found[message.flow.key] = number
            if isinstance(message, GroupMod):
                group = message.group
                first = self.at("groups", place & 0xFFFF)["first_bucket"]
                found[group.number, -1] = number
                for bucket in range(len(group.buckets)):
                    found[group.number, bucket] = self.at("buckets", first + bucket)["rule"]
        return found

    def meters(self) -> dict[int, int]:
        """The first of each meter's counters, by its number."""
        form = self.struct("meters").members["bands"][1]
        assert isinstance(form, Array)
        return {
            message.meter.number: (place & 0xFFFF) * (form.count + 1)
            for message, place in self.messages().values()
            if isinstance(message, MeterMod)
        }

    # counters

    def sums(self, name: str, count: int) -> list[tuple[int, ...]]:
        """The numbers of a per-CPU array's first values, over all CPUs."""
        opened, width = self.map[name], self.form(name).size // 8
        raw = opened.first(min(count, opened.max_entries)) if count else b""
        found = []
        for values in struct.iter_unpack(f"<{opened.value_size // 8}Q", raw):
            found.append(tuple(sum(values[field::width]) for field in range(width)))
        return found

    def counted(self) -> list[Counter]:
        """What each rule has counted, as `live.counters` explains."""
        used = 1 + max(self.rules().values(), default=0)
        totals = [list(pair) for pair in self.sums("rule_counters", used)]
        for total, folded in zip(totals, self.records("rule_folded", used), strict=True):
            total[0] += folded["packets"]
            total[1] += folded["bytes"]
        paths = min(self.at("ct_control", 0)["paths"], self.map["path_rules"].max_entries)
        counts = self.sums("path_counters", paths)
        for path, (packets, octets) in zip(self.records("path_rules", paths), counts, strict=True):
            for rule in path.numbers("rules")[: path["n_rules"]] if packets else ():
                if rule < used:
                    totals[rule][0] += packets
                    totals[rule][1] += octets
        return [Counter(packets, octets) for packets, octets in totals]


def _text(chunks: Mapping[tuple[int, int], Record], number: int, length: int) -> bytes:
    """The first so many bytes of a rule's chunks. Raises KeyError if one is missing."""
    text, at = b"", 0
    while len(text) < length:
        text += bytes(chunks[number, at].numbers("bytes"))
        at += 1
    return text[:length]


def layout_of(folder: Path) -> int:
    """The layout number of a pinned switch."""
    if not (folder / "control").exists():
        return 0
    opened = DescribedSwitch(folder)
    try:
        return opened.layout
    finally:
        opened.close()
