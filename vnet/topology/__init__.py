"""From YAML text to a checked, frozen Topology and its Inventory of concrete VMs and NICs."""

from vnet.topology.lookup import discover

__all__ = ["discover"]
