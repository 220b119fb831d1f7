"""What of a fabric a picture shows, in the words of the command line: all else here is slow to import."""

from __future__ import annotations

from enum import StrEnum


class View(StrEnum):
    """What is shown."""

    NETWORKS = "networks"
    POLICY = "policy"
    BOTH = "both"


class GroupBy(StrEnum):
    """What puts VMs side by side."""

    NETWORK = "network"
    GROUP = "group"
    NONE = "none"
