from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.capture.blocks import read
from tests.unit.capture.samples import SSH_SYN, delivered, record
from vnet.capture.pcapng import PcapngEncoder, Producer, enhanced_packet, options
from vnet.capture.record import Point, Verdict


def _file(encoder: PcapngEncoder, *records: object) -> bytes:
    stream = encoder.header()
    for item in records:
        stream += encoder.encode(item, ("why",))  # type: ignore[arg-type]
        encoder.wrote(item)  # type: ignore[arg-type]
    return stream + encoder.trailer(2_000_000_000_000_000_000)


def test_the_section_header_is_byte_for_byte_what_the_draft_says() -> None:
    assert PcapngEncoder(Producer(application="vnet")).header() == bytes.fromhex(
        "0a0d0d0a"  # Section Header Block
        "28000000"  # total length 40
        "4d3c2b1a"  # byte-order magic, little endian
        "01000000"  # version 1.0
        "ffffffffffffffff"  # section length not given
        "04000400766e6574"  # shb_userappl "vnet"
        "00000000"  # opt_endofopt
        "28000000"
    )


def test_a_packet_block_is_byte_for_byte_what_the_draft_says() -> None:
    packet = record(time_ns=0x1122334455667788, data=b"\xaa\xbb\xcc", original_length=64)
    assert enhanced_packet(packet, interface=2, comments=("no",), lost=5) == bytes.fromhex(
        "06000000"
        "54000000"
        "02000000"  # Enhanced Packet Block, length, interface
        "44332211"
        "88776655"  # time, upper half first
        "03000000"
        "40000000"
        "aabbcc00"  # kept, original length, bytes and padding
        "01000200"
        "6e6f0000"  # opt_comment "no"
        "02000400"
        "02000000"  # epb_flags: outbound
        "04000800"
        "0500000000000000"  # epb_dropcount
        "07000900"
        "010200000000000000"
        "000000"  # epb_verdict: tc, TC_ACT_SHOT
        "00000000"
        "54000000"
    )


def test_each_nic_and_point_is_an_interface_described_before_its_first_packet() -> None:
    stream = _file(PcapngEncoder(), record(), delivered(), record(point=Point.DELIVERED), record())
    kinds = [block.kind for block in read(stream)]
    assert kinds == [0x0A0D0D0A, 1, 6, 1, 6, 1, 6, 6, 5, 5, 5]
    names = [block.option(2).decode() for block in read(stream) if block.kind == 1]
    assert names == ["app.eth1/guest", "db.eth0/delivered", "app.eth1/delivered"]
    numbers = [struct.unpack_from("<I", block.fixed)[0] for block in read(stream) if block.kind == 6]
    assert numbers == [0, 1, 2, 0]


def test_an_interface_tells_nanoseconds_snaplen_and_the_filter() -> None:
    encoder = PcapngEncoder(expression="tcp port 22", snaplen_bytes=128)
    described = read(_file(encoder, record()))[1]
    assert described.fixed == struct.pack("<HHI", 1, 0, 128)
    assert described.option(9) == b"\x09"
    assert described.option(11) == b"\x00tcp port 22"


def test_direction_is_seen_from_the_guest() -> None:
    blocks = [block for block in read(_file(PcapngEncoder(), record(), delivered())) if block.kind == 6]
    assert [block.option(2) for block in blocks] == [struct.pack("<I", 2), struct.pack("<I", 1)]


def test_a_passed_packet_has_the_verdict_redirect() -> None:
    passed = read(enhanced_packet(record(verdict=Verdict.PASS), 0, ()))[0]
    assert passed.option(7) == b"\x01" + struct.pack("<Q", 7)


def test_losses_are_told_once_by_the_next_packet_and_summed_in_the_statistics() -> None:
    encoder = PcapngEncoder()
    encoder.lose(3)
    first = encoder.encode(record(), ())
    encoder.wrote(record())
    second = encoder.encode(record(), ())
    encoder.wrote(record())
    encoder.lose(2)
    (statistics,) = read(encoder.trailer(0))
    assert read(first)[1].option(4) == struct.pack("<Q", 3)
    assert 4 not in read(second)[0].codes()
    assert statistics.option(4) == struct.pack("<Q", 2)
    assert statistics.option(7) == struct.pack("<Q", 5)


def test_a_packet_that_could_not_be_written_leaves_no_trace_but_its_loss() -> None:
    encoder = PcapngEncoder()
    encoder.encode(delivered(), ())
    encoder.lose(1)
    described, packet = read(encoder.encode(record(), ()))
    assert described.option(2) == b"app.eth1/guest"
    assert struct.unpack_from("<I", packet.fixed) == (0,)
    assert packet.option(4) == struct.pack("<Q", 1)


def test_several_comments_stay_apart() -> None:
    packet = read(enhanced_packet(record(), 0, ("first", "zweitens ü")))[0]
    assert [value.decode() for code, value in packet.options if code == 1] == ["first", "zweitens ü"]


def test_a_comment_too_long_for_an_option_is_cut_at_a_character() -> None:
    comment = read(enhanced_packet(record(), 0, ("ü" * 40_000,)))[0].option(1)
    assert comment.decode() == "ü" * 32_767


def test_no_option_at_all_needs_no_end_mark() -> None:
    assert options(()) == b""


@given(
    data=st.binary(max_size=200),
    comments=st.lists(st.text(max_size=30), max_size=3),
    nic=st.text(max_size=20),
    lost=st.integers(0, 2**64 - 1),
    expression=st.text(max_size=20),
)
def test_every_block_is_aligned_and_says_its_true_length(
    data: bytes, comments: list[str], nic: str, lost: int, expression: str
) -> None:
    encoder = PcapngEncoder(Producer("a", "bcd", "efgh"), expression)
    encoder.lose(lost)
    seen = record(data=data, original_length=len(data) + 1, nic=nic)
    stream = encoder.header() + encoder.encode(seen, tuple(comments))
    encoder.wrote(seen)
    packet = read(stream + encoder.trailer(0))[2]
    assert packet.data == data
    assert [value.decode() for code, value in packet.options if code == 1] == comments


def test_a_hundred_thousand_packets_are_all_there() -> None:
    encoder = PcapngEncoder()
    stream = bytearray(encoder.header())
    for number in range(100_000):
        packet = record(time_ns=number, nic=f"vm-{number % 50}.eth0")
        stream += encoder.encode(packet, ("why",))
        encoder.wrote(packet)
    stream += encoder.trailer(100_000)
    blocks = read(bytes(stream))
    assert sum(block.kind == 6 and block.data == SSH_SYN for block in blocks) == 100_000
    assert sum(struct.unpack("<Q", block.option(4))[0] for block in blocks if block.kind == 5) == 100_000
