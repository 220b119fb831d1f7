"""What the agent does with what it is sent: the table from which its diagram is drawn.

In each state a message that is not listed is answered with BAD_TYPE. A handler answers at once and
returns None, or returns a job that will.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from vnet.openflow.message import (
    AggregateRequest,
    BarrierRequest,
    BundleAdd,
    BundleControl,
    DescRequest,
    EchoReply,
    EchoRequest,
    Error,
    Experimenter,
    FeaturesRequest,
    FlowMod,
    FlowStatsRequest,
    GetAsyncRequest,
    GetConfigRequest,
    GroupDescRequest,
    GroupFeaturesRequest,
    GroupMod,
    GroupStatsRequest,
    Hello,
    Message,
    MeterConfigRequest,
    MeterFeaturesRequest,
    MeterMod,
    MeterStatsRequest,
    PacketOut,
    PortDescRequest,
    PortMod,
    PortStatsRequest,
    QueueGetConfigRequest,
    QueueStatsRequest,
    RoleRequest,
    SetAsync,
    SetConfig,
    TableFeaturesRequest,
    TableMod,
    TableStatsRequest,
)
from vnet.switch import (
    handle_absent,
    handle_basic,
    handle_bundles,
    handle_changes,
    handle_ports,
    handle_stats,
    handle_tables,
)
from vnet.switch.connection import State
from vnet.switch.jobs import Job

Handler = Callable[..., Job | None]
"""Called with the agent, the connection, the request and its message."""

_READY: Mapping[type[Message], Handler] = {
    Hello: handle_basic.ignore,
    Error: handle_basic.failed,
    EchoRequest: handle_basic.echo,
    EchoReply: handle_basic.ignore,
    Experimenter: handle_basic.unknown_experimenter,
    BarrierRequest: handle_basic.barrier,
    FeaturesRequest: handle_basic.features,
    GetConfigRequest: handle_basic.get_config,
    SetConfig: handle_basic.set_config,
    RoleRequest: handle_basic.set_role,
    GetAsyncRequest: handle_basic.get_async,
    SetAsync: handle_basic.set_async,
    PacketOut: handle_basic.packet_out,
    FlowMod: handle_changes.change,
    BundleControl: handle_bundles.bundle_control,
    BundleAdd: handle_bundles.bundle_add,
    DescRequest: handle_stats.desc,
    PortDescRequest: handle_stats.port_desc,
    TableFeaturesRequest: handle_tables.table_features,
    FlowStatsRequest: handle_stats.flow_stats,
    AggregateRequest: handle_stats.aggregate,
    TableStatsRequest: handle_stats.table_stats,
    PortStatsRequest: handle_stats.port_stats,
    PortMod: handle_ports.port_mod,
    TableMod: handle_absent.table_mod,
    GroupMod: handle_changes.change,
    GroupStatsRequest: handle_stats.group_stats,
    GroupDescRequest: handle_stats.group_desc,
    GroupFeaturesRequest: handle_stats.group_features,
    MeterMod: handle_changes.change,
    MeterStatsRequest: handle_stats.meter_stats,
    MeterConfigRequest: handle_stats.meter_config,
    MeterFeaturesRequest: handle_stats.meter_features,
    QueueGetConfigRequest: handle_absent.queue_config,
    QueueStatsRequest: handle_absent.queue_stats,
}

HANDLERS: Mapping[tuple[State, type[Message]], Handler] = (
    {(State.READY, message): handler for message, handler in _READY.items()}
    | {(State.GREETING, message): handle_basic.not_greeted for message in _READY}
    | {(State.GREETING, Hello): handle_basic.greeted, (State.GREETING, Error): handle_basic.failed}
)

WRITES = (FlowMod, PacketOut, GroupMod, MeterMod, PortMod, TableMod, BundleAdd)
"""What a slave may not send (section 6.3.4)."""
