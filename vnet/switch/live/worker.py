"""What the thread of the datapath does with the agent's questions."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial

from vnet.base.errors import HostError
from vnet.openflow.message import BadRequest, ErrorType, PortModFailed
from vnet.switch.datapath import Change, ChangeKey, Datapath, GroupKey, MeterKey, Refused
from vnet.switch.jobs import (
    UNKNOWN,
    Commit,
    ConfigurePort,
    Counters,
    Kind,
    Question,
    ReadCounters,
    Refusal,
    SendPacket,
)

_log = logging.getLogger(__name__)


def execute(datapath: Datapath, question: Question) -> Counters | tuple[Refusal, ...] | None:
    """What the datapath answers; an unforeseen failure refuses the request instead of the service."""
    try:
        match question:
            case Commit():
                return _commit(datapath, question.change)
            case ReadCounters():
                return _READERS[question.kind](datapath)
            case SendPacket():
                datapath.packet_out(question.in_port, question.actions, question.frame)
            case ConfigurePort():
                datapath.configure_port(question.number, question.config)
                return {port.number: port for port in datapath.ports()}
        return None
    except Refused as error:
        return (Refusal(error.error_type, error.code, error.key),)
    except HostError as error:
        _log.error("datapath: %s", error)
    except Exception:  # noqa: BLE001  the top loop of this thread
        _log.exception("datapath: %s failed", type(question).__name__)
    return (_UNFORESEEN.get(type(question), Refusal(ErrorType.BAD_REQUEST, BadRequest.EPERM)),)


def _commit(datapath: Datapath, change: Change) -> tuple[Refusal, ...] | None:
    try:
        datapath.commit(change)
        return None
    except Refused as error:
        _log.info("datapath refuses: %s", error)
        whole = Refusal(error.error_type, error.code, error.key)
    return tuple(_culprits(datapath, change)) or (whole,)


def _culprits(datapath: Datapath, change: Change) -> list[Refusal]:
    """Everything that can be refused by itself, so that the rest can be tried again together."""
    suspects: list[tuple[ChangeKey, Callable[[], None]]] = [
        *((GroupKey(group.number), partial(datapath.check_group, group)) for group in change.put_groups),
        *((MeterKey(meter.number), partial(datapath.check_meter, meter)) for meter in change.put_meters),
        *((flow.key, partial(datapath.check, flow)) for flow in change.put),
    ]
    found = []
    for key, check in suspects:
        try:
            check()
        except Refused as error:
            found.append(Refusal(error.error_type, error.code, key))
    return found


_READERS: Mapping[Kind, Callable[[Datapath], Counters]] = {
    Kind.FLOWS: lambda datapath: datapath.flow_counters(),
    Kind.TABLES: lambda datapath: datapath.table_counters(),
    Kind.PORTS: lambda datapath: datapath.port_counters(),
    Kind.GROUPS: lambda datapath: datapath.group_counters(),
    Kind.METERS: lambda datapath: datapath.meter_counters(),
}

_UNFORESEEN = {
    Commit: UNKNOWN,
    ConfigurePort: Refusal(ErrorType.PORT_MOD_FAILED, PortModFailed.EPERM),
}
"""The answer to what the kernel did not do, by what was asked."""
