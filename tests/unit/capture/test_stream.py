"""The capture as a whole, with sources and sinks of the test's own."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.unit.capture.blocks import Block, read
from tests.unit.capture.samples import SSH_SYN, delivered, explain, record
from vnet.base.errors import HostError
from vnet.capture.limits import NO_LIMITS, Limits
from vnet.capture.lines import line_encoder
from vnet.capture.live.sink import FileSink, PipeSink, open_sink
from vnet.capture.live.stream import Lost, Outcome, blocks, run
from vnet.capture.pcapng import PcapngEncoder
from vnet.capture.record import PacketRecord
from vnet.capture.recorder import Recorder, Totals


async def _source(*items: PacketRecord | Lost, then_wait: bool = False) -> AsyncIterator[PacketRecord | Lost]:
    for item in items:
        yield item
    if then_wait:
        await asyncio.sleep(60)


def _recorder(limits: Limits = NO_LIMITS) -> Recorder:
    return Recorder(PcapngEncoder(snaplen_bytes=limits.snaplen_bytes), explain, limits=limits)


def _packets(path: Path) -> list[Block]:
    return [block for block in read(path.read_bytes()) if block.kind == 6]


@contextmanager
def _disk_of(size_bytes: int) -> Iterator[None]:
    """No file may grow larger, which is what a full disk looks like to a writer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def test_packets_are_cut_and_all_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    recorder = _recorder(Limits(snaplen_bytes=40))
    outcome = asyncio.run(run(_source(record(), Lost(2), delivered()), recorder, FileSink(path)))
    assert outcome == Outcome(Totals(kept=2, lost=2), None)
    assert [block.data for block in _packets(path)] == [SSH_SYN[:40], SSH_SYN[:40]]
    assert str(outcome.totals) == "2 packets kept, 2 lost"


def test_a_capture_ends_at_its_count(tmp_path: Path) -> None:
    recorder = _recorder(Limits(count=2))
    outcome = asyncio.run(run(_source(*[record()] * 5), recorder, FileSink(tmp_path / "a")))
    assert outcome.totals.kept == 2


def test_a_capture_ends_at_its_time_though_no_packet_comes(tmp_path: Path) -> None:
    recorder = _recorder(Limits(duration_s=0.05))
    outcome = asyncio.run(run(_source(record(), then_wait=True), recorder, FileSink(tmp_path / "a")))
    assert outcome == Outcome(Totals(1, 0), None)


def test_an_interrupted_capture_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"

    async def interrupted() -> None:
        task = asyncio.create_task(run(_source(record(), then_wait=True), _recorder(), FileSink(path)))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(interrupted())
    assert [block.kind for block in read(path.read_bytes())] == [0x0A0D0D0A, 1, 6, 5]


def test_a_file_that_exists_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    path.write_bytes(b"x" * 10_000)
    asyncio.run(run(_source(record()), _recorder(), FileSink(path)))
    assert len(_packets(path)) == 1


def test_a_path_that_cannot_be_written_is_told_before_anything_is_captured(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"cannot write .*/missing/a: No such file or directory"):
        FileSink(tmp_path / "missing" / "a")


def test_a_full_disk_is_reported_once_counted_and_leaves_a_readable_file(tmp_path: Path) -> None:
    path, told = tmp_path / "a.pcapng", list[str]()
    with _disk_of(1000):
        outcome = asyncio.run(run(_source(*[record()] * 20), _recorder(), FileSink(path), told.append))
    assert told == [f"cannot write {path}: File too large; packets are lost until there is room"]
    assert outcome.error is not None
    assert outcome.totals.kept == len(_packets(path)) > 0
    assert outcome.totals.kept + outcome.totals.lost == 20


def test_a_capture_goes_on_when_the_disk_has_room_again_and_tells_the_gap(tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    recorder, sink = _recorder(), FileSink(path)
    sink.write(recorder.encoder.header())
    results = []
    for size_bytes in (100_000, 100, 100, 100_000):
        with _disk_of(size_bytes):
            written = sink.write(recorder.take(record()))
        (recorder.kept(record()) if written else recorder.lost(1))
        results.append(written)
    sink.close()
    assert results == [True, False, False, True]
    assert _packets(path)[1].option(4) == (2).to_bytes(8, "little")


def test_a_disk_full_from_the_start_ends_the_capture(tmp_path: Path) -> None:
    with _disk_of(0):
        outcome = asyncio.run(run(_source(record(), then_wait=True), _recorder(), FileSink(tmp_path / "a")))
    assert outcome.error is not None
    assert outcome.totals == Totals()


def test_a_reader_sees_each_packet_at_once() -> None:
    reader, writer = os.pipe()

    async def packet_by_packet() -> AsyncIterator[PacketRecord | Lost]:
        assert [block.kind for block in read(os.read(reader, 65536))] == [0x0A0D0D0A]
        yield record()
        assert [block.kind for block in read(os.read(reader, 65536))] == [1, 6]
        yield record()
        assert [block.kind for block in read(os.read(reader, 65536))] == [6]

    outcome = asyncio.run(run(packet_by_packet(), _recorder(), PipeSink(writer)))
    os.close(writer)
    os.close(reader)
    assert outcome.totals.kept == 2


@pytest.mark.parametrize("by_name", [False, True])
def test_a_reader_that_goes_away_ends_the_capture_without_an_error(tmp_path: Path, by_name: bool) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    sink = FileSink(fifo) if by_name else PipeSink(os.open(fifo, os.O_WRONLY))

    async def reader_leaves() -> AsyncIterator[PacketRecord | Lost]:
        yield record()
        os.close(reader)
        while True:
            yield record()

    outcome = asyncio.run(run(reader_leaves(), _recorder(), sink))
    if isinstance(sink, PipeSink):
        os.close(sink.fd)
    assert outcome.error is None
    assert outcome.totals.kept == 1


def test_a_pipe_that_does_not_wait_loses_nothing() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    big = record(data=bytes(60_000), original_length=60_000)

    async def both() -> tuple[Outcome, int]:
        reading = asyncio.create_task(asyncio.to_thread(_drain, reader))
        outcome = await asyncio.to_thread(
            lambda: asyncio.run(run(_source(*[big] * 20), _recorder(), PipeSink(writer)))
        )
        os.close(writer)
        return outcome, await reading

    outcome, packets = asyncio.run(both())
    os.close(reader)
    assert outcome.totals.kept == packets == 20


def _drain(fd: int) -> int:
    stream = b"".join(iter(lambda: os.read(fd, 65536), b""))
    return sum(block.kind == 6 for block in read(stream))


def test_a_failing_pipe_is_an_error_with_its_reason() -> None:
    reader, writer = os.pipe()
    os.close(writer)
    sink = PipeSink(reader)  # not open for writing
    assert not sink.write(b"x")
    os.close(reader)
    assert str(sink.error) == f"cannot write to standard output: {os.strerror(errno.EBADF)}"


def test_a_dash_is_standard_output_and_all_else_a_file(tmp_path: Path) -> None:
    assert open_sink("-") == PipeSink(1)
    sink = open_sink(str(tmp_path / "x"))
    assert isinstance(sink, FileSink)
    sink.close()


def test_lines_for_people_go_the_same_way(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    recorder = Recorder(line_encoder(explain), explain)
    asyncio.run(run(_source(record(), Lost(1)), recorder, FileSink(path)))
    printed = path.read_text().splitlines()
    assert "DROP POLICY" in printed[0]
    assert printed[1] == "1 packets lost here"


def test_a_consumer_gets_header_and_packets_piece_by_piece() -> None:
    recorder = _recorder(Limits(duration_s=0.05))

    async def pieces() -> list[bytes]:
        return [piece async for piece in blocks(_source(record(), Lost(1), then_wait=True), recorder)]

    assert [[block.kind for block in read(piece)] for piece in asyncio.run(pieces())] == [
        [0x0A0D0D0A],
        [1, 6],
    ]
    assert recorder.totals == Totals(kept=1, lost=1)


def test_a_slow_consumer_is_not_cut_off_in_the_middle_of_its_own_work() -> None:
    recorder = _recorder(Limits(duration_s=0.02))

    async def slowly() -> int:
        pieces = 0
        async for _ in blocks(_source(*[record()] * 9), recorder):
            await asyncio.sleep(0.01)
            pieces += 1
        return pieces

    assert 2 <= asyncio.run(slowly()) <= 6
