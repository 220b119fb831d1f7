"""The compiler's promises beside the law: size, order, stability, guards, neighbours."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.generators import Builder, three_tier
from vnet.base.drop import DropReason
from vnet.base.errors import InputError
from vnet.openflow import cookie
from vnet.openflow.fields import ETH_ARP, ETH_IPV4, ETH_IPV6, ICMPV6, UDP, CtState
from vnet.openflow.flow import Output, Port
from vnet.policy import judge
from vnet.policy.compile import Compiled, compile
from vnet.policy.endpoint import link_local
from vnet.policy.origin import LOGGED
from vnet.policy.pipeline import Stage
from vnet.policy.space import Region, exactly
from vnet.policy.track import LOGGED_BYTES
from vnet.policy.walk import Leaf, Walk
from vnet.topology.inventory import Inventory, Nic


def flows_of(compiled: Compiled, table: int) -> int:
    return sum(flow.table == table for flow in compiled.flows)


APPLICATION = Stage.INGRESS + 1
"""The ingress table of the tier in which policies are by default."""


def crowd(vms: int, *rules: str) -> Builder:
    """Many clients in one group before one server."""
    builder = Builder().network("net", 10, "10.0.0.0/16")
    for number in range(vms):
        builder.vm(f"c{number}", "net", groups=["clients"])
    return builder.vm("s", "net", groups=["server"]).policy("p", "server", ingress=rules)


def test_the_same_input_gives_the_same_flows() -> None:
    assert compile(*three_tier().build()).flows == compile(*three_tier().build()).flows


def test_policy_flows_do_not_grow_with_the_vms_of_a_group() -> None:
    rules = ("allow clients 80/tcp", "deny any")
    few, many = (compile(*crowd(number, *rules).build()) for number in (2, 50))
    assert flows_of(few, APPLICATION) == flows_of(many, APPLICATION)


def test_policies_of_the_members_of_a_group_cost_the_rules_that_name_it_nothing() -> None:
    """Each client has a policy of its own; the server's rule for all of them stays one flow."""

    def server_flows(vms: int) -> int:
        builder = crowd(vms, "allow clients 80/tcp")
        for number in range(vms):
            builder.policy(f"of-{number}", f"vm:c{number}", ingress=["allow server 22/tcp"])
        compiled = compile(*builder.build())
        owned = {cookie for cookie, origin in compiled.provenance.items() if origin.policy == "p"}
        return sum(flow.cookie in owned for flow in compiled.flows)

    assert server_flows(2) == server_flows(30) == 1


def test_a_range_becomes_a_few_masks_and_takes_exactly_its_ports() -> None:
    compiled = compile(*crowd(1, "allow clients 8000-8999/tcp").build())
    taken = set()
    for flow in compiled.flows:
        service = flow.match.get("reg3") if flow.table == APPLICATION else None
        if service:
            value, mask = service
            taken |= {port for port in range(1 << 16) if (6 << 16 | port) & mask == value}
    assert taken == set(range(8000, 9000))
    assert flows_of(compiled, APPLICATION) < 20


def test_priorities_of_rules_for_one_vm_are_distinct() -> None:
    builder = crowd(2, "allow clients 80/tcp", "deny vm:c0 80-90/tcp", "allow any 1-100/tcp")
    priorities = [flow.priority for flow in compile(*builder.build()).flows if flow.table == APPLICATION]
    assert sorted(set(priorities)) == [0, 59_998, 59_999, 60_000]


def test_a_rule_at_the_end_of_the_file_changes_no_other_flow() -> None:
    before = compile(*three_tier().build()).flows
    after = compile(*three_tier().policy("late", "app", ingress=["allow web 443/tcp"]).build()).flows
    assert set(before) <= set(after)


def test_lines_do_not_show_in_flows() -> None:
    topology, inventory = three_tier().build()
    moved = replace(topology, policies=tuple(replace(p, at=topology.at) for p in topology.policies))
    assert compile(topology, inventory).flows == compile(moved, inventory).flows


def test_more_rules_than_priorities_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge, "FIRST_PRIORITY", judge.DEFAULT_PRIORITY + 4)
    rules = [f"allow clients {port}/tcp" for port in range(1, 5)]
    compile(*crowd(1, *rules[:3]).build())
    with pytest.raises(InputError, match=r"test\.vnet\.yaml:8.*more rules of one tier"):
        compile(*crowd(1, *rules).build())


def test_default_drops_name_the_policies_that_applied() -> None:
    compiled = compile(*three_tier().build())
    texts = {origin.text: str(origin.at) for origin in compiled.provenance.values()}
    assert texts["egress of db: no rule matched; policies applied: db-from-app"] == "test.vnet.yaml:10"
    assert any(text.startswith("ingress of intruder, web: closed") for text in texts)


def test_the_log_wish_of_a_rule_reaches_its_origin() -> None:
    topology, inventory = three_tier().build()
    policy = topology.policies[1]
    assert policy.ingress is not None
    logged = replace(policy, ingress=tuple(replace(rule, log=True) for rule in policy.ingress))
    compiled = compile(replace(topology, policies=(topology.policies[0], logged)), inventory)
    told = [origin for number, origin in compiled.provenance.items() if cookie.is_logged(number)]
    assert {origin.policy for origin in told if origin.policy} == {"db-from-app"}
    assert [origin for origin in told if not origin.policy] == [LOGGED]


# -- guards: every packet a guest can forge -----------------------------------------------------


def nic(inventory: Inventory, name: str) -> Nic:
    return next(nic for nic in inventory.nics if nic.name == name)


def fate(sender: str, **fields: int) -> Leaf:
    """What becomes of one packet that a NIC of the three-tier fabric sends."""
    topology, inventory = three_tier().policy("open", "any", ingress=["allow any"], tier="admin").build()
    source = nic(inventory, sender)
    header = {"in_port": source.port, "vlan_vid": 0, "eth_src": source.mac, "ip_frag": 0, **fields}
    (leaf,) = Walk(compile(topology, inventory).flows).leaves(
        Region(exactly(**header)), CtState.TRK | CtState.NEW
    )
    return leaf


_, LAB = three_tier().build()
WEB, APP, DB = nic(LAB, "web-1.eth0"), nic(LAB, "app.eth0"), nic(LAB, "db.eth0")
WEB4, WEB6 = (int(interface.ip) for interface in WEB.addresses)
APP4, APP6 = (int(interface.ip) for interface in APP.addresses)
WEB_LOCAL, APP_LOCAL = int(link_local(WEB.mac)), int(link_local(APP.mac))

udp = {"eth_dst": APP.mac, "ip_proto": UDP, "udp_src": 40000, "udp_dst": 53}
ipv4 = udp | {"eth_type": ETH_IPV4, "ipv4_src": WEB4, "ipv4_dst": APP4}
ipv6 = udp | {"eth_type": ETH_IPV6, "ipv6_src": WEB6, "ipv6_dst": APP6}
icmpv6 = ipv6 | {"ip_proto": ICMPV6}
arp = {
    "eth_type": ETH_ARP,
    "eth_dst": 0xFFFFFFFFFFFF,
    "arp_op": 1,
    "arp_sha": WEB.mac,
    "arp_spa": WEB4,
    "arp_tpa": APP4,
}
ask = icmpv6 | {"icmpv6_type": 135, "ipv6_nd_target": APP6, "ipv6_nd_sll": WEB.mac}
tell = icmpv6 | {"icmpv6_type": 136, "ipv6_nd_target": WEB6, "ipv6_nd_tll": WEB.mac}


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (ipv4 | {"vlan_vid": 0x1000 | 20}, DropReason.VLAN_NOT_ALLOWED),
        (ipv4 | {"vlan_vid": 0x1000}, DropReason.VLAN_NOT_ALLOWED),
        (ipv4 | {"in_port": 99}, DropReason.PORT_CLOSED),
        (ipv4 | {"eth_src": APP.mac}, DropReason.SPOOF_MAC),
        (ipv4 | {"ipv4_src": APP4}, DropReason.SPOOF_IP),
        (ipv6 | {"ipv6_src": APP6}, DropReason.SPOOF_IP),
        (ipv6 | {"ipv6_src": APP_LOCAL}, DropReason.SPOOF_IP),
        (ipv6 | {"ipv6_src": 0}, DropReason.SPOOF_IP),
        (ipv4 | {"ip_frag": 3}, DropReason.FRAGMENT),
        (ipv6 | {"ip_frag": 3}, DropReason.FRAGMENT),
        (ipv4 | {"udp_src": 67}, DropReason.ROGUE_DHCP),
        (ipv4 | {"udp_dst": 68}, DropReason.ROGUE_DHCP),
        (ipv6 | {"udp_src": 547}, DropReason.ROGUE_DHCP),
        (ipv6 | {"udp_dst": 546}, DropReason.ROGUE_DHCP),
        (ipv4 | {"ipv4_src": 0, "udp_src": 68, "udp_dst": 67}, DropReason.MULTICAST),
        (icmpv6 | {"icmpv6_type": 134}, DropReason.ROGUE_RA),
        (icmpv6 | {"icmpv6_type": 137}, DropReason.ROGUE_RA),
        (icmpv6 | {"icmpv6_type": 133}, DropReason.MULTICAST),
        (icmpv6 | {"icmpv6_type": 143, "ipv6_src": 0}, DropReason.MULTICAST),
        (ipv4 | {"ip_proto": 1, "icmpv4_type": 5}, DropReason.ROGUE_RA),
        (arp | {"arp_spa": APP4}, DropReason.SPOOF_ARP),
        (arp | {"arp_sha": APP.mac}, DropReason.SPOOF_ARP),
        (arp | {"arp_op": 2, "arp_spa": APP4}, DropReason.SPOOF_ARP),
        (arp | {"arp_spa": 0}, DropReason.SPOOF_ARP),
        (arp | {"eth_src": APP.mac}, DropReason.SPOOF_MAC),
        (arp | {"arp_tpa": 1}, DropReason.NO_DST),
        (arp | {"arp_spa": 0, "arp_tpa": WEB4}, DropReason.NO_DST),
        (ask | {"ipv6_src": APP6}, DropReason.SPOOF_ND),
        (ask | {"ipv6_nd_sll": APP.mac}, DropReason.SPOOF_ND),
        (ask | {"ipv6_src": 0, "ipv6_nd_target": APP6}, DropReason.SPOOF_ND),
        (ask | {"ipv6_src": 0, "ipv6_nd_target": WEB6, "ipv6_nd_sll": 0}, DropReason.NO_DST),
        (ask | {"ipv6_nd_target": 1}, DropReason.NO_DST),
        (tell | {"ipv6_nd_target": APP6}, DropReason.SPOOF_ND),
        (tell | {"ipv6_nd_tll": APP.mac}, DropReason.SPOOF_ND),
        (tell | {"ipv6_src": APP6}, DropReason.SPOOF_ND),
        (ask | {"ip_frag": 1}, DropReason.FRAGMENT),
        (tell | {"ip_frag": 1}, DropReason.FRAGMENT),
        ({"eth_type": 0x88CC, "eth_dst": APP.mac}, DropReason.ETHERTYPE),
        ({"eth_type": 0x05FF, "eth_dst": 0x0180C2000000}, DropReason.ETHERTYPE),
        (ipv4 | {"eth_dst": 0xFFFFFFFFFFFF}, DropReason.MULTICAST),
        (ipv4 | {"eth_dst": DB.mac}, DropReason.NO_DST),
        (ipv4 | {"ipv4_dst": 1}, DropReason.NO_DST),
    ],
)
def test_forged_and_stray_packets_are_lost_for_their_reason(
    packet: dict[str, int], reason: DropReason
) -> None:
    assert fate("web-1.eth0", **packet).drop is reason


@pytest.mark.parametrize(
    "packet",
    [
        ipv4,
        ipv4 | {"ip_frag": 1},
        ipv6,
        ipv6 | {"ipv6_src": WEB_LOCAL, "ipv6_dst": APP_LOCAL},
        arp,
        arp | {"eth_dst": APP.mac},
        arp | {"arp_op": 2, "eth_dst": APP.mac},
        ask,
        ask | {"ipv6_src": WEB_LOCAL, "ipv6_nd_sll": 0},
        tell,
        tell | {"ipv6_nd_tll": 0},
        tell | {"ipv6_src": WEB_LOCAL, "ipv6_nd_target": WEB_LOCAL},
    ],
)
def test_honest_packets_reach_their_receiver_alone(packet: dict[str, int]) -> None:
    assert fate("web-1.eth0", **packet).outputs == (APP.port,)


@pytest.mark.parametrize(
    "packet",
    [
        arp | {"arp_tpa": WEB4},
        arp | {"arp_op": 2, "arp_tpa": WEB4},
        tell | {"eth_dst": 0x333300000001},
    ],
)
def test_announcements_reach_everyone_else_of_the_network(packet: dict[str, int]) -> None:
    others = {nic.port for nic in LAB.nics if nic.network == "front"} - {WEB.port}
    assert set(fate("web-1.eth0", **packet).outputs) == others


def test_neighbours_of_a_network_without_ipv6_have_no_link_local_address() -> None:
    local = int(link_local(DB.mac))
    packet = ipv6 | {"ipv6_src": local}
    assert fate("db.eth0", **packet).drop is DropReason.SPOOF_IP


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (CtState.TRK | CtState.INV, DropReason.INVALID_STATE),
        (0, DropReason.INVALID_STATE),
    ],
)
def test_packets_of_no_connection_are_lost(state: int, reason: DropReason) -> None:
    assert datagram(compile(*crowd(1, "allow any").build()), state).drop is reason


def datagram(compiled: Compiled, state: int, mark: int = 0) -> Leaf:
    """What becomes of one from the only client of a crowd to the server."""
    client, server = (nic for nic in crowd(1).build()[1].nics)
    header = exactly(
        in_port=client.port,
        vlan_vid=0,
        eth_src=client.mac,
        eth_dst=server.mac,
        eth_type=ETH_IPV4,
        ip_frag=0,
        ipv4_src=int(client.addresses[0].ip),
        ipv4_dst=int(server.addresses[0].ip),
        ip_proto=UDP,
        udp_src=40000,
        udp_dst=53,
    )
    (leaf,) = Walk(compiled.flows).leaves(Region(header), state, mark)
    return leaf


NEW, KNOWN = CtState.TRK | CtState.NEW, CtState.TRK | CtState.EST


@pytest.mark.parametrize(("rule", "told"), [("allow any log", True), ("allow any", False)])
def test_only_the_first_packet_of_a_connection_that_a_rule_logs_is_told(rule: str, told: bool) -> None:
    compiled = compile(*crowd(1, rule).build())
    last = [datagram(compiled, state, mark).trail[-1] for state, mark in ((NEW, 0), (NEW, 1), (KNOWN, 1))]
    sent = [Output(Port.CONTROLLER, LOGGED_BYTES) in flow.instructions.apply for flow in last]
    assert sent == [told, False, False]


def test_a_rule_that_only_refuses_is_logged_without_any_other_flow() -> None:
    """Its packets are reported anyway: it costs neither table 50 nor the flow cache anything."""
    plain, logged = (compile(*crowd(1, f"deny any{log}").build()).flows for log in ("", " log"))
    assert [replace(flow, cookie=0) for flow in plain] == [replace(flow, cookie=0) for flow in logged]


def error(sender: Nic, receiver: Nic, *ends: Nic, version: int) -> Leaf:
    """What becomes of an ICMP error about a connection between `ends`, all of them of the network `front`."""
    place = 0 if version == 4 else 1

    def own(nic: Nic) -> int:
        return int(nic.addresses[place].ip)

    ipv4 = {"eth_type": ETH_IPV4, "ip_proto": 1, "icmpv4_type": 3}
    ipv6 = {"eth_type": ETH_IPV6, "ip_proto": ICMPV6, "icmpv6_type": 1}
    kind, of, original = (ipv4, "ipv4", "ct_nw") if version == 4 else (ipv6, "ipv6", "ct_ipv6")
    header = {f"{of}_src": own(sender), f"{of}_dst": own(receiver)}
    header |= {f"{original}_src": own(ends[0]), f"{original}_dst": own(ends[1])}
    link = {"in_port": sender.port, "vlan_vid": 0, "eth_src": sender.mac, "eth_dst": receiver.mac}
    region = Region(exactly(**link, **kind, **header, ip_frag=0))
    (leaf,) = Walk(compile(*three_tier().build()).flows).leaves(region, CtState.TRK | CtState.REL)
    return leaf


@pytest.mark.parametrize("version", [4, 6])
def test_errors_about_a_known_connection_skip_the_policies(version: int) -> None:
    assert error(APP, WEB, WEB, APP, version=version).outputs == (WEB.port,)
    assert error(WEB, APP, WEB, APP, version=version).outputs == (APP.port,)


@pytest.mark.parametrize("version", [4, 6])
def test_errors_about_other_peoples_connection_are_lost(version: int) -> None:
    intruder = nic(LAB, "intruder.eth0")
    for receiver in (WEB, APP):
        assert error(intruder, receiver, WEB, APP, version=version).drop is DropReason.INVALID_STATE


def test_new_connections_are_committed_in_the_zone_of_their_network() -> None:
    deliver = [flow for flow in compile(*three_tier().build()).flows if flow.table == Stage.DELIVER]
    zones = {action.zone for flow in deliver for action in flow.instructions.apply if hasattr(action, "zone")}
    assert zones == {10, 20}


def test_a_lone_nic_has_nobody_to_announce_itself_to() -> None:
    compiled = compile(*Builder().network("net", 10, "10.0.0.0/24").vm("a", "net").build())
    floods = [f for f in compiled.flows if sum(isinstance(a, Output) for a in f.instructions.apply) > 1]
    assert not floods


def test_an_empty_fabric_is_closed() -> None:
    compiled = compile(*Builder().build())
    (leaf,) = Walk(compiled.flows).leaves(Region(exactly(in_port=1)), 0)
    assert leaf.drop is DropReason.PORT_CLOSED
    assert cookie.reason(leaf.trail[-1].cookie) is DropReason.PORT_CLOSED
