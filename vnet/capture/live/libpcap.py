"""pcap filter expressions, compiled and run by libpcap itself through ctypes.

Source: pcap-filter(7), pcap_compile(3PCAP), pcap_offline_filter(3PCAP).
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, byref, c_char_p, c_int, c_long, c_uint, c_uint32, c_void_p
from functools import cache
from weakref import finalize

from vnet.base.errors import HostError, InputError
from vnet.capture.filter import EVERYTHING, Filter
from vnet.capture.limits import WHOLE_PACKET_BYTES
from vnet.capture.pcapng import LINKTYPE_ETHERNET

LIBRARY = "libpcap.so.0.8"
NETMASK_UNKNOWN = 0xFFFFFFFF
OPTIMIZE = 1


class _Program(Structure):
    """struct bpf_program (pcap/bpf.h)."""

    _fields_ = (("length", c_uint), ("instructions", c_void_p))


class _PacketHeader(Structure):
    """struct pcap_pkthdr (pcap/pcap.h)."""

    _fields_ = (
        ("seconds", c_long),
        ("microseconds", c_long),
        ("captured_length", c_uint32),
        ("original_length", c_uint32),
    )


@cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise HostError(f"cannot load {LIBRARY}: {error}; run: apt-get install libpcap0.8") from error
    library.pcap_open_dead.restype = c_void_p
    library.pcap_open_dead.argtypes = (c_int, c_int)
    library.pcap_close.restype = None
    library.pcap_close.argtypes = (c_void_p,)
    library.pcap_compile.argtypes = (c_void_p, POINTER(_Program), c_char_p, c_int, c_uint32)
    library.pcap_geterr.restype = c_char_p
    library.pcap_geterr.argtypes = (c_void_p,)
    library.pcap_freecode.restype = None
    library.pcap_freecode.argtypes = (POINTER(_Program),)
    library.pcap_offline_filter.argtypes = (POINTER(_Program), POINTER(_PacketHeader), c_char_p)
    return library


class PcapFilter:
    """One compiled expression; its code is freed with it."""

    def __init__(self, expression: str, program: _Program) -> None:
        self.expression = expression
        self._program = program
        self._run = _library().pcap_offline_filter
        self._freed = finalize(self, _library().pcap_freecode, byref(program))

    def matches(self, data: bytes, original_length: int) -> bool:
        """Whether libpcap would have captured the frame; headers cut away match nothing."""
        header = _PacketHeader(0, 0, len(data), original_length)
        return bool(self._run(byref(self._program), byref(header), data))


def compile_filter(expression: str) -> Filter:
    """The filter of a pcap expression on Ethernet frames; an empty one keeps everything.

    A host name in the expression is looked up by libpcap, which may take its time.

    Raises:
        InputError: with libpcap's words about what is wrong.
        HostError: libpcap is missing.
    """
    if not expression.strip():
        return EVERYTHING
    return PcapFilter(expression, _compiled(expression))


def _compiled(expression: str) -> _Program:
    if "\0" in expression:
        raise InputError("filter: a NUL character cannot be part of a filter expression")
    library, program = _library(), _Program()
    handle = library.pcap_open_dead(LINKTYPE_ETHERNET, WHOLE_PACKET_BYTES)
    if not handle:
        raise HostError("libpcap: out of memory")
    try:
        words = expression.encode("utf-8", "surrogateescape")
        if library.pcap_compile(handle, byref(program), words, OPTIMIZE, NETMASK_UNKNOWN):
            problem = library.pcap_geterr(handle).decode("utf-8", "replace").strip()
            raise InputError(f'filter "{expression}": {problem}; the syntax is that of pcap-filter(7)')
    finally:
        library.pcap_close(handle)
    return program
