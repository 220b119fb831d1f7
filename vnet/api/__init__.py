"""The daemon's face: JSON over HTTP on a unix socket, long operations as JSON Lines."""
