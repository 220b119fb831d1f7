"""What a distribution's guest is told by cloud-init besides its name and NICs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class CloudInit:
    """What a topology says of one guest.

    `wanted` is None for what its image says. `user` is the image's own default user if empty;
    `password_hash` is as crypt(5) has it; `commands` are for the guest's shell, at its first boot;
    `user_data` is a whole document, which counts more than all of that.
    """

    wanted: bool | None = None
    user: str = ""
    ssh_keys: tuple[str, ...] = ()
    password_hash: str = ""
    packages: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    user_data: str = ""

    def is_wanted(self, image_takes_it: bool) -> bool:
        """Whether the guest gets a seed, where its image takes one or does not."""
        return image_takes_it if self.wanted is None else self.wanted


UNSAID = CloudInit()
