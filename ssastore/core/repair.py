"""Putting back what one plane has lost, from what the others hold. Coroutines.

A rotten record is never answered for: while it is rotten its plane is silent about the
name, as if its messages were lost.  It is replaced by what a round over the other
planes gives, under a ballot above the ceiling (``core.settle``, ADR 0009).  Blobs come
from any plane by their digest.  With one replica there is nobody to ask.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial

from ssastore.core.blobstore import UNKNOWN_REFERENCE, Reference, adopt, is_wrong_blob
from ssastore.core.content import Blobs
from ssastore.core.records import (
    BOOKKEEPING_FIRST,
    CEILING_KEY,
    FLOORS_FIRST,
    MARKS_END,
    MARKS_FIRST,
    STANDINGS_END,
    STANDINGS_FIRST,
    TOMBSTONES_END,
    TOMBSTONES_FIRST,
    TOTALS_END,
    TOTALS_FIRST,
    reference_key,
    split_place,
)
from ssastore.core.register import make_ballot
from ssastore.core.shuts import take_mark
from ssastore.core.standing import DAMAGED, write_standing
from ssastore.core.sweep import Sweeper
from ssastore.core.tools import Tools
from ssastore.env import WriteTxn
from ssastore.errors import CorruptObject, ObjectNotFound, SsaStoreError, Unavailable
from ssastore.keyspace import position_of_blob
from ssastore.messages import RECORD_KINDS, Kind

log = logging.getLogger(__name__)

_U32_MAX = 0xFFFF_FFFF


@dataclass(slots=True)
class RepairCounts:
    """What was repaired since the start, and what could not be yet."""

    repaired: int = 0
    failed: int = 0


class Repairer:
    """Repairs one environment."""

    def __init__(self, tools: Tools, blobs: Blobs, sweeper: Sweeper) -> None:
        self._tools = tools
        self._blobs = blobs
        self._sweeper = sweeper
        self.counts = RepairCounts()

    async def repair(self, stored_key: bytes) -> str:
        """Repair one rotten record; why it could not be done, empty when it is good now."""
        try:
            await self._repair(stored_key)
        except SsaStoreError as error:
            self.counts.failed += 1
            log.error("record.not_repaired", extra={"key": stored_key[:64].hex(), "reason": str(error)})
            return _reason(error, self._tools.replicas_of(stored_key))
        self.counts.repaired += 1
        log.warning("record.repaired", extra={"key": stored_key[:64].hex()})
        return ""

    def is_rotten(self, stored_key: bytes) -> bool:
        """Whether what is stored here fails its checksum, or is a blob of another digest."""
        with self._tools.store.read() as txn:
            try:
                txn.get(stored_key)
            except CorruptObject:
                return True
            is_blob = stored_key[4:5] == bytes([Kind.BLOB]) and stored_key < BOOKKEEPING_FIRST
            return is_blob and is_wrong_blob(txn, stored_key)

    async def _repair(self, stored_key: bytes) -> None:
        if stored_key >= BOOKKEEPING_FIRST:
            await self._repair_bookkeeping(stored_key)
            return
        locator, kind, rest = split_place(stored_key)
        if kind == Kind.BLOB and position_of_blob(rest) >> 32 == locator & 0x0FFFFFFF:
            await self.fetch_blob(stored_key)
        elif kind == Kind.REF:
            await self._refetch_reference(stored_key)
        elif kind == Kind.SHUT:
            await self._refetch_mark(stored_key)
        elif kind in RECORD_KINDS and self._tools.names.of_stored(stored_key) is not None:
            await self.rebuild_record(stored_key)
        else:
            # No request can reach it: its key is what is damaged. The name that it had is missing here, which
            # a comparison with the other planes finds.
            await self._tools.store.submit(lambda txn: _drop_rotten(txn, stored_key))

    # -- records ------------------------------------------------------------------------------------

    async def rebuild_record(self, stored_key: bytes) -> None:
        """Give a rotten or missing record what the others know of it. Raises SsaStoreError."""
        tools = self._tools
        name = tools.names.of_stored(stored_key)
        if name is None:
            raise CorruptObject("a stored key hashes to another place", stored_key)
        if tools.replicas_of(stored_key) == 1:
            raise CorruptObject("there is one replica: nobody else knows what was lost", stored_key)
        planes = tools.coordinator.planes_of(name)
        own, ceiling = stored_key[0] >> 4, tools.acceptor.ceiling.top
        ballot, value = await tools.settler.rebuild(name.label, planes, own, ceiling)
        now_ms = tools.clock.now_ms()
        votes = tools.acceptor.votes
        is_installed = await tools.store.submit(
            lambda txn: votes.install(stored_key, txn, ballot, value, now_ms), size=len(value)
        )
        if not is_installed:
            raise Unavailable("the name was written meanwhile")

    async def _refetch_mark(self, stored_key: bytes) -> None:
        """A mark of a shut bucket: the latest that F+1 others know."""
        tools = self._tools
        marks: list[bytes] = []
        answered = 0
        for plane in range(tools.replicas_of(stored_key)):
            if plane != stored_key[0] >> 4:
                try:
                    mark = await tools.witness(stored_key, plane)
                except Unavailable:
                    continue
                answered += 1
                marks += [] if mark is None else [mark]
        if answered <= tools.replicas_of(stored_key) // 2:
            raise Unavailable("too few planes can tell whether the bucket is shut")

        def change(txn: WriteTxn) -> None:
            if not marks:
                _drop_rotten(txn, stored_key)
            for mark in marks:
                take_mark(txn, stored_key, mark)

        await tools.store.submit(change)

    # -- blobs --------------------------------------------------------------------------------------

    async def fetch_blob(
        self, stored_key: bytes, references: list[Reference] | None = None, *, is_here: bool = False
    ) -> None:
        """Take references to a blob, and it itself from whichever plane has it. Raises SsaStoreError.

        ``is_here``: the blob is, and only references are not.
        """
        locator, digest = int.from_bytes(stored_key[:4], "big"), stored_key[5:]
        if self._tools.replicas_of(stored_key) == 1:
            raise CorruptObject("there is one replica: nobody else has this blob", stored_key)
        content = None if is_here else await self._blobs.get(digest)
        await self._tools.store.submit(
            lambda txn: adopt(txn, locator, digest, content, references or []), size=len(content or b"")
        )

    async def _refetch_reference(self, stored_key: bytes) -> None:
        """A reference, of which the key tells no more than a hash: whoever has the same knows it.

        When all other planes say that they have none, no majority was ever told of it, or it was swept there;
        it then gets a grace time of its own.  Until all have answered, it stays.
        """
        tools = self._tools
        locator, digest = int.from_bytes(stored_key[:4], "big"), stored_key[5:37]
        if tools.replicas_of(stored_key) == 1:
            raise CorruptObject("there is one replica: nobody else has this reference", stored_key)
        for plane in range(tools.replicas_of(stored_key)):
            if plane == locator >> 28:
                continue
            _, references = await self._sweeper.references_at(digest, plane)
            same = [ref for ref in references if reference_key(locator, digest, ref.name) == stored_key]
            if same:
                await tools.store.submit(
                    partial(adopt, locator=locator, digest=digest, body=None, references=same)
                )
                return
        now_ms = tools.clock.now_ms()

        def change(txn: WriteTxn) -> None:
            mark = reference_key(locator, digest, UNKNOWN_REFERENCE)
            txn.put(mark, now_ms.to_bytes(8, "big"), UNKNOWN_REFERENCE)
            txn.delete(stored_key)

        await tools.store.submit(change)

    # -- bookkeeping --------------------------------------------------------------------------------

    async def _repair_bookkeeping(self, stored_key: bytes) -> None:
        ceiling = self._tools.acceptor.ceiling

        def change(txn: WriteTxn) -> None:
            try:
                txn.get(stored_key)
            except CorruptObject:
                if stored_key == CEILING_KEY:
                    ceiling.restore(txn)
                elif stored_key.startswith(FLOORS_FIRST):
                    # Nothing that was collected had promised more than the ceiling.
                    txn.put(stored_key, make_ballot(ceiling.top, _U32_MAX, _U32_MAX), use_reserve=True)
                elif TOMBSTONES_FIRST <= stored_key < TOMBSTONES_END:
                    txn.delete(stored_key)  # The tombstone itself is found by a scrub.
                elif STANDINGS_FIRST <= stored_key < STANDINGS_END:
                    # The next start rebuilds the slice from its mates.
                    write_standing(txn, int.from_bytes(stored_key[len(STANDINGS_FIRST) :], "big"), DAMAGED)
                elif MARKS_FIRST <= stored_key < MARKS_END:
                    txn.delete(stored_key)  # It is told anew, and others have it too.
                elif TOTALS_FIRST <= stored_key < TOTALS_END:
                    txn.delete(stored_key)  # The slice is counted again.
                else:
                    raise

        await self._tools.store.submit(change)


def _reason(error: SsaStoreError, replicas: int) -> str:
    """Why a repair failed, in a few words that many keys have in common; the log has them all."""
    if replicas == 1:
        return "there is one replica: nobody else has it"
    if isinstance(error, Unavailable | ObjectNotFound | CorruptObject):
        return "too few of its other copies can be read"
    return f"{type(error).__name__}: it could not be written"


def _drop_rotten(txn: WriteTxn, stored_key: bytes) -> None:
    try:
        txn.get(stored_key)
    except CorruptObject:
        txn.delete(stored_key)
