"""pcap filter expressions, compiled by libpcap through ctypes into the classic BPF that the switch runs.

Source: pcap-filter(7), pcap_compile(3PCAP).
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, byref, c_char_p, c_int, c_uint, c_uint32, c_void_p
from functools import cache

from vnet.base.errors import HostError, InputError
from vnet.capture.limits import WHOLE_PACKET_BYTES
from vnet.capture.pcapng import LINKTYPE_ETHERNET

LIBRARY = "libpcap.so.0.8"
NETMASK_UNKNOWN = 0xFFFFFFFF
OPTIMIZE = 1
INSN_BYTES = 8
"""struct bpf_insn (pcap/bpf.h): code, jt, jf, k."""


class Program(Structure):
    """struct bpf_program (pcap/bpf.h)."""

    _fields_ = (("length", c_uint), ("instructions", c_void_p))


@cache
def library() -> ctypes.CDLL:
    """libpcap. Raises HostError when it is missing."""
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise HostError(f"cannot load {LIBRARY}: {error}; run: apt-get install libpcap0.8") from error
    library.pcap_open_dead.restype = c_void_p
    library.pcap_open_dead.argtypes = (c_int, c_int)
    library.pcap_close.restype = None
    library.pcap_close.argtypes = (c_void_p,)
    library.pcap_compile.argtypes = (c_void_p, POINTER(Program), c_char_p, c_int, c_uint32)
    library.pcap_geterr.restype = c_char_p
    library.pcap_geterr.argtypes = (c_void_p,)
    library.pcap_freecode.restype = None
    library.pcap_freecode.argtypes = (POINTER(Program),)
    return library


def compile_filter(expression: str) -> bytes:
    """The program of a pcap expression on Ethernet frames; of an empty one it is empty, and takes all.

    Tags are looked for in the frame, where a capture file has them, not beside it where the kernel keeps
    them. A host name in the expression is looked up by libpcap, which may take its time.

    Raises:
        InputError: with libpcap's words about what is wrong.
        HostError: libpcap is missing.
    """
    if not expression.strip():
        return b""
    program = compiled(expression)
    try:
        return ctypes.string_at(program.instructions, program.length * INSN_BYTES)
    finally:
        library().pcap_freecode(byref(program))


def compiled(expression: str) -> Program:
    """The same in libpcap's memory, to be freed there."""
    if "\0" in expression:
        raise InputError("filter: a NUL character cannot be part of a filter expression")
    pcap, program = library(), Program()
    handle = pcap.pcap_open_dead(LINKTYPE_ETHERNET, WHOLE_PACKET_BYTES)
    if not handle:
        raise HostError("libpcap: out of memory")
    try:
        words = expression.encode("utf-8", "surrogateescape")
        if pcap.pcap_compile(handle, byref(program), words, OPTIMIZE, NETMASK_UNKNOWN):
            problem = pcap.pcap_geterr(handle).decode("utf-8", "replace").strip()
            raise InputError(f'filter "{expression}": {problem}; the syntax is that of pcap-filter(7)')
    finally:
        pcap.pcap_close(handle)
    return program
