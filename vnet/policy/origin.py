"""Where a flow or a verdict comes from: the policy, the rule, the line, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

from vnet.base.drop import DropReason
from vnet.base.source import BUILT_IN, Location
from vnet.openflow import cookie
from vnet.topology.model import Action, Direction, Policy, Rule


class OriginKind(Enum):
    """RULE a line of a policy, DEFAULT what holds when no rule matches, NIC a declared interface, ROUTER a
    declared router, UPLINK a declared uplink, GUARD port security, FABRIC the pipeline itself."""

    RULE = "rule"
    DEFAULT = "default"
    NIC = "nic"
    ROUTER = "router"
    UPLINK = "uplink"
    GUARD = "guard"
    FABRIC = "fabric"


class Lets(Enum):
    """What passes although the origin says no: all of it (its policy is only audited), or connections
    that were let in before."""

    NOTHING = "nothing"
    AUDITED = "audited"
    KEPT = "kept"


@dataclass(frozen=True, slots=True)
class Origin:
    """What gave rise to a flow or a verdict.

    `key` names it for the cookie: it is made of names and positions in lists, never of lines, so
    that a comment added to the file changes no flow. `rule` is `ingress 2`, the rule's place in its list.
    """

    kind: OriginKind
    key: str
    text: str
    at: Location
    reason: DropReason = DropReason.NONE
    policy: str = ""
    rule: str = ""
    log: bool = False
    lets: Lets = Lets.NOTHING

    @property
    def cookie(self) -> int:
        """The cookie of the flows that this origin gave rise to."""
        return cookie.make(self.key, self.reason, self.log)


_REASON = {
    Action.ALLOW: DropReason.NONE,
    Action.PASS: DropReason.NONE,
    Action.DENY: DropReason.POLICY,
    Action.REJECT: DropReason.REJECTED,
}


def of_rule(policy: Policy, rule: Rule) -> Origin:
    """The origin of a rule."""
    place = f"{rule.direction.value} {rule.number}"
    toward = "from" if rule.direction is Direction.INGRESS else "to"
    services = ", ".join(map(str, rule.services)) or "any"
    text = f"{rule.action.value} {toward} {', '.join(map(str, rule.peers))} ports {services}"
    return Origin(
        OriginKind.RULE,
        f"rule {policy.name} {place}",
        text,
        rule.at,
        _REASON[rule.action],
        policy.name,
        place,
        rule.log,
    )


def audited(why: Origin) -> Origin:
    """The origin of what would be dropped for this reason, were its policy enforced: to be logged."""
    text = f"audited, not dropped: {why.text}"
    return replace(
        why, key=f"{why.key} audited", text=text, reason=DropReason.NONE, lets=Lets.AUDITED, log=True
    )


def kept(why: Origin) -> Origin:
    """The origin of what is let pass because its connection was let in before: nothing new to log."""
    text = f"established before, kept: {why.text}"
    return replace(why, key=f"{why.key} kept", text=text, reason=DropReason.NONE, lets=Lets.KEPT, log=False)


def reset(why: Origin) -> Origin:
    """The origin of what is answered with a reset because its connection was let in before."""
    text = f"established before, reset: {why.text}"
    return replace(why, key=f"{why.key} reset", text=text, reason=DropReason.REJECTED)


def of_default(
    direction: Direction, subject: str, key: str, policies: Sequence[Policy], declared: Location
) -> Origin:
    """The origin of "no rule matched" for one VM or class of VMs.

    Args:
        subject: whose traffic, in words; key: what names the subject in the cookie.
        policies: those that apply to it, the first of which is pointed at; declared: the VM's line.
    """
    if policies:
        text = f"no rule matched; policies applied: {', '.join(policy.name for policy in policies)}"
    else:
        text = f"closed: no policy applies, and {direction.value} needs a rule that allows it"
    at = policies[0].at if policies else declared
    return Origin(
        OriginKind.DEFAULT,
        f"default {direction.value} {key}",
        f"{direction.value} of {subject}: {text}",
        at,
        DropReason.POLICY,
    )


EGRESS_OPEN = Origin(
    OriginKind.DEFAULT,
    "default egress open",
    "egress is open: no policy that applies lists egress",
    BUILT_IN,
)


OUTSIDE = Origin(OriginKind.DEFAULT, "default outside open", "no policy applies to who is outside", BUILT_IN)


def fabric(name: str, text: str, reason: DropReason = DropReason.NONE) -> Origin:
    """The origin of what the pipeline itself needs."""
    return Origin(OriginKind.FABRIC, f"fabric {name}", text, BUILT_IN, reason)


def guard(name: str, text: str, reason: DropReason) -> Origin:
    """The origin of a guard of the `strict` profile that is the same on every port."""
    return Origin(OriginKind.GUARD, f"guard {name}", text, BUILT_IN, reason)


INVALID = fabric("invalid", "of no connection, and cannot begin one", DropReason.INVALID_STATE)
APART = fabric("isolated", "VMs of an isolated network reach promiscuous NICs only", DropReason.ISOLATED)
LOGGED = replace(fabric("commit logged", "a new connection that a rule logs"), log=True)
"""Of the flows that tell the controller; which rule wants it stands in a register."""
