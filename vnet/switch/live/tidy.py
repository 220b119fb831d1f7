"""Clearing away what the dataplane has learnt: carried out by a program of its own (`bpf/tidy.h`)."""

from __future__ import annotations

from vnet.switch import abi
from vnet.switch.live import bpf

_CONNS, _ZONE, _MACS, _AGED = 1, 2, 4, 8
_ALL_ZONES = 0x10000
_NOTHING = bytes(14)
"""A frame for a program that looks at none."""


class Tidier:
    """Runs the program `vnet_tidy` of a switch."""

    def __init__(self, program: int) -> None:
        self._program = program

    def _run(self, what: int, port: int = 0, zone: int = _ALL_ZONES) -> None:
        context = bpf.SkBuff()
        context.cb[0], context.cb[1], context.cb[2] = what, port, zone
        bpf.run(self._program, _NOTHING, context)

    def forget_aged(self) -> None:
        """Clear away what has aged; nothing depends on it but room."""
        self._run(_AGED)

    def forget_connections(self, zone: int | None = None) -> None:
        """Forget the connections of a zone, or all."""
        self._run(_ZONE, zone=_ALL_ZONES if zone is None else zone)

    def forget_addresses(self, port: int = abi.NO_PORT) -> None:
        """Forget which addresses were learnt at a port, or anywhere."""
        self._run(_MACS, port)

    def forget_port(self, port: int) -> None:
        """Forget all that was learnt from a port."""
        self._run(_CONNS | _MACS, port)
