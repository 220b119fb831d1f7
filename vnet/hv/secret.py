"""Keys: what one must be, and what proves that something was written by who has it.

A key is used as it lies in its file, byte by byte, as `qemu-img` and `cryptsetup` use it: so backups can be
read without vnet too.
"""

from __future__ import annotations

import hashlib
import hmac

from vnet.base.errors import InputError

MIN_BYTES = 16
MAX_BYTES = 4096
RANDOM_BYTES = 32
"""Of a key that is made: as many as AES-256 has."""

_SCRYPT_N, _SCRYPT_R, _SCRYPT_P = 1 << 14, 8, 1


def check_key(key: bytes, where: str) -> bytes:
    """The key. Raises InputError for one that is too short, or that QEMU does not take."""
    if not MIN_BYTES <= len(key) <= MAX_BYTES:
        raise InputError(
            f"{where} has {len(key)} bytes; a key has {MIN_BYTES} to {MAX_BYTES}. "
            "`vnet backup keygen FILE` makes one"
        )
    try:
        key.decode()
    except UnicodeDecodeError:
        raise InputError(
            f"{where} is not text in UTF-8, which QEMU asks of keys. `vnet backup keygen FILE` makes one"
        ) from None
    return key


def mac(key: bytes, salt: str, data: bytes) -> str:
    """A code that only who has the key can make, and from which it takes long to guess it."""
    slow = hashlib.scrypt(key, salt=salt.encode(), n=_SCRYPT_N, r=_SCRYPT_R, p=_SCRYPT_P)
    return hmac.new(slow, data, hashlib.sha256).hexdigest()


def is_mac(key: bytes, salt: str, data: bytes, given: str) -> bool:
    """Whether a code is the one that `mac` gives."""
    return hmac.compare_digest(mac(key, salt, data), given)
