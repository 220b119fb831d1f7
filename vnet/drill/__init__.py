"""Attacks as data: what a guest may try against its neighbours, and what must become of it."""
