"""From what a guest needs to the QEMU command line. Pure: the same machine gives the same words.

A warm clone must have exactly the machine of its template, so the two differ only in where memory
comes from and in `-incoming`; names, sockets and the UUID do not matter to a saved state.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from enum import Enum

from vnet.base.errors import HostError
from vnet.hv import agent, guest_agent, pc
from vnet.hv.built import Built, Places, built_for, places_at_start
from vnet.hv.disk import Plugged
from vnet.hv.pc import Pc
from vnet.hv.spec import GuestSpec, format_mac

QEMU = "qemu-system-x86_64"

MAX_SOCKET_PATH = 107
"""Bytes of `sun_path` before the closing NUL. Source: unix(7)."""

KERNEL_COMMAND_LINE = (
    "console=ttyS0 quiet nokaslr mitigations=off tsc=reliable no_timer_check audit=0 8250.nr_uarts=1 panic=-1"
    " swiotlb=noforce memhp_default_state=online memory_hotplug.online_policy=auto-movable"
)
"""Where memory may come later, Linux sets 16 MiB aside for devices which reach only 4 GiB; there are none.
What comes is used at once, as far as possible so that it can be given back."""

_CONSOLE_LOG_SET = 0
"""Of descriptors; those of disks count from 1."""

BALLOON = "balloon"
"""The device by which a guest tells how it gets on with its memory, and gives some of it back."""

MICRO_MACHINE = "q35,vmport=off,i8042=off,sata=off,smbus=off,hpet=off,memory-backend=ram"

SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


class Memory(Enum):
    """Where guest memory comes from: the process's own, the template's file written, or a private copy."""

    OWN = "own"
    TEMPLATE = "template"
    CLONE = "clone"


@dataclass(frozen=True, slots=True)
class NicArgument:
    """A NIC that is there from the start: its TAP, and the vhost device if any, as descriptor numbers."""

    mac: int
    tap_fd: int
    vhost_fd: int | None = None


@dataclass(frozen=True, slots=True)
class DiskArgument:
    """A disk that is there from the start, and its file as a descriptor number.

    `base_fd` is that of the image that it is made of, `boot_index` its place in boot order, `key_fd` that of
    its key if it is encrypted.
    """

    plugged: Plugged
    fd: int
    base_fd: int | None = None
    boot_index: int | None = None
    key_fd: int | None = None

    @property
    def fds(self) -> tuple[int, ...]:
        """All that have to be handed over."""
        return tuple(each for each in (self.fd, self.base_fd, self.key_fd) if each is not None)


@dataclass(frozen=True, slots=True)
class Machine:
    """Everything the command line says.

    `run_dir` holds sockets and the pid file; `kernel`, `initrd` and `memory_path` are paths as QEMU
    sees them (`/proc/self/fd/N` for descriptors it is given). `memory_path` is None for `Memory.OWN`.
    """

    name: str
    uuid: str
    run_dir: str
    accel: str
    built: Built
    kernel: str
    initrd: str
    memory: Memory = Memory.OWN
    memory_path: str | None = None
    nics: tuple[NicArgument, ...] = ()
    disks: tuple[DiskArgument, ...] = ()
    console_log_fd: int | None = None
    """Where what it prints on its console is kept."""
    is_saved: bool = False
    """It waits for a state of its own that was saved."""
    pc: Pc | None = None
    """Of a guest that is not vnet's own: what its machine has besides."""

    @property
    def memory_bytes(self) -> int:
        """What it is started with."""
        return self.built.memory_bytes


def built_of(spec: GuestSpec, accel: str) -> Built:
    """What the machine of a guest is built for when it is started now."""
    return built_for(
        spec.cpus, spec.memory_bytes, len(spec.nics) + len(spec.disks), accel, grows=spec.is_micro
    )


def places_of(spec: GuestSpec) -> Places:
    """Where its devices are when it has been started."""
    return places_at_start([nic.interface for nic in spec.nics], [disk.name for disk in spec.disks])


def machine_of(spec: GuestSpec, *, uuid: str, run_dir: str, accel: str, kernel: str, initrd: str) -> Machine:
    """The machine for a guest, without its NICs and with memory of its own."""
    return Machine(
        name=f"{spec.fabric}/{spec.name}",
        uuid=uuid,
        run_dir=run_dir,
        accel=accel,
        built=built_of(spec, accel),
        kernel=kernel,
        initrd=initrd,
    )


def command_line(machine: Machine) -> tuple[str, ...]:
    """QEMU and its arguments.

    Raises:
        HostError: a socket's path would be longer than the kernel takes.
    """
    return (
        QEMU,
        *("-name", f"{escape(machine.name)},debug-threads=on", "-uuid", machine.uuid),
        *_hardware(machine),
        *_boot(machine),
        *_ports(machine),
        *_devices(machine),
        *(word for index, nic in enumerate(machine.nics) for word in _nic(index, nic)),
        *(word for each in machine.disks for word in _disk(each)),
        *_supervision(machine),
    )


def template_key(machine: Machine, *, image: str, qemu_version: str) -> str:
    """Names the template that clones of this machine can be made of.

    It covers the image, QEMU's version, memory, CPUs and every word of the command line but those that
    name this one guest.
    """
    common = replace(_nameless(machine), memory=Memory.CLONE, memory_path="", nics=(), disks=())
    text = "\n".join((image, qemu_version, *command_line(common)))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def machine_key(machine: Machine) -> str:
    """Names all that a saved state of this machine is bound to, its NICs and disks included.

    Descriptors are numbered in their order, whatever their numbers are, and vhost is no part of it.
    """
    nics = tuple(NicArgument(nic.mac, 0) for nic in machine.nics)
    disks = tuple(replace(each, fd=0) for each in machine.disks)
    common = replace(_nameless(machine), memory=Memory.OWN, is_saved=False, nics=nics, disks=disks)
    return hashlib.sha256("\n".join(command_line(common)).encode()).hexdigest()[:16]


def _nameless(machine: Machine) -> Machine:
    """Without what names this one guest."""
    return replace(machine, name="", uuid="", run_dir="", kernel="", initrd="", console_log_fd=None)


_TRANSLATED_MIB = 32
"""Of the host's memory for what TCG has translated: enough for the micro guest."""
_TRANSLATED_PC_MIB = 64
"""With 32 a Debian takes a third more processor time to boot (31 s to 23 s); with 128 no less."""


def _hardware(machine: Machine) -> tuple[str, ...]:
    is_tcg, built = machine.accel == "tcg", machine.built
    thread = "single" if built.cpus == 1 else "multi"  # see `vnet.hv.built`
    translated = _TRANSLATED_PC_MIB if machine.pc else _TRANSLATED_MIB
    accel, cpu = (f"tcg,tb-size={translated},thread={thread}", "max") if is_tcg else (machine.accel, "host")
    return (
        *("-machine", pc.machine(machine.pc) if machine.pc else MICRO_MACHINE),
        *("-accel", accel, "-cpu", cpu, "-smp", f"{built.cpus},maxcpus={built.cpus_max}"),
        *("-m", f"size={built.memory_bytes}b{_growth(built)}"),
        *("-object", _memory(machine)),
        *("-nodefaults", "-no-user-config", "-display", "none"),
    )


def _growth(built: Built) -> str:
    return f",maxmem={built.memory_max_bytes}b,slots=1" if built.growth_bytes else ""


def _memory(machine: Machine) -> str:
    if machine.memory is Memory.OWN:
        return f"memory-backend-ram,id=ram,size={machine.memory_bytes}"
    share = "on" if machine.memory is Memory.TEMPLATE else "off"
    path = escape(machine.memory_path or "")
    return f"memory-backend-file,id=ram,size={machine.memory_bytes},mem-path={path},share={share}"


def _boot(machine: Machine) -> tuple[str, ...]:
    waits = machine.is_saved or machine.memory is Memory.CLONE
    incoming = ("-incoming", "defer", *(("-S",) if machine.is_saved else ())) if waits else ()
    if machine.pc:
        return (*pc.words(machine.pc, escape(machine.run_dir)), *incoming)
    words = ("-kernel", machine.kernel, "-initrd", machine.initrd, "-append", KERNEL_COMMAND_LINE)
    return (*words, *incoming)


def _ports(machine: Machine) -> tuple[str, ...]:
    devices = (f"pcie-root-port,id=slot{n},chassis={n + 1},slot={n + 1}" for n in range(machine.built.slots))
    return tuple(word for device in devices for word in ("-device", device))


def _devices(machine: Machine) -> tuple[str, ...]:
    return (
        *("-device", "virtio-serial-pci,id=serial,max_ports=4"),
        *("-chardev", _socket(machine, "agent")),
        *("-device", f"virtserialport,chardev=agent,name={_agent_port(machine)}"),
        *("-object", "rng-builtin,id=rng", "-device", "virtio-rng-pci,rng=rng"),
        *("-device", f"virtio-balloon-pci,id={BALLOON},deflate-on-oom=on"),
        *("-device", "pvpanic-pci"),
        *_console(machine),
    )


def _agent_port(machine: Machine) -> str:
    return guest_agent.PORT_NAME if machine.pc else agent.PORT_NAME


def _console(machine: Machine) -> tuple[str, ...]:
    """A log is appended to: cut to nothing, it would lose the hole that it begins with."""
    chardev, words = _socket(machine, "console"), ("-serial", "chardev:console")
    if machine.console_log_fd is None:
        return ("-chardev", chardev, *words)
    return (
        *("-add-fd", f"fd={machine.console_log_fd},set={_CONSOLE_LOG_SET}"),
        *("-chardev", f"{chardev},logfile=/dev/fdset/{_CONSOLE_LOG_SET},logappend=on", *words),
    )


def _nic(index: int, nic: NicArgument) -> tuple[str, ...]:
    vhost = f",vhost=on,vhostfd={nic.vhost_fd}" if nic.vhost_fd is not None else ""
    device = nic_device(index, nic.mac)
    properties = ",".join(f"{name}={value}" for name, value in device.items() if name != "driver")
    return (
        *("-netdev", f"tap,id={device['netdev']},fd={nic.tap_fd}{vhost}"),
        *("-device", f"{device['driver']},{properties}"),
    )


def _disk(argument: DiskArgument) -> tuple[str, ...]:
    plugged, base, key_fd = argument.plugged, argument.base_fd, argument.key_fd
    order = {} if argument.boot_index is None else {"bootindex": argument.boot_index}
    secret = f"secret,id={plugged.key},file=/proc/self/fd/{key_fd}"
    return (
        *(() if key_fd is None else ("-object", secret)),
        *("-add-fd", f"fd={argument.fd},set={plugged.set_number}"),
        *(() if base is None else ("-add-fd", f"fd={base},set={plugged.base_set_number}")),
        *("-blockdev", json.dumps(plugged.blockdev(is_based=base is not None))),
        *("-device", json.dumps({**plugged.device(), **order})),
    )


def nic_device(index: int, mac: int) -> dict[str, str]:
    """The properties of a NIC's device, for the command line and for QMP `device_add` alike.

    It does not ask the guest to announce itself after its memory was loaded: with no rounds of announcements
    (`monitor.STAYS_SILENT`) QEMU would give up the timer for that, and die of a reset of the device. Source:
    QEMU 7.2, hw/net/virtio-net.c, virtio_net_post_load_device and virtio_net_reset.
    """
    return {
        "driver": "virtio-net-pci",
        "id": f"nic{index}",
        "netdev": f"net{index}",
        "bus": f"slot{index}",
        "mac": format_mac(mac),
        "guest_announce": "off",
        "romfile": "",
    }


def _supervision(machine: Machine) -> tuple[str, ...]:
    """One QMP socket serves one client, so tools have their own.

    There is no `-daemonize`: it forks after the sandbox is in force, and `spawn=deny` kills it for that
    (seen with QEMU 7.2). Who starts QEMU gives it a session of its own, so it outlives its starter.
    """
    return (
        *("-chardev", _socket(machine, "qmp"), "-mon", "chardev=qmp,mode=control"),
        *("-chardev", _socket(machine, "tools"), "-mon", "chardev=tools,mode=control"),
        *("-action", "shutdown=pause", "-sandbox", SANDBOX),
        *("-pidfile", f"{machine.run_dir}/pid"),
    )


def _socket(machine: Machine, name: str) -> str:
    path = f"{machine.run_dir}/{name}.sock"
    if len(path.encode()) > MAX_SOCKET_PATH:
        raise HostError(
            f"the socket path {path} has {len(path.encode())} bytes, the kernel takes {MAX_SOCKET_PATH}:"
            " choose shorter names for the fabric or the VM, or a shorter VNET_RUN_DIR"
        )
    return f"socket,id={name},path={escape(path)},server=on,wait=off"


def escape(value: str) -> str:
    """A value inside a QEMU option list, where a comma is written twice."""
    return value.replace(",", ",,")
