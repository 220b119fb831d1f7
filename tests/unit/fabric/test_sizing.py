"""Advice about VMs that a host accepts and will do badly."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.fabric.fakes import World, make_engine
from tests.unit.fabric.test_engine import SMALL, source
from vnet.api.answers import outcome_json
from vnet.base.errors import InputError
from vnet.cli import plan_text
from vnet.fabric.progress import silent
from vnet.fabric.sizing import Advice, advice
from vnet.fabric.state import Guest


def guest(cpus: int, memory_mib: int) -> Guest:
    return Guest("web", "micro", cpus, memory_mib << 20, ())


def test_what_fits_well_needs_no_advice() -> None:
    assert advice([guest(2, 4096)], 2, 8 << 30) == ()


def test_more_vcpus_than_cpus_can_never_run_at_once() -> None:
    assert advice([guest(9, 96)], 2, 8 << 30) == (
        Advice("web", "9 vCPUs can never run at once on 2: they wait for each other; lower `cpus`"),
    )


def test_one_vm_should_not_have_more_than_half_of_the_memory() -> None:
    (found,) = advice([guest(1, 4097)], 2, 8 << 30)
    assert found.text.startswith("4,097 MiB are more than half of this host's 8,192 MiB")


def test_a_plan_has_the_advice_for_those_it_starts_and_only_for_them(tmp_path: Path) -> None:
    engine = make_engine(World(), tmp_path)
    engine.host = replace(engine.host, cpus=lambda: 2)
    large = SMALL.replace("b: {networks: [lan]}", "b: {networks: [lan], cpus: 3}")
    planned = asyncio.run(engine.plan(source(large)))
    assert [each.vm for each in planned.advice] == ["b"]
    shown = list(plan_text.lines(outcome_json(planned), coloured=False))
    assert shown[-2].startswith("advice: b: 3 vCPUs can never run at once on 2")
    asyncio.run(engine.up(source(large), silent))
    more = asyncio.run(engine.plan(source(large + "  c: {networks: [lan]}\n")))
    assert more.advice == ()
    asyncio.run(engine.close())


def test_a_disk_that_is_declared_smaller_is_refused_by_the_plan(tmp_path: Path) -> None:
    engine = make_engine(World(), tmp_path)
    text = SMALL.replace("b: {networks: [lan]}", "b: {networks: [lan], disks: [{name: data, size: 2G}]}")
    asyncio.run(engine.up(source(text), silent))
    with pytest.raises(InputError, match="the disk data of b has 2048M and is declared with 1024M"):
        asyncio.run(engine.plan(source(text.replace("2G", "1G"))))
    assert asyncio.run(engine.plan(source(text.replace("2G", "3G")))).actions
    asyncio.run(engine.close())
