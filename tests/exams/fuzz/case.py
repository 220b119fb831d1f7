"""A case as a value and as a file, what plays it, and how it is made smaller."""

from __future__ import annotations

import json
import random
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol, Self

FOLDER = Path(__file__).parent / "cases"
SHRINK_TRIALS = 200
"""How often a failure is tried again to make it smaller."""

Step = tuple[str, ...]
"""What to do and with what: numbers in decimal, bytes in hexadecimal."""
Steps = tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Case:
    """`found` tells what was wrong, `seed` what it was made of."""

    part: str
    seed: str
    steps: Steps
    found: str = ""

    @property
    def name(self) -> str:
        return f"{self.part}-{self.seed}".replace(":", "-")

    def save(self, folder: Path = FOLDER) -> Path:
        """Write it; one line for each step."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}.json"
        head = {"part": self.part, "seed": self.seed, "found": self.found}
        lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
        steps = ",\n  ".join(json.dumps(step) for step in self.steps)
        lines.append(f' "steps": [\n  {steps}\n ]')
        path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
        return path

    @classmethod
    def load(cls, path: Path) -> Case:
        """Read what `save` wrote."""
        content = json.loads(path.read_text())
        steps = tuple(tuple(step) for step in content["steps"])
        return cls(content["part"], content["seed"], steps, content["found"])


class Part(Protocol):
    """What is examined, as a context."""

    name: ClassVar[str]

    def __enter__(self) -> Self: ...

    def __exit__(self, *details: object) -> None: ...

    def steps(self, dice: random.Random) -> Steps:
        """Those of a new case."""

    def fault(self, steps: Steps) -> str | None:
        """Play a case: what is wrong, in words, if anything is. It must not matter what was played before."""


def examine(part: Part, seed: str) -> Case | None:
    """Make the case of a seed and play it: the case if something was wrong, made as small as it gets."""
    steps = part.steps(random.Random(f"{part.name}:{seed}"))
    found = judge(part, steps)
    if found is None:
        return None
    small = shrink(steps, lambda fewer: judge(part, fewer) is not None)
    return Case(part.name, seed, small, judge(part, small) or f"not every time: {found}")


def judge(part: Part, steps: Steps) -> str | None:
    """What is wrong with a case; what nobody foresaw is wrong too."""
    try:
        return part.fault(steps)
    except Exception as error:  # noqa: BLE001  the top loop of the exam
        *_, (frame, line) = traceback.walk_tb(error.__traceback__)
        return f"raises {error!r} at {Path(frame.f_code.co_filename).name}:{line}"


def shrink(steps: Steps, fails: Callable[[Steps], bool]) -> Steps:
    """Leave steps out, halves first, as long as what is left fails."""
    trials, size = 0, max(len(steps) // 2, 1)
    while size:
        at = 0
        while at < len(steps) and trials < SHRINK_TRIALS:
            fewer = steps[:at] + steps[at + size :]
            trials += 1
            if fewer and fails(fewer):
                steps = fewer
            else:
                at += size
        size //= 2
    return steps
