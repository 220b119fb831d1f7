"""What a trace tells: each table, the rule that matched and its line, the verdict, what would have allowed it.

Plain values for `vnet trace`; `docs/manual/trace.md` describes them. The packet is tried in a copy of the switch
(`vnet.switch.live.sandbox`), the words come from the topology.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Protocol

from vnet.base.drop import DropReason
from vnet.base.errors import InputError
from vnet.capture.comment import MEANING, ct_state_text
from vnet.capture.summary import summarise
from vnet.fabric.declared import sentence
from vnet.fabric.question import Asked, Asking, Question, answer
from vnet.hv.spec import format_mac
from vnet.openflow import ofctl, packet
from vnet.openflow.conntrack import Direction, Endpoint
from vnet.openflow.fields import ETH_IPV4, ETH_IPV6, FIELDS, ICMP, ICMPV6, ORIGINAL, SCTP, TCP, UDP, CtState
from vnet.openflow.flow import Flow
from vnet.openflow.ofctl_match import value_text
from vnet.policy import pipeline
from vnet.policy.explain import say
from vnet.policy.semantics import Packet, Verdict, decide
from vnet.switch.abi import NO_PORT, NO_SLOT, CtFlag
from vnet.switch.trace import Connection, Step, StepKind, Traced, changes
from vnet.topology.inventory import Inventory, Nic
from vnet.topology.model import Topology

Json = dict[str, Any]
TRIES = 4
"""How many connections of one packet `--new` looks past: one for each zone it is tracked in."""
_ICMP_ROLE = 8


class Sandbox(Protocol):
    """See `vnet.switch.live.sandbox.Sandbox`."""

    def run(self, in_port: int, frame: bytes) -> Traced:
        """What would become of a frame."""
        ...

    def forget(self, connection: Connection) -> None:
        """From now on without a connection."""
        ...

    def assume(self, direction: Direction, mark: int) -> None:
        """Have a connection as if its first packet had just been let through."""
        ...


@dataclass(frozen=True, slots=True)
class Known:
    """The fabric that is asked about. `provenance` is as in the store."""

    topology: Topology
    inventory: Inventory
    provenance: Mapping[int, Mapping[str, str]]
    generation: int

    def nic(self, port: int) -> Nic | None:
        """That of a port."""
        return next((nic for nic in self.inventory.nics if nic.port == port), None)

    def name(self, port: int) -> str:
        """What a port is called."""
        nic = self.nic(port)
        return nic.name if nic else f"port {port}"


def trace(asked: Asked, known: Known, sandbox: Sandbox, connections: tuple[Direction, ...] = ()) -> Json:
    """Try the packet that is asked about, and with `reply` its answer.

    Raises: InputError for a question that makes no sense.
    """
    question = Asking(known.topology, known.inventory, connections).question(asked)
    traced, forgot = _tried(question, sandbox, asked.new)
    assumed = list(question.assumed)
    if forgot:
        assumed.append("a connection that lives is ignored (--new)")
    told = _tell(question, traced, known, assumed)
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
    nic = known.nic(arrived[0][0]) if arrived else _addressee(question, known)
    if nic is None:
        raise InputError("--reply: nobody gets the packet, so nobody answers it")
    back = answer(arrived[0][1] if arrived else question.frame, nic, question.live)
    assumed = _as_if_let_through(question, traced, sandbox)
    return _tell(back, sandbox.run(nic.port, back.frame), known, assumed)


def _as_if_let_through(question: Question, traced: Traced, sandbox: Sandbox) -> list[str]:
    connection = traced.connection
    if connection is not None and not connection.made:
        return []
    if connection is not None and traced.outputs and not traced.rejected:
        return ["no such connection lives: as if the packet above had just opened it"]
    tracked = [step for step in traced.steps if step.kind is StepKind.CT]
    direction = _direction(question, tracked[-1].fields) if tracked else None
    if direction is None:
        return ["the packet above never comes to the connection tracker: its answer is of no connection"]
    sandbox.assume(direction, pipeline.ADMITTED[1])
    return ["as if the packet above had been let through, though it is not"]


def _direction(question: Question, fields: Mapping[str, int]) -> Direction | None:
    """The tuple by which the tracker knows a packet."""
    six = fields.get("eth_type") == ETH_IPV6
    family, protocol = fields.get("eth_type", 0), fields.get("ip_proto", 0)
    if family not in (ETH_IPV4, ETH_IPV6) or fields.get("ct_state", 0) & (CtState.INV | CtState.REL):
        return None
    source, target = (fields.get(f"ipv{6 if six else 4}_{end}", 0) for end in ("src", "dst"))
    zone = fields.get("ct_zone", 0)
    if protocol in (ICMP, ICMPV6):
        identifier = packet.parse(question.frame).icmp_id or 0
        ends = Endpoint(source, identifier, _ICMP_ROLE), Endpoint(target, 0)
        return Direction(zone, family, protocol, *ends)
    name = {TCP: "tcp", UDP: "udp", SCTP: "sctp"}.get(protocol, "")
    ports = (fields.get(f"{name}_{end}", 0) for end in ("src", "dst"))
    return Direction(zone, family, protocol, *(map(Endpoint, (source, target), ports)))


def _addressee(question: Question, known: Known) -> Nic | None:
    """Whose MAC address a frame is for."""
    mac = int.from_bytes(question.frame[:6], "big")
    near = (nic for nic in known.inventory.nics if nic.vlan == question.nic.vlan)
    return next((nic for nic in near if nic.mac == mac), None)


# -- telling ----------------------------------------------------------------------------------------------


def _tell(question: Question, traced: Traced, known: Known, assumed: list[str]) -> Json:
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
        "allowed_if": list(_allowed_if(question, traced, known)),
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
    nic = _addressee(question, known)
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
_SERVICES = {1: "icmp", TCP: "tcp", UDP: "udp", SCTP: "sctp"}


def _change(known: Known, name: str, was: int, now: int) -> Json:
    words = _REGISTER.get(name, name)
    text = f"{words} {_value(known, name, was, now)}"
    return {"field": name, "from": was, "to": now, "text": text, "quiet": name in QUIET}


def _value(known: Known, name: str, was: int, now: int) -> str:
    if name == pipeline.OUT_PORT:
        return f"= {known.name(now)}"
    if name == pipeline.SERVICE and now:
        return f"= {now & 0xFFFF}/{_SERVICES.get(now >> 16, now >> 16)}"
    if name == "ct_state":
        return f"= {ct_state_text(now)}"
    if name == "vlan_vid":
        return f"= {now & 0xFFF}" if now else "removed"
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
    return {**_packet(known.name(port), port, frame), "rewritten": rewritten}


# -- what would have allowed it -----------------------------------------------------------------------------


def _allowed_if(question: Question, traced: Traced, known: Known) -> Iterator[str]:
    reason, nic = traced.reason, question.nic
    if reason in (DropReason.POLICY, DropReason.REJECTED):
        yield from _nearest(question, traced, known)
        return
    own = ", ".join(str(address.ip) for address in nic.addresses) or "none"
    match reason:
        case DropReason.NONE:
            return
        case DropReason.SPOOF_MAC:
            yield f"it had {nic.name}'s own MAC address, {format_mac(nic.mac)}, or the NIC's profile allowed this one"
        case DropReason.SPOOF_IP | DropReason.SPOOF_ARP | DropReason.SPOOF_ND:
            yield f"it were from an address of {nic.name} ({own}), or the NIC's profile allowed this one"
        case DropReason.NO_DST:
            yield from _reachable(question, known)
        case _ if reason in ADVICE:
            yield ADVICE[reason]


ADVICE: Mapping[DropReason, str] = {
    DropReason.INVALID_STATE: "it were of a connection that lives, or began one: a TCP SYN, an echo request",
    DropReason.CT_INVALID: "it fitted the state of its connection",
    DropReason.VLAN_NOT_ALLOWED: "it had no VLAN tag: the network's is put on by the switch",
    DropReason.PORT_CLOSED: "the port were up and had all its rules: `vnet ps` tells",
    DropReason.ISOLATED: "one of the two NICs were promiscuous, or their network not isolated",
    DropReason.ETHERTYPE: "it were IPv4, IPv6 or ARP",
    DropReason.FRAGMENT: "the first fragment of its datagram had come just before",
    DropReason.REFUSAL_QUOTA: "fewer packets of this NIC had just been refused: ask again in a second",
    DropReason.RATE: "it came more slowly than the meter's rate",
    DropReason.STORM: "fewer such packets came: the NIC's limits of broadcast, multicast or unknown destinations",
    DropReason.CT_QUOTA: "the NIC had fewer connections, or a higher limit of them",
    DropReason.CT_FULL: "some connection ended: the switch's table of them is full",
    DropReason.MTU: "it were no larger than the receiver's MTU",
    DropReason.SAME_PORT: "it were for somebody else than its sender",
}


def _reachable(question: Question, known: Known) -> Iterator[str]:
    """Somebody may have the address, but not there, or not with that MAC address."""
    address, nic = _addresses(question.frame)[1], question.nic
    owners = [each for each in known.inventory.nics if address in [end.ip for end in each.addresses]]
    near = [each for each in owners if each.network == nic.network]
    if near:
        yield f"it were sent to {near[0].name}'s MAC address, {format_mac(near[0].mac)}"
    elif owners:
        yield (
            f"{nic.vm} and {owners[0].vm} shared a network: {address} is {owners[0].name}'s on "
            f"{owners[0].network}, the packet is sent on {nic.network}"
        )
    else:
        yield f"a NIC on {nic.network} had the address {address or 'that it is for'}"


def _nearest(question: Question, traced: Traced, known: Known) -> Iterator[str]:
    verdict = _meant(question, traced, known)
    if verdict is None:
        return
    if verdict.allowed:
        yield f"the rules in the switch were those of the file, which allow it: {say(verdict.origin)}"
        return
    near = verdict.nearest
    if near is None:
        side = "egress" if verdict.egress == verdict.origin else "ingress"
        yield f"a rule allowed it: no policy that applies has an {side} rule for this peer or this port"
        return
    where = f"policy {near.origin.policy} {near.origin.rule} ({near.origin.at})"
    yield f"{where} took it in: it {near.why}"


def _meant(question: Question, traced: Traced, known: Known) -> Verdict | None:
    """What the language says of the packet, None where it does not speak."""
    asked = _policy_packet(question, traced, known)
    try:
        return decide(known.topology, known.inventory, asked) if asked else None
    except ValueError:
        return None


def _policy_packet(question: Question, traced: Traced, known: Known) -> Packet | None:
    source, target = _addresses(question.frame)
    nic = _addressee(question, known)
    if source is None or target is None or nic is None:
        return None
    fields = packet.parse(question.frame).fields
    protocol = fields.get("ip_proto", 0)
    name = {TCP: "tcp", UDP: "udp", SCTP: "sctp"}.get(protocol, "")
    ports = (fields.get(f"{name}_{end}", 0) for end in ("src", "dst"))
    kind = fields.get("icmpv4_type", fields.get("icmpv6_type", 0))
    tracked = [step.fields.get("ct_state", 0) for step in traced.steps if step.kind is StepKind.CT]
    reply = bool(tracked and tracked[0] & CtState.RPL)
    found = traced.connection
    admitted = found is not None and not found.made and bool(found.mark & pipeline.ADMITTED[1])
    return Packet(
        question.nic.name,
        source,
        nic.name,
        target,
        protocol,
        *ports,
        icmp_type=kind,
        reply=reply,
        admitted=admitted,
    )


def _addresses(frame: bytes) -> tuple[IPv4Address | IPv6Address | None, IPv4Address | IPv6Address | None]:
    """Of source and destination, None of what is no IP packet."""
    try:
        fields = packet.parse(frame).fields
    except packet.Malformed:
        return None, None
    if "ipv4_src" in fields:
        return IPv4Address(fields["ipv4_src"]), IPv4Address(fields["ipv4_dst"])
    if "ipv6_src" in fields:
        return IPv6Address(fields["ipv6_src"]), IPv6Address(fields["ipv6_dst"])
    if "arp_tpa" in fields:
        return IPv4Address(fields["arp_spa"]), IPv4Address(fields["arp_tpa"])
    return None, None
