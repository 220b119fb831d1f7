"""os-ken's switch tester, asked for one case at a time. Imports nothing of vnet: it has its own environment.

Reads lines `{"key": …, "file": path, "number": n}` (the n-th case of a file, counted from 1) and writes
`{"ready": true}` once both switches are connected, then for each `{"key", "passed", "reason", "seconds",
"load"}`; `load` is the part of the packets asked for that could be sent, 1 if all.
"""

# ruff: noqa: E402  the hub is chosen and the standard library patched before os-ken is imported

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import time
import traceback

os.environ["OSKEN_HUB_TYPE"] = "eventlet"

from os_ken.lib import hub

hub.patch(thread=False)

from eventlet import patcher
from eventlet.hubs import trampoline
from os_ken import (
    cfg,
    flags,  # noqa: F401  its options
    log,  # noqa: F401  its options
)
from os_ken.base.app_manager import AppManager
from os_ken.lib.packet import sctp
from os_ken.tests.switch import tester

MODULE = "os_ken_tester"
TICK_S = 0.001
WIRE_PPS = 10_000
"""From this rate on a load does not go through the tester switch."""
MAX_BURST = 50
"""At once: a packet socket of Open vSwitch holds 90 frames of 1500 bytes. What was held up is made up for."""
CHANGES = frozenset(
    {
        tester.STATE_INIT_FLOW,
        tester.STATE_INIT_THROUGHPUT_FLOW,
        tester.STATE_FLOW_INSTALL,
        tester.STATE_METER_INSTALL,
        tester.STATE_GROUP_INSTALL,
        tester.STATE_THROUGHPUT_FLOW_INSTALL,
    }
)

_options = argparse.Namespace(settle=[], wire="", out=None)


class Examiner(tester.OfTester):
    """The tester as it is; what is added looks on, waits for Open vSwitch and keeps time."""

    def __init__(self) -> None:
        self._why, self._achieved = "", 1.0
        self._files: dict[str, list] = {}
        super().__init__()

    # -- one case at a time -----------------------------------------------------------------------

    def _test_sequential_execute(self, _directory) -> None:
        try:
            self._await_switches()
            _tell({"ready": True})
            for line in _lines(sys.stdin.fileno()):
                _tell(self._examine(**json.loads(line)))
        except Exception:  # noqa: BLE001  the top loop
            traceback.print_exc()
        os._exit(0)

    def _await_switches(self) -> None:
        while any(isinstance(switch.dp, tester.DummyDatapath) for switch in (self.target_sw, self.tester_sw)):
            hub.sleep(TICK_S)

    def _examine(self, key: str, file: str, number: int) -> dict:
        started, self._why, self._achieved = time.monotonic(), "", 1.0
        try:
            verdict = self._test_execute(self._case(file, number), None)
        except Exception as error:  # noqa: BLE001  as the tester has it this ends the whole run
            verdict, self.waiter = None, None
            self._why = f"the tester gave up: {type(error).__name__} {error}".rstrip()
        passed = verdict == tester.TEST_OK
        reason = "" if passed else self._why or str(verdict)
        return {
            "key": key,
            "passed": passed,
            "reason": reason,
            "seconds": round(time.monotonic() - started, 3),
            "load": round(self._achieved, 3),
        }

    def _case(self, file: str, number: int):
        if file not in self._files:
            self._files[file] = tester.TestFile(file, self.logger).tests
        return self._files[file][number - 1]

    def _test(self, state, *args):
        try:
            result = super()._test(state, *args)
        except tester.TestMessageBase as error:
            self._why = str(error)
            raise
        if state in CHANGES:
            for control in _options.settle:
                _settled(control)
        return result

    # -- a load by the clock ----------------------------------------------------------------------

    def _send_packet_thread(self, arg) -> None:
        rate = arg["packet_counter_inc"] / tester.CONTINUOUS_THREAD_INTVL
        send = self._sender(arg, rate)
        since, sent = time.monotonic(), 0
        while self.ingress_event is not None and not self.ingress_event._cond:
            due = min(MAX_BURST, int((time.monotonic() - since) * rate) - sent)
            if due > 0:
                send(due)
                sent += due
            self._achieved = sent / max(TICK_S, time.monotonic() - since) / rate
            hub.sleep(TICK_S)

    def _sender(self, arg, rate: float):
        """What sends so many of a case's packets."""
        if arg["randomize"]:
            text = arg["packet_text"]
            return lambda count: self._send(self._packet_out(_packet(text)) for _ in range(count))
        if rate >= WIRE_PPS and _options.wire:
            return _wire_sender(_options.wire, arg["packet_binary"])
        message = self._packet_out(arg["packet_binary"])
        return lambda count: self._send([message * count])

    def _send(self, messages) -> None:
        for message in messages:
            self.tester_sw.dp.send(message)

    def _packet_out(self, data: bytes) -> bytes:
        """The message that the tester's `send_packet_out` sends."""
        dp = self.tester_sw.dp
        actions = [dp.ofproto_parser.OFPActionOutput(self.tester_send_port)]
        message = dp.ofproto_parser.OFPPacketOut(
            datapath=dp,
            buffer_id=dp.ofproto.OFP_NO_BUFFER,
            data=data,
            in_port=dp.ofproto.OFPP_CONTROLLER,
            actions=actions,
        )
        dp.set_xid(message)
        message.serialize()
        return bytes(message.buf)


def _wire_sender(interface: str, frame: bytes):
    """Send by the link of the tester switch's port, past the switch: it makes 15,000 packet-outs a second."""
    plain = patcher.original("socket")
    link = plain.socket(plain.AF_PACKET, plain.SOCK_RAW)
    link.bind((interface, 0))

    def send(count: int) -> None:
        for _ in range(count):
            link.send(frame)

    return send


def _packet(text: list) -> bytes:
    """A packet made anew out of a case's text, with its `randint`, as the tester makes it."""
    packet = eval("/".join(text), vars(tester))
    packet.serialize()
    return bytes(packet.data)


def _settled(control: str) -> None:
    """Have vswitchd forget its cached decisions; waiting until they are revised takes half a second."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(control)
        connection.sendall(json.dumps({"id": 0, "method": "revalidator/purge", "params": []}).encode())
        connection.recv(1 << 12)


def _lines(descriptor: int):
    """Lines of a pipe, without keeping the other green threads waiting."""
    rest = b""
    while True:
        trampoline(descriptor, read=True)
        data = os.read(descriptor, 1 << 16)
        if not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        yield from lines


def _of_bytes(checksum):
    """SCTP's CRC32c over bytes: as shipped it is taken over the text of a bytearray's `repr`."""
    return lambda packet, data: checksum(packet, _Latin(data))


class _Latin(bytearray):
    """Bytes whose text has one character for each."""

    def __str__(self) -> str:
        return self.decode("latin-1")


def _tell(answer: dict) -> None:
    os.write(_options.out, json.dumps(answer).encode() + b"\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=6653, help="listen here, on 127.0.0.1")
    parser.add_argument("--wait", type=float, default=1.0, help="seconds to wait for an answer")
    parser.add_argument("--settle", action="append", default=[], help="control socket of a vswitchd")
    parser.add_argument("--wire", default="", help="interface of the tester switch's port 1")
    parser.add_argument("--repair-sctp", action="store_true", help="test packets with correct checksums")
    given = parser.parse_args()

    import os_ken_tester as application  # this file, as the module that os-ken loads

    out = os.dup(1)  # the tester prints dots
    os.dup2(2, 1)
    application._options = argparse.Namespace(settle=given.settle, wire=given.wire, out=out)
    tester.WAIT_TIMER = given.wait
    if given.repair_sctp:
        sctp.sctp._checksum = _of_bytes(sctp.sctp._checksum)
    listen = ["--ofp-listen-host", "127.0.0.1", "--ofp-tcp-listen-port", str(given.port)]
    cfg.CONF(args=listen, project="os_ken", version="conformance")
    AppManager.run_apps([MODULE])


if __name__ == "__main__":
    main()
