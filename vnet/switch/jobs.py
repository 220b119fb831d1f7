"""What the agent asks of the datapath, and the jobs that wait for the answers.

A job is a generator: it yields a question, is resumed with the answer, and ends when all is said.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from vnet.openflow.flow import Action
from vnet.openflow.message import ErrorType, FlowModFailed, PortConfig
from vnet.switch.datapath import (
    Change,
    ChangeKey,
    Counter,
    FlowKey,
    GroupCounter,
    MeterCounter,
    PortCounter,
    SwitchPort,
    TableCounter,
)


@dataclass(frozen=True, slots=True)
class Commit:
    """Put the change in force, then tell `committed` or `refused`."""

    token: int
    change: Change


class Kind(Enum):
    """Which counters."""

    FLOWS = auto()
    TABLES = auto()
    PORTS = auto()
    GROUPS = auto()
    METERS = auto()


@dataclass(frozen=True, slots=True)
class ReadCounters:
    """Read counters of one kind, then tell `counters` or `refused`."""

    token: int
    kind: Kind


@dataclass(frozen=True, slots=True)
class SendPacket:
    """Send a controller's packet, then tell `committed` or `refused`."""

    token: int
    in_port: int
    actions: tuple[Action, ...]
    frame: bytes


@dataclass(frozen=True, slots=True)
class ConfigurePort:
    """Put a port's configuration in force, then tell all ports by `counters`, or `refused`."""

    token: int
    number: int
    config: PortConfig


@dataclass(frozen=True, slots=True)
class CloseConnection:
    """Close it when what `data_to_send` still has is sent."""

    connection: int


Question = Commit | ReadCounters | SendPacket | ConfigurePort
"""What the datapath is asked; it answers by the token."""

Event = Question | CloseConnection


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the datapath did not do something; `key` is the flow, group or meter at fault, if one was."""

    error_type: int
    code: int
    key: ChangeKey | None = None


UNKNOWN = Refusal(ErrorType.FLOW_MOD_FAILED, FlowModFailed.UNKNOWN)
"""Why the kernel did not put a change in force: it does not tell in OpenFlow's words."""

Counters = (
    Mapping[FlowKey, Counter]
    | Mapping[int, TableCounter]
    | Mapping[int, PortCounter]
    | Mapping[int, GroupCounter]
    | Mapping[int, MeterCounter]
    | Mapping[int, SwitchPort]
)
"""What a question asked for; ConfigurePort asks how the ports are afterwards."""


@dataclass(frozen=True, slots=True)
class Answer:
    """To a question: done, counters as asked for, or refused."""

    counters: Mapping[Any, Any]
    refusals: tuple[Refusal, ...] = ()


Ask = Callable[[int], Question]
"""Makes the event of the token it is given."""

Job = Generator[Ask, Answer, None]
