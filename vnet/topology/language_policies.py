"""The part of the language about policies, and the groups and services that they speak of."""

from __future__ import annotations

from vnet.topology import selectors, values
from vnet.topology.language_words import BOOLEAN, CIDR, LABELS, formed, name_word, one_of
from vnet.topology.model import Action, Enforcement, Established
from vnet.topology.shape import Field, ListOf, Record, Word

TIERS_MAX = 16
"""Each has two tables of the switch to itself."""

_PEER = Word(selectors.PEER_EXPECTED, selectors.peer, {"type": "string", "minLength": 1})
_PEERS = ListOf(
    _PEER, "a peer or a list of peers", single=True, minimum=1, if_empty='write "any" for everybody'
)
_PORTS = Word(selectors.PORTS_EXPECTED, selectors.ports, {"type": "string", "minLength": 1})
_PLAIN_PORTS = formed(
    "ports such as 443/tcp or 8000-8999/udp, icmp or any",
    selectors.plain_ports,
    selectors.PLAIN_PORTS_PATTERN,
)
_ACTION = one_of(Action)
_TIME = formed(
    "a date such as 2026-12-31, or a time such as 2026-12-31T18:00Z", values.end_of, values.TIME_PATTERN
)

# ---- groups and services ---------------------------------------------------------------------

GROUP_CIDRS = Field(
    "cidrs", ListOf(CIDR, "a list of CIDRs", minimum=1), "its members are all addresses in these ranges"
)
GROUP_LABELS = Field("labels", LABELS, "its members are the VMs that carry all of these labels")
GROUP = Record("a group", (GROUP_CIDRS, GROUP_LABELS))
SERVICE = ListOf(_PLAIN_PORTS, "ports or a list of ports", single=True, minimum=1)

# ---- policies --------------------------------------------------------------------------------

RULE_NAME = Field("name", name_word("the rule's name"), "what drops and traces call it")
RULE_FROM = Field("from", _PEERS, "who may (or may not) connect to the VM", required=True)
RULE_TO = Field("to", _PEERS, "to whom the VM may (or may not) connect", required=True)
RULE_PORTS = Field(
    "ports",
    ListOf(
        _PORTS,
        "ports or a list of ports",
        single=True,
        minimum=1,
        if_empty='leave "ports" out, or write "any", for all ports',
    ),
    "the destination ports; left out, all of every protocol",
)
RULE_ACTION = Field(
    "action",
    _ACTION,
    "allow (if left out), deny (silently), reject (with an answer) or pass (to the next tier)",
    default=Action.ALLOW,
)
RULE_LOG = Field(
    "log", BOOLEAN, "whether `vnet policy log` tells what the rule decides; false if left out", default=False
)
RULE_EXPIRES = Field("expires", _TIME, "when it ends (a date: with its last second, UTC); never if left out")
INGRESS_RULE = Record(
    "an ingress rule",
    (RULE_NAME, RULE_FROM, RULE_PORTS, RULE_ACTION, RULE_LOG, RULE_EXPIRES),
    misplaced={"to": '"to" belongs into an egress rule: ingress is into the VM and says "from"'},
)
EGRESS_RULE = Record(
    "an egress rule",
    (RULE_NAME, RULE_TO, RULE_PORTS, RULE_ACTION, RULE_LOG, RULE_EXPIRES),
    misplaced={"from": '"from" belongs into an ingress rule: egress is out of the VM and says "to"'},
)

POLICY_NAME = Field("name", name_word("the policy's name"), "its name, unique in the file", required=True)
POLICY_TIER = Field(
    "tier",
    name_word("a tier"),
    "the tier in which it is evaluated; application if left out",
    default="application",
)
POLICY_APPLIED_TO = Field("applied_to", _PEERS, "the VMs whose traffic it decides", required=True)
POLICY_INGRESS = Field("ingress", ListOf(INGRESS_RULE, "a list of rules"), "rules for what goes into the VM")
POLICY_EGRESS = Field("egress", ListOf(EGRESS_RULE, "a list of rules"), "rules for what goes out of the VM")
POLICY_ENFORCEMENT = Field(
    "enforcement",
    one_of(Enforcement),
    "enforce (if left out), or audit: record what it would drop, and let it pass",
    default=Enforcement.ENFORCE,
)
POLICY_ESTABLISHED = Field(
    "established",
    one_of(Established),
    "what becomes of live connections that it forbids: revalidate (if left out): they are cut; "
    "reset: with an answer; keep: they go on",
    default=Established.REVALIDATE,
)
POLICY = Record(
    "a policy",
    (
        POLICY_NAME,
        POLICY_TIER,
        POLICY_APPLIED_TO,
        POLICY_INGRESS,
        POLICY_EGRESS,
        POLICY_ENFORCEMENT,
        POLICY_ESTABLISHED,
    ),
)
