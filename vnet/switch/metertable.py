"""Which meters there can be beside those in force (OpenFlow 1.3.5, sections 5.7 and 6.6).

What a meter_mod tells by itself the codec has checked. The virtual meters of the standard (slow path,
controller) do not exist here.
"""

from __future__ import annotations

from vnet.openflow.group import Meter
from vnet.openflow.message import ErrorType, MeterModFailed
from vnet.switch.datapath import MeterKey, Refused
from vnet.switch.numbered import NumberedTable

MAX_METERS = 4095
MAX_BANDS = 8
"""Per meter."""

MeterTable = NumberedTable[Meter]


def check_new(meters: MeterTable, meter: Meter) -> None:
    """Raise Refused if the meter cannot be added."""
    if meter.number in meters:
        raise _refused(MeterModFailed.METER_EXISTS, meter, "exists")
    if len(meters) >= MAX_METERS:
        raise _refused(MeterModFailed.OUT_OF_METERS, meter, f"the switch has {MAX_METERS} already")
    _check(meter)


def check_known(meters: MeterTable, meter: Meter) -> None:
    """Raise Refused if the meter cannot replace the one in force under its number."""
    if meter.number not in meters:
        raise _refused(MeterModFailed.UNKNOWN_METER, meter, "does not exist")
    _check(meter)


def _check(meter: Meter) -> None:
    """Without a band Open vSwitch answers the same."""
    if not 0 < len(meter.bands) <= MAX_BANDS:
        raise _refused(MeterModFailed.OUT_OF_BANDS, meter, f"{len(meter.bands)} bands; 1 to {MAX_BANDS} fit")


def _refused(code: MeterModFailed, meter: Meter, why: str) -> Refused:
    text = f"meter {meter.number}: {why}"
    return Refused(ErrorType.METER_MOD_FAILED, code, text, MeterKey(meter.number))
