"""A plan in words."""

from vnet.cli.plan_text import lines
from vnet.fabric.outcome import Kind


def test_every_kind_of_thing_that_changes_is_told():
    changes = [{"mark": "+", "kind": kind.value, "name": f"a {kind}", "what": ""} for kind in Kind]
    counts = {key: {} for key in ("vms", "ports", "flows")}
    plan = {"fabric": "lab", "generation": 1, "actions": ["x"], "changes": changes, "counts": counts}
    told = "\n".join(lines(plan, coloured=False))
    assert [kind for kind in Kind if f"  + a {kind}" not in told] == []
