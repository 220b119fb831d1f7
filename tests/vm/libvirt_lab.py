"""A libvirtd of its own: private folders in a mount namespace, in the namespace that plays the host.

What a host's libvirtd has is hidden from it and untouched. /dev/kvm is hidden too: its guests are emulated.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vnet.hv.agent import PORT_NAME
from vnet.hv.live.agent_client import AgentClient

QEMU_CONF = """\
security_driver = "none"
cgroup_controllers = []
namespaces = []
remember_owner = 0
stdio_handler = "file"
"""
FOLDERS = {"etc": "/etc/libvirt", "run": "/run/libvirt", "lib": "/var/lib/libvirt", "log": "/var/log/libvirt",
           "cache": "/var/cache/libvirt"}  # fmt: skip
START = """\
mount --make-rprivate /
dev=$1
shift
mkdir -p $dev/net $dev/pts $dev/shm
for each in null zero full random urandom tty net/tun; do
    touch $dev/$each
    mount --bind /dev/$each $dev/$each
done
mount --bind /dev/pts $dev/pts
ln -s pts/ptmx $dev/ptmx
ln -s /proc/self/fd $dev/fd
mount --rbind $dev /dev
while [ "$1" != -- ]; do mount --bind "$1" "$2"; shift 2; done
shift
exec "$@"
"""
DOMAIN = """\
<domain type='qemu'>
  <name>{name}</name>
  <memory unit='MiB'>128</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{folder}/vmlinuz</kernel>
    <initrd>{folder}/initrd</initrd>
    <cmdline>console=ttyS0 quiet nokaslr mitigations=off tsc=reliable no_timer_check panic=-1</cmdline>
  </os>
  <features><acpi/></features>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <interface type='ethernet'>
      <mac address='{mac}'/>
      <target dev='{tap}' managed='no'/>
      <model type='virtio'/>
    </interface>
    <channel type='unix'>
      <source mode='bind' path='/var/lib/libvirt/qemu/{name}.sock'/>
      <target type='virtio' name='{port}'/>
    </channel>
    <serial type='file'><source path='/var/log/libvirt/{name}.log'/></serial>
    <memballoon model='none'/>
  </devices>
</domain>
"""


class Libvirt:
    """A libvirtd that runs, and its domains."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.daemon: subprocess.Popen[bytes] | None = None
        self._uri = f"qemu+unix:///system?socket={folder}/run/libvirt-sock"

    def wait(self) -> None:
        """Until it answers."""
        deadline_s = time.monotonic() + 60
        while not (self.folder / "run" / "libvirt-sock").exists():
            log = (self.folder / "libvirtd.log").read_text()[-2000:]
            assert self.daemon is not None and self.daemon.poll() is None, f"libvirtd ended: {log}"
            assert time.monotonic() < deadline_s, f"libvirtd does not listen: {log}"
            time.sleep(0.1)
        self.virsh("version")

    def virsh(self, *words: str) -> str:
        """What a command of virsh printed."""
        done = subprocess.run(
            ["virsh", "-q", "-c", self._uri, *words], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, f"virsh {' '.join(words)}: {done.stderr}"
        return done.stdout

    def create(self, name: str, tap: str, mac: str) -> None:
        """Launch a domain of the micro guest whose only NIC is the TAP."""
        file = self.folder / f"{name}.xml"
        file.write_text(DOMAIN.format(name=name, folder=self.folder, tap=tap, mac=mac, port=PORT_NAME))
        self.virsh("create", str(file))

    def run(self, name: str, command: str, timeout_s: float = 60) -> tuple[int, str]:
        """Exit code and output of a command in a domain, by the guest's own agent: no network is asked."""
        path = self.folder / "lib" / "qemu" / f"{name}.sock"

        async def ask() -> tuple[int, str]:
            agent = await AgentClient.connect(path, timeout_s=timeout_s)
            try:
                done = await agent.run(["sh", "-c", command], stdin=b"", timeout_s=timeout_s)
            finally:
                await agent.close()
            return done.exit_code, (done.stdout + done.stderr).decode()

        return asyncio.run(ask())


@contextmanager
def libvirtd(folder: Path, image: Path, within: str) -> Iterator[Libvirt]:
    """Start one in a namespace; all of its domains end with it. `image` has the micro guest.

    It takes its time to look at QEMU: `wait` for it before it is used.
    """
    made = Libvirt(_prepared(folder, image))
    binds = [word for name, place in FOLDERS.items() for word in (f"{folder}/{name}", place)]
    enter = ["nsenter", f"--net=/run/netns/{within}", "unshare", "--mount"]
    words = [*enter, "sh", "-ec", START, "sh", f"{folder}/dev", *binds, "--"]
    with (folder / "libvirtd.log").open("wb") as log:
        daemon = subprocess.Popen([*words, "libvirtd"], stdout=log, stderr=log, start_new_session=True)
    try:
        made.daemon = daemon
        yield made
    finally:
        for pid in (int(each.read_text()) for each in (folder / "run" / "qemu").glob("*.pid")):
            os.kill(pid, signal.SIGKILL)
        daemon.terminate()
        daemon.wait(timeout=20)


def _prepared(folder: Path, image: Path) -> Path:
    for name, place in FOLDERS.items():
        (folder / name).mkdir(parents=True)
        Path(place).mkdir(parents=True, exist_ok=True)
    (folder / "etc" / "qemu.conf").write_text(QEMU_CONF)
    (folder / "etc" / "libvirtd.conf").write_text('auth_unix_rw = "none"\nauth_unix_ro = "none"\n')
    for path in (folder, *folder.parents):
        if path.is_relative_to("/tmp") and path != Path("/tmp"):
            path.chmod(0o755)  # its QEMU runs as libvirt-qemu
    for name in ("vmlinuz", "initrd"):  # libvirt gives them to its user
        shutil.copyfile(image / name, folder / name)
    return folder
