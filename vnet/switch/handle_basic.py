"""Greeting, echoes, barrier, configuration, roles, masks, packet-out (OpenFlow 1.3.5, section 7.3)."""

from __future__ import annotations

from vnet.openflow.flow import NO_BUFFER, Port
from vnet.openflow.message import (
    ONF,
    VERSION,
    BadRequest,
    BarrierReply,
    EchoReply,
    EchoRequest,
    Error,
    ErrorType,
    Experimenter,
    GetAsyncReply,
    GetConfigReply,
    Hello,
    HelloFailed,
    Message,
    PacketOut,
    Role,
    RoleReply,
    RoleRequest,
    RoleRequestFailed,
    SetAsync,
    SetConfig,
    SwitchConfigFailed,
)
from vnet.switch import stats
from vnet.switch.connection import Connection, Request, State
from vnet.switch.datapath import Refused
from vnet.switch.desk import Desk
from vnet.switch.jobs import Job, SendPacket

_GENERATION_BITS = 64
_NO_GENERATION = (1 << _GENERATION_BITS) - 1
"""Told while no controller has sent one (section 7.3.9)."""
_ETHERNET_BYTES = 14


def greeted(desk: Desk, conn: Connection, request: Request, hello: Hello) -> None:
    if hello.speaks(VERSION):
        conn.state, conn.greeted = State.READY, True
        return
    why = f"we speak OpenFlow 1.3 (0x{VERSION:02x}) only".encode()
    desk.reply(conn, request, Error(ErrorType.HELLO_FAILED, HelloFailed.INCOMPATIBLE, why))
    desk.close(conn)


def not_greeted(desk: Desk, conn: Connection, request: Request, message: Message) -> None:
    desk.refuse(conn, request, ErrorType.HELLO_FAILED, HelloFailed.EPERM)
    desk.close(conn)


def ignore(desk: Desk, conn: Connection, request: Request, message: Message) -> None:
    """It asks for nothing."""


def echo(desk: Desk, conn: Connection, request: Request, message: EchoRequest) -> None:
    desk.reply(conn, request, EchoReply(message.data))


def failed(desk: Desk, conn: Connection, request: Request, message: Error) -> None:
    """An Error of the peer: nothing to do, unless it refuses our Hello."""
    if message.type == ErrorType.HELLO_FAILED:
        desk.close(conn)


def unknown_experimenter(desk: Desk, conn: Connection, request: Request, message: Experimenter) -> None:
    known = message.experimenter == ONF
    code = BadRequest.BAD_EXP_TYPE if known else BadRequest.BAD_EXPERIMENTER
    desk.refuse(conn, request, ErrorType.BAD_REQUEST, code)


def barrier(desk: Desk, conn: Connection, request: Request, message: Message) -> None:
    """Its turn has come, so everything before it is done."""
    desk.reply(conn, request, BarrierReply())


def features(desk: Desk, conn: Connection, request: Request, message: Message) -> None:
    desk.reply(conn, request, stats.features(desk.datapath_id))


def get_config(desk: Desk, conn: Connection, request: Request, message: Message) -> None:
    desk.reply(conn, request, GetConfigReply(conn.config.flags, conn.config.miss_send_len))


def set_config(desk: Desk, conn: Connection, request: Request, message: SetConfig) -> None:
    if message.flags:
        desk.refuse(conn, request, ErrorType.SWITCH_CONFIG_FAILED, SwitchConfigFailed.BAD_FLAGS)
    else:
        conn.config = message


def set_role(desk: Desk, conn: Connection, request: Request, wanted: RoleRequest) -> None:
    if wanted.role not in tuple(map(int, Role)):
        desk.refuse(conn, request, ErrorType.ROLE_REQUEST_FAILED, RoleRequestFailed.BAD_ROLE)
        return
    if wanted.role in (Role.MASTER, Role.SLAVE) and _is_stale(desk, wanted.generation_id):
        desk.refuse(conn, request, ErrorType.ROLE_REQUEST_FAILED, RoleRequestFailed.STALE)
        return
    _assume(desk, conn, wanted)
    generation = _NO_GENERATION if desk.generation is None else desk.generation
    desk.reply(conn, request, RoleReply(conn.role, generation))


def _assume(desk: Desk, conn: Connection, wanted: RoleRequest) -> None:
    """There is one master: the former becomes a slave (section 6.3.5)."""
    if wanted.role in (Role.MASTER, Role.SLAVE):
        desk.generation = wanted.generation_id
    if wanted.role == Role.MASTER:
        for other in desk.connections.values():
            if other.role is Role.MASTER:
                other.role = Role.SLAVE
    if wanted.role != Role.NOCHANGE:
        conn.role = Role(wanted.role)


def _is_stale(desk: Desk, generation: int) -> bool:
    """Older in the circular sense of section 7.3.9."""
    if desk.generation is None:
        return False
    return (generation - desk.generation) >> (_GENERATION_BITS - 1) & 1 == 1


def get_async(desk: Desk, conn: Connection, request: Request, message: Message) -> None:
    desk.reply(conn, request, GetAsyncReply(conn.masks))


def set_async(desk: Desk, conn: Connection, request: Request, message: SetAsync) -> None:
    conn.masks = message.masks


def packet_out(desk: Desk, conn: Connection, request: Request, packet: PacketOut) -> Job:
    fault = _packet_fault(packet)
    if fault is not None:
        desk.refuse(conn, request, ErrorType.BAD_REQUEST, fault)
        return
    try:
        desk.tables.check_actions(packet.actions)
    except Refused as error:
        desk.refuse(conn, request, error.error_type, error.code)
        return
    answer = yield lambda token: SendPacket(token, packet.in_port, packet.actions, packet.frame)
    for refusal in answer.refusals[:1]:
        desk.refuse(conn, request, refusal.error_type, refusal.code)


def _packet_fault(packet: PacketOut) -> BadRequest | None:
    if packet.buffer_id != NO_BUFFER:
        return BadRequest.BUFFER_UNKNOWN
    if packet.in_port not in (Port.CONTROLLER, Port.LOCAL, Port.ANY) and not 0 < packet.in_port <= Port.MAX:
        return BadRequest.BAD_PORT
    if len(packet.frame) < _ETHERNET_BYTES:
        return BadRequest.BAD_PACKET
    return None
