"""Our codec answers as Open vSwitch, and where it knowingly does not."""

from __future__ import annotations

import pytest

from tests.unit.openflow.ovs_answers import CASES, CT, Answer, hexed
from tests.unit.openflow.wire_bytes import (
    IPV4,
    IPV6,
    MPLS,
    apply,
    ct,
    flow_mod,
    nat,
    nicira,
    oxm,
    set_field,
    write,
)
from vnet.openflow.codec import CodecError, decode
from vnet.openflow.flow import (
    Conntrack,
    CopyTtlIn,
    CopyTtlOut,
    Instructions,
    Nat,
    Port,
    Resubmit,
    SetField,
    ToGroup,
    match,
)


def answer(data: bytes) -> Answer:
    try:
        decode(data)
    except CodecError as error:
        return error.error_type, error.code
    return None


@pytest.mark.parametrize("name", CASES)
def test_the_codec_answers_as_open_vswitch(name: str) -> None:
    data, wanted = CASES[name]
    assert answer(data) == wanted


TOO_MUCH = {
    "a helper of ct": flow_mod(IPV4, apply(ct("0001 00000000 0005 ff 000000 0015"))),
    "a flag of ct nobody defined": flow_mod(IPV4, apply(ct("0004 00000000 0005 ff 000000 0000"))),
    "nat twice": flow_mod(
        IPV4, apply(ct("0001 00000000 0005 ff 000000 0000", nicira(36, "0000 0001 0000") * 2))
    ),
    "more ranges than nat tells": flow_mod(IPV4, apply(nat("0000 0001 0000 0a000001"))),
    "a range of nat nobody defined": flow_mod(IPV4, apply(nat("0000 0001 0041 0a000001"))),
    "a port for the search that is none": flow_mod(b"", apply(nicira(14, "ff01 05 000000"))),
}


@pytest.mark.parametrize("name", TOO_MUCH)
def test_what_open_vswitch_would_ignore_is_refused(name: str) -> None:
    assert answer(TOO_MUCH[name]) == (2, 5)


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        (IPV6 + oxm(39, "0003", "0103"), match(eth_type=0x86DD, ipv6_exthdr=(3, 0x103))),
        (MPLS + oxm(34, "000fffff") + oxm(36, "01"), match(eth_type=0x8847, mpls_label=0xFFFFF, mpls_bos=1)),
        (
            IPV4 + oxm(10, "06") + hexed("ffff5508 4f4e4600 0002 0012"),
            match(eth_type=0x800, ip_proto=6, tcp_flags=(2, 18)),
        ),
        (oxm(16, "0000000000000005", cls=1), match(tunnel_id=5)),
        (IPV6 + oxm(27, "00000005", cls=1), match(eth_type=0x86DD, ipv6_flabel=5)),
        (oxm(108, "00" * 15 + "05", cls=1), match(ct_label=5)),
        (oxm(15, "00000005", cls=1), match(reg15=5)),
    ],
)
def test_fields_are_read_as_they_are_meant(fields: bytes, wanted: object) -> None:
    assert decode(flow_mod(fields))[1].flow.match == wanted


@pytest.mark.parametrize(
    ("actions", "wanted"),
    [
        (hexed("000b000800000000"), CopyTtlOut()),
        (hexed("000c000800000000"), CopyTtlIn()),
        (hexed("00160008ffffff00"), ToGroup(0xFFFFFF00)),
        (nicira(1, "0007 00000000"), Resubmit(7)),
        (nicira(14, "fff8 05 000000"), Resubmit(None, 5)),
        (nicira(14, "fffe ff 000000"), Resubmit(Port.LOCAL)),
        (nicira(2, "0000 00000005"), SetField("tunnel_id", 5)),
        (nicira(9, "000000000000 0000000500000006"), SetField("tunnel_id", 0x500000006)),
        (ct("0000 00010004 010f 04 000000 0000"), Conntrack(table=4, zone_field=("reg0", 4, 16))),
        (ct(CT, nicira(36, "0000 0000 0000")), Conntrack(5, nat=Nat())),
        (
            nat("0000 0011 0031 0a000001 0001 0009"),
            Conntrack(5, commit=True, nat=Nat(True, 4, (0x0A000001, 0x0A000001), (1, 9), 16)),
        ),
    ],
)
def test_actions_are_read_as_they_are_meant(actions: bytes, wanted: object) -> None:
    assert decode(flow_mod(IPV4, apply(actions)))[1].flow.instructions == Instructions(apply=(wanted,))


@pytest.mark.parametrize("place", [apply, write])
def test_copying_a_ttl_needs_a_header_with_one_in_a_list(place: object) -> None:
    data = flow_mod(b"", place(hexed("000b000800000000")))
    assert answer(data) == ((2, 10) if place is apply else None)


SET_TYPE, SET_PROTO = set_field(oxm(5, "86dd")), set_field(oxm(10, "11"))


@pytest.mark.parametrize("place", [apply, write])
@pytest.mark.parametrize(
    ("fields", "actions", "wanted"),
    [
        (b"", SET_TYPE, None),
        (IPV4, SET_PROTO, None),
        (MPLS, set_field(oxm(36, "01")), None),
        (b"", SET_PROTO, (2, 10)),
        (IPV4, set_field(oxm(36, "01")), (2, 10)),
        (IPV4, SET_TYPE + set_field(oxm(28, "00000005")), None),
        (IPV4, SET_TYPE + set_field(oxm(11, "0a000001")), (2, 10)),
        (IPV4, SET_PROTO + set_field(oxm(15, "0050")), None),
        (IPV4 + oxm(10, "06"), SET_PROTO + set_field(oxm(13, "0050")), (2, 10)),
        (IPV4 + oxm(10, "06"), SET_TYPE + set_field(oxm(13, "0050")), (2, 10)),
    ],
)
def test_what_says_how_to_read_on_is_written_though_open_vswitch_does_not(
    place: object, fields: bytes, actions: bytes, wanted: Answer
) -> None:
    """OpenFlow 1.3.5, section 7.2.5: Set-Field writes any header field, if the match promises it."""
    assert answer(flow_mod(fields, place(actions))) == wanted


def test_an_extension_header_is_not_written() -> None:
    assert answer(flow_mod(IPV6, apply(set_field(oxm(39, "0001"))))) == (2, 15)
