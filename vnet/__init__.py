"""vnet: a software-defined network fabric for virtual machines, with an eBPF dataplane."""

__version__ = "0.1.0"
