"""When a VM is started, and started again: its restart policy, its health check, what it depends on."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from vnet.base.source import Location


class RestartWhen(Enum):
    """After which end a VM is started again; the words are those of Compose.

    What a user stopped stays stopped. `ALWAYS` ends that when the daemon starts, `UNLESS_STOPPED` does not.
    """

    NO = "no"
    ON_FAILURE = "on-failure"
    """It died, panicked, or rebooted and did not come back; not when it switched itself off."""
    ALWAYS = "always"
    UNLESS_STOPPED = "unless-stopped"


@dataclass(frozen=True, slots=True)
class Restart:
    """`tries` is how often in a row at most, None for as often as it takes."""

    when: RestartWhen = RestartWhen.NO
    tries: int | None = None


class Condition(Enum):
    """What another VM must have come to: its agent answers, or its health check succeeds."""

    STARTED = "started"
    HEALTHY = "healthy"


@dataclass(frozen=True, slots=True)
class Dependency:
    """Another VM, with all its replicas, that must be there first. `vm` is its declared name."""

    vm: str
    condition: Condition
    at: Location


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """A command in the guest whose exit code 0 means that the VM does what it is for.

    It is run every `interval_s`, and every second as long as the VM starts: until it has succeeded once.
    After `retries` failures in a row the VM is unhealthy; those within `start_period_s` after its start do
    not count.
    """

    argv: tuple[str, ...]
    interval_s: float = 30.0
    timeout_s: float = 30.0
    retries: int = 3
    start_period_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Life:
    """All of it for one VM. `autostart`: whether the daemon starts it when the host has been booted."""

    restart: Restart = Restart()
    autostart: bool = False
    health: HealthCheck | None = None
    depends_on: tuple[Dependency, ...] = ()


NO_LIFE = Life()
"""Of a VM that says nothing of it."""
