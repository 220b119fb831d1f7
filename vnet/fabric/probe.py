"""Probes as shell scripts for guests, and their outcome read back: `vnet verify --probe`.

Three rounds, each one script per guest, all guests at once: targets listen, sources connect, targets
tell what came and stop listening. Connections are tried side by side, so the whole takes as long as
the slowest: the time that a forbidden one is waited for.

The tools are those of the micro image: netcat-openbsd, and ping of busybox.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from vnet.base.protocols import SERVICE_PROTOCOLS
from vnet.openflow.fields import TCP, UDP
from vnet.policy.probes import Probe

WAIT_S = 3
"""How long a connection is waited for: enough for one repeated SYN (1 s) on a busy host."""
NC = "nc.openbsd"
DIRECTORY = "/tmp/vnet-probe"
AT_ONCE = 24
"""Connections that one guest tries side by side; each is a process of its own."""


@dataclass(frozen=True, slots=True, order=True)
class Attempt:
    """One connection to try, however many claims ask for it."""

    source_vm: str
    source: str
    target_vm: str
    target: str
    protocol: int
    port: int

    def __str__(self) -> str:
        name = SERVICE_PROTOCOLS.get(self.protocol, str(self.protocol))
        where = f"[{self.target}]" if ":" in self.target else self.target
        port = f":{self.port}" if self.port else ""
        return f"{self.source_vm} ({self.source}) → {self.target_vm} {where}{port}/{name}"


def attempt(probe: Probe) -> Attempt:
    """The connection that a probe asks for."""
    ends = probe.source_vm, str(probe.source_address), probe.target_vm, str(probe.target_address)
    return Attempt(*ends, probe.protocol, probe.port)


def attempts(probes: Iterable[Probe]) -> tuple[Attempt, ...]:
    """Every connection once, in order."""
    return tuple(dict.fromkeys(map(attempt, probes)))


def listeners(tries: Sequence[Attempt]) -> Mapping[str, str]:
    """By target VM, the script that opens every port that somebody will try.

    A port that a service of the guest holds already is as good: the listener's failure is no failure.
    """
    lines: dict[str, list[str]] = defaultdict(list)
    for protocol, vm, address, port in dict.fromkeys(
        (t.protocol, t.target_vm, t.target, t.port) for t in tries
    ):
        if protocol in (TCP, UDP):
            udp = "-u " if protocol == UDP else ""
            heard = f"{DIRECTORY}/heard" if protocol == UDP else "/dev/null"
            lines[vm].append(
                f"{NC} {udp}-d -l -k {address} {port} >>{heard} 2>/dev/null & echo $! >>{DIRECTORY}/pids"
            )
    begin = f"rm -rf {DIRECTORY}; mkdir -p {DIRECTORY}; : >{DIRECTORY}/heard; : >{DIRECTORY}/pids"
    return {vm: "\n".join([begin, *commands, "sleep 0.3"]) for vm, commands in lines.items()}


def clients(tries: Sequence[Attempt]) -> Mapping[str, str]:
    """By source VM, the script that tries its connections; it prints `NUMBER EXIT-CODE` for each.

    The number is the attempt's place in `tries`.
    """
    commands: dict[str, list[str]] = defaultdict(list)
    for number, one in enumerate(tries):
        commands[one.source_vm].append(f"( {_client(number, one)}; echo {number} $? ) 2>/dev/null &")
    return {vm: "\n".join(_in_batches(lines)) for vm, lines in commands.items()}


def _in_batches(lines: list[str]) -> Iterable[str]:
    for start in range(0, len(lines), AT_ONCE):
        yield from lines[start : start + AT_ONCE]
        yield "wait"


def _client(number: int, one: Attempt) -> str:
    match one.protocol:
        case protocol if protocol == TCP:
            return f"{NC} -z -w {WAIT_S} -s {one.source} {one.target} {one.port} >/dev/null"
        case protocol if protocol == UDP:
            to = f"-s {one.source} {one.target} {one.port}"
            send = f"printf '{token(number)}\\n' | {NC} -u -q 0 -w 1 {to} >/dev/null"
            return f"{send}; sleep 1; {send}"
        case _:
            return f"ping -c 2 -W {WAIT_S - 1} -I {one.source} {one.target} >/dev/null"


def collectors(tries: Sequence[Attempt]) -> Mapping[str, str]:
    """By target VM, the script that prints what came by UDP and ends the listeners."""
    vms = dict.fromkeys(one.target_vm for one in tries if one.protocol in (TCP, UDP))
    return dict.fromkeys(
        vms, f"kill $(cat {DIRECTORY}/pids) 2>/dev/null; cat {DIRECTORY}/heard; rm -rf {DIRECTORY}"
    )


def token(number: int) -> str:
    """What a UDP attempt sends, so that the target can say which one came."""
    return f"vnet-probe-{number}."


def passed(
    tries: Sequence[Attempt], outputs: Mapping[str, str], heard: Mapping[str, str]
) -> Mapping[Attempt, bool]:
    """Which attempts got through.

    Args:
        outputs: by source VM, what `clients` printed.
        heard: by target VM, what `collectors` printed.
    """
    codes: dict[int, int] = {}
    for output in outputs.values():
        pairs = (line.split() for line in output.splitlines())
        codes |= {
            int(pair[0]): int(pair[1]) for pair in pairs if len(pair) == 2 and all(map(str.isdigit, pair))
        }
    return {
        one: token(number) in heard.get(one.target_vm, "")
        if one.protocol == UDP
        else codes.get(number, 1) == 0
        for number, one in enumerate(tries)
    }
