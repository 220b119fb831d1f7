"""The pace at which a twin sends."""

from __future__ import annotations

from vnet.fabric.live.twin import SHARE, WINDOW_S, Pace


def paced(*sizes: int) -> list[int]:
    """After how many steps each pause was made."""
    slept: list[float] = []
    pace = Pace(slept.append)
    pauses = []
    for number, size in enumerate(sizes):
        pace.before(size)
        pauses += [number] * (len(slept) - len(pauses))
    assert set(slept) <= {WINDOW_S}
    return pauses


def test_small_steps_share_a_window() -> None:
    assert paced(*[10] * (SHARE // 10)) == []
    assert paced(*[10] * (SHARE // 10 + 1)) == [SHARE // 10]


def test_a_flood_waits_for_a_window_of_its_own_and_what_follows_for_another() -> None:
    assert paced(1, 600, 1) == [1, 2]
    assert paced(600, 600) == [1]
