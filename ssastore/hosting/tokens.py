"""What lets a further host in: a token that works once, and not for long.

    ssaj1.<base64url of JSON>     where to ask, whom to believe there, and a secret

The secret is 128 random bits; the first host keeps only its hash.  Whom to believe is the SHA-256 of the
authority's certificate, so that nothing is told to anybody before they have proved who they are.
"""

from __future__ import annotations

import fcntl
import hmac
import json
import os
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from ssastore.config import write_private
from ssastore.core.cluster import NodeRecord
from ssastore.errors import AccessDenied, ConfigError

_PREFIX = "ssaj1."
_TEXT_MAX = 2048
_SECRET_BYTES = 16
_KEPT_S = 7 * 24 * 3600
"How long a token that is used or has ended is still known: who comes with it is told what became of it."


@dataclass(frozen=True, slots=True)
class Token:
    """What a further host is given."""

    address: str
    "Of the first host."
    port: int
    name: str
    "Of the service: the certificate there proves it."
    fingerprint: str
    "SHA-256 of the authority's certificate, hexadecimal."
    secret: str

    def encode(self) -> str:
        """As text for a command line."""
        return _PREFIX + urlsafe_b64encode(json.dumps(list(asdict(self).values())).encode()).decode().rstrip(
            "="
        )


def decode_token(text: str) -> Token:
    """Inverse of ``Token.encode``. Raises ConfigError, without repeating what is a secret."""
    text = text.strip()
    problem = ConfigError("that is no token: it begins with ssaj1. and is one word")
    if not text.startswith(_PREFIX) or len(text) > _TEXT_MAX:
        raise problem
    body = text.removeprefix(_PREFIX)
    try:
        values = json.loads(urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        token = Token(*values)
    except (ValueError, TypeError, RecursionError):
        raise problem from None
    if [type(value) for value in asdict(token).values()] != [str, int, str, str, str]:
        raise problem
    return token


class TokenBook:
    """The tokens of a site, in a file of its first host; several processes may have it open."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def issue(self, node: NodeRecord, *, ttl_s: float) -> str:
        """A new secret that admits this node's host, once. An earlier one of that host ends."""
        secret = os.urandom(_SECRET_BYTES).hex()
        with self._changing() as rows:
            for row in rows:
                if row["node"]["name"] == node.name and row["used_at"] is None:
                    row["ends_at"] = 0
            rows.append(
                {
                    "sha256": _hash(secret),
                    "node": asdict(node),
                    "ends_at": time.time() + ttl_s,
                    "used_at": None,
                }
            )
        return secret

    def find(self, secret: str) -> NodeRecord:
        """The node whose host it admits now. Raises AccessDenied: it is unknown, used, or over."""
        with self._changing() as rows:
            return NodeRecord(**_open_row(rows, secret)["node"])

    def use(self, secret: str) -> NodeRecord:
        """The same; from now on it admits nobody, also after a crash. Raises AccessDenied as ``find``."""
        with self._changing() as rows:
            row = _open_row(rows, secret)
            row["used_at"] = time.time()
            return NodeRecord(**row["node"])

    def open_until(self) -> float:
        """When the last token ends that may still be used, in Unix seconds; 0: there is none."""
        with self._changing() as rows:
            return max((row["ends_at"] for row in rows if row["used_at"] is None), default=0.0)

    @contextmanager
    def _changing(self) -> Iterator[list[dict[str, Any]]]:
        """The rows; what has become of them is written at the end of the block, unless that raises."""
        lock = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            before = self._path.read_text() if self._path.exists() else "[]"
            try:
                rows: list[dict[str, Any]] = json.loads(before)
            except ValueError:
                raise ConfigError(f"{self._path}: not JSON; without it tokens are made anew") from None
            yield rows
            kept = [row for row in rows if max(row["ends_at"], row["used_at"] or 0) > time.time() - _KEPT_S]
            if (after := json.dumps(kept)) != before:
                write_private(self._path, after)
        finally:
            os.close(lock)


def _open_row(rows: list[dict[str, Any]], secret: str) -> dict[str, Any]:
    wanted = _hash(secret)
    row = next((row for row in rows if hmac.compare_digest(row["sha256"], wanted)), None)
    if row is None:
        raise AccessDenied("the token is not known here")
    if row["used_at"] is not None:
        raise AccessDenied("the token was used already, and works once")
    if time.time() >= row["ends_at"]:
        raise AccessDenied("the token is over; on the first host, `ssastore node token` makes another")
    return row


def _hash(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()
