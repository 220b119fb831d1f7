"""How restart policies, health checks and time spans are read."""

from __future__ import annotations

import re

from vnet.topology.life import Restart, RestartWhen
from vnet.topology.reading import quoted, suggestion
from vnet.topology.shape import Refused
from vnet.topology.yaml import Scalar

RESTART_PATTERN = r"^(no|always|unless-stopped|on-failure(:[1-9][0-9]*)?)$"
TRIES_MAX = 1_000_000


def restart(scalar: Scalar) -> Restart:
    """A restart policy: `no`, `always`, `unless-stopped`, `on-failure` or `on-failure:TRIES`."""
    word = "no" if scalar.value is False else scalar.text
    when, colon, tries = word.partition(":")
    if not re.fullmatch(RESTART_PATTERN, word) or (colon and int(tries) > TRIES_MAX):
        raise Refused(hint=suggestion(when, [each.value for each in RestartWhen]))
    return Restart(RestartWhen(when), int(tries) if colon else None)


def test_of(words: tuple[str, ...]) -> tuple[str, ...]:
    """The command of a health check: one text is for the shell, several are words, as in Compose."""
    first, rest = words[0], words[1:]
    if first == "CMD" and rest:
        return rest
    if first == "CMD-SHELL" and rest:
        return ("sh", "-c", " ".join(rest))
    return ("sh", "-c", first) if not rest else words


SPAN_PATTERN = r"^[0-9]+(\.[0-9]+)?(ms|s|m|h)$"
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
SPAN_MAX_S = 86400.0


def span(scalar: Scalar) -> float:
    """A time span in seconds: `500ms`, `10s`, `2m`, `1h`; up to a day."""
    found = re.fullmatch(r"([0-9.]+)(ms|s|m|h)", scalar.text) if re.match(SPAN_PATTERN, scalar.text) else None
    if found is None:
        bare = re.fullmatch(r"[0-9]+", scalar.text)
        raise Refused(hint=f'give the unit: did you mean "{scalar.text}s"?' if bare else "")
    span_s = float(found[1]) * _UNITS[found[2]]
    if span_s > SPAN_MAX_S:
        raise Refused(f"expected a time of a day at most, found {quoted(scalar.text)}")
    return span_s
