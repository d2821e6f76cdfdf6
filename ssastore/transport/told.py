"""What a worker says of requests whose sender wants to know: a line in its log, and the last in Report.

Of a request that is told (``core.requestid``) only; all others cost one comparison. Bounded in number and
in a second, as anybody with a key may ask for it.
"""

from __future__ import annotations

import logging
from collections import deque
from time import perf_counter
from typing import Any

from ssastore.core.requestid import name_of, upper_of

log = logging.getLogger(__name__)

KEPT = 256
"Parts of requests in Report: a PUT with five replicas has about ten at each node."
A_SECOND = 128
"More are not told: else a client could fill the disk with lines."


class Told:
    """The last parts of told requests at this worker."""

    def __init__(self) -> None:
        self.parts: deque[list[Any]] = deque(maxlen=KEPT)
        """Of each: id, operation, IID in hexadecimal, status, its begin (ms since 1970, by this host's
        clock), microseconds that it took."""
        self._second = 0
        self._count = 0

    def note(self, part: list[Any]) -> None:
        """A part was answered."""
        name, operation, iid, status, began_ms, took_us = part
        if began_ms // 1000 != self._second:
            self._second, self._count = began_ms // 1000, 0
        self._count += 1
        if self._count <= A_SECOND:
            self.parts.append(part)
            fields = {"id": name, "op": operation, "iid": iid, "status": status, "us": took_us}
            log.info("request.told", extra=fields)


class Telling(dict[int, tuple[Any, int, float]]):
    """The told requests of a connection that are not answered yet, by request id."""

    def begin(self, request_id: int, request: Any, now_ms: int) -> None:
        """One has come."""
        # The loop's own clock counts in milliseconds where the loop is uvloop.
        self[request_id] = request, now_ms, perf_counter()

    def end(self, told: Told, request_id: int, status: int) -> None:
        """A request is answered; no error if it is none that is told."""
        if (found := self.pop(request_id, None)) is not None:
            request, began_ms, began_s = found
            took_us = round((perf_counter() - began_s) * 1e6)
            name, operation = name_of(upper_of(request_id)), type(request).__name__
            told.note([name, operation, f"{request.iid:016x}", status, began_ms, took_us])
