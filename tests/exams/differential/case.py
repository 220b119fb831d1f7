"""A case: a program and the packets to try on it, as a value and as JSON that a person can read."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from tests.exams.differential.frames import TAIL_BYTES, Frame
from tests.net.twin_generator import Program
from vnet.openflow import flow, group, ofctl

FOLDER = Path(__file__).parent / "cases"
KINDS = {
    name: kind
    for module in (flow, group)
    for name, kind in vars(module).items()
    if isinstance(kind, type) and (dataclasses.is_dataclass(kind) or issubclass(kind, IntEnum))
}


@dataclass(frozen=True, slots=True)
class Case:
    """`found` tells what differed, when and how it can be made again."""

    program: Program
    packets: tuple[Frame, ...]
    found: str = ""

    def save(self, path: Path) -> None:
        """Write it; what flows and groups mean stands beside them in ovs-ofctl's words."""
        content = {
            "found": self.found,
            "reads": [
                *map(ofctl.group_text, self.program.groups),
                *map(ofctl.text, self.program.flows),
            ],
            "flows": [plain(one) for one in self.program.flows],
            "groups": [plain(one) for one in self.program.groups],
            "packets": [[one.port, one.data.hex()] for one in self.packets],
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_text(content) + "\n")

    @classmethod
    def load(cls, path: Path) -> Case:
        """Read what `save` wrote."""
        content = json.loads(path.read_text())
        flows = tuple(value(one) for one in content["flows"])
        groups = tuple(value(one) for one in content["groups"])
        return cls(Program(flows, groups), marked(content["packets"]), content["found"])


def marked(packets: list[tuple[int, str]]) -> tuple[Frame, ...]:
    """The frames of (port, hex), each played alone: their ends may have become alike."""
    return tuple(Frame(port, bytes.fromhex(text), marked=False) for port, text in packets)


def tail(frame: bytes) -> bytes:
    """What tells a marked frame from the others."""
    return frame[-TAIL_BYTES:]


def _text(content: dict[str, Any]) -> str:
    """One line for each item of a list."""
    lines = []
    for name, given in content.items():
        if isinstance(given, list) and given:
            items = ",\n  ".join(json.dumps(item) for item in given)
            lines.append(f" {json.dumps(name)}: [\n  {items}\n ]")
        else:
            lines.append(f" {json.dumps(name)}: {json.dumps(given)}")
    return "{\n" + ",\n".join(lines) + "\n}"


def plain(given: Any) -> Any:
    """A value of the OpenFlow model as JSON knows it; what is left out has its default."""
    if isinstance(given, IntEnum) and type(given).__name__ in KINDS:
        return {"is": type(given).__name__, "value": int(given)}
    if isinstance(given, tuple):
        return [plain(one) for one in given]
    if not dataclasses.is_dataclass(given):
        return given
    fields = {
        one.name: getattr(given, one.name) for one in dataclasses.fields(given) if not _usual(given, one)
    }
    return {"is": type(given).__name__} | {name: plain(one) for name, one in fields.items()}


def _usual(given: Any, field: dataclasses.Field[Any]) -> bool:
    default = field.default
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    return bool(getattr(given, field.name) == default)


def value(given: Any) -> Any:
    """The reverse of `plain`."""
    if isinstance(given, list):
        return tuple(value(one) for one in given)
    if not isinstance(given, dict):
        return given
    kind = KINDS[given["is"]]
    return kind(**{name: value(one) for name, one in given.items() if name != "is"})
