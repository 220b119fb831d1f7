"""This host's own key, by which `vnet ssh` gets into guests whose topology names nobody."""

from __future__ import annotations

import subprocess
from pathlib import Path

from vnet.base import paths
from vnet.base.errors import HostError
from vnet.hv.live.lock import exclusive

_TIMEOUT_S = 30.0


def private() -> Path:
    """The file of the key, which only root can read; made if there is none.

    Raises:
        HostError: there is no ssh-keygen, or it failed.
    """
    path = paths.ssh_dir() / "id_ed25519"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with exclusive(path.parent):
        if not path.exists() or not path.with_suffix(".pub").exists():
            path.unlink(missing_ok=True)
            _make(path)
    return path


def public() -> tuple[str, ...]:
    """Its public half, as guests are told it; none where this host has no SSH client."""
    try:
        return (private().with_suffix(".pub").read_text().strip(),)
    except HostError:
        return ()


def _make(path: Path) -> None:
    words = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "vnet", "-f", str(path))
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=_TIMEOUT_S)
    except (OSError, subprocess.SubprocessError) as error:
        raise HostError(f"cannot make this host's SSH key: {error}; install openssh-client") from error
    if done.returncode:
        raise HostError(f"cannot make this host's SSH key: {done.stderr.strip()}")
