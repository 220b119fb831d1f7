"""Groups and meters as values (OpenFlow 1.3.5, sections 5.6, 5.7, 7.3.4.2 and 7.3.4.4)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag

from vnet.openflow.flow import Action, Port

ANY_GROUP = 0xFFFFFFFF
ALL_GROUPS = 0xFFFFFFFC
MAX_GROUP = 0xFFFFFF00
ALL_METERS = 0xFFFFFFFF
MAX_METER = 0xFFFF0000


class GroupType(IntEnum):
    """OFPGT_*."""

    ALL = 0
    SELECT = 1
    INDIRECT = 2
    FAST_FAILOVER = 3


@dataclass(frozen=True, slots=True)
class Bucket:
    """One list of actions, carried out as an action set. `weight` counts for SELECT only.

    The bucket is live while `watch_port` is up or `watch_group` has a live bucket; one that watches
    nothing is always live.
    """

    actions: tuple[Action, ...] = ()
    weight: int = 0
    watch_port: int = Port.ANY
    watch_group: int = ANY_GROUP


@dataclass(frozen=True, slots=True)
class Group:
    """A group by number (0…MAX_GROUP)."""

    number: int
    kind: GroupType
    buckets: tuple[Bucket, ...] = ()


class MeterFlag(IntFlag):
    """OFPMF_*: the unit of rates (KBPS or PKTPS), whether bursts are given, whether it counts."""

    KBPS = 1
    PKTPS = 2
    BURST = 4
    STATS = 8


class BandType(IntEnum):
    """OFPMBT_*."""

    DROP = 1
    DSCP_REMARK = 2


@dataclass(frozen=True, slots=True)
class Band:
    """What happens above `rate` (kbit/s or packets/s). `burst` in kbit or packets, 0 = the switch's choice.

    `precedence` (DSCP_REMARK): by how much the drop precedence of an AF class is raised.
    """

    kind: BandType
    rate: int
    burst: int = 0
    precedence: int = 0


@dataclass(frozen=True, slots=True)
class Meter:
    """A meter by number (1…MAX_METER). Of the bands exceeded the one of the highest rate acts."""

    number: int
    flags: MeterFlag
    bands: tuple[Band, ...] = ()
