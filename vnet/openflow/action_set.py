"""The action set of a packet (OpenFlow 1.3.5, section 5.10): what is done at the end, in an order of its own.

It holds one action of each kind, and one of each field that is set; a later one replaces an earlier one.
Where the standard says no more than "pop" or "decrement", the order is Open vSwitch's: the tag before the
label, IP before MPLS. Fields are set in the order in which they were written, those first that make other
fields of what follows. Output is ignored where there is a group.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from vnet.openflow.fields import FIELDS
from vnet.openflow.flow import (
    Action,
    CopyTtlIn,
    CopyTtlOut,
    DecIpTtl,
    DecMplsTtl,
    Output,
    PopMpls,
    PopVlan,
    PushMpls,
    PushVlan,
    SetField,
    SetIpTtl,
    SetMplsTtl,
    ToGroup,
)

STAGES: tuple[tuple[type[Action], ...], ...] = (
    (CopyTtlIn,),
    (PopVlan,),
    (PopMpls,),
    (PushMpls,),
    (PushVlan,),
    (CopyTtlOut,),
    (DecIpTtl,),
    (DecMplsTtl,),
    (SetField, SetIpTtl, SetMplsTtl),
    (ToGroup,),
    (Output,),
)
"""The order in which an action set is carried out; actions of one stage in the order they were written."""

_RANK = {kind: rank for rank, kinds in enumerate(STAGES) for kind in kinds}


def check_set(actions: Iterable[Action]) -> None:
    """Raise ValueError for an action that cannot stand in a set."""
    for action in actions:
        if type(action) not in _RANK:
            raise ValueError(f"{type(action).__name__} has no place in an action set")


def put(action_set: dict[object, Action], action: Action) -> None:
    """Write one action into the set, as the last of its stage."""
    slot = (SetField, action.field) if isinstance(action, SetField) else type(action)
    action_set.pop(slot, None)
    action_set[slot] = action


_RESHAPING = [name for name, field in FIELDS.items() if field.reshapes]


def _rank(action: Action) -> tuple[int, int]:
    within = len(_RESHAPING)
    if isinstance(action, SetField) and action.field in _RESHAPING:
        within = _RESHAPING.index(action.field)
    return _RANK[type(action)], within


def ordered(action_set: Mapping[object, Action]) -> list[Action]:
    """The actions as they are to be carried out."""
    actions = sorted(action_set.values(), key=_rank)
    if any(isinstance(action, ToGroup) for action in actions):
        return [action for action in actions if not isinstance(action, Output)]
    return actions
