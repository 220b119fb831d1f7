"""Changes that wait for their confirmation, on a host in memory: kept when it comes, undone when not."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from tests.unit.fabric.fakes import Trap, World, make_engine, refuse_host
from tests.unit.fabric.test_engine import EXPIRING, LARGER, OTHER_MEMORY, SMALL, WITHOUT_A, source
from vnet.base.errors import Exit, HostError
from vnet.fabric.live import snapshots
from vnet.fabric.live.confirmation import RETRY_S, NotConfirmed, NothingToConfirm
from vnet.fabric.live.engine import Terms
from vnet.fabric.progress import silent

CONFIRM = Terms(confirm_s=120.0)
OTHER_RULES = SMALL + "policies: [{name: p, applied_to: 'vm:b', ingress: [{from: any, ports: [22/tcp]}]}]\n"
CHANGES = {"larger": LARGER, "memory": OTHER_MEMORY, "smaller": WITHOUT_A, "rules": OTHER_RULES}


class Daemons:
    """One daemon after another on the same host; the one that runs now is `engine`."""

    def __init__(self, directory):
        self.world, self.directory = World(), directory
        self.engine = make_engine(self.world, directory)

    def do(self, work):
        return asyncio.run(work)

    def up(self, text, terms=CONFIRM):
        return self.do(self.engine.up(source(text), silent, terms))

    def killed(self, boot="boot-1"):
        """The daemon is killed; a new one adopts what is there."""
        self.engine.store.close()
        self.engine = make_engine(self.world, self.directory, boot=boot)
        self.do(self.engine.adopt())

    def passes(self, seconds):
        """Time passes and the daemon sees to what is due."""
        self.world.uptime_s += seconds
        self.do(self.engine.roll_back_due())

    @property
    def record(self):
        return self.engine.store.load("small")


@pytest.fixture
def host(tmp_path):
    made = Daemons(tmp_path)
    yield made
    asyncio.run(made.engine.close())


@pytest.mark.parametrize("text", CHANGES.values(), ids=CHANGES)
def test_a_change_that_nobody_confirms_is_undone_when_its_time_is_over(host, text):
    host.up(SMALL, Terms())
    before, record = host.world.contents(), host.record
    host.up(text)
    changed = host.world.contents()
    assert changed != before
    host.passes(119.9)
    assert host.world.contents() == changed
    host.passes(0.1)
    assert host.world.contents() == before
    assert host.record == record
    assert host.engine.fabrics["small"].record == record
    assert host.engine.fabrics["small"].trouble == ""
    assert host.up(SMALL, Terms()).actions == ()


@pytest.mark.parametrize("text", CHANGES.values(), ids=CHANGES)
def test_a_change_that_is_confirmed_stays(host, text):
    host.up(SMALL, Terms())
    host.up(text)
    changed = host.world.contents()
    host.passes(100)
    assert host.do(host.engine.confirm("small")).generation == 2
    host.passes(1000)
    assert host.world.contents() == changed
    assert (host.record.generation, host.record.enforced, host.record.pending) == (2, 2, None)


def test_a_new_fabric_that_nobody_confirms_is_removed(host):
    host.up(SMALL)
    host.passes(120)
    assert host.world.contents() == World().contents()
    assert host.engine.fabrics == {} and host.engine.store.fabrics() == ()


def test_the_time_counts_from_when_the_change_is_in_force_and_is_told(host):
    host.up(SMALL)
    assert host.engine.confirm_left_s("small") == 120.0
    host.world.uptime_s += 50
    assert host.engine.confirm_left_s("small") == 70.0
    host.do(host.engine.confirm("small"))
    assert host.engine.confirm_left_s("small") is None


def test_a_vm_that_was_stopped_before_is_stopped_again_and_one_that_had_died_is_not_started(host):
    host.up(LARGER, Terms())
    host.do(host.engine.stop("small", "a", 1.0, silent))
    host.world.guests.discard(("small", "b"))
    before = host.world.contents()
    host.up(OTHER_MEMORY)
    assert host.world.guests == {("small", "a"), ("small", "b")}
    host.passes(120)
    assert host.world.contents() == before
    assert host.record.stopped == {"a"}


def test_what_is_started_and_stopped_meanwhile_is_brought_back_too(host):
    host.up(SMALL, Terms())
    before = host.world.contents()
    host.up(LARGER)
    host.do(host.engine.stop("small", "a", 1.0, silent))
    host.passes(120)
    assert host.world.contents() == before and host.record.stopped == frozenset()


def test_a_vm_that_stands_still_is_not_in_the_way_of_the_rollback(host):
    host.up(SMALL, Terms())
    host.up(OTHER_MEMORY)
    host.do(host.engine.pause("small", "a", silent))
    host.passes(121)
    assert host.record.generation == 1 and host.world.guests == {("small", "a"), ("small", "b")}
    assert not host.world.paused


def test_memory_that_only_fits_what_is_undone_is_given_up(host):
    host.up(SMALL, Terms())
    host.up(OTHER_MEMORY)
    host.do(snapshots.suspend(host.engine, "small", "a", silent))
    host.world.other_memory.add(("small", "a"))
    host.passes(121)
    assert host.record.generation == 1 and host.world.guests == {("small", "a"), ("small", "b")}
    assert "forget the memory of a" in host.world.calls


@pytest.mark.parametrize("kept", [True, False])
def test_memory_of_a_vm_that_is_removed_is_kept_until_that_is_confirmed(host, kept):
    host.up(SMALL, Terms())
    host.do(snapshots.suspend(host.engine, "small", "a", silent))
    host.up(WITHOUT_A)
    host.killed()
    assert host.world.suspended == {("small", "a")}
    if kept:
        host.do(host.engine.confirm("small"))
        assert host.world.suspended == set()
        assert [guest.name for guest in host.engine.store.guests("small")] == ["b"]
    else:
        host.do(host.engine.roll_back("small", silent))
        assert host.world.suspended == {("small", "a")}
        host.do(host.engine.start("small", "a", silent))
        assert host.world.guests == {("small", "a"), ("small", "b")}


def test_a_daemon_that_is_killed_meanwhile_goes_on_waiting(host):
    host.up(SMALL, Terms())
    before, record = host.world.contents(), host.record
    host.up(LARGER)
    changed = host.world.contents()
    host.world.uptime_s += 100
    host.killed()
    host.passes(0)
    assert host.world.contents() == changed
    assert host.engine.confirm_left_s("small") == 20.0
    host.passes(20)
    assert host.world.contents() == before and host.record == record


def test_a_daemon_that_was_away_over_the_deadline_rolls_back_at_once(host):
    host.up(SMALL, Terms())
    before, record = host.world.contents(), host.record
    host.up(LARGER)
    host.world.uptime_s += 500
    host.killed()
    with pytest.raises(NothingToConfirm, match="too late"):
        host.do(host.engine.confirm("small"))
    host.passes(0)
    assert host.world.contents() == before and host.record == record


def test_a_daemon_that_was_away_over_the_deadline_never_puts_the_change_in_force_again(host):
    """What somebody took away meanwhile would be put back by adoption; not so for a change that is to go."""
    host.up(SMALL, Terms())
    host.up(OTHER_RULES)
    host.world.uptime_s += 500
    host.world.switches["small"] = frozenset()
    calls = len(host.world.calls)
    host.killed()
    assert len(host.world.calls) == calls


def test_after_a_boot_of_the_host_the_change_is_undone_and_guests_wait_for_up(host):
    host.up(SMALL, Terms())
    before = host.world.contents()
    host.up(LARGER)
    host.world.__init__(uptime_s=5.0)
    host.killed(boot="boot-2")
    host.passes(0)
    assert host.world.contents()[:-1] == before[:-1] and host.world.guests == set()
    assert (host.record.generation, host.record.enforced, host.record.boot_id) == (1, 1, "boot-2")
    host.up(SMALL, Terms())
    assert host.world.contents() == before


def test_another_change_is_refused_until_the_first_is_decided(host):
    host.up(SMALL, Terms())
    host.up(LARGER)
    changed = host.world.contents()
    for text, terms in ((SMALL, Terms()), (LARGER, Terms()), (OTHER_RULES, CONFIRM)):
        with pytest.raises(
            NotConfirmed, match=r"120 s are left.*`vnet confirm -n small`.*`vnet rollback"
        ) as no:
            host.up(text, terms)
        assert no.value.exit_code == Exit.REFUSED
    assert host.world.contents() == changed
    host.do(host.engine.confirm("small"))
    assert host.up(SMALL, Terms()).generation == 3


def test_a_plan_can_be_looked_at_meanwhile(host):
    host.up(SMALL, Terms())
    host.up(LARGER)
    assert host.do(host.engine.plan(source(LARGER))).actions == ()


def test_a_rollback_can_be_had_at_once(host):
    host.up(SMALL, Terms())
    before, record = host.world.contents(), host.record
    host.up(LARGER)
    assert host.do(host.engine.roll_back("small", silent)).generation == 1
    assert host.world.contents() == before and host.record == record


@pytest.mark.parametrize("command", ["confirm", "roll_back"])
def test_where_nothing_waits_there_is_nothing_to_confirm(host, command):
    host.up(SMALL, Terms())
    arguments = ("small", silent)[: 1 + (command == "roll_back")]
    with pytest.raises(NothingToConfirm, match="no change of small waits"):
        host.do(getattr(host.engine, command)(*arguments))


def test_what_changes_nothing_needs_no_confirmation(host):
    host.up(SMALL, Terms())
    assert host.up(SMALL).actions == ()
    assert host.engine.confirm_left_s("small") is None


def test_a_fabric_can_be_taken_down_meanwhile(host):
    host.up(SMALL, Terms())
    host.up(LARGER)
    host.do(host.engine.down("small", silent))
    host.passes(1000)
    assert host.world.contents() == World().contents() and host.engine.store.fabrics() == ()


def test_a_change_that_fails_leaves_nothing_to_confirm(host):
    host.up(SMALL, Terms())
    before, record = host.world.contents(), host.record
    host.world.fuse(3)
    with pytest.raises(HostError, match="as it was before"):
        host.up(LARGER)
    assert host.world.contents() == before and host.record == record


def test_a_change_that_could_be_neither_made_nor_undone_cannot_be_confirmed(host):
    host.up(SMALL, Terms())
    before, record = host.world.contents(), host.record
    host.world.traps = (Trap(len(host.world.steps) + 3, refuse_host, lasting=True),)
    with pytest.raises(HostError, match="not everything could be undone"):
        host.up(LARGER)
    host.world.traps = ()
    with pytest.raises(NothingToConfirm, match="never completed"):
        host.do(host.engine.confirm("small"))
    host.do(host.engine.roll_back("small", silent))
    assert host.world.contents() == before and host.record == record


def test_a_rollback_that_fails_says_why_and_is_tried_again(host):
    host.up(SMALL, Terms())
    before, record = host.world.contents(), host.record
    host.up(OTHER_RULES)
    host.world.fuse(1)
    host.passes(120)
    assert "still to be undone" in host.engine.fabrics["small"].trouble
    with pytest.raises(NotConfirmed):
        host.up(OTHER_RULES, Terms())
    host.passes(RETRY_S / 2)
    assert host.world.contents() != before
    host.passes(RETRY_S / 2)
    assert host.world.contents() == before and host.record == record
    assert host.engine.fabrics["small"].trouble == ""


def test_a_rule_that_expires_meanwhile_is_gone_after_the_rollback_too(host):
    host.up(EXPIRING, Terms())
    host.up(EXPIRING.replace("  b: {networks: [lan]}", "  b: {networks: [lan]}\n  c: {networks: [lan]}"))
    host.world.now = datetime(2026, 1, 3, tzinfo=UTC)
    host.do(host.engine.expire())
    assert (host.record.generation, host.engine.confirm_left_s("small")) == (3, 120.0)
    host.passes(120)
    declared = host.engine.fabrics["small"].declared
    assert {origin.rule for origin in declared.compiled.provenance.values()} - {""} == {"ingress 2"}
    assert host.world.switches["small"] == declared.state().flows
    assert host.record.generation == 1


def test_a_wrong_clock_moves_no_deadline(host):
    """The deadline is no time of day."""
    host.up(SMALL)
    host.world.now = datetime(2036, 1, 1, tzinfo=UTC)
    host.passes(0)
    assert host.engine.confirm_left_s("small") == 120.0
    assert replace(host.record.pending, deadline_s=None).before is None
