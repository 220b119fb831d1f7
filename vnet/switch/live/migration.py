"""Replaces a running switch by one whose maps have another layout, while packets go through it.

1. The new switch is made beside, with the flows, groups, meters and ports of the old one. A daemon that is
   killed here leaves the old switch alone, and what it made is swept away.
2. It is renamed `ready`: from here on it will take over, whoever has to go on.
3. Connections and addresses are copied; then the program of each port is exchanged. A packet is decided by
   either switch, under the same rules.
4. What packets did to the old switch since it was copied, and its counters, are carried over. Until then the
   packets of a connection that began at step 3 may find it in the other switch only, and be lost.
5. The old switch is renamed away, the new one into its place.

All that comes after step 2 can be done again. Nothing in it depends on the layout of the vnet that runs it,
so that any version can complete it.
"""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack, closing
from pathlib import Path

from vnet.base.errors import HostError
from vnet.openflow.message import FlowMod, GroupMod, MeterMod
from vnet.switch import abi
from vnet.switch.datapath import Change, Refused
from vnet.switch.image import Image
from vnet.switch.layout import layout
from vnet.switch.live import attach, bpf, carry
from vnet.switch.live.btf import Conversion
from vnet.switch.live.described import DescribedSwitch, layout_of
from vnet.switch.live.maps import MAPS, PROGRAM, PROGRAMS, READY, beside, create
from vnet.switch.live.netns import inside
from vnet.switch.live.writer import Writer
from vnet.switch.staging import stage


def bring_up_to_date(folder: Path, netns: str | None) -> None:
    """Replace the switch pinned under `folder` if it has another layout. Raises HostError."""
    ready = beside(folder, READY)
    if ready.exists():
        _take_over(folder, ready, netns)
    if folder.exists() and _is_other(folder):
        _prepare(folder, ready)
        _take_over(folder, ready, netns)


def _is_other(folder: Path) -> bool:
    """Whether a pinned switch cannot be adopted as it is."""
    return layout_of(folder) != layout() or not all((folder / name).exists() for name in (*MAPS, *PROGRAMS))


def _prepare(folder: Path, ready: Path) -> None:
    """Steps 1 and 2."""
    fresh = beside(folder, f"new-{os.getpid()}")
    try:
        create(fresh)
        with closing(DescribedSwitch(folder)) as old, closing(DescribedSwitch(fresh)) as new:
            _copy_ports(old, new)
            _copy_rules(old, new)
            carry.make_room(old, new)
        fresh.rename(ready)
    finally:
        if fresh.exists():
            shutil.rmtree(fresh)


def _copy_ports(old: DescribedSwitch, new: DescribedSwitch) -> None:
    """The ports with their configuration; their links get a second name."""
    convert = Conversion(old.form("ports"), new.form("ports"))
    for number in old.ports():
        new.map["ports"].set(number, convert(old.map["ports"].index(number) or b""))
    for number, ifindex in (*old.ports().items(), *old.line_ends().items()):
        new.map["port_by_ifindex"].update(ifindex.to_bytes(4, "little"), number.to_bytes(4, "little"))
        if ifindex < abi.LOW_IFINDEX:
            new.map["port_of"].set(ifindex, number.to_bytes(4, "little"))
    _copy_lines(old, new)
    for path in (old.folder / "links").iterdir():
        link = bpf.get(path)
        bpf.pin(link, new.folder / "links" / path.name)
        os.close(link)


def _copy_lines(old: DescribedSwitch, new: DescribedSwitch) -> None:
    """How fast ports may send and be sent; a switch of before there were lines has none."""
    if "lines" in old.map:
        convert = Conversion(old.form("lines"), new.form("lines"))
        for number in old.ports():
            new.map["lines"].set(number, convert(old.map["lines"].index(number) or b""))


def _copy_rules(old: DescribedSwitch, new: DescribedSwitch) -> None:
    """What OpenFlow made, from the texts of its messages, in force at the next version."""
    messages = [message for message, _ in old.messages().values()]
    change = Change(
        put=tuple(message.flow for message in messages if isinstance(message, FlowMod)),
        put_groups=tuple(message.group for message in messages if isinstance(message, GroupMod)),
        put_meters=tuple(message.meter for message in messages if isinstance(message, MeterMod)),
    )
    try:
        staged = stage(Image(old.version, old.ports()), change)
    except Refused as refused:
        raise HostError(
            f"the running switch {old.folder.name} has rules that this vnet cannot carry out ({refused}): "
            "start the vnet that made them, or take the fabric down and up again"
        ) from refused
    writer = Writer(new.map)
    try:
        writer.write(staged)
    finally:
        writer.close()
    control, before = abi.Control.from_buffer_copy(new.map["control"].index(0) or b""), old.at("control", 0)
    control.version = staged.version
    control.capturing = before["capturing"]
    control.datapath_id = before["datapath_id"]
    new.map["control"].set(0, bytes(control))


def _take_over(folder: Path, ready: Path, netns: str | None) -> None:
    """Steps 3 to 5."""
    if not folder.exists():  # killed between the last two
        ready.rename(folder)
        return
    with ExitStack() as stack:
        old, new = (stack.enter_context(closing(DescribedSwitch(path))) for path in (folder, ready))
        adder = stack.enter_context(closing(carry.Adder(new)))
        connections = stack.enter_context(closing(carry.Connections(old, new, adder)))
        addresses = carry.Addresses(old, new, adder)
        for _ in range(2):  # the second time little is left to do, so that little is missing in between
            addresses.carry()
            connections.carry()
        _exchange(old, new, netns)
        connections.carry()
        _wait_for_packets()
        connections.carry()
        addresses.carry()
        carry.counters(old, new, adder)
    gone = beside(folder, f"gone-{os.getpid()}")
    folder.rename(gone)
    ready.rename(folder)
    shutil.rmtree(gone)


def _exchange(old: DescribedSwitch, new: DescribedSwitch, netns: str | None) -> None:
    program = new.program(PROGRAM)
    try:
        own = [(str(number), ifindex) for number, ifindex in sorted(old.ports().items())]
        ends = [(attach.line_pin(number), ifindex) for number, ifindex in sorted(old.line_ends().items())]
        for name, ifindex in own + ends:
            pin = new.folder / "links" / name
            if pin.exists():
                _exchange_link(pin, program)
            else:  # a kernel without TCX
                with inside(netns):
                    attach.attach_filter(program, ifindex)
    finally:
        os.close(program)


def _exchange_link(pin: Path, program: int) -> None:
    link = bpf.get(pin)
    try:
        if bpf.link_ifindex(link):  # else its interface is gone
            bpf.update_link(link, program)
    finally:
        os.close(link)


def _wait_for_packets() -> None:
    grace = bpf.GracePeriod()
    try:
        grace.wait()
    finally:
        grace.close()
