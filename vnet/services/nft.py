"""Tables of nftables as values, and as text that `nft -f` puts in place of what there was, at once.

Source: nft(8), version 1.0.6.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Chain:
    """A base chain. `hook` is type, hook and priority as nft has them; `policy` for what no rule decides."""

    name: str
    hook: str
    rules: tuple[str, ...]
    policy: str = "accept"

    def text(self, with_rules: bool = True) -> Iterator[str]:
        """Its lines in a table."""
        yield f"  chain {self.name} {{"
        yield f"    type {self.hook}; policy {self.policy};"
        yield from (f"    {rule}" for rule in self.rules if with_rules)
        yield "  }"


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the family inet, which has IPv4 and IPv6."""

    name: str
    chains: tuple[Chain, ...]

    def text(self) -> str:
        """What puts exactly this table there, whatever is in it now.

        Chains stay and their rules change: one that is made anew has its policy a moment before its rules.
        """
        lines = [*self._block(False), f"flush table inet {self.name}", *self._block(True)]
        return "\n".join(lines) + "\n"

    def _block(self, with_rules: bool) -> Iterator[str]:
        yield f"table inet {self.name} {{"
        for chain in self.chains:
            yield from chain.text(with_rules)
        yield "}"


def remove(table: str) -> str:
    """What removes a table, if it is there."""
    return f"table inet {table}\ndelete table inet {table}\n"


def either(words: tuple[str, ...]) -> str:
    """One of several values, as a match has them."""
    return words[0] if len(words) == 1 else f"{{ {', '.join(words)} }}"
