"""Configuration of ports (OpenFlow 1.3.5, section 7.3.4.3)."""

from __future__ import annotations

from collections.abc import Mapping

from vnet.openflow.message import ErrorType, PortConfig, PortMod, PortModFailed
from vnet.switch.connection import Connection, Request
from vnet.switch.datapath import SwitchPort
from vnet.switch.desk import Desk
from vnet.switch.jobs import ConfigurePort, Job

_KNOWN = sum(PortConfig)


def port_mod(desk: Desk, conn: Connection, request: Request, mod: PortMod) -> Job:
    """The bits under the mask; all controllers are told of what has changed."""
    fault = _fault(desk.ports.get(mod.number), mod)
    if fault is not None:
        desk.refuse(conn, request, ErrorType.PORT_MOD_FAILED, fault)
        return
    before = desk.ports[mod.number].config
    config = PortConfig(before & ~mod.mask | mod.config & mod.mask)
    if config == before:
        return
    answer = yield lambda token: ConfigurePort(token, mod.number, config)
    for refusal in answer.refusals[:1]:
        desk.refuse(conn, request, refusal.error_type, refusal.code)
    if not answer.refusals:
        _note(desk, mod.number, answer.counters)


def _fault(port: SwitchPort | None, mod: PortMod) -> PortModFailed | None:
    if port is None:
        return PortModFailed.BAD_PORT
    if port.mac != mod.mac:
        return PortModFailed.BAD_HW_ADDR
    if mod.mask & ~_KNOWN:
        return PortModFailed.BAD_CONFIG
    return PortModFailed.BAD_ADVERTISE if mod.advertise else None


def _note(desk: Desk, number: int, found: Mapping[int, SwitchPort]) -> None:
    """What the port is now, configuration and link, unless it has gone meanwhile."""
    ports = dict(desk.ports)
    if number in ports and number in found:
        ports[number] = found[number]
    desk.exchange_ports(ports.values())
