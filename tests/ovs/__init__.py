"""Open vSwitch in user space, as the second switch and the oracle of tests."""

from tests.ovs.harness import OpenVSwitch, OvsError, why_not

__all__ = ["OpenVSwitch", "OvsError", "why_not"]
