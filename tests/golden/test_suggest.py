"""Files in several styles and what is added to them: `suggest/NAME.yaml`, `NAME.seen` and `NAME.diff`.

A line of `.seen` is: client's NIC, server's NIC, protocol, port, verdict, packets. `GOLDEN=rewrite` writes
what is expected anew; review the difference.
"""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from vnet.base.errors import InputError
from vnet.fabric.seen import Seen, Verdict
from vnet.fabric.seen_lines import NUMBERS
from vnet.fabric.store import Source
from vnet.fabric.suggested import Question, Report, report
from vnet.policy.suggest import Options

FOLDER = Path(__file__).parent / "suggest"
CASES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
NOW = datetime(2026, 11, 28, 15, 0, tzinfo=UTC)
FIRST = datetime(2026, 11, 28, 13, 58, tzinfo=UTC)


def seen(line: str, number: int) -> Seen:
    client, server, protocol, port, verdict, packets = line.split()
    last = FIRST + timedelta(minutes=number)
    denied = verdict == "denied"
    what = NUMBERS[protocol], int(port), Verdict(verdict), "POLICY" if denied else ""
    return Seen(client, None, server, None, "", *what, None, int(packets), 0, FIRST, last, 3)


def asked(source: Source, lines: list[str]) -> Report:
    options = Options()
    if lines[0].startswith("options: "):
        options = Options(**dict.fromkeys(lines.pop(0).removeprefix("options: ").split(), True))
    return report(Question(source, tuple(seen(line, n) for n, line in enumerate(lines, 1)), NOW, options))


def source(case: str) -> Source:
    part = FOLDER / f"{case}.part"
    included = {part.name: part.read_text(encoding="utf-8")} if part.exists() else {}
    return Source(f"{case}.yaml", (FOLDER / f"{case}.yaml").read_text(encoding="utf-8"), {}, included)


@pytest.mark.parametrize("case", CASES)
def test_rules_are_added_in_the_style_of_the_file(case: str) -> None:
    found = asked(source(case), (FOLDER / f"{case}.seen").read_text(encoding="utf-8").splitlines())
    expected = FOLDER / f"{case}.diff"
    if os.environ.get("GOLDEN") == "rewrite":
        expected.write_text(found.diff, encoding="utf-8")
    assert found.rules
    assert not found.closes
    assert found.diff == expected.read_text(encoding="utf-8")


@pytest.mark.parametrize("case", CASES)
def test_patch_makes_the_file_that_was_proved(case: str, tmp_path: Path) -> None:
    given = source(case)
    found = asked(given, (FOLDER / f"{case}.seen").read_text(encoding="utf-8").splitlines())
    texts = {given.file: given.text, **given.included}
    for name, text in texts.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    subprocess.run(["patch", "-s", "-p0"], cwd=tmp_path, input=found.diff, text=True, check=True)
    for name, text in (texts | dict(found.texts)).items():
        assert (tmp_path / name).read_text(encoding="utf-8") == text


@pytest.mark.parametrize("case", CASES)
def test_what_stood_in_the_file_still_stands_there(case: str) -> None:
    given = source(case)
    found = asked(given, (FOLDER / f"{case}.seen").read_text(encoding="utf-8").splitlines())
    for name, text in found.texts.items():
        rest = iter(text)
        assert all(letter in rest for letter in {given.file: given.text, **given.included}[name])


@pytest.mark.parametrize("case", CASES)
def test_with_the_rules_in_it_nothing_is_left_to_suggest(case: str) -> None:
    given, lines = source(case), (FOLDER / f"{case}.seen").read_text(encoding="utf-8").splitlines()
    found = asked(given, list(lines))
    included = {name: found.texts.get(name, text) for name, text in given.included.items()}
    again = Source(given.file, found.texts.get(given.file, given.text), {}, included)
    assert asked(again, list(lines)).rules == ()


def test_a_list_of_policies_behind_an_alias_is_left_alone() -> None:
    text = """\
name: x
networks: {lan: {vlan: 10, subnets: 10.0.0.0/24}}
vms: {a: {networks: [lan]}, b: {networks: [lan]}}
x-shared: &all [{name: p, applied_to: "vm:a", ingress: []}]
policies: *all
"""
    with pytest.raises(InputError, match="anchors and aliases"):
        asked(Source("x.yaml", text), ["a.eth0 b.eth0 tcp 80 denied 5"])
