"""The daemon's log: its three forms, what journald needs, and what is counted."""

import io
import json
import logging
import os
import re

import pytest

from vnet.base import logs
from vnet.base.logs import LogFormat, about, is_journal, set_up

ODD = 'it said "no"\nand = went\x1b[2J'


@pytest.fixture(autouse=True)
def as_before():
    root, own = logging.getLogger(), logging.getLogger("vnet")
    kept = root.handlers[:], root.level, own.level
    yield
    root.handlers[:], root.level, own.level = kept


def written(form, journal=False, verbose=False):
    """What is written of three messages, and what is counted."""
    stream = io.StringIO()
    counts = set_up(stream, form, verbose, journal)
    log = logging.getLogger("vnet.test")
    log.debug("in detail")
    log.info("small was taken over", extra=about(fabric="small", kind="adopted", subject=""))
    log.warning("%s", ODD)
    return stream.getvalue(), counts


def test_as_text_a_line_says_when_how_bad_where_and_what():
    text, _ = written(LogFormat.TEXT)
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z info small: small was taken over\n", text)


def test_as_logfmt_everything_is_a_pair_and_odd_values_are_quoted():
    text, _ = written(LogFormat.LOGFMT)
    first, second = text.splitlines()
    assert first.endswith('level=info logger=vnet.test msg="small was taken over" fabric=small kind=adopted')
    assert second.endswith(f"msg={json.dumps(ODD)}")


def test_as_json_each_line_is_an_object():
    text, _ = written(LogFormat.JSON)
    first, second = map(json.loads, text.splitlines())
    assert (first["level"], first["fabric"], first["kind"]) == ("info", "small", "adopted")
    assert second["msg"] == ODD and "fabric" not in second


def test_journald_is_told_priorities_and_no_time():
    text, _ = written(LogFormat.TEXT, journal=True)
    assert text.splitlines()[0] == "<6>info small: small was taken over"
    assert [line[:3] for line in text.splitlines()] == ["<6>", "<4>", "<4>"]


def test_only_who_asks_is_told_details():
    assert "in detail" not in written(LogFormat.TEXT)[0]
    assert "in detail" in written(LogFormat.TEXT, verbose=True)[0]


def test_what_is_logged_is_counted_by_level_without_details():
    assert written(LogFormat.TEXT, verbose=True)[1] == {"info": 1, "warning": 1}


@pytest.mark.parametrize("form", list(LogFormat))
def test_an_exception_is_told_with_its_trace(form):
    stream = io.StringIO()
    set_up(stream, form, verbose=False, journal=False)
    try:
        raise RuntimeError("a bug")
    except RuntimeError:
        logging.getLogger("vnet.test").exception("it went wrong")
    text = stream.getvalue()
    assert "RuntimeError: a bug" in text
    assert form is LogFormat.TEXT or text.count("\n") == 1


def test_journald_is_known_by_device_and_inode(tmp_path):
    with (tmp_path / "log").open("w") as stream:
        found = os.fstat(stream.fileno())
        assert is_journal(stream, {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"})
        assert not is_journal(stream, {"JOURNAL_STREAM": "1:2"})
        assert not is_journal(stream, {})
    assert not is_journal(io.StringIO(), {"JOURNAL_STREAM": "1:2"})


def test_logs_knows_all_levels_of_syslog_that_it_uses():
    assert [number for _, number in logs._PRIORITIES] == [3, 4, 6, 7]
