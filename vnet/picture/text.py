"""How wide words are, so that boxes can be made for them before anything draws them."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

FONT = "Verdana, 'DejaVu Sans', Arial, sans-serif"
"""All of about the same width, that of `_PLAIN`, or narrower."""
_PLAIN = (
    318, 401, 460, 838, 636, 950, 780, 275, 390, 390, 500, 838, 318, 361, 318, 337, 636, 636, 636, 636,
    636, 636, 636, 636, 636, 636, 337, 337, 838, 838, 838, 531, 1000, 684, 686, 698, 770, 632, 575, 775,
    752, 295, 295, 656, 557, 863, 748, 787, 603, 787, 695, 635, 611, 732, 684, 989, 685, 611, 685, 390,
    337, 390, 838, 500, 500, 613, 635, 550, 635, 615, 352, 635, 634, 278, 278, 579, 278, 974, 634, 612,
    635, 635, 411, 521, 392, 634, 592, 818, 592, 592, 525, 636, 337, 636, 838,
)  # fmt: skip
"""Widths of the characters 32 to 126 in thousandths of the font's size. Source: DejaVu Sans 2.37."""
_KNOWN = {"·": 0.32, "…": 1.0, "×": 0.84}
_BOLD = 1.13
_MARGIN = 1.03
_WIDE, _PICTOGRAM, _OTHER = 1.1, 1.45, 1.25
_FIRST_PICTOGRAM = 0x1F000


def width(words: str, size: float, bold: bool = False) -> float:
    """The most that words take, in pixels; `size` is the font's."""
    return sum(map(_character, words)) * size * _MARGIN * (_BOLD if bold else 1)


@lru_cache(maxsize=4096)
def _character(letter: str) -> float:
    if " " <= letter <= "~":
        return _PLAIN[ord(letter) - 32] / 1000
    if letter in _KNOWN:
        return _KNOWN[letter]
    if ord(letter) >= _FIRST_PICTOGRAM:
        return _PICTOGRAM
    if unicodedata.category(letter) in ("Mn", "Me"):
        return 0.0
    return _WIDE if unicodedata.east_asian_width(letter) in "WF" else _OTHER


def clean(words: str) -> str:
    """Words that every XML reader takes, on one line: what cannot be written becomes U+FFFD."""
    return "".join(" " if each in "\t\n\r" else each if _is_writable(each) else "\ufffd" for each in words)


def _is_writable(letter: str) -> bool:
    """Source: XML 1.0, section 2.2; controls and what turns the direction of text are left out as well."""
    return unicodedata.category(letter) not in ("Cc", "Cs", "Cf", "Zl", "Zp", "Cn")


def elided(words: str, size: float, room: float, bold: bool = False) -> str:
    """Words that fit, with … in place of their middle if need be."""
    if width(words, size, bold) <= room:
        return words
    for kept in range(len(words) - 1, 1, -1):
        tail = kept // 2
        shorter = words[: kept - tail] + "…" + words[len(words) - tail :]
        if width(shorter, size, bold) <= room:
            return shorter
    return "…"


def broken(words: str, size: float, room: float, bold: bool = False, lines: int = 4) -> tuple[str, ...]:
    """Words on as many lines as they need, the last one elided if that is more than `lines`.

    Broken after a blank, a hyphen or a dot where there is one, else anywhere.
    """
    found: list[str] = []
    while words:
        if len(found) == lines - 1 or width(words, size, bold) <= room:
            return (*found, elided(words, size, room, bold))
        end = _fitting(words, size, room, bold)
        blank = words.rfind(" ", end // 3, end + 1)
        soft = blank if blank >= 0 else max(words.rfind(each, end // 3, end) for each in "-.,/")
        cut = soft + 1 if soft >= 0 else end
        found.append(words[:cut].rstrip())
        words = words[cut:].lstrip()
    return tuple(found)


def listed(
    words: str, size: float, room: float, bold: bool = False, lines: int = 4, between: str = ", "
) -> tuple[str, ...]:
    """A list on a few lines: what does not fit is not cut but counted, `…, 7 more`."""
    items = words.split(between)
    for left_out in range(len(items)):
        kept = items[: len(items) - left_out]
        more = [f"{left_out} more"] if left_out else []
        found = broken(between.join((*kept, *more)), size, room, bold, lines + 1)
        if len(found) <= lines:
            return found
    return broken(words, size, room, bold, lines)


def _fitting(words: str, size: float, room: float, bold: bool) -> int:
    """How many of the first characters fit, at least one."""
    taken = 0.0
    for end, letter in enumerate(words):
        taken += width(letter, size, bold)
        if taken > room:
            return max(end, 1)
    return len(words)
