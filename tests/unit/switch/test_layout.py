"""What another vnet may take over: the number follows from every declaration that maps depend on."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from vnet.switch import abi
from vnet.switch import layout as module
from vnet.switch.abi import Need
from vnet.switch.layout import layout
from vnet.switch.places import PLACES


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    layout.cache_clear()
    yield
    layout.cache_clear()


@pytest.mark.parametrize(
    "name", ["TABLES", "GROUPS", "METERS", "RULE_ACTIONS", "PATHS", "CONNS", "MACS", "SLOT_OUTPUT"]
)
def test_another_capacity_is_another_layout(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    before = layout()
    layout.cache_clear()
    monkeypatch.setattr(abi, name, getattr(abi, name) + 1)
    assert layout() != before


def test_a_member_more_is_another_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    class Rule(ctypes.Structure):
        _fields_ = [*abi.Rule._fields_[:-1], ("more", ctypes.c_uint8), ("pad", ctypes.c_uint8 * 2)]

    before = layout()
    layout.cache_clear()
    assert ctypes.sizeof(Rule) == ctypes.sizeof(abi.Rule)
    monkeypatch.setitem(abi.STRUCTS, "vnet_rule", Rule)
    assert layout() != before


def test_a_field_that_needs_something_else_is_another_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    before = layout()
    layout.cache_clear()
    monkeypatch.setitem(PLACES, "nw_ttl", replace(PLACES["nw_ttl"], need=Need.IPV4))
    assert layout() != before


def test_another_meaning_of_the_same_declarations_is_another_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    before = layout()
    layout.cache_clear()
    monkeypatch.setattr(module, "REVISION", module.REVISION + 1)
    assert layout() != before


def test_the_number_is_the_same_in_every_process_and_fits_the_cell() -> None:
    code = "from vnet.switch.layout import layout; print(layout())"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(printed) == layout() < 1 << 32
