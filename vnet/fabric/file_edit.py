"""What is suggested, written into the files of a topology."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from difflib import unified_diff

from vnet.base.source import Location
from vnet.fabric.store import Source
from vnet.policy.semantics import rules_of
from vnet.policy.suggest import Added, NewPolicy, Suggested
from vnet.policy.wanted import DIRECTIONS
from vnet.topology.edit import PolicyText, RuleText, Sheet
from vnet.topology.language_policies import POLICY_TIER
from vnet.topology.model import Direction, Enforcement, Established, Policy, Rule, Topology

Comments = Callable[[Added], tuple[str, ...]]
"""What to write above a rule."""


class Files:
    """The texts of a topology's files, to be changed."""

    def __init__(self, source: Source, topology: Topology) -> None:
        self._source, self._topology = source, topology
        self.texts: Mapping[str, str] = {source.file: source.text, **source.included}
        self._sheets: dict[str, Sheet] = {}

    def fixed(self) -> frozenset[tuple[str, Direction]]:
        """The lists of policies that cannot be added to."""
        return frozenset(
            (policy.name, direction)
            for policy in self._topology.policies
            for direction in DIRECTIONS
            if rules_of(policy, direction) is not None
            and not self._sheet(policy.at.file).can_extend(policy.at, direction)
        )

    def _sheet(self, file: str) -> Sheet:
        if file not in self._sheets:
            self._sheets[file] = Sheet(self.texts[file])
        return self._sheets[file]

    def with_(self, suggested: Suggested, comments: Comments) -> Mapping[str, str]:
        """The files that become others, with their new texts. Raises CannotEdit."""
        self._sheets.clear()
        for policy in self._topology.policies:
            self._add_policies(policy, suggested, comments)
            for direction in DIRECTIONS:
                self._add_rules(policy, direction, suggested, comments)
        self._add_policies(None, suggested, comments)
        changed = {file: sheet.text for file, sheet in self._sheets.items()}
        return {file: text for file, text in changed.items() if text != self.texts[file]}

    def _add_rules(
        self, policy: Policy, direction: Direction, suggested: Suggested, comments: Comments
    ) -> None:
        by_place: dict[Location | None, list[RuleText]] = defaultdict(list)
        for added in suggested.rules:
            if (added.policy, added.direction) == (policy.name, direction):
                by_place[added.before.at if added.before else None].append(_rule(added, comments))
        for before, rules in by_place.items():
            self._sheet(policy.at.file).add_rules(policy.at, direction, before, rules)

    def _add_policies(self, before: Policy | None, suggested: Suggested, comments: Comments) -> None:
        name = before and before.name
        those = [each for each in suggested.policies if (each.before and each.before.name) == name]
        if those:
            file = before.at.file if before else self._last_file()
            texts = [_policy(each, suggested.rules, comments) for each in those]
            self._sheet(file).add_policies(before.at if before else None, texts)

    def _last_file(self) -> str:
        """The file whose policies come last; of several on the command line the last one."""
        if self._topology.policies:
            return self._topology.policies[-1].at.file
        written = self._source.file != "(command line)"
        return self._source.file if written else [*self._source.included][-1]

    def diff(self, changed: Mapping[str, str]) -> str:
        """What became of the files, as `patch -p0` reads it."""
        parts = []
        for file, text in sorted(changed.items()):
            old, new = (each.splitlines(keepends=True) for each in (self.texts[file], text))
            for line in unified_diff(old, new, file, file):
                parts.append(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n")
        return "".join(parts)


def _rule(added: Added, comments: Comments) -> RuleText:
    return RuleText(tuple(map(str, added.peers)), added.ports.words, comments(added))


def _policy(new: NewPolicy, rules: Sequence[Added], comments: Comments) -> PolicyText:
    settings: list[tuple[str, tuple[str, ...]]] = []
    if new.tier != POLICY_TIER.default:
        settings.append(("tier", (new.tier,)))
    settings.append(("applied_to", tuple(map(str, new.applied_to))))
    if new.enforcement is not Enforcement.ENFORCE:
        settings.append(("enforcement", (new.enforcement.value,)))
    if new.established is not Established.REVALIDATE:
        settings.append(("established", (new.established.value,)))
    own = tuple(_rule(each, comments) for each in rules if each.policy == new.name)
    return PolicyText(new.name, tuple(settings), new.direction, own)


def same(one: Topology, other: Topology) -> bool:
    """Whether two topologies have the same policies, whatever lines they stand on."""
    return [_plain(each) for each in one.policies] == [_plain(each) for each in other.policies]


def _plain(policy: Policy) -> tuple[object, ...]:
    lists = (_rules(policy.ingress), _rules(policy.egress))
    applied = tuple(map(str, policy.applied_to))
    return policy.name, policy.tier, applied, policy.enforcement, policy.established, *lists


def _rules(rules: tuple[Rule, ...] | None) -> tuple[object, ...] | None:
    return None if rules is None else tuple(map(plain, rules))


def plain(rule: Rule) -> tuple[object, ...]:
    """What a rule says, without its place."""
    services = frozenset((service.protocol, service.ports) for service in rule.services)
    return tuple(map(str, rule.peers)), services, rule.action
