"""The kernel's description of maps, read by our own parser, says what the compiler and bpftool say."""

from __future__ import annotations

import ctypes

import pytest

from tests.bpf.bench import Bench
from tests.bpf.test_abi import dump, members
from vnet.switch import abi
from vnet.switch.live import bpf
from vnet.switch.live.btf import Array, Btf, Conversion, Number, Record, Struct
from vnet.switch.live.described import DescribedSwitch
from vnet.switch.live.maps import object_path

VALUES = {
    "control": "vnet_control",
    "rules": "vnet_rule",
    "groups": "vnet_group",
    "meters": "vnet_meter",
    "ports": "vnet_port",
    "rule_counters": "vnet_counter",
    "path_rules": "vnet_path_rules",
    "macs": "vnet_mac",
    "conns": "vnet_conn",
    "rule_text": "vnet_text",
    "cache": "vnet_cached",
}


def test_members_lie_where_the_compiler_put_them(bench: Bench) -> None:
    types, switch = dump(object_path()), DescribedSwitch(bench.pins)
    try:
        for name, struct in VALUES.items():
            form = switch.struct(name)
            places = {member: offset for member, (offset, _) in form.members.items()} | {"": form.size}
            assert places == members(types, struct), name
            assert form.size == ctypes.sizeof(abi.STRUCTS[struct])
        key = switch.struct("conns").members["key"][1]
        assert isinstance(key, Array)
        assert (key.count, key.of.size) == (2, 40)
        assert switch.key_form("conn_index") == key.of
        assert switch.form("drop_counters") == Number(8)
    finally:
        switch.close()


def test_every_type_of_the_object_has_its_place(bench: Bench) -> None:
    """A kind whose length were wrong would shift all that follow."""
    control = bench.datapath._map["control"]
    types = Btf(bpf.btf(control.btf_id))
    shown = dump(object_path())
    for one in shown:
        if one["kind"] in ("STRUCT", "INT", "ENUM"):
            assert types.form(one["id"]).size == one["size"], one


def test_what_is_no_description_is_refused() -> None:
    with pytest.raises(ValueError, match="no BTF"):
        Btf(bytes(24))


SMALL, LARGE = Number(2), Number(8)
OLD = Struct(16, {"a": (0, SMALL), "b": (2, SMALL), "c": (4, Array(SMALL, 2)), "gone": (8, LARGE)})
NEW = Struct(40, {"fresh": (0, LARGE), "c": (8, Array(LARGE, 3)), "a": (34, SMALL), "b": (32, SMALL)})


def test_members_are_carried_over_by_name() -> None:
    value = bytes([1, 0, 2, 0, 3, 0, 4, 0]) + b"\xff" * 8
    came = Record(NEW, Conversion(OLD, NEW)(value))
    assert (came["fresh"], came["a"], came["b"], came.numbers("c")) == (0, 1, 2, (3, 4, 0))
    back = Record(OLD, Conversion(NEW, OLD)(came.raw))
    assert (back["a"], back["b"], back.numbers("c"), back["gone"]) == (1, 2, (3, 4), 0)


def test_a_record_tells_nothing_of_members_it_has_not() -> None:
    record = Record(OLD, bytes(16)).with_(a=7)
    assert (record["a"], record["nothing"], record.numbers("nothing"), record.numbers("a")) == (7, 0, (), ())
