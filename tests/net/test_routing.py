"""Hosts of two networks talk by the router between them, as far as policies let them, in IPv4 and IPv6."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
from collections.abc import Iterator

import pytest

from tests.bpf.bench import BPFFS, sh
from vnet.policy.compile import compile
from vnet.policy.endpoint import link_local
from vnet.switch.datapath import Change
from vnet.switch.live.datapath import EbpfDatapath
from vnet.switch.live.netns import inside
from vnet.topology.inventory import expand
from vnet.topology.load import load_text
from vnet.topology.routing import Routing, gateway_mac
from vnet.topology.values import format_mac

TEXT = """
name: routed
networks:
  front: {vlan: 10, subnets: [10.0.1.0/24, "fd00:1::/64"], isolation: isolated}
  back: {vlan: 20, subnets: [{cidr: 10.0.2.0/24, gateway: 10.0.2.254}, "fd00:2::/64"]}
  alone: {vlan: 30, subnets: [10.0.3.0/24, "fd00:3::/64"]}
  wide: {vlan: 40, mtu: 9000, subnets: [10.0.4.0/24, "fd00:4::/64"]}
routers: {gw: {networks: [front, back, wide]}}
vms:
  a: {networks: [front]}
  b: {networks: [back]}
  c: {networks: [front]}
  d: {networks: [alone]}
  small: {networks: [back]}
  w: {networks: [wide]}
  v: {networks: [wide]}
policies:
  - {name: wide, applied_to: network:wide, ingress: [{from: any, ports: icmp}]}
  - {name: small, applied_to: vm:small, ingress: [{from: vm:a, ports: [icmp, 7/udp]}]}
  - {name: jumbo, applied_to: vm:b, ingress: [{from: vm:w, ports: [8080/tcp, 53/udp]}]}
  - name: b
    applied_to: vm:b
    ingress: [{from: vm:a, ports: [8080/tcp, 53/udp, icmp]}, {from: vm:a, ports: [22/tcp], action: reject}]
"""
TARGETS = {4: "10.0.2.1", 6: "fd00:2::2"}
SMALL_MTU = 1400
SMALL = {4: "10.0.2.2", 6: "fd00:2::3"}
GATEWAYS = {4: "10.0.1.1", 6: "fd00:1::1"}
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


class Lab:
    """A namespace for each VM, at the ports of one switch that has the topology's flows."""

    def __init__(self) -> None:
        self.netns = f"vnt-rt-{os.getpid()}"
        self.topology = load_text(TEXT, "routed.vnet.yaml", {})
        self.inventory = expand(self.topology, {})
        self.guests = {nic.vm: f"{self.netns}-{nic.vm}" for nic in self.inventory.nics}
        for name in (self.netns, *self.guests.values()):
            sh(f"ip netns add {name}")
        self.datapath = EbpfDatapath.open("routed", self.netns, BPFFS / self.netns)
        routing = Routing(self.topology)
        for nic in self.inventory.nics:
            guest = self.guests[nic.vm]
            sh(f"ip -n {self.netns} link add p{nic.port} type veth peer name eth0 netns {guest}")
            sh(f"ip -n {guest} link set eth0 address {format_mac(nic.mac)}")
            if nic.vm == "small":
                sh(f"ip -n {self.netns} link set p{nic.port} mtu {SMALL_MTU}")
            else:
                sh(f"ip -n {self.netns} link set p{nic.port} mtu {nic.mtu_bytes}")
            sh(f"ip -n {guest} link set eth0 mtu {nic.mtu_bytes}")
            sh(f"ip -n {self.netns} link set p{nic.port} up")
            sh(f"ip -n {guest} link set eth0 up")
            sh(f"ip -n {guest} link set lo up")
            for address in nic.addresses:
                sh(f"ip -n {guest} addr add {address} dev eth0 {'nodad' if address.version == 6 else ''}")
            for gateway in routing.gateways(nic.network):
                sh(f"ip -n {guest} -{gateway.version} route add default via {gateway}")
            self.datapath.attach(nic.port, f"p{nic.port}")
        self.datapath.commit(Change(put=compile(self.topology, self.inventory).flows))

    def close(self) -> None:
        self.datapath.destroy()
        for name in (*self.guests.values(), self.netns):
            sh(f"ip netns del {name}")

    def run(self, vm: str, command: str) -> str:
        """What a command says in a VM's namespace."""
        words = f"ip netns exec {self.guests[vm]} {command}".split()
        done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)
        return done.stdout + done.stderr

    def socket(self, vm: str, family: int, kind: socket.SocketKind) -> socket.socket:
        with inside(self.guests[vm]):
            made = socket.socket(FAMILIES[family], kind)
        made.settimeout(3)
        return made


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    made = Lab()
    yield made
    made.close()


@pytest.mark.parametrize("family", [4, 6])
def test_a_host_reaches_another_network_and_sees_one_hop_less(lab: Lab, family: int) -> None:
    said = lab.run("a", f"ping -c 2 -i 0.2 -W 2 {TARGETS[family]}")
    assert "2 received" in said, said
    assert "ttl=63" in said, said


@pytest.mark.parametrize("family", [4, 6])
def test_every_gateway_of_its_router_answers_a_host(lab: Lab, family: int) -> None:
    others = {4: ("10.0.2.254",), 6: ("fd00:2::1", f"{link_local(gateway_mac('routed'))}%eth0")}[family]
    for gateway in (GATEWAYS[family], *others):
        said = lab.run("a", f"ping -c 1 -W 2 {gateway}")
        assert "1 received" in said and "ttl=64" in said, said


@pytest.mark.parametrize("family", [4, 6])
def test_the_neighbour_table_of_a_host_has_the_gateways_mac(lab: Lab, family: int) -> None:
    lab.run("a", f"ip neigh flush {GATEWAYS[family]} dev eth0")
    lab.run("a", f"ping -c 1 -W 2 {GATEWAYS[family]}")
    known = lab.run("a", f"ip neigh show {GATEWAYS[family]}")
    assert format_mac(gateway_mac("routed")) in known, known
    assert family == 4 or "router" in known, known


@pytest.mark.parametrize("family", [4, 6])
def test_a_packet_without_hops_left_is_told_of(lab: Lab, family: int) -> None:
    said = lab.run("a", f"ping -c 1 -W 1 -t 1 {TARGETS[family]}")
    assert "Time to live exceeded" in said or "Time exceeded: Hop limit" in said, said


@pytest.mark.parametrize("family", [4, 6])
def test_a_packet_that_is_too_large_behind_the_router_is_told_of(lab: Lab, family: int) -> None:
    """Each is told of whoever asks; a host then sends smaller ones."""
    ping = f"ping -c 3 -i 0.2 -W 1 -M do -s 1430 {SMALL[family]}"
    assert "1 received" in lab.run("a", f"ping -c 1 -W 2 {SMALL[family]}")
    said = lab.run("a", ping)
    wanted = f"mtu = {SMALL_MTU}" if family == 4 else f"mtu={SMALL_MTU}"
    assert wanted in said and "0 received" in said, said
    known = lab.run("a", f"ip route get {SMALL[family]}")
    assert f"mtu {SMALL_MTU}" in known, known


@pytest.mark.parametrize("family", [4, 6])
def test_what_is_too_large_is_told_of_on_a_remembered_way_too(lab: Lab, family: int) -> None:
    level, discover = (0, 10) if family == 4 else (41, 23)  # IP_MTU_DISCOVER, IPV6_MTU_DISCOVER
    with lab.socket("small", family, socket.SOCK_DGRAM) as server:
        server.bind((SMALL[family], 7))
        with lab.socket("a", family, socket.SOCK_DGRAM) as client:
            client.setsockopt(level, discover, 3)  # IP_PMTUDISC_PROBE: send whatever was learnt
            client.connect((SMALL[family], 7))
            for _ in range(3):
                client.send(b"hello")
                server.sendto(b"yes", server.recvfrom(16)[1])
                assert client.recv(16) == b"yes"
            for _ in range(3):
                client.send(b"x" * 1420)
                with pytest.raises(OSError, match="Message too long"):
                    client.recv(16)


@pytest.mark.parametrize(("family", "nowhere"), [(4, "192.0.2.1"), (6, "2001:db8::1"), (4, "10.0.3.2")])
def test_a_gateway_says_that_it_has_no_route(lab: Lab, family: int, nowhere: str) -> None:
    said = lab.run("a", f"ping -c 1 -W 1 {nowhere}")
    wanted = "Destination Net Unreachable" if family == 4 else "No route"
    assert f"From {GATEWAYS[family]} " in said and wanted in said, said


@pytest.mark.parametrize(("family", "nobody"), [(4, "10.0.2.99"), (6, "fd00:2::99")])
def test_a_gateway_says_that_nobody_has_the_address(lab: Lab, family: int, nobody: str) -> None:
    said = lab.run("a", f"ping -c 1 -W 1 {nobody}")
    wanted = "Destination Host Unreachable" if family == 4 else "Address unreachable"
    assert wanted in said, said


@pytest.mark.parametrize("family", [4, 6])
def test_nobody_listens_at_a_gateway(lab: Lab, family: int) -> None:
    with lab.socket("a", family, socket.SOCK_DGRAM) as one:
        one.connect((GATEWAYS[family], 53))
        one.send(b"hello")
        with pytest.raises(ConnectionRefusedError):
            one.recv(1)


@pytest.mark.parametrize("family", [4, 6])
def test_a_connection_passes_that_policies_allow_and_no_other(lab: Lab, family: int) -> None:
    with lab.socket("b", family, socket.SOCK_STREAM) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((TARGETS[family], 8080))
        server.listen()
        with lab.socket("a", family, socket.SOCK_STREAM) as client:
            client.connect((TARGETS[family], 8080))
            accepted, (peer, *_) = server.accept()
            with accepted:
                client.sendall(b"x" * 100_000)
                got = 0
                while got < 100_000:
                    got += len(accepted.recv(65536))
                accepted.sendall(b"thanks")
                assert client.recv(16) == b"thanks"
            assert peer in {
                str(each.ip) for nic in lab.inventory.nics if nic.vm == "a" for each in nic.addresses
            }
        with lab.socket("c", family, socket.SOCK_STREAM) as other, pytest.raises(TimeoutError):
            other.connect((TARGETS[family], 8080))


@pytest.mark.parametrize("family", [4, 6])
def test_what_a_policy_rejects_is_refused_at_once(lab: Lab, family: int) -> None:
    with lab.socket("a", family, socket.SOCK_STREAM) as client:
        client.settimeout(3)
        assert client.connect_ex((TARGETS[family], 22)) == errno.ECONNREFUSED


@pytest.mark.parametrize("family", [4, 6])
def test_a_closed_port_behind_the_router_is_told_of_by_its_host(lab: Lab, family: int) -> None:
    """The error is about a connection in the router's zone."""
    with lab.socket("a", family, socket.SOCK_DGRAM) as one:
        one.connect((TARGETS[family], 53))
        one.send(b"hello")
        with pytest.raises(ConnectionRefusedError):
            one.recv(1)


@pytest.mark.parametrize(("family", "neighbour"), [(4, "10.0.1.3"), (6, "fd00:1::3")])
def test_a_router_leads_no_way_round_isolation(lab: Lab, family: int, neighbour: str) -> None:
    lab.run("a", f"ip -{family} route add {neighbour} via {GATEWAYS[family]} dev eth0")
    said = lab.run("a", f"ping -c 1 -W 1 {neighbour}")
    assert "0 received" in said and ("Net Unreachable" in said or "No route" in said), said


@pytest.mark.parametrize("family", [4, 6])
def test_networks_without_a_router_stay_apart(lab: Lab, family: int) -> None:
    lab.run("d", f"ip -{family} route add default dev eth0")
    assert "1 received" not in lab.run("d", f"ping -c 1 -W 1 {TARGETS[family]}")


JUMBO = 9000
NEIGHBOURS = {4: "10.0.4.3", 6: "fd00:4::3"}
IP_HEADERS = {4: 20, 6: 40}


@pytest.mark.parametrize("family", [4, 6])
def test_jumbo_frames_pass_within_their_network(lab: Lab, family: int) -> None:
    fits = JUMBO - IP_HEADERS[family] - 8
    assert "1 received" in lab.run("w", f"ping -c 1 -W 2 -M do -s {fits} {NEIGHBOURS[family]}")
    lab.run("w", "ip link set eth0 mtu 9100")
    said = lab.run("w", f"ping -c 1 -W 1 -M do -s {fits + 1} {NEIGHBOURS[family]}")
    lab.run("w", f"ip link set eth0 mtu {JUMBO}")
    for gateway in Routing(lab.topology).gateways("wide"):
        lab.run("w", f"ip -{gateway.version} route replace default via {gateway}")
    assert "0 received" in said and "mtu" not in said.lower(), said


@pytest.mark.parametrize("family", [4, 6])
def test_tcp_out_of_a_jumbo_network_learns_the_smaller_mtu(lab: Lab, family: int) -> None:
    """The receiver claims to take jumbo segments, so the sender, who cuts nothing itself, has to be told."""
    way = lab.run("b", f"ip -{family} route show default").split("\n")[0]
    lab.run("b", f"ip -{family} route replace {way} advmss 8900")
    with lab.socket("b", family, socket.SOCK_STREAM) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((TARGETS[family], 8080))
        server.listen()
        with lab.socket("w", family, socket.SOCK_STREAM) as client:
            client.connect((TARGETS[family], 8080))
            accepted, _ = server.accept()
            with accepted:
                accepted.settimeout(3)
                client.sendall(b"x" * 100_000)
                got = 0
                while got < 100_000:
                    got += len(accepted.recv(65536))
    known = lab.run("w", f"ip route get {TARGETS[family]}")
    lab.run("w", f"ip -{family} route flush cache")
    assert "mtu 1500" in known, known


@pytest.mark.parametrize("family", [4, 6])
def test_a_datagram_out_of_a_jumbo_network_is_refused_once_the_mtu_is_known(lab: Lab, family: int) -> None:
    level, discover = (0, 10) if family == 4 else (41, 23)  # IP_MTU_DISCOVER, IPV6_MTU_DISCOVER
    with lab.socket("w", family, socket.SOCK_DGRAM) as client:
        client.setsockopt(level, discover, 2)  # IP_PMTUDISC_DO
        client.connect((TARGETS[family], 53))
        client.send(b"x" * 8000)
        with pytest.raises(OSError, match="Message too long"):
            client.recv(16)
        with pytest.raises(OSError, match="Message too long"):
            client.send(b"x" * 8000)
        client.send(b"x" * (1500 - IP_HEADERS[family] - 8))
