"""Messages <-> bytes: inverse to each other, checked as a switch must, read alike by the library."""

from __future__ import annotations

import struct
import subprocess
import sys
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.openflow.wire_bytes import IPV4, apply, flow_mod, oxm
from vnet.openflow.codec import HEADER, CodecError, decode, encode
from vnet.openflow.codec_action import decode_actions, encode_actions
from vnet.openflow.codec_library import parser
from vnet.openflow.codec_match import decode_match, encode_match, library_name
from vnet.openflow.fields import FIELDS, ORIGINAL, CtState
from vnet.openflow.flow import (
    Advertise,
    Conntrack,
    ConntrackClear,
    CopyTtlIn,
    CopyTtlOut,
    DecIpTtl,
    DecMplsTtl,
    Flow,
    IcmpError,
    Instructions,
    Match,
    Move,
    Nat,
    Output,
    OutputField,
    PopMpls,
    PopVlan,
    Port,
    PushMpls,
    PushVlan,
    Resubmit,
    SetField,
    SetIpTtl,
    SetMplsTtl,
    ToGroup,
    match,
)
from vnet.openflow.group import (
    ALL_GROUPS,
    ALL_METERS,
    MAX_GROUP,
    MAX_METER,
    Band,
    BandType,
    Bucket,
    Group,
    GroupType,
    Meter,
    MeterFlag,
)
from vnet.openflow.message import (
    ONF,
    AggregateReply,
    AggregateRequest,
    AsyncMasks,
    BarrierReply,
    BarrierRequest,
    BundleAdd,
    BundleControl,
    BundleFailed,
    DescReply,
    DescRequest,
    EchoReply,
    EchoRequest,
    Error,
    Experimenter,
    FeaturesReply,
    FeaturesRequest,
    FlowCommand,
    FlowMod,
    FlowRemoved,
    FlowStats,
    FlowStatsReply,
    FlowStatsRequest,
    GetAsyncReply,
    GetAsyncRequest,
    GetConfigReply,
    GetConfigRequest,
    GroupCommand,
    GroupDescReply,
    GroupDescRequest,
    GroupFeaturesReply,
    GroupFeaturesRequest,
    GroupMod,
    GroupStats,
    GroupStatsReply,
    GroupStatsRequest,
    Hello,
    MeterCommand,
    MeterConfigReply,
    MeterConfigRequest,
    MeterFeaturesReply,
    MeterFeaturesRequest,
    MeterMod,
    MeterStats,
    MeterStatsReply,
    MeterStatsRequest,
    PacketIn,
    PacketOut,
    PortDescReply,
    PortDescRequest,
    PortDescription,
    PortMod,
    PortStats,
    PortStatsReply,
    PortStatsRequest,
    PortStatus,
    QueueGetConfigReply,
    QueueGetConfigRequest,
    QueueStatsReply,
    QueueStatsRequest,
    RoleReply,
    RoleRequest,
    SetAsync,
    SetConfig,
    TableFeatures,
    TableFeaturesReply,
    TableFeaturesRequest,
    TableMod,
    TableStats,
    TableStatsReply,
    TableStatsRequest,
)

TCP = {"eth_type": 0x0800, "ip_proto": 6}
RICH = Flow(
    3,
    100,
    match(
        vlan_vid=0x1005, **TCP, tcp_dst=(80, 0xFFF0), reg0=(0x10, 0xFF), ct_state=(0x21, 0x23), ip_frag=(0, 1)
    ),
    Instructions(
        apply=(
            SetField("reg1", 7),
            SetField("ipv4_dst", 0x0A000000, 0xFF0000FF),
            Move("tcp_dst", "reg3", 16),
            Conntrack(5, 4),
            PopVlan(),
            PushVlan(),
            SetField("vlan_vid", 0x1007),
            OutputField("reg2"),
            Output(Port.CONTROLLER, 128),
        ),
        clear=True,
        write=(Output(3),),
        metadata=(1, 0xFF),
        goto=7,
        meter=4,
    ),
    cookie=0x76,
    idle_timeout_s=5,
    hard_timeout_s=6,
    flags=1,
)
BARE = Flow(3, 100, RICH.match, cookie=1, idle_timeout_s=5)
PORT = PortDescription(3, 0x020304050607, "tap-web", 0, 4, 1, 2, 3, 4, 10, 20)
TABLE = TableFeatures(
    0, "admit", 10, 1, 2, ("in_port", "eth_dst"), ("eth_dst",), ("eth_dst", "reg0"), (1, 4), (0, 25), (1, 2)
)
SELECT = Group(
    3,
    GroupType.SELECT,
    (
        Bucket((SetField("eth_dst", 5), Output(1, 0)), weight=10),
        Bucket((ToGroup(4),), weight=5, watch_port=2, watch_group=4),
    ),
)
FAILOVER = Group(4, GroupType.FAST_FAILOVER, (Bucket((Output(2, 0),), watch_port=2), Bucket(watch_group=9)))
DROPPING = Meter(7, MeterFlag.KBPS | MeterFlag.BURST | MeterFlag.STATS, (Band(BandType.DROP, 1000, 100),))
REMARKING = Meter(8, MeterFlag.PKTPS, (Band(BandType.DSCP_REMARK, 10, precedence=1), Band(BandType.DROP, 20)))

MESSAGES = (
    Hello(),
    Hello(versions=()),
    Hello(versions=(1, 4, 35)),
    Error(4, 8, b"quoted"),
    Error(0xFFFF, 2313, b"quoted", ONF),
    EchoRequest(b"x"),
    EchoReply(b""),
    Experimenter(0x2320, 9, b"data"),
    FeaturesRequest(),
    FeaturesReply(0x1234, 32, 0, 0, 7),
    GetConfigRequest(),
    GetConfigReply(0, 128),
    SetConfig(1, 65535),
    PacketIn(1, 2, 0x99, match(in_port=3, reg0=5), b"frame", 5),
    FlowRemoved(0, BARE, 1_500_000_000, 3, 4),
    PortStatus(0, PORT),
    PacketOut(1, (Output(2), SetField("eth_dst", 5)), b"frame"),
    FlowMod(FlowCommand.ADD, RICH),
    FlowMod(FlowCommand.DELETE, BARE, 0xFF, 4, 5),
    GroupMod(GroupCommand.ADD, SELECT),
    GroupMod(GroupCommand.MODIFY, FAILOVER),
    GroupMod(GroupCommand.DELETE, Group(ALL_GROUPS, GroupType.ALL)),
    PortMod(3, 5, 1, 1, 0),
    TableMod(3, 0),
    BarrierRequest(),
    BarrierReply(),
    QueueGetConfigRequest(3),
    QueueGetConfigReply(3),
    RoleRequest(2, 1 << 63),
    RoleReply(3, 5),
    GetAsyncRequest(),
    GetAsyncReply(AsyncMasks((1, 2), (3, 4), (5, 6))),
    SetAsync(AsyncMasks((1, 2), (3, 4), (5, 6))),
    MeterMod(MeterCommand.ADD, DROPPING),
    MeterMod(MeterCommand.MODIFY, REMARKING),
    MeterMod(MeterCommand.DELETE, Meter(ALL_METERS, MeterFlag.KBPS)),
    BundleControl(5, 1, 3),
    BundleAdd(5, FlowMod(FlowCommand.ADD, RICH), 3),
    DescRequest(),
    DescReply("vnet", "eBPF", "0.1", "none", "lab"),
    FlowStatsRequest(3, RICH.match, 1, 2, 3, 4),
    FlowStatsReply((FlowStats(RICH, 2_500_000_000, 4, 5), FlowStats(Flow(0, 0))), True),
    AggregateRequest(3, RICH.match, 1, 2, 3, 4),
    AggregateReply(1, 2, 3),
    TableStatsRequest(),
    TableStatsReply((TableStats(0, 1, 2, 3), TableStats(1))),
    PortStatsRequest(4),
    PortStatsReply((PortStats(3, 1, 2, 3, 4, 5, 6, 7_500_000_000),)),
    PortDescRequest(),
    PortDescReply((PORT, PORT), True),
    TableFeaturesRequest(),
    TableFeaturesRequest((TABLE,), more=True),
    TableFeaturesReply((TABLE, TABLE)),
    QueueStatsRequest(1, 2),
    QueueStatsReply(),
    GroupStatsRequest(4),
    GroupStatsReply((GroupStats(3, 2, 5, 700, 1_500_000_000, ((1, 100), (4, 600))), GroupStats(4)), True),
    GroupDescRequest(),
    GroupDescReply((SELECT, FAILOVER, Group(9, GroupType.ALL))),
    GroupFeaturesRequest(),
    GroupFeaturesReply(0b1111, 0b0110, (1, 2, 3, 4), (1 << 0, 1 << 11, 1 << 17, 1 << 25)),
    MeterStatsRequest(4),
    MeterStatsReply((MeterStats(7, 2, 5, 700, 1_500_000_000, ((1, 100), (4, 600))), MeterStats(8)), True),
    MeterConfigRequest(4),
    MeterConfigReply((DROPPING, REMARKING)),
    MeterFeaturesRequest(),
    MeterFeaturesReply(100, 0b110, 0b1111, 8, 3),
)


def assert_read_or_refused(data: bytes, xid: int) -> None:
    error = None
    try:
        decode(data)
    except CodecError as caught:
        error = caught
    assert error is None or (error.xid, error.data) == (xid, data[:64])


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_every_message_survives_the_wire(message):
    data = encode(message, 0xDEADBEEF)
    assert HEADER.unpack_from(data)[2] == len(data)
    assert decode(data) == (0xDEADBEEF, message)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_every_cut_message_is_refused_or_read_never_raised(message):
    data = encode(message, 1)
    for end in range(8, len(data)):
        cut = data[:2] + struct.pack("!H", end) + data[4:end]
        assert_read_or_refused(cut, 1)


def test_importing_the_codec_starts_no_eventlet():
    code = "import vnet.openflow.codec, sys; print(sorted(m for m in sys.modules if 'eventlet' in m))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_message_longer_than_its_length_field_is_not_encoded():
    with pytest.raises(ValueError, match="does not fit"):
        encode(EchoRequest(bytes(65528)), 1)


# -- properties -----------------------------------------------------------------------------------


def _values(name: str) -> st.SearchStrategy[tuple[int, int]]:
    field = FIELDS[name]
    full = field.full_mask
    masks = st.one_of(st.just(full), st.integers(1, full)) if field.maskable else st.just(full)
    if name == "ct_state":
        masks = st.integers(1, 0xFF)
    return st.tuples(st.integers(0, full), masks).map(lambda pair: (pair[0] & pair[1], pair[1]))


_FREE = [name for name, field in FIELDS.items() if not field.needs and name not in ORIGINAL]
_UNDER_TCP = (
    *("ip_dscp", "ip_ecn", "ip_frag", "nw_ttl", "ipv4_src", "ipv4_dst", "tcp_src", "tcp_dst", "tcp_flags"),
)
_UNDER_MPLS = ("mpls_label", "mpls_tc", "mpls_bos", "mpls_ttl")
_UNDER_IPV6 = ("ipv6_src", "ipv6_dst", "ipv6_flabel", "ipv6_exthdr", "nw_ttl")
_STACKS = (
    ({}, ()),
    ({"eth_type": 0x0800, "ip_proto": 6}, _UNDER_TCP),
    ({"eth_type": 0x86DD}, _UNDER_IPV6),
    ({"eth_type": 0x8847}, _UNDER_MPLS),
    ({"ct_state": (CtState.NEW, CtState.NEW)}, ORIGINAL),
    ({"ct_state": (CtState.TRK, CtState.TRK | CtState.INV)}, ORIGINAL),
)
_WRITABLE = [name for name in _FREE if FIELDS[name].writable and name != "vlan_vid"]


@st.composite
def matches(draw) -> Match:
    entries = {name: draw(_values(name)) for name in draw(st.sets(st.sampled_from(_FREE)))}
    below, above = draw(st.sampled_from(_STACKS))
    chosen = draw(st.sets(st.sampled_from(above))) if above else ()
    return match(**entries | below | {name: draw(_values(name)) for name in chosen})


@st.composite
def set_fields(draw) -> SetField:
    name = draw(st.sampled_from(_WRITABLE))
    value, mask = draw(_values(name))
    return SetField(name, value, None if mask == FIELDS[name].full_mask else mask)


def _spans(first: int, last: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(first, last), st.integers(first, last)).map(lambda two: (min(two), max(two)))


_IPV4, _IPV6, _PORTS = _spans(1, 2**32 - 1), _spans(1, 2**128 - 1), _spans(1, 65535)
_NAT_FLAGS = st.sampled_from([0, 4, 8, 16, 4 | 8, 4 | 16])
_NATS = st.one_of(
    st.builds(Nat, flags=_NAT_FLAGS),
    st.builds(Nat, st.booleans(), st.just(4), _IPV4, st.one_of(st.none(), _PORTS), _NAT_FLAGS),
    st.builds(Nat, st.booleans(), st.just(6), _IPV6, st.one_of(st.none(), _PORTS), _NAT_FLAGS),
)
_TABLES = st.one_of(st.none(), st.integers(0, 254))
_ZONES = st.one_of(
    st.fixed_dictionaries({"zone": st.integers(0, 0xFFFF)}),
    st.fixed_dictionaries({"zone_field": st.sampled_from([("reg9", 3, 16), ("metadata", 48, 16)])}),
)
_COMMITS = st.fixed_dictionaries(
    {
        "commit": st.just(True),
        "force": st.booleans(),
        "mark": st.one_of(st.none(), _values("ct_mark")),
        "label": st.one_of(st.none(), _values("ct_label")),
        "nat": st.one_of(st.none(), _NATS),
        "moves": st.lists(
            st.sampled_from([Move("eth_src", "ct_label", 48, 0, 80), Move("ct_tp_dst", "ct_mark", 16, 0, 9)]),
            max_size=2,
        ).map(tuple),
    }
)
_LOOKUPS = st.fixed_dictionaries({"nat": st.sampled_from([None, Nat()])})
_CONNTRACKS = st.builds(
    lambda table, zone, rest: Conntrack(table=table, **zone, **rest),
    _TABLES,
    _ZONES,
    st.one_of(_COMMITS, _LOOKUPS),
)
_PORT_NUMBERS = st.one_of(st.integers(1, 0xFEFF), st.sampled_from([Port.LOCAL, Port.CONTROLLER, Port.ANY]))
_HEADER_ACTIONS = st.one_of(
    st.sampled_from([PopVlan(), DecMplsTtl(), DecIpTtl(), CopyTtlOut(), CopyTtlIn()]),
    st.integers(0, 0xFFFF).map(PopMpls),
    st.integers(0, 255).map(SetMplsTtl),
    st.integers(0, 255).map(SetIpTtl),
    st.builds(
        lambda family, kind, code, source: DecIpTtl(
            IcmpError(family, kind, code, source >> (96 if family == 4 else 0))
        ),
        st.sampled_from((4, 6)),
        st.integers(0, 255),
        st.integers(0, 255),
        st.integers(0, (1 << 128) - 1),
    ),
)
_ANYWHERE = st.one_of(
    st.integers(1, Port.MAX).map(Output),
    st.integers(0, 0xFFFF).map(lambda length: Output(Port.CONTROLLER, length)),
    st.sampled_from([Port.FLOOD, Port.IN_PORT, Port.NORMAL, Port.LOCAL, Port.TABLE]).map(Output),
    st.sampled_from([PushVlan(), PushVlan(0x88A8), ConntrackClear()]),
    st.integers(0, (1 << 48) - 1).map(Advertise),
    st.sampled_from([OutputField("reg2"), OutputField("in_port"), OutputField("reg3", 4, 28)]),
    set_fields(),
    st.integers(1, 16).map(lambda bits: Move("eth_type", "reg3", bits, 16 - bits, bits)),
    st.integers(0, MAX_GROUP).map(ToGroup),
    st.builds(Resubmit, st.one_of(st.none(), _PORT_NUMBERS), _TABLES),
)
"""Actions that need no header."""

_COPIES = st.sampled_from(ORIGINAL).map(lambda name: Move(name, "reg3", 8))
_ACTIONS = st.one_of(
    _ANYWHERE, _COPIES, _HEADER_ACTIONS, _CONNTRACKS, st.sampled_from([PushMpls(), PushMpls(0x8848)])
)
_BUCKETS = st.lists(_ACTIONS, max_size=3).map(tuple)


@settings(max_examples=150, deadline=None)
@given(matches())
def test_matches_survive_the_wire(wanted):
    data = encode_match(wanted)
    assert len(data) % 8 == 0
    assert decode_match(b"before!!" + data, 8) == (wanted, 8 + len(data))


@settings(max_examples=150, deadline=None)
@given(st.lists(_ACTIONS, max_size=6).map(tuple))
def test_actions_survive_the_wire(actions):
    assert decode_actions(encode_actions(actions)) == actions


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, MAX_GROUP),
    st.lists(
        st.builds(Bucket, _BUCKETS, st.integers(0, 65535), _PORT_NUMBERS, st.integers(0, 9)), max_size=3
    ),
)
def test_groups_survive_the_wire_and_the_library_reads_them(number, buckets):
    mod = GroupMod(GroupCommand.ADD, Group(number, GroupType.SELECT, tuple(buckets)))
    data = encode(mod, 7)
    assert decode(data) == (7, mod)
    reply = GroupDescReply((mod.group, mod.group))
    assert decode(encode(reply, 7)) == (7, reply)
    theirs = parser.OFPGroupDescStats.parser(encode(reply, 7), 16)
    assert [(bucket.weight, bucket.watch_port) for bucket in theirs.buckets] == [
        (bucket.weight, bucket.watch_port) for bucket in buckets
    ]


@settings(max_examples=80, deadline=None)
@given(
    st.integers(1, MAX_METER),
    st.sampled_from([MeterFlag.KBPS, MeterFlag.PKTPS]),
    st.sampled_from([MeterFlag(0), MeterFlag.BURST, MeterFlag.STATS, MeterFlag.BURST | MeterFlag.STATS]),
    st.lists(
        st.one_of(
            st.builds(Band, st.just(BandType.DROP), st.integers(1, 2**32 - 1), st.integers(0, 2**32 - 1)),
            st.builds(
                Band,
                st.just(BandType.DSCP_REMARK),
                st.integers(1, 2**32 - 1),
                st.integers(0, 2**32 - 1),
                st.integers(0, 255),
            ),
        ),
        max_size=3,
    ),
)
def test_meters_survive_the_wire_and_the_library_reads_them(number, unit, flags, bands):
    mod = MeterMod(MeterCommand.ADD, Meter(number, unit | flags, tuple(bands)))
    assert decode(encode(mod, 7)) == (7, mod)
    reply = MeterConfigReply((mod.meter, mod.meter))
    data = encode(reply, 7)
    assert decode(data) == (7, reply)
    theirs = parser.OFPMeterConfigStats.parser(data, 16)
    assert [(band.rate, band.burst_size) for band in theirs.bands] == [
        (band.rate, band.burst) for band in bands
    ]


@settings(max_examples=80, deadline=None)
@given(
    matches(),
    st.lists(_ANYWHERE, max_size=4).map(tuple),
    st.integers(0, (1 << 64) - 1),
    st.integers(0, 65535),
)
def test_flow_mods_survive_the_wire_and_the_library_reads_them(wanted, actions, cookie, priority):
    flow = Flow(2, priority, wanted, Instructions(apply=actions, goto=5), cookie)
    data = encode(FlowMod(FlowCommand.ADD, flow), 7)
    assert decode(data) == (7, FlowMod(FlowCommand.ADD, flow))
    theirs = parser.OFPFlowMod.parser(None, 4, 14, len(data), 7, data)
    assert (theirs.cookie, theirs.priority, theirs.table_id) == (cookie, priority, 2)
    assert {name for name, _ in theirs.match.items()} == {library_name(name) for name, _, _ in wanted}
    assert sum(len(i.actions) for i in theirs.instructions if hasattr(i, "actions")) == len(actions)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 31), st.binary(max_size=200))
def test_no_bytes_make_the_codec_raise_anything_but_a_codec_error(number, body):
    data = HEADER.pack(4, number, 8 + len(body), 5) + body
    assert_read_or_refused(data, 5)


def test_long_messages_are_not_remembered():
    """Else a peer could fill the memory by sending ever others."""
    messages = [
        encode(add_flow(SetField("reg0", number), *[SetField("reg1", number)] * 380), 1)
        for number in range(300)
    ]
    decode(messages[0])
    tracemalloc.start()
    for data in messages:
        decode(data)
    grew, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grew < 300 * 4000


def add_flow(*actions) -> FlowMod:
    return FlowMod(FlowCommand.ADD, Flow(0, 1, instructions=Instructions(apply=actions)))


def test_a_name_that_is_no_text_is_read_as_one_that_is_written_alike():
    data = encode(PortStatus(0, PORT), 1).replace(b"tap-web\0\0\0\0\0\0\0\0\0", b"tap\xff\0web" + b"\xff" * 8)
    _, message = decode(data)
    assert isinstance(message, PortStatus)
    assert message.port.name == "tap?"
    assert decode(encode(message, 1)) == (1, message)


def test_a_bundle_in_a_bundle_is_refused_however_deep_it_is():
    data = encode(BarrierRequest(), 1)
    for depth in range(2700):
        outer = struct.pack("!IIIxxH", ONF, 2301, 5, 3) + data
        data = HEADER.pack(4, 4, HEADER.size + len(outer), 1) + outer
        if depth in (1, 2699):
            assert refusal(data) == (0xFFFF, BundleFailed.MSG_UNSUP)


# -- refusals -------------------------------------------------------------------------------------


def refusal(data: bytes) -> tuple[int, int]:
    with pytest.raises(CodecError) as caught:
        decode(data)
    return caught.value.error_type, caught.value.code


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        (oxm(1, "00000001"), 6),  # in_phy_port
        (oxm(37, "000001"), 6),  # pbb_isid
        (oxm(5, "0800", cls=0x1234), 6),
        (oxm(5, "080000"), 1),
        (oxm(5, "0800")[:-1], 1),
        (b"\x80\x00", 1),
        (oxm(5, "0000", "ff00"), 8),
        (oxm(6, "f005"), 7),
        (IPV4 + oxm(8, "7f"), 7),
        (oxm(3, "010203040506", "ffffff000000"), 5),
        (oxm(11, "0a000001"), 9),  # ipv4_src without eth_type
        (oxm(11, "0a000001") + IPV4, 9),  # and before it
        (IPV4 + oxm(13, "0050"), 9),  # tcp_src without ip_proto
        (IPV4 + oxm(10, "3a") + oxm(29, "87"), 9),  # icmpv6 over IPv4
        (oxm(7, "03"), 9),  # vlan_pcp without a tag
        (IPV4 + IPV4, 10),
        (oxm(105, "00000000", "00000100", cls=1), 8),  # a ct_state there is not
        (oxm(119, "11", cls=1), 9),  # ct_nw_proto of what may be untracked,
        (oxm(105, "00000020", "00000020", cls=1) + oxm(119, "11", cls=1), 9),  # or invalid
        (oxm(105, "00000030", "00000030", cls=1) + oxm(120, "0a000001", cls=1), 9),
        (oxm(105, "00000021", "00000021", cls=1) + oxm(119, "11", "1f", cls=1), 8),
    ],
)
def test_bad_matches_are_refused_with_the_specified_code(fields, code):
    assert refusal(flow_mod(fields)) == (4, code)


def test_a_match_of_an_unknown_type_is_refused():
    data = bytearray(flow_mod(b""))
    data[49] = 7
    assert refusal(bytes(data)) == (4, 0)


@pytest.mark.parametrize(
    ("actions", "code"),
    [
        ("0015000800000001", 8),  # set queue
        ("0099000800000000", 0),
        ("00000000000000010000000000000000", 1),  # a length of zero must not loop
        ("00000018000000010000000000000000", 1),
        ("00000010000000000000000000000000", 4),  # port 0
        ("00000010ffffff010000000000000000", 4),
        ("00000010ffffffff0000000000000000", 4),  # ANY
        ("0011000812340000", 5),
        ("0012000800000000", 10),  # pop VLAN of what need not be tagged
        ("ffff00104f4e46000000000000000000", 2),
        ("ffff0008" + "00002320", 1),
        ("00190010" + "80004a03" + "0000010000000000", 13),  # set pbb_isid
        ("00190010" + "80000004" + "0000000100000000", 15),  # in_port is not writable
        ("00190010" + "80000c02" + "0005000000000000", 15),  # vlan_vid without the present bit
        ("00190010" + "80001a02" + "0050000000000000", 10),  # tcp_src of what need not be TCP
        (
            "ffff0018" + "00002320" + "0007" + "085f" + "00010004" + "0000000000000001",
            14,
        ),  # beyond the register
    ],
)
def test_bad_actions_are_refused_with_the_specified_code(actions, code):
    assert refusal(flow_mod(b"", apply(bytes.fromhex(actions)))) == (2, code)


@pytest.mark.parametrize(
    ("instructions", "code"),
    [
        ("ffff00084f4e4600", 5),
        ("0077000800000000", 0),
        ("0001000001000000", 7),
        ("0002001000000000" + "00" * 8, 7),
    ],
)
def test_bad_instructions_are_refused_with_the_specified_code(instructions, code):
    assert refusal(flow_mod(b"", bytes.fromhex(instructions))) == (3, code)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (HEADER.pack(4, 30, 8, 1), (1, 1)),
        (HEADER.pack(5, 5, 8, 1), (1, 0)),
        (HEADER.pack(4, 5, 9, 1) + b"x", (1, 6)),
        (HEADER.pack(4, 5, 20, 1), (1, 6)),
        (HEADER.pack(4, 18, 16, 1) + struct.pack("!HHxxxx", 50, 0), (1, 2)),
        (HEADER.pack(4, 18, 16, 1) + struct.pack("!HHxxxx", 0xFFFF, 0), (1, 3)),
        (HEADER.pack(4, 18, 16, 1) + struct.pack("!HHxxxx", 3, 1), (1, 13)),
        (b"\x04\x05", (1, 6)),
    ],
)
def test_bad_requests_are_refused_with_the_specified_code(data, error):
    assert refusal(data) == error


def test_older_names_of_a_field_mean_the_field():
    older = oxm(3, "0800", cls=0) + oxm(7, "0a000000", "ff000000", cls=0)
    assert decode(flow_mod(older))[1].flow.match == match(eth_type=0x800, ipv4_src=(0x0A000000, 0xFF000000))


def test_a_field_under_an_empty_mask_is_not_matched():
    assert decode(flow_mod(oxm(3, "00" * 6, "00" * 6)))[1].flow.match == Match()


def test_prerequisites_come_first_on_the_wire():
    data = encode_match(match(ip_proto=58, icmpv6_type=135, ipv6_nd_target=1, eth_type=0x86DD, reg0=1))
    numbers, offset = [], 4
    while offset + 4 < len(data) and data[offset + 3]:
        numbers.append((struct.unpack_from("!H", data, offset)[0], data[offset + 2] >> 1))
        offset += 4 + data[offset + 3]
    assert numbers == [(0x8000, 5), (0x8000, 10), (0x8000, 29), (0x8000, 31), (1, 0)]
