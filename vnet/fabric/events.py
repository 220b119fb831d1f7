"""What happens to fabrics, one value for each event, and what two snapshots of numbers say has happened."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from vnet.fabric.cable import LinkState
from vnet.fabric.logged import stamp
from vnet.fabric.numbers import FabricNumbers, NicNumbers, Numbers, grown
from vnet.fabric.rates import rates

STORM_PPS = 1000.0
"""Packets a second that one VM loses: from here on it is told."""
CALM_PPS = 100.0
"""Below this it is over, if it stays so."""
CALM_S = 10.0


class Kind(StrEnum):
    """What can happen."""

    DAEMON_STARTED = "daemon-started"
    DAEMON_STOPPED = "daemon-stopped"
    ADOPTED = "adopted"
    PLAN_APPLIED = "plan-applied"
    PLAN_FAILED = "plan-failed"
    POLICY_ENFORCED = "policy-enforced"
    CONFIRMED = "confirmed"
    ROLLED_BACK = "rolled-back"
    REMOVED = "removed"
    VM_STARTED = "vm-started"
    VM_STOPPED = "vm-stopped"
    VM_DIED = "vm-died"
    VM_PANICKED = "vm-panicked"
    VM_HALTED = "vm-halted"
    DISK_FAILED = "disk-failed"
    VM_PAUSED = "vm-paused"
    VM_RESUMED = "vm-resumed"
    VM_SUSPENDED = "vm-suspended"
    VM_REBOOTED = "vm-rebooted"
    VM_CHANGED = "vm-changed"
    VM_LINK = "vm-link"
    VM_RESTARTED = "vm-restarted"
    VM_HEALTHY = "vm-healthy"
    VM_UNHEALTHY = "vm-unhealthy"
    SNAPSHOT_SAVED = "snapshot-saved"
    SNAPSHOT_RESTORED = "snapshot-restored"
    SNAPSHOT_REMOVED = "snapshot-removed"
    BACKUP_DONE = "backup-done"
    BACKUP_FAILED = "backup-failed"
    SERVICE_REVIVED = "service-revived"
    GATEWAY_MENDED = "gateway-mended"
    TARGET_DOWN = "target-down"
    TARGET_UP = "target-up"
    UPLINK_UP = "uplink-up"
    UPLINK_DOWN = "uplink-down"
    UPLINK_RETAKEN = "uplink-retaken"
    ENDPOINT_MENDED = "endpoint-mended"
    PORT_UP = "port-up"
    PORT_DOWN = "port-down"
    DROP_STORM = "drop-storm"
    DROP_STORM_OVER = "drop-storm-over"
    REPORTS_LOST = "reports-lost"
    REPORTS_LOST_OVER = "reports-lost-over"
    CPU_SHORT = "cpu-short"
    CPU_SHORT_OVER = "cpu-short-over"
    MEMORY_SHORT = "memory-short"
    MEMORY_SHORT_OVER = "memory-short-over"
    GUEST_MEMORY_SHORT = "guest-memory-short"
    GUEST_MEMORY_SHORT_OVER = "guest-memory-short-over"
    DISK_SLOW = "disk-slow"
    DISK_SLOW_OVER = "disk-slow-over"
    QEMU_SILENT = "qemu-silent"
    QEMU_SILENT_OVER = "qemu-silent-over"
    VERIFY_FAILED = "verify-failed"
    HISTORY_STOPPED = "history-stopped"
    HISTORY_GOES_ON = "history-goes-on"
    EVENTS_LOST = "events-lost"


MEANING: Mapping[Kind, tuple[str, str]] = {
    Kind.DAEMON_STARTED: ("vnetd runs; `fabric` is empty", "version, pid"),
    Kind.DAEMON_STOPPED: ("vnetd was told to end; a daemon that is killed cannot say so", "pid"),
    Kind.ADOPTED: (
        "a new daemon took a fabric over",
        "generation, enforced, trouble (empty if all went well), not_running (VMs that ran before)",
    ),
    Kind.PLAN_APPLIED: (
        "a change was made",
        "generation, from, actions, vms_started, vms_ended, flows_put, flows_removed (how many)",
    ),
    Kind.PLAN_FAILED: ("a change was begun and undone", "generation, from, error"),
    Kind.POLICY_ENFORCED: ("the flows of a generation came into force", "generation, from"),
    Kind.CONFIRMED: ("a change was confirmed", "generation"),
    Kind.ROLLED_BACK: ("a change was undone because nobody confirmed it, or on request", "generation, from"),
    Kind.REMOVED: ("a fabric is down", "generation"),
    Kind.VM_STARTED: ("a VM runs and answers; `subject` is its name", "how"),
    Kind.VM_STOPPED: ("a VM was stopped, removed, or switched itself off", "why"),
    Kind.VM_DIED: ("a VM's QEMU ended by itself", "why"),
    Kind.VM_PANICKED: ("a VM's kernel panicked, and the VM was ended; its `restart` decides", ""),
    Kind.VM_HALTED: (
        "a VM stands still: a disk of it cannot be written to, or what it is copied to",
        "disk, why",
    ),
    Kind.DISK_FAILED: (
        "a disk of a VM fails or is damaged, and the VM goes on; the same is told once a minute",
        "disk, why",
    ),
    Kind.VM_PAUSED: ("a VM was paused", "why"),
    Kind.VM_RESUMED: ("a paused VM goes on", "why"),
    Kind.VM_SUSPENDED: ("a VM's memory was written to a file and its QEMU ended", "memory_bytes"),
    Kind.VM_LINK: ("the cable of a VM's NIC was pulled, or plugged in again", "interface, link (up, down)"),
    Kind.VM_CHANGED: (
        "a VM was changed while it runs, or what an ended daemon had begun was undone",
        "what (a list, in words)",
    ),
    Kind.VM_RESTARTED: ("a VM had ended and was started again, as its `restart` says", "tries (in a row)"),
    Kind.VM_HEALTHY: ("a VM's health check succeeds", ""),
    Kind.VM_UNHEALTHY: ("a VM's health check failed too often", "why"),
    Kind.SNAPSHOT_SAVED: (
        "VMs were snapshotted at one moment; `subject` is the snapshot",
        "vms, id, pause_s (the longest)",
    ),
    Kind.SNAPSHOT_RESTORED: ("VMs are what they were in a snapshot", "vms, id, memory (whether that too)"),
    Kind.SNAPSHOT_REMOVED: ("a snapshot of VMs was removed", "vms, id"),
    Kind.VM_REBOOTED: ("a VM was reset, or rebooted by itself, and answers again", "why"),
    Kind.BACKUP_DONE: ("a VM was backed up", "id, store, kind (full, incremental)"),
    Kind.BACKUP_FAILED: ("a VM could not be backed up", "why"),
    Kind.SERVICE_REVIVED: (
        "the dnsmasq of a network had ended and was started again; `subject` is the network",
        "",
    ),
    Kind.GATEWAY_MENDED: (
        "what forwards for a router had been damaged and was made again; `subject` is the router",
        "",
    ),
    Kind.TARGET_DOWN: (
        "a VM behind a published port does not answer and gets no more connections; `subject` is the router",
        "address, port",
    ),
    Kind.TARGET_UP: ("it answers and gets connections again", "address, port"),
    Kind.UPLINK_UP: ("the link of an uplink came; `subject` is the uplink", "link, interface"),
    Kind.UPLINK_DOWN: (
        "the link of an uplink went, or its interface is missing; for a second or longer",
        "link (down or missing), interface",
    ),
    Kind.UPLINK_RETAKEN: (
        "the interface of an uplink had gone, and is a port again; `subject` is the uplink",
        "",
    ),
    Kind.ENDPOINT_MENDED: (
        "what is attached as an endpoint had gone or was damaged, and is again; `subject` is the endpoint",
        "",
    ),
    Kind.PORT_UP: ("the link of a NIC came; `subject` is the NIC", "port"),
    Kind.PORT_DOWN: ("the link of a NIC went, for a second or longer", "port"),
    Kind.DROP_STORM: (
        f"a VM loses {STORM_PPS:.0f} packets a second or more",
        "pps, reason (of most of them)",
    ),
    Kind.DROP_STORM_OVER: (
        f"it loses less than {CALM_PPS:.0f} a second, for {CALM_S:.0f} seconds",
        "packets (in all), lasted_s",
    ),
    Kind.REPORTS_LOST: (
        "packets were not reported to captures and logs; all counters are right nevertheless",
        "packets",
    ),
    Kind.REPORTS_LOST_OVER: (f"no more were lost for {CALM_S:.0f} seconds", "packets (in all), lasted_s"),
    Kind.CPU_SHORT: ("a VM waits for a CPU of the host, 10 % of the time or more", "percent"),
    Kind.CPU_SHORT_OVER: (
        f"it waits less than 5 % of the time, for {CALM_S:.0f} seconds",
        "most_percent, lasted_s",
    ),
    Kind.MEMORY_SHORT: (
        "something waits for memory of the host, 10 % of the time or more; `subject` is the VM, or `host`",
        "percent",
    ),
    Kind.MEMORY_SHORT_OVER: (
        f"it waits less than 5 % of the time, for {CALM_S:.0f} seconds",
        "most_percent, lasted_s",
    ),
    Kind.GUEST_MEMORY_SHORT: ("a VM has less than 5 % of its memory left", "percent (in use)"),
    Kind.GUEST_MEMORY_SHORT_OVER: (
        f"it has more than 10 % left, for {CALM_S:.0f} seconds",
        "most_percent, lasted_s",
    ),
    Kind.DISK_SLOW: (
        "a disk of a VM answers 5 % of its reads, writes or flushes, or more, only after 100 ms or longer",
        "percent",
    ),
    Kind.DISK_SLOW_OVER: (
        f"it answers less than 1 % so late, for {CALM_S:.0f} seconds",
        "most_percent, lasted_s",
    ),
    Kind.QEMU_SILENT: ("a VM's QEMU has not answered for 5 seconds: it hangs", "percent"),
    Kind.QEMU_SILENT_OVER: (f"it has answered for {CALM_S:.0f} seconds", "most_percent, lasted_s"),
    Kind.VERIFY_FAILED: ("`vnet verify` found claims that do not hold", "claims (of the topology, as text)"),
    Kind.HISTORY_STOPPED: ("what happens is not kept any more, a full disk for instance", "why"),
    Kind.HISTORY_GOES_ON: ("it is kept again; what is missing shows as a gap", "why (it was not)"),
    Kind.EVENTS_LOST: ("events could not be written or were read too slowly", "count"),
}
"""What each kind means, and what `fields` has."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened at `time_ns` since 1970. `subject` is what it happened to: a VM, a NIC, or "".

    `fields` are for programs, `text` says the same to people.
    """

    time_ns: int
    kind: Kind
    text: str
    fabric: str = ""
    subject: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)

    def json(self) -> str:
        """One line, as it is kept and printed."""
        plain = {
            "time": stamp(self.time_ns),
            "fabric": self.fabric,
            "kind": self.kind.value,
            "subject": self.subject,
            "text": self.text,
            "fields": dict(self.fields),
        }
        return json.dumps(plain, ensure_ascii=False, separators=(",", ":"))


def lost(time_ns: int, count: int) -> Event:
    """So many events are missing here."""
    return Event(time_ns, Kind.EVENTS_LOST, f"{count} events are missing", fields={"count": count})


def is_wanted(line: str, fabric: str | None, kinds: frozenset[str]) -> bool:
    """Whether an event, as it is kept, is of that fabric and of one of these kinds; None and empty are all.

    What happens to the daemon, or to the record of events itself, concerns every fabric.
    """
    try:
        event = json.loads(line)
    except ValueError:  # what was being written when the host stopped
        return False
    return event["fabric"] in (fabric or event["fabric"], "") and (not kinds or event["kind"] in kinds)


# -- what snapshots say ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Episode:
    """Something that goes on: since when, how much of it there was, and when it last was so much."""

    began_s: float
    last_s: float
    packets: float


Episodes = Mapping[tuple[str, str], Episode]
"""By fabric and VM; VM "" for packets of the fabric that were not reported."""


@dataclass(frozen=True, slots=True)
class Noticed:
    """Events, and what goes on after them."""

    events: tuple[Event, ...] = ()
    episodes: Episodes = field(default_factory=dict)


def notice(before: Numbers | None, now: Numbers, episodes: Episodes) -> Noticed:
    """What happened between two snapshots: links, VMs that lose many packets, packets not reported."""
    if before is None:
        return Noticed((), episodes)
    old = {fabric.name: fabric for fabric in before.fabrics}
    pairs = [(old[each.name], each) for each in now.fabrics if each.name in old and not each.unanswered]
    pairs = [(was, each) for was, each in pairs if not was.unanswered]
    there = {fabric.name for fabric in now.fabrics}
    going = {key: episode for key, episode in episodes.items() if key[0] in there}
    events = [event for was, each in pairs for event in _links(was, each, now.time_ns)]
    events += [event for was, each in pairs for event in _uplinks(was, each, now.time_ns)]
    events += _storms(before, now, going)
    events += _unreported(pairs, now, going)
    return Noticed(tuple(events), going)


def _nics(fabric: FabricNumbers) -> Mapping[str, NicNumbers]:
    return {nic.name: nic for vm in fabric.vms for nic in vm.nics}


def _links(before: FabricNumbers, now: FabricNumbers, time_ns: int) -> Iterator[Event]:
    old = _nics(before)
    for name, nic in _nics(now).items():
        if name in old and old[name].up != nic.up:
            kind, what = (Kind.PORT_UP, "came") if nic.up else (Kind.PORT_DOWN, "went")
            yield Event(time_ns, kind, f"the link of {name} {what}", now.name, name, {"port": nic.port})


def _uplinks(before: FabricNumbers, now: FabricNumbers, time_ns: int) -> Iterator[Event]:
    old = {uplink.name: uplink.link for uplink in before.uplinks}
    for uplink in now.uplinks:
        link = LinkState(uplink.link)
        if old.get(uplink.name, link) == link:
            continue
        kind = Kind.UPLINK_UP if link is LinkState.UP else Kind.UPLINK_DOWN
        fields = {"link": link.value, "interface": uplink.interface}
        yield Event(time_ns, kind, _SAID[link].format(**asdict(uplink)), now.name, uplink.name, fields)


_SAID = {
    LinkState.UP: "the link of uplink {name} came",
    LinkState.DOWN: "the link of uplink {name} is down: {interface} has no cable, or the other end is off",
    LinkState.MISSING: "the interface {interface} of uplink {name} is missing; it is taken when it is back",
}


def _storms(before: Numbers, now: Numbers, going: dict[tuple[str, str], Episode]) -> Iterator[Event]:
    """Changes `going`."""
    found = rates(before, now)
    for key, rate in found.vms.items():
        pps, packets = rate.traffic.drops_pps, rate.traffic.drops_pps * found.span_s
        goes_on = key in going
        is_so = pps >= (CALM_PPS if goes_on else STORM_PPS)
        ended = _go_on(going, key, is_so, packets, now.clock_s)
        if is_so and not goes_on:
            told = f"loses {pps:.0f} packets a second{f': {rate.reason}' if rate.reason else ''}"
            fields = {"pps": round(pps), "reason": rate.reason}
            yield Event(now.time_ns, Kind.DROP_STORM, f"{rate.name} {told}", *key, fields)
        if ended is not None:
            text = f"{rate.name} has lost {ended.packets:.0f} packets in {ended.last_s - ended.began_s:.0f} s"
            yield Event(now.time_ns, Kind.DROP_STORM_OVER, text, *key, _whole(ended))


def _unreported(
    pairs: Iterable[tuple[FabricNumbers, FabricNumbers]],
    now: Numbers,
    going: dict[tuple[str, str], Episode],
) -> Iterator[Event]:
    """Changes `going`."""
    for was, fabric in pairs:
        packets = sum(
            grown(was.lost_events.get(point, 0), count) for point, count in fabric.lost_events.items()
        )
        key = fabric.name, ""
        begins = packets > 0 and key not in going
        ended = _go_on(going, key, packets > 0, packets, now.clock_s)
        if begins:
            text = f"{packets:.0f} packets were not reported"
            yield Event(now.time_ns, Kind.REPORTS_LOST, text, *key, {"packets": int(packets)})
        if ended is not None:
            text = f"{ended.packets:.0f} packets were not reported in {ended.last_s - ended.began_s:.0f} s"
            yield Event(now.time_ns, Kind.REPORTS_LOST_OVER, text, *key, _whole(ended))


def _go_on(
    going: dict[tuple[str, str], Episode], key: tuple[str, str], is_so: bool, packets: float, now_s: float
) -> Episode | None:
    """Begin an episode, go on with it, or end it: then it is returned."""
    known = going.get(key)
    if known is None:
        if is_so:
            going[key] = Episode(now_s, now_s, packets)
        return None
    last_s = now_s if is_so else known.last_s
    going[key] = Episode(known.began_s, last_s, known.packets + packets)
    return going.pop(key) if now_s - last_s >= CALM_S else None


def _whole(episode: Episode) -> Mapping[str, Any]:
    return {"packets": round(episode.packets), "lasted_s": round(episode.last_s - episode.began_s, 1)}
