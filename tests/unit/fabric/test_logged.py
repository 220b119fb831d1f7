"""Sightings of packets as records of the log: who, to whom, by which rule."""

import json
from datetime import UTC, datetime
from ipaddress import ip_address

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Raw

from vnet.base.drop import DropReason
from vnet.fabric.declared import declare
from vnet.fabric.logged import LogRecord, Rule, Sighting, Verdict, names, sighting
from vnet.fabric.store import Source
from vnet.openflow import cookie
from vnet.openflow.flow import match
from vnet.openflow.message import PacketIn
from vnet.policy.origin import LOGGED

TEXT = """\
name: small
networks:
  lan: {vlan: 10, subnets: [10.0.0.0/24, "fd00::/64"]}
  dmz: {vlan: 20, subnets: 10.0.1.0/24}
vms:
  a: {networks: [lan], groups: [a]}
  b: {networks: [lan], groups: [b]}
  c: {networks: [dmz], groups: [b]}
policies:
  - name: open
    applied_to: b
    ingress:
      - {from: a, ports: [80/tcp], log: true}
      - {from: a, ports: [22/tcp], action: reject, log: true}
      - {from: a, action: deny, log: true}
      - {from: any, ports: [81/tcp]}
  - name: trial
    applied_to: a
    enforcement: audit
    ingress: [{from: b, action: deny}]
    egress: [{to: b, ports: [80/tcp], log: true}]
"""
TIME_NS = 1_795_000_000_123_456_000


@pytest.fixture(scope="module")
def declared():
    return declare(Source("small.vnet.yaml", TEXT), {}, datetime(2026, 1, 1, tzinfo=UTC))


@pytest.fixture(scope="module")
def known(declared):
    return names(declared.provenance_texts(), declared)


def cookies(declared, rule):
    """Those of a rule, by what they let pass."""
    found = (
        n for n, origin in declared.compiled.provenance.items() if f"{origin.policy} {origin.rule}" == rule
    )
    return next(number for number in found if cookie.is_logged(number))


def packet(declared, layers, version=4, source="a", target="b"):
    nics = {nic.vm: nic for nic in declared.inventory.nics}
    addresses = [
        str(next(a.ip for a in nics[vm].addresses if a.version == version)) for vm in (source, target)
    ]
    ip = IP if version == 4 else IPv6
    frame = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / Dot1Q(vlan=10)
    data = bytes(frame / ip(src=addresses[0], dst=addresses[1]) / layers)
    return nics[source].port, data


def seen(declared, rule, layers, is_reply=False, **kwargs):
    port, data = packet(declared, layers, **kwargs)
    number = cookies(declared, rule)
    return Sighting(TIME_NS, port, number, (number & 0xFFFFFFFF,), data[:128], len(data), is_reply)


def test_a_refused_packet_names_rule_line_and_both_ends(declared, known):
    (record,) = known.records(seen(declared, "open ingress 2", TCP(sport=4000, dport=22, flags="S")))
    assert record.plain() == {
        "time": "2026-11-18T11:06:40.123456Z",
        "verdict": "reject",
        "policy": "open",
        "rule": "ingress 2",
        "at": "small.vnet.yaml:14",
        "text": "reject from a ports 22/tcp",
        "client": "a",
        "client_address": "10.0.0.2",
        "client_port": 4000,
        "server": "b",
        "server_address": "10.0.0.3",
        "server_port": 22,
        "protocol": "tcp",
        "icmp_type": None,
        "reply": False,
        "count": 1,
        "lost": False,
    }
    assert json.loads(record.json()) == record.plain()


def test_a_refused_reply_is_told_with_its_client_as_client(declared, known):
    layers = UDP(sport=53, dport=4000) / Raw(b"x" * 500)
    (record,) = known.records(seen(declared, "open ingress 3", layers, is_reply=True, source="b", target="a"))
    assert (record.client.vm, record.client.port) == ("a", 4000)
    assert (record.server.vm, record.server.port) == ("b", 53)
    assert record.is_reply


@pytest.mark.parametrize(("version", "layers", "kind"), [(4, ICMP(type=8), 8), (6, ICMPv6EchoRequest(), 128)])
def test_ping_is_told_with_its_type(declared, known, version, layers, kind):
    (record,) = known.records(seen(declared, "open ingress 3", layers, version=version))
    assert (record.protocol, record.icmp_type, record.client.port, record.server.port) == ("icmp", kind, 0, 0)
    assert record.server.vm == "b"


def test_an_address_is_looked_up_in_the_network_of_the_sender(declared, known):
    assert known.addresses["dmz", ip_address("10.0.1.2")] == "c"
    assert ("lan", ip_address("10.0.1.2")) not in known.addresses


def test_what_cannot_be_read_is_told_with_rule_and_sender(declared, known):
    number, port = cookies(declared, "open ingress 3"), declared.inventory.nics[0].port
    (record,) = known.records(Sighting(TIME_NS, port, number, (number & 0xFFFFFFFF,), b"\1" * 13, 13))
    assert (record.client.vm, record.client.address, record.server.vm) == ("a", None, "")
    assert record.rule.verdict is Verdict.DENY


def test_both_rules_that_want_a_connection_logged_are_told(declared, known):
    rules = [cookies(declared, "trial egress 1"), cookies(declared, "open ingress 1")]
    port, data = packet(declared, TCP(sport=4000, dport=80, flags="S"))
    registers = match(in_port=port, reg9=1, reg10=rules[0] & 0xFFFFFFFF, reg11=rules[1] & 0xFFFFFFFF)
    told = sighting(PacketIn(1, 50, LOGGED.cookie, registers, data, len(data)), TIME_NS)
    assert told is not None
    found = known.records(told)
    assert [(r.rule.verdict, r.rule.policy, r.client.vm, r.server.vm) for r in found] == [
        (Verdict.ALLOW, "trial", "a", "b"),
        (Verdict.ALLOW, "open", "a", "b"),
    ]


def test_packets_that_others_send_to_the_controller_are_no_sightings():
    assert sighting(PacketIn(1, 50, 5, match(in_port=1), b"", 0), TIME_NS) is None
    assert sighting(PacketIn(1, 50, cookie.make("x"), match(in_port=1), b"", 0), TIME_NS) is None


def test_what_an_audited_policy_would_refuse_is_to_be_logged(declared, known):
    audited = {rule.rule for rule in known.rules.values() if rule.verdict is Verdict.AUDIT}
    assert audited >= {"ingress 1", ""}
    assert {rule.policy for rule in known.rules.values() if rule.verdict is Verdict.AUDIT} == {"trial", ""}


def test_rules_without_log_are_not_known(known):
    assert "ingress 4" not in {rule.rule for rule in known.rules.values() if rule.policy == "open"}


def test_a_rule_of_which_nothing_is_known_is_told_without_name(known):
    (record,) = known.records(Sighting(TIME_NS, 99, 0, (77,), b"", 0))
    assert record == LogRecord(TIME_NS, Rule())


def test_the_bit_for_the_log_changes_no_reason():
    number = cookie.make("x", DropReason.POLICY, log=True)
    assert cookie.reason(number) is DropReason.POLICY
    assert cookie.is_logged(number)
    assert not cookie.is_logged(cookie.make("x", DropReason.POLICY))
    assert not cookie.is_logged(cookie.LOG)
