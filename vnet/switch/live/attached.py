"""The switch's ports: which interface each is, what the dataplane is told of it, and what it counts.

The maps hold it all, so an agent that starts anew finds its ports there. A port is one when
`port_by_ifindex` says so, which is written last and deleted first: what an agent leaves that is killed in
between is a link without a port.
"""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
from collections.abc import Container, Mapping
from dataclasses import fields

from vnet.base.errors import HostError
from vnet.base.limits import Limits
from vnet.base.line import Line
from vnet.openflow.message import PortConfig
from vnet.switch import abi
from vnet.switch.abi import PortFlag
from vnet.switch.datapath import Counter, PortCounter, SwitchPort
from vnet.switch.live import attach, lines, nic
from vnet.switch.live.lines import Lines
from vnet.switch.live.maps import PinnedSwitch
from vnet.switch.live.netns import inside
from vnet.switch.live.tidy import Tidier

_NO_STORMS = {"broadcast_pps": 0, "multicast_pps": 0, "unknown_unicast_pps": 0}
_GUEST = {"conn_quota": 16384, "mac_quota": 4096, "refusal_quota": 512} | _NO_STORMS
"""Of a port that is not limited otherwise. 512 refusals in 134 ms, about 3,800 a second, take less than 1 %
of two processors."""
_UPLINK = {"conn_quota": abi.CONNS, "mac_quota": abi.MACS, "refusal_quota": 0} | _NO_STORMS
LINK_UP = 0x10001
"""IFF_UP and IFF_LOWER_UP (linux/if.h): switched on, and a TAP is being read, a veth's peer is up. The
operational state tells the same up to a second later."""

_GET_FLAGS, _GET_MTU, _GET_HARDWARE = 0x8913, 0x8921, 0x8927
"""SIOCGIFFLAGS, SIOCGIFMTU, SIOCGIFHWADDR (linux/sockios.h)."""
_ETHERNET = 1
"""ARPHRD_ETHER (linux/if_arp.h)."""
_RUNNING = 0x41
"""IFF_UP and IFF_RUNNING."""

_QUOTA_OF = {each.name: each.name for each in fields(Limits)} | {
    "connections": "conn_quota",
    "macs": "mac_quota",
}
"""The member of a port that holds each limit."""
_CONFIGURED = PortFlag.NO_RECV | PortFlag.NO_FWD | PortFlag.NO_PACKET_IN
_FLAG_OF = {
    PortConfig.NO_RECV: PortFlag.NO_RECV,
    PortConfig.NO_FWD: PortFlag.NO_FWD,
    PortConfig.NO_PACKET_IN: PortFlag.NO_PACKET_IN,
}


class AttachedPorts:
    """The ports of one switch in its network namespace. What depends on which there are is the caller's."""

    def __init__(self, pinned: PinnedSwitch, netns: str | None, tidier: Tidier) -> None:
        self._pinned, self._netns, self._tidier = pinned, netns, tidier
        self._map = pinned.map
        self._lines = Lines(pinned)
        pairs = ((_number(key), _number(value)) for key, value in self._map["port_by_ifindex"].items())
        own = sorted((n, ifindex) for ifindex, n in pairs if self._port(n).ifindex == ifindex)
        self.ifindexes = dict(own)
        """Interface index by port number. Where a line ends is no port."""
        self._sweep_leftovers()

    def _sweep_leftovers(self) -> None:
        """Cut the links of ports that an agent was making or removing when it was killed."""
        for pin in self._pinned.links.iterdir():
            number, is_line = int(pin.name.removesuffix(attach.LINE)), pin.name.endswith(attach.LINE)
            if number not in self.ifindexes:
                if not is_line:
                    self._tell(number, abi.Port())
                attach.unlink(pin)

    @property
    def numbers(self) -> tuple[int, ...]:
        """The ports there are, in order."""
        return tuple(sorted(self.ifindexes))

    def _port(self, number: int) -> abi.Port:
        return abi.Port.from_buffer_copy(self._map["ports"].index(number) or b"")

    def _tell(self, number: int, port: abi.Port) -> None:
        self._map["ports"].set(number, bytes(port))

    def check(self, number: int, ifname: str) -> None:
        """Raise HostError if an interface cannot be this port, and change nothing."""
        _refuse_number(number)
        with inside(self._netns):
            ifindex = _ifindex(ifname)
            if ifindex not in self.ifindexes.values():
                attach.refuse_taken(ifindex)

    def attach(self, number: int, ifname: str, uplink: bool = False) -> None:
        """Make an interface the port `number`; one that already is stays untouched. Raises HostError.

        Args:
            uplink: whether many hosts are behind it, whom no quota is to make pay for one another.
        """
        _refuse_number(number)
        with inside(self._netns):
            ifindex = _ifindex(ifname)
            for other, index in tuple(self.ifindexes.items()):
                if (other == number) != (index == ifindex):  # either has become another since
                    self.detach(other)
            try:
                self._open(number, ifindex, _UPLINK if uplink else _GUEST)
            except HostError:
                self._close(number, ifindex)
                self.ifindexes.pop(number, None)
                raise
        self.ifindexes[number] = ifindex

    def _open(self, number: int, ifindex: int, quotas: Mapping[str, int]) -> None:
        port = self._port(number)
        if port.ifindex != ifindex:
            up, mtu = _link(ifindex)
            flags = PortFlag.UP | PortFlag.LIVE if up else PortFlag.UP
            port = abi.Port(ifindex, flags, mtu=mtu)
            for name, quota in quotas.items():
                setattr(port, name, quota)
        self._tell(number, port)
        if ifindex < abi.LOW_IFINDEX:
            self._map["port_of"].set(ifindex, struct.pack("<I", number))
        attach.attach(self._pinned.program, ifindex, self._pinned.links / str(number))
        self._map["port_by_ifindex"].update(struct.pack("<I", ifindex), struct.pack("<I", number))

    def _close(self, number: int, ifindex: int) -> None:
        self._map["port_by_ifindex"].delete(struct.pack("<I", ifindex))
        self._tell(number, abi.Port())
        if ifindex < abi.LOW_IFINDEX:
            self._map["port_of"].set(ifindex, struct.pack("<I", 0))

    def hear_all(self, number: int) -> None:
        """Have a port's interface take frames for all MACs as long as it is one, and as they came, for good.

        What hosts behind the other ports are sent is not for the interface's own MAC. Raises HostError.
        """
        with inside(self._netns):
            name = _ifname(self.ifindexes[number])
            nic.switch_lro(name, on=False)
            if nic.flags(name) & nic.PROMISCUOUS:
                return
            port = self._port(number)
            port.flags = PortFlag(port.flags) | PortFlag.PROMISCUOUS
            self._tell(number, port)
            nic.set_flags(name, nic.PROMISCUOUS, nic.PROMISCUOUS)

    def _hear_its_own(self, number: int, ifindex: int) -> None:
        """Undo `hear_all`, unless the interface is gone or was so before."""
        if self._port(number).flags & PortFlag.PROMISCUOUS:
            with contextlib.suppress(HostError):
                nic.set_flags(_ifname(ifindex), 0, nic.PROMISCUOUS)

    def detach(self, number: int) -> None:
        """Close a port: its interface is left without a program, what was learnt from it is forgotten."""
        ifindex = self.ifindexes.pop(number, None)
        if ifindex is None:
            return
        with inside(self._netns):
            self._hear_its_own(number, ifindex)
        self._close(number, ifindex)
        with inside(self._netns):
            attach.detach(ifindex, self._pinned.links / str(number))
            self._lines.remove(number)
        self._map["port_counters"].set(number, bytes(self._map["port_counters"].value_size))
        self._tidier.forget_port(number)

    def detach_programs(self) -> None:
        """Leave the interfaces without a program; the maps are not touched any more."""
        with inside(self._netns):
            for number, ifindex in self.ifindexes.items():
                self._hear_its_own(number, ifindex)
                attach.detach(ifindex, self._pinned.links / str(number))

    def look(self) -> tuple[tuple[SwitchPort, ...], bool]:
        """The ports as they are now, and whether any link came or went.

        One whose interface is gone is down, and so is one that does not run the program any more. From an
        interface that is in another namespace now the program is taken off: it would go on there, and send
        by that namespace's interfaces.
        """
        from pyroute2 import IPRoute  # slow to import, and not everybody looks

        with inside(self._netns), IPRoute() as route:
            links = {link["index"]: link for link in route.get_links()}
            held = {number for number in self.numbers if self._holds(number, links)}
        found, changed = [], False
        for number in self.numbers:
            link = links.get(self.ifindexes[number])
            up = link is not None and link["flags"] & LINK_UP == LINK_UP and number in held
            changed |= self._note_link(number, up, link.get("mtu") or 0 if link is not None else 0)
            config = self._config(number)
            if link is None:
                found.append(SwitchPort(number, f"gone{number}", 0, False, config))
                continue
            mac = int((link.get("address") or "0").replace(":", ""), 16)
            alive = up and not config & PortConfig.PORT_DOWN
            found.append(SwitchPort(number, link.get("ifname"), mac, alive, config))
        return tuple(found), changed

    def _holds(self, number: int, links: Container[int]) -> bool:
        """Whether the program is at a port's interface, which is not so if that is not here."""
        ifindex, pin = self.ifindexes[number], self._pinned.links / str(number)
        if ifindex in links:
            return attach.holds(ifindex, pin)
        if pin.exists():
            attach.unlink(pin)
        return False

    def bare(self) -> frozenset[int]:
        """The ports without the program: somebody has taken it off, or their interface is gone."""
        with inside(self._netns):
            return frozenset(
                number for number, ifindex in self.ifindexes.items() if not attach.is_attached(ifindex)
            )

    def _note_link(self, number: int, up: bool, mtu: int) -> bool:
        """Tell the dataplane of a port's link; whether it has come or gone."""
        port = self._port(number)
        was_up = bool(port.flags & PortFlag.LIVE)
        if was_up == up and port.mtu == mtu:
            return False
        port.flags = PortFlag(port.flags) | PortFlag.LIVE if up else PortFlag(port.flags) & ~PortFlag.LIVE
        port.mtu = mtu
        self._tell(number, port)
        if was_up and not up:
            self._tidier.forget_addresses(number)
        return was_up != up

    def _config(self, number: int) -> PortConfig:
        """OFPPC_* of a port, as its flags say."""
        flags = self._port(number).flags
        config = PortConfig(0) if flags & PortFlag.UP else PortConfig.PORT_DOWN
        for bit, flag in _FLAG_OF.items():
            config |= bit if flags & flag else PortConfig(0)
        return config

    def configure(self, number: int, config: PortConfig) -> None:
        """Tell the dataplane OFPPC_* of a port. Raises HostError if there is none."""
        if number not in self.ifindexes:
            raise HostError(f"no port {number} to configure")
        port = self._port(number)
        flags = PortFlag(port.flags) & ~(PortFlag.UP | _CONFIGURED)
        flags |= PortFlag(0) if config & PortConfig.PORT_DOWN else PortFlag.UP
        for bit, flag in _FLAG_OF.items():
            flags |= flag if config & bit else PortFlag(0)
        port.flags = flags
        self._tell(number, port)
        if config & PortConfig.PORT_DOWN:
            self._tidier.forget_addresses(number)

    def limit(self, number: int, limits: Limits) -> None:
        """Let a port use so much of the switch from now on. Raises HostError if there is none."""
        if number not in self.ifindexes:
            raise HostError(f"no port {number} to limit")
        port = self._port(number)
        for limit, quota in _QUOTA_OF.items():
            setattr(port, quota, getattr(limits, limit))
        self._tell(number, port)

    def lay(self, number: int, line: Line) -> None:
        """Join a port to what stands behind it by such a line. Raises HostError if there is none."""
        if number not in self.ifindexes:
            raise HostError(f"no port {number} to give a rate")

        def flag(flags: PortFlag) -> None:
            port = self._port(number)
            port.flags = PortFlag(port.flags) & ~lines.FLAGS | flags
            self._tell(number, port)

        with inside(self._netns):
            self._lines.put(number, self.ifindexes[number], line, flag)

    def lines(self) -> Mapping[int, Line]:
        """By port number: those that the kernel has."""
        with inside(self._netns):
            return self._lines.all(self.ifindexes)

    def entry(self, number: int) -> int:
        """The interface by which packets of a port come in that its line has let through."""
        return self._lines.end(number) or self.ifindexes[number]

    def limits(self) -> Mapping[int, Limits]:
        """By port number."""
        return {number: _limits(self._port(number)) for number in self.ifindexes}

    def mtus(self) -> Mapping[int, int]:
        """In bytes, by port number, as the dataplane was told last."""
        return {number: self._port(number).mtu for number in self.ifindexes}

    def capture(self, ports: Mapping[int, PortFlag]) -> int:
        """Report what exactly these ports send and get, as their flag says; how many of all that they get."""
        for number in self.ifindexes:
            port = self._port(number)
            flags = PortFlag(port.flags) & ~(PortFlag.CAPTURE | PortFlag.CAPTURE_DROPS)
            port.flags = flags | ports.get(number, PortFlag(0))
            self._tell(number, port)
        return sum(bool(ports.get(number, 0) & PortFlag.CAPTURE) for number in self.ifindexes)

    def counters(self) -> Mapping[int, PortCounter]:
        """By port number."""
        counters = {}
        for number in self.ifindexes:
            raw = self._map["port_counters"].index(number) or b""
            values = struct.unpack(f"<{len(raw) // 8}Q", raw)
            rx, rx_bytes, dropped, tx, tx_bytes, tx_dropped = (sum(values[field::6]) for field in range(6))
            counters[number] = PortCounter(Counter(rx, rx_bytes), Counter(tx, tx_bytes), dropped, tx_dropped)
        return counters


def _limits(port: abi.Port) -> Limits:
    return Limits(**{limit: getattr(port, quota) for limit, quota in _QUOTA_OF.items()})


def _number(raw: bytes) -> int:
    return int.from_bytes(raw, "little")


def _refuse_number(number: int) -> None:
    if not 0 < number < abi.PORTS:
        raise HostError(f"port number {number}: 1…{abi.PORTS - 1} are possible")


def _ifindex(ifname: str) -> int:
    try:
        ifindex = socket.if_nametoindex(ifname)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            asked = fcntl.ioctl(any_socket, _GET_HARDWARE, ifname.encode().ljust(32, b"\0"))
    except OSError as error:
        raise HostError(
            f"no interface {ifname} to make a port of: `ip link` lists those there are"
        ) from error
    if struct.unpack_from("<H", asked, 16)[0] != _ETHERNET:
        raise HostError(f"{ifname} is the loopback or carries no Ethernet frames: it can be no port")
    return ifindex


def _ifname(ifindex: int) -> str:
    try:
        return socket.if_indextoname(ifindex)
    except OSError as error:
        raise HostError(f"the interface {ifindex} has gone") from error


def _link(ifindex: int) -> tuple[bool, int]:
    """Whether an interface has a carrier, and its MTU (netdevice(7)); asked in its namespace."""
    name = socket.if_indextoname(ifindex).encode()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        flags = struct.unpack_from("<H", fcntl.ioctl(any_socket, _GET_FLAGS, name.ljust(32, b"\0")), 16)[0]
        mtu = struct.unpack_from("<i", fcntl.ioctl(any_socket, _GET_MTU, name.ljust(32, b"\0")), 16)[0]
    return flags & _RUNNING == _RUNNING, mtu
