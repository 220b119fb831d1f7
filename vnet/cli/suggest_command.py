"""`vnet policy suggest`: the rules that are missing for what was seen, as a change of the topology file."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from vnet.base.errors import Exit, UsageError
from vnet.cli import files
from vnet.cli.client import path
from vnet.cli.duration import moment_ns
from vnet.cli.file_edits import source_and_name, write_texts
from vnet.cli.options import Settings
from vnet.cli.output import Format, document, tell

if TYPE_CHECKING:
    from vnet.fabric.evidence import Apart
    from vnet.fabric.seen import Seen
    from vnet.fabric.store import Source
    from vnet.fabric.suggested import Report
    from vnet.topology.inventory import Assignment

LISTED_MAX = 12
"""So many lines of each kind are told; `-o json` has all."""


def suggest(
    settings: Settings,
    since: Annotated[
        str | None,
        typer.Option(
            "--since", metavar="TIME", help="14:03, 2026-11-28T14:03, or 2h ago as 2h; 24h if left out."
        ),
    ] = None,
    flows: Annotated[
        str | None, typer.Option("--flows", metavar="FILE", help="Flows as JSON Lines, - is standard input.")
    ] = None,
    vm: Annotated[list[str] | None, typer.Option("--vm", help="Only what this VM sends or gets.")] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Change the file instead of printing a diff.")
    ] = False,
    diff: Annotated[
        bool, typer.Option("--diff", help="Print a diff of the file (so it is without).")
    ] = False,
    generalize: Annotated[
        bool, typer.Option("--generalize", help="All replicas for some, groups for half of their members.")
    ] = False,
    ranges: Annotated[
        bool, typer.Option("--ranges", help="Ports that follow each other as a range.")
    ] = False,
    overrule: Annotated[
        bool, typer.Option("--overrule", help="Also what a rule denies or rejects by name.")
    ] = False,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit 3 when something is suggested.")
    ] = False,
) -> int:
    """Draft the rules that are missing for what was denied or audited: a diff of the topology file.

    Nothing is opened that was not seen; what a claim or a rule forbids by name is listed, not suggested.
    """
    if write and diff:
        raise UsageError("--write changes the file, --diff prints what would change: give one of them")
    from vnet.capture.comment import MEANING
    from vnet.fabric.suggested import Question, report
    from vnet.policy.suggest import Options

    now = datetime.now(UTC)
    source, name = source_and_name(settings)
    seen = _given(flows, now) if flows else _from_daemon(settings, name, since, now)
    known = _known_vms(vm or (), source, now)
    found = report(
        Question(
            source,
            seen,
            now,
            Options(overrule, generalize, ranges),
            known,
            {} if flows else _assigned(settings, name),
            {reason.name: text for reason, text in MEANING.items()},
        )
    )
    if write:
        write_texts(found.texts)
    _tell(settings, found, len(seen), write)
    return Exit.CHANGES if exit_code and found.rules else Exit.OK


# -- what is asked --------------------------------------------------------------------------------


def _given(flows: str, now: datetime) -> tuple[Seen, ...]:
    from vnet.fabric.seen_lines import read

    return read(files.text_of(flows).splitlines(), "(stdin)" if flows == "-" else flows, now)


def _from_daemon(settings: Settings, name: str, since: str | None, now: datetime) -> tuple[Seen, ...]:
    from vnet.fabric.seen_lines import read

    since_s = since and moment_ns(since, "--since", datetime.now()) / 1e9
    stream = settings.daemon().read(path("fabrics", name, "seen"), since_s=since_s)
    return read(b"".join(stream).decode().splitlines(), "(vnetd)", now)


def _assigned(settings: Settings, name: str) -> Mapping[str, Assignment]:
    """What the NICs of the fabric were given."""
    from ipaddress import ip_interface

    from vnet.topology.inventory import Assignment

    vms = settings.daemon().get(path("fabrics", name))["vms"]
    return {
        nic["name"]: Assignment(
            nic["port"], int(nic["mac"].replace(":", ""), 16), tuple(map(ip_interface, nic["addresses"]))
        )
        for vm in vms
        for nic in vm["nics"]
    }


def _known_vms(wanted: Sequence[str], source: Source, now: datetime) -> tuple[str, ...]:
    """Raises UsageError for a VM that the file does not declare."""
    from vnet.fabric.declared import load
    from vnet.topology.inventory import instances

    if wanted:
        topology = load(source)
        known = {name for spec in topology.vms.values() for name in (spec.name, *instances(spec))}
        for name in wanted:
            if name not in known:
                raise UsageError(f"--vm {name}: there is no VM {name}; VMs: {', '.join(topology.vms)}")
    return tuple(wanted)


# -- what is told ---------------------------------------------------------------------------------


def _tell(settings: Settings, found: Report, seen: int, written: bool) -> None:
    if settings.output in (Format.JSON, Format.YAML):
        from vnet.fabric.suggestion_json import plain

        document(plain(found), settings.output)
        return
    if not written:
        sys.stdout.write(found.diff)
        sys.stdout.flush()
    for line in in_words(found, seen, written):
        tell(line)


def in_words(found: Report, seen: int, written: bool) -> Iterator[str]:
    """What is suggested and what not, for people, of so many flows seen."""
    from vnet.fabric.suggested import packets
    from vnet.policy.matrix import words

    if found.rules:
        where = "written to" if written else "for"
        count = f"{len(found.rules)} rule{'' if len(found.rules) == 1 else 's'}"
        yield f"{found.fabric}: {count} {where} {', '.join(sorted(found.texts))}; none can be left out"
    else:
        yield f"{found.fabric}: nothing to suggest: {_why_nothing(found, seen)}"
    if found.narrowed:
        yield "--generalize would have broken a claim: only what was seen is suggested"
    yield from _section(
        "opens besides, as rules name VMs and not addresses",
        [
            f"{one.client} -> {one.server}: {words(one.services)} over IPv{one.version} on {one.network}"
            for one in found.besides
        ],
    )
    groups: dict[str, list[str]] = defaultdict(list)
    for left, proof in found.left:
        groups[left.why.value].append(f"{left.wanted}, {packets(proof.packets)}: {left.text} ({left.at})")
    for why, heading in _HEADINGS.items():
        yield from _section(heading, groups[why])
    yield from _section("not a matter of policy", list(_apart(found)))


def _apart(found: Report) -> Iterator[str]:
    """What no policy decides, by what was done about it."""
    from vnet.fabric.suggested import packets
    from vnet.policy.identity import told

    groups: dict[tuple[str, str, str], list[Apart]] = defaultdict(list)
    for one in found.apart:
        groups[one.reason, one.meaning, one.by].append(one)
    for (reason, meaning, by), several in groups.items():
        ends = f"{told({one.source for one in several})} -> {told({one.target for one in several})}"
        count = packets(sum(one.evidence.packets for one in several))
        yield f"{reason}, {meaning}: {ends}, {count}{f' ({by})' if by else ''}"


_HEADINGS = {
    "claim": "forbidden by a claim of `verify`",
    "rule": "denied by a rule; --overrule suggests to allow them nevertheless",
    "scan": "very many ports of one VM, as a scan asks for them; --ranges suggests them nevertheless",
    "fabric": "no rule opens them",
    "allowed": "allowed by the file already",
}


def _section(heading: str, lines: Sequence[str]) -> Iterator[str]:
    if lines:
        yield f"{heading}:"
        yield from (f"  {line}" for line in lines[:LISTED_MAX])
    if len(lines) > LISTED_MAX:
        yield f"  and {len(lines) - LISTED_MAX:,} more; -o json has all of them"


def _why_nothing(found: Report, seen: int) -> str:
    if not seen:
        return "no flows were seen; give them with --flows FILE, or another --since"
    if not found.asked:
        return f"of {seen:,} flows seen none was denied or audited by a policy"
    return f"none of {found.asked:,} connections that were denied or audited needs a rule, or may have one"
