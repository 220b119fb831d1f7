"""The C structs as the compiler laid them out = the Python structs."""

from __future__ import annotations

import ctypes
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from vnet.base.drop import DropReason
from vnet.switch import abi
from vnet.switch.live.maps import object_path

HEADERS = Path(abi.__file__).parent / "bpf"
ENUMS = ("vnet_drop", "vnet_action_op", "vnet_point", "vnet_path_op", "vnet_word", "vnet_need")


def dump(path: Path) -> list[dict[str, Any]]:
    command = ["bpftool", "-j", "btf", "dump", "file", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    return list(json.loads(done.stdout)["types"])


@pytest.fixture(scope="module")
def types() -> list[dict[str, Any]]:
    return dump(object_path())


@pytest.fixture(scope="module")
def enums(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The object describes only types of its variables: here is a unit with one variable of each enum, and
    of the event, which the program knows only as ring buffer memory."""
    folder = tmp_path_factory.mktemp("enums")
    unit = "".join(f"enum {name} a_{name} = 1;\n" for name in ENUMS)
    (folder / "enums.c").write_text(f'#include "abi.h"\n{unit}struct vnet_event a_vnet_event;\n')
    include = ["-I", str(HEADERS), "-I/usr/include/x86_64-linux-gnu", "-I/usr/include/aarch64-linux-gnu"]
    command = ["clang", "-g", "-target", "bpf", *include, "-c", "enums.c", "-o", "enums.o"]
    subprocess.run(command, cwd=folder, check=True, timeout=20)
    return dump(folder / "enums.o")


def members(types: list[dict[str, Any]], name: str) -> dict[str, int]:
    """Member offsets in bytes."""
    found = next(t for t in types if t["kind"] == "STRUCT" and t["name"] == name)
    return {m["name"]: m["bits_offset"] // 8 for m in found["members"]} | {"": found["size"]}


@pytest.mark.parametrize("name", abi.STRUCTS)
def test_struct_has_the_same_layout_in_c_and_python(
    types: list[dict[str, Any]], enums: list[dict[str, Any]], name: str
) -> None:
    python = abi.STRUCTS[name]
    offsets = {field[0]: getattr(python, field[0]).offset for field in python._fields_}
    in_c = members([*types, *enums], name)
    if name == "vnet_event":
        in_c.pop("data")  # the flexible tail
    assert in_c == offsets | {"": ctypes.sizeof(python)}


def enumerators(types: list[dict[str, Any]], name: str) -> dict[str, int]:
    found = next(t for t in types if t["kind"] == "ENUM" and t["name"] == name)
    return {value["name"]: value["val"] for value in found["values"]}


@pytest.mark.parametrize(
    ("name", "prefix", "python"),
    [
        ("vnet_drop", "VNET_DROP_", DropReason),
        ("vnet_action_op", "VNET_OP_", abi.Op),
        ("vnet_point", "VNET_POINT_", abi.Point),
        ("vnet_path_op", "VNET_PATH_", abi.PathKind),
        ("vnet_word", "VNET_W_", abi.Word),
        ("vnet_need", "VNET_NEED_", abi.Need),
    ],
)
def test_enum_has_the_same_numbers_in_c_and_python(
    enums: list[dict[str, Any]], name: str, prefix: str, python: Any
) -> None:
    in_c = {key.removeprefix(prefix): value for key, value in enumerators(enums, name).items()}
    in_c.pop("MAX", None)
    own = {member.name: member.value for member in python}
    if python is DropReason:
        own = {key: own[key] for key in own if own[key] < 64 or key in in_c}  # the rest come from cookies
    assert in_c == own
