"""Both switches behind one interface: Open vSwitch in user space and the eBPF switch of this project.

    with Lab("ovs") as lab:
        one, two = lab.hosts(2)
        one.configure("10.1.1.1/24")
        lab.flows("in_port=1,actions=2", "in_port=2,actions=1")

Both get their flows by `ovs-ofctl -O OpenFlow13` over a unix socket, in its syntax. Hosts 1…5 are at the
ports 1…5 of the bridge. `lab.chain()` adds two more bridges: port 11 of the first leads to port 1 of
the second and port 12 to port 1 of the third; each of these has a host (6 and 7) at its port 2.

A lab is made once and reset before each title.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import itertools
import os
import re
import socket
import struct
import subprocess
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.exams.conntrack.hosts import ANSWER_S, COMMAND_TIMEOUT_S, Host, run, until
from tests.ovs.harness import OpenVSwitch
from vnet.switch import abi
from vnet.switch.abi import Point
from vnet.switch.events import packet_in
from vnet.switch.live.bpf import Map
from vnet.switch.live.datapath import EbpfDatapath
from vnet.switch.live.server import SwitchServer

HOSTS = 5
BPFFS = Path("/sys/fs/bpf")
PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6", 132: "sctp"}

ECHO_TYPES = {1: (8, 0), 58: (128, 129)}
"""Of the two sides of an echo: who asks, who answers."""
ECHO_PEER = 0x0800
"""What stands for the port of the side that answers (bpf/abi.h, struct vnet_ct_key)."""

TCP_STATES = {1: "SYN_SENT", 2: "SYN_RECV", 3: "ESTABLISHED", 4: "FIN_WAIT", 5: "TIME_WAIT", 6: "CLOSED"}
"""VNET_TCP_* of vnet/switch/bpf/abi.h."""

_serial = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection as either switch knows it.

    `orig` and `reply` are (source, destination, source port, destination port); of ICMP the ports are
    the identifier and the type.
    """

    protocol: str
    orig: tuple[str, str, int, int]
    reply: tuple[str, str, int, int]
    zone: int = 0
    mark: int = 0
    label: int = 0
    state: str = ""

    def __str__(self) -> str:
        """Without ports and state, for comparison: `tcp 10.1.1.1>10.1.1.2 10.1.1.2>10.1.1.1 zone=1`."""
        extra = [
            f"{name}={value:#x}" if name == "label" else f"{name}={value}"
            for name, value in (("zone", self.zone), ("mark", self.mark), ("label", self.label))
            if value
        ]
        return " ".join([self.protocol, _arrow(self.orig), _arrow(self.reply), *extra])

    @property
    def exactly(self) -> str:
        """With ports."""
        return f"{self} {self.orig[2]}>{self.orig[3]} {self.reply[2]}>{self.reply[3]}"


def _arrow(way: tuple[str, str, int, int]) -> str:
    return f"{way[0]}>{way[1]}"


class Switch(ABC):
    """What differs between the two."""

    netns: str

    @abstractmethod
    def start(self) -> None:
        """Make the switch and its namespace."""

    @abstractmethod
    def open_bridge(self, bridge: int, ports: Mapping[int, str]) -> None:
        """Make a bridge with ports, or add ports to one that is there."""

    @abstractmethod
    def socket(self, bridge: int) -> Path:
        """Where a bridge listens."""

    @abstractmethod
    def settle(self) -> None:
        """On return packets are decided by the flows as they are, and counters are up to date."""

    @abstractmethod
    def connections(self) -> list[Connection]:
        """The connection table."""

    @abstractmethod
    def flush(self, wanted: Callable[[Connection], bool] | None) -> None:
        """Forget connections: those that are wanted, or all."""

    @abstractmethod
    def forget_macs(self) -> None:
        """Forget what NORMAL has learned."""

    @abstractmethod
    def close(self) -> None:
        """Leave nothing behind."""


class OvsSwitch(Switch):
    """Open vSwitch in user space, in a namespace of its own."""

    def __init__(self) -> None:
        self._ovs = OpenVSwitch()
        self.netns = self._ovs.namespace
        self._bridges: set[int] = set()

    def start(self) -> None:
        self._ovs.__enter__()
        # Both tags of a frame with two are to be matched; the default is one.
        self._ovs.vsctl("set", "Open_vSwitch", ".", "other_config:vlan-limit=0")

    def open_bridge(self, bridge: int, ports: Mapping[int, str]) -> None:
        if bridge and bridge not in self._bridges:
            self._ovs.vsctl(
                *f"add-br br{bridge} -- set bridge br{bridge} datapath_type=dummy protocols=OpenFlow13 \
                fail_mode=secure other-config:datapath-id={bridge + 1:016x}".split()
            )
        self._bridges.add(bridge)
        for number, name in ports.items():
            self._ovs.vsctl(
                *f"add-port br{bridge} {name} -- set interface {name} ofport_request={number}".split()
            )

    def socket(self, bridge: int) -> Path:
        return self._ovs.directory / f"br{bridge}.mgmt"

    def settle(self) -> None:
        self._ovs.appctl("revalidator/purge")

    def connections(self) -> list[Connection]:
        return [_parse_connection(line) for line in self._ovs.connections() if line]

    def flush(self, wanted: Callable[[Connection], bool] | None) -> None:
        """One by one: 3.1 has no flush by fewer fields for all kinds, and crashes on a tuple of IPv6."""
        if wanted is None:
            self._ovs.appctl("dpctl/flush-conntrack")
            return
        every = self.connections()
        for found in filter(wanted, every):
            zone = f"zone={found.zone}"
            if ":" in found.orig[0]:
                assert all(wanted(other) for other in every if other.zone == found.zone), "zone is shared"
                self._ovs.appctl("dpctl/flush-conntrack", zone)
            else:
                self._ovs.appctl("dpctl/flush-conntrack", zone, _tuple(found))

    def forget_macs(self) -> None:
        self._ovs.appctl("fdb/flush")

    def appctl(self, command: str, *arguments: str) -> str:
        """For what only this switch has."""
        return self._ovs.appctl(command, *arguments)

    def close(self) -> None:
        self._ovs.close()


def _tuple(found: Connection) -> str:
    """The original direction in the words of `dpctl/flush-conntrack`."""
    source, destination, first, second = found.orig
    number = next(number for number, name in PROTOCOLS.items() if name == found.protocol)
    ports = (
        f"icmp_id={first},icmp_type={second},icmp_code=0"
        if number == 1
        else f"ct_tp_src={first},ct_tp_dst={second}"
    )
    return f"ct_nw_src={source},ct_nw_dst={destination},ct_nw_proto={number},{ports}"


_WAY = re.compile(r"\(src=([^,]+),dst=([^,]+),(?:sport=(\d+),dport=(\d+)|id=(\d+),type=(\d+),code=\d+)\)")


def _parse_connection(line: str) -> Connection:
    """A line of `dpctl/dump-conntrack`."""
    orig, reply = (
        (str(ipaddress.ip_address(src)), str(ipaddress.ip_address(dst)), int(a or i), int(b or t))
        for src, dst, a, b, i, t in _WAY.findall(line)[:2]
    )

    def number(name: str) -> int:
        found = re.search(rf",{name}=(\w+)", line)
        return int(found[1], 0) if found else 0

    state = re.search(r"state=(\w+)", line)
    return Connection(
        line.split(",")[0],
        orig,
        reply,
        number("zone"),
        number("mark"),
        number("labels"),
        state[1] if state else "",
    )


class VnetSwitch(Switch):
    """The eBPF switch with its OpenFlow server, in this process."""

    def __init__(self) -> None:
        self.netns = f"vnt-ctx{os.getpid()}-{next(_serial)}"
        self._folder = tempfile.TemporaryDirectory(prefix="vnet-ctexam-")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._datapaths: dict[int, EbpfDatapath] = {}
        self._servers: dict[int, SwitchServer] = {}

    def start(self) -> None:
        self._thread.start()
        run("ip", "netns", "add", self.netns)

    def open_bridge(self, bridge: int, ports: Mapping[int, str]) -> None:
        if bridge not in self._datapaths:
            self._datapaths[bridge] = EbpfDatapath.open(f"br{bridge}", self.netns, self._pins(bridge))
            self._servers[bridge] = SwitchServer(self._datapaths[bridge], f"br{bridge}", bridge + 1)
            self._call(self._servers[bridge].start(self.socket(bridge)))
            self._loop.call_soon_threadsafe(
                self._loop.add_reader, self._datapaths[bridge].event_fd, self._read_events, bridge
            )
        server, datapath = self._servers[bridge], self._datapaths[bridge]
        for number, name in ports.items():
            self._call(server.run(datapath.attach, number, name))
        self._loop.call_soon_threadsafe(server.port_changed)

    def _pins(self, bridge: int) -> Path:
        return BPFFS / f"{self.netns}-{bridge}"

    def _call(self, work: Coroutine[Any, Any, object]) -> object:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(COMMAND_TIMEOUT_S)

    def _read_events(self, bridge: int) -> None:
        for event in self._datapaths[bridge].read_events():
            if event.point is Point.CONTROLLER:
                self._servers[bridge].packet_in(packet_in(event))

    def socket(self, bridge: int) -> Path:
        return Path(self._folder.name) / f"br{bridge}.sock"

    def settle(self) -> None:
        """Nothing is cached beyond a commit, and counters are exact."""

    def connections(self) -> list[Connection]:
        return [
            connection
            for datapath in self._datapaths.values()
            for _, _, connection in _connections(datapath._map)
        ]

    def flush(self, wanted: Callable[[Connection], bool] | None) -> None:
        for datapath in self._datapaths.values():
            if wanted is None:
                datapath.flush_connections()
            else:
                forget(datapath._map, wanted)

    def forget_macs(self) -> None:
        for datapath in self._datapaths.values():
            datapath.flush_addresses()

    def close(self) -> None:
        for bridge, server in self._servers.items():
            self._loop.call_soon_threadsafe(self._loop.remove_reader, self._datapaths[bridge].event_fd)
            self._call(server.stop())
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
        self._loop.close()
        for datapath in self._datapaths.values():
            datapath.destroy()
        subprocess.run(["ip", "netns", "del", self.netns], capture_output=True, timeout=20, check=False)
        self._folder.cleanup()


def _connections(maps: Mapping[str, Map]) -> Iterator[tuple[bytes, int, Connection]]:
    """(key, slot, connection) of what the tracker of the eBPF switch holds."""
    for key in list(maps["conn_index"].keys()):
        value = maps["conn_index"].lookup(key)
        if value is None:
            continue
        slot = struct.unpack_from("<I", value)[0]
        raw = maps["conns"].index(slot)
        conn = abi.Conn.from_buffer_copy(raw or b"")
        if bytes(conn.key[0]) == key:  # the entry of the original direction
            yield key, slot, _connection(conn)


def _connection(conn: abi.Conn) -> Connection:
    key = conn.key[0]
    return Connection(
        PROTOCOLS.get(key.proto, str(key.proto)),
        _way(key),
        _way(conn.key[1]),
        key.zone,
        conn.mark,
        conn.label[0] << 64 | conn.label[1],
        TCP_STATES.get(conn.tcp_state, ""),
    )


def _way(key: abi.CtKey) -> tuple[str, str, int, int]:
    source, destination = (
        ipaddress.IPv6Address(words[0] << 64 | words[1])
        if key.family == 6
        else ipaddress.IPv4Address(words[1] & 0xFFFFFFFF)
        for words in (key.src, key.dst)
    )
    if key.proto in ECHO_TYPES:
        asks, answers = ECHO_TYPES[key.proto]
        identifier, kind = (key.dport, answers) if key.sport == ECHO_PEER else (key.sport, asks)
        return str(source), str(destination), identifier, kind
    return str(source), str(destination), key.sport, key.dport


def forget(maps: Mapping[str, Map], wanted: Callable[[Connection], bool]) -> None:
    """Take connections out of the tracker of the eBPF switch."""
    gone = {slot for _, slot, connection in _connections(maps) if wanted(connection)}
    for key in list(maps["conn_index"].keys()):
        value = maps["conn_index"].lookup(key)
        if value is not None and struct.unpack_from("<I", value)[0] in gone:
            maps["conn_index"].delete(key)
    for slot in gone:
        generation = abi.Conn.from_buffer_copy(maps["conns"].index(slot) or b"").gen
        maps["conns"].set(slot, bytes(abi.Conn(gen=(generation | 1) + 1)))


KINDS: dict[str, Callable[[], Switch]] = {"ovs": OvsSwitch, "vnet": VnetSwitch}


class Lab:
    """One switch with hosts; everything is gone when the context ends."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.switch = KINDS[kind]()
        self._hosts: dict[int, Host] = {}
        self._bridges: list[int] = []
        self._folder = tempfile.TemporaryDirectory(prefix="vnet-ctexam-")

    def __enter__(self) -> Self:
        try:
            self.switch.start()
            run("ip", "netns", "exec", self.switch.netns, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1",
                "net.ipv6.conf.default.disable_ipv6=1")  # fmt: skip
            self._open(0, {number: number for number in range(1, HOSTS + 1)})
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        for host in self._hosts.values():
            host.reset()
        self.switch.close()
        for host in self._hosts.values():
            run("ip", "netns", "del", host.netns)
        self._hosts.clear()
        self._folder.cleanup()

    # -- wiring -----------------------------------------------------------------------------------

    def _open(self, bridge: int, hosts: Mapping[int, int], trunks: Mapping[int, str] | None = None) -> None:
        """Open a bridge; `hosts` are the hosts' numbers by port."""
        ports = {port: self._new_host(number) for port, number in hosts.items()}
        self.switch.open_bridge(bridge, {**ports, **(trunks or {})})
        self._bridges.append(bridge)

    def _new_host(self, number: int) -> str:
        host = Host(f"{self.switch.netns}-{number}", number)
        device = f"p{number}"
        run("ip", "netns", "add", host.netns)
        self._hosts[number] = host
        # No chatter: addresses come by hand, and nothing is sent before a title sends it.
        run("ip", "netns", "exec", host.netns, "sysctl", "-qw", "net.ipv6.conf.default.addr_gen_mode=1",
            "net.ipv6.conf.default.accept_dad=0", "net.ipv6.conf.default.router_solicitations=0",
            "net.ipv6.conf.default.accept_ra=0", "net.ipv4.tcp_syn_retries=2",
            "net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0")  # fmt: skip
        run(
            "ip", "-n", self.switch.netns, "link", "add", device, "type", "veth",
            "peer", "name", "eth0", "netns", host.netns,
        )  # fmt: skip
        run("ip", "-n", self.switch.netns, "link", "set", device, "up")
        run("ip", "-n", host.netns, "-batch", "-",
            stdin=f"link set eth0 address {host.mac} up\nlink set lo up\n")  # fmt: skip
        if self.kind == "ovs":
            host.checksum_in_software()
        return device

    def hosts(self, count: int) -> list[Host]:
        """The hosts at the first ports."""
        return [self._hosts[number] for number in range(1, count + 1)]

    def chain(self) -> tuple[Host, Host]:
        """Make the second and third bridge; the hosts there."""
        if len(self._bridges) == 1:
            for bridge in (1, 2):
                here, there = f"t{bridge}", f"u{bridge}"
                run("ip", "-n", self.switch.netns, "link", "add", here, "type", "veth", "peer", "name", there)
                for name in (here, there):
                    run("ip", "-n", self.switch.netns, "link", "set", name, "up")
                self.switch.open_bridge(0, {10 + bridge: here})
                self._open(bridge, {2: 5 + bridge}, {1: there})
        return self._hosts[6], self._hosts[7]

    # -- control ----------------------------------------------------------------------------------

    def reset(self) -> None:
        """As if it had just been made."""
        for bridge in self._bridges:
            self.ofctl("del-flows", bridge=bridge)
            self.ofctl("del-groups", bridge=bridge)
        for host in self._hosts.values():
            host.reset()
        self.switch.settle()
        self.switch.forget_macs()
        self.flush()

    def ofctl(self, command: str, *arguments: str, stdin: str = "", bridge: int = 0) -> str:
        """Run ovs-ofctl on a bridge."""
        options = ("-O", "OpenFlow13", f"--timeout={COMMAND_TIMEOUT_S}")
        target = f"unix:{self.switch.socket(bridge)}"
        return run("ovs-ofctl", *options, command, target, *arguments, stdin=stdin)

    def flows(self, *lines: str, bridge: int = 0) -> None:
        """Add flows all at once; on return packets are decided by them. A line may hold several."""
        text = "\n".join(line for lines_ in lines for line in lines_.splitlines() if line.strip())
        self.ofctl("add-flows", "-", "--bundle", stdin=text + "\n", bridge=bridge)
        self.switch.settle()

    def change(self, line: str) -> None:
        """Give a flow other actions."""
        self.ofctl("mod-flows", line)
        self.switch.settle()

    def groups(self, *lines: str) -> None:
        """Add groups."""
        for line in lines:
            self.ofctl("add-group", line)

    def packet_out(self, in_port: int, actions: str, frame: bytes) -> None:
        """Have the controller send a frame as if it had come in by a port."""
        self.ofctl("packet-out", f"in_port={in_port} packet={frame.hex()} actions={actions}")

    def counted(self, which: str, bridge: int = 0) -> int:
        """Packets of the one flow that the words of `ovs-ofctl dump-flows` choose."""
        self.switch.settle()
        text = self.ofctl("dump-flows", which, bridge=bridge)
        found = [int(n) for n in re.findall(r"n_packets=(\d+)", text)]
        assert len(found) == 1, f"{which}: {text}"
        return found[0]

    def await_counted(self, which: str, packets: int) -> None:
        """Wait until a flow has counted this many packets."""
        until(lambda: self.counted(which) >= packets, f"{packets} packets of {which}")
        assert self.counted(which) == packets, which

    @contextlib.contextmanager
    def controller(self) -> Iterator[PacketIns]:
        """Be a controller that gets packet-ins."""
        name = next(_serial)
        out, control = (Path(self._folder.name) / f"{kind}{name}" for kind in ("monitor", "ctl"))
        with out.open("w") as file:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "ovs-ofctl", "-O", "OpenFlow13", f"--unixctl={control}",
                 "monitor", f"unix:{self.switch.socket(0)}", "65534"],
                stdout=file, stderr=file, stdin=subprocess.DEVNULL,
            )  # fmt: skip
            try:
                until(lambda: _answers(control), "the monitor listens", COMMAND_TIMEOUT_S)
                yield PacketIns(out)
            finally:
                process.terminate()
                process.wait(10)

    # -- connections ------------------------------------------------------------------------------

    def connections(self, address: str = "", zone: int | None = None) -> list[Connection]:
        """Connections with an address in either direction."""
        return [
            found
            for found in self.switch.connections()
            if (not address or address in (*found.orig[:2], *found.reply[:2]))
            and (zone is None or found.zone == zone)
        ]

    def shown(self, address: str = "", zone: int | None = None) -> list[str]:
        """The same as texts without ports, each once, sorted."""
        return sorted({str(found) for found in self.connections(address, zone)})

    def exactly(self, address: str = "", zone: int | None = None) -> list[str]:
        """The same as texts with ports, sorted."""
        return sorted(found.exactly for found in self.connections(address, zone))

    def await_shown(self, *wanted: str, address: str = "", zone: int | None = None) -> None:
        """Wait until exactly these connections are there (packets may still be on their way)."""
        with contextlib.suppress(AssertionError):
            until(lambda: self.shown(address, zone) == sorted(wanted), "connections", ANSWER_S / 3)
        assert self.shown(address, zone) == sorted(wanted)

    def flush(self, zone: int | None = None, **fields: str | int) -> None:
        """Forget connections: all, or those whose original direction has these fields (`ct_nw_src`, …)."""
        if zone is None and not fields:
            self.switch.flush(None)
            return

        def is_wanted(connection: Connection) -> bool:
            known: dict[str, str | int] = {
                "ct_nw_src": connection.orig[0],
                "ct_ipv6_src": connection.orig[0],
                "ct_nw_dst": connection.orig[1],
                "ct_ipv6_dst": connection.orig[1],
                "ct_nw_proto": next(
                    (n for n, name in PROTOCOLS.items() if name == connection.protocol), connection.protocol
                ),
                "ct_tp_src": connection.orig[2],
                "ct_tp_dst": connection.orig[3],
                "icmp_id": connection.orig[2],
                "icmp_type": connection.orig[3],
            }
            same_zone = zone is None or zone == connection.zone
            return same_zone and all(known[name] == value for name, value in fields.items() if name in known)

        self.switch.flush(is_wanted)


class PacketIns:
    """What came to the controller, as `ovs-ofctl monitor` prints it: two lines for each packet."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> list[str]:
        """The packet-ins so far, each as one text."""
        text = self._path.read_text()
        return [
            part.strip()
            for part in re.split(r"^(?=\w+PACKET_IN\d? )", text, flags=re.MULTILINE)
            if "PACKET_IN" in part
        ]

    def wait(self, count: int) -> list[str]:
        """Wait for so many, and see that there are not more."""
        with contextlib.suppress(AssertionError):
            until(lambda: len(self.read()) >= count, f"{count} packet-ins")
        packets = self.read()
        assert len(packets) == count, packets
        return packets


def ct_state(packet_in: str) -> set[str]:
    """The ct_state that a packet-in tells."""
    found = re.search(r"ct_state=([\w|]+)", packet_in)
    return set(found[1].split("|")) if found else set()


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0
