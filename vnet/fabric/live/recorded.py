"""What a fabric has seen of flows: until a history is kept, what is at hand now."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from vnet.capture.record import PacketRecord
from vnet.capture.record import Verdict as Packet
from vnet.fabric.declared import Declared
from vnet.fabric.live.registry import Fabric
from vnet.fabric.live.rule_log import between
from vnet.fabric.seen import DecidedBy, Seen, Verdict
from vnet.fabric.seen_lines import PROTOCOLS
from vnet.openflow import cookie
from vnet.openflow.conntrack import Direction
from vnet.openflow.fields import ICMP, ICMPV6, CtState
from vnet.openflow.packet import Malformed, parse
from vnet.policy.endpoint import endpoints
from vnet.policy.semantics import REQUEST_TYPE, WITH_PORTS

Recorded = Callable[[Fabric], Awaitable[tuple[Seen, ...]]]
LOG_MAX = 50_000
"""Of the log of the rules the latest so many records are taken."""
_VERDICTS = {
    "allow": (Verdict.ALLOWED, ""),
    "deny": (Verdict.DENIED, "POLICY"),
    "reject": (Verdict.DENIED, "REJECTED"),
    "audit": (Verdict.AUDITED, ""),
}
_PORTS = {6: ("tcp_src", "tcp_dst"), 17: ("udp_src", "udp_dst"), 132: ("sctp_src", "sctp_dst")}
_KINDS = {ICMP: "icmpv4_type", ICMPV6: "icmpv6_type"}
Address = IPv4Address | IPv6Address


async def nothing(fabric: Fabric) -> tuple[Seen, ...]:
    """No flows."""
    return ()


def since(begin: datetime) -> Recorded:
    """What was seen from then on."""

    async def recorded(fabric: Fabric) -> tuple[Seen, ...]:
        return await seen(fabric, begin, datetime.now(UTC))

    return recorded


def given(flows: tuple[Seen, ...]) -> Recorded:
    """These flows, whatever the fabric has seen."""

    async def recorded(fabric: Fabric) -> tuple[Seen, ...]:
        return flows

    return recorded


async def seen(fabric: Fabric, since: datetime, until: datetime) -> tuple[Seen, ...]:
    """What was seen from `since` to `until`: the latest drops, what rules logged, who is connected now."""
    declared = fabric.declared
    if declared is None:
        return ()
    ends = _Ends(declared)
    recent = tuple(fabric.parts.switch.watch.recent)
    dropped = [each for record in recent if (each := _dropped(record, ends, fabric))]
    live = [ends.live(each, until) for each in await fabric.parts.switch.connections()]
    logged = await asyncio.to_thread(_logged, fabric, ends, since, until)
    inside = (each for each in (*dropped, *logged, *live) if since <= each.last and each.first <= until)
    return summed(inside)


def summed(several: Iterable[Seen]) -> tuple[Seen, ...]:
    """Those that agree in all but how often and when as one."""
    found: dict[Seen, list[Seen]] = defaultdict(list)
    never = datetime.min.replace(tzinfo=UTC)
    for each in several:
        found[replace(each, packets=0, bytes=0, first=never, last=never)].append(each)
    return tuple(
        replace(
            alike,
            packets=sum(each.packets for each in parts),
            bytes=sum(each.bytes for each in parts),
            first=min(each.first for each in parts),
            last=max(each.last for each in parts),
        )
        for alike, parts in found.items()
    )


class _Ends:
    """The NICs of a fabric by network and address."""

    def __init__(self, declared: Declared) -> None:
        self._nics = {nic.name: nic for nic in declared.inventory.nics}
        ends = tuple(endpoints(declared.topology, declared.inventory))
        self._by_place = {(end.nic.network, end.address): end.name for end in ends}
        self._by_vm = {(end.vm.name, end.address): (end.name, end.nic.network) for end in ends}
        self._by_vlan = {nic.vlan: nic.network for nic in declared.inventory.nics}

    def network(self, nic: str) -> str:
        """That of a NIC; empty if there is no such NIC any more."""
        return self._nics[nic].network if nic in self._nics else ""

    def at(self, network: str, address: Address | None) -> str | None:
        """Whose address it is."""
        return self._by_place.get((network, address)) if address else None

    def of_vm(self, vm: str | None, address: Address | None) -> tuple[str | None, str]:
        """The NIC of a VM with an address, and its network."""
        return self._by_vm.get((vm, address), (None, "")) if vm and address else (None, "")

    def live(self, one: Direction, now: datetime) -> Seen:
        """A connection that lives: how many packets it has had is not known."""
        version: Callable[[int], Address] = IPv6Address if one.family == 0x86DD else IPv4Address
        network = self._by_vlan.get(one.zone, "")
        source, target = version(one.source.address), version(one.target.address)
        port = one.target.port if one.protocol in WITH_PORTS else REQUEST_TYPE.get(one.protocol)
        ends = self.at(network, source), source, self.at(network, target), target
        return Seen(*ends, network, one.protocol, port, Verdict.ALLOWED, "", None, 0, 0, now, now, 0)


# -- drops ----------------------------------------------------------------------------------------


def _dropped(record: PacketRecord, ends: _Ends, fabric: Fabric) -> Seen | None:
    """A packet that was dropped; None if it is in the log of the rules too."""
    if record.verdict is not Packet.DROP or cookie.is_logged(record.cookie):
        return None
    network = ends.network(record.nic)
    sender, receiver, protocol, ports = _read(record)
    own = ends.at(network, sender)
    names = (own if own == record.nic else None), ends.at(network, receiver)
    is_reply = bool(record.ct_state & CtState.RPL)
    client, server = ((names[0], sender), (names[1], receiver))[:: -1 if is_reply else 1]
    port = ports[0 if is_reply else 1] if ports else None
    time = datetime.fromtimestamp(record.time_ns / 1e9, UTC)
    return Seen(
        *client,
        *server,
        network,
        protocol,
        port,
        Verdict.DENIED,
        record.reason.name,
        _by(fabric.record.provenance.get(record.cookie), record.cookie),
        1,
        record.original_length,
        time,
        time,
        fabric.record.enforced,
    )


def _by(texts: Mapping[str, str] | None, number: int) -> DecidedBy | None:
    return texts and DecidedBy(texts["at"], texts["policy"], texts["rule"], texts["text"], number) or None


def _read(
    record: PacketRecord,
) -> tuple[Address | None, Address | None, int | None, tuple[int, int] | None]:
    """Addresses, protocol and the ports of both sides, as far as the packet has them."""
    try:
        packet = parse(record.data + bytes(max(0, record.original_length - len(record.data))))
    except Malformed:
        return None, None, None, None
    protocol = packet.get("ip_proto")
    ends: list[Address | None] = []
    for side in ("src", "dst"):
        four, six = packet.get(f"ipv4_{side}"), packet.get(f"ipv6_{side}")
        ends.append(IPv4Address(four) if four is not None else IPv6Address(six) if six is not None else None)
    if protocol in _KINDS:
        kind = packet.get(_KINDS[protocol]) or 0
        return ends[0], ends[1], protocol, (kind, kind)
    names = _PORTS.get(protocol or 0)
    ports = (packet.get(names[0]) or 0, packet.get(names[1]) or 0) if names else None
    return ends[0], ends[1], protocol, ports


# -- the log of the rules -------------------------------------------------------------------------


def _logged(fabric: Fabric, ends: _Ends, since: datetime, until: datetime) -> tuple[Seen, ...]:
    first, last = (round(each.timestamp() * 1e9) for each in (since, until))
    lines = deque(between(fabric.parts.log.snapshot(), first, last), LOG_MAX)
    return tuple(_of_log(map(json.loads, lines), ends, fabric.record.enforced))


_SAME = ("time", "verdict", "client_address", "client_port", "server_address", "server_port")


def _of_log(records: Iterable[Mapping[str, Any]], ends: _Ends, generation: int) -> Iterator[Seen]:
    before: tuple[Any, ...] = ()
    for record in records:
        verdict = _VERDICTS.get(record["verdict"] or "")
        same, before = before, tuple(record[key] for key in _SAME)
        if before == same:  # one packet that rules of both sides tell of
            continue
        if verdict is None or record["lost"] or record["client_address"] is None:
            continue
        addresses = ip_address(record["client_address"]), ip_address(record["server_address"])
        (client, network), (server, other) = (
            ends.of_vm(record[side], address)
            for side, address in zip(("client", "server"), addresses, strict=True)
        )
        protocol = _protocol(record["protocol"], addresses[0].version)
        port = record["server_port"] if protocol in WITH_PORTS else REQUEST_TYPE.get(protocol or 0)
        time = datetime.fromisoformat(record["time"])
        by = DecidedBy(record["at"] or "", record["policy"] or "", record["rule"] or "", record["text"] or "")
        yield Seen(
            client,
            addresses[0],
            server,
            addresses[1],
            network or other,
            protocol,
            port,
            *verdict,
            by,
            record["count"] or 1,
            0,
            time,
            time,
            generation,
        )


def _protocol(name: str | None, version: int) -> int | None:
    if name == "icmp":
        return ICMP if version == 4 else ICMPV6
    if name and name.startswith("ip-"):
        return int(name.removeprefix("ip-"))
    return PROTOCOLS.get(name or "")
