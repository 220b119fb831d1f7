"""What passes between guests and their network's own server, in flows: that and nothing else."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from vnet.base.drop import DropReason
from vnet.openflow.fields import ETH_IPV4, ETH_IPV6, ICMP, ICMPV6, TCP, UDP, CtState
from vnet.policy.compile import Compiler, compile
from vnet.policy.endpoint import link_local
from vnet.policy.pipeline import TABLES
from vnet.policy.segment import ALL_NODES, BROADCAST
from vnet.policy.serve import ALL_DHCP, ALL_ROUTERS
from vnet.policy.space import Region, exactly
from vnet.policy.walk import Leaf, Walk
from vnet.topology.inventory import Exit, Inventory, Nic, ServicePort, expand
from vnet.topology.load import load_text
from vnet.topology.model import Topology

TEXT = """\
name: lab
networks:
  n:
    vlan: 1
    dns: true
    isolation: ISOLATION
    subnets: [{cidr: 10.0.0.0/24, dhcp: true}, {cidr: "fd00::/64", ra: slaac, dhcp: true}]
  named: {vlan: 2, dns: true, subnets: 10.0.2.0/24}
  plain: {vlan: 3, subnets: [10.0.3.0/24, "fd00:3::/64"]}
vms:
  a: {networks: [n, named, plain]}
  b: {networks: [n]}
policies:
  - {name: closed, applied_to: any, ingress: [], egress: []}
"""
NEW, ESTABLISHED = CtState.TRK | CtState.NEW, CtState.TRK | CtState.EST
REPLY = ESTABLISHED | CtState.RPL
RELATED = CtState.TRK | CtState.REL | CtState.RPL


PACKET_FIELDS = tuple(
    name for table in TABLES for name in table.fields if not name.startswith(("reg", "ct_"))
)


def declared(isolation: str = "none", text: str = TEXT) -> tuple[Topology, Inventory]:
    topology = load_text(text.replace("ISOLATION", isolation), "lab.yaml", {})
    return topology, expand(topology, {})


class Lab:
    """A fabric whose policies close everything."""

    def __init__(self, isolation: str = "none") -> None:
        self.topology, self.inventory = declared(isolation)
        self.walk = Walk(compile(self.topology, self.inventory).flows)

    def nic(self, name: str) -> Nic:
        return next(nic for nic in self.inventory.nics if nic.name == name)

    def server(self, network: str = "n") -> ServicePort:
        return next(each for each in self.inventory.services if each.network == network)

    def leaf(self, sender: Nic | ServicePort | Exit, state: int = NEW, **fields: int) -> Leaf:
        known = dict.fromkeys(PACKET_FIELDS, 0)
        known |= {"in_port": sender.port, "vlan_vid": 0, "eth_src": sender.mac, **fields}
        (leaf,) = self.walk.leaves(Region(exactly(**known)), state, 0)
        return leaf


def v4(nic: Nic | ServicePort) -> int:
    return next(int(each.ip) for each in nic.addresses if each.version == 4)


def discover(source: int = 0, target: int = BROADCAST) -> dict[str, int]:
    udp = {"eth_type": ETH_IPV4, "ip_proto": UDP, "udp_src": 68, "udp_dst": 67}
    return {"eth_dst": target, **udp, "ipv4_src": source, "ipv4_dst": 0xFFFFFFFF}


def asks(nic: Nic, server: ServicePort, protocol: int = UDP, port: int = 53) -> dict[str, int]:
    to = {"eth_dst": server.mac, "eth_type": ETH_IPV4, "ipv4_src": v4(nic), "ipv4_dst": v4(server)}
    ports = {UDP: "udp", TCP: "tcp"}
    return {**to, "ip_proto": protocol, f"{ports[protocol]}_src": 4000, f"{ports[protocol]}_dst": port}


@pytest.mark.parametrize("isolation", ["none", "isolated"])
def test_who_has_no_address_asks_the_server_and_no_guest(isolation: str) -> None:
    lab = Lab(isolation)
    nic, server = lab.nic("a.eth0"), lab.server()
    for fields in (discover(), discover(v4(nic)), discover(v4(nic), server.mac)):
        assert lab.leaf(nic, **fields).outputs == (server.port,)
    near = int(link_local(nic.mac))
    solicit = {"eth_type": ETH_IPV6, "ip_proto": UDP, "udp_src": 546, "udp_dst": 547, "ipv6_src": near}
    assert lab.leaf(nic, eth_dst=ALL_DHCP, **solicit).outputs == (server.port,)
    routers = {"eth_type": ETH_IPV6, "ip_proto": ICMPV6, "icmpv6_type": 133}
    for source in (0, near):
        assert lab.leaf(nic, eth_dst=ALL_ROUTERS, ipv6_src=source, **routers).outputs == (server.port,)


def test_nobody_asks_in_the_name_of_a_neighbour() -> None:
    lab = Lab()
    nic, other = lab.nic("a.eth0"), lab.nic("b.eth0")
    assert lab.leaf(nic, **discover(v4(other))).drop is DropReason.SPOOF_IP
    assert lab.leaf(nic, **{**discover(), "eth_src": other.mac}).drop is DropReason.MULTICAST


def test_where_nobody_answers_nobody_is_asked() -> None:
    lab = Lab()
    for name in ("a.eth1", "a.eth2"):
        assert lab.leaf(lab.nic(name), **discover()).drop is DropReason.MULTICAST
    plain = lab.nic("a.eth2")
    nowhere = {**asks(plain, lab.server()), "ipv4_dst": v4(plain) - 1}
    assert lab.leaf(plain, **nowhere).drop is DropReason.NO_DST


def test_answers_go_to_one_or_to_all_of_the_network() -> None:
    lab = Lab("isolated")
    server, nic, other = lab.server(), lab.nic("a.eth0"), lab.nic("b.eth0")
    offer = {"eth_type": ETH_IPV4, "ip_proto": UDP, "udp_src": 67, "udp_dst": 68, "ipv4_src": v4(server)}
    assert lab.leaf(server, eth_dst=nic.mac, **offer).outputs == (nic.port,)
    assert set(lab.leaf(server, eth_dst=BROADCAST, **offer).outputs) == {nic.port, other.port}
    routers = {"eth_type": ETH_IPV6, "ip_proto": ICMPV6, "icmpv6_type": 134}
    near = int(link_local(server.mac))
    advertised = lab.leaf(server, eth_dst=ALL_NODES, ipv6_src=near, **routers)
    assert set(advertised.outputs) == {nic.port, other.port}


def test_guests_still_serve_nothing() -> None:
    lab = Lab()
    nic, other = lab.nic("a.eth0"), lab.nic("b.eth0")
    offer = {"eth_type": ETH_IPV4, "ip_proto": UDP, "udp_src": 67, "udp_dst": 68, "ipv4_src": v4(nic)}
    for target in (other.mac, BROADCAST):
        assert lab.leaf(nic, eth_dst=target, **offer).drop is DropReason.ROGUE_DHCP
    routers = {"eth_type": ETH_IPV6, "ip_proto": ICMPV6, "icmpv6_type": 134}
    rogue = lab.leaf(nic, eth_dst=ALL_NODES, ipv6_src=int(link_local(nic.mac)), **routers)
    assert rogue.drop is DropReason.ROGUE_RA


@pytest.mark.parametrize("protocol", [UDP, TCP])
@pytest.mark.parametrize("network", ["n", "named"])
def test_names_are_asked_and_told_whatever_policies_say(protocol: int, network: str) -> None:
    lab = Lab()
    server = lab.server(network)
    nic = lab.nic("a.eth0" if network == "n" else "a.eth1")
    for state in (NEW, ESTABLISHED):
        assert lab.leaf(nic, state, **asks(nic, server, protocol)).outputs == (server.port,)
    back = {"eth_dst": nic.mac, "eth_type": ETH_IPV4, "ipv4_src": v4(server), "ipv4_dst": v4(nic)}
    name = "udp" if protocol == UDP else "tcp"
    back |= {"ip_proto": protocol, f"{name}_src": 53, f"{name}_dst": 4000}
    for state in (REPLY, RELATED):
        assert lab.leaf(server, state, **back).outputs == (nic.port,)
    for state in (NEW, ESTABLISHED):
        assert lab.leaf(server, state, **back).drop is DropReason.INVALID_STATE


def test_pings_pass_and_nothing_else_does() -> None:
    lab = Lab()
    nic, server = lab.nic("a.eth0"), lab.server()
    to = {"eth_dst": server.mac, "eth_type": ETH_IPV4, "ipv4_src": v4(nic), "ipv4_dst": v4(server)}
    ping = {"ip_proto": ICMP, "icmpv4_type": 8}
    assert lab.leaf(nic, **to, **ping).outputs == (server.port,)
    assert lab.leaf(nic, **to, ip_proto=ICMP, icmpv4_type=13).drop is DropReason.NO_DST
    for protocol, port in ((TCP, 22), (UDP, 123), (TCP, 67), (UDP, 547)):
        assert lab.leaf(nic, **asks(nic, server, protocol, port)).drop is DropReason.NO_DST


def test_the_server_speaks_as_itself_only() -> None:
    lab = Lab()
    nic, server = lab.nic("a.eth0"), lab.server()
    as_another = {"eth_dst": nic.mac, "eth_type": ETH_IPV4, "ipv4_src": 0x08080808, "ipv4_dst": v4(nic)}
    assert lab.leaf(server, REPLY, **as_another, ip_proto=UDP, udp_src=53).drop is DropReason.SPOOF_IP
    assert lab.leaf(server, eth_src=nic.mac, eth_dst=nic.mac).drop is DropReason.SPOOF_MAC


def test_what_is_compiled_step_by_step_is_what_is_compiled_at_once() -> None:
    without = TEXT.replace("dns: true", "dns: false").replace(", dhcp: true", "").replace(", ra: slaac", "")
    texts = [without, TEXT, TEXT.replace("  b: {networks: [n]}\n", ""), TEXT, without]
    topology, inventory = declared(text=texts[0])
    compiler = Compiler(topology, inventory)
    for text in texts[1:]:
        topology = load_text(text.replace("ISOLATION", "none"), "lab.yaml", {})
        inventory = expand(topology, inventory.assignments)
        compiler.update(topology, inventory)
        assert compiler.compiled.flows == compile(topology, inventory).flows


@pytest.mark.parametrize("protocol", [UDP, TCP])
def test_a_router_lets_questions_for_names_pass_and_answers_the_rest_itself(protocol: int) -> None:
    text = f"{TEXT}routers: {{gw: {{networks: [n, named]}}}}\n"
    topology, inventory = declared(text=text)
    lab = Lab()
    lab.topology, lab.inventory = topology, inventory
    lab.walk = Walk(compile(topology, inventory).flows)
    for name, network in (("a.eth0", "n"), ("a.eth1", "named")):
        nic, server = lab.nic(name), lab.server(network)
        assert lab.leaf(nic, **asks(nic, server, protocol)).outputs == (server.port,)
        assert lab.leaf(nic, **asks(nic, server, protocol, 54)).outputs == ()
        back = {"eth_dst": nic.mac, "eth_type": ETH_IPV4, "ipv4_src": v4(server), "ipv4_dst": v4(nic)}
        assert lab.leaf(server, REPLY, **back, ip_proto=protocol).outputs == (nic.port,)
    nic, server = lab.nic("a.eth0"), lab.server()
    assert lab.leaf(nic, **discover()).outputs == (server.port,)
    elsewhere = lab.server("named")
    assert lab.leaf(nic, **asks(nic, elsewhere, protocol)).outputs == ()


FORWARDING = """\
name: lab
networks:
  n: {vlan: 1, dns: {forwarders: [10.0.2.9, "fd00:2::9"]}, subnets: [10.0.0.0/24, "fd00::/64"]}
  far: {vlan: 2, dns: true, subnets: [10.0.2.0/24, "fd00:2::/64"]}
routers: {gw: {networks: [n, far]}}
vms:
  a: {networks: [n]}
  names: {interfaces: {eth0: {network: far, addresses: [10.0.2.9/24, "fd00:2::9/64"]}}}
  other: {networks: [far]}
policies:
  - {name: closed, applied_to: any, ingress: [], egress: []}
"""
TYPES = {4: ETH_IPV4, 6: ETH_IPV6}
NAMES = {UDP: "udp", TCP: "tcp"}


def address(nic: Nic | ServicePort, family: int) -> int:
    return next(int(each.ip) for each in nic.addresses if each.version == family)


def between(family: int, source: int, target: int, protocol: int, **ports: int) -> dict[str, int]:
    fields = {f"ipv{family}_src": source, f"ipv{family}_dst": target, "eth_type": TYPES[family]}
    numbers = {f"{NAMES[protocol]}_{side}": number for side, number in ports.items()}
    return {**fields, "ip_proto": protocol, **numbers}


@pytest.fixture(scope="module")
def forwarding() -> Lab:
    lab = Lab()
    lab.topology, lab.inventory = declared(text=FORWARDING)
    lab.walk = Walk(compile(lab.topology, lab.inventory).flows)
    return lab


@pytest.mark.parametrize("protocol", [UDP, TCP])
@pytest.mark.parametrize("family", [4, 6])
def test_a_server_asks_its_forwarders_for_names_and_nobody_else(
    forwarding: Lab, family: int, protocol: int
) -> None:
    server, names, other = forwarding.server(), forwarding.nic("names.eth0"), forwarding.nic("other.eth0")
    own, to = address(server, family), {"eth_dst": server.mac}
    asks = between(family, own, address(names, family), protocol, src=4000, dst=53)
    for state in (NEW, ESTABLISHED):
        assert forwarding.leaf(server, state, **to, **asks).outputs == (names.port,)
    for state in (REPLY, RELATED):
        assert forwarding.leaf(server, state, **to, **asks).outputs == ()
    for target, port in ((names, 54), (other, 53)):
        elsewhere = between(family, own, address(target, family), protocol, src=4000, dst=port)
        assert forwarding.leaf(server, NEW, **to, **elsewhere).outputs == ()
    from_far = forwarding.leaf(forwarding.server("far"), NEW, **to, **asks)
    assert from_far.outputs == () and from_far.drop is DropReason.SPOOF_IP


@pytest.mark.parametrize("protocol", [UDP, TCP])
@pytest.mark.parametrize("family", [4, 6])
def test_a_forwarder_answers_what_it_was_asked(forwarding: Lab, family: int, protocol: int) -> None:
    server, names, guest = forwarding.server(), forwarding.nic("names.eth0"), forwarding.nic("a.eth0")
    own, to = address(server, family), {"eth_dst": server.mac}
    answer = between(family, address(names, family), own, protocol, src=53, dst=4000)
    assert forwarding.leaf(names, REPLY, **to, **answer).outputs == (server.port,)
    for state in (NEW, ESTABLISHED, RELATED):
        assert forwarding.leaf(names, state, **to, **answer).outputs == ()
    other_port = between(family, address(names, family), own, protocol, src=54, dst=4000)
    assert forwarding.leaf(names, REPLY, **to, **other_port).outputs == ()
    asks = between(family, address(guest, family), own, protocol, src=53, dst=53)
    assert forwarding.leaf(guest, NEW, **to, **asks).outputs == (server.port,)


@pytest.mark.parametrize("protocol", [UDP, TCP])
@pytest.mark.parametrize("family", [4, 6])
def test_a_forwarder_beyond_the_uplink_is_asked_and_answers(family: int, protocol: int) -> None:
    lab, outside = Lab(), {4: "192.0.2.53", 6: "2001:db8::53"}
    text = FORWARDING.replace('10.0.2.9, "fd00:2::9"]}, subnets', '192.0.2.53, "2001:db8::53"]}, subnets')
    lab.topology, lab.inventory = declared(text=text.replace("[n, far]}", "[n, far], uplink: host}"))
    lab.walk = Walk(compile(lab.topology, lab.inventory).flows)
    (exit_,), server = lab.inventory.exits, lab.server()
    own, far, to = address(server, family), int(ip_address(outside[family])), {"eth_dst": server.mac}
    asked = between(family, own, far, protocol, src=4000, dst=53)
    assert lab.leaf(server, NEW, **to, **asked).outputs == (exit_.port,)
    assert lab.leaf(server, NEW, **to, **between(family, own, far, protocol, src=4000, dst=54)).outputs == ()
    answer = between(family, far, own, protocol, src=53, dst=4000)
    assert lab.leaf(exit_, REPLY, **to, **answer).outputs == (server.port,)
    assert lab.leaf(exit_, NEW, **to, **answer).outputs == ()
    assert lab.leaf(exit_, NEW, **to, **between(family, far, own, protocol, src=9, dst=53)).outputs == ()
