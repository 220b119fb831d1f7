"""What Open vSwitch answers to each of these, and this switch too: an error, or None for none.

Tried against our codec in `test_codec_answers` and against Open vSwitch in `tests/net/test_ovs_answers`.
"""

from __future__ import annotations

from tests.unit.openflow.wire_bytes import (
    ANY,
    IPV4,
    IPV6,
    MPLS,
    OUTPUT,
    TAGGED,
    TCP,
    apply,
    band,
    bucket,
    ct,
    flow_mod,
    group_mod,
    meter_mod,
    nat,
    nicira,
    oxm,
    set_field,
    write,
)

Answer = tuple[int, int] | None
INCONSISTENT, BAD_ARGUMENT, BAD_SET_TYPE, BAD_SET_LEN, BAD_SET_ARGUMENT = (
    *((2, code) for code in (10, 5, 13, 14, 15)),
)
BAD_SET_MASK, DUP_INST = (0xFFFF, 4250), (0xFFFF, 2600)
BAD_VALUE, BAD_MASK, BAD_PREREQ = (4, 7), (4, 8), (4, 9)
BAD_LEN = (1, 6)


def hexed(text: str) -> bytes:
    return bytes.fromhex(text)


PUSH, PUSH_MULTICAST = hexed("0013000888470000"), hexed("0013000888480000")
POP, POP_TO_MPLS = hexed("0014000808000000"), hexed("0014000888470000")
SET_MPLS_TTL, DEC_MPLS_TTL = hexed("000f000840000000"), hexed("0010000800000000")
SET_TTL, DEC_TTL = hexed("0017000840000000"), hexed("0018000800000000")
PUSH_VLAN, POP_VLAN = hexed("0011000881000000"), hexed("0012000800000000")
LABEL, IP_SOURCE, TCP_SOURCE = oxm(34, "00000010"), oxm(11, "0a000001"), oxm(13, "0050")
VLAN = oxm(6, "1005")
CT = "0000 00000000 0005 ff 000000 0000"
CT_COMMIT = "0001 00000000 0005 ff 000000 0000"
REG_TO_MARK, REG_TO_REG = "0020 0000 0000 00010004 0001d604", "0020 0000 0000 00010004 00010204"
NEW, TRACKED = oxm(105, "00000021", "00000021", cls=1), oxm(105, "00000020", "00000020", cls=1)
PORT_TO_MARK, ORIGINAL_TO_REG = "0010 0000 0000 80001a02 0001d604", "0020 0000 0000 0001f004 00010004"
INVALID, NOT_INVALID = oxm(105, "00000030", "00000030", cls=1), oxm(105, "00000020", "00000030", cls=1)
ORIGINAL_UDP = oxm(119, "11", cls=1)
ONF_FLAGS = hexed("ffff5406 4f4e4600 0002")

MATCHES: dict[str, tuple[bytes, Answer]] = {
    "TCP flags of the ONF": (TCP + ONF_FLAGS, None),
    "TCP flags of the ONF under a mask": (TCP + hexed("ffff5508 4f4e4600 0002 0002"), None),
    "TCP flags of OpenFlow 1.5": (TCP + oxm(42, "0002"), None),
    "TCP flags of Nicira": (TCP + oxm(34, "0002", cls=1), None),
    "the protocol of what is new": (IPV4 + NEW + ORIGINAL_UDP, None),
    "the protocol of what is not invalid": (IPV4 + NOT_INVALID + ORIGINAL_UDP, None),
    "the protocol of what is invalid": (IPV4 + INVALID + ORIGINAL_UDP, BAD_PREREQ),
    "the protocol of what is tracked": (IPV4 + TRACKED + ORIGINAL_UDP, BAD_PREREQ),
    "the protocol of any connection": (IPV4 + ORIGINAL_UDP, BAD_PREREQ),
    "a part of the original protocol": (IPV4 + NEW + oxm(119, "10", "10", cls=1), BAD_MASK),
    "a part of an original address": (IPV4 + NEW + oxm(120, "0a000000", "ff000000", cls=1), None),
    "a part of an original port": (IPV4 + NEW + ORIGINAL_UDP + oxm(125, "0010", "00f0", cls=1), None),
    "TCP flags of nobody": (TCP + hexed("ffff5406 4f4e4601 0002"), (4, 6)),
    "an unknown field of the ONF": (TCP + hexed("ffff5206 4f4e4600 0002"), (4, 6)),
    "an experimenter's field without one": (hexed("ffff5402 4f4e"), (4, 1)),
    "a TCP flag there is not": (TCP + oxm(34, "2002", cls=1), BAD_VALUE),
    "TCP flags without TCP": (oxm(34, "0002", cls=1), BAD_PREREQ),
    "Nicira's tunnel id": (oxm(16, "0000000000000005", cls=1), None),
    "a flow label": (IPV6 + oxm(28, "000fffff"), None),
    "a flow label of 21 bits": (IPV6 + oxm(28, "001fffff"), BAD_VALUE),
    "a flow label over IPv4": (IPV4 + oxm(28, "00000001"), BAD_PREREQ),
    "an MPLS label": (MPLS + LABEL, None),
    "an MPLS label of multicast": (oxm(5, "8848") + LABEL, None),
    "an MPLS label under a mask": (MPLS + oxm(34, "00000010", "000000f0"), BAD_MASK),
    "an MPLS label of 21 bits": (MPLS + oxm(34, "00100000"), BAD_VALUE),
    "an MPLS label without MPLS": (LABEL, BAD_PREREQ),
    "a traffic class of 4 bits": (MPLS + oxm(35, "08"), BAD_VALUE),
    "a bottom of stack of 2": (MPLS + oxm(36, "02"), BAD_VALUE),
    "an MPLS TTL": (MPLS + oxm(30, "40", cls=1), None),
    "an MPLS TTL without MPLS": (oxm(30, "40", cls=1), BAD_PREREQ),
    "a hop limit": (IPV6 + oxm(29, "40", cls=1), None),
    "a TTL under a mask": (IPV4 + oxm(29, "40", "40", cls=1), BAD_MASK),
    "a TTL without IP": (oxm(29, "40", cls=1), BAD_PREREQ),
    "a connection's label": (oxm(108, "00" * 15 + "01", cls=1), None),
    "IPv4 under MPLS": (MPLS + IP_SOURCE, BAD_PREREQ),
    "a ct_state there is not": (oxm(105, "00000101", "00000101", cls=1), BAD_VALUE),
}

IN_BOTH: dict[str, tuple[bytes, bytes, Answer]] = {
    "push MPLS": (IPV4, PUSH, None),
    "push MPLS on anything": (b"", PUSH_MULTICAST, None),
    "push MPLS of another EtherType": (b"", hexed("0013000808000000"), BAD_ARGUMENT),
    "set a label just pushed": (IPV4, PUSH + set_field(LABEL), None),
    "set a label that is not there": (IPV4, set_field(LABEL), INCONSISTENT),
    "set a label of 21 bits": (MPLS, set_field(oxm(34, "00100000")), BAD_SET_ARGUMENT),
    "pop MPLS": (MPLS, POP, None),
    "pop MPLS to MPLS and again": (MPLS, POP_TO_MPLS + POP, None),
    "pop MPLS and set an address": (MPLS, POP + set_field(IP_SOURCE), None),
    "push MPLS and set an address": (IPV4, PUSH + set_field(IP_SOURCE), INCONSISTENT),
    "push, pop and set an address": (IPV4, PUSH + POP + set_field(IP_SOURCE), None),
    "push, pop and set a port": (TCP, PUSH + POP + set_field(TCP_SOURCE), INCONSISTENT),
    "push MPLS and track": (IPV4, PUSH + ct(CT), INCONSISTENT),
    "a length of 16 for dec_mpls_ttl": (MPLS, hexed("00100010") + bytes(12), (2, 1)),
    "set an MPLS TTL": (MPLS, SET_MPLS_TTL, None),
    "decrement an MPLS TTL": (MPLS, DEC_MPLS_TTL, None),
    "set a TTL": (IPV4, SET_TTL, None),
    "set a hop limit": (IPV6, SET_TTL, None),
    "decrement a TTL": (IPV4, DEC_TTL, None),
    "set a TTL as a field": (IPV4, set_field(oxm(29, "40", cls=1)), None),
    "set a tunnel id": (b"", set_field(oxm(38, "00" * 8)), None),
    "set a tunnel id of 32 bits": (b"", nicira(2, "0000 00000005"), None),
    "set a tunnel id of 64 bits": (b"", nicira(9, "000000000000 0000000000000005"), None),
    "set TCP flags": (TCP, set_field(ONF_FLAGS), BAD_SET_ARGUMENT),
    "push PBB": (b"", hexed("001a000888e70000"), (2, 0)),
    "pop PBB": (b"", hexed("001b000800000000"), (2, 0)),
    "no group": (b"", hexed("00160008ffffffff"), (2, 9)),
    "all groups": (b"", hexed("00160008fffffffc"), (2, 9)),
    "tag, label and set the tag": (IPV4, PUSH_VLAN + PUSH + set_field(VLAN), None),
    "label, tag and set the tag": (IPV4, PUSH + PUSH_VLAN + set_field(VLAN), None),
    "set the tag of what has none": (b"", set_field(VLAN), INCONSISTENT),
    "set under a mask": (b"", set_field(oxm(3, "020000000000", "ff0000000000")), BAD_SET_MASK),
    "set under a full mask": (b"", set_field(oxm(3, "020000000000", "ffffffffffff")), BAD_SET_MASK),
    "set with more padding": (b"", hexed("00190018") + oxm(3, "020000000000") + bytes(10), None),
    "set with padding that is none": (
        b"",
        hexed("00190010") + oxm(3, "020000000000") + b"\0\1",
        BAD_SET_ARGUMENT,
    ),
    "load beyond the register": (b"", nicira(7, "085f 00010004 0000000000000001"), BAD_SET_LEN),
    "load more than the bits hold": (b"", nicira(7, "0000 00010004 0000000000000002"), BAD_ARGUMENT),
    "move nothing": (IPV4, nicira(6, "0000 0000 0000 00013a01 00010004"), BAD_SET_LEN),
    "resubmit": (b"", nicira(1, "0001 ff000000"), None),
    "resubmit to a table": (b"", nicira(14, "fff8 05 000000"), None),
    "resubmit with padding that is none": (b"", nicira(14, "0001 05 010000"), BAD_ARGUMENT),
    "forget the connection": (b"", nicira(43, "000000000000"), None),
    "track IP": (IPV4, ct(CT), None),
    "track anything": (b"", ct(CT), INCONSISTENT),
    "force without commit": (IPV4, ct("0002 00000000 0005 ff 000000 0000"), BAD_ARGUMENT),
    "a zone of a register": (IPV4, ct("0000 00010004 000f ff 000000 0000"), None),
    "a zone of 32 bits": (IPV4, ct("0000 00010004 001f ff 000000 0000"), BAD_SET_LEN),
    "a zone beyond the register": (IPV4, ct("0000 00010004 05cf ff 000000 0000"), BAD_SET_LEN),
    "a zone of an unknown field": (IPV4, ct("0000 77770004 000f ff 000000 0000"), BAD_SET_TYPE),
    "commit a mark": (IPV4, ct(CT_COMMIT, set_field(oxm(107, "00000005", cls=1))), None),
    "commit a label": (IPV4, ct(CT_COMMIT, set_field(oxm(108, "00" * 15 + "05", cls=1))), None),
    "a copied mark in ct": (IPV4, ct(CT_COMMIT, nicira(6, REG_TO_MARK)), None),
    "a copied mark without commit": (IPV4, ct(CT, nicira(6, REG_TO_MARK)), BAD_ARGUMENT),
    "a copied register in ct": (IPV4, ct(CT_COMMIT, nicira(6, REG_TO_REG)), BAD_ARGUMENT),
    "too much of a mark in ct": (
        IPV4,
        ct(CT_COMMIT, nicira(6, "0020 0000 0001 00010004 0001d604")),
        BAD_SET_LEN,
    ),
    "a port that may not be there in ct": (
        IPV4,
        ct(CT_COMMIT, nicira(6, PORT_TO_MARK)),
        INCONSISTENT,
    ),
    "an original address copied": (IPV4 + NEW, nicira(6, ORIGINAL_TO_REG), None),
    "an original address of nobody copied": (IPV4, nicira(6, ORIGINAL_TO_REG), INCONSISTENT),
    "a mark without commit": (IPV4, ct(CT, set_field(oxm(107, "00000005", cls=1))), BAD_ARGUMENT),
    "a register in ct": (IPV4, ct(CT_COMMIT, set_field(oxm(0, "00000005", cls=1))), BAD_ARGUMENT),
    "an output in ct": (IPV4, ct(CT_COMMIT, OUTPUT), BAD_ARGUMENT),
    "ct_clear in ct": (IPV4, ct(CT_COMMIT, nicira(43, "000000000000")), BAD_ARGUMENT),
    "nat as committed": (IPV4, ct(CT, nicira(36, "0000 0000 0000")), None),
    "nat without commit": (IPV4, ct(CT, nicira(36, "0000 0001 0001 0a000001")), BAD_ARGUMENT),
    "nat of the other side without commit": (
        IPV4,
        ct(CT, nicira(36, "0000 0002 0001 0a000001")),
        BAD_ARGUMENT,
    ),
    "persistent nat without commit": (IPV4, ct(CT, nicira(36, "0000 0004 0000")), BAD_ARGUMENT),
    "nat": (IPV4, nat("0000 0001 0000"), None),
    "nat of IPv4 to IPv6": (IPV4, nat("0000 0002 0004 fd00" + "00" * 14), INCONSISTENT),
    "nat of IPv6 to IPv4": (IPV6, nat("0000 0002 0001 0a000001"), INCONSISTENT),
    "a zone of a field without its header": (IPV4, ct("0000 80001a02 000f ff 000000 0000"), INCONSISTENT),
    "nat both ways": (IPV4, nat("0000 0003 0000"), BAD_ARGUMENT),
    "nat to addresses": (IPV4, nat("0000 0001 0003 0a000001 0a000009"), None),
    "nat to IPv6": (IPV6, nat("0000 0001 0004 fd00" + "00" * 14), None),
    "nat to addresses and ports": (IPV4, nat("0000 0001 0031 0a000001 0001 0009"), None),
    "nat to reversed addresses": (IPV4, nat("0000 0001 0003 0a000009 0a000001"), BAD_ARGUMENT),
    "nat to reversed ports": (IPV4, nat("0000 0001 0031 0a000001 0009 0001"), BAD_ARGUMENT),
    "nat to port 0": (IPV4, nat("0000 0001 0011 0a000001 0000"), BAD_ARGUMENT),
    "nat to address 0": (IPV4, nat("0000 0002 0001 00000000"), BAD_ARGUMENT),
    "nat to ports alone": (IPV4, nat("0000 0001 0030 0001 0009"), BAD_ARGUMENT),
    "nat to a last without a first": (IPV4, nat("0000 0001 0002 0a000001"), BAD_ARGUMENT),
    "nat to both families": (IPV4, nat("0000 0001 0005 0a000001" + "fd00" + "00" * 14), BAD_ARGUMENT),
    "nat of missing ranges": (IPV4, nat("0000 0001 000c 0a000001"), BAD_ARGUMENT),
    "nat by hash and at random": (IPV4, nat("0000 0019 0000"), BAD_ARGUMENT),
    "nat with an unknown flag": (IPV4, nat("0000 0041 0000"), BAD_ARGUMENT),
    "output to NORMAL": (b"", hexed("00000010fffffffaffff000000000000"), None),
    "output to LOCAL": (b"", hexed("00000010fffffffeffff000000000000"), None),
    "output to ANY": (b"", hexed("00000010ffffffffffff000000000000"), (2, 4)),
    "output twice": (b"", OUTPUT * 2, None),
}
"""The same answer in Apply-Actions and in Write-Actions."""

IN_LIST: dict[str, tuple[bytes, bytes, Answer]] = {
    "pop MPLS of what has none": (IPV4, POP, INCONSISTENT),
    "pop MPLS twice": (MPLS, POP * 2, INCONSISTENT),
    "push MPLS and decrement the TTL below": (IPV4, PUSH + DEC_TTL, INCONSISTENT),
    "set an MPLS TTL that is not there": (IPV4, SET_MPLS_TTL, INCONSISTENT),
    "decrement an MPLS TTL that is not there": (b"", DEC_MPLS_TTL, INCONSISTENT),
    "set a TTL that is not there": (b"", SET_TTL, INCONSISTENT),
    "decrement a TTL that is not there": (b"", DEC_TTL, INCONSISTENT),
    "pop a tag that is not there": (b"", POP_VLAN, INCONSISTENT),
    "pop a tag twice": (TAGGED, POP_VLAN * 2, INCONSISTENT),
}
"""Inconsistent with the match in Apply-Actions, but none of its business in an action set."""

OUTPUT_FIELD = nicira(15, "001f 00010004 ffff 000000000000")
INSTRUCTIONS: dict[str, tuple[bytes, Answer]] = {
    "output to a field in a list": (apply(OUTPUT_FIELD), None),
    "output to a part of a field": (apply(nicira(15, "010f 00010004 ffff 000000000000")), None),
    "output to more than a field": (apply(nicira(15, "011f 00010004 ffff 000000000000")), (2, 14)),
    "output to a field in a set": (write(OUTPUT_FIELD), (2, 0)),
    "nat outside ct": (apply(nicira(36, "0000 0001 0000")), BAD_SET_ARGUMENT),
    "meter 0": (hexed("0006000800000000"), (12, 2)),
    "all meters": (hexed("00060008ffffffff"), (12, 2)),
    "goto twice": (hexed("0001000801000000") * 2, DUP_INST),
    "a list twice": (apply(OUTPUT) * 2, DUP_INST),
    "clear with actions": (hexed("0005001800000000") + OUTPUT, (3, 7)),
}

WATCHING = bucket(watch_port=1, actions=OUTPUT)
GROUPS: dict[str, tuple[bytes, Answer]] = {
    "an unknown type": (group_mod(0, 4, 2), (6, 10)),
    "an unknown command": (group_mod(9, 0, 2), (6, 11)),
    "a reserved number": (group_mod(0, 0, 0xFFFFFF01), (6, 1)),
    "delete all": (group_mod(2, 0, 0xFFFFFFFC), None),
    "delete with buckets": (group_mod(2, 0, 77, bucket(actions=OUTPUT)), (6, 1)),
    "indirect without a bucket": (group_mod(0, 2, 3), (6, 1)),
    "indirect with two": (group_mod(0, 2, 3, bucket() * 2), (6, 1)),
    "a weight of ALL": (group_mod(0, 0, 3, bucket(5)), (6, 1)),
    "failover that watches nothing": (group_mod(0, 3, 3, bucket()), (6, 1)),
    "ALL that watches": (group_mod(0, 0, 3, WATCHING), (6, 6)),
    "ALL that watches a group": (group_mod(0, 0, 3, bucket(watch_group=1)), (6, 6)),
    "failover": (group_mod(0, 3, 30, WATCHING), None),
    "select that watches": (group_mod(0, 1, 31, WATCHING), None),
    "all": (group_mod(0, 0, 32, bucket(actions=OUTPUT) + bucket()), None),
    "without buckets": (group_mod(0, 0, 33), None),
    "a bucket that is too short": (group_mod(0, 0, 34, hexed("0008") + bytes(14)), (6, 12)),
    "a bucket beyond the message": (group_mod(0, 0, 34, hexed("0018") + bytes(14)), (6, 12)),
    "a piece of a bucket": (group_mod(0, 0, 34, bucket() + bytes(8)), (6, 12)),
    "a bucket of 20 bytes": (group_mod(0, 0, 34, hexed("0014") + bytes(18)), BAD_LEN),
    "an unknown action": (group_mod(0, 0, 34, bucket(actions=hexed("0099000800000000"))), (2, 0)),
    "nat outside ct in a bucket": (
        group_mod(0, 0, 34, bucket(actions=nicira(36, "0000 0001 0000"))),
        BAD_SET_ARGUMENT,
    ),
    "headers nobody promised": (group_mod(0, 0, 35, bucket(actions=POP + set_field(TCP_SOURCE))), None),
    "no message": (hexed("040f000c0000000100000000"), BAD_LEN),
}

METERS: dict[str, tuple[bytes, Answer]] = {
    "a meter": (meter_mod(0, 1, 1, band(1, 10)), None),
    "packets, burst, statistics": (meter_mod(0, 14, 2, band(1, 10)), None),
    "two units": (meter_mod(0, 3, 3, band(1, 10)), (12, 5)),
    "no unit": (meter_mod(0, 0, 3, band(1, 10)), (12, 5)),
    "an unknown flag": (meter_mod(0, 0x11, 3, band(1, 10)), (12, 5)),
    "an unknown command": (meter_mod(9, 0, 3, band(7, 0)), (12, 4)),
    "an unknown band": (meter_mod(0, 1, 3, band(7, 10)), (12, 8)),
    "an experimenter's band": (meter_mod(0, 1, 3, band(0xFFFF, 10)), (12, 8)),
    "an unknown band before bad flags": (meter_mod(0, 0, 3, band(7, 0)), (12, 8)),
    "a rate of 0": (meter_mod(0, 1, 3, band(1, 0)), (12, 6)),
    "number 0": (meter_mod(0, 1, 0, band(1, 10)), (12, 2)),
    "the last number": (meter_mod(0, 1, 0xFFFF0000, band(1, 10)), None),
    "a reserved number": (meter_mod(0, 1, 0xFFFF0001, band(1, 10)), (12, 2)),
    "modify number 0": (meter_mod(1, 1, 0, band(1, 10)), (12, 2)),
    "add all": (meter_mod(0, 1, ANY, band(1, 10)), (12, 2)),
    "delete what is not there": (meter_mod(2, 0, 98, band(7, 1)), None),
    "a piece of a band": (meter_mod(0, 1, 3, hexed("00010004")), BAD_LEN),
    "a band of no length": (meter_mod(0, 1, 3, hexed("00010000") + bytes(12)), BAD_LEN),
    "a band of 32 bytes": (meter_mod(0, 1, 3, band(1, 10, 32)), BAD_LEN),
    "the same rate twice": (meter_mod(0, 1, 4, band(1, 10) * 2), None),
}

CASES: dict[str, tuple[bytes, Answer]] = {
    **{f"match: {name}": (flow_mod(fields), answer) for name, (fields, answer) in MATCHES.items()},
    **{
        f"{place.__name__}: {name}": (flow_mod(fields, place(actions)), answer)
        for name, (fields, actions, answer) in IN_BOTH.items()
        for place in (apply, write)
    },
    **{
        f"apply: {name}": (flow_mod(fields, apply(actions)), answer)
        for name, (fields, actions, answer) in IN_LIST.items()
    },
    **{
        f"write: {name}": (flow_mod(fields, write(actions)), None)
        for name, (fields, actions, _) in IN_LIST.items()
    },
    **{
        f"instructions: {name}": (flow_mod(b"", data), answer)
        for name, (data, answer) in INSTRUCTIONS.items()
    },
    **{f"group: {name}": case for name, case in GROUPS.items()},
    **{f"meter: {name}": case for name, case in METERS.items()},
}
