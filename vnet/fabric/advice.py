"""What would have let a packet pass that is lost: the nearest rule, or what its sender would do otherwise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from vnet.base.drop import DropReason
from vnet.capture.ends import ends_of
from vnet.fabric.known import Known
from vnet.fabric.question import Question
from vnet.hv.spec import format_mac
from vnet.openflow.fields import ICMP, ICMPV6, CtState
from vnet.policy import pipeline
from vnet.policy.explain import say
from vnet.policy.semantics import Packet, Verdict, decide
from vnet.switch.trace import StepKind, Traced


def allowed_if(question: Question, traced: Traced, known: Known) -> Iterator[str]:
    """Each in words that follow "would be allowed if"."""
    reason, nic = traced.reason, question.nic
    if reason in (DropReason.POLICY, DropReason.REJECTED):
        yield from _nearest(question, traced, known)
        return
    own = ", ".join(str(address.ip) for address in nic.addresses) or "none"
    match reason:
        case DropReason.NONE:
            return
        case DropReason.SPOOF_MAC:
            yield f"it had {nic.name}'s own MAC address, {format_mac(nic.mac)}, or its profile this one"
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
    DropReason.RATE: "it came more slowly than the rate of its NIC, of its receiver's, or of a meter",
    DropReason.STORM: "fewer such packets came: the NIC's limits of broadcasts, multicasts, unknown targets",
    DropReason.CT_QUOTA: "the NIC had fewer connections, or a higher limit of them",
    DropReason.CT_FULL: "some connection ended: the switch's table of them is full",
    DropReason.ROGUE_DHCP: "it came from no DHCP server's port and went to no client's: guests only ask",
    DropReason.ROGUE_RA: "it were nothing that only a router says",
    DropReason.MULTICAST: "it were for one receiver",
    DropReason.MTU: "it were no larger than the receiver's MTU",
    DropReason.SAME_PORT: "it were for somebody else than its sender",
}


def _reachable(question: Question, known: Known) -> Iterator[str]:
    """Somebody may have the address, but not there, or not with that MAC address."""
    address, nic = ends_of(question.frame).target, question.nic
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
    ends = ends_of(question.frame)
    nic = known.addressee(question.nic, question.frame)
    if ends.source is None or ends.target is None or nic is None:
        return None
    is_icmp = ends.protocol in (ICMP, ICMPV6)
    tracked = [step.fields.get("ct_state", 0) for step in traced.steps if step.kind is StepKind.CT]
    reply = bool(tracked and tracked[0] & CtState.RPL)
    found = traced.connection
    admitted = found is not None and not found.made and bool(found.mark & pipeline.ADMITTED[1])
    return Packet(
        question.nic.name,
        ends.source,
        nic.name,
        ends.target,
        ends.protocol or 0,
        ends.source_port or 0,
        0 if is_icmp else ends.target_port or 0,
        icmp_type=(ends.target_port or 0) if is_icmp else 0,
        reply=reply,
        admitted=admitted,
    )
