"""A small certification authority for one test, made with `openssl`."""

from __future__ import annotations

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

from vnet.switch.live.tls import Identity

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True)
class Authority:
    """Key and certificate are `NAME.key` and `NAME.pem` in `folder`."""

    folder: Path
    name: str = "ca"

    def __post_init__(self) -> None:
        subject = f"/CN={self.name}"
        _openssl("req", "-x509", *_KEY, "-keyout", self._key, "-out", self.certificate, "-subj", subject)

    @property
    def certificate(self) -> Path:
        return self.folder / f"{self.name}.pem"

    @property
    def _key(self) -> Path:
        return self.folder / f"{self.name}.key"

    def certifies(self, name: str, trusts: Authority | None = None, days: int = 1) -> Identity:
        """A new key with a certificate; its holder trusts this authority or another one."""
        key, asked, made = (self.folder / f"{name}.{end}" for end in ("key", "csr", "pem"))
        _openssl("req", *_KEY, "-keyout", key, "-out", asked, "-subj", f"/CN={name}")
        signer = ("-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial")
        _openssl("x509", "-req", "-in", asked, *signer, "-days", str(days), "-out", made)
        return Identity(key, made, (trusts or self).certificate)


def anonymous(trusts: Authority) -> ssl.SSLContext:
    """A client without a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(trusts.certificate)
    return context


def _openssl(*words: str | Path) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, timeout=20)
