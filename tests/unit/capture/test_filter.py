from __future__ import annotations

import gc

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Dot1Q, Ether

from tests.bpf.pcap_oracle import runs
from tests.unit.capture.samples import SSH_SYN
from vnet.base.errors import InputError
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
    assert runs(compile_filter(expression), SSH_SYN) is wanted


def test_a_tag_that_a_guest_sends_is_seen() -> None:
    tagged = bytes(Ether() / Dot1Q(vlan=20) / IP() / TCP(dport=22))
    assert runs(compile_filter("vlan 20 and tcp port 22"), tagged)


def test_headers_that_were_cut_away_match_nothing() -> None:
    assert not runs(compile_filter("tcp port 22"), SSH_SYN[:30])
    assert not runs(compile_filter("tcp"), b"")


@pytest.mark.parametrize("expression", ["", "  "])
def test_no_expression_is_no_program_which_takes_everything(expression: str) -> None:
    assert compile_filter(expression) == b""


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
        assert runs(compiled, SSH_SYN) is (port == 22)
    del compiled
    gc.collect()
