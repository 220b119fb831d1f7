"""Which interfaces of the host can be taken, and what is said of those that cannot."""

import pytest

from vnet.fabric.cable import Interface, missing, obstacle

KEPT = {
    "of the kind bridge": {"kind": "bridge"},
    "is wireless": {"is_wireless": True},
    "member of br0; take it out first: `ip link set eth1 nomaster`": {"master": "br0"},
    "carries eth1.20, macvlan3; remove them first: `ip link delete eth1.20`": {
        "carried": ("eth1.20", "macvlan3")
    },
    "has the addresses 192.0.2.1/24, 2001:db8::1/64 on eth1": {
        "addresses": ("192.0.2.1/24", "2001:db8::1/64")
    },
    "routes by eth1: default via 192.0.2.9": {"routes": ("default via 192.0.2.9",)},
}


@pytest.mark.parametrize(("said", "found"), KEPT.items(), ids=[next(iter(each)) for each in KEPT.values()])
def test_an_interface_that_the_host_needs_stays_with_it_and_what_to_do_is_said(said, found):
    assert said in str(obstacle(Interface("eth1", **found)))


def test_hardware_and_the_end_of_a_veth_are_taken():
    assert obstacle(Interface("eth1")) is None
    assert obstacle(Interface("eth1", kind="veth")) is None


def test_an_interface_that_is_not_there_is_looked_for_where_it_may_be():
    assert str(missing("eth9", ("eth1", "eth2"))) == (
        "there is no interface eth9 on this host; it has eth1, eth2; `ip link` lists all"
    )
    assert "none that could be taken" in str(missing("eth9", ()))
    assert "the fabric shop has the interface eth9 already" in str(missing("eth9", (), "shop"))
