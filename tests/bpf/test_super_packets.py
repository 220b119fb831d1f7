"""TCP super packets and GSO datagrams stay whole, and what is written into them leaves with right checksums.

Such a packet carries a partial checksum: a sum over the pseudo header only, which whoever cuts it up
completes. The switch's ports have their transmit offloads off, so the kernel cuts and completes behind the
switch, and the receiver trusts nothing: a wrong partial sum makes every segment wrong.
"""

from __future__ import annotations

import array
import fcntl
import socket
import struct
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from tests.bpf.bench import sh
from tests.bpf.ends import Ends, does, script
from vnet.openflow.fields import ETH_IPV4, ETH_IPV6, TCP, UDP, VLAN_PRESENT, CtState
from vnet.openflow.flow import (
    Action,
    Conntrack,
    Flow,
    Instructions,
    Nat,
    Output,
    PopVlan,
    PushVlan,
    SetField,
    match,
)
from vnet.switch.live.netns import inside

SIOCETHTOOL, ETHTOOL_STXCSUM = 0x8946, 0x17
MEBIBYTES = 16
SERVER, SERVICE = {4: "10.0.0.2", 6: "fd00::2"}, {4: "10.0.0.99", 6: "fd00::99"}
"""Where the server listens, at port 5001, and where clients seek it, at port 80."""
MAC = 0x020000000000

RECEIVE = """
import hashlib, socket, sys
listener = socket.create_server((sys.argv[1], 5001), family=socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET)
print("ready", flush=True)
peer, _ = listener.accept()
digest, count = hashlib.sha256(), 0
while chunk := peer.recv(1 << 20):
    digest.update(chunk); count += len(chunk)
print(count, digest.hexdigest(), flush=True)
"""  # noqa: E501
SEND = """
import hashlib, random, socket, sys
piece = random.Random(7).randbytes(1 << 20)
digest, peer = hashlib.sha256(), socket.create_connection((sys.argv[1], int(sys.argv[2])), 10)
peer.settimeout(20)
for _ in range(int(sys.argv[3])):
    peer.sendall(piece); digest.update(piece)
peer.close()
print(int(sys.argv[3]) << 20, digest.hexdigest())
"""
SEND_DATAGRAMS = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
udp = socket.socket(family, socket.SOCK_DGRAM)
udp.setsockopt(socket.IPPROTO_UDP, 103, 1000)  # UDP_SEGMENT
for number in range(10):
    udp.sendto(bytes([number]) * 10_000, (sys.argv[1], int(sys.argv[2])))
"""


@pytest.fixture
def ends() -> Iterator[Ends]:
    with Ends(2) as made:
        for number in (1, 2):
            end, other = made.end(number), 3 - number
            sh(f"ip netns exec {end} sysctl -qw net.ipv6.conf.eth0.disable_ipv6=0")
            sh(f"ip -n {end} addr add fd00::{number}/64 dev eth0 nodad")
            for address in (f"10.0.0.{other}", "10.0.0.99", f"fd00::{other}", "fd00::99"):
                sh(f"ip -n {end} neigh replace {address} lladdr 02:00:00:00:00:{other:02x} dev eth0")
            _no_offloads(made.name, f"p{number}")
        yield made


def _no_offloads(netns: str, name: str) -> None:
    value = array.array(
        "B", struct.pack("II", ETHTOOL_STXCSUM, 0)
    )  # without it the kernel does no TSO either
    request = struct.pack("16sP", name.encode(), value.buffer_info()[0])
    with inside(netns), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, SIOCETHTOOL, request)


def _transfer(ends: Ends, family: int, sought: str, port: int) -> None:
    """Send data from end 1 to end 2; it arrives, in super packets as far as the switch's port."""
    receiver = script(ends.end(2), RECEIVE, SERVER[family])
    try:
        assert receiver.stdout is not None
        assert receiver.stdout.readline() == "ready\n"
        sent, _ = script(ends.end(1), SEND, sought, str(port), str(MEBIBYTES)).communicate(timeout=60)
        assert sent and receiver.stdout.readline() == sent
    finally:
        receiver.kill()
        receiver.communicate()
    counted = ends.datapath.port_counters()[2].tx
    assert counted.bytes > MEBIBYTES << 20
    assert counted.bytes / counted.packets > 4 * 1500, "the packets were cut on the way"
    assert [_wrong_checksums(ends.end(number)) for number in (1, 2)] == [0, 0]


def _wrong_checksums(end: str) -> int:
    with inside(end), open("/proc/thread-self/net/snmp") as table:
        names, values = [line.split() for line in table if line.startswith("Tcp:")]
    return int(values[names.index("InCsumErrors")])


def _tracked_with_a_tag(family: int) -> list[Flow]:
    tag = (PushVlan(), SetField("vlan_vid", VLAN_PRESENT | 9))
    eth_type, flows = {4: ETH_IPV4, 6: ETH_IPV6}[family], list[Flow]()
    for a, b in ((1, 2), (2, 1)):
        flows.append(does(*tag, Conntrack(zone=9, table=1), in_port=a, eth_type=eth_type))
        wanted = match(in_port=a, ct_state=(CtState.TRK, CtState.TRK | CtState.INV))
        flows.append(
            Flow(1, 10, wanted, Instructions((Conntrack(zone=9, commit=True), PopVlan(), Output(b))))
        )
    return flows


def _rewritten(family: int, proto: int = TCP) -> list[Flow]:
    """Addresses and ports written by Set-Field, both ways."""
    eth_type, name = {4: ETH_IPV4, 6: ETH_IPV6}[family], {TCP: "tcp", UDP: "udp"}[proto]
    server, service = (int(ip_address(one[family])) for one in (SERVER, SERVICE))
    there: tuple[Action, ...] = (
        SetField(f"ipv{family}_dst", server),
        SetField(f"{name}_dst", 5001),
        SetField("eth_src", MAC + 0x10),
        SetField("ip_dscp", 10),
    )
    back: tuple[Action, ...] = (SetField(f"ipv{family}_src", service), SetField(f"{name}_src", 80))
    return [
        does(*there, Output(2), in_port=1, eth_type=eth_type, ip_proto=proto),
        does(*back, Output(1), in_port=2, eth_type=eth_type, ip_proto=proto),
    ]


def _translated(family: int) -> list[Flow]:
    """The same by the connection tracker."""
    eth_type = {4: ETH_IPV4, 6: ETH_IPV6}[family]
    server = int(ip_address(SERVER[family]))
    nat = Nat(False, family, (server, server), (5001, 5001))
    commit = (Conntrack(zone=5, commit=True, nat=nat), Output(2))
    return [
        does(Conntrack(zone=5, table=1, nat=Nat()), eth_type=eth_type),
        Flow(1, 10, match(ct_state=(CtState.NEW, CtState.NEW), in_port=1), Instructions(commit)),
        Flow(1, 9, match(in_port=1), Instructions((Output(2),))),
        Flow(1, 9, match(in_port=2), Instructions((Output(1),))),
    ]


@pytest.mark.parametrize("family", [4, 6])
def test_super_packets_pass_whole_through_tag_and_tracker(ends: Ends, family: int) -> None:
    ends.put(*_tracked_with_a_tag(family))
    _transfer(ends, family, SERVER[family], 5001)


@pytest.mark.parametrize("rules", [_rewritten, _translated])
@pytest.mark.parametrize("family", [4, 6])
def test_what_is_written_into_super_packets_keeps_their_checksums_right(
    ends: Ends, family: int, rules: type
) -> None:
    ends.put(*rules(family))
    _transfer(ends, family, SERVICE[family], 80)


@pytest.mark.parametrize("family", [4, 6])
def test_what_is_written_into_segmented_datagrams_keeps_their_checksums_right(
    ends: Ends, family: int
) -> None:
    ends.put(*_rewritten(family, UDP))
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    with inside(ends.end(2)):
        server = socket.socket(kind, socket.SOCK_DGRAM)
    with server:
        server.bind((SERVER[family], 5001))
        server.settimeout(10)
        assert script(ends.end(1), SEND_DATAGRAMS, SERVICE[family], "80").wait(20) == 0
        for number in range(10):
            for _ in range(10):
                assert server.recv(2000) == bytes([number]) * 1000
    counted = ends.datapath.port_counters()[2].tx
    assert counted.packets == 10, "each is ten datagrams in one packet"
