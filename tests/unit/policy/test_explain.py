"""Cookies and verdicts in words."""

from __future__ import annotations

import pytest

from tests.generators import service, three_tier
from vnet.base.drop import DropReason
from vnet.base.errors import InputError
from vnet.openflow.cookie import make
from vnet.policy.compile import compile
from vnet.policy.explain import describe, explain, peer_named
from vnet.topology.model import PeerKind

TOPOLOGY, INVENTORY = three_tier().build()


def said(source: str, target: str, wanted: str) -> list[str]:
    one, other = (peer_named(TOPOLOGY, INVENTORY, text) for text in (source, target))
    return [str(each) for each in explain(TOPOLOGY, INVENTORY, one, other, service(wanted))]


def test_every_cookie_is_described_with_a_place() -> None:
    compiled = compile(TOPOLOGY, INVENTORY)
    texts = {describe(flow.cookie, compiled.provenance) for flow in compiled.flows}
    assert "denied by policy db-from-app ingress rule 2 (test.vnet.yaml:12)" in texts
    assert "allowed by policy app-from-web ingress rule 1 (test.vnet.yaml:9)" in texts
    assert all("test.vnet.yaml:" in text or "(built in)" in text for text in texts)


def test_a_guard_is_described_by_reason_and_line_of_the_nic() -> None:
    compiled = compile(TOPOLOGY, INVENTORY)
    (text,) = {
        describe(cookie, compiled.provenance)
        for cookie, origin in compiled.provenance.items()
        if origin.reason is DropReason.SPOOF_IP and "db.eth0" in origin.text
    }
    assert text == "dropped, SPOOF_IP: db.eth0 may send only from 10.10.20.12 (test.vnet.yaml:6)"


def test_a_foreign_cookie_is_told_as_such() -> None:
    assert describe(make("elsewhere", DropReason.POLICY), {}).startswith(
        "POLICY by a flow that this topology"
    )


def test_a_denied_connection_is_explained_with_the_nearest_rule() -> None:
    assert said("app", "db", "22/tcp") == [
        "tcp from app.eth1 10.10.20.11 port 40000 to db.eth0 10.10.20.12 port 22: "
        "denied by policy db-from-app ingress rule 2 (test.vnet.yaml:12)\n"
        "  nearest: policy db-from-app ingress 1 (test.vnet.yaml:11) allows app, but only ports 5432/tcp"
    ]


def test_both_families_are_explained_and_link_local_is_left_out() -> None:
    texts = said("web-1", "app", "8080/tcp")
    assert len(texts) == 2
    assert all("allowed by policy app-from-web ingress rule 1" in text for text in texts)


def test_vms_apart_are_explained_once() -> None:
    assert said("vm:web-1", "db", "22/tcp") == [
        "tcp from web-1.eth0 10.10.10.11 port 40000 to db.eth0 10.10.20.12 port 22: "
        "dropped, NO_DST: no such address on this network (built in)"
    ]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("any", PeerKind.ANY),
        ("web-1", PeerKind.VM),
        ("vm:web", PeerKind.VM),
        ("front", PeerKind.NETWORK),
        ("network:front", PeerKind.NETWORK),
        ("10.10.10.0/24", PeerKind.CIDR),
        ("10.10.10.11", PeerKind.CIDR),
    ],
)
def test_a_word_names_a_vm_a_network_a_group_or_addresses(text: str, kind: PeerKind) -> None:
    assert peer_named(TOPOLOGY, INVENTORY, text).kind is kind


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(InputError, match="no VM, network or group"):
        peer_named(TOPOLOGY, INVENTORY, "ghost")
