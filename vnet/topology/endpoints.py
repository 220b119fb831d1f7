"""Endpoints: what is attached to a fabric and not launched by it, as values.

In policies, claims, groups and traces an endpoint is what a VM with the one NIC `eth0` is.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

NIC = "eth0"
"""What an endpoint's only NIC is called: `NAME.eth0`."""


class EndpointKind(Enum):
    """TAP: one that vnet makes and another program opens, such as a VMM. INTERFACE: one of the host that is
    there. NETNS: an interface in another network namespace."""

    TAP = "tap"
    INTERFACE = "interface"
    NETNS = "netns"


@dataclass(frozen=True, slots=True)
class EndpointSpec:
    """Where an endpoint is. `target` is the interface's name on the host, or that of the namespace.

    `owner` is the user who may open a TAP, empty for root alone; `device` is what the interface in a
    namespace is called there.
    """

    kind: EndpointKind
    target: str
    owner: str = ""
    device: str = ""

    @property
    def place(self) -> tuple[str, ...]:
        """The same for two that want the same interface."""
        return (self.target, self.device) if self.kind is EndpointKind.NETNS else (self.target,)

    def __str__(self) -> str:
        inside = f" as {self.device}" if self.device else ""
        return f"{self.kind.value} {self.target}{inside}"
