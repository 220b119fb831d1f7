"""Events: what changes of fabrics tell, what snapshots tell, and that what was told is kept."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from tests.unit.fabric.fakes import FakeGuests, Trap, World, make_engine, refuse_host
from tests.unit.fabric.numbers_samples import fabric, nic, numbers, uplink, vm
from tests.unit.fabric.test_engine import LARGER, SMALL, WITHOUT_A, source
from vnet.base.errors import HostError, VnetError
from vnet.fabric.events import CALM_PPS, CALM_S, MEANING, STORM_PPS, Event, Kind, is_wanted, notice
from vnet.fabric.live import event_log
from vnet.fabric.live.engine import Terms
from vnet.fabric.live.event_log import EventLog
from vnet.fabric.live.service import HALF_CHANGED, Service
from vnet.fabric.progress import silent
from vnet.hv.changing import HalfChanged
from vnet.hv.spec import GuestState, GuestStatus

OPEN = """\
policies: [{name: p, applied_to: 'vm:b', ingress: [{from: any}]}]
verify: ['allow vm:a -> vm:b']
"""
AGREED = Terms(agreed=True)
ROOT = Path(__file__).resolve().parents[3]


EVERYTHING = partial(is_wanted, fabric=None, kinds=frozenset())


def read(log, since_ns=None, until_ns=None, wanted=EVERYTHING):
    """What is kept."""

    async def whole():
        blocks = asyncio.Queue()
        await log.read(since_ns, until_ns, False, wanted)(blocks)
        found = b"".join(blocks.get_nowait() for _ in range(blocks.qsize()))
        return [json.loads(line) for line in found.splitlines()]

    return asyncio.run(whole())


class Host:
    """One daemon after another; all tell the same record of events."""

    def __init__(self, directory):
        self.world, self.directory = World(), directory
        self.begin()

    def begin(self):
        self.engine = make_engine(self.world, self.directory)
        self.engine.events = EventLog(self.directory / "events")

    def do(self, work):
        return asyncio.run(work)

    def up(self, text, terms=AGREED):
        return self.do(self.engine.up(source(text), silent, terms))

    def events(self):
        return read(EventLog(self.directory / "events"))

    def kinds(self):
        return [event["kind"] for event in self.events()]


@pytest.fixture
def host(tmp_path):
    made = Host(tmp_path)
    yield made
    asyncio.run(made.engine.close())


# -- what changes tell ----------------------------------------------------------------------------


def test_a_fabric_tells_its_life_from_up_to_down(host):
    host.up(SMALL)
    assert sorted(host.kinds()[:3]) == ["policy-enforced", "vm-started", "vm-started"]
    assert host.kinds()[3:] == ["plan-applied"]
    applied = host.events()[-1]
    assert (applied["fabric"], applied["subject"]) == ("small", "")
    fields = applied["fields"]
    assert (fields["generation"], fields["from"], fields["vms_started"], fields["vms_ended"]) == (1, 0, 2, 0)
    assert fields["flows_put"] > 0
    host.do(host.engine.stop("small", "a", 1.0, silent))
    assert [(e["kind"], e["subject"], e["fields"]) for e in host.events()[4:]] == [
        ("vm-stopped", "a", {"why": "stopped"})
    ]
    host.do(host.engine.down("small", silent))
    assert host.kinds()[-1] == "removed"
    assert {e["subject"] for e in host.events() if e["fields"].get("why") == "removed"} == {"a", "b"}


def test_a_change_that_changes_nothing_tells_nothing(host):
    host.up(SMALL)
    before = host.kinds()
    host.up(SMALL)
    assert host.kinds() == before


def test_each_generation_that_comes_into_force_is_told_with_the_one_before(host):
    host.up(SMALL)
    host.up(LARGER)
    enforced = [event["fields"] for event in host.events() if event["kind"] == "policy-enforced"]
    assert enforced == [{"generation": 1, "from": 0}, {"generation": 2, "from": 1}]


def test_a_change_that_is_undone_tells_both(host):
    host.up(SMALL)
    host.world.traps = (Trap(len(host.world.steps) + 6, refuse_host),)
    with suppress(VnetError):
        host.up(LARGER)
    failed = host.events()[-1]
    assert (failed["kind"], failed["fields"]["generation"], failed["fields"]["from"]) == ("plan-failed", 2, 1)
    assert "the host refused" in failed["fields"]["error"] and "\n" not in failed["text"]


def test_confirmation_and_rollback_are_told(host):
    host.up(SMALL)
    host.up(LARGER, Terms(confirm_s=60.0))
    host.do(host.engine.confirm("small"))
    assert host.kinds()[-1] == "confirmed"
    host.up(WITHOUT_A, Terms(confirm_s=60.0, agreed=True))
    host.world.uptime_s += 61
    host.do(host.engine.roll_back_due())
    last = host.events()[-1]
    assert (last["kind"], last["fields"]) == ("rolled-back", {"generation": 2, "from": 3})


def test_a_new_daemon_tells_what_it_took_over_and_what_has_ended_meanwhile(host):
    host.up(SMALL)
    host.engine.store.close()
    host.world.guests.discard(("small", "b"))
    host.begin()
    host.do(host.engine.adopt())
    last = host.events()[-1]
    assert last["kind"] == "adopted"
    assert last["fields"] == {"generation": 1, "enforced": 1, "trouble": "", "not_running": ["b"]}


def test_a_vm_whose_change_was_broken_off_says_so_until_it_is_made_again(host):
    host.up(SMALL)
    assert set(details(host).values()) == {""}
    broken_off(host)
    assert details(host) == {"a": "", "b": HALF_CHANGED}
    host.up(SMALL)
    assert set(details(host).values()) == {""}


def details(host):
    return {row["vm"]: row["detail"] for row in host.do(Service(host.engine).vms("small"))}


def broken_off(host):
    """A daemon was killed while it gave VM b another CPU."""
    (guest,) = [each for each in host.engine.store.guests("small") if each.name == "b"]
    host.engine.store.save_guest("small", replace(guest, cpus=guest.cpus + 1, changed_from=guest))
    return guest


def test_the_next_daemon_completes_a_change_that_was_broken_off(host):
    host.up(SMALL)
    was = broken_off(host)
    host.engine.store.close()
    host.begin()
    host.do(host.engine.adopt())
    assert set(details(host).values()) == {""}
    assert host.world.specs["small", "b"] == replace(was, cpus=was.cpus + 1)
    assert host.kinds()[-2:] == ["vm-changed", "adopted"]
    assert host.events()[-2]["fields"]["what"] == ["cpus 1 → 2"]


@pytest.mark.parametrize("is_undone", [True, False])
def test_what_the_next_daemon_cannot_complete_it_undoes_or_leaves_marked(host, monkeypatch, is_undone):
    host.up(SMALL)
    was = broken_off(host)
    host.engine.store.close()
    host.begin()

    async def take_up(self, before, guest):
        raise (HostError if is_undone else HalfChanged)("no more room")

    monkeypatch.setattr(FakeGuests, "take_up", take_up)
    host.do(host.engine.adopt())
    assert details(host)["b"] == ("" if is_undone else HALF_CHANGED)
    found = {each.name: each for each in host.engine.store.guests("small")}["b"]
    assert (found == was) == is_undone
    assert ("neither completed nor undone" in host.events()[-2]["text"]) != is_undone


def test_a_vm_that_has_ended_meanwhile_has_nothing_of_a_change_that_was_broken_off(host):
    host.up(SMALL)
    broken_off(host)
    host.engine.store.close()
    host.world.guests.discard(("small", "b"))
    host.begin()
    host.do(host.engine.adopt())
    assert set(details(host).values()) == {""}


def test_a_vm_that_is_paused_is_not_told_as_one_that_has_ended(host, monkeypatch):
    host.up(SMALL)
    host.engine.store.close()
    host.begin()

    async def paused(self, name):
        return GuestStatus(name, GuestState.PAUSED, agent=True)

    monkeypatch.setattr(FakeGuests, "status", paused)
    host.do(host.engine.adopt())
    assert host.events()[-1]["fields"]["not_running"] == []


def test_a_claim_that_does_not_hold_is_told(host):
    host.up(SMALL + OPEN)
    service = Service(host.engine)
    host.do(service.verify("small", False, silent))
    assert "verify-failed" not in host.kinds()
    host.world.switches["small"] = frozenset()  # somebody took the flows out of the switch
    host.do(service.verify("small", False, silent))
    last = host.events()[-1]
    assert (last["kind"], last["fields"]) == ("verify-failed", {"claims": ["allow vm:a -> vm:b"]})


# -- what snapshots tell --------------------------------------------------------------------------


class Watched:
    """Snapshots of one VM, one a second; each has so many packets lost and not reported since the last."""

    def __init__(self):
        self.before, self.episodes, self.at_s = None, {}, 0.0
        self.dropped = self.unreported = 0

    def second(self, dropped=0, unreported=0, up=True, reason="STORM"):
        self.at_s += 1.0
        self.dropped += dropped
        self.unreported += unreported
        one = replace(nic("a.eth0", dropped=self.dropped, reasons={reason: self.dropped}), up=up)
        now = numbers(fabric(vm("a", one), lost_events={"drop": self.unreported}), at_s=self.at_s)
        found = notice(self.before, now, self.episodes)
        self.before, self.episodes = now, found.episodes
        return [(event.kind, event.subject) for event in found.events], found.events

    def kinds(self, **what):
        return self.second(**what)[0]


@pytest.fixture
def watched():
    made = Watched()
    assert made.kinds(dropped=10**6, unreported=10**6) == []  # what was before the first look
    return made


def test_a_link_that_goes_and_comes_is_told(watched):
    assert watched.kinds(up=False) == [(Kind.PORT_DOWN, "a.eth0")]
    assert watched.kinds(up=False) == []
    assert watched.kinds() == [(Kind.PORT_UP, "a.eth0")]


def test_the_link_of_an_uplink_is_told_and_how_it_is_now():
    states = ["up", "up", "down", "missing", "up"]
    taken = [numbers(fabric(uplinks=(uplink("campus", each),)), at_s=n) for n, each in enumerate(states)]
    events = [event for pair in pairwise(taken) for event in notice(*pair, {}).events]
    assert [(event.kind, event.fields["link"]) for event in events] == [
        (Kind.UPLINK_DOWN, "down"),
        (Kind.UPLINK_DOWN, "missing"),
        (Kind.UPLINK_UP, "up"),
    ]
    assert {(event.fabric, event.subject) for event in events} == {("small", "campus")}
    assert "the interface eth1 of uplink campus is missing" in events[1].text


def test_a_storm_is_told_when_it_begins_and_when_it_is_over(watched):
    assert watched.kinds(dropped=int(STORM_PPS) - 1) == []
    kinds, (event,) = watched.second(dropped=int(STORM_PPS) + 500)
    assert kinds == [(Kind.DROP_STORM, "a")]
    assert event.fields == {"pps": 1500, "reason": "STORM"}
    assert "1500 packets a second: STORM" in event.text
    for _ in range(30):
        assert watched.kinds(dropped=int(CALM_PPS) + 1) == []
    for _ in range(int(CALM_S) - 1):
        assert watched.kinds(dropped=int(CALM_PPS) - 1) == []
    kinds, (event,) = watched.second()
    assert kinds == [(Kind.DROP_STORM_OVER, "a")]
    assert event.fields == {"packets": 1500 + 30 * 101 + 9 * 99, "lasted_s": 30.0}


def test_a_storm_that_pauses_is_one_storm(watched):
    assert watched.kinds(dropped=5000) == [(Kind.DROP_STORM, "a")]
    for _ in range(5):
        for _ in range(int(CALM_S) - 1):
            assert watched.kinds() == []
        assert watched.kinds(dropped=5000) == []


def test_packets_that_were_not_reported_are_told_once_and_summed_up(watched):
    kinds, (event,) = watched.second(unreported=7)
    assert kinds == [(Kind.REPORTS_LOST, "")]
    assert event.fields == {"packets": 7}
    assert watched.kinds(unreported=5) == []
    for _ in range(int(CALM_S) - 1):
        assert watched.kinds() == []
    kinds, (event,) = watched.second()
    assert kinds == [(Kind.REPORTS_LOST_OVER, "")]
    assert event.fields["packets"] == 12


def test_a_fabric_that_goes_takes_its_episodes_along(watched):
    watched.kinds(dropped=5000, unreported=5)
    found = notice(watched.before, numbers(at_s=99.0), watched.episodes)
    assert (found.events, found.episodes) == ((), {})


def test_a_switch_that_does_not_answer_tells_nothing_of_links(watched):
    (one,) = watched.before.fabrics
    gone = numbers(
        replace(one, unanswered="gone", vms=(vm("a", replace(nic("a.eth0"), up=False)),)), at_s=50.0
    )
    assert notice(watched.before, gone, {}).events == ()


# -- what is kept ---------------------------------------------------------------------------------


def test_an_event_is_one_line_with_the_keys_that_are_promised():
    line = Event(1_796_040_000_123_456_789, Kind.VM_DIED, "a:\nit ended", "small", "a", {"why": "x"}).json()
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "2026-11-30T12:00:00.123456Z",
        "fabric": "small",
        "kind": "vm-died",
        "subject": "a",
        "text": "a:\nit ended",
        "fields": {"why": "x"},
    }


def test_every_kind_is_explained():
    assert set(MEANING) == set(Kind)


def test_events_are_read_by_time_fabric_and_kind(tmp_path):
    log = EventLog(tmp_path)
    for second, (name, kind) in enumerate(
        [("x", Kind.REMOVED), ("y", Kind.REMOVED), ("", Kind.DAEMON_STARTED)]
    ):
        log.add(Event(second * 10**9, kind, "it happened", name))
    assert len(read(log)) == 3
    assert [e["fabric"] for e in read(log, since_ns=10**9)] == ["y", ""]
    assert [e["fabric"] for e in read(log, until_ns=10**9)] == ["x", "y"]
    only_x = read(log, wanted=lambda line: is_wanted(line, "x", frozenset()))
    assert [e["fabric"] for e in only_x] == ["x", ""]
    started = read(log, wanted=lambda line: is_wanted(line, None, frozenset({"daemon-started"})))
    assert [e["kind"] for e in started] == ["daemon-started"]


def test_what_was_told_outlives_a_daemon_that_is_killed(tmp_path):
    code = (
        "import sys; from pathlib import Path; from vnet.fabric.events import Kind\n"
        "from vnet.fabric.live.event_log import EventLog\n"
        "log = EventLog(Path(sys.argv[1]))\n"
        "for n in range(100): log.tell(Kind.VM_STARTED, f'vm {n} runs', 'small', f'vm-{n}')\n"
        "print('told', flush=True); input()\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "events")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, **pipes) as daemon:
        assert daemon.stdout.readline() == b"told\n"
        daemon.send_signal(signal.SIGKILL)
    with (tmp_path / "events" / "log.jsonl").open("ab") as file:
        file.write(b'{"time":"half a li')  # as if the host had stopped
    log = EventLog(tmp_path / "events")
    log.tell(Kind.DAEMON_STARTED, "vnetd runs")
    assert [event["subject"] for event in read(log)[:100]] == [f"vm-{n}" for n in range(100)]
    assert (tmp_path / "events" / "log.jsonl").read_bytes().endswith(b"}\n")


def test_the_record_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(event_log, "SEGMENT_BYTES", 2000)
    log = EventLog(tmp_path)
    for n in range(500):
        log.tell(Kind.VM_STARTED, f"vm {n} runs", "small", f"vm-{n}")
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < (event_log.SEGMENTS + 1) * 2200
    assert read(log)[-1]["subject"] == "vm-499"


def test_a_disk_that_is_full_costs_events_and_says_how_many(tmp_path, monkeypatch):
    log = EventLog(tmp_path)
    log.tell(Kind.VM_STARTED, "first")
    append = log._journal.append

    def full(lines):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(log._journal, "append", full)
    log.tell(Kind.VM_STARTED, "lost")
    log.tell(Kind.VM_STARTED, "lost too")
    monkeypatch.setattr(log._journal, "append", append)
    log.tell(Kind.VM_STARTED, "last")
    found = read(log)
    assert [event["text"] for event in found] == ["first", "2 events are missing", "last"]
    assert found[1]["fields"] == {"count": 2}


def test_who_follows_is_told_what_comes(tmp_path):
    async def life():
        log = EventLog(tmp_path)
        log.tell(Kind.VM_STARTED, "before")
        blocks = asyncio.Queue()
        reading = asyncio.ensure_future(
            log.read(None, None, True, lambda line: "skipped" not in line)(blocks)
        )
        first = await blocks.get()
        log.tell(Kind.VM_STARTED, "skipped")
        log.tell(Kind.VM_STARTED, "after")
        second = await blocks.get()
        log.close()
        await reading
        return [json.loads(block)["text"] for block in (first, second)]

    assert asyncio.run(asyncio.wait_for(life(), 10)) == ["before", "after"]


def test_looking_out_goes_on_whatever_goes_wrong(tmp_path, monkeypatch):
    from vnet.fabric.live import lookout

    monkeypatch.setattr(lookout, "LOOK_S", 0.0)
    looks = []

    class Broken:
        async def take(self):
            looks.append(time.monotonic())
            await asyncio.sleep(0)
            raise RuntimeError("a bug")

    async def for_a_while():
        with suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await lookout.look_out(Broken(), EventLog())

    asyncio.run(for_a_while())
    assert len(looks) > 3
