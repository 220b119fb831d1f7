"""A learning switch as an os-ken application, run in the environment of the conformance tests.

It asks the switch to tell it of packets that no flow takes, learns where each address is, floods what it has
no place for and puts a flow in for what it has. Such a flow goes by itself when it was not used for IDLE_S
seconds, and that is written down too. Statistics and a barrier it asks for twice a second. For each thing
that happens one line of JSON is written to the standard output.

Imports nothing of vnet: what it tells of the switch comes over OpenFlow.
"""

# ruff: noqa: E402  the hub is chosen and the standard library patched before os-ken is imported

from __future__ import annotations

import json
import os
from typing import Any

os.environ["OSKEN_HUB_TYPE"] = "eventlet"

from os_ken.lib import hub

hub.patch()

from os_ken import cfg
from os_ken.base import app_manager
from os_ken.controller import ofp_event
from os_ken.controller.handler import CONFIG_DISPATCHER, MAIN_DISPATCHER, set_ev_cls
from os_ken.lib.packet import ethernet, packet
from os_ken.ofproto import ofproto_v1_3

MODULE = "os_ken_learning"
IDLE_S = 2
ASK_S = 0.5
LEARNT, MISS = 10, 0
"""Priorities of flows."""


def tell(**what: Any) -> None:
    """One line of what happened."""
    print(json.dumps(what), flush=True)


class Learning(app_manager.OSKenApp):
    """The application."""

    OFP_VERSIONS = (ofproto_v1_3.OFP_VERSION,)

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.places: dict[str, int] = {}
        self.switch: Any = None
        hub.spawn(self._keep_asking)

    @set_ev_cls(ofp_event.EventOFPSwitchFeatures, CONFIG_DISPATCHER)
    def connected(self, event: Any) -> None:
        """Ask for the packets that nothing else takes."""
        self.switch = switch = event.msg.datapath
        to_us = switch.ofproto_parser.OFPActionOutput(
            switch.ofproto.OFPP_CONTROLLER, switch.ofproto.OFPCML_NO_BUFFER
        )
        self._add(MISS, switch.ofproto_parser.OFPMatch(), to_us, 0)
        tell(event="connected", id=switch.id, tables=event.msg.n_tables)
        self._send(switch.ofproto_parser.OFPDescStatsRequest(switch, 0))

    @set_ev_cls(ofp_event.EventOFPPacketIn, MAIN_DISPATCHER)
    def packet_in(self, event: Any) -> None:
        """Learn, then send the packet on."""
        message, parser, ofproto = event.msg, self.switch.ofproto_parser, self.switch.ofproto
        frame = packet.Packet(message.data).get_protocol(ethernet.ethernet)
        came_by = message.match["in_port"]
        if self.places.get(frame.src) != came_by:
            self.places[frame.src] = came_by
            tell(event="learnt", mac=frame.src, port=came_by, reason=message.reason)
        port = self.places.get(frame.dst, ofproto.OFPP_FLOOD)
        out = parser.OFPActionOutput(port)
        if port != ofproto.OFPP_FLOOD:
            wanted = parser.OFPMatch(in_port=came_by, eth_src=frame.src, eth_dst=frame.dst)
            self._add(LEARNT, wanted, out, IDLE_S)
        self._send(
            parser.OFPPacketOut(
                datapath=self.switch,
                buffer_id=message.buffer_id,
                in_port=came_by,
                actions=[out],
                data=message.data,
            )
        )

    @set_ev_cls(ofp_event.EventOFPFlowRemoved, MAIN_DISPATCHER)
    def flow_removed(self, event: Any) -> None:
        message = event.msg
        source, target = message.match["eth_src"], message.match["eth_dst"]
        packets, seconds = message.packet_count, message.duration_sec
        tell(event="removed", src=source, dst=target, reason=message.reason, packets=packets, seconds=seconds)

    @set_ev_cls(ofp_event.EventOFPBarrierReply, MAIN_DISPATCHER)
    def barrier(self, event: Any) -> None:
        tell(event="barrier", xid=event.msg.xid)

    @set_ev_cls(ofp_event.EventOFPFlowStatsReply, MAIN_DISPATCHER)
    def flow_stats(self, event: Any) -> None:
        flows = [(one.priority, one.idle_timeout, one.packet_count) for one in event.msg.body]
        tell(event="flows", flows=flows)

    @set_ev_cls(ofp_event.EventOFPPortStatsReply, MAIN_DISPATCHER)
    def port_stats(self, event: Any) -> None:
        tell(event="ports", ports={one.port_no: [one.rx_packets, one.tx_packets] for one in event.msg.body})

    @set_ev_cls(ofp_event.EventOFPDescStatsReply, MAIN_DISPATCHER)
    def description(self, event: Any) -> None:
        tell(event="description", maker=event.msg.body.mfr_desc.decode())

    @set_ev_cls(ofp_event.EventOFPPortStatus, MAIN_DISPATCHER)
    def port_status(self, event: Any) -> None:
        """Forget who was at a port that went down."""
        port = event.msg.desc
        down = bool(port.state & self.switch.ofproto.OFPPS_LINK_DOWN)
        if down:
            self.places = {mac: at for mac, at in self.places.items() if at != port.port_no}
        tell(event="port", port=port.port_no, down=down)

    @set_ev_cls(ofp_event.EventOFPErrorMsg, MAIN_DISPATCHER)
    def error(self, event: Any) -> None:
        tell(event="error", type=event.msg.type, code=event.msg.code)

    def _add(self, priority: int, wanted: Any, out: Any, idle_s: int) -> None:
        parser, ofproto = self.switch.ofproto_parser, self.switch.ofproto
        apply = parser.OFPInstructionActions(ofproto.OFPIT_APPLY_ACTIONS, [out])
        self._send(
            parser.OFPFlowMod(
                datapath=self.switch,
                priority=priority,
                match=wanted,
                instructions=[apply],
                idle_timeout=idle_s,
                flags=ofproto.OFPFF_SEND_FLOW_REM if idle_s else 0,
            )
        )

    def _send(self, message: Any) -> None:
        self.switch.send_msg(message)

    def _keep_asking(self) -> None:
        while True:
            hub.sleep(ASK_S)
            if self.switch is not None and self.switch.is_active:
                parser, ofproto = self.switch.ofproto_parser, self.switch.ofproto
                self._send(parser.OFPFlowStatsRequest(self.switch))
                self._send(parser.OFPPortStatsRequest(self.switch, 0, ofproto.OFPP_ANY))
                self._send(parser.OFPBarrierRequest(self.switch))


def main() -> None:
    cfg.CONF(args=["--ofp-listen-host", "127.0.0.1"], project="os_ken", version="learning")
    app_manager.AppManager.run_apps([MODULE])


if __name__ == "__main__":
    main()
