"""The incidents of docs/manual/debugging.md really happen, and the commands really print what stands there.

Times, ports of clients and process ids are made the same. `GOLDEN=rewrite` writes the page anew.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.vm.fabric_lab import ROOT, Lab, lab
from tests.waiting import until

PAGE = ROOT / "docs" / "manual" / "debugging.md"
BLOCK = "<!-- incident: {} -->\n(.*?)<!-- end -->"


@dataclass(frozen=True)
class Incident:
    """What goes wrong, where, and how it is undone; what one looks at: `|` filters lines as `grep` does."""

    name: str
    break_it: tuple[tuple[str, str], ...]
    look: tuple[str, ...]
    mend: tuple[tuple[str, str], ...] = ()


INCIDENTS = (
    Incident(
        "spoofed",
        (("web", "ip addr add 10.1.0.99/24 dev eth0; ping -c 1 -W 1 -I 10.1.0.99 10.1.0.3"),),
        ("vnet drops | SPOOF_IP", "vnet policy explain web app icmp | 10.1.0.2"),
        (("web", "ip addr del 10.1.0.99/24 dev eth0"),),
    ),
    Incident(
        "egress",
        (("web", "nc -w 1 10.2.0.3 5432 </dev/null"),),
        (
            "vnet drops | 5432",
            "vnet policy explain web db 5432/tcp",
            r"vnet trace web db 5432/tcp | dropped\|would be",
            "vnet policy suggest --vm db",
        ),
    ),
    Incident(
        "vlan",
        (("app", "ip route add 10.2.0.3/32 dev eth0; ping -c 1 -W 1 10.2.0.3"),),
        ("vnet drops | who has 10.2.0.3", "vnet exec app ip route", "vnet policy explain app db icmp"),
        (("app", "ip route del 10.2.0.3/32 dev eth0"),),
    ),
    Incident(
        "mtu",
        (("web", "ip link set eth0 mtu 9000; ping -c 1 -W 1 -s 3000 10.1.0.3"),),
        ("vnet drops | MTU", "vnet exec web ip link | eth0"),
        (("web", "ip link set eth0 mtu 1500"),),
    ),
    Incident(
        "asymmetric",
        (
            ("app", "ip route add 10.1.0.2/32 dev eth1"),
            ("web", "ping -c 1 -W 1 10.1.0.3"),
        ),
        ("vnet drops | who has 10.1.0.2", "vnet exec app ip route"),
        (("app", "ip route del 10.1.0.2/32 dev eth1"),),
    ),
)


@pytest.fixture(scope="module")
def host() -> Iterator[Lab]:
    with lab() as made:
        run(made, "up", "-q")
        yield made


def run(host: Lab, *words: str) -> str:
    """All that a command prints, in the folder of the page."""
    command = [sys.executable, "-m", "vnet", *words]
    done = subprocess.run(
        command,
        cwd=PAGE.parent,
        env=host.environment | {"VNET_FILE": "incidents.vnet.yaml"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    return done.stdout


def do(host: Lab, steps: tuple[tuple[str, str], ...]) -> Iterator[str]:
    """The commands in the guests, as the page shows them."""
    for vm, script in steps:
        run(host, "exec", vm, "--", "sh", "-c", f"{script}; true")
        for each in script.replace(" </dev/null", "").split("; "):
            yield f"{vm}# {each}"


def shown(host: Lab, command: str, is_there: Callable[[str], bool]) -> Iterator[str]:
    """A command and what it prints; what is reported a moment later is waited for."""
    words, _, wanted = command.partition(" | ")
    parts = wanted.split(r"\|")
    output = until(lambda: run(host, *words.split()[1:]), every_s=0.2, holds=is_there)
    yield f"$ {words}" + (f" | grep '{wanted}'" if wanted else "")
    lines = [settled(line) for line in output.splitlines() if any(part in line for part in parts)]
    yield from dict.fromkeys(lines)


def settled(line: str) -> str:
    """Without what is another each time."""
    line = re.sub(r"\d\d:\d\d:\d\d\.\d{6}", "14:03:21.482113", line)
    line = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d( to (\d{4}-\d\d-\d\d )?\d\d:\d\d)?", "2026-11-28 14:03", line)
    line = re.sub(r"(\d+\.\d+\.\d+\.\d+):[345678]\d{4} >", r"\1:40112 >", line)
    line = re.sub(r"^(MTU +|SPOOF_IP +)\d+( +)", r"\g<1>1\2", line)
    return re.sub(r"\d+ packets? denied", "1 packet denied", line).rstrip()


def told(host: Lab, incident: Incident) -> str:
    """What the page should hold."""
    lines = list(do(host, incident.break_it))
    for command in incident.look:
        wanted = command.partition(" | ")[2].partition(r"\|")[0]
        lines += ["", *shown(host, command, lambda output, wanted=wanted: wanted in output)]
    return "\n".join(("```", *lines, "```", ""))


@pytest.mark.parametrize("incident", INCIDENTS, ids=lambda each: each.name)
def test_an_incident_looks_as_the_page_says(host: Lab, incident: Incident) -> None:
    try:
        real = told(host, incident)
    finally:
        list(do(host, incident.mend))
    page = PAGE.read_text(encoding="utf-8")
    written = re.search(BLOCK.format(incident.name), page, re.DOTALL)
    assert written
    if os.environ.get("GOLDEN") == "rewrite":
        page = page[: written.start(1)] + real + page[written.end(1) :]
        PAGE.write_text(page, encoding="utf-8")
        return
    assert real == written[1]
