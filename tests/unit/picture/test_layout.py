"""Nothing in a picture covers anything else, whatever is drawn; the same input gives the same bytes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from tests.generators import Builder
from tests.unit.picture.areas import faults
from tests.unit.picture.scenes import crowd, drawn, scenes
from vnet.picture.cards import BOX_MAX
from vnet.picture.geometry import Layout
from vnet.picture.layout import layout
from vnet.picture.scene import Box, Gate, Scene, Wanted
from vnet.picture.scene import scene as make
from vnet.picture.svg import svg
from vnet.picture.views import GroupBy, View
from vnet.policy.compile import compile
from vnet.topology.inventory import expand
from vnet.topology.load import load_text


@settings(max_examples=40, deadline=None)
@given(scenes())
def test_nothing_covers_anything_else(scene: Scene) -> None:
    placed = layout(scene)
    assert list(faults(placed)) == []
    assert all(card.rect.width <= BOX_MAX for card in placed.cards)


@pytest.mark.parametrize(("vms", "networks", "openings"), [(200, 50, 150), (120, 3, 150), (60, 12, 200)])
def test_nothing_covers_anything_else_in_a_crowd(vms: int, networks: int, openings: int) -> None:
    assert list(faults(layout(crowd(vms, networks, openings)))) == []


def test_everything_that_is_to_be_shown_is_drawn() -> None:
    scene = crowd(60, 8, 80)
    placed = layout(scene)
    assert {card.key for card in placed.cards if isinstance(card.of, Box)} == {box.key for box in scene.boxes}
    for gate in scene.gates:
        boxes = {wire.box for wire in placed.wires if wire.gate == gate.key and wire.box}
        assert boxes == {*gate.sources, *gate.targets}


def test_every_line_leads_from_a_box_to_its_gate() -> None:
    placed = layout(crowd(40, 8, 60))
    cards = {card.key: card.rect for card in placed.cards}
    for gate in (card.of for card in placed.cards if isinstance(card.of, Gate)):
        wires = [wire for wire in placed.wires if wire.gate == gate.key]
        for wire in wires:
            if wire.box:
                box, (x, y) = cards[wire.box], wire.points[0]
                assert min(abs(x - box.left), abs(x - box.right)) < 0.001
                assert box.top < y < box.bottom
            while not wire.at_gate:
                (wire,) = (each for each in wires if not each.box and each.points[0] == wire.points[-1])
            x, end = wire.points[-1][0], cards[gate.key]
            assert min(abs(x - end.left), abs(x - end.right)) < 0.001


@pytest.mark.parametrize("view", View)
@pytest.mark.parametrize("group_by", [None, *GroupBy])
def test_the_same_scene_gives_the_same_bytes(view: View, group_by: GroupBy | None) -> None:
    wanted = Wanted(view, group_by)
    assert svg(layout(drawn(fabric(), wanted))) == svg(layout(drawn(fabric(), wanted)))


def fabric() -> Builder:
    built = Builder().network("front", 10, "10.0.10.0/24", "fd00:10::/64").network("back", 20, "10.0.20.0/24")
    built.vm("web", "front", groups=["web"]).vm("app", "front", "back", groups=["app"])
    built.vm("db", "back", groups=["db"]).vm("spare", "back")
    return built


def width_to_height(placed: Layout) -> float:
    return placed.width / placed.height


def test_200_vms_that_are_all_different_keep_a_shape_that_can_be_looked_at() -> None:
    placed = layout(crowd(200, 10, 150))
    assert 0.2 < width_to_height(placed) < 5


OUTSIDE = """\
name: shop
networks:
  dmz: {vlan: 10, subnets: 10.10.10.0/24}
  app: {vlan: 20, subnets: [10.10.20.0/24, "fd00:20::/64"]}
  mgmt: {vlan: 99, subnets: 10.10.99.0/24}
  lab: {vlan: 50, subnets: 10.10.50.0/24}
uplinks:
  campus: {interface: eth7, mode: trunk, networks: [lab]}
  isp: {interface: eth1, addresses: [192.0.2.2/24], gateway: 192.0.2.1}
routers:
  gw: {networks: [dmz, app], uplink: host, nat: masquerade}
  edge: {networks: [mgmt], uplink: isp, nat: none}
vms:
  web: {networks: [dmz], replicas: 2, ports: ["127.0.0.1:8443:443/tcp"]}
  bastion: {networks: [mgmt], floating: [192.0.2.7]}
"""


@pytest.mark.parametrize("group_by", [None, *GroupBy])
@pytest.mark.parametrize("view", View)
def test_routers_and_the_outside_have_their_places_too(view: View, group_by: GroupBy | None) -> None:
    topology = load_text(OUTSIDE, "shop.vnet.yaml", {})
    inventory = expand(topology, {})
    scene = make(topology, inventory, compile(topology, inventory), Wanted(view, group_by))
    assert list(faults(layout(scene))) == []
    names = {box.key: box.name for box in scene.boxes}
    assert {"host", "isp"} <= set(names.values())
    told = {
        (gate.ports, *sorted(names[key] for key in {*gate.sources, *gate.targets})) for gate in scene.gates
    }
    out = {("masquerade", "gw", "host"), ("routed, no NAT", "edge", "isp")}
    into = {("127.0.0.1:8443→443/tcp", "host", "web-1", "web-2"), ("floating 192.0.2.7", "bastion", "isp")}
    wanted = {View.BOTH: out | into, View.NETWORKS: out, View.POLICY: into}
    assert told == wanted[view]
    assert ("campus" in names.values()) == (view is not View.POLICY)
