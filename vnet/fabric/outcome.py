"""What a plan comes to, in words and numbers, for people who read it before it is carried out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, fields
from enum import StrEnum
from hashlib import blake2b

from vnet.base.errors import VnetError
from vnet.base.limits import Limits
from vnet.fabric import actions as act
from vnet.fabric.guest_changes import differences
from vnet.fabric.replay import VerdictChange
from vnet.fabric.sizing import Advice
from vnet.fabric.state import Attached, Guest, State
from vnet.fabric.store import Record
from vnet.hv.changing import Difference, How, most
from vnet.policy.cuts import Cut
from vnet.policy.difference import FlowKey
from vnet.policy.matrix import words
from vnet.policy.reach_changes import Reach
from vnet.services.gateway import Forwarding

FABRIC_ITSELF = "(the fabric itself)"
"""Stands for the policy of flows that no policy gave rise to: addresses, VLANs, neighbours."""


class Mark(StrEnum):
    """What becomes of a thing."""

    ADD = "+"
    CHANGE = "~"
    REMOVE = "-"


class Kind(StrEnum):
    """What a thing is."""

    FABRIC = "fabric"
    VM = "vm"
    PORT = "port"
    MIRROR = "mirror"
    SERVICE = "service"
    GATEWAY = "gateway"
    UPLINK = "uplink"
    ENDPOINT = "endpoint"
    POLICY = "policy"
    REACH = "reach"
    CONNECTION = "connection"


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that changes, and how, in words."""

    mark: Mark
    kind: Kind
    name: str
    what: str = ""
    fields: tuple[Difference, ...] = ()
    """Of a VM that becomes another: each field that changes, and what that takes."""


@dataclass(frozen=True, slots=True)
class Count:
    """How many things of a kind the plan adds, changes and removes, and leaves as they are."""

    added: int = 0
    changed: int = 0
    removed: int = 0
    kept: int = 0

    @property
    def there(self) -> int:
        """How many there were before."""
        return self.changed + self.removed + self.kept

    @property
    def removes_most(self) -> bool:
        """Whether more goes than stays of what is there."""
        return self.removed > self.changed + self.kept


@dataclass(frozen=True, slots=True)
class Summary:
    """All that changes, by kind, and how much of it there is."""

    lines: tuple[Line, ...] = ()
    vms: Count = field(default_factory=Count)
    ports: Count = field(default_factory=Count)
    flows: Count = field(default_factory=Count)
    verdicts: tuple[VerdictChange, ...] = ()
    """Recorded flows that would be decided otherwise."""

    @property
    def removes_most(self) -> bool:
        """Whether somebody should be asked first: it is as likely a mistake as a wish."""
        return self.vms.removes_most or self.ports.removes_most

    @property
    def removal(self) -> str:
        """How much of what is there goes: `2 of 3 VMs and 3 of 5 ports`."""
        kinds = ((self.vms, "VMs"), (self.ports, "ports"))
        return " and ".join(
            f"{count.removed} of {count.there} {what}" for count, what in kinds if count.removed
        )


@dataclass(frozen=True, slots=True)
class Effects:
    """What a change means for those who talk: what it opens and closes, the live connections it cuts, and
    the recorded flows that it decides otherwise."""

    reach: tuple[Reach, ...] = ()
    cuts: tuple[Cut, ...] = ()
    verdicts: tuple[VerdictChange, ...] = ()


NO_EFFECTS = Effects()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an operation planned, and did unless it was a dry run."""

    fabric: str
    generation: int
    actions: tuple[act.Action, ...]
    summary: Summary = field(default_factory=Summary)
    advice: tuple[Advice, ...] = ()
    """About the sizes of the VMs that are to be started."""
    refused: VnetError | None = None
    """Why it cannot be done, if it was only planned."""

    @property
    def id(self) -> str:
        """A name of exactly this plan: the same for equal actions on the same generation, else another."""
        digest = blake2b(f"{self.fabric} {self.generation}\n".encode(), digest_size=6)
        for action in self.actions:
            digest.update("\n".join(_exactly(action)).encode())
        return digest.hexdigest()


def _exactly(action: act.Action) -> Iterable[str]:
    """An action with all that is in it; a set has no order of its own."""
    if isinstance(action, act.ApplyFlows):
        return ["put", *sorted(map(repr, action.put)), "remove", *sorted(map(repr, action.remove))]
    return [repr(action)]


_NO_FLOWS = act.ApplyFlows(frozenset(), frozenset())


def summarize(
    now: State,
    wanted: State,
    actions: tuple[act.Action, ...],
    before: Record | None,
    planned: Record,
    effects: Effects = NO_EFFECTS,
    suspended: Set[str] = frozenset(),
) -> Summary:
    """What the actions do, that lead from the one state and record to the other.

    Args:
        effects: what that means for those who want to talk.
        suspended: the VMs whose memory is kept.
    """
    if not actions:
        return Summary()
    vms = tuple(_vms(now, wanted, actions, before, planned, suspended))
    ports = tuple(_ports(now, wanted))
    change = next((action for action in actions if isinstance(action, act.ApplyFlows)), _NO_FLOWS)
    replaced = {flow.key for flow in change.put} & {flow.key for flow in change.remove}
    policies = tuple(_policies(change, replaced, before, planned))
    added, removed = len(change.put) - len(replaced), len(change.remove) - len(replaced)
    return Summary(
        (
            *_fabric(actions),
            *vms,
            *ports,
            *_mirrors(now, wanted),
            *_services(now, wanted),
            *_gateways(now, wanted),
            *_cables(now, wanted),
            *_endpoints(now, wanted),
            *policies,
            *map(_reach, effects.reach),
            *map(_cut, effects.cuts),
        ),
        _count(vms, _vm_names(now, before) & _vm_names(wanted, planned)),
        _count(ports, {port.ifname for port in now.ports & wanted.ports}),
        Count(added, len(replaced), removed, len(now.flows) - len(change.remove)),
        effects.verdicts,
    )


def _count(lines: tuple[Line, ...], stay: frozenset[str] | set[str]) -> Count:
    marks = Counter(line.mark for line in lines)
    kept = len(stay - {line.name for line in lines})
    return Count(marks[Mark.ADD], marks[Mark.CHANGE], marks[Mark.REMOVE], kept)


def _fabric(actions: Iterable[act.Action]) -> Iterator[Line]:
    for action in actions:
        match action:
            case act.CreateNamespace():
                yield Line(Mark.ADD, Kind.FABRIC, "network namespace")
            case act.CreateSwitch():
                yield Line(Mark.ADD, Kind.FABRIC, "switch")


def _reach(change: Reach) -> Line:
    """Whether more opens or closes is for the reader to see: it is a change."""
    mark = Mark.CHANGE if change.opens and change.closes else Mark.ADD if change.opens else Mark.REMOVE
    parts = (("opens", change.opens), ("closes", change.closes))
    told = "; ".join(f"{verb} {words(spans)}" for verb, spans in parts if spans)
    return Line(mark, Kind.REACH, f"{change.source} → {change.target}", told)


def _cut(cut: Cut) -> Line:
    service = words(((cut.service, cut.service),))
    return Line(Mark.REMOVE, Kind.CONNECTION, f"{cut.source} → {cut.target}", f"{cut.count} to {service}")


# -- VMs ------------------------------------------------------------------------------------------


def _vm_names(state: State, record: Record | None) -> frozenset[str]:
    """Those that run and those that only have their ports."""
    declared = {nic.rpartition(".")[0] for nic in record.assignments if "." in nic} if record else set()
    outside = {endpoint.name for endpoint in state.endpoints}
    return frozenset(declared | {guest.name for guest in state.guests}) - outside


def _vms(
    now: State,
    wanted: State,
    actions: Sequence[act.Action],
    before: Record | None,
    planned: Record,
    suspended: Set[str],
) -> Iterator[Line]:
    old, new = _vm_names(now, before), _vm_names(wanted, planned)
    ended = {action.guest.name: action.guest for action in actions if isinstance(action, act.DestroyGuest)}
    started = {action.guest.name: action.guest for action in actions if isinstance(action, act.StartGuest)}
    becoming = {
        each.guest.name: differences(each.was, each.guest) for each in actions if isinstance(each, _CHANGES)
    }
    again = ended.keys() & started.keys()
    becoming |= {name: _anew(ended[name], started[name]) for name in again}
    for name in sorted(old | new):
        if name not in new:
            lost = "it is suspended: its memory is lost" if name in suspended else "it does not run"
            yield Line(Mark.REMOVE, Kind.VM, name, "" if name in ended else lost)
        elif name in becoming:
            yield _becoming(name, becoming[name])
        elif name in started and name in old:
            why = "it is suspended, and goes on from its memory" if name in suspended else "it does not run"
            yield Line(Mark.CHANGE, Kind.VM, name, f"start: {why}")
        elif name in started:
            yield Line(Mark.ADD, Kind.VM, name, "start")


_CHANGES = act.ChangeGuest | act.RestartGuest


def _anew(was: Guest, guest: Guest) -> tuple[Difference, ...]:
    """Why a guest is made again, which may be nothing of its own."""
    found = differences(was, guest)
    if most(found) is How.RECREATE:
        return found
    return (*found, Difference("its port is gone, or needed by another", How.RECREATE))


def _becoming(name: str, changed: tuple[Difference, ...]) -> Line:
    told = ", ".join(f"{each.what} ({each.how})" for each in changed)
    return Line(Mark.CHANGE, Kind.VM, name, told or "the order of its NICs or disks (live)", changed)


def _mirrors(now: State, wanted: State) -> Iterator[Line]:
    old, new = ({mirror.name: mirror for mirror in state.mirrors} for state in (now, wanted))
    for name in sorted(old.keys() | new.keys()):
        if name not in new:
            yield Line(Mark.REMOVE, Kind.MIRROR, name, str(old[name]))
        elif name not in old:
            yield Line(Mark.ADD, Kind.MIRROR, name, str(new[name]))
        elif old[name] != new[name]:
            yield Line(Mark.CHANGE, Kind.MIRROR, name, str(new[name]))


def _services(now: State, wanted: State) -> Iterator[Line]:
    old, new = ({each.network: each for each in state.services} for state in (now, wanted))
    for name in sorted(old.keys() | new.keys()):
        if name not in new:
            yield Line(Mark.REMOVE, Kind.SERVICE, name, "its guests are answered no more")
        elif name not in old:
            yield Line(Mark.ADD, Kind.SERVICE, name, "its guests are answered")
        elif old[name] != new[name]:
            live = old[name].files.config == new[name].files.config
            yield Line(
                Mark.CHANGE, Kind.SERVICE, name, "live: addresses or names" if live else "other answers"
            )


def _gateways(now: State, wanted: State) -> Iterator[Line]:
    old, new = ({each.router: each.forwarding for each in state.gateways} for state in (now, wanted))
    for name in sorted(old.keys() | new.keys()):
        if name not in new:
            yield Line(Mark.REMOVE, Kind.GATEWAY, name, "nothing leads outside any more")
        elif name not in old:
            yield Line(Mark.ADD, Kind.GATEWAY, name, ", ".join(_ways(new[name])))
        elif old[name] != new[name]:
            yield Line(Mark.CHANGE, Kind.GATEWAY, name, _other_ways(old[name], new[name]))


def _ways(forwarding: Forwarding) -> tuple[str, ...]:
    """Where a gateway leads, and what it opens."""
    return (
        f"by {'the host' if forwarding.host else forwarding.device}",
        "translated" if forwarding.masquerades else "not translated",
        *(f"{door} published" for door in forwarding.doors),
        *(f"{each.address} is {each.target}" for each in forwarding.floating),
    )


def _other_ways(old: Forwarding, new: Forwarding) -> str:
    was, becomes = _ways(old), _ways(new)
    added = [each for each in becomes if each not in was]
    gone = [f"no more {each}" for each in was if each not in becomes]
    told = ", ".join((*added, *gone)) or "other targets"
    return f"live: {told}" if old.device == new.device else told


def _cables(now: State, wanted: State) -> Iterator[Line]:
    old, new = ({each.uplink: each for each in state.cables} for state in (now, wanted))
    for name in sorted(old.keys() | new.keys()):
        if name not in new:
            yield Line(Mark.REMOVE, Kind.UPLINK, name, "the host gets its interface back")
        elif name not in old:
            yield Line(Mark.ADD, Kind.UPLINK, name, f"takes {new[name].interface} from the host")
        elif old[name] != new[name]:
            yield Line(Mark.CHANGE, Kind.UPLINK, name, f"takes {new[name].interface} from the host")


def _endpoints(now: State, wanted: State) -> Iterator[Line]:
    old, new = ({each.name: each for each in state.endpoints} for state in (now, wanted))
    for name in sorted(old.keys() | new.keys()):
        if name not in new:
            yield Line(Mark.REMOVE, Kind.ENDPOINT, name, str(old[name].where))
        elif name not in old:
            yield Line(Mark.ADD, Kind.ENDPOINT, name, str(new[name].where))
        elif old[name] != new[name]:
            live = old[name].is_wired_as(new[name])
            what = "live: MAC, addresses, gateways or MTU" if live else f"anew: {new[name].where}"
            yield Line(Mark.CHANGE, Kind.ENDPOINT, name, what)


# -- ports ----------------------------------------------------------------------------------------


def _ports(now: State, wanted: State) -> Iterator[Line]:
    old, new = ({port.ifname: port for port in state.ports} for state in (now, wanted))
    for name in sorted(old.keys() | new.keys()):
        if name not in new:
            yield Line(Mark.REMOVE, Kind.PORT, name)
        elif name not in old:
            yield Line(Mark.ADD, Kind.PORT, name, f"number {new[name].number}")
        elif old[name] != new[name]:
            yield Line(Mark.CHANGE, Kind.PORT, name, f"number {old[name].number} → {new[name].number}")
        elif (old[name] in now.plugged) != (new[name] in wanted.plugged):
            yield Line(Mark.CHANGE, Kind.PORT, name, "attach it again")
        else:
            changed = _attachment_differences(now.attachment(old[name]), wanted.attachment(new[name]))
            if changed:
                yield Line(Mark.CHANGE, Kind.PORT, name, f"live: {', '.join(changed)}")


def _attachment_differences(old: Attached | None, new: Attached | None) -> list[str]:
    if old is None or new is None:
        return []
    names = [each.name for each in fields(Limits)]
    pairs = [(name.replace("_", " "), getattr(old.limits, name), getattr(new.limits, name)) for name in names]
    pairs.append(("MTU", old.mtu_bytes, new.mtu_bytes))
    changed = [f"{name} {was} → {will}" for name, was, will in pairs if was != will]
    return changed + ([] if old.line == new.line else [f"{old.line} → {new.line}"])


# -- policies and their flows ---------------------------------------------------------------------


def _policies(
    change: act.ApplyFlows, replaced: Set[FlowKey], before: Record | None, planned: Record
) -> Iterator[Line]:
    """How many flows of each policy come and go."""
    old, new = _policy_names(before), _policy_names(planned)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for flow in change.put:
        counts[new.get(flow.cookie, "")]["changed" if flow.key in replaced else "added"] += 1
    for flow in change.remove:
        if flow.key not in replaced:
            counts[old.get(flow.cookie, "")]["removed"] += 1
    were, are = set(old.values()), set(new.values())
    for name in sorted(counts):
        mark = Mark.CHANGE if name in were & are else Mark.ADD if name in are else Mark.REMOVE
        yield Line(mark, Kind.POLICY, name or FABRIC_ITSELF, _flow_words(counts[name]))


def _policy_names(record: Record | None) -> Mapping[int, str]:
    """The policy of each cookie; empty for flows that no policy gave rise to."""
    return {cookie: origin["policy"] for cookie, origin in record.provenance.items()} if record else {}


def _flow_words(counts: Mapping[str, int]) -> str:
    parts = [f"{counts[word]} {word}" for word in ("added", "changed", "removed") if counts.get(word)]
    return "flows: " + ", ".join(parts)
