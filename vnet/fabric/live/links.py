"""The cables of VMs' NICs, pulled and plugged in by hand: to try what a VM does then.

They are not declared, so no plan speaks of them. A pulled cable stays so until it is plugged in, also over a
new daemon and a reset; a new start of the VM plugs all in.
"""

from __future__ import annotations

from vnet.base.errors import InputError
from vnet.fabric.events import Kind
from vnet.fabric.live.engine import Engine
from vnet.fabric.live.telling import telling
from vnet.fabric.outcome import Outcome
from vnet.fabric.progress import Report


async def set_link(
    engine: Engine, name: str, vm: str, interface: str, is_up: bool, report: Report
) -> Outcome:
    """Pull the cable of a NIC, or plug it in.

    Raises: InputError for a NIC that there is not; HostError for a VM that does not run.
    """
    async with engine.alone(name):
        guest = engine.guest(name, vm)
        known = [nic.interface for nic in guest.nics]
        if interface not in known:
            raise InputError(f"{vm} has no NIC {interface}; its NICs: {', '.join(known) or 'none'}")
        fabric, state = engine.fabric(name), "up" if is_up else "down"
        with telling(report, 1, f"link {vm}.{interface} {state}", 1):
            await fabric.parts.guests.set_link(vm, interface, is_up=is_up)
        text, fields = f"the link of {vm}.{interface} is {state}", {"interface": interface, "link": state}
        engine.events.tell(Kind.VM_LINK, text, name, vm, fields)
        return Outcome(name, fabric.record.generation, ())
