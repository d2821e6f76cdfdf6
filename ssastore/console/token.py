"""The admin token: who has it may do through the console what commands do.

It is a line in a file that only its owner can read (or root and a group), made by whoever needs it first.
A *login code* is made of it and good once, for ten minutes: what is printed or pasted is worth nothing
afterwards.

    code    EXPIRES.NONCE.MAC     seconds since 1970, 16 bytes, HMAC-SHA256 of both by the token: in hex
"""

from __future__ import annotations

import hmac
from pathlib import Path

from ssastore.config.files import read_secret, write_private
from ssastore.env import Randomness
from ssastore.errors import ConfigError

_TOKEN_BYTES = 32
_FILE_NAME = "admin-token"
CODE_S = 600
"How long a login code is good."
_CODE_CHARS_MAX = 256


def token_path(secrets_file: str, token_file: str = "") -> Path:
    """Where a gateway's token is: ``token_file``, or `admin-token` beside its secrets file."""
    return Path(token_file) if token_file else Path(secrets_file).with_name(_FILE_NAME)


def make_token(path: Path, randomness: Randomness, *, like: str | None = None) -> None:
    """Write a new token, in the place of one that is there. Raises OSError.

    ``like``: who can read that file can read the token, if there was none. That of secrets: a gateway's.
    """
    write_private(path, randomness.bytes(_TOKEN_BYTES).hex() + "\n", like=like)


def read_token(path: Path) -> bytes:
    """The token of a file.

    Raises:
        ConfigError: there is none, others can read it, or it is too short to be one.
    """
    token = read_secret(str(path)).strip()
    if len(token) < _TOKEN_BYTES:
        raise ConfigError(f"{path}: an admin token has at least {_TOKEN_BYTES} characters")
    return token


def login_code(token: bytes, now_ms: int, randomness: Randomness) -> str:
    """A login code that is good from now on."""
    told = f"{now_ms // 1000 + CODE_S:x}.{randomness.bytes(16).hex()}"
    return f"{told}.{_mac(token, told)}"


def begun_ms(code: str, token: bytes, now_ms: int) -> int | None:
    """When a login code was made; None when it is none of this token, or its time is over."""
    told, _, mac = code.rpartition(".")
    if len(code) > _CODE_CHARS_MAX or not hmac.compare_digest(_mac(token, told).encode(), as_bytes(mac)):
        return None
    expires_ms = int(told.partition(".")[0], 16) * 1000  # What the token's owner wrote.
    return None if now_ms >= expires_ms else expires_ms - CODE_S * 1000


def _mac(token: bytes, told: str) -> str:
    return hmac.digest(token, b"login " + as_bytes(told), "sha256").hex()


def as_bytes(said: str) -> bytes:
    """What somebody said, to be compared with a secret: it may be no text at all, and is wrong then."""
    return said.encode("utf-8", "surrogatepass")


class TokenFile:
    """The token of a running gateway: another one counts as soon as its file is replaced."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: tuple[int, int] | None = None
        self._token: bytes | None = None

    def token(self) -> bytes | None:
        """As it is now; None: there is none, or not one that is kept as it should be."""
        try:
            found = self.path.stat()
            seen = found.st_ino, found.st_mtime_ns
            if seen != self._seen:
                self._token, self._seen = read_token(self.path), seen
        except (OSError, ConfigError):
            self._token = self._seen = None
        return self._token
