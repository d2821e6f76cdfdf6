"""Files that are read again when they change, while a process runs."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Sequence

from ssastore.errors import ConfigError
from ssastore.limits import FILES_LOOKED_AT_MS

log = logging.getLogger(__name__)

_State = tuple[int, int, int] | None


class FileWatch:
    """Looks at some files that belong together.

    What does not fit together is most likely being replaced, one file after the other: what was read last
    goes on, and the next look may find them whole.
    """

    def __init__(self, what: str, paths: Sequence[str], reload: Callable[[], object]) -> None:
        """``reload`` raises ConfigError when it leaves all as it was; what it returns goes into the log."""
        self._what = what
        self._paths = paths
        self._reload = reload
        self._seen: list[_State] = self._states()

    async def keep(self, *, every_ms: int = FILES_LOOKED_AT_MS) -> None:
        """Look again and again; runs until it is cancelled."""
        while True:
            await asyncio.sleep(every_ms / 1000)
            self.look()

    def look(self) -> None:
        """Read the files again if one has changed since they were looked at last."""
        found = self._states()
        if found == self._seen:
            return
        self._seen = found
        try:
            shown = self._reload()
        except ConfigError as error:
            log.error("files.not_read_again", extra={"what": self._what, "reason": str(error)})
        else:
            extra = shown if isinstance(shown, dict) else {}
            log.info("files.read_again", extra={"what": self._what, **extra})

    def read_again(self) -> None:
        """Somebody says that they have changed."""
        self._seen = []
        self.look()

    def _states(self) -> list[_State]:
        return [_state_of(path) for path in self._paths]


def _state_of(path: str) -> _State:
    try:
        found = os.stat(path)
    except OSError:
        return None
    # Also who may read it: a file that was refused may be one that is chowned a moment later.
    return found.st_ino, found.st_size, found.st_ctime_ns
