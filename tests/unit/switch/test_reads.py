"""A path serves every packet that is alike where rules read: what no rule reads decides nothing."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.unit.switch.paths import (
    ARP,
    ICMPV4,
    ICMPV6,
    IPV4,
    IPV6,
    MPLS,
    SCTP,
    TCP,
    UDP,
    Key,
    Rules,
    Send,
    Write,
    follow,
)
from vnet.openflow.fields import FIELDS, ORIGINAL
from vnet.openflow.flow import (
    Action,
    Conntrack,
    Flow,
    Instructions,
    Match,
    Move,
    Output,
    OutputField,
    PopVlan,
    PushVlan,
    SetField,
    ToGroup,
    match,
)
from vnet.openflow.group import Bucket, Group, GroupType
from vnet.switch import abi
from vnet.switch.abi import Kind, Trait, Word
from vnet.switch.datapath import Change
from vnet.switch.image import Image
from vnet.switch.lower import (
    ALWAYS,
    FLOW,
    NOTHING,
    Reads,
    beyond,
    lower,
    lower_group,
    lower_match,
    traits,
    union,
)
from vnet.switch.places import PLACES, WRITABLE
from vnet.switch.staging import stage

ALL = (1 << 64) - 1


def with_actions(*actions: Action) -> Flow:
    return Flow(0, 1, instructions=Instructions(actions))


def reads(*actions: Action) -> dict[int, int]:
    """By word: what some actions ask for beside what is always asked for."""
    asked = lower(with_actions(*actions)).reads
    return {word: bits for word, bits in enumerate(asked) if bits}


# -- the property ---------------------------------------------------------------------------------

KINDS = (
    (IPV4, TCP), (IPV4, UDP), (IPV4, ICMPV4), (IPV6, TCP), (IPV6, SCTP), (IPV6, ICMPV6), (ARP, 0), (MPLS, 0),
    (0x88B5, 0),
)  # fmt: skip

few = st.sampled_from([0, 1, 2, 5, 0xFF, 0x1234])
wide = st.sampled_from([0, 1, 7 << 32 | 3, 0xFD << 56, ALL])


@st.composite
def packets(draw: st.DrawFn) -> Key:
    """A key in which any word may have any value; `parsed` makes one of it that a packet can have."""
    ethertype, protocol = draw(st.sampled_from(KINDS))
    has_l4 = int(protocol != 0 and draw(st.booleans()))
    key = [draw(wide) for _ in range(abi.KEY_WORDS)]
    key[Word.PORT] = draw(st.sampled_from([1, 2])) << 32 | protocol << 24 | draw(few) % 256 << 16 | has_l4
    key[Word.DST] = draw(few) << 16 | draw(st.sampled_from([0, 0x1000, 0x1005, 0xF005]))
    key[Word.SRC] = draw(few) << 16 | ethertype
    first = st.sampled_from([8, 135, 136]) if protocol in (ICMPV4, ICMPV6) else few
    key[Word.L4] = draw(first) << 48 | draw(few) % 256 << 32 | draw(few)
    return parsed(key)


def parsed(key: Sequence[int]) -> Key:
    """A key without what a packet of its kind does not have; nothing comes with metadata and registers."""
    ethertype, protocol = key[Word.SRC] & 0xFFFF, key[Word.PORT] >> 24 & 0xFF
    v6, arp = ethertype == IPV6, ethertype == ARP
    address = ALL if v6 else 0xFFFFFFFF if arp or ethertype == IPV4 else 0
    ports = 0xFFFFFFFF << 32 if key[Word.PORT] & 1 else 0
    link = ALL if arp or v6 and protocol == ICMPV6 else 0
    more = 0xFF << 56 if v6 or ethertype == IPV4 else 0
    more |= (0xFFF << 44 | 0xFFFFF if v6 else 0) | (0xFFF << 32 if protocol == TCP else 0)
    there = {Word.PORT: ALL, Word.DST: ALL, Word.SRC: ALL, Word.L4: 0xFFFF if arp else ports}
    there |= dict.fromkeys((Word.IP_SRC + 1, Word.IP_DST + 1), address)
    there |= dict.fromkeys((Word.IP_SRC, Word.IP_DST), address if v6 else 0)
    there |= dict.fromkeys(range(Word.SHA, Word.METADATA), link)
    there |= {Word.MORE: more, Word.MPLS: 0xFFFFFFFF if ethertype == MPLS else 0}
    return tuple(value & there.get(word, 0) for word, value in enumerate(key))


def limited(name: str) -> st.SearchStrategy[tuple[int, int]]:
    """A value and a mask, of which both or neither may be the whole field."""
    full = FIELDS[name].full_mask
    masks = (
        st.sampled_from([full, 1, full & 0xF0, full >> 1 & ~1]) if FIELDS[name].maskable else st.just(full)
    )
    return st.tuples(st.sampled_from([0, 1, 3, full]), masks.filter(bool)).map(lambda p: (p[0] & p[1], p[1]))


MATCHED = (
    "eth_dst", "vlan_vid", "ip_dscp", "ip_proto", "ipv4_dst", "ipv6_dst", "tcp_dst", "metadata", "reg1",
    "icmpv6_type", "arp_sha", "nw_ttl",
)  # fmt: skip
WRITTEN = tuple(sorted(name for name in WRITABLE if not FIELDS[name].reshapes))
"""A path on which a packet becomes another is not remembered."""

matches = st.lists(st.sampled_from(MATCHED), max_size=2, unique=True).flatmap(
    lambda names: st.tuples(*(limited(name) for name in names)).map(
        lambda pairs: match(**dict(zip(names, pairs, strict=True)))
    )
)
written = st.sampled_from(WRITTEN).flatmap(
    lambda name: limited(name).map(lambda pair: SetField(name, pair[0], pair[1]))
)


@st.composite
def moves(draw: st.DrawFn) -> Move:
    source, target = draw(st.sampled_from(sorted(PLACES))), draw(st.sampled_from(WRITTEN))
    room = min(FIELDS[source].bits, FIELDS[target].bits)
    bits = draw(st.integers(1, room))
    return Move(
        source,
        target,
        bits,
        draw(st.integers(0, FIELDS[source].bits - bits)),
        draw(st.integers(0, FIELDS[target].bits - bits)),
    )


actions = st.one_of(
    written,
    moves(),
    st.just(PopVlan()),
    st.sampled_from(
        [Output(1), Output(2), OutputField("reg1"), OutputField("vlan_pcp"), OutputField("ip_dscp")]
    ),
)
flows = st.builds(
    lambda table, priority, matched, apply, write, goto: Flow(
        table, priority, matched, Instructions((*apply, Output(7)), write=write, goto=goto and table + goto)
    ),
    st.integers(0, 2),
    st.integers(1, 3),
    matches,
    st.lists(actions, max_size=3),
    st.lists(written, max_size=2).map(lambda some: (*some, Output(9))),
    st.sampled_from([None, 1]),
)


def alike(one: Key, other: Key, asked: Reads) -> Key:
    """`other` with the bits of `one` where rules read, which tell its kind too."""
    told = [a & bits | b & ~bits for a, b, bits in zip(one, other, asked, strict=False)]
    return parsed((*told, *other[len(told) :]))


@settings(max_examples=400)
@given(st.lists(flows, min_size=1, max_size=4), packets(), packets())
def test_what_no_rule_reads_decides_nothing(some: list[Flow], one: Key, other: Key) -> None:
    rules = Rules(some)
    steps, cacheable = rules.path(one)
    assume(cacheable)
    other = alike(one, other, rules.reads)
    again, _ = rules.path(other)
    assert list(follow(steps, other)) == list(follow(again, other))


def test_the_model_remembers_whole_fields_and_forgets_what_the_cache_does_not_tell() -> None:
    """Of the model itself: without this the property would hold for lack of paths."""
    key = [0] * abi.KEY_WORDS
    key[Word.PORT], key[Word.SRC], key[Word.IP_DST + 1] = 1 << 32 | UDP << 24 | 1, IPV4, 0x0A000003
    bit = with_actions(SetField("ipv4_dst", 0, 1), Output(7))
    assert Rules([bit]).path(tuple(key)) == ((Write(Word.IP_DST + 1, ALL, 0x0A000002), Send(7)), True)
    ttl = with_actions(SetField("nw_ttl", 9), Output(7))
    assert Rules([ttl]).path(tuple(key)) == ((Send(7),), False)


# -- examples -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "asked"),
    [
        (Output(1), {}),
        (PopVlan(), {Word.DST: 0xFFFF}),
        (PushVlan(), {Word.DST: 0xFFFF}),
        (SetField("vlan_pcp", 3), {Word.DST: 0xFFFF}),
        (SetField("eth_dst", 1, 1), {Word.DST: ALL - 0xFFFF}),
        (SetField("eth_src", 1), {Word.SRC: ALL - 0xFFFF}),
        (SetField("ip_dscp", 46), {Word.PORT: 0xFF0000}),
        (SetField("ipv4_dst", 1, 1), {Word.IP_DST + 1: ALL}),
        (SetField("ipv6_src", 1 << 64, 1 << 64), {Word.IP_SRC: ALL}),
        (SetField("tcp_dst", 1, 1), {Word.L4: 0xFFFF << 32}),
        (SetField("arp_op", 2), {Word.L4: 0xFFFF}),
        (SetField("icmpv4_type", 8), {Word.L4: 0xFFFFFFFF << 32}),
        (SetField("ipv6_nd_target", 1), {Word.L4: 0xFFFF << 48}),
        (SetField("ipv6_nd_sll", 1), {Word.L4: 0xFFFF << 48}),
        (SetField("metadata", 1), {}),
        (SetField("nw_ttl", 1), {}),
        (Move("ipv4_src", "reg0", 32), {Word.IP_SRC + 1: ALL}),
        (Move("reg0", "ipv6_nd_tll", 8), {Word.L4: 0xFFFF << 48}),
        (OutputField("vlan_pcp"), {Word.DST: ALL}),
        (OutputField("reg0"), {}),
    ],
)  # fmt: skip
def test_an_action_reads_what_decides_it_and_what_is_written_with_it(
    action: Action, asked: dict[int, int]
) -> None:
    assert reads(action) == asked


def test_tracking_reads_all_that_tells_flows_apart() -> None:
    assert lower(with_actions(Conntrack(1))).reads == FLOW
    assert lower_group(Group(1, GroupType.ALL, (Bucket((Conntrack(1),)),))).reads == FLOW


def test_a_zone_read_from_a_field_reads_its_word_too() -> None:
    asked = lower(
        with_actions(Conntrack(zone_field=("ip_dscp", 0, 6), commit=True, label=(1 << 70 | 1, ALL)))
    ).reads
    assert asked == (ALL, *FLOW[1:])


def test_a_choice_by_flow_reads_the_flow_and_a_single_bucket_does_not() -> None:
    one, two = Bucket((Output(1),), 1), Bucket((Output(2),), 1)
    assert lower_group(Group(1, GroupType.SELECT, (one, two))).reads == FLOW
    assert lower_group(Group(1, GroupType.SELECT, (one,))).reads == NOTHING
    assert lower_group(Group(1, GroupType.ALL, (one, two))).reads == NOTHING


def test_what_a_packet_has_is_always_read() -> None:
    needed = {"in_port", "ip_proto", "ip_frag", "eth_type"}
    for name in needed:
        mask, _ = lower_match(match(**{name: FIELDS[name].full_mask}))
        assert all(bits & ALWAYS[word] == bits for word, bits in mask), name
    assert ALWAYS[Word.DST] == 0x1000


def test_nobody_reads_what_nobody_asks_for_any_more() -> None:
    image = Image()
    flow = Flow(0, 1, match(ipv4_dst=(0x0A000000, 0xFF000000), eth_type=IPV4), Instructions((ToGroup(1),)))
    group = Group(1, GroupType.ALL, (Bucket((SetField("eth_dst", 1), Output(1))),))
    image.finish(stage(image, Change((flow,), put_groups=(group,))))
    asked = [0] * abi.CACHE_WORDS
    asked[Word.IP_DST + 1], asked[Word.DST] = 0xFF000000, ALL - 0xFFFF
    assert image.classifier.reads == union([ALWAYS, tuple(asked)])
    image.finish(stage(image, Change(remove=(flow.key,), remove_groups=(1,))))
    assert image.classifier.reads == ALWAYS


@pytest.mark.parametrize(
    ("wanted", "kinds"),
    [
        ({"eth_dst": 1, "ipv4_src": 1, "tcp_dst": 1, "metadata": 1, "reg15": 1, "tunnel_id": 1}, Kind(0)),
        ({"arp_sha": 1}, Kind.LINK),
        ({"ipv6_nd_target": 1}, Kind.LINK),
        ({"nw_ttl": 1}, Kind.IP),
        ({"tcp_flags": (2, 2)}, Kind.TCP),
        ({"ipv6_flabel": 1}, Kind.IPV6),
        ({"ipv6_exthdr": (1, 1)}, Kind.IPV6),
        ({"mpls_bos": 1}, Kind.MPLS),
        ({"mpls_label": 1, "nw_ttl": 1}, Kind.MPLS | Kind.IP),
    ],
)
def test_of_some_packets_a_mask_asks_for_more_than_the_cache_tells(
    wanted: dict[str, int], kinds: Kind
) -> None:
    assert beyond(lower_match(match(**wanted))[0]) == kinds


def test_every_field_that_a_packet_brings_is_in_the_caches_key_or_beyond_it() -> None:
    """What neither the key nor `beyond` tells would be forgotten."""
    brought_by_no_packet = {"metadata", "tunnel_id", "ct_state", "ct_mark", "ct_zone", "ct_label", *ORIGINAL}
    for name in PLACES:
        mask, _ = lower_match(Match(((name, 1, FIELDS[name].full_mask),)))
        in_key = all(word < abi.CACHE_WORDS for word, _ in mask)
        assert in_key or beyond(mask) or name in brought_by_no_packet or name.startswith("reg"), name


# -- what tells at a glance that no rule can match -----------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, Trait(0)),
        ({"eth_type": IPV4}, Trait.IPV4),
        ({"eth_type": ARP}, Trait.ARP),
        ({"eth_type": MPLS}, Trait(0)),
        ({"eth_type": IPV6, "ip_proto": TCP}, Trait.IPV6 | Trait.TCP),
        ({"eth_type": IPV4, "ip_proto": UDP, "udp_dst": 53}, Trait.IPV4 | Trait.UDP),
        ({"eth_type": IPV4, "ip_proto": SCTP}, Trait.IPV4 | Trait.SCTP),
        ({"eth_type": IPV4, "ip_proto": ICMPV4, "icmpv4_type": 5}, Trait.IPV4 | Trait.ICMP),
        ({"eth_type": IPV6, "ip_proto": ICMPV6}, Trait.IPV6 | Trait.ICMP),
        ({"eth_type": IPV4, "ip_frag": (3, 3)}, Trait.IPV4 | Trait.LATER),
        ({"eth_type": IPV4, "ip_frag": (1, 3)}, Trait.IPV4),
        ({"eth_type": IPV4, "ip_frag": (0, 2)}, Trait.IPV4),
        ({"ct_state": (0x21, 0x31)}, Trait.CT * 0x21),
        ({"ct_state": (0, 0x10)}, Trait(0)),
    ],
)
def test_a_match_has_the_traits_of_all_that_it_lets_through(
    fields: dict[str, int | tuple[int, int]], expected: Trait
) -> None:
    assert traits(*lower_match(match(**fields))) == expected


def test_a_mask_has_the_traits_that_all_flows_under_it_share() -> None:
    tcp, udp = (Flow(0, 1, match(eth_type=IPV4, ip_proto=proto)) for proto in (TCP, UDP))
    image = Image()
    for change, expected in (
        (Change(put=(tcp,)), Trait.IPV4 | Trait.TCP),
        (Change(put=(udp,)), Trait.IPV4),
        (Change(remove=(tcp.key,)), Trait.IPV4 | Trait.UDP),
    ):
        staged = stage(image, change)
        image.finish(staged)
        assert [trait for bank in staged.tables for _, _, trait in bank.masks] == [expected]
