"""Splitting a stream into messages."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from vnet.openflow.codec import HEADER
from vnet.openflow.frame import Splitter

_MESSAGES = st.lists(st.binary(max_size=30), max_size=8).map(
    lambda bodies: [HEADER.pack(4, 2, 8 + len(body), place) + body for place, body in enumerate(bodies)]
)


@settings(deadline=None)
@given(_MESSAGES, st.data())
def test_any_split_gives_the_same_messages(messages, data):
    stream = b"".join(messages)
    splitter, found = Splitter(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        found += splitter.feed(stream[:size])
        stream = stream[size:]
    assert found == messages
    assert len(splitter) == 0


def test_an_incomplete_message_waits():
    splitter = Splitter()
    assert splitter.feed(HEADER.pack(4, 2, 12, 1) + b"ab") == []
    assert len(splitter) == 10
    assert splitter.feed(b"cd") == [HEADER.pack(4, 2, 12, 1) + b"abcd"]


def test_a_length_below_the_header_breaks_the_stream_and_names_its_xid():
    splitter = Splitter()
    good = HEADER.pack(4, 2, 8, 1)
    assert splitter.feed(good + HEADER.pack(4, 2, 7, 9) + good) == [good]
    assert splitter.broken is not None
    assert (splitter.broken.error_type, splitter.broken.code, splitter.broken.xid) == (1, 6, 9)
    assert splitter.feed(good) == []
