"""A picture shows what policies mean, neither more nor less, however few lines it takes."""

from __future__ import annotations

from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.generators import Builder, World, three_tier, worlds
from tests.unit.picture.scenes import drawn
from vnet.picture.layout import layout
from vnet.picture.scene import Box, Scene, Sign, State, Wanted, gathered, scene
from vnet.picture.text import listed, width
from vnet.picture.views import GroupBy, View
from vnet.policy.compile import compile
from vnet.policy.reach import reach


def told(scene: Scene) -> set[tuple[str, str, str]]:
    """Each VM that may open something to another, as the gates say."""
    members = {box.key: box.members for box in scene.boxes}
    return {
        (one, other, gate.ports)
        for gate in scene.gates
        for source, target in product(gate.sources, gate.targets)
        for one, other in product(members[source], members[target])
        if one != other
    }


@settings(max_examples=30, deadline=None)
@given(worlds(outside=False), st.booleans())
def test_the_gates_say_what_the_flows_say(world: World, expand: bool) -> None:
    compiled = compile(world.topology, world.inventory)
    found = told(scene(world.topology, world.inventory, compiled, Wanted(expand=expand)))
    pairs: dict[tuple[str, str], set[str]] = {}
    for pair in reach(world.topology, world.inventory, compiled):
        pairs.setdefault((pair.source, pair.target), set()).add(pair.ports)
    assert {(one, other) for one, other, _ in found} == {
        ends for ends, ports in pairs.items() if ports != {"-"}
    }
    for one, other, ports in found:
        if len(pairs[one, other]) == 1:
            assert {ports} == pairs[one, other]


@settings(max_examples=200, deadline=None)
@given(st.sets(st.tuples(st.integers(0, 6), st.integers(0, 6))), st.sets(st.integers(0, 6)))
def test_gathered_pairs_are_the_pairs_that_there_were(pairs: set[tuple[int, int]], singles: set[int]) -> None:
    pairs = {(one, other) for one, other in pairs if one != other or one not in singles}
    found = {pair for sources, targets in gathered(pairs, singles) for pair in product(sources, targets)}
    assert {(one, other) for one, other in found if one != other or one not in singles} == pairs


def test_what_each_may_open_to_all_others_is_one_gate() -> None:
    built = Builder().network("lan", 1, "10.0.0.0/24")
    for number in range(6):
        built.vm(f"vm-{number}", "lan", groups=["all"])
    built.policy("ping", "all", ingress=["allow all icmp"])
    (gate,) = drawn(built).gates
    assert gate.sources == gate.targets and len(gate.sources) == 6


def crowded(count: int) -> Builder:
    built = Builder().network("lan", 1, "10.0.0.0/24")
    for number in range(count):
        built.vm(f"web-{number}", "lan", groups=["web"])
    built.vm("db", "lan", groups=["db"])
    return built.policy("db", "db", ingress=["allow web 5432/tcp"])


def test_many_that_are_alike_are_drawn_as_one_with_their_number() -> None:
    few, many = drawn(crowded(29)), drawn(crowded(30))
    assert [box.count for box in few.boxes] == [1] * 30
    assert [(box.name, box.count) for box in many.boxes] == [("web-0 … web-29", 30), ("db", 1)]
    assert len(drawn(crowded(30), Wanted(expand=True)).boxes) == 31
    assert "those alike drawn as one" in many.subtitle


def test_a_policy_for_one_of_many_tells_it_apart() -> None:
    built = crowded(40).policy("one", "vm:web-7", ingress=["allow db 22/tcp"])
    names = [box.name for box in drawn(built).boxes]
    assert names == ["web-0 … web-39", "web-7", "db"]


def test_denied_and_unreachable_pairs_are_not_drawn() -> None:
    assert told(drawn(three_tier())) == {
        ("web-1", "app", "icmp, 8080/tcp"),
        ("web-2", "app", "icmp, 8080/tcp"),
        ("app", "db", "5432/tcp"),
    }


def test_each_view_shows_its_part() -> None:
    networks, policy = (drawn(three_tier(), Wanted(view)) for view in (View.NETWORKS, View.POLICY))
    assert (len(networks.signs), len(networks.gates)) == (2, 0)
    assert (len(policy.signs), len(policy.gates)) == (0, 2)


def test_states_of_those_alike_are_counted_and_the_worst_comes_first() -> None:
    states = {f"web-{number}": State.READY for number in range(40)} | {"web-3": State.DROPPING}
    web = drawn(crowded(40), states=states).boxes[0]
    assert (web.state, web.states) == (State.DROPPING, {State.READY: 39, State.DROPPING: 1})


def test_lists_are_not_cut_but_counted() -> None:
    ports = ", ".join(f"{port}/tcp" for port in range(9000, 9040))
    lines = listed(ports, 11, 150, lines=4)
    assert len(lines) == 4 and "…" not in "".join(lines)
    shown = " ".join(lines).split(", ")
    assert shown[-1] == f"{40 - (len(shown) - 1)} more" and shown[:-1] == ports.split(", ")[: len(shown) - 1]
    assert all(width(line, 11) <= 150 for line in lines)


def ring(networks: int) -> Builder:
    """As many networks, a VM on each, and one between each and the next."""
    built = Builder()
    for number in range(networks):
        built.network(f"n{number}", number + 1, f"10.0.{number}.0/24")
    for number in range(networks):
        built.vm(f"vm-{number}", f"n{number}")
        built.vm(f"between-{number}", f"n{number}", f"n{(number + 1) % networks}")
    return built


def test_few_networks_have_bands_and_lines_that_join_them() -> None:
    placed = layout(drawn(ring(4), Wanted(View.NETWORKS)))
    assert len(placed.bands) == 8
    assert {bus.name: len(bus.stubs) for bus in placed.buses} == {f"n{number}": 3 for number in range(4)}


def test_many_networks_have_no_such_lines_but_say_who_else_is_on_them() -> None:
    placed = layout(drawn(ring(20), Wanted(View.NETWORKS)))
    assert (len(placed.bands), placed.buses) == (20, ())
    said = {
        card.of.name: " ".join(row.words for row in card.rows if "between" in row.words)
        for card in placed.cards
        if isinstance(card.of, Sign)
    }
    assert said["n1"] == "also between-0"
    assert said["n19"] == "also between-18, between-19"


def test_networks_are_listed_where_openings_would_lead_across_too_many() -> None:
    placed = layout(drawn(ring(20)))
    assert placed.bands == ()
    assert sum(row.words.startswith("n") and "VLAN" in row.words for row in placed.notes) == 20


def test_policies_by_network_show_every_vm_also_of_many_networks() -> None:
    placed = layout(drawn(ring(20), Wanted(View.POLICY, GroupBy.NETWORK)))
    assert sum(isinstance(card.of, Box) for card in placed.cards) == 40
    assert len(placed.bands) == 20
