"""All that may become of a packet where the specification leaves a choice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from vnet.openflow.group import Group
from vnet.openflow.table import Outcome, SlowSwitch


def outcomes(slow: SlowSwitch, port: int, frame: bytes) -> Iterator[Outcome]:
    """What may become of a packet, whatever buckets SELECT groups choose; connections are as after each."""
    tracker, scripts = slow.tracker.copy(), [list[int]()]
    while scripts:
        script, taken = scripts.pop(), list[int]()

        def choose(_group: Group, live: Sequence[int], _fields: Mapping[str, int]) -> int:
            if len(taken) == len(script):  # noqa: B023 - called in this round of the loop only
                scripts.extend([*script, other] for other in live[1:])  # noqa: B023
                script.append(live[0])  # noqa: B023
            taken.append(script[len(taken)])  # noqa: B023
            return taken[-1]  # noqa: B023

        slow.tracker, slow.choose = tracker.copy(), choose
        yield slow.receive(port, frame, 0.0)
