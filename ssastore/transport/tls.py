"""TLS of one process: what it shows, whom it believes, and both read again while it runs.

Addresses of the service are computed, so no certificate can list them: whoever is dialled has to show a
certificate of the service's *name*, whichever address was dialled (RFC 9525 calls that a reference
identity).  Nodes and gateways show theirs too when they dial; without one the role `node` is refused, so that
a cluster secret alone opens nothing.

Contexts are replaced as a whole.  A connection keeps the one it began with.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from ssastore.errors import ConfigError, Unproved
from ssastore.filewatch import FileWatch
from ssastore.limits import DIAL_TIMEOUT_MS, TLS_GOODBYE_MS

P = TypeVar("P", bound=asyncio.BaseProtocol)

_HANDSHAKE = 0x16
"First byte of a record (RFC 8446, section 5.1); no frame of ours and no request of HTTP begins so."


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Files in PEM. Without ``cert`` nothing is shown; without ``ca`` those that the system believes are."""

    ca: str = ""
    cert: str = ""
    key: str = ""

    def __str__(self) -> str:
        return ", ".join(filter(None, (self.ca, self.cert, self.key)))


class Tls:
    """Contexts for both directions."""

    def __init__(self, files: TlsFiles, name: str = "") -> None:
        """``name``: of the service, for connections that are dialled and for nodes that dial.

        Raises:
            ConfigError: a file is missing, is not what it should be, or is of another file's key.
        """
        self._files = files
        self.name = name
        # It looks before they are read: what changes meanwhile would never be seen.
        self.watch = FileWatch("certificates", (files.ca, files.cert, files.key), self.reload)
        self.client, self.server = self._contexts()

    def reload(self) -> dict[str, Any]:
        """Use what the files hold now, from the next connection on. ConfigError: all stays as it was."""
        self.client, self.server = self._contexts()
        return self.shown()

    def shown(self) -> dict[str, Any]:
        """For the log: which name is proved and asked for, and how long the certificate is valid."""
        known = {"tls_name": self.name} if self.name else {}
        if self._files.cert:
            try:
                known["valid_until"] = valid_until(self._files.cert)
            except ConfigError:  # Replaced since it was read, or in an order that OpenSSL alone takes.
                known["valid_until"] = "unknown"
        return known

    def _contexts(self) -> tuple[ssl.SSLContext, ssl.SSLContext | None]:
        files = self._files
        try:
            client = ssl.create_default_context(cafile=files.ca or None)
            client.minimum_version = ssl.TLSVersion.TLSv1_2
            if not files.cert:
                return client, None
            client.load_cert_chain(files.cert, files.key or None, password=_no_password)
            server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            server.minimum_version = ssl.TLSVersion.TLSv1_2
            server.load_cert_chain(files.cert, files.key or None, password=_no_password)
            if files.ca:
                server.load_verify_locations(files.ca)
                server.verify_mode = ssl.CERT_OPTIONAL
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(f"cannot use {files} for TLS: {reason}") from None
        return client, server


def _no_password() -> str:
    # Else OpenSSL asks at the terminal, and a service would wait there for ever.
    raise ValueError("the key is encrypted, and nobody is there to type its password")


def valid_until(path: str) -> str:
    """When the first certificate of a file ends, in UTC. Raises ConfigError."""
    from cryptography import x509  # A tenth of a second, which only some processes need.

    try:
        with open(path, "rb") as file:
            found = x509.load_pem_x509_certificate(file.read())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: no certificate in PEM: {error}") from None
    return found.not_valid_after_utc.strftime("%Y-%m-%dT%H:%M:%SZ")


def is_of(name: str, certificate: Mapping[str, Any] | None) -> bool:
    """Whether a verified certificate, as ``peercert`` has it, is of the service of this name."""
    names = certificate.get("subjectAltName", ()) if certificate else ()
    return ("DNS", name) in names


def begins_tls(first: bytes) -> bool:
    """Whether what a peer says first is a handshake."""
    return first[:1] == bytes((_HANDSHAKE,))


async def dial_tls(
    tls: Tls, made_by: Callable[[], P], sock: socket.socket, where: str
) -> tuple[asyncio.BaseTransport, P]:
    """A protocol on a connected socket, which is closed when that fails.

    Raises:
        Unproved: who answers there does not prove that it is the service.
        OSError: no TLS came about.
    """
    try:
        return await asyncio.get_running_loop().create_connection(
            made_by,
            sock=sock,
            ssl=tls.client,
            server_hostname=tls.name,
            ssl_handshake_timeout=DIAL_TIMEOUT_MS / 1000,
            ssl_shutdown_timeout=TLS_GOODBYE_MS / 1000,
        )
    except ssl.SSLCertVerificationError as error:
        raise Unproved(f"{where} does not prove that it is {tls.name}: {error.verify_message}") from None
    except (ssl.SSLError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error
        raise OSError(f"{where} ended the TLS handshake ({reason}): is TLS on there?") from None
