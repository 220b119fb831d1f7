"""How the dataplane turns a packet's key into a path, written plainly, for rules as `lower` makes them.

A path is what the flow cache remembers: whole fields to write, ports to send to. It may be taken by every
packet whose key has the same bits where some rule reads; that is what `test_reads` tries.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from vnet.openflow.flow import Flow
from vnet.switch import abi
from vnet.switch.abi import Kind, Need, Op, Word
from vnet.switch.datapath import Change
from vnet.switch.image import Image
from vnet.switch.lower import Lowered
from vnet.switch.lower_actions import Lowerable, PortList, Record
from vnet.switch.staging import stage

Key = tuple[int, ...]
_ALL = (1 << 64) - 1
_PRESENT = 0x1000

IPV4, IPV6, ARP, MPLS = 0x0800, 0x86DD, 0x0806, 0x8847
TCP, UDP, ICMPV4, ICMPV6, SCTP = 6, 17, 1, 58, 132


@dataclass(frozen=True, slots=True)
class Write:
    """The bits `mask` of a word get a value."""

    word: int
    mask: int
    value: int


@dataclass(frozen=True, slots=True)
class Send:
    """The packet as it is now leaves by a port."""

    port: int


Step = Write | Send


@dataclass(slots=True)
class _Walk:
    key: list[int]
    base: list[int]
    steps: list[Step] = field(default_factory=list)
    cacheable: bool = True
    written: dict[int, Sequence[Lowerable]] = field(default_factory=dict)


class Rules:
    """Rules in force, lowered."""

    def __init__(self, flows: Iterable[Flow]) -> None:
        staged = stage(Image(), Change(tuple(flows)))
        assert staged.reads is not None
        self.reads = staged.reads
        self._beyond = {bank.table: bank.beyond for bank in staged.tables}
        self._rules = sorted(staged.rules, key=lambda placed: -placed.flow.priority)

    def path(self, key: Key) -> tuple[tuple[Step, ...], bool]:
        """What becomes of a packet, and whether the cache may remember it."""
        walk, table = _Walk(list(key), list(key)), 0
        while (form := self._match(walk, table)) is not None:
            _carry_out(walk, form.actions)
            if form.goto == abi.NO_TABLE:
                for _, records in sorted(walk.written.items()):
                    _carry_out(walk, records)
                break
            table = form.goto
        return tuple(walk.steps), walk.cacheable

    def _match(self, walk: _Walk, table: int) -> Lowered | None:
        if self._beyond.get(table, Kind(0)) & _kinds(walk.base):
            walk.cacheable = False
        for placed in self._rules:
            form, words = placed.lowered, placed.lowered.words
            pairs = zip(form.mask, words, strict=True)
            if placed.flow.table == table and all(walk.key[w] & bits == value for (w, bits), value in pairs):
                return form
        return None


def follow(steps: Iterable[Step], key: Key) -> Iterator[tuple[int, Key]]:
    """What leaves, and where, if a packet takes a path."""
    now = list(key[: abi.CACHE_WORDS])
    for step in steps:
        match step:
            case Write(word, mask, value):
                now[word] = now[word] & ~mask | value
            case Send(port):
                yield port, tuple(now)


def _carry_out(walk: _Walk, records: Sequence[Lowerable]) -> None:
    rest = list(records)
    while rest:
        record = rest.pop(0)
        if isinstance(record, PortList):
            for port in record.ports:
                _send(walk, port)
            continue
        assert isinstance(record, Record), record
        if record.op is Op.WRITE:
            walk.written[record.a], rest = rest[: record.b], rest[record.b :]
        else:
            _act(walk, record)


def _act(walk: _Walk, record: Record) -> None:
    match record.op:
        case Op.OUTPUT:
            _send(walk, record.b)
        case Op.OUTPUT_FIELD:
            walk.cacheable &= not _is_beyond(record.a)
            _send(walk, walk.key[record.a] >> record.b & record.mask)
        case Op.SET:
            if _has(walk.key, record.b):
                _write(walk, record.a, record.value, record.mask)
        case Op.MOVE:
            _move(walk, record)
        case Op.POP_VLAN:
            walk.key[Word.DST] &= ~0xFFFF
        case Op.CLEAR:
            walk.written.clear()
        case _:
            raise AssertionError(record)


def _move(walk: _Walk, record: Record) -> None:
    source, target = record.a & 0xFF, record.a >> 8
    from_shift, to_shift, bits = record.b & 0xFF, record.b >> 8 & 0xFF, record.b >> 16
    walk.cacheable &= not _is_beyond(source)
    found = walk.key[source] >> from_shift if _has(walk.key, record.value & 0xFF) else 0
    mask = (1 << bits) - 1
    if _has(walk.key, record.value >> 8):
        _write(walk, target, (found & mask) << to_shift, mask << to_shift)


def _write(walk: _Walk, word: int, value: int, mask: int) -> None:
    mask &= ~_PRESENT if word == Word.DST else _ALL
    walk.cacheable &= not _is_beyond(word)
    walk.key[word] = walk.key[word] & ~mask | value & mask


def _send(walk: _Walk, port: int) -> None:
    """Bring the bytes up to the key, whole fields at a time, then send."""
    for word, mask in _fields(walk.key):
        if (walk.key[word] ^ walk.base[word]) & mask:
            walk.steps.append(Write(word, mask, walk.key[word] & mask))
    walk.base[: abi.CACHE_WORDS] = walk.key[: abi.CACHE_WORDS]
    walk.steps.append(Send(port))


def _fields(key: Sequence[int]) -> list[tuple[int, int]]:
    """(word, bits) of what is written together."""
    return [
        *((word, bits) for word in (Word.DST, Word.SRC) for bits in (_ALL - 0xFFFF, 0xFFFF)),
        (Word.PORT, 0xFF0000),
        (Word.PORT, 0xFF000000),
        *((Word.IP_SRC + n, _ALL) for n in range(4)),
        *(
            (Word.L4, bits)
            for bits in ([0xFFFFFFFF << 32] if _is_icmp(key) else [0xFFFF << 48, 0xFFFF << 32])
        ),
        (Word.L4, 0xFFFF),
    ]


def _is_beyond(word: int) -> bool:
    return Word.SHA <= word < Word.METADATA or word >= Word.MORE


def _kinds(key: Sequence[int]) -> Kind:
    ethertype, protocol = _type(key), _protocol(key)
    if ethertype == ARP:
        return Kind.LINK
    if ethertype == MPLS:
        return Kind.MPLS
    if ethertype not in (IPV4, IPV6):
        return Kind(0)
    kinds = Kind.IP | (Kind.IPV6 if ethertype == IPV6 else Kind(0))
    return kinds | (Kind.TCP if protocol == TCP else Kind(0)) | (Kind.LINK if protocol == ICMPV6 else Kind(0))


def _type(key: Sequence[int]) -> int:
    return key[Word.SRC] & 0xFFFF


def _protocol(key: Sequence[int]) -> int:
    return key[Word.PORT] >> 24 & 0xFF


def _is_icmp(key: Sequence[int]) -> bool:
    return (_type(key), _protocol(key)) in ((IPV4, ICMPV4), (IPV6, ICMPV6)) and bool(key[Word.PORT] & 1)


def _has(key: Sequence[int], need: int) -> bool:
    ip = _type(key) in (IPV4, IPV6)
    l4 = ip and bool(key[Word.PORT] & 1)
    icmp_type = key[Word.L4] >> 48 & 0xFF
    discovery = l4 and _type(key) == IPV6 and _protocol(key) == ICMPV6
    return {
        Need.NOTHING: True,
        Need.VLAN: bool(key[Word.DST] & _PRESENT),
        Need.IPV4: _type(key) == IPV4,
        Need.IPV6: _type(key) == IPV6,
        Need.IP: ip,
        Need.ARP: _type(key) == ARP,
        Need.MPLS: _type(key) == MPLS,
        Need.TCP: l4 and _protocol(key) == TCP,
        Need.UDP: l4 and _protocol(key) == UDP,
        Need.SCTP: l4 and _protocol(key) == SCTP,
        Need.ICMP: l4 and _type(key) == IPV4 and _protocol(key) == ICMPV4,
        Need.ICMPV6: discovery,
        Need.ND: discovery and icmp_type in (135, 136),
        Need.ND_SOLICIT: discovery and icmp_type == 135,
        Need.ND_ADVERT: discovery and icmp_type == 136,
    }[Need(need)]
