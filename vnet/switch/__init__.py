"""An OpenFlow 1.3 switch whose dataplane is eBPF: agent, lowering, ABI; `live` touches the kernel."""
