"""From what was seen to a changed file, for files in all styles; the proof; wrong input."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vnet.base.errors import InputError
from vnet.fabric.declared import load
from vnet.fabric.evidence import observed
from vnet.fabric.file_edit import Files, same
from vnet.fabric.seen import DecidedBy, Seen, Verdict
from vnet.fabric.seen_lines import line, lines_of, read
from vnet.fabric.store import Source
from vnet.fabric.suggested import Question, Report, report
from vnet.fabric.suggestion_json import plain
from vnet.policy.suggest import Options, suggest, with_suggested
from vnet.topology.inventory import expand

NOW = datetime(2026, 11, 28, 15, 0, tzinfo=UTC)
THREE_TIER = """\
name: three-tier
networks:
  front: {vlan: 10, subnets: [10.10.10.0/24, "fd00:10::/64"]}
  back:  {vlan: 20, subnets: 10.10.20.0/24}
vms:
  web:      {networks: [front], groups: [web], replicas: 2}
  app:      {networks: [front, back], groups: [app]}
  db:       {networks: [back], groups: [db]}
  intruder: {networks: [front, back]}
policies:
  - {name: app-from-web, applied_to: app, ingress: [{from: web, ports: [8080/tcp, icmp]}]}
  - name: db-from-app
    applied_to: db
    ingress: [{from: app, ports: [5432/tcp]}, {from: any, action: deny, log: true}]
    egress: []
"""


def seen(text: str, **fields) -> Seen:
    """`web-1.eth0 -> app.eth0 tcp 9090`: denied by policy unless `fields` say otherwise."""
    client, _, server, protocol, port = text.split()
    number = {"tcp": 6, "udp": 17, "icmp": 1, "icmpv6": 58}[protocol]
    values = {
        "source": client,
        "source_address": None,
        "destination": server,
        "destination_address": None,
        "network": "",
        "protocol": number,
        "port": int(port),
        "verdict": Verdict.DENIED,
        "reason": "POLICY",
        "by": None,
        "packets": 1,
        "bytes": 60,
        "first": NOW,
        "last": NOW,
        "generation": 1,
    }
    return Seen(**(values | fields))


def ask(
    text: str, *flows: Seen, vms: tuple[str, ...] = (), claims: tuple[str, ...] = (), **options
) -> Report:
    text += "verify:\n" + "".join(f"  - {claim}\n" for claim in claims) if claims else ""
    return report(Question(Source("x.vnet.yaml", text), flows, NOW, Options(**options), vms))


# -- the law, for files in all styles -------------------------------------------------------------

PEERS = ("web", "app", "vm:web-1", "vm:db", "any", "10.0.0.0/28")
PORTS = ("80/tcp", "ssh", "53/udp", "icmp", "8000-8010/tcp")
NICS = ("web-1.eth0", "web-2.eth0", "app.eth0", "db.eth0")


@st.composite
def written_rules(draw, direction: str, indent: str) -> str:
    """A list of rules behind its key, in one of the ways to write it."""
    toward = "from" if direction == "ingress" else "to"
    rules = draw(
        st.lists(
            st.tuples(
                st.sampled_from(PEERS),
                st.lists(st.sampled_from(PORTS), max_size=2, unique=True),
                st.sampled_from(("allow", "allow", "allow", "deny")),
            ),
            max_size=3,
        )
    )
    flow = [
        f'{{{toward}: "{peer}"'
        + (f", ports: [{', '.join(ports)}]" if ports else "")
        + (f", action: {action}" if action != "allow" else "")
        + "}"
        for peer, ports, action in rules
    ]
    style = draw(st.sampled_from(("line", "lines", "dashes", "block"))) if rules else "line"
    note = lambda: draw(st.sampled_from(("", "", "  # why")))  # noqa: E731
    above = lambda deep: draw(st.sampled_from(("", "", f"{deep}# above\n")))  # noqa: E731
    deep = indent + draw(st.sampled_from(("", "  ", "    ")))
    if style == "line":
        return f" [{', '.join(flow)}{draw(st.sampled_from(('', ','))) if rules else ''}]{note()}\n"
    if style == "lines":
        deep += "  "
        last = draw(st.sampled_from(("", ",")))
        parts = [
            f"{above(deep)}{deep}{rule}{',' if n < len(flow) else last}{note()}\n"
            for n, rule in enumerate(flow, 1)
        ]
        return f" [{note()}\n{''.join(parts)}{indent}  ]\n"
    if style == "dashes":
        return f"{note()}\n" + "".join(f"{above(deep)}{deep}- {rule}{note()}\n" for rule in flow)
    blocks = []
    for peer, ports, action in rules:
        block = f'{above(deep)}{deep}- {toward}: "{peer}"{note()}\n'
        block += f"{deep}  ports:\n" + "".join(f"{deep}  - {port}\n" for port in ports) if ports else ""
        blocks.append(block + (f"{deep}  action: deny\n" if action == "deny" else ""))
    return f"{note()}\n" + "".join(blocks)


@st.composite
def files(draw) -> str:
    """Topologies of four VMs whose policies are written in all manner of ways."""
    text = (
        "name: x\nnetworks: {lan: {vlan: 10, subnets: 10.0.0.0/24}}\n"
        "vms:\n  web: {networks: [lan], groups: [web], replicas: 2}\n"
        "  app: {networks: [lan], groups: [app]}\n  db: {networks: [lan]}\n"
    )
    count = draw(st.integers(0, 3))
    indent = draw(st.sampled_from(("", "  ", "    ")))
    for number in range(count):
        text += "policies:\n" if not number else draw(st.sampled_from(("", "\n", f"{indent}# next\n")))
        audit = draw(st.sampled_from(("", "", f"{indent}  enforcement: audit\n")))
        who = draw(st.sampled_from(PEERS))
        lists = draw(st.sampled_from((("ingress",), ("egress",), ("ingress", "egress"))))
        text += f'{indent}- name: p{number}\n{indent}  applied_to: "{who}"\n{audit}'
        for direction in lists:
            text += f"{indent}  {direction}:{draw(written_rules(direction, indent + '  '))}"
    end = draw(st.sampled_from(("", "verify: []\n", "\n# the end\n")))
    return (text + end).removesuffix("\n" if draw(st.booleans()) else "\0")


FLOWS = st.lists(
    st.tuples(st.sampled_from(NICS), st.sampled_from(NICS), st.sampled_from((22, 80, 443, 8005))),
    min_size=1,
    max_size=6,
)


@settings(max_examples=150, deadline=None)
@given(files(), FLOWS, st.booleans(), st.booleans())
def test_a_file_in_any_style_gets_its_rules_and_keeps_all_else(text, flows, overrule, generalize) -> None:
    asked = [seen(f"{one} -> {other} tcp {port}") for one, other, port in flows if one != other]
    found = ask(text, *asked, overrule=overrule, generalize=generalize)  # the proof is asserted in it
    after = found.texts.get("x.vnet.yaml", text)
    rest = iter(after)
    assert all(letter in rest for letter in text), "something that stood in the file is gone"
    assert found.closes == ()
    assert ask(after, *asked, overrule=overrule, generalize=generalize).rules == ()


@settings(max_examples=150, deadline=None)
@given(files(), FLOWS)
def test_rules_find_their_place_at_the_first_try(text, flows) -> None:
    """What cannot be put where it belongs becomes a policy of its own; that is for aliases only."""
    source = Source("x.vnet.yaml", text)
    topology = load(source)
    inventory = expand(topology, {})
    editing = Files(source, topology)
    assert editing.fixed() == frozenset()
    asked = [seen(f"{one} -> {other} tcp {port}") for one, other, port in flows if one != other]
    found = suggest(topology, inventory, observed(topology, inventory, asked, {}).wanted)
    texts = editing.with_(found, lambda added: ("why",))
    changed = load(Source("x.vnet.yaml", texts.get("x.vnet.yaml", text)))
    assert same(changed, with_suggested(topology, found.rules, found.policies))


# -- what is not suggested ------------------------------------------------------------------------


def test_what_guards_drop_is_told_apart_with_what_it_means() -> None:
    flow = seen("intruder.eth1 -> db.eth0 tcp 5432", source=None, source_address=ip_address("10.10.20.9"))
    spoofed = [seen("a -> db.eth0 tcp 5432", source=None, reason="SPOOF_IP", packets=3), flow]
    found = report(
        Question(Source("x", THREE_TIER), tuple(spoofed), NOW, meaning={"SPOOF_IP": "not its address"})
    )
    assert [each.reason for each in found.apart] == ["SPOOF_IP", "GONE"]
    assert found.apart[0].meaning == "not its address"
    assert found.rules == ()
    assert found.asked == 0


def test_flows_that_were_not_kept_apart_are_told_and_not_suggested() -> None:
    found = ask(THREE_TIER, seen("intruder.eth0 -> app.eth0 tcp 1", port=None))
    assert [each.reason for each in found.apart] == ["MANY"]
    assert found.rules == ()


def test_the_line_of_the_claim_that_forbids_it_is_told() -> None:
    found = ask(THREE_TIER, seen("app.eth1 -> db.eth0 tcp 22"), claims=("deny app -> db:22/tcp",))
    assert [(left.why.value, left.at.line) for left, _ in found.left] == [("claim", 17)]
    assert found.rules == ()


def test_to_generalize_stops_where_a_claim_would_break() -> None:
    flow = seen("web-1.eth0 -> app.eth0 tcp 9090")
    found = ask(THREE_TIER, flow, claims=("deny vm:web-2 -> app:9090/tcp",), generalize=True)
    assert [str(peer) for rule in found.rules for peer in rule.added.peers] == ["vm:web-1"]


def test_a_claim_about_an_address_that_a_rule_for_its_vm_would_open_is_kept() -> None:
    """The rule names the VM, and with it an address that the claim forbids: so nothing is suggested."""
    flow = seen("web-1.eth0 -> app.eth0 tcp 9090", source_address=ip_address("10.10.10.1"))
    found = ask(THREE_TIER, flow, claims=('"deny fd00:10::/64 -> app:9090/tcp"',))
    assert found.rules == ()
    assert [left.why.value for left, _ in found.left] == ["claim"]


def test_what_opens_besides_is_told_exactly() -> None:
    found = ask(THREE_TIER, seen("web-1.eth0 -> app.eth0 tcp 9090"))
    assert [(one.client, one.server, one.network, one.version) for one in found.besides] == [
        ("web-1", "app", "front", 6)
    ]


def test_an_echo_over_ipv6_without_addresses_is_between_those_of_ipv6() -> None:
    found = ask(THREE_TIER, seen("intruder.eth0 -> app.eth0 icmpv6 128"))
    assert [(str(rule.added.peers[0]), found.left) for rule in found.rules] == [("vm:intruder", ())]


def test_only_the_flows_of_the_vm_that_is_asked_for_count() -> None:
    flows = seen("web-1.eth0 -> app.eth0 tcp 9090"), seen("intruder.eth0 -> app.eth0 tcp 22")
    found = ask(THREE_TIER, *flows, vms=("web",))
    assert [str(rule.added.peers[0]) for rule in found.rules] == ["vm:web-1"]


def test_a_rule_knows_its_new_line_and_its_evidence() -> None:
    early = NOW - timedelta(hours=1)
    flows = (
        seen("web-1.eth0 -> app.eth0 tcp 9090", packets=5, first=early),
        seen("web-2.eth0 -> app.eth0 tcp 9090", packets=1200),
    )
    told = plain(ask(THREE_TIER, *flows))
    (rule,) = told["rules"]
    assert (rule["at"], rule["packets"], rule["first"]) == ("x.vnet.yaml:12", 1205, early.isoformat())
    assert told["files"] == ["x.vnet.yaml"]
    assert told["diff"].startswith("--- x.vnet.yaml\n+++ x.vnet.yaml\n@@ ")


def test_a_flow_that_was_allowed_asks_for_nothing() -> None:
    found = ask(THREE_TIER, seen("app.eth1 -> db.eth0 tcp 80", verdict=Verdict.ALLOWED, reason=""))
    assert (found.asked, found.rules, found.diff) == (0, (), "")


# -- flows as text --------------------------------------------------------------------------------

SEEN = st.builds(
    Seen,
    st.sampled_from((None, "a.eth0")),
    st.sampled_from((None, ip_address("10.0.0.1"), ip_address("fd00::1"))),
    st.sampled_from((None, "b.eth0")),
    st.just(None),
    st.sampled_from(("", "lan")),
    st.sampled_from((None, 1, 6, 47, 58)),
    st.sampled_from((None, 0, 8, 65535)),
    st.sampled_from(Verdict),
    st.sampled_from(("", "POLICY", "SPOOF_IP")),
    st.sampled_from((None, DecidedBy("x:1", "p", "ingress 1", "t", 5))),
    st.integers(0, 1 << 40),
    st.integers(0, 1 << 40),
    st.just(NOW),
    st.just(NOW + timedelta(seconds=1)),
    st.integers(0, 99),
)


@given(st.lists(SEEN, max_size=4))
def test_flows_are_read_back_as_they_were_written(several) -> None:
    again = read("".join(lines_of(several)).splitlines(), "f", NOW)
    for one, other in zip(several, again, strict=True):
        defaults = {None: {1: 8, 58: 128}.get(one.protocol)}
        assert line(other) == line(one) or one.port in defaults or one.reason == ""


def test_a_flow_needs_no_more_than_its_ends_its_port_and_its_verdict() -> None:
    text = '{"source": "a.eth0", "destination": "b.eth0", "protocol": "tcp", "port": 80, "verdict": "denied"}'
    (found,) = read(["", text], "f", NOW)
    assert (found.reason, found.packets, found.last) == ("POLICY", 1, NOW)


def test_all_wrong_lines_are_told_at_once_with_their_numbers() -> None:
    bad = [
        "not json",
        "[]",
        '{"source": "a", "destination": "b", "protocol": "tcp"}',
        '{"source": "a", "destination": "b", "protocol": "gopher", "verdict": "denied"}',
        '{"source": "a", "destination": "b", "protocol": "tcp", "port": -1, "verdict": "denied"}',
        '{"source": 5, "destination": "b", "protocol": "tcp", "verdict": "maybe"}',
        '{"source": "a", "destination": "b", "protocol": "tcp", "verdict": "denied", "last": "noon"}',
        '{"source": "a", "destination": "b", "protocol": "tcp", "verdict": "denied", "reason": "MOOD"}',
        '{"source": "a", "destination": "b", "protocol": 6, "verdict": "denied", "source_address": "x"}',
    ]
    with pytest.raises(InputError) as raised:
        read(bad, "flows.jsonl", NOW)
    assert [fault.where.line for fault in raised.value.faults] == list(range(1, len(bad) + 1))
