"""Stored keys of which the copy here may be bad: rotten, or said to be by another plane. Pure."""

from __future__ import annotations

from ssastore.limits import DOUBTS_MAX


class Doubts:
    """Each once, in the order they came up; bounded, since a scrub finds again what did not fit."""

    def __init__(self) -> None:
        self._keys: dict[bytes, None] = {}

    def add(self, stored_key: bytes) -> None:
        """Note a key; none at all (damage that is no record's) is left to the store's own errors."""
        if stored_key and len(self._keys) < DOUBTS_MAX:
            self._keys.setdefault(stored_key)

    def discard(self, stored_key: bytes) -> None:
        """It was looked at."""
        self._keys.pop(stored_key, None)

    def take(self) -> list[bytes]:
        """All of them: they are about to be looked at."""
        taken, self._keys = list(self._keys), {}
        return taken

    def __len__(self) -> int:
        return len(self._keys)
