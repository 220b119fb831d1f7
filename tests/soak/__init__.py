"""Many VMs up, verified and down, again and again: what is left afterwards must be nothing."""
