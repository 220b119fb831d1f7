"""A fabric becomes the scene of a drill."""

from __future__ import annotations

from tests.unit.drill.slow import acting, nic, opened, three_tier
from vnet.drill.scene import GRE, ICMP, NOBODY, TCP, UDP, Scene, Station, link_local
from vnet.fabric.drill import cast


def test_neighbours_that_are_most_open_come_first() -> None:
    assert [peer.name for peer in acting(opened(), "c.eth0").peers] == ["b.eth0", "a.eth0"]
    assert [peer.name for peer in acting(opened(), "b.eth0").peers] == ["a.eth0", "c.eth0"]


def test_services_are_those_that_the_rules_open() -> None:
    scene = acting(three_tier(), "web-1.eth0")
    reached = {(s.station.name, s.version, s.protocol, s.port) for s in scene.open}
    app = "app.eth0"
    assert reached == {(app, v, p, port) for v in (4, 6) for p, port in ((TCP, 8080), (ICMP, 0))}
    assert {service.protocol for service in scene.closed} == {TCP, UDP, GRE}


def test_what_neighbours_may_say_to_each_other_is_known() -> None:
    scene = acting(three_tier(), "intruder.eth1")
    (talk,) = scene.conversations
    assert (talk.client.name, talk.service.station.name, talk.service.port) == ("app.eth1", "db.eth0", 5432)
    assert acting(three_tier(), "db.eth0").conversations == ()


def test_other_networks_are_strangers_but_the_vms_own() -> None:
    scene = acting(three_tier(), "intruder.eth0")
    assert {station.name for station in scene.strangers} == {"app.eth1", "db.eth0"}
    assert "intruder.eth1" not in {each.name for each in cast(three_tier(), scene)}


def test_the_cast_is_whoever_may_send_or_get_something() -> None:
    scene = acting(opened(), "a.eth0")
    assert [each.name for each in cast(opened(), scene)] == ["a.eth0", "b.eth0", "c.eth0", "x.eth0"]


def test_addresses_are_those_of_the_nic_with_its_link_local_one() -> None:
    station = acting(three_tier(), "web-1.eth0").twin
    own = nic(three_tier(), "web-1.eth0")
    assert station.v4 == str(own.addresses[0].ip) and station.v6 == str(own.addresses[1].ip)
    assert station.local == link_local(station.mac) == station.ipv6[-1]
    assert acting(three_tier(), "db.eth0").twin.ipv6 == ()


def test_an_empty_scene_names_nobody() -> None:
    scene = Scene(Station("a.eth0", "02:00:00:00:00:01", 5))
    assert (scene.victim, scene.stranger, scene.gateway4) == (NOBODY, NOBODY, "192.0.2.1")
    assert scene.toward(TCP, 6).address == "2001:db8::1"
