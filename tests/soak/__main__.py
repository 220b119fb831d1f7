"""`python -m tests.soak [--vms 50] [--rounds 10]`: VMs up, `vnet verify`, down; 1 after a leak.

The daemon lives through all rounds. What it holds and what is on the host are compared: the first half of the
rounds fills what is made once and what is kept up to a bound, from then on nothing may grow.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.vm.fabric_lab import PREFIX, ROOT, Lab, lab

TEXT = """\
name: soak
defaults: {{image: micro, cpus: 1, memory: 96M}}
networks: {{front: {{vlan: 10, subnets: 10.10.0.0/24}}, back: {{vlan: 20, subnets: 10.20.0.0/24}}}}
vms:
  web: {{networks: [front], groups: [web], replicas: {web}}}
  app: {{networks: [front, back], groups: [app], replicas: {app}}}
policies:
  - {{name: app-from-web, applied_to: app, ingress: [{{from: web, ports: [8080/tcp, icmp]}}]}}
verify: ["allow web -> app:8080/tcp", "deny app -> web", "deny web -> app:22/tcp"]
"""
GROWS_BYTES = 24 << 20
"""What the daemon's memory may differ by: garbage that waits to be collected."""
FDS = 6
"""So many descriptors may be those of connections that are just being closed."""


def holds(host: Lab) -> dict[str, int]:
    """What there is of this lab: of its daemon, and of its VMs on the host."""
    pid = int((host.directory / "run" / "vnetd.lock").read_text())
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
    )
    left = host.left_over()
    return {
        "daemon memory": int(status["VmRSS"].split()[0]) << 10,
        "daemon descriptors": len(list(Path(f"/proc/{pid}/fd").iterdir())),
        "daemon threads": int(status["Threads"]),
        "eBPF maps and programs of the daemon": _bpf(pid),
        "memory files": sum("memfd" in str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir()),
        "processes": len(left["processes"]),
        "namespaces": len(list(Path("/run/netns").glob(f"{PREFIX}*"))),
        "pins": len(left["pins"]),
        "control groups": len(list(Path("/sys/fs/cgroup").glob("**/vnet-soak*"))),
        "folders": len(left["run"]) + len(left["services"]) + len(left["gateways"]),
    }


def _bpf(pid: int) -> int:
    """By what the kernel says of its descriptors. Source: bpf(2), fdinfo."""
    found = 0
    for each in Path(f"/proc/{pid}/fdinfo").iterdir():
        try:
            text = each.read_text()
        except OSError:
            continue
        found += "map_id:" in text or "prog_id:" in text
    return found


def available_bytes() -> int:
    """What the host could still give."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))


@contextmanager
def _serving(host: Lab) -> Iterator[None]:
    """A daemon that does not end when it has nothing to do."""
    with (host.directory / "served.log").open("wb") as log:
        daemon = subprocess.Popen(
            [sys.executable, "-m", "vnet", "serve"], stdout=log, stderr=log, env=host.environment, cwd=ROOT
        )
    while not (host.directory / "run" / "vnetd.sock").exists():
        assert daemon.poll() is None, (host.directory / "served.log").read_text()
        time.sleep(0.1)
    try:
        yield
    finally:
        daemon.terminate()
        daemon.wait(timeout=60)


def _round(host: Lab, file: Path) -> tuple[float, float, float, int]:
    """One: how long each part took, and how much memory VMs took that run."""
    before, began = available_bytes(), time.monotonic()
    host.vnet("up", "-f", str(file))
    up_s, began = time.monotonic() - began, time.monotonic()
    taken = before - available_bytes()
    verdicts = json.loads(host.vnet("verify", "-n", "soak", "-o", "json"))
    assert verdicts
    verify_s, began = time.monotonic() - began, time.monotonic()
    host.vnet("down", "-n", "soak")
    return up_s, verify_s, time.monotonic() - began, taken


def leaks(first: Mapping[str, int], last: Mapping[str, int]) -> list[str]:
    """What has grown from one round to a later one."""
    slack = {"daemon memory": GROWS_BYTES, "daemon descriptors": FDS, "daemon threads": 2}
    return [
        f"{name}: {first[name]} -> {last[name]}"
        for name in first
        if last[name] > first[name] + slack.get(name, 0)
    ]


def main() -> int:
    """Up, verified, down, so many times."""
    parser = argparse.ArgumentParser(prog="tests.soak")
    parser.add_argument("--vms", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=10)
    given = parser.parse_args()
    with lab() as host, _serving(host):
        file = host.directory / "soak.vnet.yaml"
        file.write_text(TEXT.format(web=given.vms - given.vms // 2, app=given.vms // 2))
        found = []
        for number in range(1, given.rounds + 1):
            up_s, verify_s, down_s, taken = _round(host, file)
            found.append(holds(host))
            print(
                f"round {number}: up {up_s:.1f} s, verify {verify_s:.1f} s, down {down_s:.1f} s,"
                f" {taken / given.vms / (1 << 20):.0f} MiB for each VM, then {json.dumps(found[-1])}",
                flush=True,
            )
    grown = leaks(found[len(found) // 2], found[-1])
    print("no leak" if not grown else "\n".join(f"LEAK {each}" for each in grown), flush=True)
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
