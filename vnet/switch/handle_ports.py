"""Configuration of ports (OpenFlow 1.3.5, section 7.3.4.3)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vnet.openflow.message import ErrorType, PortConfig, PortMod, PortModFailed
from vnet.switch.connection import Connection, Request
from vnet.switch.datapath import SwitchPort
from vnet.switch.jobs import ConfigurePort, Job

if TYPE_CHECKING:
    from vnet.switch.agent import Agent

_KNOWN = sum(PortConfig)


def port_mod(agent: Agent, conn: Connection, request: Request, mod: PortMod) -> Job:
    """The bits under the mask; all controllers are told of what has changed."""
    fault = _fault(agent.ports.get(mod.number), mod)
    if fault is not None:
        agent.refuse(conn, request, ErrorType.PORT_MOD_FAILED, fault)
        return
    before = agent.ports[mod.number].config
    config = PortConfig(before & ~mod.mask | mod.config & mod.mask)
    if config == before:
        return
    answer = yield lambda token: ConfigurePort(token, mod.number, config)
    for refusal in answer.refusals[:1]:
        agent.refuse(conn, request, refusal.error_type, refusal.code)
    if not answer.refusals:
        _note(agent, mod.number, config)


def _fault(port: SwitchPort | None, mod: PortMod) -> PortModFailed | None:
    if port is None:
        return PortModFailed.BAD_PORT
    if port.mac != mod.mac:
        return PortModFailed.BAD_HW_ADDR
    if mod.mask & ~_KNOWN:
        return PortModFailed.BAD_CONFIG
    return PortModFailed.BAD_ADVERTISE if mod.advertise else None


def _note(agent: Agent, number: int, config: PortConfig) -> None:
    """What the port is now, unless it has gone meanwhile."""
    ports = dict(agent.ports)
    if number in ports:
        ports[number] = replace(ports[number], config=int(config))
    agent.ports_changed(ports.values(), agent.now)
