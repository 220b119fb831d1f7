from __future__ import annotations

import pytest

from tests.unit.capture.samples import SSH_SYN, record
from vnet.base.errors import InputError
from vnet.capture.limits import Limits


def test_a_packet_is_cut_but_keeps_its_true_length() -> None:
    cut = Limits(snaplen_bytes=20).cut(record())
    assert (cut.data, cut.original_length) == (SSH_SYN[:20], len(SSH_SYN))


def test_a_packet_that_fits_stays_the_same_object() -> None:
    whole = record()
    assert Limits(snaplen_bytes=len(SSH_SYN)).cut(whole) is whole


@pytest.mark.parametrize(
    ("limits", "packets", "elapsed_s", "reached"),
    [
        (Limits(), 10**9, 1e9, False),
        (Limits(count=3), 2, 0.0, False),
        (Limits(count=3), 3, 0.0, True),
        (Limits(duration_s=2.0), 0, 1.9, False),
        (Limits(duration_s=2.0), 0, 2.0, True),
    ],
)
def test_a_capture_ends_by_count_or_by_time(
    limits: Limits, packets: int, elapsed_s: float, reached: bool
) -> None:
    assert limits.reached(packets, elapsed_s) is reached


@pytest.mark.parametrize(
    "wrong", [{"snaplen_bytes": 0}, {"snaplen_bytes": 300_000}, {"count": 0}, {"duration_s": 0.0}]
)
def test_a_limit_that_makes_no_sense_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(InputError, match="expected"):
        Limits(**wrong)
