"""Who waits too long for CPUs or memory, in words, and that each spell is told once."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.fabric.numbers_samples import answers, fabric, numbers, vitals, vm
from vnet.fabric.disk_rates import DiskRate
from vnet.fabric.events import CALM_S, Kind
from vnet.fabric.numbers import HostNumbers, Numbers
from vnet.fabric.rates import Rates, TrafficRate, VmRate, Waits
from vnet.fabric.strain import CALM, WAITS, Lack, Spells, follow, strains

HOST = HostNumbers(2, 24_000 << 20, 300 << 20)
NOBODY: Spells = {}


def now(at_s: float = 0.0) -> Numbers:
    """A VM of eight vCPUs and one of one share two cores; another does not run."""
    off = replace(vm("off", state="stopped"), uptime_s=0.0, cpus=64)
    vms = (replace(vm("web-1"), cpus=8), replace(vm("db"), cpus=1, swapped_bytes=5 << 20), off)
    return replace(numbers(fabric(*vms, name="shop"), at_s=at_s), host=HOST)


def recent(ready: float = 0.0, memory: float = 0.0, host: float = 0.0, span_s: float = 10.0) -> Rates:
    """`ready` is web-1's, `memory` what db waits for it, `host` what something on the host does."""
    web = VmRate("shop", "web-1", TrafficRate(), ready=ready)
    db = VmRate("shop", "db", TrafficRate(), waits=Waits(memory=memory))
    return Rates(span_s, {("shop", "web-1"): web, ("shop", "db"): db}, host=Waits(memory=host))


def test_who_waits_is_told_in_words() -> None:
    found = strains(now(), recent(ready=0.31, memory=0.5, host=0.123))
    assert [(each.fabric, each.subject, each.lack) for each in found] == [
        ("", "host", Lack.MEMORY),
        ("shop", "web-1", Lack.CPU),
        ("shop", "db", Lack.MEMORY),
    ]
    assert [each.text for each in found] == [
        "something waits 12 % of the time for memory of the host: 300 of 24,000 MiB can be had",
        "web-1 waits 31 % of the time for a CPU: 9 vCPUs on 2 cores",
        "db waits 50 % of the time for memory of the host: 5 MiB of it are in swap",
    ]


def test_a_little_waiting_is_not_told_nor_what_was_seen_for_a_moment_only() -> None:
    assert strains(now(), recent(ready=WAITS - 0.01)) == ()
    assert strains(now(), recent(ready=0.9, span_s=2.0)) == ()
    assert strains(now(), Rates()) == ()


def test_who_has_just_been_started_is_not_told() -> None:
    (shop,) = now().fabrics
    young = replace(now(), fabrics=(replace(shop, vms=(replace(shop.vms[0], uptime_s=3.0),)),))
    assert strains(young, recent(ready=0.9)) == ()


def test_a_spell_is_told_once_and_its_end_when_it_stays_so() -> None:
    def told(at_s: float, ready: float, spells: Spells) -> tuple[list[Kind], Spells]:
        found = follow(now(at_s), recent(ready=ready), spells)
        return [event.kind for event in found.events], found.spells

    kinds, spells = told(0.0, 0.31, NOBODY)
    assert kinds == [Kind.CPU_SHORT]
    kinds, spells = told(1.0, 0.4, spells)
    assert kinds == []
    kinds, spells = told(20.0, (WAITS + CALM) / 2, spells)
    assert kinds == [], "it is less, and not over"
    kinds, spells = told(20.0 + CALM_S - 1, 0.0, spells)
    assert kinds == []
    ended = follow(now(20.0 + CALM_S), recent(), spells)
    (event,) = ended.events
    assert (event.kind, event.fabric, event.subject) == (Kind.CPU_SHORT_OVER, "shop", "web-1")
    assert event.fields == {"most_percent": 40, "lasted_s": 20.0}
    assert event.text == "web-1 waited for a CPU for 20 s, at most 40 % of the time"
    assert ended.spells == {}


def test_memory_of_the_host_is_an_event_of_no_fabric() -> None:
    found = follow(now(), recent(host=0.2), NOBODY)
    assert [(event.kind, event.fabric, event.subject) for event in found.events] == [
        (Kind.MEMORY_SHORT, "", "host")
    ]
    ended = follow(now(CALM_S), recent(), found.spells)
    assert [event.text for event in ended.events] == [
        "something waited for memory for 0 s, at most 20 % of the time"
    ]


def test_a_spell_ends_with_its_fabric_without_a_word() -> None:
    going = follow(now(), recent(ready=0.5), NOBODY).spells
    assert going
    gone = follow(replace(now(100.0), fabrics=()), Rates(10.0), going)
    assert (gone.events, gone.spells) == ((), {})


def lacking(**more: object) -> Numbers:
    """db tells of itself."""
    (shop,) = now().fabrics
    db = replace(shop.vms[1], vitals=vitals(**more))  # type: ignore[arg-type]
    return replace(now(), fabrics=(replace(shop, vms=(shop.vms[0], db)),))


def test_a_guest_without_memory_says_how_much_it_has_left_and_that_it_swaps() -> None:
    (found,) = strains(lacking(available_bytes=2 << 20), recent())
    assert (found.lack, found.text) == (Lack.GUEST_MEMORY, "db has 2 of its 62 MiB left")
    rates = recent()
    swapping = replace(rates.vms["shop", "db"], swapping_bytes_ps=1.5 * (1 << 20))
    (found,) = strains(
        lacking(available_bytes=2 << 20), replace(rates, vms={**rates.vms, ("shop", "db"): swapping})
    )
    assert found.text == "db has 2 of its 62 MiB left, and swaps 1.5 MiB a second"


def test_what_a_guest_told_long_ago_says_nothing_of_now() -> None:
    assert strains(lacking(available_bytes=2 << 20, told_at_s=-60.0), recent()) == ()


def test_a_slow_disk_is_told_in_words_and_by_an_event() -> None:
    disk = DiskRate("data", writes=answers(93, 7))
    db = VmRate("shop", "db", TrafficRate(), disks=(disk,))
    rates = Rates(10.0, {("shop", "db"): db})
    (found,) = strains(now(), rates)
    assert found.text == "db's disk data answers 7 % of its writes only after 5 s"
    begun = follow(now(), rates, NOBODY)
    assert [event.kind for event in begun.events] == [Kind.DISK_SLOW]
    ended = follow(now(CALM_S), recent(), begun.spells)
    assert [event.text for event in ended.events] == [
        "db had a slow disk for 0 s, at most 7 % of its answers"
    ]


def test_a_qemu_that_hangs_is_told() -> None:
    assert strains(lacking(silent_s=0.3), recent()) == ()
    (found,) = strains(lacking(silent_s=12.0), recent())
    assert (found.lack, found.text) == (Lack.ANSWER, "db's QEMU has not answered for 12 s")
