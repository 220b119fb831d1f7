"""Generated programs and packets on three switches: the slow interpreter, the eBPF, Open vSwitch.

They must send the same bytes by the same ports. Where vnet differs from Open vSwitch on purpose is listed in
`by_design`; any other difference is shrunk and kept in `cases/`, which the tests replay.
"""
