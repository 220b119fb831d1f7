"""The switch's hands: loading eBPF, writing maps, attaching ports, serving OpenFlow."""
