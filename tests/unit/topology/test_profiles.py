"""Port-security profiles: what a NIC's profile says reaches the NIC, the switch's port and the plan."""

from __future__ import annotations

import yaml

from vnet.base import limits
from vnet.base.limits import Limits
from vnet.cli.expanded import expanded
from vnet.fabric.state import desired
from vnet.switch import abi
from vnet.topology.inventory import Inventory, Nic, expand
from vnet.topology.load import load_text
from vnet.topology.model import STRICT

LAB = """\
name: lab
networks: {lan: {vlan: 1, subnets: 10.0.0.0/24}}
profiles:
  busy: {limits: {connections: 100}}
  plain: {allowed_address_pairs: [{address: 10.0.0.64/28}, {address: "fd00::7", mac: "02:00:00:00:00:07"}]}
  loud: {storm_control: {multicast: 5000}}
templates:
  server: {interfaces: {eth0: {network: lan, profile: busy}}}
vms:
  a: {networks: [lan]}
  b: {template: server}
  c: {template: server, interfaces: {eth0: {profile: strict}}}
  d: {template: server, interfaces: {eth0: {profile: plain}}}
  e: {template: server, interfaces: {eth0: {profile: loud}}}
"""


def lab(text: str = LAB) -> Inventory:
    return expand(load_text(text, "lab.vnet.yaml", {}), {})


def nic(inventory: Inventory, vm: str) -> Nic:
    return next(nic for nic in inventory.nics if nic.vm == vm)


def test_strict_is_the_profile_of_whoever_names_no_other() -> None:
    assert nic(lab(), "a").profile == STRICT
    assert nic(lab(), "c").profile == STRICT


def test_a_profile_comes_from_the_template_and_the_vm_may_name_another() -> None:
    assert nic(lab(), "b").profile.limits == Limits(connections=100)
    assert nic(lab(), "d").profile.name == "plain"


def test_what_a_profile_leaves_out_is_as_in_strict() -> None:
    assert nic(lab(), "d").profile.limits == STRICT.limits
    assert nic(lab(), "b").profile.limits.macs == STRICT.limits.macs


def test_the_ports_wanted_have_the_limits_of_their_nics() -> None:
    inventory = lab()
    state = desired(inventory, ())
    assert {each.limits for each in state.attached} == {
        STRICT.limits,
        Limits(connections=100),
        Limits(multicast_pps=5000),
    }


def test_no_more_can_be_declared_than_the_switch_has() -> None:
    assert (limits.CONNECTIONS_MAX, limits.MACS_MAX) == (abi.CONNS, abi.MACS)


def test_a_topology_written_out_has_the_same_profiles() -> None:
    topology = load_text(LAB, "lab.vnet.yaml", {})
    text = yaml.safe_dump(expanded(topology, expand(topology, {})))
    again = load_text(text, "lab.vnet.yaml", {})
    assert again.profiles == topology.profiles
    assert [nic.profile for nic in expand(again, {}).nics] == [nic.profile for nic in lab().nics]
