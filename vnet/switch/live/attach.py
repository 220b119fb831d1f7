"""Putting the program on a port: a pinned TCX link, or a clsact filter on kernels before 6.6.

Both run inside the port's network namespace.
"""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

from vnet.base.errors import HostError
from vnet.switch.live import bpf

FILTER_NAME = "vnet_ingress"
INGRESS = 0xFFFFFFF2
"""The ingress half of a clsact qdisc (ffff:fff2)."""


LINE = "+line"
"""After a port's number: the pin of the link at the other end of its line (`lines.py`)."""


def line_pin(number: int) -> str:
    """The name of that pin."""
    return f"{number}{LINE}"


def attach(program: int, ifindex: int, pin: Path) -> None:
    """Attach; a link that is already pinned for this very interface is kept.

    Raises: HostError if another switch has the interface.
    """
    if pin.exists():
        link = bpf.get(pin)
        attached = bpf.link_ifindex(link)
        os.close(link)
        if attached == ifindex and is_attached(ifindex):
            return  # a number may be that of an interface in a namespace that has gone
        unlink(pin)
    refuse_taken(ifindex)
    made = bpf.attach_tcx(program, ifindex)
    if made is None:
        attach_filter(program, ifindex)
        return
    try:
        bpf.pin(made, pin)
    finally:
        os.close(made)


def refuse_taken(ifindex: int) -> None:
    """Raises HostError if an interface runs the program of a switch."""
    if FILTER_NAME in bpf.tcx_programs(ifindex):
        name = socket.if_indextoname(ifindex)
        raise HostError(f"{name} is a port of another of vnet's switches: take it out there first")


def attach_filter(program: int, ifindex: int) -> None:
    """Attach as a direct-action filter of the interface's clsact qdisc."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    with IPRoute() as route:
        with contextlib.suppress(NetlinkError):  # already there
            route.tc("add", "clsact", ifindex)
        # handle and priority are given, so that a restarted daemon replaces its filter and adds none
        route.tc("replace-filter", "bpf", ifindex, handle=1, prio=1, fd=program, name=FILTER_NAME,
                 parent=INGRESS, classid=1, direct_action=True)  # fmt: skip


def holds(ifindex: int, pin: Path) -> bool:
    """Whether the program is at an interface by this pin, or, where the kernel has no TCX, at all."""
    if not pin.exists():
        return is_attached(ifindex)
    link = bpf.get(pin)
    try:
        return bpf.link_ifindex(link) == ifindex
    finally:
        os.close(link)


def is_attached(ifindex: int) -> bool:
    """Whether the program is at an interface, by whatever switch."""
    return FILTER_NAME in bpf.tcx_programs(ifindex) or _has_filter(ifindex)


def _has_filter(ifindex: int) -> bool:
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    with IPRoute() as route, contextlib.suppress(NetlinkError):  # no clsact
        options = (each.get_attr("TCA_OPTIONS") for each in route.get_filters(ifindex, parent=INGRESS))
        return any(each.get_attr("TCA_BPF_NAME") == FILTER_NAME for each in options if each)
    return False


def detach(ifindex: int, pin: Path) -> None:
    """Take the program off; an interface or link that is gone already is no error."""
    if pin.exists():
        unlink(pin)
        return
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    with IPRoute() as route, contextlib.suppress(NetlinkError):
        route.tc("del", "clsact", ifindex)


def unlink(pin: Path) -> None:
    """Detach a link now: the kernel would free an unpinned one only after a while."""
    link = bpf.get(pin)
    try:
        bpf.detach_link(link)
    finally:
        os.close(link)
    pin.unlink()
