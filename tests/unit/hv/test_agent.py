from __future__ import annotations

import itertools
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vnet.base.errors import InputError, PeerError
from vnet.hv.agent import CHUNK_BYTES, Done, Reader, Synced, encode_kill, encode_run, encode_sync, quote


def feed(reader, *pieces):
    return [event for piece in pieces for event in reader.feed(piece)]


def synced():
    reader = Reader("n")
    assert feed(reader, b"synced n\n") == [Synced()]
    return reader


def test_nothing_counts_before_the_answer_to_our_own_nonce():
    reader = Reader("abc")
    assert feed(reader, b"half of something old\ndone x 0 4 0\nold\nsynced other\n") == []
    assert feed(reader, b"synced abc\ndone y 3 2 1\nouE") == [Synced(), Done("y", 3, b"ou", b"E")]


def test_later_signs_are_passed_over():
    assert feed(synced(), b"synced n\nsynced n\ndone a 0 0 0\n") == [Done("a", 0, b"", b"")]


def test_output_may_look_like_an_answer():
    text = b"done b 0 0 0\n"
    assert feed(synced(), b"done a 0 13 0\n" + text) == [Done("a", 0, text, b"")]


answers = st.lists(
    st.builds(
        Done,
        id=st.from_regex(r"[a-z0-9-]{1,12}", fullmatch=True),
        exit_code=st.integers(0, 255),
        stdout=st.binary(max_size=40),
        stderr=st.binary(max_size=40),
    ),
    max_size=4,
)


@given(answers, st.binary(max_size=30), st.lists(st.integers(0, 400), max_size=8))
def test_any_split_of_the_stream_gives_the_same_events(done, garbage, cuts):
    wire = garbage + b"synced q\n"
    for one in done:
        head = f"done {one.id} {one.exit_code} {len(one.stdout)} {len(one.stderr)}\n"
        wire += head.encode() + one.stdout + one.stderr
    bounds = [0, *sorted(cut for cut in cuts if cut < len(wire)), len(wire)]
    pieces = [wire[a:b] for a, b in itertools.pairwise(bounds)]
    assert feed(Reader("q"), *pieces) == [Synced(), *done]


@pytest.mark.parametrize(
    "line",
    [b"hello\n", b"done x\n", b"done x -1 0 0\n", b"done x 0 a 0\n", b"done x 0 99999999999 0\n", b"x" * 300],
)
def test_a_guest_that_does_not_keep_to_the_protocol_ends_the_connection(line):
    with pytest.raises(PeerError, match="agent"):
        feed(synced(), line)


@given(st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"])))
def test_a_quoted_word_is_one_line_and_the_shell_reads_it_back(word):
    quoted = quote(word)
    assert "\n" not in quoted and "\r" not in quoted


@pytest.mark.parametrize(
    "word", ["", "a b", "it's", "$HOME `id` \\", "a\nb", "tab\t'\n'\\n", "-n", "*", "ü€", "a\r\nb", "\\'\n"]
)
def test_busybox_reads_back_every_quoted_word(word):
    script = 'set -f; eval "set -- $1"; printf \'%s\' "$1"'
    done = subprocess.run(["busybox", "sh", "-c", script, "sh", quote(word)], capture_output=True, check=True)
    assert done.stdout == word.encode()


def test_a_word_with_a_nul_is_refused():
    with pytest.raises(InputError, match="NUL"):
        quote("a\0b")


def test_standard_input_goes_ahead_in_pieces():
    stdin = bytes(CHUNK_BYTES) + b"rest"
    pieces = list(encode_run("7", ["cat", "-"], stdin))
    assert pieces[0] == b"data 7 32768\n" + bytes(CHUNK_BYTES)
    assert pieces[1:] == [b"data 7 4\nrest", b"run 7 'cat' '-' #\n"]


def test_a_flush_is_longer_than_what_the_guest_may_still_be_reading():
    assert encode_sync("x", flush=False) == b"\nsync x\n"
    assert encode_sync("x", flush=True) == b"=" * CHUNK_BYTES + b"\nsync x\n"
    assert encode_kill("9") == b"kill 9\n"
