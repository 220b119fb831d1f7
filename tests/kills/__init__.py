"""The daemon kills itself at every step of every operation on VMs; the next one completes it or undoes it."""
