"""Stored keys that were found to fail their checksum and wait for repair. Pure."""

from __future__ import annotations

from ssastore.limits import ROTTEN_KEYS_MAX


class RottenKeys:
    """Each once, in the order they were found; bounded, since a scrub finds again what did not fit."""

    def __init__(self) -> None:
        self._keys: dict[bytes, None] = {}

    def add(self, stored_key: bytes) -> None:
        """Note a key; none at all (damage that is no record's) is left to the store's own errors."""
        if stored_key and len(self._keys) < ROTTEN_KEYS_MAX:
            self._keys.setdefault(stored_key)

    def take(self) -> list[bytes]:
        """All of them; they are to be added again if they are not repaired."""
        taken, self._keys = list(self._keys), {}
        return taken

    def __len__(self) -> int:
        return len(self._keys)
