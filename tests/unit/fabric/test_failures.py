"""Whatever goes wrong at whatever step: the switch has the flows of one generation, the record says of which.

Every step of a change is a trap in turn: each call to a neighbour, each write to the store. It is refused, or
done and yet reported as failed, broken off by Ctrl-C, refused with all that follows, or the daemon is killed.
"""

import asyncio
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.fabric.fakes import (
    Killed,
    Trap,
    World,
    interrupt,
    is_write,
    kill,
    make_engine,
    refuse,
    refuse_host,
)
from vnet.base.errors import HostError, VnetError
from vnet.fabric.live import engine as engine_module
from vnet.fabric.live import refusals, snapshots
from vnet.fabric.live.confirmation import RETRY_S
from vnet.fabric.live.engine import Terms
from vnet.fabric.progress import silent
from vnet.fabric.store import Source

HEAD = "name: small\ndefaults: {image: micro, cpus: 1, memory: 96M}\nnetworks:\n"
NETWORKS = "  lan: {vlan: 10, subnets: 10.0.0.0/24}\n  wan: {vlan: 20, subnets: 10.0.1.0/24}\n"
NEW = ""
"""What there is before the first `up`: nothing."""


def text(vms, policies=()):
    lines = [f"  {name}: {fields}\n" for name, fields in vms.items()]
    rules = "".join(f"  - {{name: {name}, applied_to: any, ingress: [{rule}]}}\n" for name, rule in policies)
    return HEAD + NETWORKS + "vms:\n" + "".join(lines) + (f"policies:\n{rules}" if rules else "")


LAN, WAN, BOTH = "{networks: [lan]}", "{networks: [wan]}", "{networks: [lan, wan]}"
LARGE = "{networks: [lan], memory: 128M}"
SSH, WEB = "{from: any, ports: [22/tcp]}", "{from: any, ports: [80/tcp]}"
TWO = text({"a": LAN, "b": LAN})
SERVED = TWO.replace("subnets: 10.0.0.0/24}", "dns: true, subnets: {cidr: 10.0.0.0/24, dhcp: true}}")
OUTSIDE = SERVED.replace("vms:\n", "routers: {gw: {networks: [lan], uplink: host, nat: masquerade}}\nvms:\n")
CABLED = TWO + "uplinks: {up: {interface: eth1, networks: [lan]}}\n"
CHANGES = {
    "outside": (SERVED, OUTSIDE),
    "no-outside": (OUTSIDE, SERVED),
    "other-outside": (
        OUTSIDE,
        OUTSIDE.replace("a: {networks: [lan]}", "a: {networks: [lan], ports: ['80:80/tcp']}"),
    ),
    "uplink": (TWO, CABLED),
    "first-uplink": (NEW, CABLED),
    "no-uplink": (CABLED, TWO),
    "other-uplink": (CABLED, CABLED.replace("up:", "out:").replace("lan]}}", "wan]}}")),
    "other-interface": (CABLED, CABLED.replace("eth1", "eth2")),
    "services": (text({"a": BOTH}), SERVED),
    "no-services": (SERVED, TWO),
    "other-services": (SERVED, SERVED.replace("dhcp: true", "dhcp: {lease: 2h}").replace("  b:", "  c:")),
    "first": (NEW, TWO),
    "all-others": (TWO, text({"c": LAN, "d": WAN})),
    "rules": (text({"a": LAN, "b": LAN}, [("p", SSH)]), text({"a": LAN, "b": LAN}, [("p", WEB)])),
    "all": (text({"a": LAN, "b": BOTH}, [("p", SSH)]), text({"b": WAN, "c": LARGE}, [("q", WEB)])),
    "suspended": (TWO, text({"a": LAN, "b": LAN, "c": LAN}, [("p", SSH)]), "ab"),
}
"""From one topology to another, of whose VMs some were suspended before."""
UNDONE = {name: CHANGES[name] for name in ("first", "all", "suspended")}
VMS = st.dictionaries(st.sampled_from("abc"), st.sampled_from([LAN, WAN, BOTH, LARGE]), min_size=1)
POLICIES = st.lists(
    st.tuples(st.sampled_from("pq"), st.sampled_from([SSH, WEB])), max_size=2, unique_by=lambda p: p[0]
)
TEXTS = st.builds(text, VMS, POLICIES)


@dataclass(frozen=True)
class Failure:
    """How a step goes wrong."""

    springs: object
    after: bool = False
    lasting: bool = False

    @property
    def kills(self):
        return self.springs is kill

    def trap(self, step):
        return Trap(step, self.springs, self.after, self.lasting)


FAILURES = {
    "refused": Failure(refuse),
    "done-but-failed": Failure(refuse, after=True),
    "interrupted": Failure(interrupt),
    "killed-before": Failure(kill),
    "killed-after": Failure(kill, after=True),
}


RUNNER = asyncio.Runner()
"""One event loop for all: making one each time takes longer than what is tested."""


@pytest.fixture(scope="module", autouse=True)
def runner():
    yield
    RUNNER.close()


class Host:
    """A host in memory with its store, and one daemon after another."""

    def __init__(self, directory, world=None):
        self.world, self.directory = world or World(), directory
        self.engine = make_engine(self.world, directory)
        self.do(self.engine.adopt())

    def up(self, topology, **terms):
        return self.do(self.changing(topology, **terms))

    def changing(self, topology, **terms):
        return self.engine.up(Source("small.vnet.yaml", topology), silent, Terms(agreed=True, **terms))

    def do(self, work):
        return RUNNER.run(work)

    def fails(self, work, failure, step, *earlier):
        """Do something with a trap at that step, others before it; it must end as such a failure does."""
        trap = failure.trap(step)
        self.world.traps = (*earlier, trap)
        with pytest.raises((Killed, BaseExceptionGroup) if failure.kills else VnetError):
            self.do(self.world.watched(work))
        assert trap.sprung

    def next_daemon(self):
        """What becomes of it when a new daemon has adopted everything and has seen to what is due."""
        self.engine.store.close()
        self.world.dead, self.world.traps = False, ()
        self.engine = make_engine(self.world, self.directory)
        self.do(self.engine.adopt())
        assert all(fabric.trouble == "" for fabric in self.engine.fabrics.values())
        self.do(self.engine.roll_back_due())

    def is_settled(self):
        """The record says that what is wanted is in force, and so it is in the daemon's memory."""
        assert all(fabric.trouble == "" for fabric in self.engine.fabrics.values())
        assert [fabric.record for fabric in self.engine.fabrics.values()] == [self.record] * bool(self.record)
        assert self.record is None or self.record.enforced == self.record.generation

    @property
    def flows(self):
        return self.world.switches.get("small", frozenset())

    @property
    def record(self):
        return self.engine.store.load("small")


class Snapshot:
    """A host as it is now, which can be had again as often as wanted."""

    def __init__(self, host):
        self.world = host.world.copy()
        self.contents, self.flows, self.record = host.world.contents(), host.flows, host.record
        host.engine.store.close()
        self.store = host.directory

    def again(self, directory):
        shutil.copytree(self.store, directory)
        return Host(directory, self.world.copy())


@contextmanager
def directories():
    """A function that names new directories; all are gone at the end."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as root:
        numbers = count()
        yield lambda: Path(root) / str(next(numbers))


class Case:
    """A change from one topology to another: both generations, as they are without any failure."""

    def __init__(self, named, now, then, suspended="", **terms):
        self.named, self.then, self.terms = named, then, terms
        host = Host(named())
        if now:
            host.up(now)
        for vm in suspended:
            host.do(snapshots.suspend(host.engine, "small", vm, silent))
        self.before = Snapshot(host)
        host = self.before.again(named())
        host.up(then, **terms)
        self.after = Snapshot(host)
        self.steps = range(len(self.before.world.steps), len(self.after.world.steps))

    def host(self):
        """The host before the change, and the change, not yet begun."""
        host = self.before.again(self.named())
        return host, host.changing(self.then, **self.terms)

    def writes_at(self, step):
        """Whether that step is a write to the store."""
        return is_write(self.after.world.steps[step])

    def is_one_generation(self, host, at=""):
        """The law: exactly the flows of n or of n+1, and the record says of which.

        Only at the very moment between the two it may not have been noted yet.
        """
        noted = at not in ("change flows", "destroy switch", "save what is enforced")
        record, n = host.record, self.before.record.generation if self.before.record else 0
        if record is None:
            assert (host.flows, n) == (frozenset(), 0)
        elif noted:
            generations = {n: self.before.flows, self.after.record.generation: self.after.flows}
            assert host.flows == generations[record.enforced]
        else:
            assert host.flows in (self.before.flows, self.after.flows)

    def is_as_before(self, host):
        assert host.world.contents() == self.before.contents
        assert host.record == self.before.record
        host.is_settled()

    def is_done(self, host):
        assert host.world.contents() == self.after.contents
        assert host.record == self.after.record
        host.is_settled()

    def converges(self, host):
        """A later `up` makes of it what it would have been without the failure, and then nothing more."""
        host.world.traps = ()
        host.up(self.then)
        assert host.world.contents() == self.after.contents
        host.is_settled()
        assert host.up(self.then).actions == ()
        host.engine.store.close()


def examine(change, failure, **terms):
    """Every step of the change in turn."""
    with directories() as named:
        case = Case(named, *change, **terms)
        for step in case.steps:
            host, work = case.host()
            if failure.kills:
                host.fails(work, failure, step)
                case.is_one_generation(host, at=case.after.world.steps[step])
                host.next_daemon()
                examine_next(case, host, done=failure.after and step == case.steps[-1])
            elif case.writes_at(step) and failure is not FAILURES["refused"]:
                work.close()  # a store that has written does not say otherwise, and does not wait
            else:
                host.fails(work, failure, step)
                case.is_as_before(host)
                case.converges(host)


def examine_next(case, host, done):
    """What the next daemon has made of it. `done`: all was, only nobody was told any more."""
    host.is_settled()
    if done:
        case.is_done(host)
    elif case.terms:
        case.is_as_before(host)
    else:
        case.is_one_generation(host)
    if not done or not case.terms:
        case.converges(host)


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_that_goes_wrong_at_any_step_leaves_one_generation(change, failure):
    examine(change, failure)


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
@pytest.mark.parametrize("change", UNDONE.values(), ids=UNDONE)
def test_a_change_to_be_confirmed_that_goes_wrong_at_any_step_leaves_what_was_before(change, failure):
    examine(change, failure, confirm_s=60.0)


@settings(max_examples=6)
@given(TEXTS, TEXTS, st.sampled_from(list(FAILURES.values())), st.sampled_from([None, 60.0]))
def test_any_change_that_goes_wrong_at_any_step_leaves_one_generation(now, then, failure, confirm_s):
    examine((now, then), failure, **({"confirm_s": confirm_s} if confirm_s else {}))


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_that_can_be_neither_made_nor_undone_says_which_generation_is_in_force(change):
    """From some step on the host refuses everything; then it is mended."""
    with directories() as named:
        case = Case(named, *change)
        for step in case.steps:
            if case.writes_at(step):
                continue
            host, work = case.host()
            host.fails(work, Failure(refuse_host, lasting=True), step)
            case.is_one_generation(host)
            if host.world.contents() != case.before.contents:
                assert "neither completed nor undone" in host.engine.fabrics["small"].trouble
            case.converges(host)


@pytest.mark.parametrize("failure", ["refused", "killed-before", "killed-after"])
@pytest.mark.parametrize("change", UNDONE.values(), ids=UNDONE)
def test_an_undoing_that_goes_wrong_at_any_step_says_which_generation_is_in_force(change, failure):
    """The last guest does not start, and then undoing what was done until then goes wrong too."""
    with directories() as named:
        case, failure = Case(named, *change), FAILURES[failure]
        first = max(step for step in case.steps if case.after.world.steps[step].startswith("wait "))
        host, work = case.host()
        host.fails(work, FAILURES["refused"], first)
        undoing = host.world.steps[first + 1 :]
        assert len(undoing) > 5
        for step, what in enumerate(undoing, first + 1):
            host, work = case.host()
            host.fails(work, failure, step, FAILURES["refused"].trap(first))
            case.is_one_generation(host, at=what)
            if failure.kills:
                host.next_daemon()
                host.is_settled()
                case.is_one_generation(host)
            case.converges(host)


class Rollback(Case):
    """A change that nobody confirmed: what is undone, step by step."""

    def __init__(self, named, now, then, suspended=""):
        super().__init__(named, now, then, suspended, confirm_s=60.0)
        host = self.host_due()
        host.do(host.engine.roll_back_due())
        self.is_as_before(host)
        self.undoing = host.world.steps[len(self.after.world.steps) :]
        self.steps = range(len(self.after.world.steps), len(host.world.steps))

    def host_due(self):
        host = self.after.again(self.named())
        host.world.uptime_s += 60.0
        return host

    def starts_no_guest_under_other_rules(self, host):
        if host.flows == self.after.flows:
            assert not any(step.startswith("start ") for step in host.world.steps[self.steps[0] :])


@pytest.mark.parametrize("failure", ["killed-before", "killed-after"])
def test_a_rollback_that_was_asked_for_goes_on_when_the_daemon_was_killed(failure):
    """Its time is not over yet; but once it is begun nobody confirms it any more."""
    with directories() as named:
        case, failure = Rollback(named, *CHANGES["all"]), FAILURES[failure]
        for step, what in zip(case.steps, case.undoing, strict=True):
            host = case.after.again(named())
            host.fails(host.engine.roll_back("small", silent), failure, step)
            case.is_one_generation(host, at=what)
            host.next_daemon()
            if failure is FAILURES["killed-before"] and step == case.steps[0]:
                case.is_done(host)  # it had not begun
            else:
                case.is_as_before(host)
            host.engine.store.close()


@pytest.mark.parametrize("failure", [name for name in FAILURES if name != "interrupted"])
@pytest.mark.parametrize("change", UNDONE.values(), ids=UNDONE)
def test_a_rollback_that_goes_wrong_at_any_step_is_taken_up_again(change, failure):
    with directories() as named:
        case, failure = Rollback(named, *change), FAILURES[failure]
        for step, what in zip(case.steps, case.undoing, strict=True):
            host = case.host_due()
            work = host.engine.roll_back_due()
            if failure.kills:
                host.fails(work, failure, step)
                case.is_one_generation(host, at=what)
                host.next_daemon()
            elif is_write(what) and failure.after:
                work.close()
                continue
            else:
                trap = failure.trap(step)
                host.world.traps = (trap,)
                host.do(work)
                assert trap.sprung
                case.is_one_generation(host, at=what)
                case.starts_no_guest_under_other_rules(host)
                host.world.uptime_s += RETRY_S
                host.do(host.engine.roll_back_due())
            case.is_as_before(host)
            host.engine.store.close()


@pytest.mark.parametrize("failure", ["refused", "killed-before", "killed-after"])
def test_a_removal_that_goes_wrong_at_any_step_can_be_completed(failure):
    with directories() as named:
        host, failure = Host(named()), FAILURES[failure]
        host.up(TWO)
        there = Snapshot(host)
        host = there.again(named())
        host.do(host.engine.down("small", silent))
        for step in range(len(there.world.steps), len(host.world.steps)):
            host = there.again(named())
            host.fails(host.engine.down("small", silent), failure, step)
            assert host.flows in (there.flows, frozenset())
            if failure.kills:
                host.next_daemon()
            host.world.traps = ()
            host.do(host.engine.down("small", silent))
            assert host.world.contents() == World().contents() and host.record is None
            host.engine.store.close()


@pytest.mark.parametrize(
    ("module", "where"),
    [
        (engine_module, "work_out"),
        (engine_module, "observe"),
        (refusals, "refuse_what_does_not_fit"),
    ],
    ids=["work_out", "observe", "refuse_what_does_not_fit"],
)
@pytest.mark.parametrize("error", [HostError("no"), AssertionError("a bug")], ids=["told", "bug"])
def test_what_goes_wrong_before_the_first_step_changes_nothing(monkeypatch, module, where, error):
    def failing(*_):
        raise error

    with directories() as named:
        case = Case(named, *CHANGES["all"])
        host, work = case.host()
        with monkeypatch.context() as patched:
            patched.setattr(module, where, failing)
            with pytest.raises(type(error)):
                host.do(work)
        case.is_as_before(host)
        case.converges(host)
