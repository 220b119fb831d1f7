"""Where vnet keeps things. Three roots, each movable by an environment variable (tests do)."""

from __future__ import annotations

import os
from pathlib import Path

from vnet.base.boot import DEFAULT_LOCATION


def run_dir() -> Path:
    """Sockets and pid files; emptied by a reboot. `VNET_RUN_DIR`, default `/run/vnet`."""
    return Path(os.environ.get("VNET_RUN_DIR", "/run/vnet"))


def state_dir() -> Path:
    """Database, images, disks. `VNET_STATE_DIR`, default `/var/lib/vnet`."""
    return Path(os.environ.get("VNET_STATE_DIR", "/var/lib/vnet"))


def bpf_dir() -> Path:
    """Pinned programs and maps, one folder per switch. `VNET_BPF_DIR`, default `/sys/fs/bpf/vnet`."""
    return Path(os.environ.get("VNET_BPF_DIR", "/sys/fs/bpf/vnet"))


def switches_bpf_dir() -> Path:
    """The same of switches of their own (`vnet switch`)."""
    pinned = bpf_dir()
    return pinned.with_name(f"{pinned.name}-switch")


def daemon_socket() -> Path:
    """The HTTP-over-unix socket of vnetd."""
    return run_dir() / "vnetd.sock"


def fabric_run_dir(fabric: str) -> Path:
    """Sockets of one fabric: `switch.sock` (OpenFlow) and `vms/NAME/`."""
    return run_dir() / "fabrics" / fabric


def switch_socket(fabric: str) -> Path:
    """The OpenFlow 1.3 listener of the fabric's switch: `ovs-ofctl -O OpenFlow13 show unix:PATH`."""
    return fabric_run_dir(fabric) / "switch.sock"


def switches_run_dir() -> Path:
    """Of each switch of its own: `NAME.sock`, its OpenFlow 1.3 listener, and `NAME.lock`."""
    return run_dir() / "switches"


def vm_run_dir(fabric: str, vm: str) -> Path:
    """The VM's own folder: QMP, agent and console sockets, pid file."""
    return fabric_run_dir(fabric) / "vms" / vm


def workers_run_dir() -> Path:
    """A folder for each QEMU that copies disks of VMs that do not run."""
    return run_dir() / "workers"


def backups_dir() -> Path:
    """Where backups go that are told no other place. `VNET_BACKUP_DIR`, default `backups` in `state_dir`."""
    return Path(os.environ.get("VNET_BACKUP_DIR", state_dir() / "backups"))


def located_dir() -> Path:
    """At which location each disk lies that is not in the ordinary place: `FABRIC/VM/NAME.FORMAT`."""
    return state_dir() / "located"


def keys_dir() -> Path:
    """Keys of encrypted disks, `FABRIC/VM/NAME`. `VNET_KEYS_DIR`, default `keys` in `state_dir`."""
    return Path(os.environ.get("VNET_KEYS_DIR", state_dir() / "keys"))


def image_dir() -> Path:
    """Guest images and warm-clone templates, cached by content key."""
    return state_dir() / "images"


def image_store() -> Path:
    """Imported images: `ID/`, and `names/NAME`, a symbolic link to one of them."""
    return state_dir() / "image-store"


def exports_dir() -> Path:
    """What was exported and is not fetched yet, each in a folder of its own."""
    return state_dir() / "exports"


def disks_dir(location: str = DEFAULT_LOCATION) -> Path:
    """Disks of VMs at a location, `FABRIC/VM/NAME.FORMAT`, kept when fabrics go."""
    return state_dir() / "disks" if location == DEFAULT_LOCATION else locations_dir() / location


def cloning_dir() -> Path:
    """Where disks are made that are copies of another VM's."""
    return state_dir() / "cloning"


def locations_dir() -> Path:
    """A symbolic link for each location of disks that the host's administrator has added."""
    return state_dir() / "locations"


def snapshots_dir(fabric: str) -> Path:
    """A folder for each snapshot of its VMs, with the memory of each VM; kept when the fabric goes."""
    return state_dir() / "snapshots" / fabric


def ssh_dir() -> Path:
    """This host's own key to guests."""
    return state_dir() / "ssh"


def console_dir(fabric: str) -> Path:
    """A folder for each of its VMs: what it printed on its serial console."""
    return state_dir() / "consoles" / fabric


def history_file() -> Path:
    """What was seen and dropped, kept when fabrics go: an SQLite database of bounded size."""
    return state_dir() / "history" / "history.db"


def log_dir(fabric: str) -> Path:
    """What its rules logged, kept when the fabric goes."""
    return state_dir() / "policy-log" / fabric


def event_dir() -> Path:
    """What happened to the fabrics of this host."""
    return state_dir() / "events"


def mirror_dir(fabric: str) -> Path:
    """What its mirrors record, kept when the fabric goes."""
    return state_dir() / "mirrors" / fabric


def service_dir(fabric: str) -> Path:
    """A folder for each of its networks whose guests are answered: dnsmasq's files, leases too."""
    return state_dir() / "services" / fabric


def gateway_dir(fabric: str) -> Path:
    """A file for each of its routers with a way out: what was put, and what the host had before."""
    return state_dir() / "gateways" / fabric


def borrowed_settings() -> Path:
    """What settings of the kernel were before vnet changed them for gateways; a reboot changes them back."""
    return run_dir() / "settings.json"


def netns(fabric: str) -> str:
    """The network namespace that holds the fabric's ports."""
    return f"{os.environ.get('VNET_NETNS_PREFIX', 'vnet-')}{fabric}"
