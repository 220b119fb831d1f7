"""Captures in several files, with real files and a clock of the test's own."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from tests.unit.capture.blocks import read
from tests.unit.capture.samples import delivered, record
from vnet.base.errors import UsageError
from vnet.capture.live import sink
from vnet.capture.live.sink import RingSink, open_sink
from vnet.capture.pcapng import PcapngEncoder
from vnet.capture.ring import Ring, RingLimits, blocks, earlier_files, file_name, ring_limits

PACKETS = [record(), delivered(), record(), delivered(), record()]


def pieces(*packets: object) -> list[bytes]:
    """A capture as its encoder gives it."""
    encoder = PcapngEncoder()
    given = [encoder.header()]
    for packet in packets:
        given.append(encoder.encode(packet, ("why",)))  # type: ignore[arg-type]
        encoder.wrote(packet)  # type: ignore[arg-type]
    return [*given, encoder.trailer(1)]


def kept(path: Path, limits: RingLimits, given: list[bytes], goes_on: bool = False) -> list[list[int]]:
    """The blocks of each file that is left, by kind."""
    sink = RingSink(path, limits, goes_on)
    assert all(sink.write(piece) for piece in given)
    sink.close()
    return [[block.kind for block in read(file.read_bytes())] for _, file in earlier_files(path)]


@pytest.mark.parametrize(
    ("words", "limits"),
    [
        ([], None),
        (["filesize:64000", "files:10"], RingLimits(size_bytes=64_000_000, files=10)),
        (["filesize:64M"], RingLimits(size_bytes=64_000_000)),
        (["duration:1.5", "packets:7"], RingLimits(duration_s=1.5, packets=7)),
    ],
)
def test_limits_are_written_as_for_dumpcap(words: list[str], limits: RingLimits | None) -> None:
    assert ring_limits(words) == limits


@pytest.mark.parametrize("word", ["files:3", "filesize:0", "filesize:9x", "size:3", "duration:-1", "packets"])
def test_what_is_no_limit_is_refused_with_what_would_be_one(word: str) -> None:
    with pytest.raises(UsageError, match="filesize:KB"):
        ring_limits([word])


def test_each_file_is_a_capture_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    section, interface, packet, statistics = 0x0A0D0D0A, 1, 6, 5
    assert kept(path, RingLimits(packets=2), pieces(*PACKETS)) == [
        [section, interface, packet, interface, packet],
        [section, interface, interface, packet, packet],
        [section, interface, interface, packet, statistics, statistics],
    ]


def test_the_oldest_files_go_also_those_of_an_earlier_capture_that_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    (tmp_path / "a_x.pcapng").write_text("not ours")
    limits = RingLimits(packets=1, files=2)
    assert len(kept(path, limits, pieces(*PACKETS))) == 2
    assert [number for number, _ in earlier_files(path)] == [4, 5]
    assert len(kept(path, limits, pieces(record()), goes_on=True)) == 2
    assert [number for number, _ in earlier_files(path)] == [5, 6]
    assert (tmp_path / "a_x.pcapng").exists()


def test_no_file_grows_beyond_its_size_but_by_a_packet_that_is_larger_itself(tmp_path: Path) -> None:
    big = record(data=bytes(900), original_length=900)
    path = tmp_path / "a.pcapng"
    kept(path, RingLimits(size_bytes=2000), pieces(*[big] * 6))
    sizes = [file.stat().st_size for _, file in earlier_files(path)]
    assert len(sizes) == 6 and max(sizes) <= 2000
    huge = record(data=bytes(9000), original_length=9000)
    assert len(kept(tmp_path / "b", RingLimits(size_bytes=2000), pieces(huge, huge))) == 2


def test_a_file_ends_after_its_time_with_the_next_packet() -> None:
    ring, (header, first, second, _) = Ring(RingLimits(duration_s=10)), pieces(record(), record())
    interface, packet = blocks(first)
    for block, now_s in ((header, 0.0), (interface, 5.0), (packet, 5.0)):
        assert not ring.begins(block, now_s)
        ring.wrote(block, now_s)
    assert not ring.begins(second, 14.9)
    assert ring.begins(second, 15.0)


def test_files_are_named_as_dumpcap_names_them() -> None:
    at = datetime(2026, 3, 2, 14, 3, 22)
    assert file_name(Path("x/a.pcapng"), 7, at) == Path("x/a_00007_20260302140322.pcapng")


def test_half_a_block_waits_for_the_rest() -> None:
    stream = b"".join(pieces(*PACKETS))
    assert b"".join(blocks(stream)) == stream
    whole = list(blocks(stream[:-3]))
    assert len(whole) == len(list(blocks(stream))) - 1


def test_a_ring_is_opened_where_limits_are_given(tmp_path: Path) -> None:
    sink = open_sink(str(tmp_path / "x"), RingLimits(packets=1))
    assert isinstance(sink, RingSink)
    sink.close()


def test_after_a_full_disk_at_a_change_of_files_the_next_one_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    one = RingSink(tmp_path / "a.pcapng", RingLimits(packets=1, files=2))
    header, *packets, trailer = pieces(*PACKETS)
    assert all(one.write(piece) for piece in (header, *packets[:2]))
    with monkeypatch.context() as patched:
        patched.setattr(sink, "_write_all", full)
        assert not one.write(packets[2])
    assert "No space left" in str(one.error)
    assert one.write(packets[3]) and one.write(trailer) and one.error is None
    one.close()
    assert [len(read(path.read_bytes())) > 2 for _, path in earlier_files(one.path)] == [True, True]


def test_a_folder_that_has_gone_is_no_end_of_the_capture(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    one = RingSink(tmp_path / "here" / "a.pcapng", RingLimits(packets=1))
    header, *packets, _ = pieces(*PACKETS)
    assert one.write(header) and one.write(packets[0])
    (tmp_path / "here").rename(tmp_path / "there")
    assert not one.write(packets[1]) and "No such file" in str(one.error)
    (tmp_path / "there").rename(tmp_path / "here")
    assert one.write(packets[2]) and one.error is None
    one.close()
