"""The part of the language that says what cloud-init tells a VM: `cloud_init`."""

from __future__ import annotations

import re

from vnet.topology import values
from vnet.topology.language_words import BOOLEAN, TEXT, formed
from vnet.topology.shape import Field, ListOf, Record, Refused, Word, YesOrMap
from vnet.topology.yaml import Scalar

_KEY = re.compile(r"((ssh|ecdsa|sk-ssh|sk-ecdsa)-[a-z0-9@.-]+) [A-Za-z0-9+/=]{16,}( [^\n]*)?")
"""Source: sshd(8), AUTHORIZED_KEYS FILE FORMAT; options before the key are for files in the guest."""
_USER_PATTERN = "^[a-z_][a-z0-9_-]{0,31}$"
_HASH_PATTERN = r"^\$[a-z0-9]+\$[!-9;-~]+$"


def is_key(text: str) -> bool:
    """Whether a text is a public key itself and not the name of a file."""
    return _KEY.fullmatch(text.strip()) is not None


def is_document(text: str) -> bool:
    """Whether a text is user data itself and not the name of a file."""
    return "\n" in text or text.startswith("#")


def _user(scalar: Scalar) -> str:
    text = values.text(scalar)
    if not re.fullmatch(_USER_PATTERN, text):
        raise Refused
    return text


def _password_hash(scalar: Scalar) -> str:
    """A password itself is refused: the file would give it away."""
    text = values.text(scalar)
    if not re.fullmatch(_HASH_PATTERN, text):
        raise Refused("this is no hash of a password", "`mkpasswd` or `openssl passwd -6` makes one")
    return text


CLOUD_USER = Field(
    "user",
    formed("the name of a user", _user, _USER_PATTERN),
    "the user that is made, who may become root; the image's own default user if left out",
)
CLOUD_SSH_KEYS = Field(
    "ssh_keys",
    ListOf(TEXT, "a public key, a file with some, or a list of those", single=True),
    "who may log in as that user: public keys, or files with them, relative to this one; this host's own "
    "(`vnet ssh`) if left out",
)
CLOUD_PASSWORD_HASH = Field(
    "password_hash",
    formed("a password's hash", _password_hash, _HASH_PATTERN),
    "the user's password, as `mkpasswd` prints it; dollar signs are written twice; none if left out",
    default="",
)
CLOUD_PACKAGES = Field(
    "packages",
    ListOf(TEXT, "a list of packages"),
    "packages that are installed at its first boot, from where the guest's distribution gets them",
    default=(),
)
CLOUD_RUNCMD = Field(
    "runcmd",
    ListOf(TEXT, "a command for the shell, or a list of them", single=True),
    "commands that are run at the end of its first boot",
    default=(),
)
CLOUD_USER_DATA = Field(
    "user_data",
    Word("a document for cloud-init, or the name of a file", values.string, {"type": "string"}),
    "a whole document (`#cloud-config`, `#!/bin/sh`), or a file with it; where it says something else than "
    "the keys above, it counts",
)
CLOUD_INIT = Record(
    "a cloud-init seed",
    (CLOUD_USER, CLOUD_SSH_KEYS, CLOUD_PASSWORD_HASH, CLOUD_PACKAGES, CLOUD_RUNCMD, CLOUD_USER_DATA),
)
VM_CLOUD_INIT = Field(
    "cloud_init",
    YesOrMap(BOOLEAN, CLOUD_INIT),
    "whether, and what, it is told by a cloud-init seed: its name, its NICs with their addresses, and this; "
    "as its image says if left out",
)
