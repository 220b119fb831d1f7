from __future__ import annotations

import gc

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Dot1Q, Ether

from tests.unit.capture.samples import SSH_SYN
from vnet.base.errors import InputError
from vnet.capture.filter import EVERYTHING
from vnet.capture.live.libpcap import compile_filter


@pytest.mark.parametrize(
    ("expression", "wanted"),
    [
        ("tcp port 22", True),
        ("tcp dst port 5432", False),
        ("host 10.10.20.11 and tcp[tcpflags] & tcp-syn != 0", True),
        ("arp or ip6", False),
        ("ether src 52:54:00:00:00:03", True),
        ("vlan 20", False),
        ("less 54", True),
        ("greater 55", False),
    ],
)
def test_an_expression_chooses_as_tcpdump_would(expression: str, wanted: bool) -> None:
    assert compile_filter(expression).matches(SSH_SYN, len(SSH_SYN)) is wanted


def test_a_tag_that_a_guest_sends_is_seen() -> None:
    tagged = bytes(Ether() / Dot1Q(vlan=20) / IP() / TCP(dport=22))
    assert compile_filter("vlan 20 and tcp port 22").matches(tagged, len(tagged))


def test_lengths_compare_with_the_whole_frame_not_with_what_was_kept() -> None:
    assert compile_filter("greater 9000").matches(SSH_SYN, 64_000)


def test_headers_that_were_cut_away_match_nothing() -> None:
    assert not compile_filter("tcp port 22").matches(SSH_SYN[:30], len(SSH_SYN))
    assert not compile_filter("tcp").matches(b"", 0)


@pytest.mark.parametrize("expression", ["", "  "])
def test_no_expression_keeps_everything(expression: str) -> None:
    assert compile_filter(expression) is EVERYTHING
    assert EVERYTHING.matches(b"", 0)


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("tcp prot 22", "syntax error"),
        ("port 99999", "illegal port number 99999 > 65535"),
        ("ip host fd00::1", "fd00::1"),
        ("tcp and (", "syntax error"),
        ("tcp\0and nothing", "NUL"),
    ],
)
def test_a_wrong_expression_is_told_in_libpcaps_words(expression: str, words: str) -> None:
    with pytest.raises(InputError, match=words.replace("(", r"\(")):
        compile_filter(expression)


def test_a_thousand_filters_come_and_go() -> None:
    for port in range(1, 1001):
        compiled = compile_filter(f"tcp port {port}")
        assert compiled.matches(SSH_SYN, len(SSH_SYN)) is (port == 22)
    del compiled
    gc.collect()
