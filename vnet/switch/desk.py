"""What the handlers of messages work with: the switch as controllers see it, and ways to answer them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

from vnet.openflow.codec import encode
from vnet.openflow.message import ONF, AsyncMasks, Error, ErrorType, Message, PortReason, PortStatus, Role
from vnet.switch import stats
from vnet.switch.connection import Connection, Request, State
from vnet.switch.datapath import SwitchPort
from vnet.switch.draft import Tables
from vnet.switch.jobs import CloseConnection, Event


class Desk:
    """One per switch. `now` is the time of the call that is being answered, in seconds."""

    def __init__(
        self, datapath_id: int, name: str, tables: Tables, ports: Iterable[SwitchPort], now: float
    ) -> None:
        self.datapath_id, self.name, self.now = datapath_id, name, now
        self.tables = tables
        self.ports = {port.number: port for port in ports}
        self.ports_since = dict.fromkeys(self.ports, now)
        self.table_names: dict[int, str] = {}
        """Those that a controller has given."""
        self.connections: dict[int, Connection] = {}
        self.generation: int | None = None
        """The newest generation id of a master or slave (section 6.3.5)."""
        self.events: deque[Event] = deque()
        """What whoever does the I/O is to do next."""

    def send(self, conn: Connection, message: Message, xid: int) -> None:
        """Queue a message; a peer that lets too much queue up is closed."""
        if conn.state in (State.GREETING, State.READY):
            conn.send(encode(message, xid), self.now)
            if conn.is_overfull():
                self.close(conn)

    def reply(self, conn: Connection, request: Request, message: Message) -> None:
        self.send(conn, message, request.xid)

    def stream(self, conn: Connection, parts: Iterator[bytes]) -> None:
        """Queue an answer of many messages, made as the peer reads them."""
        if conn.state is State.READY:
            conn.send(parts, self.now)

    def refuse(self, conn: Connection, request: Request, error_type: int, code: int) -> None:
        """Answer with an Error that quotes the request."""
        owner = ONF if error_type == ErrorType.EXPERIMENTER else 0
        self.reply(conn, request, Error(error_type, code, request.head, owner))

    def close(self, conn: Connection) -> None:
        """Serve it no more, and have it closed once it has read what is queued."""
        if conn.state in (State.GREETING, State.READY):
            conn.state = State.CLOSING
            conn.drop_inbox()
            self.events.append(CloseConnection(conn.name))

    def listeners(self, pick: Callable[[AsyncMasks], tuple[int, int]], reason: int) -> Iterator[Connection]:
        """The connections whose role and masks ask for an event."""
        for conn in tuple(self.connections.values()):
            mask = pick(conn.masks)[conn.role is Role.SLAVE]
            if conn.state is State.READY and mask >> reason & 1:
                yield conn

    def exchange_ports(self, ports: Iterable[SwitchPort]) -> None:
        """The ports are now these; controllers are told the differences."""
        before, after = self.ports, {port.number: port for port in ports}
        self.ports = after
        self.ports_since = {number: self.ports_since.get(number, self.now) for number in after}
        for number in sorted(before.keys() - after.keys()):
            self._announce_port(PortReason.DELETE, before[number])
        for number, port in sorted(after.items()):
            if number not in before:
                self._announce_port(PortReason.ADD, port)
            elif before[number] != port:
                self._announce_port(PortReason.MODIFY, port)

    def _announce_port(self, reason: PortReason, port: SwitchPort) -> None:
        status = PortStatus(reason, stats.port_description(port))
        for conn in self.listeners(lambda masks: masks.port_status, reason):
            self.send(conn, status, 0)
