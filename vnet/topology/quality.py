"""Words of the language about how a NIC's packets fare: rates, bursts, DSCPs, delays, losses."""

from __future__ import annotations

import re

from vnet.base.line import BPS_MAX, BPS_MIN, BURST_MAX, BURST_MIN, bits
from vnet.topology.reading import quoted
from vnet.topology.shape import Refused
from vnet.topology.yaml import Scalar

RATE_PATTERN = r"^[0-9]+(\.[0-9]+)?[KMG]$"
RATE_EXPECTED = "a rate in bits a second with its unit such as 10M or 1.5G"
BURST_PATTERN = r"^[0-9]+[KM]$"
DELAY_PATTERN = r"^[0-9]+(\.[0-9]+)?(us|ms|s)$"
LOSS_PATTERN = r"^[0-9]+(\.[0-9]+)?%$"
DELAY_MAX_US = 60_000_000

_BITS = {"K": 10**3, "M": 10**6, "G": 10**9}
_BYTES = {"K": 1 << 10, "M": 1 << 20}
_DELAYS_US = {"us": 1, "ms": 1000, "s": 1_000_000}

DSCPS = (
    {"BE": 0, "LE": 1, "EF": 46, "VA": 44}
    | {f"CS{n}": n << 3 for n in range(8)}
    | {f"AF{n}{drop}": n << 3 | drop << 1 for n in range(1, 5) for drop in range(1, 4)}
)
"""By name (RFC 2474, 2597, 3246, 5865, 8622)."""
DSCP_MAX = 63


def rate(scalar: Scalar) -> int:
    """Bits a second; units are powers of 1000, as links are sold and `tc` counts."""
    word = scalar.text
    if not re.fullmatch(RATE_PATTERN, word):
        raise Refused(hint=_hint(word, "KMG", "M"))
    bps = round(float(word[:-1]) * _BITS[word[-1]])
    if not BPS_MIN <= bps <= BPS_MAX:
        raise Refused(f"expected a rate of {bits(BPS_MIN)} to {bits(BPS_MAX)}, found {quoted(word)}")
    return bps


def burst(scalar: Scalar) -> int:
    """Bytes; units are powers of 1024, as those of memory."""
    word = scalar.text
    if not re.fullmatch(BURST_PATTERN, word):
        raise Refused(hint=_hint(word, "KM", "K"))
    size = int(word[:-1]) * _BYTES[word[-1]]
    if not BURST_MIN <= size <= BURST_MAX:
        limits = f"{BURST_MIN >> 10}K to {BURST_MAX >> 20}M"
        raise Refused(f"expected a burst of {limits} bytes, found {quoted(word)}")
    return size


def _hint(word: str, units: str, usual: str) -> str:
    """What somebody probably meant who wrote the unit otherwise, or none."""
    found = re.fullmatch(
        r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]?)(i?b|i?bit|i?bps|ibit/s|bit/s|b/s)?", word, re.IGNORECASE
    )
    if not found or (found[2] and found[2].upper() not in units):
        return ""
    return f'did you mean "{found[1]}{found[2].upper() or usual}"?'


def dscp(scalar: Scalar) -> int:
    """A differentiated services code point, by number or name."""
    word = scalar.text.upper()
    if word in DSCPS:
        return DSCPS[word]
    if re.fullmatch(r"[0-9]{1,2}", word) and int(word) <= DSCP_MAX:
        return int(word)
    raise Refused


def delay(scalar: Scalar) -> int:
    """Microseconds."""
    word = scalar.text
    found = re.fullmatch(r"([0-9.]+)(us|ms|s)", word)
    if not found or not re.fullmatch(DELAY_PATTERN, word):
        raise Refused(hint=f'give the unit: did you mean "{word}ms"?' if word.isdecimal() else "")
    delay_us = round(float(found[1]) * _DELAYS_US[found[2]])
    if delay_us > DELAY_MAX_US:
        raise Refused(f"expected at most a minute, found {quoted(word)}")
    return delay_us


def loss(scalar: Scalar) -> int:
    """Millionths."""
    word = scalar.text
    if not re.fullmatch(LOSS_PATTERN, word):
        plain = re.fullmatch(r"[0-9]+(\.[0-9]+)?", word)
        raise Refused(hint=f'did you mean "{word}%"?' if plain else "")
    ppm = round(float(word[:-1]) * 10_000)
    if ppm > 1_000_000:
        raise Refused(f"expected at most 100%, found {quoted(word)}")
    return ppm
