"""The rule that is found for a connection is the rule that the law of the language says decides it."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import permutations

import pytest

from vnet.base.errors import UsageError
from vnet.fabric.declared import declare
from vnet.fabric.store import Source
from vnet.fabric.tracked import Wanted
from vnet.fabric.who import Directory, address, decided_by
from vnet.openflow.conntrack import State
from vnet.policy.endpoint import endpoints
from vnet.policy.semantics import Packet, decide
from vnet.switch.connections import Tracked

TEXT = """\
name: small
networks:
  lan: {vlan: 10, subnets: [10.0.0.0/24, "fd00::/64"]}
vms:
  a: {networks: [lan], groups: [a]}
  b: {networks: [lan], groups: [b]}
  c: {networks: [lan], groups: [c]}
policies:
  - {name: b-from-a, applied_to: b, ingress: [{from: a, ports: [80/tcp, icmp]}, {from: any, ports: 53/udp}]}
  - {name: a-out, applied_to: a, egress: [{to: b}, {to: c, ports: [22/tcp], action: deny}]}
  - {name: c-audited, applied_to: c, enforcement: audit, ingress: [{from: b, ports: 1-100/tcp}]}
"""
SERVICES = ((6, 80), (6, 22), (6, 8080), (17, 53), (1, 8), (58, 128), (132, 9))


def connection(client: int, server: int, version: int, protocol: int, port: int) -> Tracked:
    ends = client, 40000, server, port
    counts = (1, 1), (1, 1)
    return Tracked(0, True, 10, version, protocol, *ends, 0, 0, *counts, 0, 1, 1, State.ESTABLISHED, 3, 0)


def test_the_rule_of_a_connection_is_the_one_that_decides_its_packets() -> None:
    declared = declare(Source("f", TEXT), {}, datetime(2026, 1, 1, tzinfo=UTC))
    directory, compared = Directory(declared), 0
    for client, server in permutations(endpoints(declared.topology, declared.inventory), 2):
        if client.vm == server.vm or client.address.version != server.address.version:
            continue
        version = client.address.version
        for protocol, port in SERVICES:
            if protocol in (1, 58) and protocol != (1 if version == 4 else 58):
                continue
            is_icmp = protocol in (1, 58)
            packet = Packet(
                client.name,
                client.address,
                server.name,
                server.address,
                protocol,
                40000,
                0 if is_icmp else port,
                port if is_icmp else 0,
                admitted=True,
            )
            law = decide(declared.topology, declared.inventory, packet)
            let = directory.let(connection(int(client.address), int(server.address), version, protocol, port))
            assert let is not None and let.allowed == law.allowed
            if not let.audited:
                assert let.by == decided_by(law.origin), packet
            assert let.audited == (server.vm.name == "c" and law.allowed and "audited" in let.by.text)
            compared += 1
    assert compared > 80
    assert directory.let(connection(1, 2, 4, 6, 80)) is None, "nobody's addresses"
    assert str(address(0x0A000001, 4)) == "10.0.0.1" and str(address(1, 6)) == "::1"


def test_a_state_that_no_connection_has_is_refused() -> None:
    with pytest.raises(UsageError, match="--state open: write one of opening, answered"):
        Wanted(state="open")
    assert Wanted(state="established").state == "established"
