"""An OpenFlow switch without packets: bytes in, bytes out; it misbehaves on demand.

It is a peer for tests of the controller's side, so it records every message it gets (`heard`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from vnet.openflow import message
from vnet.openflow.codec import decode, encode
from vnet.openflow.flow import Flow, FlowFlag
from vnet.openflow.frame import Splitter
from vnet.openflow.message import BundleControlType, FlowCommand, Message

Refuse = Callable[[message.FlowMod], message.Error | None]


@dataclass(slots=True)
class ScriptedSwitch:
    """`refuse` says which flow_mods get an error, `silent` which message classes no answer.

    `part` is how many flows one part of a flow-stats reply holds.
    """

    flows: dict[object, Flow] = field(default_factory=dict)
    refuse: Refuse = lambda mod: None
    refuse_commit: message.Error | None = None
    knows_bundles: bool = True
    silent: tuple[type, ...] = ()
    part: int = 2
    hello: message.Hello = field(default_factory=message.Hello)
    heard: list[Message] = field(default_factory=list)
    bundles: dict[int, list[message.FlowMod]] = field(default_factory=dict)
    out: bytearray = field(default_factory=bytearray)
    _splitter: Splitter = field(default_factory=Splitter)

    @classmethod
    def holding(cls, flows: Iterable[Flow]) -> ScriptedSwitch:
        """A switch that already has these flows."""
        return cls(flows={flow.key: flow for flow in flows})

    def connect(self) -> None:
        """A new connection: what the old one left unfinished is forgotten, flows are kept."""
        self._splitter, self.out, self.bundles = Splitter(), bytearray(), {}
        self._send(self.hello, 0)

    def receive(self, data: bytes) -> None:
        """Take bytes from the controller."""
        for raw in self._splitter.feed(data):
            xid, what = decode(raw)
            self.heard.append(what)
            if not isinstance(what, self.silent):
                self._answer(what, xid)

    def to_send(self) -> bytes:
        """The bytes to give to the controller now."""
        out, self.out = bytes(self.out), bytearray()
        return out

    def heard_mods(self) -> list[message.FlowMod]:
        """The flow_mods in the bundles it was sent."""
        adds = (what.message for what in self.heard if isinstance(what, message.BundleAdd))
        return [inner for inner in adds if isinstance(inner, message.FlowMod)]

    def _send(self, what: Message, xid: int) -> None:
        self.out += encode(what, xid)

    def _answer(self, what: Message, xid: int) -> None:
        match what:
            case message.BundleControl() | message.BundleAdd() if not self.knows_bundles:
                unknown = message.Error(message.ErrorType.BAD_REQUEST, message.BadRequest.BAD_EXPERIMENTER)
                self._send(unknown, xid)
            case message.EchoRequest(data):
                self._send(message.EchoReply(data), xid)
            case message.FeaturesRequest():
                self._send(message.FeaturesReply(datapath_id=0x42, n_tables=8), xid)
            case message.BarrierRequest():
                self._send(message.BarrierReply(), xid)
            case message.FlowStatsRequest():
                self._stats(what, xid)
            case message.BundleControl():
                self._control(what, xid)
            case message.BundleAdd(bundle, message.FlowMod() as mod):
                self._add(bundle, mod, xid)

    def _stats(self, request: message.FlowStatsRequest, xid: int) -> None:
        mask = request.cookie_mask
        found = [
            message.FlowStats(flow)
            for flow in self.flows.values()
            if flow.cookie & mask == request.cookie & mask
        ]
        parts = [found[start : start + self.part] for start in range(0, len(found), self.part)] or [[]]
        for number, entries in enumerate(parts, 1):
            self._send(message.FlowStatsReply(tuple(entries), more=number < len(parts)), xid)

    def _add(self, bundle: int, mod: message.FlowMod, xid: int) -> None:
        if error := self.refuse(mod):
            self._send(error, xid)
        else:
            self.bundles[bundle].append(mod)

    def _control(self, what: message.BundleControl, xid: int) -> None:
        if what.type == BundleControlType.OPEN_REQUEST:
            self.bundles[what.bundle_id] = []
        elif what.type == BundleControlType.DISCARD_REQUEST:
            del self.bundles[what.bundle_id]
        elif what.type == BundleControlType.COMMIT_REQUEST:
            mods = self.bundles.pop(what.bundle_id)
            if self.refuse_commit:
                self._send(self.refuse_commit, xid)
                return
            for mod in mods:
                self._carry_out(mod)
        self._send(replace(what, type=what.type + 1), xid)

    def _carry_out(self, mod: message.FlowMod) -> None:
        if mod.command == FlowCommand.ADD:
            self.flows[mod.flow.key] = replace(mod.flow, flags=mod.flow.flags & ~FlowFlag.RESET_COUNTS)
            return
        had = self.flows.get(mod.flow.key)
        if had is None or (had.cookie ^ mod.flow.cookie) & mod.cookie_mask:
            return
        if mod.command == FlowCommand.DELETE_STRICT:
            del self.flows[mod.flow.key]
        else:
            self.flows[mod.flow.key] = replace(had, instructions=mod.flow.instructions)
