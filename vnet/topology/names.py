"""Names of the language for what others call otherwise."""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import blake2b

from vnet.topology.values import NAME_MAX


class Names:
    """Gives out names of the language, each once."""

    def __init__(self, maximum: int = NAME_MAX, taken: Iterable[str] = ()) -> None:
        self._maximum = maximum
        self._taken = set(taken)

    def fresh(self, wanted: str) -> str:
        """The name nearest to what is wanted: with what is not legal replaced, shortened, numbered."""
        word = re.sub(r"[^a-z0-9]+", "-", wanted.lower()).strip("-") or "x"
        if len(word) > self._maximum:
            digest = blake2b(wanted.encode(), digest_size=3).hexdigest()
            word = f"{word[: self._maximum - len(digest) - 1].rstrip('-')}-{digest}"
        name, number = word, 1
        while name in self._taken:
            number += 1
            suffix = f"-{number}"
            name = word[: self._maximum - len(suffix)].rstrip("-") + suffix
        self._taken.add(name)
        return name
