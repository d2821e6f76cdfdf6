"""What the background work on one environment uses."""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass

import msgpack

from ssastore.core.acceptor import Acceptor
from ssastore.core.buckets import Buckets
from ssastore.core.caller import Caller
from ssastore.core.coordinator import MATE_BUDGET_MS, Coordinator
from ssastore.core.floors import slice_of_key
from ssastore.core.lifecycle import DAY_MS
from ssastore.core.names import Names
from ssastore.core.numbers import WHOLE_SLICES, numbered_slice, part_of_slice, slice_number
from ssastore.core.records import in_plane, just_below, slice_range
from ssastore.core.registers import Registers
from ssastore.core.settle import Settler
from ssastore.core.survey import Row
from ssastore.core.suspects import Suspects
from ssastore.env import Clock, Store
from ssastore.errors import BadFrame, OutcomeUnknown, SsaStoreError, Unavailable
from ssastore.keyspace import ANY_TAIL, GROUPS
from ssastore.limits import BLOB_GRACE_MS, TOMBSTONE_KEPT_MS
from ssastore.messages import Recheck, References, Survey, SurveySlices
from ssastore.wire import Body, Header


@dataclass(frozen=True, slots=True)
class UpkeepRules:
    """When background work is due, and how much of the machine it may take."""

    tombstone_kept_ms: int = TOMBSTONE_KEPT_MS
    blob_grace_ms: int = BLOB_GRACE_MS
    scrub_bytes_per_s: int = 32 << 20
    scrub_first_s: float = 10.0
    "From the start of a worker to its first scrub pass: what it missed while it was down is found then."
    scrub_every_s: float = 24 * 3600.0
    lifecycle_day_ms: int = DAY_MS
    "What a day of lifecycle rules is; another one than usual is for tests."


@dataclass(frozen=True, slots=True)
class Surveyed:
    """What another plane said of a page of its survey; ``rows`` only when they were asked for."""

    last: bytes
    count: int
    digest: bytes
    is_cut: bool
    rows: list[Row]


class Tools:
    """Store, acceptor and mates of one worker."""

    def __init__(
        self,
        *,
        store: Store,
        acceptor: Acceptor,
        clock: Clock,
        caller: Caller,
        registers: Registers,
        coordinator: Coordinator,
        settler: Settler,
        rules: UpkeepRules,
        buckets: Buckets,
    ) -> None:
        self.store = store
        self.acceptor = acceptor
        self.clock = clock
        self.caller = caller
        self.registers = registers
        self.coordinator = coordinator
        self.settler = settler
        self.rules = rules
        self.buckets = buckets
        self.names = Names()
        self._suspects = Suspects(lambda: asyncio.get_running_loop().time())

    def replicas_of(self, stored_key: bytes) -> int:
        """How many planes the group of a stored key has."""
        return self.acceptor.served.count_of(int.from_bytes(stored_key[:2], "big") & (GROUPS - 1))

    async def survey(self, number: int, after: bytes, end: bytes, *, listing: bool) -> Surveyed:
        """A page of a slice at its owner (``core.survey``). Raises SsaStoreError."""
        if number >= WHOLE_SLICES:
            # Who is asked may not have heard yet that it is a part.
            first, stop = slice_range(slice_number(0, part_of_slice(number)))
            after, end = after or just_below(first), end or just_below(stop)
        return await self._survey(numbered_slice(number).first | ANY_TAIL, after, end, listing=listing)

    async def survey_between(self, iid: int, first: bytes, last: bytes) -> list[Row]:
        """Entries of the slice that an IID is in, from one key (as in plane 0) to another. SsaStoreError."""
        return (await self._survey(iid, just_below(first), last, listing=True)).rows

    async def _survey(self, iid: int, after: bytes, end: bytes, *, listing: bool) -> Surveyed:
        header, body = await self.ask_mate(Survey(iid, after, end, listing))
        if tuple(map(type, header[2:])) != (bytes, int, bytes, bool):
            raise BadFrame("a reply to Survey has other fields")
        rows: list[Row] = []
        if listing:
            try:
                rows = [
                    (key, witness) for key, witness in msgpack.unpackb(body, max_ext_len=0, max_map_len=0)
                ]
            except (ValueError, TypeError) as error:
                raise BadFrame("a reply to Survey has another body") from error
            if any(type(key) is not bytes or type(witness) is not bytes for key, witness in rows):
                raise BadFrame("a reply to Survey has other rows")
        _, _, last, count, digest, is_cut = header
        if is_cut and last <= after:
            raise BadFrame("a page of a survey does not get on")
        return Surveyed(last, count, digest, is_cut, rows)

    async def witness(self, stored_key: bytes, plane: int) -> bytes | None:
        """What another plane has for a stored key (``core.survey``). Raises SsaStoreError.

        It is asked for nothing else: of many keys a page might end before the one.
        """
        key = in_plane(stored_key, 0)
        slice16 = slice_of_key(in_plane(stored_key, plane))
        page = await self.survey(slice16, just_below(key), key, listing=True)
        return next((witness for found, witness in page.rows if found == key), None)

    async def survey_slices(self, slice16s: list[int]) -> dict[int, tuple[int, bytes]]:
        """(count, digest) of those of a mate's slices that it serves together and that are small.

        Nothing at all when it does not answer: what is not told here is asked one by one.
        """
        listed = struct.pack(f">{len(slice16s)}H", *slice16s)
        try:
            _, body = await self.ask_mate(SurveySlices(slice16s[0] << 48 | ANY_TAIL, listed))
            rows = msgpack.unpackb(body, max_ext_len=0, max_map_len=0)
            return {slice16: (count, digest) for slice16, count, digest in rows}
        except (SsaStoreError, ValueError, TypeError):
            return {}

    async def ask_mate(self, message: Survey | SurveySlices | References | Recheck) -> tuple[Header, Body]:
        """The reply of the worker of another plane. Raises SsaStoreError."""
        if self._suspects.is_suspect(message.iid):
            raise Unavailable("the node of this plane did not answer lately")
        try:
            reply = await self.caller.call(message, message.iid, within_ms=MATE_BUDGET_MS)
        except (Unavailable, OutcomeUnknown):
            self._suspects.failed(message.iid)
            raise
        self._suspects.answered(message.iid)
        return reply
