"""What os-ken's switch tests ask and what is written about the answers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.exams.conformance import report
from tests.exams.conformance.cases import Case, read, sample, select
from tests.exams.conformance.causes import Need, cause, need
from tests.exams.conformance.lab import Verdict

SINGLE = {"ingress": ["ethernet()"], "egress": ["ethernet()"]}


def load(pps: int) -> dict[str, object]:
    return {"ingress": {"packets": {"data": ["ethernet()"], "pktps": pps, "duration_time": 30}}}


@pytest.fixture
def cases(tmp_path: Path) -> tuple[Case, ...]:
    """Three files of matches and one of each other category, four cases in each."""
    for file in (
        "match/01_B",
        "match/00_A",
        "match/02_C",
        "action/25_SET_FIELD/03_D",
        "group/00_E",
        "meter/00_F",
    ):
        path = tmp_path / f"{file}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        test = {"group": load(175), "meter": load(20_000)}.get(file.partition("/")[0], SINGLE)
        described = [{"description": f"{file} {word}", "tests": [test]} for word in "abcd"]
        path.write_text(json.dumps([f"title of {file}", *described]))
    return read(tmp_path)


def test_cases_are_named_by_file_and_number_in_order(cases: tuple[Case, ...]) -> None:
    assert [case.key for case in cases[:5]] == [*(f"match/00_A#{n}" for n in (1, 2, 3, 4)), "match/01_B#1"]
    assert cases[-1].key == "meter/00_F#4"
    assert (cases[0].title, cases[0].description) == ("title of match/00_A", "match/00_A a")
    assert next(case for case in cases if "25_SET_FIELD" in case.file).category == "action"


def test_loads_have_a_rate_and_a_duration(cases: tuple[Case, ...]) -> None:
    assert {(case.category, case.rate_pps, case.duration_s, case.heavy) for case in cases} == {
        ("match", 0, 0, False),
        ("action", 0, 0, False),
        ("group", 175, 30, False),
        ("meter", 20_000, 30, True),
    }


def test_words_select_by_key_and_description(cases: tuple[Case, ...]) -> None:
    assert [case.key for case in select(cases, ["match"], ["01_B#2", "00_A c"])] == [
        "match/00_A#3",
        "match/01_B#2",
    ]
    assert len(select(cases, ["group", "meter"], [])) == 8


def test_the_sample_takes_from_each_file_and_in_turn_packet_in_and_miss(cases: tuple[Case, ...]) -> None:
    assert [case.key for case in sample(cases)] == [
        *("match/00_A#1", "match/00_A#2", "match/01_B#1", "match/01_B#3", "match/02_C#1", "match/02_C#2"),
        *("action/25_SET_FIELD/03_D#1", "group/00_E#1", "meter/00_F#1"),
    ]


def verdicts(cases: tuple[Case, ...], failed: dict[str, str]) -> tuple[report.Result, ...]:
    found = [Verdict(case.key, case.key not in failed, failed.get(case.key, ""), 0.01) for case in cases]
    return report.results(cases, found)


def test_results_are_kept_and_read_back(cases: tuple[Case, ...], tmp_path: Path) -> None:
    found = verdicts(cases, {"match/00_A#2": "no packet"})
    report.save(tmp_path / "kept.json", "vnet", found)
    assert report.load(tmp_path / "kept.json") == found
    assert report.summary(found) == "23 passed, 1 failed"
    assert report.table(found).splitlines()[0] == "match      11 of   12"


def test_a_failure_under_less_than_the_load_asked_for_says_so(cases: tuple[Case, ...]) -> None:
    (result,) = report.results(cases[:1], [Verdict(cases[0].key, False, "too slow", 30.0, load=0.8)])
    assert result.reason == "too slow (the machine could send only 80% of the load)"


def test_the_document_compares_and_gives_reasons(cases: tuple[Case, ...]) -> None:
    refusal = "Failed to add meters: OFPErrorMsg[type=0x0c, code=0x08]"
    mine = verdicts(cases, {"match/00_A#1": "a|b", "match/00_A#2": "a|b", "meter/00_F#4": refusal})
    peer = verdicts(cases, {"match/00_A#1": "no"})
    text = report.document({"ovs": peer, "vnet": mine})
    assert "- Open vSwitch: 23 passed, 1 failed\n- vnet: 21 passed, 3 failed\n" in text
    assert "| match | 12 | 11 | 10 |\n" in text
    assert "| all | 24 | 23 | 21 |\n" in text
    assert "| vnet | match/00_A | 2 | a\\|b |\n" in text
    assert "| vnet | meter/00_F | 1 | Failed to add meters: METER_MOD_FAILED BAD_BAND |\n" in text


@pytest.mark.parametrize(
    ("words", "needed"),
    [
        ("ethernet/vlan/ipv4", Need.NOTHING),
        ("ethernet/mpls/ipv4-->'pop_mpls'", Need.MPLS),
        ("ethernet/itag/ethernet/mpls", Need.PBB),
        ("actions=push_pbb", Need.PBB),
    ],
)
def test_a_case_tells_what_it_needs(words: str, needed: Need) -> None:
    assert need(words) is needed


def test_known_causes_are_counted_for_each_switch_and_the_rest_is_listed() -> None:
    case = report.Result("meter/01_DROP_X#1", "a title", "meter:1Mbps(drop)", False, "read back wrong")
    padded = replace(case, key="match/19_ICMPV4_TYPE#7", description="ethernet/mpls/ipv4/icmp")
    text = report.document({"ovs": (case, padded), "vnet": (replace(case, passed=True), padded)})
    assert "| Meters that drop | 1 | 0 |" in text
    assert "| Frames that get too short | 1 | 1 |" in text
    assert "Every failure has one of these causes." in text
    assert cause("match/19_ICMPV4_TYPE", "ethernet/ipv4/icmp") is None
