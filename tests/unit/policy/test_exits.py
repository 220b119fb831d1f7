"""The way out of a router, in flows that the slow switch runs: what leaves, what comes in, nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import ip_network

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6ND_NS, IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet as Layers

from tests.generators import Builder
from vnet.base.drop import DropReason
from vnet.base.errors import InputError
from vnet.openflow.fields import CtState
from vnet.openflow.table import Outcome, PortState, SlowSwitch
from vnet.policy.compile import compile
from vnet.policy.outside import LENGTHS_MAX, edges
from vnet.policy.space import Region, exactly
from vnet.policy.verify import verify
from vnet.policy.walk import Walk
from vnet.switch.abi import TABLE_MASKS
from vnet.topology.inventory import Nic
from vnet.topology.routing import gateway_mac
from vnet.topology.transfer import Transfer

FAR, FAR6 = "203.0.113.7", "2001:db8::7"
HOST = str(Transfer.of("test", "gw").host[0])
NEAR = str(Transfer.of("test", "gw").gateway[0])


def shop() -> Builder:
    """web and app are routed to the outside, db is on a network of its own."""
    return (
        Builder()
        .network("front", 10, "10.10.10.0/24", "fd00:10::/64")
        .network("back", 20, "10.10.20.0/24")
        .network("data", 30, "10.10.30.0/24")
        .router("gw", "front", "back", uplink="host")
        .vm("web", "front")
        .vm("app", "back", "data")
        .vm("db", "data")
    )


class Lab:
    def __init__(self, builder: Builder) -> None:
        self.topology, self.inventory = builder.build()
        (self.exit,) = self.inventory.exits
        self.gateway = text(gateway_mac("test"))
        self.nics = {nic.name: nic for nic in self.inventory.nics}
        ports = (*(nic.port for nic in self.inventory.nics), self.exit.port)
        flows = compile(self.topology, self.inventory).flows
        self.switch = SlowSwitch(flows, {port: PortState() for port in ports})
        self.now_s = 0.0

    def send(self, port: int, *layers: Layers) -> Outcome:
        self.now_s += 0.1
        frame = layers[0]
        for layer in layers[1:]:
            frame = frame / layer
        outcome = self.switch.receive(port, bytes(frame), self.now_s)
        assert not outcome.ambiguous
        return outcome

    def out(self, nic: str, *layers: Layers) -> Outcome:
        """From a VM to its gateway."""
        sender = self.nics[nic]
        return self.send(sender.port, Ether(src=text(sender.mac), dst=self.gateway), *layers)

    def come(self, *layers: Layers, source: int | None = None) -> Outcome:
        """From the gateway behind the exit."""
        ether = Ether(src=text(self.exit.mac if source is None else source), dst=self.gateway)
        return self.send(self.exit.port, ether, *layers)


def text(mac: int) -> str:
    return mac.to_bytes(6, "big").hex(":")


def address(nic: Nic, version: int = 4) -> str:
    return next(str(each.ip) for each in nic.addresses if each.version == version)


def arrived(outcome: Outcome) -> list[tuple[int, Layers]]:
    return [(port, Ether(frame)) for port, frame in outcome.outputs]


def opened(lab: Lab, target: str = FAR) -> Outcome:
    return lab.out("web.eth0", IP(src=address(lab.nics["web.eth0"]), dst=target), TCP(dport=443))


def test_what_is_for_nobody_in_the_fabric_leaves_by_the_exit_and_its_answer_comes_back() -> None:
    lab = Lab(shop())
    web = lab.nics["web.eth0"]
    ((port, frame),) = arrived(opened(lab))
    assert port == lab.exit.port
    assert (frame.src, frame.dst, frame[IP].ttl) == (lab.gateway, text(lab.exit.mac), 63)
    assert (frame[IP].src, frame[IP].dst) == (address(web), FAR)
    answer = IP(src=FAR, dst=address(web)), TCP(sport=443, dport=20, flags="SA", ack=1)
    ((port, frame),) = arrived(lab.come(*answer))
    assert port == web.port
    assert (frame.src, frame.dst) == (lab.gateway, text(web.mac))


def test_ipv6_leaves_from_networks_that_have_it() -> None:
    lab = Lab(shop())
    six = IPv6(src=address(lab.nics["web.eth0"], 6), dst=FAR6)
    ((port, _),) = arrived(lab.out("web.eth0", six, TCP(dport=443)))
    assert port == lab.exit.port


def test_outside_opens_what_a_rule_for_internet_allows_and_nothing_else() -> None:
    lab = Lab(shop().policy("public", "vm:web", ingress=["allow internet 443/tcp"]))
    web = address(lab.nics["web.eth0"])
    ((port, _),) = arrived(lab.come(IP(src=FAR, dst=web), TCP(dport=443)))
    assert port == lab.nics["web.eth0"].port
    assert lab.come(IP(src=FAR, dst=web), TCP(dport=22)).drop is DropReason.POLICY
    assert lab.come(IP(src=HOST, dst=web), TCP(dport=443)).drop is DropReason.POLICY
    answer = lab.out("web.eth0", IP(src=web, dst=FAR), TCP(sport=443, dport=20, flags="SA", ack=1))
    assert [port for port, _ in answer.outputs] == [lab.exit.port]


def test_the_host_is_told_apart_from_who_is_beyond_it() -> None:
    lab = Lab(shop().policy("ssh", "vm:web", ingress=["allow host 22/tcp"], egress=["allow host 53/udp"]))
    web = address(lab.nics["web.eth0"])
    assert lab.come(IP(src=HOST, dst=web), TCP(dport=22)).outputs
    for other in (FAR, NEAR):
        assert lab.come(IP(src=other, dst=web), TCP(dport=22)).drop is DropReason.POLICY
    assert lab.out("web.eth0", IP(src=web, dst=HOST), UDP(sport=5000, dport=53)).outputs
    for other in (FAR, NEAR):
        assert (
            lab.out("web.eth0", IP(src=web, dst=other), UDP(sport=5000, dport=53)).drop is DropReason.POLICY
        )


def test_the_longest_prefix_that_a_rule_names_decides_whom_an_address_belongs_to() -> None:
    rules = ["deny 203.0.113.0/25 443/tcp", "allow 203.0.113.0/24 443/tcp", "allow 2001:db8::/32 443/tcp"]
    lab = Lab(shop().policy("public", "vm:web", ingress=rules))
    web, web6 = (address(lab.nics["web.eth0"], version) for version in (4, 6))
    assert lab.come(IP(src="203.0.113.200", dst=web), TCP(dport=443)).outputs
    for other in ("203.0.113.7", "198.51.100.1"):
        assert lab.come(IP(src=other, dst=web), TCP(dport=443)).drop is DropReason.POLICY
    assert lab.come(IPv6(src="2001:db8:1::1", dst=web6), TCP(dport=443)).outputs
    assert lab.come(IPv6(src="2001:db9::1", dst=web6), TCP(dport=443)).drop is DropReason.POLICY


def test_any_means_the_outside_too_and_no_policy_applies_to_it() -> None:
    builder = shop().policy(
        "open", "any", ingress=["deny any 25/tcp", "allow any"], egress=["deny any 25/tcp"]
    )
    lab = Lab(builder.policy("out", "vm:web", egress=["allow any"]))
    web = address(lab.nics["web.eth0"])
    assert lab.come(IP(src=FAR, dst=web), TCP(dport=80)).outputs
    assert lab.come(IP(src=FAR, dst=web), TCP(dport=25)).drop is DropReason.POLICY
    assert lab.out("web.eth0", IP(src=web, dst=FAR), TCP(dport=80)).outputs
    assert lab.out("web.eth0", IP(src=web, dst=FAR), TCP(dport=25)).drop is DropReason.POLICY


@pytest.mark.parametrize(
    "source",
    ["10.10.20.11", "10.10.10.11", "10.10.30.12", "127.0.0.1", "224.0.0.1", "0.0.0.0", "169.254.0.9"],
)
def test_no_address_that_is_not_outside_comes_from_there(source: str) -> None:
    lab = Lab(shop().policy("open", "any", ingress=["allow any"]))
    outcome = lab.come(IP(src=source, dst=address(lab.nics["web.eth0"])), TCP(dport=80))
    assert outcome.drop is DropReason.SPOOF_IP


def test_only_the_gateway_sends_and_it_asks_for_no_neighbour() -> None:
    lab = Lab(shop().policy("open", "any", ingress=["allow any"]))
    there = IP(src=FAR, dst=address(lab.nics["web.eth0"]))
    assert lab.come(there, TCP(), source=lab.nics["web.eth0"].mac).drop is DropReason.SPOOF_MAC
    assert lab.come(Dot1Q(vlan=10), there, TCP()).drop is DropReason.VLAN_NOT_ALLOWED
    assert lab.come(ARP(hwsrc=text(lab.exit.mac), psrc=FAR, pdst="10.10.10.1")).drop is DropReason.SPOOF_ARP
    asks = IPv6(src=FAR6, dst="ff02::1"), ICMPv6ND_NS(tgt="fd00:10::b")
    assert lab.come(*asks).drop is DropReason.SPOOF_ND


def test_nobody_outside_reaches_anybody_outside_or_beside_the_router() -> None:
    lab = Lab(shop().policy("open", "any", ingress=["allow any"]))
    for target in ("198.51.100.1", HOST, "10.10.30.12"):
        outcome = lab.come(IP(src=FAR, dst=target), TCP(dport=80))
        assert outcome.drop in (DropReason.NO_ROUTE, DropReason.REJECTED), target
        assert [port for port, _ in outcome.outputs] in ([], [lab.exit.port])  # at most that it is told
    for target in ("10.10.30.12", "127.0.0.1", "240.0.0.1", "169.254.0.9"):
        outcome = opened(lab, target)
        assert [port for port, _ in outcome.outputs] in ([], [lab.nics["web.eth0"].port]), target


def test_a_network_without_a_router_has_no_way_out() -> None:
    lab = Lab(shop())
    outcome = lab.out("db.eth0", IP(src=address(lab.nics["db.eth0"]), dst=FAR), TCP(dport=443))
    assert outcome.drop is DropReason.NO_DST


def unreachable(lab: Lab, source: str, inner: Sequence[Layers]) -> Outcome:
    web = lab.nics["web.eth0"]
    quoted = inner[0] / inner[1]
    return lab.come(IP(src=source, dst=address(web)), ICMP(type=3, code=1), quoted)


def test_a_router_on_the_way_may_tell_of_a_connection_with_the_outside_and_of_no_other() -> None:
    builder = shop().policy("open", "any", ingress=["allow any"])
    lab = Lab(builder)
    web, app = lab.nics["web.eth0"], lab.nics["app.eth0"]
    sent = IP(src=address(web), dst=FAR), TCP(sport=4000, dport=443)
    assert lab.out("web.eth0", *sent).outputs
    assert [port for port, _ in unreachable(lab, "198.51.100.1", sent).outputs] == [web.port]
    inside = IP(src=address(web), dst=address(app)), TCP(sport=4001, dport=80)
    assert lab.out("web.eth0", *inside).outputs
    assert unreachable(lab, "198.51.100.1", inside).drop is DropReason.INVALID_STATE


def test_a_vm_may_tell_the_outside_of_a_connection() -> None:
    lab = Lab(shop().policy("open", "any", ingress=["allow any"]))
    web = lab.nics["web.eth0"]
    sent = IPv6(src=FAR6, dst=address(web, 6)), UDP(sport=4000, dport=80)
    assert lab.come(*sent).outputs
    told = lab.out(
        "web.eth0", IPv6(src=address(web, 6), dst=FAR6), ICMPv6DestUnreach(code=4), sent[0] / sent[1]
    )
    assert [port for port, _ in told.outputs] == [lab.exit.port]


def prefixes(lengths: Iterable[int]) -> list[str]:
    return [f"allow {ip_network(f'203.0.113.7/{length}', strict=False)} 80/tcp" for length in lengths]


def test_so_many_prefixes_as_are_told_apart_fit_the_switch() -> None:
    """Also where a fabric has everything that makes a table search more."""
    builder = shop().network("lan", 40, "10.10.40.0/24", "fd00:40::/64", isolated=True).vm("pc", "lan")
    builder.policy("far", "vm:web", ingress=prefixes(range(9, 9 + LENGTHS_MAX)))
    builder.cable("wire", "lan")
    shapes: dict[int, set[object]] = {}
    for flow in compile(*builder.build()).flows:
        shapes.setdefault(flow.table, set()).add(tuple((name, mask) for name, _, mask in flow.match))
    assert max(map(len, shapes.values())) <= TABLE_MASKS


def test_more_prefixes_than_the_switch_can_tell_apart_are_refused_in_words() -> None:
    builder = shop().policy("far", "vm:web", ingress=prefixes(range(9, 10 + LENGTHS_MAX)))
    with pytest.raises(InputError, match=f"by prefixes of {LENGTHS_MAX + 1} lengths"):
        compile(*builder.build())
    inside = Builder().network("n", 10, "10.0.0.0/24").vm("web", "n")
    compile(*inside.policy("far", "vm:web", ingress=prefixes(range(9, 10 + LENGTHS_MAX))).build())


def test_nothing_leads_from_an_internal_network_to_a_way_out() -> None:
    """Whatever its VMs send: no flow that they meet has anything to do with an exit or a cable."""
    builder = shop().cable("wire", "back").policy("open", "any", ingress=["allow any"], egress=["allow any"])
    builder.verify(
        "never network:data -> internet", "never network:data -> host", "never internet -> network:data"
    )
    topology, inventory = builder.build()
    assert topology.networks["data"].vlan == 30
    flows = compile(topology, inventory).flows
    assert all(result.holds for result in verify(topology, inventory, flows))
    walk, ways_out = Walk(flows), {edge.nic.port for edge in edges(topology, inventory)}
    for nic in (nic for nic in inventory.nics if nic.network == "data"):
        for kind in (0x0800, 0x86DD, 0x0806):
            for state in (CtState.TRK | CtState.NEW, CtState.TRK | CtState.EST | CtState.RPL):
                sent = Region(exactly(in_port=nic.port, eth_type=kind))
                reached = {port for leaf in walk.leaves(sent, state) for port in leaf.outputs}
                assert not reached & ways_out
