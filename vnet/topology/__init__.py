"""From YAML text to a checked, frozen Topology and its Inventory of concrete VMs and NICs."""
