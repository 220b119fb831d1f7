"""What a picture of a running fabric is drawn from: its topology, what NICs got, the worst of each VM."""

from collections import deque
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from vnet.base.drop import DropReason
from vnet.base.errors import HostError
from vnet.cli.picture_commands import _of_fabric
from vnet.fabric.declared import declare
from vnet.fabric.live.pictured import DROPPING_S, pictured
from vnet.fabric.store import Source
from vnet.picture.scene import State
from vnet.topology.inventory import Assignment

NOW_NS = 1_000_000_000_000_000
TEXT = """\
name: small
networks: {lan: {vlan: 10, subnets: 10.0.0.0/24}}
vms: {a: {networks: [lan]}, b: {networks: [lan]}}
"""


def fabric(*drops, previous=None):
    source = Source("small.vnet.yaml", TEXT, {}, {})
    recent = deque(
        SimpleNamespace(nic=nic, time_ns=NOW_NS - int(ago_s * 10**9), reason=reason)
        for nic, ago_s, *reasons in drops
        for reason in (reasons or (DropReason.POLICY,))
    )
    parts = SimpleNamespace(switch=SimpleNamespace(watch=SimpleNamespace(recent=recent)))
    declared = declare(source, previous or {}, datetime(2026, 1, 1, tzinfo=UTC))
    return SimpleNamespace(
        declared=declared, parts=parts, trouble="", record=SimpleNamespace(name="small", source=source)
    )


def vm(name, state="ready", enforced=3):
    return {"vm": name, "state": state, "generation": 3, "enforced": enforced}


@pytest.mark.parametrize(
    ("told", "drops", "expected"),
    [
        (vm("a"), (), "ready"),
        (vm("a", "running"), (), "running"),
        (vm("a"), (("a.eth0", DROPPING_S - 1),), "dropping"),
        (vm("a"), (("a.eth0", DROPPING_S + 1),), "ready"),
        (vm("a"), (("b.eth0", 1),), "ready"),
        (vm("a"), (("a.eth0", 1, DropReason.MULTICAST),), "ready"),
        (vm("a", enforced=2), (("a.eth0", 1),), "not enforced"),
        (vm("a", "stopped", enforced=2), (), "stopped"),
        (vm("a", "crashed"), (("a.eth0", 1),), "crashed"),
    ],
)
def test_the_state_is_the_worst_that_there_is(told, drops, expected):
    answer = pictured(fabric(*drops), [told], NOW_NS)
    assert answer["states"] == {"a": expected}
    assert State(expected)


def test_what_is_drawn_has_the_addresses_that_nics_really_got():
    first = fabric().declared.inventory.assignments["a.eth0"]
    moved = {
        "a.eth0": Assignment(7, 0x525400ABCDEF, tuple(type(each)("10.0.0.77/24") for each in first.addresses))
    }
    drawn = _of_fabric(pictured(fabric(previous=moved), [vm("a"), vm("b")], NOW_NS))
    (nic,) = drawn.inventory.vms[0].nics
    assert (nic.port, nic.mac, str(nic.addresses[0])) == (7, 0x525400ABCDEF, "10.0.0.77/24")
    assert drawn.states == {"a": State.READY, "b": State.READY}


def test_a_fabric_whose_topology_is_not_known_says_so():
    lost = fabric()
    lost.declared, lost.trouble = None, "no such file"
    with pytest.raises(HostError, match="could not be read again: no such file"):
        pictured(lost, [], NOW_NS)
