"""One fabric's observations made into what is summed up: dropped packets as reported, flows as scanned."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from vnet.capture.comment import ct_state_text
from vnet.capture.ends import UNKNOWN, Ends, ends_of
from vnet.capture.record import PacketRecord
from vnet.fabric.scan import Change
from vnet.fabric.seen import DecidedBy, Verdict
from vnet.fabric.tally import Era, Kind, Sample, Sum
from vnet.fabric.who import Directory, address
from vnet.openflow.fields import ICMP, ICMPV6, CtState
from vnet.policy.semantics import REQUEST_TYPE
from vnet.topology.inventory import Nic

SAMPLE_BYTES = 128
"""Kept of the first packet of a kind: what the switch reports of a packet that nobody captures."""
STRANGE = "a flow that this topology does not know"


@dataclass(frozen=True, slots=True)
class Names:
    """What an era's observations are named by. `directory` is None when what was declared is not known."""

    era: Era
    provenance: Mapping[int, Mapping[str, str]] = field(default_factory=dict)
    earlier: Mapping[int, Mapping[str, str]] = field(default_factory=dict)
    """Of the era before: its last packets may be told when it is over."""
    directory: Directory | None = None

    def by(self, cookie: int) -> DecidedBy | None:
        """The rule of a cookie; None if no flow decided."""
        if not cookie:
            return None
        texts = self.provenance.get(cookie) or self.earlier.get(cookie)
        if texts is None:
            return DecidedBy("", "", "", STRANGE, cookie)
        return DecidedBy(texts["at"], texts["policy"], texts["rule"], texts["text"], cookie)

    # what was dropped

    def dropped(self, record: PacketRecord, is_read: bool = True) -> tuple[Kind, Sum]:
        """A packet that the switch reports as lost. What is not `is_read` tells no addresses."""
        ends = ends_of(record.data) if is_read else UNKNOWN
        nic = self.directory.nic(record.port) if self.directory else None
        kind = self._dropped(record, ends, nic)
        sample = Sample(record.time_ns, record.original_length, record.data[:SAMPLE_BYTES])
        seen = Sum(1, record.original_length, 0, record.time_ns, record.time_ns, sample)
        return (kind if is_read else kind.folded), seen

    def _dropped(self, record: PacketRecord, ends: Ends, nic: Nic | None) -> Kind:
        own = self._own(nic, ends)
        other = self._name(nic, ends.target)
        is_reply = bool(record.ct_state & CtState.RPL)
        client, server = ((other, ends.target), (own, ends.source))
        if not is_reply:
            client, server = server, client
        return Kind(
            Verdict.DENIED,
            record.reason.name,
            self.by(record.cookie),
            *client,
            *server,
            nic.network if nic else "",
            ends.protocol,
            _service(ends, is_reply),
            record.nic,
            ct_state_text(record.ct_state),
        )

    def _own(self, nic: Nic | None, ends: Ends) -> str | None:
        """The sender's name, unless the address is not one of its own."""
        if nic is None or ends.source is None or self.directory is None:
            return None
        return nic.name if self.directory.has(nic, ends.source) else None

    def _name(self, nic: Nic | None, at: object) -> str | None:
        if nic is None or self.directory is None or at is None:
            return None
        return self.directory.name(nic.vlan, at)  # type: ignore[arg-type]

    # what flowed

    def flowed(self, changes: Iterable[Change], before_ns: int, clock_ns: int) -> Iterator[tuple[Kind, Sum]]:
        """What connections let pass since the last look.

        Args:
            before_ns: CLOCK_MONOTONIC of that; clock_ns: realtime minus monotonic.
        """
        for change in changes:
            kind = self._flow(change)
            if kind is None or not any(change.packets):
                continue
            one = change.one
            last_ns = one.last_seen_ns
            first_ns = one.created_ns if change.is_new else min(before_ns, last_ns)
            yield (
                kind,
                Sum(
                    sum(change.packets),
                    sum(change.octets),
                    int(change.is_new),
                    first_ns + clock_ns,
                    last_ns + clock_ns,
                    None,
                ),
            )

    def _flow(self, change: Change) -> Kind | None:
        one, directory = change.one, self.directory
        if directory is None:
            return None
        client, server = address(one.client, one.version), address(one.server, one.version)
        let = directory.let(one)
        if let is not None and not let.allowed:
            return None  # cut: what still comes is dropped, and told as such
        return Kind(
            Verdict.AUDITED if let and let.audited else Verdict.ALLOWED,
            "",
            let.by if let else None,
            directory.name(one.zone, client),
            client,
            directory.name(one.zone, server),
            server,
            directory.network(one.zone),
            one.protocol,
            one.service_port,
        )


def _service(ends: Ends, is_reply: bool) -> int | None:
    """The server's port; of ICMP the request's type, as far as a type has a request."""
    if ends.protocol in (ICMP, ICMPV6):
        return REQUEST_TYPE[ends.protocol] if is_reply else ends.target_port
    return ends.source_port if is_reply else ends.target_port
