"""Asks what would become of a packet, and of its answer, in a copy of the switch."""

from __future__ import annotations

from vnet.base.errors import InputError
from vnet.fabric.answering import answer
from vnet.fabric.asked import Asked, Sandbox
from vnet.fabric.known import Known
from vnet.fabric.question import Asking, Question
from vnet.fabric.told import Json, tell
from vnet.openflow import packet
from vnet.openflow.conntrack import Direction, direction
from vnet.openflow.fields import ETH_ARP, CtState
from vnet.policy import pipeline
from vnet.switch.trace import StepKind, Traced

TRIES = 4
"""How many connections of one packet `--new` looks past: one for each zone it is tracked in."""
ZONE = 0xFFFF
"""Of what a ct() step tells (`bpf/trace.h`)."""


def trace(asked: Asked, known: Known, sandbox: Sandbox, connections: tuple[Direction, ...] = ()) -> Json:
    """Try the packet that is asked about, and with `reply` its answer.

    Raises: InputError for a question that makes no sense.
    """
    question = Asking(known.topology, known.inventory, connections).question(asked)
    traced, forgot = _tried(question, sandbox, asked.new)
    assumed = list(question.assumed)
    if forgot:
        assumed.append("a connection that lives is ignored (--new)")
    told = tell(question, traced, known, assumed)
    if asked.reply:
        told["reply"] = _reply(question, traced, known, sandbox)
    return told


def _tried(question: Question, sandbox: Sandbox, new: bool) -> tuple[Traced, bool]:
    traced = sandbox.run(question.nic.port, question.frame)
    for tried in range(TRIES):
        if not new or traced.connection is None or traced.connection.made:
            return traced, tried > 0
        sandbox.forget(traced.connection)
        traced = sandbox.run(question.nic.port, question.frame)
    return traced, True


# -- the answer's way -------------------------------------------------------------------------------------


def _reply(question: Question, traced: Traced, known: Known, sandbox: Sandbox) -> Json:
    """What would become of the answer to a packet."""
    arrived = () if traced.rejected else traced.outputs
    nic = known.nic(arrived[0][0]) if arrived else known.addressee(question.nic, question.frame)
    if nic is None:
        raise InputError("--reply: nobody gets the packet, so nobody answers it")
    back = answer(arrived[0][1] if arrived else question.frame, nic, question.live)
    assumed = _as_if_let_through(question, traced, sandbox)
    return tell(back, sandbox.run(nic.port, back.frame), known, assumed)


def _as_if_let_through(question: Question, traced: Traced, sandbox: Sandbox) -> list[str]:
    connection = traced.connection
    if question.frame[12:14] == ETH_ARP.to_bytes(2, "big"):
        return []
    if connection is not None and not connection.made:
        return []
    if connection is not None and traced.outputs and not traced.rejected:
        return ["no such connection lives: as if the packet above had just opened it"]
    tracked = [step for step in traced.steps if step.kind is StepKind.CT]
    if not tracked:
        return ["the packet above never comes to the connection tracker: its answer is of no connection"]
    way = direction(packet.parse(question.frame), tracked[-1].arg & ZONE)
    if way is None or tracked[-1].fields.get("ct_state", 0) & (CtState.INV | CtState.REL):
        return ["the packet above begins no connection"]
    sandbox.assume(way, pipeline.ADMITTED[1])
    return ["as if the packet above had been let through, though it is not"]
