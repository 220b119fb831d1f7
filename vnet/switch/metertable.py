"""What a meter may be (OpenFlow 1.3.5, sections 5.7 and 6.6), as far as that needs no dataplane.

Where the standard leaves the code of an error open, it is the one that Open vSwitch answers with. The
virtual meters of the standard (slow path, controller) do not exist here.
"""

from __future__ import annotations

from vnet.openflow.group import MAX_METER, Meter, MeterFlag
from vnet.openflow.message import ErrorType, MeterModFailed
from vnet.switch.datapath import MeterKey, Refused
from vnet.switch.numbered import NumberedTable

MAX_METERS = 4095
MAX_BANDS = 8
"""Per meter."""

_FLAGS = sum(MeterFlag)
_UNITS = MeterFlag.KBPS | MeterFlag.PKTPS

MeterTable = NumberedTable[Meter]


def check_new(meters: MeterTable, meter: Meter) -> None:
    """Raise Refused if the meter cannot be added."""
    _check(meter)
    if meter.number in meters:
        raise _refused(MeterModFailed.METER_EXISTS, meter, "exists")
    if len(meters) >= MAX_METERS:
        raise _refused(MeterModFailed.OUT_OF_METERS, meter, f"the switch has {MAX_METERS} already")


def check_known(meters: MeterTable, meter: Meter) -> None:
    """Raise Refused if the meter cannot replace the one in force under its number."""
    _check(meter)
    if meter.number not in meters:
        raise _refused(MeterModFailed.UNKNOWN_METER, meter, "does not exist")


def _check(meter: Meter) -> None:
    if not 0 < meter.number <= MAX_METER:
        raise _refused(MeterModFailed.INVALID_METER, meter, "no number of a meter")
    if meter.flags & ~_FLAGS or meter.flags & _UNITS not in (MeterFlag.KBPS, MeterFlag.PKTPS):
        raise _refused(MeterModFailed.BAD_FLAGS, meter, f"flags {meter.flags:#x}; one unit must be named")
    if not 0 < len(meter.bands) <= MAX_BANDS:
        raise _refused(MeterModFailed.OUT_OF_BANDS, meter, f"{len(meter.bands)} bands; 1 to {MAX_BANDS} fit")
    if not all(band.rate for band in meter.bands):
        raise _refused(MeterModFailed.BAD_RATE, meter, "a band above a rate of 0")


def _refused(code: MeterModFailed, meter: Meter, why: str) -> Refused:
    text = f"meter {meter.number}: {why}"
    return Refused(ErrorType.METER_MOD_FAILED, code, text, MeterKey(meter.number))
