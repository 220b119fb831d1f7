"""The same flows on Open vSwitch: it tells the controller once of a connection that rules log, and which."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from tests.ovs import OpenVSwitch, why_not
from vnet.fabric.declared import Declared, declare
from vnet.fabric.logged import LogRecord, names, sighting
from vnet.fabric.store import Source
from vnet.openflow.message import PacketIn, SetConfig
from vnet.policy.live.controller import Controller

pytestmark = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")

FRAGMENTS_TO_FLOWS = 3
"""OFPC_FRAG_NX_MATCH, which is set already and would be set back."""

TEXT = """\
name: small
networks: {lan: {vlan: 10, subnets: 10.0.0.0/24}}
vms:
  a: {networks: [lan], groups: [a]}
  b: {networks: [lan], groups: [b]}
policies:
  - name: into-b
    applied_to: b
    ingress: [{from: a, ports: [80/tcp], log: true}, {from: a, ports: [81/tcp]}]
  - name: out-of-a
    applied_to: a
    egress: [{to: b, ports: [80-82/tcp], log: true}]
"""


@pytest.fixture(scope="module")
def declared() -> Declared:
    return declare(Source("small.vnet.yaml", TEXT), {}, datetime(2026, 1, 1, tzinfo=UTC))


@pytest.fixture
def ovs(declared: Declared) -> Iterator[OpenVSwitch]:
    with OpenVSwitch() as switch:
        for nic in declared.inventory.nics:
            switch.add_port(f"p{nic.port}", nic.port)
        switch.ofctl("set-frags", "nx-match")
        yield switch


def ask_for_packets(controller: Controller) -> None:
    """Open vSwitch sends none to who comes by its management socket and did not ask for any (ofproto.c)."""
    assert controller._session
    controller._session._send(SetConfig(FRAGMENTS_TO_FLOWS, 128))
    controller._flush()


def handshake(declared: Declared, port: int) -> list[tuple[int, bytes]]:
    a, b = declared.inventory.nics
    seqs = (("S", a, b), ("S", a, b), ("SA", b, a), ("A", a, b), ("PA", b, a))

    def frame(flags: str, sender: object, receiver: object) -> Packet:
        ports = {"sport": 4000, "dport": port} if sender is a else {"sport": port, "dport": 4000}
        macs = [nic.mac.to_bytes(6, "big").hex(":") for nic in (sender, receiver)]  # type: ignore[attr-defined]
        ips = [str(nic.addresses[0].ip) for nic in (sender, receiver)]  # type: ignore[attr-defined]
        return (
            Ether(src=macs[0], dst=macs[1])
            / IP(src=ips[0], dst=ips[1])
            / TCP(flags=flags, seq=1, ack=1, **ports)
        )

    return [(sender.port, bytes(frame(flags, sender, receiver))) for flags, sender, receiver in seqs]


def records(declared: Declared, packets: list[PacketIn]) -> list[LogRecord]:
    known = names(declared.provenance_texts(), declared)
    seen = filter(None, (sighting(packet, 0) for packet in packets))
    return [record for each in seen for record in known.records(each)]


@pytest.mark.parametrize(
    ("port", "rules"),
    [(80, ["out-of-a egress 1", "into-b ingress 1"]), (81, ["out-of-a egress 1"]), (82, [])],
)
def test_open_vswitch_tells_each_allowed_connection_once(
    ovs: OpenVSwitch, declared: Declared, port: int, rules: list[str]
) -> None:
    told: list[PacketIn] = []

    async def life() -> int:
        controller = Controller(ovs.socket, on_packet=told.append)
        await controller.connect()
        try:
            ask_for_packets(controller)
            await controller.apply(declared.compiled.flows)
            sent = await asyncio.to_thread(ovs.inject_all, handshake(declared, port))
            await controller.read_stats()  # what was sent before has come by then
            return len(sent)
        finally:
            await controller.close()

    assert asyncio.run(life()) == (5 if rules else 0)
    found = records(declared, told)
    assert [f"{record.rule.policy} {record.rule.rule}" for record in found] == rules
    assert {(r.client.vm, r.client.port, r.server.vm, r.server.port) for r in found} <= {
        ("a", 4000, "b", port)
    }
