"""Scenes for tests: from small fabrics, and generated ones with names as bad as they can be."""

from __future__ import annotations

import random

from hypothesis import strategies as st

from tests.generators import Builder
from vnet.picture.scene import Box, Gate, Line, Scene, Sign, State, Wanted, bands, scene
from vnet.picture.views import GroupBy, View
from vnet.policy.compile import compile

HOSTILE = (
    "<script>alert(1)</script>",
    '"]; end\n graph [label="x',
    "]]>&amp;' onload='x",
    "a\\",
    "#quot;`**x**`",
    "\x00\x1b[31m\u202eevil",
)
UNICODE = ("名前がとても長い仮想マシン", "Übergrößenträger-ß", "🦊🦊🦊🦊", "щщщщщщщщщщщщщщщщщщщ", "éé")
LONG = ("w" * 63, "very-long-name-with-hyphens-" * 2 + "end", "W" * 40)


def drawn(builder: Builder, wanted: Wanted | None = None, states: dict[str, State] | None = None) -> Scene:
    """The scene of a built fabric."""
    topology, inventory = builder.build()
    return scene(topology, inventory, compile(topology, inventory), wanted or Wanted(), states)


names = st.one_of(
    st.sampled_from(HOSTILE + UNICODE + LONG), st.from_regex(r"[a-z][a-z0-9-]{0,12}", fullmatch=True)
)


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    """Any scene of up to 40 boxes."""
    signs = [
        Sign(
            draw(names) + str(number),
            number,
            ("VLAN 4094", "fd00:1234:5678:9abc::/64")[: draw(st.integers(0, 2))],
        )
        for number in range(draw(st.integers(1, 15)))
    ]
    networks = [sign.name for sign in signs]
    boxes = []
    for number in range(draw(st.integers(0, 40))):
        on = tuple(draw(st.lists(st.sampled_from(networks), max_size=4, unique=True)))
        lines = tuple(
            Line(f"eth{n}", name, ("10.0.0.1", "fd00::1")[: draw(st.integers(0, 2))])
            for n, name in enumerate(on)
        )
        name, groups = draw(names), tuple(draw(st.lists(names, max_size=2)))
        states = draw(st.dictionaries(st.sampled_from(State), st.integers(1, 9), max_size=2))
        copies, count = tuple(draw(st.lists(names, max_size=2))), draw(st.sampled_from((1, 1, 7)))
        boxes.append(Box(f"v{number + 1}", name, count, lines, groups, on, (name,), copies, states))
    keys = [box.key for box in boxes]
    ends = st.lists(st.sampled_from(keys), min_size=1, max_size=12, unique=True) if keys else st.nothing()
    gates = [
        Gate(f"g{number}", draw(names), draw(st.booleans()), tuple(draw(ends)), tuple(draw(ends)))
        for number in range(1, (draw(st.integers(0, 25)) if keys else 0) + 1)
    ]
    view, grouping = draw(st.sampled_from(View)), draw(st.sampled_from(GroupBy))
    shown = () if view is View.POLICY else tuple(signs)
    gates = [] if view is View.NETWORKS else gates
    return Scene(draw(names), "told", shown, tuple(boxes), tuple(gates), view, grouping)


def crowd(vms: int, networks: int, openings: int, seed: int = 1) -> Scene:
    """A large scene in which no two VMs are alike."""
    dice = random.Random(seed)
    signs = tuple(Sign(f"network-{n}", n, (f"VLAN {n + 1}", f"10.{n}.0.0/24")) for n in range(networks))
    boxes = []
    for number in range(1, vms + 1):
        on = tuple(sign.name for sign in dice.sample(signs, min(networks, dice.choice((1, 1, 1, 2, 3)))))
        lines = tuple(Line(f"eth{n}", name, (f"10.1.{n}.{number}",)) for n, name in enumerate(on))
        boxes.append(Box(f"v{number}", f"vm-{number}", 1, lines, (f"g{number % 9}",), on, (f"vm-{number}",)))
    keys = [box.key for box in boxes]
    gates = []
    for number in range(1, openings + 1):
        few = [tuple(dice.sample(keys, dice.choice((1, 1, 2, 5)))) for _ in range(2)]
        gates.append(Gate(f"g{number}", dice.choice(("443/tcp", "icmp, 22/tcp", "any")), False, *few))
    grouping = Wanted().grouping(bands(signs, boxes))
    return Scene("crowd", "", signs, tuple(boxes), tuple(gates), View.BOTH, grouping)
