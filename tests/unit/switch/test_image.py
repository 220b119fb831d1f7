"""The map image against a model: what packets would find after each change, and what is left over."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.switch.maps import Maps
from vnet.openflow.flow import Flow, Instructions, Output, match
from vnet.switch import abi
from vnet.switch.datapath import Change, FlowKey, Refused
from vnet.switch.image import Image
from vnet.switch.staging import stage

flows = st.builds(
    lambda table, priority, port, mac, out: Flow(
        table, priority, match(**port, **mac), Instructions((Output(out),))
    ),
    st.integers(0, 2),
    st.integers(1, 4),
    st.sampled_from([{}, {"in_port": 1}, {"in_port": 2}]),
    st.sampled_from([{}, {"eth_src": 1}, {"eth_src": (2, 3)}]),
    st.integers(1, 2),
)


@given(
    st.lists(st.tuples(st.lists(flows, max_size=6), st.lists(st.integers(0, 99), max_size=4)), max_size=12)
)
def test_packets_find_the_best_flow_of_each_match_after_every_change(
    steps: list[tuple[list[Flow], list[int]]],
) -> None:
    image, maps, model = Image(), Maps(), dict[FlowKey, Flow]()
    for put, removed in steps:
        gone = tuple(sorted(model, key=repr)[n % len(model)] for n in removed if model)
        before = maps.visible()
        staged = stage(image, Change(tuple(put), gone))
        maps.write(staged)
        assert maps.visible() == before, "nothing shows before the flip"
        for key in gone:
            model.pop(key, None)
        model |= {flow.key: flow for flow in put}
        maps.finish(staged)
        image.finish(staged)
        best: dict[object, Flow] = {}
        for flow in model.values():
            shared = (flow.table, flow.match)
            if shared not in best or best[shared].priority < flow.priority:
                best[shared] = flow
        assert maps.visible() == set(best.values())
        assert set(image.flows) == set(model.values())
    everything = stage(image, Change(remove=tuple(model)))
    maps.write(everything)
    maps.finish(everything)
    image.finish(everything)
    assert not maps.index
    assert not image.classifier.masks
    assert not image.classifier.slots


def under_mask(number: int, source: int = 0) -> Flow:
    return Flow(0, 1, match(eth_dst=(0, number), eth_src=source), Instructions((Output(1),)))


def full_table() -> Image:
    """A table that searches as many masks as it may; under the first lie two flows."""
    image = Image()
    flows = [under_mask(number) for number in range(1, abi.TABLE_MASKS + 1)]
    image.finish(stage(image, Change((*flows, under_mask(1, source=1)))))
    return image


@pytest.mark.parametrize("gone", [(under_mask(1).key,), (), (under_mask(99).key,)])
def test_one_mask_too_many_is_refused_although_flows_leave(gone: tuple[FlowKey, ...]) -> None:
    image = full_table()
    flows, version = image.flows, image.version
    for put in ((under_mask(99),), (under_mask(99), under_mask(2))):
        with pytest.raises(Refused):
            stage(image, Change(put, gone))
    assert (image.flows, image.version) == (flows, version)


def test_a_mask_makes_room_for_another_once_all_its_flows_leave() -> None:
    image = full_table()
    both = under_mask(1).key, under_mask(1, source=1).key
    staged = stage(image, Change((under_mask(99),), both))
    (bank,) = staged.tables
    assert len(bank.masks) == abi.TABLE_MASKS
