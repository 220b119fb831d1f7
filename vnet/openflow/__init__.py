"""OpenFlow 1.3 as values: the seam between policy and switch."""
