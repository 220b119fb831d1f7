"""QEMU's guest agent: what is said to it, and what is made of what a guest answers, true or not."""

from __future__ import annotations

import json
from base64 import b64encode

import pytest

from vnet.base.errors import HostError, InputError, PeerError
from vnet.hv import guest_agent
from vnet.hv.guest_agent import Answer, Heard, Reader, Synced
from vnet.hv.spec import ExecResult


def line(value: object, *, sign: bool = False) -> bytes:
    return (b"\xff" if sign else b"") + json.dumps(value).encode() + b"\n"


def synced(numbers: int = 1) -> tuple[Reader, int]:
    reader = Reader(1000)
    for _ in range(numbers):
        last = reader.next_number()
    return reader, last


CONVERSATION = (
    b'half of an old answer"}\n\xff{"return": 7}\n{"return": {"old": true}}\n'
    + line({"return": 1001}, sign=True)
    + line({"return": {}})
    + line({"error": {"class": "GenericError", "desc": "no"}})
)


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_any_split_of_the_stream_gives_the_same_events(size: int) -> None:
    reader, _ = synced()
    pieces = (CONVERSATION[start : start + size] for start in range(0, len(CONVERSATION), size))
    events = [event for piece in pieces for event in reader.feed(piece)]
    assert events == [Synced(), Answer({}), Answer(error="no")]


def test_only_the_answer_to_the_last_sign_counts_so_that_no_earlier_one_is_taken_for_an_answer() -> None:
    reader, last = synced(3)
    assert list(reader.feed(line({"return": last - 2}, sign=True))) == [Heard()]
    assert list(reader.feed(line({"return": last - 1}, sign=True) + line({"return": 5}))) == [Heard()]
    assert list(reader.feed(line({"return": last}, sign=True))) == [Synced()]


@pytest.mark.parametrize(
    "noise",
    [
        b"\xff" * 1000,
        b"\xff" + b"a" * 10_000,
        b'\xff{"return": [1]}\n',
        b"\xff[1]\n",
        b"\xff" + b"[" * 100 + b"\n",
        b'\xff{"return": null}\n',
        b'\xff{"return": true}\n',
        b"\0\n\n\n",
    ],
)
def test_noise_before_the_sign_is_passed_over(noise: bytes) -> None:
    reader, last = synced()
    assert list(reader.feed(noise)) == []
    assert list(reader.feed(line({"return": last}, sign=True))) == [Synced()]


@pytest.mark.parametrize(
    "answer", [b"hello\n", b"[]\n", b"{}\n", b'{"error": 5}\n', b"[" * 100_000 + b"\n", b"\xfe\n"]
)
def test_what_is_no_answer_ends_the_connection(answer: bytes) -> None:
    reader, last = synced()
    list(reader.feed(line({"return": last}, sign=True)))
    with pytest.raises(PeerError, match="no answer"):
        list(reader.feed(answer))


def test_an_answer_without_end_is_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest_agent, "MAX_ANSWER_BYTES", 1000)
    reader, last = synced()
    list(reader.feed(line({"return": last}, sign=True)))
    with pytest.raises(PeerError, match="end nowhere"):
        list(reader.feed(b"a" * 2000))


def test_noise_without_a_sign_is_not_kept() -> None:
    reader, _ = synced()
    for _ in range(100):
        list(reader.feed(b"a" * 10_000))
    assert len(reader._buffer) == 0


def test_words_and_input_of_a_command_are_sent_as_they_are() -> None:
    sent = json.loads(guest_agent.encode_exec(["printf", "%s", "a'b \n$x ö"], b"\0in"))
    assert sent["execute"] == "guest-exec"
    assert sent["arguments"]["arg"][-3:] == ["printf", "%s", "a'b \n$x ö"]
    assert sent["arguments"]["input-data"] == b64encode(b"\0in").decode()
    assert "input-data" not in json.loads(guest_agent.encode_exec(["true"], b""))["arguments"]
    with pytest.raises(InputError, match="NUL"):
        guest_agent.encode_exec(["a\0b"], b"")


def test_how_a_command_ended_is_told_as_a_shell_tells_it() -> None:
    ended = guest_agent.parse_ended
    assert ended({"exited": False}) is None
    assert ended({"exited": True, "exitcode": 3}) == ExecResult(3, b"", b"")
    assert ended({"exited": True, "signal": 9}) == ExecResult(137, b"", b"")
    cut = ended({"exited": True, "exitcode": 0, "out-data": b64encode(b"x").decode(), "out-truncated": True})
    assert cut is not None and cut.stdout == b"x" and b"16 MiB" in cut.stderr


@pytest.mark.parametrize("value", [None, [], {}, {"exited": 1}, {"exited": True, "out-data": "*"}])
def test_a_command_s_end_that_makes_no_sense_is_refused(value: object) -> None:
    with pytest.raises(PeerError):
        guest_agent.parse_ended(value)


@pytest.mark.parametrize("value", [None, {"pid": 0}, {"pid": -1}, {"pid": "1"}, {"pid": 1 << 40}])
def test_a_process_that_makes_no_sense_is_refused(value: object) -> None:
    with pytest.raises(PeerError):
        guest_agent.parse_pid(value)


def test_a_command_that_the_guest_bars_is_told_with_where_it_is_allowed() -> None:
    barred = Answer(error="Command guest-exec has been disabled")
    with pytest.raises(HostError, match=r"has been disabled; .* block-rpcs"):
        guest_agent.result("guest-exec", barred)
    with pytest.raises(HostError, match="refused guest-fsfreeze-freeze: busy"):
        guest_agent.result("guest-fsfreeze-freeze", Answer(error="busy"))
