"""What the kernel tracks in a gateway's namespace: what it hands to whom.

Works in the network namespace of the calling thread.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import ip_address

from pyroute2 import NetlinkError
from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple, NFCTSocket

from vnet.base.protocols import UDP

_HANDED_ON = 1 << 5
"""IPS_DST_NAT (linux/netfilter/nf_conntrack_common.h)."""
_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}


def forget(targets: Iterable[str]) -> None:
    """Hand no more UDP to these: who goes on sending is taken for new, and handed to who is there by now.

    TCP ends by itself, and must not be cut while its target lives.
    """
    for version, family in _FAMILY.items():
        gone = {each for each in targets if ip_address(each).version == version}
        if gone:
            with suppress(NetlinkError):  # a kernel without ctnetlink: they end when nobody sends for a while
                _forget(family, gone)


def _forget(family: int, gone: set[str]) -> None:
    with NFCTSocket(nfgen_family=family) as tracker:
        for each in tuple(tracker.dump()):
            asked, answer = (
                NFCTAttrTuple.from_netlink(family, each.get_attr(f"CTA_TUPLE_{way}"))
                for way in ("ORIG", "REPLY")
            )
            is_handed_on = bool(each.get_attr("CTA_STATUS") & _HANDED_ON)
            if is_handed_on and answer.proto == UDP and answer.saddr in gone:
                with suppress(NetlinkError):  # it has just ended
                    tracker.entry("del", tuple_orig=asked)
