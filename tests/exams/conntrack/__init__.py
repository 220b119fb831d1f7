"""Namesakes of the titles of Open vSwitch's tests/system-traffic.at, run on both switches."""
