"""IPFIX messages as an independent decoder reads them, and what observations become in them."""

from __future__ import annotations

import struct
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.layers.netflow import NetflowHeader, NetflowHeaderV10, netflowv9_defragment
from scapy.packet import Packet, Raw

from tests.unit.fabric.test_tally_and_scan import slot
from vnet.base.drop import DropReason
from vnet.base.errors import InputError
from vnet.capture.record import PacketRecord, Point, Verdict
from vnet.fabric.exported import Drops, flows
from vnet.fabric.ipfix import (
    DOMAIN,
    EXPORTING,
    FIELDS,
    INTERFACE,
    MESSAGE_BYTES,
    METERING,
    OPTIONS,
    Encoder,
    End,
    Event,
    FlowRecord,
    Losses,
    Named,
    domain,
    status,
)
from vnet.fabric.live.ipfix import collector
from vnet.fabric.observed import Names
from vnet.fabric.scan import Change, Scanner
from vnet.fabric.store import Source
from vnet.fabric.tally import Era
from vnet.openflow.conntrack import State
from vnet.switch.connections import Tracked

NOW_S = 1_795_000_000
FOUR = FlowRecord(
    NOW_S * 1000,
    NOW_S * 1000 + 250,
    IPv4Address("10.0.0.1"),
    IPv4Address("10.0.0.2"),
    6,
    41000,
    443,
    7,
    5040,
    3,
    4,
    10,
    Event.CREATED,
    End.ACTIVE,
)
SIX = replace(FOUR, source=IPv6Address("fd00::1"), target=IPv6Address("fd00::2"))
DENIED = replace(FOUR, event=Event.DENIED, end=End.ENDED, status=130, tcp_flags=2)


def decoded(*messages: bytes) -> list[Packet]:
    """As Scapy reads them; those after the first with the templates that it tells."""
    packets = [Ether() / IP() / UDP(sport=2055, dport=4739) / NetflowHeader(data) for data in messages]
    return list(netflowv9_defragment(packets))


def values(packet: Packet) -> list[dict[str, Any]]:
    """The data records of a message, field by field."""
    found = []
    for layer in packet[NetflowHeaderV10].payload.iterpayloads():
        for record in layer.records:
            found.append({field.name: record.getfieldval(field.name) for field in record.fields_desc})
    return found


def test_a_decoder_reads_what_was_encoded() -> None:
    encoder = Encoder(77)
    first = encoder.templates(NOW_S)
    ((data, count),) = encoder.messages([FOUR, SIX, DENIED], NOW_S)
    assert count == 3
    _, message = decoded(first, data)
    head = message[NetflowHeaderV10]
    assert (head.ExportTime, head.flowSequence, head.ObservationDomainID) == (NOW_S, 0, 77)
    assert struct.unpack_from("!HH", data) == (10, len(data))
    four, six, denied = values(message)
    assert (four["IPV4_SRC_ADDR"], four["IPV4_DST_ADDR"]) == ("10.0.0.1", "10.0.0.2")
    assert (six["IPV6_SRC_ADDR"], six["IPV6_DST_ADDR"]) == ("fd00::1", "fd00::2")
    for one in (four, six, denied):
        assert (one["L4_SRC_PORT"], one["L4_DST_PORT"], number(one["PROTOCOL"])) == (41000, 443, 6)
        assert (number(one["IN_BYTES"]), number(one["IN_PKTS"])) == (5040, 7)
        assert (number(one["INPUT_SNMP"]), number(one["OUTPUT_SNMP"])) == (3, 4)
    assert number(denied["TCP_FLAGS"]) == 2 and "TCP_FLAGS" not in four
    assert [number(one["FORWARDING_STATUS"]) for one in (four, six, denied)] == [64, 64, 130]
    assert [number(one["firewallEvent"]) for one in (four, six, denied)] == [1, 1, 3]


def number(value: Any) -> int:
    return int.from_bytes(value, "big") if isinstance(value, bytes) else int(value)


def test_templates_tell_as_many_bytes_as_records_have() -> None:
    for record in (FOUR, SIX, DENIED, replace(SIX, tcp_flags=0)):
        assert len(record.encode()) == sum(size for _, size in FIELDS[record.template])
    for record in (Losses(METERING, 5), Losses(EXPORTING, 5)):
        assert len(record.encode()) == sum(size for _, size in OPTIONS[record.template])
    for record in (Named(INTERFACE, 1, "web-1.eth0"), Named(DOMAIN, 1, "x" * 400)):
        data = record.encode()
        assert data[4] == len(data) - 5 <= 254


def test_messages_are_of_one_datagram_and_numbered_by_records() -> None:
    encoder = Encoder(1, sequence=0xFFFFFFFF)
    sent = list(encoder.messages([FOUR, SIX, DENIED] * 100, NOW_S))
    assert sum(count for _, count in sent) == 300
    expected = 0xFFFFFFFF
    for data, count in sent:
        assert len(data) <= MESSAGE_BYTES
        assert struct.unpack_from("!HHII", data)[1:] == (len(data), NOW_S, expected)
        expected = (expected + count) & 0xFFFFFFFF
    encoder.templates(NOW_S)
    assert encoder.sequence == expected, "templates are no data records"


def test_every_reason_to_drop_is_told_as_dropped() -> None:
    for reason in DropReason:
        if reason:
            assert status(reason) >> 6 == 2, reason
    assert (status(DropReason.POLICY), status(DropReason.REJECTED), status(DropReason.SPOOF_IP)) == (
        130,
        129,
        140,
    )
    assert domain("a") != domain("b") and 0 < domain("a") < 1 << 32


def test_a_connection_gives_a_record_for_each_direction_that_flowed() -> None:
    ends = 0x0A000001, 41000, 0x0A000002, 443
    times = 5 * 10**9, 9 * 10**9
    one = Tracked(0, True, 10, 4, 6, *ends, *times, (3, 2), (300, 100), 0, 1, 3, State.ESTABLISHED, 3, 0)
    new = Change(one, (3, 2), (300, 100), is_new=True, has_ended=False)
    out, back = flows([new], None, 0, 10**12)
    assert (str(out.source), out.source_port, out.ingress, out.packets, out.octets) == (
        "10.0.0.1",
        41000,
        3,
        3,
        300,
    )
    assert (str(back.source), back.source_port, back.egress, back.packets) == ("10.0.0.2", 443, 3, 2)
    assert (out.start_ms, out.end_ms, out.event, out.vlan) == (1_005_000, 1_009_000, Event.CREATED, 10)
    later = Change(replace(one, state=State.CLOSED), (1, 0), (60, 0), is_new=False, has_ended=True)
    (out,) = flows([later], None, 8 * 10**9, 10**12)
    assert (out.start_ms, out.event, out.end) == (1_008_000, Event.DELETED, End.ENDED)


def test_an_echo_tells_type_and_code_where_collectors_look() -> None:
    scanner, conn = Scanner(), slot(10**9, 1, back=1, tcp_state=0)
    conn.key[0].proto, conn.key[0].sport = 1, 77
    out, back = flows(scanner.part(0, bytes(conn)), None, 0, 0)
    assert (out.icmp, out.source_port, out.target_port) == (8 << 8, 0, 8 << 8)
    assert (back.icmp, back.target_port) == (0, 0)


def test_drops_are_summed_up_and_what_is_not_ip_has_no_record() -> None:
    names, drops = Names(Era("small", 1, 0, Source("f", ""))), Drops()

    def dropped(frame: Packet, at_ms: int) -> None:
        drops.take(
            names,
            PacketRecord(
                at_ms * 10**6,
                5,
                "a.eth0",
                Point.GUEST,
                Verdict.DROP,
                DropReason.POLICY,
                0,
                0,
                0,
                0,
                1,
                100,
                bytes(frame),
            ),
        )

    for at_ms in (10, 30, 20):
        dropped(Ether() / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1, dport=53) / Raw(b"x"), at_ms)
    dropped(Ether() / ARP(), 40)
    (one,) = drops.drain()
    assert (one.packets, one.octets, one.start_ms, one.end_ms) == (3, 300, 10, 30)
    assert (one.event, one.status, one.ingress, one.target_port) == (Event.DENIED, 130, 5, 53)
    assert list(drops.drain()) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("192.0.2.1:2055", ("192.0.2.1", 2055)),
        ("collector", ("collector", 4739)),
        ("[::1]:2055", ("::1", 2055)),
        ("[::1]", ("::1", 4739)),
        ("::1", ("::1", 4739)),
    ],
)
def test_a_collector_is_read_as_written(text: str, found: tuple[str, int]) -> None:
    assert collector(text) == found


@pytest.mark.parametrize("text", [":2055", "host:", "host:70000", "host:x"])
def test_what_is_no_collector_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="HOST:PORT"):
        collector(text)
