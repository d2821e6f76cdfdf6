"""Certificates for tests: authorities and what they sign, in files."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from ssastore.authority import CERTIFICATE_DAYS, Authority, key_text, new_key, now_utc
from ssastore.config import write_private
from ssastore.transport.tls import Tls, TlsFiles

NAME = "store.example"


class Signer:
    """One authority, in a directory."""

    def __init__(self, directory: Path, *, age_days: int = 0) -> None:
        self.directory = directory
        self.authority = Authority.make(directory, NAME, now_utc() - timedelta(days=age_days))
        self.ca = str(directory / "ca.pem")

    def files(self, *names: str, file: str = "service", age_days: int = 0) -> TlsFiles:
        """Key and certificate for names, signed so many days ago; replaced when they are there."""
        key = new_key()
        then = now_utc() - timedelta(days=age_days)
        text = self.authority.sign(key.public_key(), list(names or (NAME,)), then)
        path = self.directory / file
        write_private(path.with_suffix(".key"), key_text(key))
        write_private(path.with_suffix(".pem"), text)
        return TlsFiles(self.ca, str(path.with_suffix(".pem")), str(path.with_suffix(".key")))

    def tls(self, *names: str, name: str = NAME, file: str = "service", is_expired: bool = False) -> Tls:
        """For an end that shows a certificate."""
        age_days = CERTIFICATE_DAYS + 1 if is_expired else 0
        return Tls(self.files(*names, file=file, age_days=age_days), name)
