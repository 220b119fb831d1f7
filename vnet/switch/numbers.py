"""What one switch counts and how full it is, as one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vnet.switch.datapath import PortCounter


@dataclass(frozen=True, slots=True)
class PortNumbers:
    """Of one port: what it counted since it was attached, and how much of its quotas is in use.

    `up`: whether its link had a carrier when that last changed.
    """

    counter: PortCounter = field(default_factory=PortCounter)
    up: bool = False
    connections: int = 0
    connection_quota: int = 0
    macs: int = 0
    mac_quota: int = 0


@dataclass(frozen=True, slots=True)
class SwitchNumbers:
    """Of one switch, since it was made.

    Args:
        ports: by port number.
        drops: packets lost, by reason (`vnet.base.drop`).
        lost: events that were not reported, by observation point (`vnet.switch.abi.Point`).
        flows: flows in force, by table.
        paths: the most lists of rules that were remembered at once for the flow cache.
    """

    ports: Mapping[int, PortNumbers] = field(default_factory=dict)
    drops: Mapping[int, int] = field(default_factory=dict)
    lost: Mapping[int, int] = field(default_factory=dict)
    flows: Mapping[int, int] = field(default_factory=dict)
    paths: int = 0
