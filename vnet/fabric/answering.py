"""The frame with which a guest answers another one."""

from __future__ import annotations

from typing import Any

from vnet.base.errors import InputError
from vnet.capture.summary import summarise
from vnet.fabric.question import Question
from vnet.hv.spec import format_mac
from vnet.topology.inventory import Nic

from scapy.layers import inet, inet6, l2, sctp  # isort: skip
from scapy.packet import Packet, Raw  # isort: skip


def answer(frame: bytes, nic: Nic, live: bool = False) -> Question:
    """The frame that a NIC answers a frame with, as it got it.

    Raises: InputError for what nobody answers.
    """
    got = l2.Ether(frame)
    out: Any = l2.Ether(src=got.dst, dst=got.src, type=got.type)
    ip = got.payload
    if isinstance(ip, l2.ARP) and ip.op == 1:
        return Question(
            nic,
            bytes(
                l2.Ether(src=format_mac(nic.mac), dst=got.src)
                / l2.ARP(op=2, hwsrc=format_mac(nic.mac), psrc=ip.pdst, hwdst=ip.hwsrc, pdst=ip.psrc)
            ),
        )
    upper = ip.payload
    if isinstance(ip, (inet.IP, inet6.IPv6)):
        back = type(ip)(src=ip.dst, dst=ip.src)
        replied = _answered(upper, live)
        if replied is not None:
            return Question(nic, bytes(out / back / replied))
        if not isinstance(upper, inet6._ICMPv6) and not isinstance(upper, inet.ICMP):
            kind = "proto" if isinstance(ip, inet.IP) else "nh"
            setattr(back, kind, getattr(ip, kind))
            return Question(nic, bytes(out / back / Raw(bytes(upper))))
    raise InputError(f"--reply: nobody answers this: {summarise(frame)}")


def _answered(upper: Packet, live: bool) -> Packet | None:
    match upper:
        case inet.TCP():
            begins = str(upper.flags) == "S" and not live
            flags = "SA" if begins else "A"
            return inet.TCP(sport=upper.dport, dport=upper.sport, flags=flags, seq=1, ack=upper.seq + begins)
        case inet.UDP():
            return inet.UDP(sport=upper.dport, dport=upper.sport) / Raw(b"vnet")
        case sctp.SCTP():
            return sctp.SCTP(sport=upper.dport, dport=upper.sport) / sctp.SCTPChunkInit()
        case inet.ICMP(type=8):
            return inet.ICMP(type=0, id=upper.id, seq=upper.seq)
        case inet6.ICMPv6EchoRequest():
            return inet6.ICMPv6EchoReply(id=upper.id, seq=upper.seq)
    return None
