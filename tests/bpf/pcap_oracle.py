"""libpcap's own interpreter of classic BPF, as the law of which packets a filter takes."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, byref, c_char_p, c_int, c_long, c_uint32, c_void_p

from vnet.capture.live.libpcap import Program, compiled, library


class PacketHeader(Structure):
    """struct pcap_pkthdr (pcap/pcap.h)."""

    _fields_ = (
        ("seconds", c_long),
        ("microseconds", c_long),
        ("captured_length", c_uint32),
        ("original_length", c_uint32),
    )


class Oracle:
    """One expression, compiled and run by libpcap."""

    def __init__(self, expression: str) -> None:
        self._program = compiled(expression)
        self._run = library().pcap_offline_filter
        self._run.argtypes = (POINTER(Program), POINTER(PacketHeader), c_char_p)
        self._run.restype = c_int

    def takes(self, frame: bytes) -> bool:
        """Whether libpcap would keep the frame."""
        header = PacketHeader(0, 0, len(frame), len(frame))
        return bool(self._run(byref(self._program), byref(header), frame))


def runs(program: bytes, frame: bytes) -> bool:
    """Whether libpcap's interpreter takes a frame by a program of our own making."""
    code = ctypes.create_string_buffer(program, len(program))
    run = library().bpf_filter
    run.argtypes, run.restype = (c_void_p, c_char_p, c_uint32, c_uint32), c_uint32
    return bool(run(ctypes.addressof(code), frame, len(frame), len(frame)))
