from __future__ import annotations

import time

import pytest

from vnet.base.errors import HostError, InputError
from vnet.capture.live import bounded
from vnet.capture.live.bounded import compile_bounded
from vnet.capture.live.libpcap import compile_filter


def _hosts(number: int) -> str:
    return " or ".join(f"host 10.0.{i // 250}.{i % 250 + 1}" for i in range(number))


@pytest.mark.parametrize("expression", ["", "tcp port 22", _hosts(20)])
def test_the_program_is_the_one_that_libpcap_makes_here(expression: str) -> None:
    assert compile_bounded(expression) == compile_filter(expression)


@pytest.mark.parametrize("expression", ["tcp prot 22", "port 1 \0", "host"])
def test_what_libpcap_does_not_understand_is_told_in_its_words(expression: str) -> None:
    with pytest.raises(InputError) as here:
        compile_filter(expression)
    with pytest.raises(InputError) as there:
        compile_bounded(expression)
    assert str(there.value).encode(errors="replace") == str(here.value).encode(errors="replace")


def test_an_expression_that_takes_libpcap_for_ever_is_refused_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bounded, "SECONDS", 0.5)
    began_s = time.monotonic()
    with pytest.raises(InputError, match="too much time or memory: write a shorter one"):
        compile_bounded(_hosts(3000))
    assert time.monotonic() - began_s < 10


def test_a_compiler_that_fails_by_itself_is_no_fault_of_the_expression(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bounded.sys, "executable", "/bin/false")
    with pytest.raises(HostError, match="could not be compiled"):
        compile_bounded("tcp")
