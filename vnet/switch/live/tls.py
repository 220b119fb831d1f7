"""TLS both ways proven: each side shows a certificate of a CA that the other one trusts.

Names in certificates are not compared with addresses, as in Open vSwitch: the CA is one's own and
certifies switches and controllers only.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from vnet.base.errors import HostError


class _EncryptedKeyError(Exception):
    """OpenSSL wants a passphrase."""


def _no_passphrase() -> str:
    raise _EncryptedKeyError


@dataclass(frozen=True, slots=True)
class Identity:
    """PEM files: the switch's private key and certificate, and the CAs of its peers."""

    key: Path
    certificate: Path
    peers_ca: Path

    def as_server(self) -> ssl.SSLContext:
        """For connections that peers open. Raises HostError."""
        return self._context(ssl.PROTOCOL_TLS_SERVER)

    def as_client(self) -> ssl.SSLContext:
        """For connections to peers. Raises HostError."""
        return self._context(ssl.PROTOCOL_TLS_CLIENT)

    def _context(self, protocol: int) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_cert_chain(self.certificate, self.key, _no_passphrase)
        except _EncryptedKeyError:
            raise HostError(
                f"private key {self.key} is encrypted, and nobody is there to be asked: "
                f"`openssl pkey -in {self.key} -out FILE` takes the passphrase off"
            ) from None
        except OSError as error:
            raise HostError(
                f"cannot use certificate {self.certificate} with key {self.key}: {error}"
            ) from error
        try:
            context.load_verify_locations(self.peers_ca)
        except OSError as error:
            raise HostError(f"cannot use CA certificates {self.peers_ca}: {error}") from error
        return context
