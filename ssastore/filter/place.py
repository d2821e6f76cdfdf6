"""The interfaces at which a filter works, which may be deleted and made again while it runs."""

from __future__ import annotations

import socket

from ssastore.filter.bpf import FilterRefused
from ssastore.filter.kernel import Filter
from ssastore.filter.queues import Paces


class Place:
    """Attaches a filter at ``outside``, and its queues at ``inside`` if that is named."""

    def __init__(self, judging: Filter, outside: str, inside: str | None, paces: Paces) -> None:
        self._judging = judging
        self._outside = outside
        self._inside = inside
        self._paces = paces
        self._indices: tuple[int, int] = (0, 0)
        self._said = ""

    def attach(self) -> str:
        """Attach to both; the mode of XDP. Raises FilterRefused: as of ``Filter.attach`` and its queues."""
        mode = self._judging.attach(self._outside)
        if self._inside:
            self._judging.attach_queues(self._outside, self._inside, self._paces)
        self._indices = self._found()
        return mode

    def attach_again(self) -> str | None:
        """Attach to what is another interface of the same name than before; what was seen, if it is news.

        A deleted interface takes its programs along, and one that is made anew has none: without this it
        would let everything pass.  The filter goes on without queues while only ``inside`` is gone.
        """
        if (found := self._found()) == self._indices:
            return None
        try:
            told = self._attach_to(*found)
        except FilterRefused as error:
            # Tried again: it may be in the middle of being made.
            told = f"nothing is judged: {error}"
        else:
            self._indices = found
        if told == self._said:
            return None
        self._said = told
        return told

    def _attach_to(self, outside: int, inside: int) -> str:
        self._judging.detach()
        if not outside:
            return f"nothing is judged: {self._outside} is gone"
        mode = self._judging.attach(self._outside)
        if not self._inside:
            return f"judging at {self._outside} again ({mode} XDP)"
        if not inside:
            return f"nothing is queued: {self._inside} is gone"
        self._judging.attach_queues(self._outside, self._inside, self._paces)
        return f"judging at {self._outside} again ({mode} XDP, queues at {self._inside})"

    def _found(self) -> tuple[int, int]:
        known = {name: index for index, name in socket.if_nameindex()}
        return known.get(self._outside, 0), known.get(self._inside or "", 0)
