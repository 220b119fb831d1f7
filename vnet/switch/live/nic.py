"""What an interface does with frames before the switch sees them: whose it takes, and whether it joins them.

Every function works in the network namespace of the *calling thread*.
"""

from __future__ import annotations

import array
import fcntl
import socket
import struct
from contextlib import suppress

from vnet.base.errors import HostError

UP, PROMISCUOUS = 0x1, 0x100
"""IFF_UP and IFF_PROMISC (linux/if.h)."""
_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
"""linux/sockios.h."""
_SIOCETHTOOL, _GET_FLAGS, _SET_FLAGS, _LRO = 0x8946, 0x25, 0x26, 1 << 15
"""ETHTOOL_GFLAGS, ETHTOOL_SFLAGS and ETH_FLAG_LRO (linux/ethtool.h)."""


def exists(name: str) -> bool:
    """Whether there is an interface of the name."""
    try:
        return socket.if_nametoindex(name) > 0
    except OSError:
        return False


def flags(name: str) -> int:
    """IFF_*, as far as netdevice(7) has them: 16 bits. Raises HostError if there is no such interface."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        return _told(control, name)


def set_flags(name: str, wanted: int, change: int) -> None:
    """Have it have those IFF_* of `change` that are `wanted`. Raises HostError if it is gone, or refuses."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        becomes = _told(control, name) & ~change | wanted & change
        try:
            fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH22x", name.encode(), becomes))
        except OSError as error:
            raise HostError(f"cannot set up {name}: {error.strerror}") from error


def _told(control: socket.socket, name: str) -> int:
    try:
        told = fcntl.ioctl(control, _SIOCGIFFLAGS, struct.pack("40s", name.encode()))
    except OSError as error:
        raise HostError(f"cannot look at {name}: {error.strerror}") from error
    return int(struct.unpack_from("H", told, 16)[0])


def has_lro(name: str) -> bool:
    """Whether it joins what it receives to larger packets, which nobody can send on as it came."""
    return bool(_offloads(name) & _LRO)


def switch_lro(name: str, on: bool) -> None:
    """Raises HostError if it refuses; one that knows no LRO has none."""
    had = _offloads(name)
    wanted = had | _LRO if on else had & ~_LRO
    if wanted != had:
        try:
            _ethtool(name, _SET_FLAGS, wanted)
        except OSError as error:
            raise HostError(
                f"cannot switch LRO of {name} {'on' if on else 'off'}: {error.strerror}"
            ) from error


def _offloads(name: str) -> int:
    """ETH_FLAG_*; none of an interface that knows no such thing."""
    with suppress(OSError):
        return _ethtool(name, _GET_FLAGS, 0)
    return 0


def _ethtool(name: str, command: int, value: int) -> int:
    request = array.array("B", struct.pack("II", command, value))
    packed = struct.pack("16sQ16x", name.encode(), request.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCETHTOOL, packed)
    return int(struct.unpack("II", request)[1])
