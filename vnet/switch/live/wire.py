"""Joins two interfaces of one network namespace in the kernel: what comes in by one leaves by the other.

Two programs of four instructions, of which each has the number of an interface in it. They are filters of
clsact, so they live as long as the interfaces do, whoever made them.
"""

from __future__ import annotations

import ctypes
import os
import struct
from contextlib import suppress

from pyroute2 import IPRoute, NetlinkError

from vnet.base.errors import HostError
from vnet.switch.live import bpf
from vnet.switch.live.attach import INGRESS

NAME = "vnet_wire"
_LOAD, _SCHED_CLS = 5, 3
"""BPF_PROG_LOAD and BPF_PROG_TYPE_SCHED_CLS (linux/bpf.h)."""
_REDIRECT, _REDIRECT_PEER = 23, 155
"""Helpers: send by an interface; have its peer, a veth in another namespace, receive (since Linux 5.10)."""
_MOVE, _CALL, _EXIT = 0xB7, 0x85, 0x95


def program(ifindex: int, *, to_peer: bool) -> bytes:
    """The instructions that hand a packet to an interface, or to the veth at its other end.

    Source: Documentation/bpf/standardization/instruction-set.rst.
    """
    helper = _REDIRECT_PEER if to_peer else _REDIRECT
    words = ((_MOVE, 1, 0, ifindex), (_MOVE, 2, 0, 0), (_CALL, 0, 0, helper), (_EXIT, 0, 0, 0))
    return b"".join(struct.pack("<BBhi", *word) for word in words)


def join(outer: int, veth: int) -> None:
    """What comes in by `outer` is received at the other end of `veth`; what is sent there leaves by `outer`.

    Args: indexes of interfaces of the calling thread's namespace.
    """
    _attach(outer, veth, program(veth, to_peer=True))
    _attach(veth, outer, program(outer, to_peer=False))


def part(ifindex: int) -> None:
    """Hand nothing on that comes in there any more."""
    with IPRoute() as route, suppress(NetlinkError):  # no clsact
        route.tc("del-filter", "bpf", ifindex, handle=1, prio=1, parent=INGRESS)


def leads(ifindex: int, to: int) -> bool:
    """Whether what comes in there is handed on to that interface."""
    return _name(to) in _filters(ifindex)


def is_taken(ifindex: int) -> bool:
    """Whether a filter of somebody else looks first at what comes in there."""
    return bool(bpf.tcx_programs(ifindex)) or any(not each.startswith(NAME) for each in _filters(ifindex))


def _filters(ifindex: int) -> tuple[str, ...]:
    """The names of the programs at an interface; "?" stands for a filter that is none."""
    found: list[str] = []
    with IPRoute() as route, suppress(NetlinkError):  # no clsact
        for each in route.get_filters(ifindex, parent=INGRESS):
            options = each.get_attr("TCA_OPTIONS")
            if options is not None:  # the other half of what the kernel tells has none
                name = options.get_attr("TCA_BPF_NAME") if each.get_attr("TCA_KIND") == "bpf" else "?"
                found.append(name or "?")
    return tuple(found)


def _name(to: int) -> str:
    return f"{NAME} {to}"


def _attach(ifindex: int, to: int, instructions: bytes) -> None:
    loaded = _load(instructions)
    try:
        with IPRoute() as route:
            with suppress(NetlinkError):  # already there
                route.tc("add", "clsact", ifindex)
            route.tc("replace-filter", "bpf", ifindex, handle=1, prio=1, fd=loaded, name=_name(to),
                     parent=INGRESS, classid=1, direct_action=True)  # fmt: skip
    except NetlinkError as error:
        raise HostError(f"cannot join two interfaces: {os.strerror(error.code)}") from error
    finally:
        os.close(loaded)


def _load(instructions: bytes) -> int:
    code, licence = ctypes.create_string_buffer(instructions), ctypes.create_string_buffer(b"GPL")
    head = struct.pack(
        "<IIQQ", _SCHED_CLS, len(instructions) // 8, ctypes.addressof(code), ctypes.addressof(licence)
    )
    attributes = head + struct.pack("<IIQII16s", 0, 0, 0, 0, 0, NAME.encode()) + bytes(64)
    return bpf.call(_LOAD, attributes, "load the program that joins two interfaces")
