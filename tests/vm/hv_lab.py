"""A place for guests of one test module: own folders, own namespace with a bridge, and a check at the end.

Run as a program it is a manager to be killed: `python -m tests.vm.hv_lab NAMESPACE NUMBER... [reset]` starts
guests, prints "ready", resets them if told to, and waits.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Interface, IPv6Interface
from pathlib import Path

from pyroute2 import NetNS, netns

from vnet.base import paths
from vnet.hv.live.manager import HvManager
from vnet.hv.spec import GuestEvent, GuestNic, GuestSpec

FABRIC = os.environ.setdefault("VNET_HVLAB", f"hvlab{os.getpid()}")
"""Of its own for each run, the managers that it kills included: control groups are named by it."""
MEMORY_BYTES = 96 << 20
_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x2, 0x1000, 0x4000


def spec(number: int, *, nics: int = 1) -> GuestSpec:
    """Guest number n is vm-n, with 10.9.K.n and fd09:K::n on its NIC K."""
    return GuestSpec(
        FABRIC,
        f"vm-{number}",
        "micro",
        1,
        MEMORY_BYTES,
        tuple(
            GuestNic(
                name=f"vm-{number}.eth{k}",
                interface=f"eth{k}",
                mac=0x525400090000 + k * 256 + number,
                addresses=(
                    IPv4Interface(f"10.9.{k}.{number}/24"),
                    IPv6Interface(f"fd09:{k}::{number}/64"),
                ),
                mtu=1500 - 50 * k,
            )
            for k in range(nics)
        ),
    )


def open_tap(namespace: str, nic: str) -> int:
    """Opens a persistent TAP in a namespace, as the fabric does for its ports."""
    netns.pushns(namespace)
    try:
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        name = nic.replace("vm-", "t").replace(".eth", "e").encode()
        request = struct.pack("16sH22x", name, _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR)
        fcntl.ioctl(descriptor, _TUNSETIFF, request)
        return descriptor
    finally:
        netns.popns()


class Lab:
    """Guests and what they need. `run` runs a coroutine in the lab's own event loop."""

    def __init__(self, namespace: str, *, warm: bool = True) -> None:
        self.namespace = namespace
        self.events: list[GuestEvent] = []
        self.progress: list[str] = []
        self._runner = asyncio.Runner()
        self._warm = warm
        self.manager = self.new_manager()

    def new_manager(self) -> HvManager:
        async def make() -> HvManager:
            return HvManager(self.events.append, warm=self._warm)

        return self.run(make())

    def run(self, coroutine):
        return self._runner.run(coroutine)

    def start(self, *specs: GuestSpec):
        async def start_all():
            return await asyncio.gather(
                *(self.manager.start(one, self.open_tap, self.progress.append) for one in specs)
            )

        return self.run(start_all())

    def open_tap(self, nic: str) -> int:
        return open_tap(self.namespace, nic)

    def exec(self, number: int, *argv: str, stdin: bytes = b"", timeout_s: float = 60):
        return self.run(self.manager.exec(FABRIC, f"vm-{number}", list(argv), stdin, timeout_s))

    def status(self, number: int):
        return self.run(self.manager.status(FABRIC, f"vm-{number}"))

    def settle(self, seconds: float = 0.5) -> None:
        self.run(asyncio.sleep(seconds))

    def close(self) -> None:
        for name in {path.stem for path in (paths.fabric_run_dir(FABRIC) / "vms").glob("*")}:
            self.run(self.manager.destroy(FABRIC, name))
        self.run(self.manager.close())
        self._runner.close()


@contextmanager
def lab(*, warm: bool = True) -> Iterator[Lab]:
    """A lab that fails if it leaves anything."""
    run_dir, state_dir = (tempfile.mkdtemp(prefix="vnet-hv-", dir="/tmp") for _ in range(2))
    Path(run_dir).chmod(0o755)
    images = Path(os.environ.get("VNET_TEST_IMAGES", paths.image_dir()))
    images.mkdir(parents=True, exist_ok=True)
    Path(state_dir, "images").symlink_to(images)
    before = {name: os.environ.get(name) for name in ("VNET_RUN_DIR", "VNET_STATE_DIR")}
    os.environ |= {"VNET_RUN_DIR": run_dir, "VNET_STATE_DIR": state_dir}
    namespace = f"vnet-hvlab-{uuid.uuid4().hex[:6]}"
    _make_namespace(namespace)
    made = Lab(namespace, warm=warm)
    try:
        yield made
    finally:
        try:
            made.close()
            left = left_over(run_dir)
        finally:
            netns.remove(namespace)
            shutil.rmtree(run_dir)
            shutil.rmtree(state_dir)
            for name, value in before.items():
                os.environ.pop(name)
                os.environ |= {name: value} if value is not None else {}
        assert left == [], left


def _make_namespace(name: str) -> None:
    netns.create(name)
    with NetNS(name) as ip:
        ip.link("add", ifname="br0", kind="bridge")
        bridge = ip.link_lookup(ifname="br0")[0]
        ip.link("set", index=bridge, state="up")
        for number in range(1, 6):
            for k in range(2):
                ip.link(
                    "add",
                    ifname=f"t{number}e{k}",
                    kind="tuntap",
                    mode="tap",
                    ifr={"no_pi": 1, "one_queue": 0, "vnet_hdr": 1, "multi_queue": 0},
                )
                tap = ip.link_lookup(ifname=f"t{number}e{k}")[0]
                ip.link("set", index=tap, master=bridge, state="up")


def carrier(namespace: str, tap: str) -> bool:
    """Whether somebody holds the TAP open."""
    with NetNS(namespace) as ip:
        return bool(ip.get_links(ip.link_lookup(ifname=tap)[0])[0].get_attr("IFLA_CARRIER"))


def processes(run_dir: str) -> list[str]:
    """Command lines of processes that belong to a lab."""
    found = subprocess.run(
        ["pgrep", "-af", f"^qemu-system-x86_64 .*{run_dir}"], capture_output=True, text=True
    )
    return found.stdout.splitlines()


def left_over(run_dir: str) -> list[str]:
    """Everything of a lab that outlived it."""
    files = [str(path) for path in Path(run_dir).rglob("*") if path.name not in ("fabrics", "templates")]
    groups = [str(path) for path in Path("/sys/fs/cgroup").rglob(f"vnet-{FABRIC}")]
    return files + groups + processes(run_dir)


async def _manage(namespace: str, numbers: list[int], resets: bool) -> None:
    manager = HvManager()
    for number in numbers:
        await manager.start(spec(number), lambda nic: open_tap(namespace, nic))
    print("ready", flush=True)
    for number in numbers if resets else ():
        await manager.reset(FABRIC, f"vm-{number}")
    await asyncio.sleep(600)


if __name__ == "__main__":
    words = sys.argv[2:]
    asyncio.run(_manage(sys.argv[1], [int(word) for word in words if word != "reset"], "reset" in words))
