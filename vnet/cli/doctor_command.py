"""`vnet doctor`: what is wrong with this host, its daemon and its fabrics, and the command that mends it."""

from __future__ import annotations

from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING

import typer

from vnet import __version__
from vnet.base.errors import Exit, HostError, PeerError, TimedOut, VnetError
from vnet.cli.client import Client
from vnet.cli.options import Settings, command
from vnet.cli.output import Format, document, emit

if TYPE_CHECKING:
    from vnet.fabric.doctor import Finding
    from vnet.fabric.symptoms import DaemonSeen

ANSWER_S = 8.0
"""A daemon that takes longer hangs: it waits for guests for two seconds at most."""


def register(app: typer.Typer) -> None:
    """Add this command."""
    command(app)(doctor)


def doctor(settings: Settings) -> int:
    """Tell what is wrong here, and the command that mends it.

    Of this host, its daemon, its fabrics, and what these have left behind. Works without a daemon too. Root
    sees all of it. Exit code 1 when something is broken.
    """
    from vnet.fabric.doctor import diagnose, is_broken
    from vnet.fabric.live.examine import examine

    try:
        daemon = _daemon(settings)
    except HostError as error:
        daemon = _refused(str(error))
    found = (*_needs(), *diagnose(examine(daemon)))
    if settings.name or settings.file:
        found = tuple(each for each in found if each.fabric in ("", settings.fabric))
    if settings.output in (Format.JSON, Format.YAML):
        document([asdict(each) for each in found], settings.output)
    else:
        _tell(found, settings.output is Format.WIDE)
    return Exit.FAILED if is_broken(found) else Exit.OK


def _needs() -> tuple[Finding, ...]:
    """What a fabric needs of the host, as findings."""
    from vnet.fabric.doctor import Finding, Level
    from vnet.fabric.live.host import checks

    bad = {True: Level.BROKEN, False: Level.WARNING}
    return tuple(
        Finding("host", "", each.name, Level.OK, each.detail)
        if each.ok
        else Finding("host", "", each.name, bad[each.needed], each.detail, each.hint)
        for each in checks()
    )


def _tell(found: tuple[Finding, ...], is_wide: bool) -> None:
    """What is wrong line by line; what is well in one line for each fabric, unless all is wanted."""
    from vnet.fabric.doctor import Level

    marks = {Level.OK: "ok  ", Level.WARNING: "warn", Level.BROKEN: "FAIL"}
    for fabric, each in groupby(found, key=lambda finding: finding.fabric):
        findings = list(each)
        well = [finding for finding in findings if finding.level is Level.OK]
        for finding in findings:
            if finding.level is not Level.OK or is_wide or not fabric:
                emit(f"{marks[finding.level]} {_sentence(finding)}")
                if finding.mend:
                    emit(f"     {finding.mend}")
        if fabric and len(well) == len(findings) and not is_wide:
            emit(f"ok   {fabric}: {len(well)} checks")


def _sentence(finding: Finding) -> str:
    whom = " ".join(filter(None, dict.fromkeys((finding.fabric, finding.subject))))
    return f"{whom}: {finding.text}"


# ---- what the daemon says --------------------------------------------------------------------


def _daemon(settings: Settings) -> DaemonSeen:
    """Raises HostError if this user may not ask it."""
    from vnet.fabric.live.examine import lock_holder
    from vnet.fabric.symptoms import DaemonSeen

    client = Client(timeout_s=settings.timeout_s or ANSWER_S)
    pid, socket = lock_holder(), str(client.path)
    if not client.alive():
        return DaemonSeen(socket, __version__, pid)
    try:
        version = client.get("/v1/version")
        return _answering(client, socket, version)
    except TimedOut:
        why = f"has not answered for {client.timeout_s:g} s"
    except VnetError as error:
        why = f"does not answer: {error}"
    return DaemonSeen(socket, __version__, pid, True, why)


def _answering(client: Client, socket: str, version: dict[str, str | int]) -> DaemonSeen:
    """What a daemon says; one of another version may not know the questions."""
    from vnet.fabric.numbers import from_json
    from vnet.fabric.strain import strain_of
    from vnet.fabric.symptoms import DaemonSeen

    about = socket, __version__, int(version["pid"]), True, "", str(version["version"])
    try:
        numbers = from_json(client.get("/v1/numbers"))
        strains = tuple(map(strain_of, client.get("/v1/strains")))
        silent = frozenset((each["fabric"], each["vm"]) for each in client.get("/v1/silent"))
    except (PeerError, TypeError, KeyError, ValueError):
        return DaemonSeen(*about)
    return DaemonSeen(*about, numbers, silent, strains)


def _refused(why: str) -> DaemonSeen:
    from vnet.fabric.symptoms import DaemonSeen

    return DaemonSeen(str(Client().path), __version__, listens=True, problem=f"may not be asked: {why}")
