"""SipHash-2-4 over 24 bytes: the one hash of all rules, and the keys that go into it.

SipHash is the hash of the kernel's own tables, cheap for three words, and cannot be inverted without its key
(Aumasson and Bernstein, SipHash: a fast short-input PRF, 2012).  The message is three big-endian words:

    the client's /64   |   a letter (8 bits), the epoch (56 bits)   |   a word that the letter explains

    L   a locator: the number of the choice
    T   a tail: the top 32 bits of the IID, then zeros
    P   a proof of work: the whole IID, whose tail is the nonce
    K   a token: 0 for its first half, 1 for its second
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct

from siphash24 import siphash24

from ssastore.errors import ConfigError

KEY_BYTES = 16
PUBLIC_KEY = bytes(KEY_BYTES)
"The key of services that publish none."

_MESSAGE = Struct(">QQQ")


def hash_of(key: bytes, source: int, letter: str, epoch: int, word: int) -> int:
    """SipHash-2-4 (its 8 bytes read as little-endian) for ``source``, the 64 bits of a client's prefix."""
    message = _MESSAGE.pack(source, ord(letter) << 56 | epoch, word)
    return int.from_bytes(siphash24(message, key=key).digest(), "little")


def token_of(secret: bytes, source: int) -> bytes:
    """What the clients in one /64 are given of a service's secret: 16 bytes, which reveal nothing of it."""
    return b"".join(hash_of(secret, source, "K", 0, half).to_bytes(8, "little") for half in (0, 1))


def token_from_text(text: str) -> bytes:
    """A token as ``ssastore rule token`` prints it. Raises ConfigError, without the text."""
    try:
        token = bytes.fromhex(text)
    except ValueError:
        token = b""
    if len(token) != KEY_BYTES:
        raise ConfigError(f"the token of a rule is {2 * KEY_BYTES} hexadecimal digits")
    return token


@dataclass(frozen=True, slots=True)
class ClientKeys:
    """What one client knows: the service's public key, and its own token for keyed rules (16 bytes each)."""

    public: bytes = PUBLIC_KEY
    token: bytes = b""


@dataclass(frozen=True, slots=True)
class ServiceKeys:
    """What a check knows: the public keys and the secrets in use, the newest first (16 bytes each).

    Two of each while one takes the place of another.
    """

    public: tuple[bytes, ...] = (PUBLIC_KEY,)
    secrets: tuple[bytes, ...] = ()

    def tokens(self, source: int) -> tuple[bytes, ...]:
        """The tokens of a client's /64."""
        return tuple(token_of(secret, source) for secret in self.secrets)
