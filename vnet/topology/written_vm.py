"""What a VM is besides its NICs, written out: images, disks, what it boots, is told, and when it starts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vnet.base.boot import DEFAULT_LOCATION, Boot, ImageFile, ImageSource
from vnet.base.cloud_init import CloudInit
from vnet.base.protocols import TCP, UDP
from vnet.topology.inventory import Vm
from vnet.topology.life import Condition, HealthCheck, Restart, RestartWhen
from vnet.topology.model import DeclaredImage, DiskFormat, DiskSpec, Published, Topology

Plain = dict[str, Any]
Images = Mapping[str, DeclaredImage]

PROTOCOLS = {TCP: "tcp", UDP: "udp"}


def images(declared: Images) -> Plain:
    """Images as a file declares them; their paths are absolute."""
    return {name: _image(each.source) for name, each in declared.items()}


def _image(source: ImageSource) -> Plain:
    files = {"path": source.file, "kernel": source.kernel, "initrd": source.initrd}
    there = {name: file for name, file in files.items() if file}
    more = {"cmdline": text(source.cmdline), "format": source.format, "cloud_init": source.cloud_init}
    sums = {name: file.sha256 for name, file in there.items() if file.sha256}
    return _said({name: _path(file) for name, file in there.items()} | {"sha256": sums} | more)


def _path(file: ImageFile) -> str:
    return text(file.path)


def text(words: str) -> str:
    """A text as a topology has it, where a dollar sign begins a variable."""
    return words.replace("$", "$$")


def _said(plain: Plain) -> Plain:
    """What is said of something that is not as if nothing were said."""
    return {key: value for key, value in plain.items() if value}


def rest(vm: Vm, topology: Topology, names: Mapping[str, str]) -> Plain:
    """All of it for one VM; `names` are those of all VMs in the document."""
    spec = topology.vms[vm.spec]
    among_others = {
        "ports": [_port(each) for each in spec.ports],
        "floating": [str(each) for each in spec.floating],
        "depends_on": {names[each.vm]: {"condition": _condition(each.health)} for each in vm.awaits},
    }
    return machine(vm, topology.images) | _said(among_others)


def machine(vm: Vm, declared: Images) -> Plain:
    """What of it is the VM's own: nothing of others, and no port or address outside."""
    said = _said(
        {
            **_boot(vm, declared),
            "disks": [_disk(each) for each in vm.disks if not each.is_root or each.size_bytes],
            "restart": _restart(vm.life.restart),
            "autostart": vm.life.autostart,
            "healthcheck": _health(vm.life.health) if vm.life.health else {},
        }
    )
    told = _cloud_init(vm.boot.cloud_init)
    return said if told is None else {**said, "cloud_init": told}


def _boot(vm: Vm, declared: Images) -> Plain:
    boot = vm.boot
    image, kernel, iso = boot.image.name if boot.image else "", boot.kernel, boot.iso
    plain = {
        "kernel": _path(kernel.kernel) if kernel and kernel.kernel else "",
        "initrd": _path(kernel.initrd) if kernel and kernel.initrd else "",
        "cmdline": text(_own_cmdline(boot, declared)),
        "iso": (iso.name or (_path(iso.file) if iso.file else "")) if iso else "",
        "first": "iso" if boot.iso_first else "",
        "firmware": boot.firmware if boot.is_uefi else "",
    }
    return {"image": image, "boot": _said(plain)}


def _own_cmdline(boot: Boot, declared: Images) -> str:
    """A kernel's command line, unless its image says the same."""
    loaded = boot.loaded
    if loaded is None:
        return ""
    same = loaded.name in declared and declared[loaded.name].source.cmdline == loaded.cmdline
    return "" if same else loaded.cmdline


def _cloud_init(told: CloudInit) -> bool | Plain | None:
    if told.wanted is None:
        return None
    plain = {
        "user": told.user,
        "ssh_keys": [text(each) for each in told.ssh_keys],
        "password_hash": text(told.password_hash),
        "packages": [text(each) for each in told.packages],
        "runcmd": [text(each) for each in told.commands],
        "user_data": text(told.user_data),
    }
    return told.wanted and (_said(plain) or True)


def _disk(disk: DiskSpec) -> Plain:
    form = "" if disk.format is DiskFormat.QCOW2 else disk.format.value
    size = f"{disk.size_bytes >> 20}M" if disk.size_bytes % (1 << 20) == 0 else f"{disk.size_bytes >> 10}K"
    location = "" if disk.location == DEFAULT_LOCATION else disk.location
    more = {"format": form, "preallocated": disk.is_full, "encrypt": disk.is_encrypted, "location": location}
    return {"name": disk.name, "size": size} | _said(more)


def _port(port: Published) -> str:
    listen = f"[{port.listen}]" if port.listen.version == 6 else str(port.listen)
    return f"{listen}:{port.port}:{port.guest_port}/{PROTOCOLS[port.protocol]}"


def _restart(restart: Restart) -> str:
    if restart.when is RestartWhen.NO:
        return ""
    return f"{restart.when.value}:{restart.tries}" if restart.tries else str(restart.when.value)


def _health(check: HealthCheck) -> Plain:
    spans = {
        "interval": check.interval_s,
        "timeout": check.timeout_s,
        "start_period": check.start_period_s,
    }
    told = {name: f"{seconds:g}s" for name, seconds in spans.items()}
    return {"test": [text(each) for each in check.argv], **told, "retries": check.retries}


def _condition(health: HealthCheck | None) -> str:
    return str((Condition.HEALTHY if health else Condition.STARTED).value)
