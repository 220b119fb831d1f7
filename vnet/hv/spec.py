"""What the hypervisor side is asked for and what it answers: guests as values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface

from vnet.base.boot import MICRO_BOOT, Boot
from vnet.hv.built import Built
from vnet.hv.disk import Disk


@dataclass(frozen=True, slots=True)
class GuestNic:
    """One NIC. `name` (`web-1.eth0`) is what the TAP is asked for by, `interface` its name in the guest.

    `mac` is a 48-bit integer; `mtu` is in bytes; `asked` are those of the addresses that the guest asks for;
    `dhcpv6` is what it asks a server of DHCPv6 for: "address", "information" (names only) or "".
    """

    name: str
    interface: str
    mac: int
    addresses: tuple[IPv4Interface | IPv6Interface, ...]
    mtu: int = 1500
    asked: tuple[IPv4Interface | IPv6Interface, ...] = ()
    gateways: tuple[IPv4Address | IPv6Address, ...] = ()
    """Of its default routes, at most one of each version of IP."""
    dhcpv6: str = ""
    resolvers: tuple[IPv4Address | IPv6Address, ...] = ()
    """Who answers its questions for names, as far as no DHCP tells it."""
    domain: str = ""


@dataclass(frozen=True, slots=True)
class GuestSpec:
    """One guest to run. `image` is what its image is called; `boot` says what it boots."""

    fabric: str
    name: str
    image: str
    cpus: int
    memory_bytes: int
    nics: tuple[GuestNic, ...]
    disks: tuple[Disk, ...] = ()
    boot: Boot = MICRO_BOOT

    @property
    def uuid(self) -> str:
        """Of its machine, as firmware tells it: it depends on the names only, as its MACs do.

        Source: RFC 9562, section 5.8 (version 8, of what the maker likes).
        """
        digest = blake2b(f"{self.fabric}/{self.name}".encode(), digest_size=16).hexdigest()
        variant = f"{int(digest[16], 16) & 3 | 8:x}"
        return f"{digest[:8]}-{digest[8:12]}-8{digest[13:16]}-{variant}{digest[17:20]}-{digest[20:]}"

    @property
    def root(self) -> Disk | None:
        """The disk that is made of its image."""
        return next((each for each in self.disks if each.is_root), None)

    @property
    def is_micro(self) -> bool:
        """Whether it is vnet's own guest: with its agent, and the kernel command line that vnet gives it."""
        return self.boot.is_micro


class GuestState(Enum):
    """What a user sees; `vnet.hv.lifecycle` has the finer states in between."""

    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPING = "stopping"
    SUSPENDED = "suspended"
    """It is off; its memory is kept, and it goes on from there."""
    CRASHED = "crashed"


@dataclass(frozen=True, slots=True)
class GuestStatus:
    """What is known of a guest. Everything after `state` is of the running process, 0 or "" without one.

    `accel` is `tcg` or `kvm`; `warm` tells that it is a clone of a template; `agent` that the guest's
    agent has answered and is connected; `resident_bytes` is what the host spends on it now, pages that
    clones share counted in each. `reason` says why it crashed, or what became of a disk.
    """

    name: str
    state: GuestState
    pid: int = 0
    accel: str = ""
    warm: bool = False
    uptime_s: float = 0.0
    agent: bool = False
    memory_bytes: int = 0
    resident_bytes: int = 0
    reason: str = ""
    restored: bool = False
    """It went on from memory that was saved."""
    built: Built | None = None
    """What its machine was built for."""
    links_down: tuple[str, ...] = ()
    """The interfaces whose cable is pulled."""
    has_agent: bool = True
    """Whether there is an agent that could answer."""
    is_failing: bool = False
    """A disk of it fails, `reason` says how."""
    awaits_room: bool = False
    """It stands still until there is room for a disk or what it is copied to, and may go on then."""


@dataclass(frozen=True, slots=True)
class ExecResult:
    """How a command in a guest ended: 128 + n stands for signal n, 127 for "no such command"."""

    exit_code: int
    stdout: bytes
    stderr: bytes


class Happening(Enum):
    """What can happen to a guest without being asked for."""

    DIED = "died"
    """Its QEMU ended."""
    STOPPED = "stopped"
    """It switched itself off, or was ended because it did not come back."""
    PANICKED = "panicked"
    """Its kernel gave up; it was ended."""
    HALTED = "halted"
    """It stands still for a disk."""
    DISK_FAILED = "disk-failed"
    """It goes on, with a disk that fails or is damaged."""
    REBOOTED = "rebooted"


@dataclass(frozen=True, slots=True)
class GuestEvent:
    """Something that happened to a guest; `state` is what it led to."""

    fabric: str
    name: str
    what: Happening
    state: GuestState
    text: str
    disk: str = ""
    """Whose doing it is, if it is a disk's."""


def format_mac(mac: int) -> str:
    """A 48-bit integer as `52:54:00:12:34:56`."""
    return mac.to_bytes(6, "big").hex(":")
