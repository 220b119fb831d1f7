"""What a trace tells, as plain values: each table, the rule that matched and its line, the verdict.

`docs/manual/trace.md` describes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from vnet.base.protocols import PORT_PROTOCOLS
from vnet.capture.comment import MEANING, ct_state_text
from vnet.capture.summary import summarise
from vnet.fabric.advice import allowed_if
from vnet.fabric.declared import sentence
from vnet.fabric.known import Known
from vnet.fabric.question import Question
from vnet.hv.spec import format_mac
from vnet.openflow import ofctl, packet
from vnet.openflow.fields import FIELDS, ICMP, ORIGINAL, CtState
from vnet.openflow.flow import Flow
from vnet.openflow.ofctl_match import value_text
from vnet.policy import pipeline
from vnet.switch.abi import NO_PORT, NO_SLOT, CtFlag
from vnet.switch.trace import Step, StepKind, Traced, changes

Json = dict[str, Any]


def tell(question: Question, traced: Traced, known: Known, assumed: list[str]) -> Json:
    """One packet and what would become of it."""
    steps = list(_steps(traced, known))
    verdict = _verdict(question, traced, known)
    told: Json = {
        "fabric": known.topology.name,
        "generation": known.generation,
        "packet": _packet(question.nic.name, question.nic.port, question.frame),
        "assumed": assumed,
        "connection": _connection(traced, known),
        "destination": _destination(question, known),
        "steps": steps,
        "verdict": verdict,
        "allowed_if": list(allowed_if(question, traced, known)),
    }
    if traced.steps_lost:
        told["steps_lost"] = traced.steps_lost
    return told


def _packet(nic: str, port: int, frame: bytes) -> Json:
    return {
        "nic": nic,
        "port": port,
        "summary": str(summarise(frame)),
        "length_bytes": len(frame),
        "frame": frame.hex(),
    }


def _connection(traced: Traced, known: Known) -> Json:
    """What the tracker knew of the packet's connection."""
    asked = [step for step in traced.steps if step.kind is StepKind.CT]
    if not asked:
        return {"state": "not tracked", "text": "not asked for"}
    found, told = traced.connection, asked[0].fields.get("ct_state", 0)
    zone = asked[0].fields.get("ct_zone", 0)
    if found is None or found.made:
        made = found is not None and not traced.reason
        text = "none lives" + ("; this packet would open it" if made else "")
        if told & CtState.INV:
            text = "none lives, and this packet can open none"
        return {"state": "new" if told & CtState.NEW else "none", "zone": zone, "text": text}
    what = "assumed" if found.assumed else "found"
    text = (
        "assumed, as its first packet would have opened it"
        if found.assumed
        else f"found: opened {found.age_s:.1f} s ago from {known.name(found.port)}, "
        f"{sum(found.packets)} packets with this one"
    )
    numbers = {"age_s": round(found.age_s, 3), "packets": list(found.packets), "mark": found.mark}
    return {"state": what, "zone": found.zone, "text": text, **numbers}


def _destination(question: Question, known: Known) -> Json:
    """Whether anybody on the sender's network has the destination's MAC address."""
    mac = int.from_bytes(question.frame[:6], "big")
    nic = known.addressee(question.nic, question.frame)
    many = bool(mac >> 40 & 1)
    text = f"{nic.name}'s" if nic else "for many" if many else f"nobody's on {question.nic.network}"
    return {"mac": format_mac(mac), "known": nic is not None, "nic": nic.name if nic else "", "text": text}


def _steps(traced: Traced, known: Known) -> Iterator[Json]:
    """One for each table searched, with what happened until the next one."""
    at: Json | None = None
    before: Mapping[str, int] = {}
    for step in traced.steps:
        if at is not None and step.kind in (StepKind.TABLE, StepKind.END):
            at["changes"] = [_change(known, *each) for each in changes(before, step.fields)]
        if step.kind is StepKind.TABLE:
            if at is not None:
                yield at
            at, before = _table(step, known), step.fields
        elif at is not None and step.kind is not StepKind.END:
            at["notes"] += _note(step, known)
    if at is not None:
        yield at


def _table(step: Step, known: Known) -> Json:
    described = pipeline.table_of(step.arg)
    return {
        "table": step.arg,
        "name": pipeline.name_of(step.arg) or str(step.arg),
        "question": described.question if described else "",
        "rule": _rule(step.flow, known) if step.flow else None,
        "changes": [],
        "notes": [],
    }


def _rule(flow: Flow, known: Known) -> Json:
    origin = known.provenance.get(flow.cookie, {})
    return {
        "priority": flow.priority,
        "match": ofctl.match_text(flow.match) or "any",
        "actions": ofctl.instructions_text(flow.instructions),
        "cookie": f"{flow.cookie:#018x}",
        "policy": origin.get("policy", ""),
        "rule": origin.get("rule", ""),
        "text": origin.get("text", ""),
        "at": origin.get("at", ""),
        "from": sentence(origin) if origin else "",
    }


_REGISTER = {
    pipeline.CLIENT: "client",
    pipeline.CLIENT_PEER: "client as a peer",
    pipeline.SERVER: "server",
    pipeline.SERVER_PEER: "server as a peer",
    pipeline.OUT_PORT: "receiver",
    pipeline.SERVICE: "service",
    pipeline.SCRATCH: "scratch",
    pipeline.NEIGHBOUR_KIND: "neighbour discovery",
    pipeline.APART: "isolated",
    pipeline.LOGGED: "to be logged",
    **{register: f"logged by {side.value}" for side, register in pipeline.LOGGED_BY.items()},
}
_IDENTITIES = (pipeline.CLIENT, pipeline.SERVER, pipeline.CLIENT_PEER, pipeline.SERVER_PEER)


def _change(known: Known, name: str, was: int, now: int) -> Json:
    words = _REGISTER.get(name, name)
    text = f"{words} {_value(known, name, was, now)}"
    return {"field": name, "from": was, "to": now, "text": text, "quiet": name in QUIET}


def _value(known: Known, name: str, was: int, now: int) -> str:
    if name == pipeline.OUT_PORT:
        return f"= {known.name(now)}"
    if name == pipeline.SERVICE and now >> 16 == ICMP:
        return "= icmp"
    if name == pipeline.SERVICE and now:
        return f"= {now & 0xFFFF}/{PORT_PROTOCOLS.get(now >> 16, now >> 16)}"
    if name == "ct_state":
        return f"= {ct_state_text(now)}"
    if name == "vlan_vid":
        return f"= {now & 0xFFF}" if now else "removed"
    if name in _IDENTITIES:
        labels = known.peers if name in (pipeline.CLIENT_PEER, pipeline.SERVER_PEER) else known.subjects
        return f"= {labels.get(now, now)}"
    if name in _REGISTER:
        return f"= {now}"
    full = FIELDS[name].full_mask
    return (
        f"{value_text(name, was, full)} -> {value_text(name, now, full)}"
        if was
        else f"= {value_text(name, now, full)}"
    )


QUIET = frozenset((*ORIGINAL, "ct_zone", "vlan_pcp", pipeline.SCRATCH))
"""Fields whose changes a text leaves out."""


def _note(step: Step, known: Known) -> list[str]:
    match step.kind:
        case StepKind.CT:
            return [_ct(step)]
        case StepKind.METER:
            return [f"meter {step.arg}: " + ("exceeded" if step.value else "passed")]
        case StepKind.BUCKET:
            return ["a bucket of the group"]
        case StepKind.NORMAL:
            where = {0: "to all ports: its MAC is not known", NO_PORT: "nowhere"}
            return [
                f"as a learning switch {where.get(step.arg, f'to {known.name(step.arg)}: its MAC is known')}"
            ]
        case StepKind.CONTROLLER:
            return ["tells the controller"]
    return []


def _ct(step: Step) -> str:
    zone, flags, state = step.arg & 0xFFFF, step.arg >> 16, step.fields.get("ct_state", 0)
    if step.reason:
        return f"connection tracker, zone {zone}: {step.reason.name}"
    if flags & CtFlag.COMMIT:
        return f"connection tracker, zone {zone}: the connection is entered"
    found = "found" if step.value != NO_SLOT else "no connection found"
    again = "; the packet goes on with that" if flags & CtFlag.RECIRC else ""
    return f"connection tracker, zone {zone}: {ct_state_text(state)}, {found}{again}"


# -- the verdict ------------------------------------------------------------------------------------------


def _verdict(question: Question, traced: Traced, known: Known) -> Json:
    deciding = _deciding(traced, known)
    origin = known.provenance.get(deciding.cookie, {}) if deciding else {}
    told = any(step.kind is StepKind.CONTROLLER for step in traced.steps)
    outcome = "rejected" if traced.rejected else "dropped" if traced.reason else "delivered"
    if not traced.reason and not traced.outputs:
        outcome = "sent to the controller" if told else "dropped"
    return {
        "outcome": outcome,
        "reason": traced.reason.name,
        "meaning": MEANING[traced.reason] if traced.reason else "",
        "by": sentence(origin) if origin else "",
        "policy": origin.get("policy", ""),
        "rule": origin.get("rule", ""),
        "at": origin.get("at", ""),
        "outputs": [_output(question, port, frame, known) for port, frame in traced.outputs],
        "controller_told": told,
    }


def _deciding(traced: Traced, known: Known) -> Flow | None:
    """Of a packet that is lost the last flow it met; else the last one that a policy's rule gave rise to."""
    flows = traced.flows
    if traced.reason or not flows:
        misses = not traced.tables or traced.tables[-1].flow is None
        return None if misses else flows[-1]
    ruled = [flow for flow in flows if known.provenance.get(flow.cookie, {}).get("policy")]
    return (ruled or flows)[-1]


def _output(question: Question, port: int, frame: bytes, known: Known) -> Json:
    rewritten = []
    if frame != question.frame and len(frame) != len(question.frame):
        rewritten.append(f"{len(question.frame)} -> {len(frame)} bytes")
    try:
        before, after = packet.parse(question.frame).fields, packet.parse(frame).fields
        rewritten += [_change(known, *each)["text"] for each in changes(before, after)]
    except packet.Malformed:
        pass
    absence = known.absence(port)
    return {**_packet(known.name(port), port, frame), "rewritten": rewritten, "absent": absence}
