"""The engine on a host in memory: everything or nothing, and nothing twice."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count

import pytest

from tests.breaking_off import broken_off
from tests.unit.fabric.fakes import Trap, World, make_engine, refuse
from vnet.base import paths
from vnet.base.errors import AdmissionError, Exit, HostError, InputError
from vnet.fabric.live import attaching, disks, refusals, snapshots
from vnet.fabric.live.breaking_off import Interrupted
from vnet.fabric.live.engine import AskFirst, PlanChanged, Terms
from vnet.fabric.live.refusals import ClaimsFailed
from vnet.fabric.progress import Status, silent
from vnet.fabric.store import Source
from vnet.hv.admission import Room

SMALL = """\
name: small
defaults: {image: micro, cpus: 1, memory: 96M}
networks:
  lan: {vlan: 10, subnets: 10.0.0.0/24}
vms:
  a: {networks: [lan]}
  b: {networks: [lan]}
"""
LARGER = SMALL + "  c: {networks: [lan]}\n"
OTHER_MEMORY = SMALL.replace("  a: {networks: [lan]}", "  a: {networks: [lan], memory: 128M}")
WITHOUT_A = SMALL.replace("  a: {networks: [lan]}\n", "")
ONLY_C = LARGER.replace("  a: {networks: [lan]}\n  b: {networks: [lan]}\n", "")


def source(text):
    return Source("small.vnet.yaml", text)


@pytest.fixture
def world():
    return World()


@pytest.fixture
def engine(world, tmp_path):
    made = make_engine(world, tmp_path)
    yield made
    asyncio.run(made.close())


def up(engine, text=SMALL):
    return asyncio.run(engine.up(source(text), silent))


def test_up_makes_everything_and_a_second_up_changes_nothing(engine, world):
    first = up(engine)
    made = world.contents()
    assert first.generation == 1 and len(first.actions) > 5
    calls = len(world.calls)
    assert up(engine).actions == ()
    assert world.contents() == made and len(world.calls) == calls


def test_a_comment_in_the_file_changes_nothing(engine):
    up(engine)
    outcome = up(engine, SMALL.replace("vms:", "# the machines\nvms:"))
    assert (outcome.actions, outcome.generation) == ((), 1)


def test_the_plan_is_what_up_does(engine):
    planned = asyncio.run(engine.plan(source(SMALL)))
    assert planned.actions == up(engine).actions


def test_a_plan_is_named_and_up_can_be_bound_to_it(engine, world):
    planned = asyncio.run(engine.plan(source(SMALL)))
    for text, name in ((SMALL, "0123456789ab"), (LARGER, planned.id)):
        with pytest.raises(PlanChanged, match="nothing was changed") as refused:
            asyncio.run(engine.up(source(text), silent, Terms(plan=name)))
        assert refused.value.exit_code == Exit.REFUSED
    assert world.calls == []
    assert asyncio.run(engine.up(source(SMALL), silent, Terms(plan=planned.id))) == planned
    with pytest.raises(PlanChanged):
        asyncio.run(engine.up(source(SMALL), silent, Terms(plan=planned.id)))


def test_a_plan_that_removes_more_than_it_keeps_is_carried_out_only_when_that_is_agreed_to(engine, world):
    up(engine, LARGER)
    made, record = world.contents(), engine.store.load("small")
    with pytest.raises(
        AskFirst, match=r"remove 2 of 3 VMs and 2 of 3 ports of small.*vnet up --yes"
    ) as refused:
        up(engine, ONLY_C)
    assert refused.value.exit_code == Exit.REFUSED
    assert world.contents() == made and engine.store.load("small") == record
    asyncio.run(engine.up(source(ONLY_C), silent, Terms(agreed=True)))
    assert world.guests == {("small", "c")}


def test_a_plan_that_keeps_as_much_as_it_removes_is_not_asked_about(engine, world):
    up(engine)
    up(engine, WITHOUT_A)
    assert world.guests == {("small", "b")}


def test_what_is_made_again_is_not_removed(engine, world):
    up(engine)
    up(engine, SMALL.replace("memory: 96M", "memory: 128M"))
    assert world.guests == {("small", "a"), ("small", "b")}


def test_a_vm_that_does_not_run_counts_as_there(engine, world):
    """So the ports say: it would lose them."""
    up(engine, LARGER)
    for name in "ab":
        asyncio.run(engine.stop("small", name, 1.0, silent))
    with pytest.raises(AskFirst):
        up(engine, ONLY_C)


def test_a_plan_changes_nothing(engine, world):
    asyncio.run(engine.plan(source(SMALL)))
    assert world.calls == [] and engine.store.fabrics() == ()


def test_down_leaves_nothing(engine, world):
    up(engine)
    asyncio.run(engine.down("small", silent))
    assert world.contents() == World().contents()
    assert engine.store.fabrics() == () and world.tidied == ["small"]


def test_down_of_what_is_not_up_is_no_error(engine):
    assert asyncio.run(engine.down("small", silent)).actions == ()


def test_ctrl_c_undoes_what_was_begun_and_says_so(world, tmp_path):
    async def interrupted():
        engine = make_engine(world, tmp_path)
        world.hang = "wait for b"
        task = asyncio.ensure_future(engine.up(source(SMALL), silent))
        await world.hanging.wait()
        task.cancel()
        with pytest.raises(Interrupted, match="interrupted; nothing is left of it") as raised:
            await task
        assert raised.value.exit_code == Exit.INTERRUPTED
        assert world.contents() == World().contents()
        assert (await engine.up(source(SMALL), silent)).generation == 1
        await engine.close()

    asyncio.run(interrupted())


def test_a_vm_that_cannot_be_suspended_again_runs_on_and_that_is_told(engine, world):
    def refuse_some(world, what):
        if what in ("wait for c", "suspend a"):
            refuse(world, what)

    up(engine)
    asyncio.run(snapshots.suspend(engine, "small", "a", silent))
    world.traps = (Trap(0, refuse_some, lasting=True),)
    with pytest.raises(HostError, match=r"not everything could be undone;.*\n  suspend a: the host refused"):
        up(engine, LARGER)
    assert world.guests == {("small", "a"), ("small", "b")}
    assert "suspend a" in engine.fabrics["small"].trouble


def test_a_new_daemon_adopts_everything_and_changes_nothing(engine, world, tmp_path):
    up(engine)
    made, calls = world.contents(), len(world.calls)
    again = make_engine(world, tmp_path)
    asyncio.run(again.adopt())
    assert world.contents() == made and len(world.calls) == calls
    assert again.fabrics["small"].trouble == ""
    assert up(again).actions == ()
    asyncio.run(again.close())


def test_a_new_daemon_puts_back_what_somebody_took_away(engine, world, tmp_path):
    up(engine)
    made = world.contents()
    world.switches["small"] = frozenset(list(world.switches["small"])[3:])
    del world.interfaces["small", "a.eth0"]
    world.attached["small"] = frozenset(
        each for each in world.attached["small"] if each.port.ifname != "a.eth0"
    )
    again = make_engine(world, tmp_path)
    asyncio.run(again.adopt())
    assert world.contents() == made
    asyncio.run(again.close())


def test_a_new_daemon_ends_the_vms_that_a_killed_one_was_about_to_remove(engine, world, tmp_path):
    up(engine)
    record = engine.store.load("small")
    engine.store.save(replace(record, source=source(WITHOUT_A), generation=2))
    again = make_engine(world, tmp_path)
    asyncio.run(again.adopt())
    assert world.guests == {("small", "b")}
    assert [guest.name for guest in again.store.guests("small")] == ["b"]
    assert up(again, WITHOUT_A).actions == ()
    asyncio.run(again.close())


def test_after_a_reboot_the_network_comes_back_and_guests_wait_for_up(engine, world, tmp_path):
    up(engine)
    rebooted = World()
    again = make_engine(rebooted, tmp_path, boot="boot-2")
    asyncio.run(again.adopt())
    assert rebooted.namespaces == {"small"} and rebooted.guests == set()
    up(again)
    assert rebooted.guests == {("small", "a"), ("small", "b")}
    asyncio.run(again.close())


def test_a_file_that_can_no_longer_be_read_is_told_and_nothing_is_touched(engine, world, tmp_path):
    up(engine)
    made = world.contents()
    engine.store._db.execute("UPDATE fabric SET text = 'nme: small'")
    again = make_engine(world, tmp_path)
    asyncio.run(again.adopt())
    assert again.fabrics["small"].trouble and world.contents() == made
    asyncio.run(again.down("small", silent))
    assert world.contents() == World().contents()
    asyncio.run(again.close())


def test_a_foreign_namespace_of_that_name_is_left_alone(engine, world):
    world.namespaces.add("small")
    with pytest.raises(HostError, match=r"already there.*ip netns delete"):
        up(engine)
    assert world.namespaces == {"small"} and world.calls == []


def test_a_foreign_interface_in_the_way_is_left_alone(engine, world):
    up(engine)
    world.interfaces["small", "c.eth0"] = "veth"
    with pytest.raises(HostError, match=r"another kind.*c\.eth0"):
        up(engine, LARGER)
    assert world.interfaces["small", "c.eth0"] == "veth"


def test_guests_that_do_not_fit_are_refused_before_anything_is_made(world, tmp_path):
    engine = make_engine(world, tmp_path, memory_bytes=300 << 20)
    with pytest.raises(AdmissionError) as raised:
        up(engine)
    assert raised.value.exit_code == Exit.REFUSED
    assert world.calls == [] and engine.store.fabrics() == ()
    asyncio.run(engine.close())


def test_memory_that_could_not_be_loaded_is_told_before_anything_is_made(engine, world):
    up(engine)
    for name in ("a", "b"):
        asyncio.run(snapshots.suspend(engine, "small", name, silent))
    world.other_memory.add(("small", "b"))
    calls, suspended = list(world.calls), set(world.suspended)
    with pytest.raises(HostError, match="the memory of b cannot be loaded"):
        up(engine, LARGER)
    assert world.calls == calls and world.suspended == suspended == {("small", "a"), ("small", "b")}


def test_memory_that_is_kept_is_lost_when_its_vm_is_booted_and_not_when_that_is_refused(
    engine, world, monkeypatch
):
    async def refuse_start(*given):
        raise AdmissionError("no room")

    up(engine)
    asyncio.run(snapshots.suspend(engine, "small", "a", silent))
    with monkeypatch.context() as patched:
        patched.setattr(refusals, "refuse_start", refuse_start)
        with pytest.raises(AdmissionError):
            asyncio.run(engine.start("small", "a", silent, boot=True))
    with pytest.raises(InputError, match="there is no VM z"):
        asyncio.run(engine.start("small", "z", silent, boot=True))
    assert world.suspended == {("small", "a")}
    calls = list(world.calls)
    asyncio.run(engine.start("small", "a", silent, boot=True))
    assert world.calls[len(calls) :][:2] == ["forget the memory of a", "start a"]


@pytest.mark.parametrize("how", ["stop", "suspend"])
def test_nothing_is_left_of_a_vm_that_did_not_run_when_it_was_removed(engine, world, how):
    up(engine)
    if how == "stop":
        asyncio.run(engine.stop("small", "a", 1.0, silent))
    else:
        asyncio.run(snapshots.suspend(engine, "small", "a", silent))
    up(engine, WITHOUT_A)
    assert "destroy a" in world.calls and not world.suspended
    assert [guest.name for guest in engine.store.guests("small")] == ["b"]


def test_what_is_left_of_a_vm_and_cannot_be_removed_is_told_and_tried_again(engine, world):
    up(engine)
    asyncio.run(engine.stop("small", "a", 1.0, silent))

    def refuse_to_destroy(world, what):
        if what == "destroy a":
            refuse(world, what)

    world.traps = (Trap(0, refuse_to_destroy, lasting=True),)
    up(engine, WITHOUT_A)
    assert "remove a: the host refused" in engine.fabrics["small"].trouble
    world.traps = ()
    up(engine, WITHOUT_A)
    assert engine.fabrics["small"].trouble == ""
    assert [guest.name for guest in engine.store.guests("small")] == ["b"]


def test_what_is_attached_starts_nobody(engine, world):
    up(engine, LARGER)
    asyncio.run(engine.stop("small", "a", 1.0, silent))
    asyncio.run(snapshots.suspend(engine, "small", "b", silent))
    for vm in ("c", "a"):
        asyncio.run(attaching.change(engine, "small", vm, "logs:1G", attach=True, report=silent))
    assert world.guests == {("small", "c")} and world.suspended == {("small", "b")}
    assert [disk.name for disk in world.specs["small", "c"].disks] == ["logs"]
    asyncio.run(engine.start("small", "a", silent))
    assert [disk.name for disk in world.specs["small", "a"].disks] == ["logs"]


def test_what_would_make_kept_memory_useless_is_not_attached(engine, world):
    up(engine)
    asyncio.run(snapshots.suspend(engine, "small", "a", silent))
    world.other_memory.add(("small", "a"))
    generation = engine.fabrics["small"].record.generation
    asyncio.run(attaching.change(engine, "small", "b", "logs:1G", attach=True, report=silent))
    with pytest.raises(HostError, match="the memory of a cannot be loaded"):
        asyncio.run(attaching.change(engine, "small", "a", "logs:1G", attach=True, report=silent))
    assert engine.fabrics["small"].record.generation == generation + 1


def test_disks_are_not_those_that_are_left_of_a_fabric_once_it_is_up_again(engine):
    up(engine)
    with pytest.raises(HostError, match="small is up again: the disks of its VMs are kept"):
        asyncio.run(disks.remove_left(engine, "small"))


def test_what_is_left_of_a_fabric_goes_also_as_far_as_it_is_half_made(engine, tmp_path, monkeypatch):
    monkeypatch.setenv("VNET_STATE_DIR", str(tmp_path))
    mine, others = (paths.disks_dir() / each / "a/.data.qcow2.importing" for each in ("small", "large"))
    for half in (mine, others):
        half.mkdir(parents=True)
    assert asyncio.run(disks.remove_left(engine, "small")) == []
    assert not mine.parent.exists() and others.exists()


def test_vcpus_that_are_too_many_are_refused_and_those_of_other_fabrics_count(world, tmp_path):
    engine = make_engine(world, tmp_path)
    engine.host = replace(engine.host, cpus=lambda: 1, vcpus_per_cpu=lambda: 3)
    up(engine)
    calls = list(world.calls)
    with pytest.raises(AdmissionError, match="2 vCPUs are asked for and 2 run already") as refused:
        up(engine, SMALL.replace("name: small", "name: second"))
    assert refused.value.exit_code == Exit.REFUSED
    assert world.calls == calls and engine.store.fabrics() == ("small",)
    asyncio.run(engine.close())


def test_preallocated_disks_are_refused_before_anything_is_made_and_thin_ones_are_not(world, tmp_path):
    def missing_bytes(fabric, vm, disk):
        return disk.size_bytes if disk.is_full else 0

    engine = make_engine(world, tmp_path)
    free = {"default": (1 << 30) - 1 + (512 << 20), "fast": 1 << 40}
    engine.host = replace(
        engine.host,
        missing_disk_bytes=missing_bytes,
        disk_room=lambda location: Room(len(location), free[location], location),
    )
    full = SMALL.replace(
        "networks: [lan]", "networks: [lan], disks: [{name: data, size: 1G, preallocated: true}]", 1
    )
    with pytest.raises(AdmissionError, match=r"disks a/\w+: they take 1,024 MiB"):
        up(engine, full)
    assert world.calls == [] and engine.store.fabrics() == ()
    assert up(engine, full.replace("preallocated: true", "preallocated: false")).generation == 1
    assert up(engine, full.replace("size: 1G", "size: 1G, location: fast")).generation == 2
    asyncio.run(engine.close())


@pytest.mark.parametrize(
    ("key", "kind"), [("impair: {loss: 1%}", "netem"), ("rate: 1M", "tbf"), ("impair: {rate: 1M}", "tbf")]
)
def test_lines_that_the_kernel_cannot_do_are_refused_at_plan(world, tmp_path, key, kind):
    engine = make_engine(world, tmp_path)
    engine.host = replace(engine.host, has_queue=lambda asked: asked != kind)
    text = SMALL.replace("networks: [lan]", f"interfaces: {{eth0: {{network: lan, {key}}}}}", 1)
    for ask in (lambda: asyncio.run(engine.plan(source(text))), lambda: up(engine, text)):
        with pytest.raises(
            AdmissionError, match=rf"small.vnet.yaml:6.*a\.eth0 .*lacks sch_{kind}"
        ) as refused:
            ask()
        assert refused.value.exit_code == Exit.REFUSED
    assert world.calls == []
    engine.host = replace(engine.host, has_queue=lambda asked: asked == kind)
    assert up(engine, text).generation == 1
    asyncio.run(engine.close())


@pytest.mark.parametrize(
    ("text", "failed", "refused"),
    [
        (SMALL, (), AdmissionError),
        (SMALL, ("small.vnet.yaml:9: allow a -> b: FAILS",), ClaimsFailed),
        ("name: small\n", (), type(None)),
    ],
)
def test_a_plan_tells_that_up_would_be_refused(world, tmp_path, text, failed, refused):
    engine = make_engine(world, tmp_path, memory_bytes=300 << 20)
    engine.failed_claims = lambda declared: failed
    planned = asyncio.run(engine.plan(source(text)))
    assert type(planned.refused) is refused
    if refused in (AdmissionError, ClaimsFailed):
        with pytest.raises(refused) as raised:
            up(engine, text)
        assert str(raised.value) == str(planned.refused) and planned.actions
    assert world.calls == []


def test_guests_of_another_fabric_keep_the_memory_they_were_promised(world, tmp_path):
    engine = make_engine(world, tmp_path, memory_bytes=800 << 20)
    up(engine)
    with pytest.raises(AdmissionError, match="320 MiB are promised to running guests"):
        up(engine, SMALL.replace("name: small", "name: second"))
    assert engine.store.fabrics() == ("small",)
    asyncio.run(engine.close())


def test_two_fabrics_that_come_up_together_are_not_given_the_same_memory(world, tmp_path):
    async def together():
        engine = make_engine(world, tmp_path, memory_bytes=800 << 20)
        world.hang = "create switch"
        first = asyncio.create_task(engine.up(source(SMALL), silent))
        await world.hanging.wait()
        with pytest.raises(AdmissionError):
            await engine.up(source(SMALL.replace("name: small", "name: second")), silent)
        first.cancel()
        with pytest.raises(Interrupted):
            await first
        await engine.close()

    asyncio.run(together())


def test_claims_that_fail_stop_it_before_anything_is_made(engine, world):
    engine.failed_claims = lambda declared: ("small.vnet.yaml:9: allow a -> b: FAILS",)
    with pytest.raises(ClaimsFailed, match="nothing was changed"):
        up(engine)
    assert world.calls == []


def test_a_stopped_vm_stays_stopped_until_it_is_started(engine, world, tmp_path):
    up(engine)
    asyncio.run(engine.stop("small", "a", 1.0, silent))
    assert world.guests == {("small", "b")}
    again = make_engine(world, tmp_path)
    asyncio.run(again.adopt())
    assert world.guests == {("small", "b")}
    asyncio.run(again.start("small", "a", silent))
    assert world.guests == {("small", "a"), ("small", "b")}
    asyncio.run(again.close())


def test_a_stop_that_nobody_waits_for_any_more_is_done_and_remembered_or_not_begun(engine, world):
    up(engine)
    for wait in count(1):
        asyncio.run(engine.start("small", "a", silent))
        try:
            asyncio.run(broken_off(engine.stop("small", "a", 1.0, silent), wait))
        except (Interrupted, asyncio.CancelledError) as broken:
            is_off = ("small", "a") not in world.guests
            assert engine.fabrics["small"].record.stopped == ({"a"} if is_off else set())
            assert is_off == (str(broken) == "interrupted; a was stopped all the same")
        else:
            break
    assert wait > 1


def test_an_unknown_vm_names_those_there_are(engine):
    up(engine)
    with pytest.raises(InputError, match="no VM z in fabric small; its VMs: a, b"):
        asyncio.run(engine.start("small", "z", silent))


def test_an_unknown_fabric_names_those_there_are(engine):
    up(engine)
    with pytest.raises(InputError, match=r"no fabric nowhere.*small"):
        engine.fabric("nowhere")


def test_progress_tells_the_plan_then_the_start_and_the_end_of_every_step(engine):
    told = []
    outcome = asyncio.run(engine.up(source(SMALL), told.append))
    assert told.pop(0) == outcome
    started = [each.what for each in told if each.status is Status.STARTED]
    done = [each.what for each in told if each.status is Status.DONE]
    assert sorted(started) == sorted(done)
    assert "start a" in done and "create 2 ports" in done


EXPIRING = (
    SMALL
    + """\
policies:
  - name: for-a-day
    applied_to: any
    ingress: [{from: any, ports: [22/tcp], expires: 2026-01-01}, {from: any, ports: [80/tcp]}]
"""
)


def rules_in_force(engine):
    return {origin.rule for origin in engine.fabrics["small"].declared.compiled.provenance.values()} - {""}


def test_a_rule_ceases_when_its_time_is_over(engine, world):
    up(engine, EXPIRING)
    assert rules_in_force(engine) == {"ingress 1", "ingress 2"}
    assert engine.next_expiry() == datetime(2026, 1, 2, tzinfo=UTC)
    asyncio.run(engine.expire())
    assert engine.fabrics["small"].record.generation == 1, "not yet"
    before, world.now = world.contents(), datetime(2026, 1, 2, tzinfo=UTC)
    asyncio.run(engine.expire())
    assert rules_in_force(engine) == {"ingress 2"}
    assert world.contents() != before
    record = engine.fabrics["small"].record
    assert (record.generation, record.enforced) == (2, 2)
    assert engine.next_expiry() is None
    assert up(engine, EXPIRING).actions == ()


def test_a_rule_that_could_not_be_taken_out_of_force_is_told_and_tried_again(engine, world):
    up(engine, EXPIRING)
    world.now = datetime(2026, 1, 3, tzinfo=UTC)
    world.fuse(1)
    asyncio.run(engine.expire())
    assert "have expired" in engine.fabrics["small"].trouble
    assert rules_in_force(engine) == {"ingress 1", "ingress 2"}
    asyncio.run(engine.expire())
    assert (rules_in_force(engine), engine.fabrics["small"].trouble) == ({"ingress 2"}, "")
