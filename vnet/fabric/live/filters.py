"""Whether the filters of a topology's mirrors are ones that the switch can run."""

from __future__ import annotations

from vnet.base.errors import Fault, InputError
from vnet.capture.live.bounded import compile_bounded
from vnet.switch.taps import check
from vnet.topology.model import Topology


def check_filters(topology: Topology) -> None:
    """Raise InputError unless libpcap understands the filter of every mirror."""
    faults = []
    for mirror in topology.mirrors:
        try:
            check(compile_bounded(mirror.filter))
        except InputError as error:
            faults.append(Fault(mirror.at, f"mirrors.{mirror.name}.filter", str(error)))
    if faults:
        raise InputError(faults)
