"""One request against one environment, in one transaction. Pure.

``Acceptor.read`` and ``Acceptor.write`` check, in this order and inside the
transaction: the plane and locator of the request's IID against its name
(MISDIRECTED), then the IID's slice against what is owned (NOT_MINE) and votes here
(SILENT), then the request's cfg (STALE, BEHIND), then the request itself.  The reply
may leave when the commit is durable, which is the store's promise.

    place.py       the checks of IID and name      votes.py      records: slots of registers
    shuts.py       marks of buckets                 blobstore.py  blobs and references
    floors.py      promises of what was collected  ceiling.py    the highest promise of all
    survey.py      what a slice holds, in short
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, KeysView
from functools import lru_cache
from typing import Any

import msgpack

from ssastore.core import blobstore
from ssastore.core.ceiling import Ceiling
from ssastore.core.doubts import Doubts
from ssastore.core.holds import ballot_of
from ssastore.core.listing import scan_page, slice_holds
from ssastore.core.numbers import covers, locators_of_slice, numbered_slice, slice_name, slice_number
from ssastore.core.pages import pull_page
from ssastore.core.place import Served
from ssastore.core.records import in_plane, record_key, slice_range
from ssastore.core.register import Ballots, is_far_ahead
from ssastore.core.replies import Refusal, Reply
from ssastore.core.shuts import set_hold, set_shut
from ssastore.core.standing import unpack_stands
from ssastore.core.survey import EMPTY, SurveyPage, occupied, survey
from ssastore.core.votes import Votes
from ssastore.env import ReadTxn, WriteTxn
from ssastore.errors import CorruptObject
from ssastore.keyspace import plane_of
from ssastore.limits import SURVEY_BYTES_MAX
from ssastore.messages import (
    Accept,
    Changes,
    Collect,
    Copy,
    CountSlices,
    Delete,
    Fence,
    Fetch,
    Get,
    GetBlob,
    Hold,
    Mark,
    Prepare,
    Pull,
    Put,
    PutBlob,
    Read,
    Recheck,
    References,
    Scan,
    Seal,
    Shut,
    Status,
    Survey,
    SurveySlices,
    Total,
)

WRITES = frozenset(
    (Put.TYPE, Delete.TYPE, Shut.TYPE, PutBlob.TYPE, Prepare.TYPE, Accept.TYPE, Collect.TYPE, Hold.TYPE)
)
NODE_ONLY = frozenset(
    (
        Prepare.TYPE,
        Accept.TYPE,
        Collect.TYPE,
        Survey.TYPE,
        SurveySlices.TYPE,
        References.TYPE,
        Recheck.TYPE,
        Fence.TYPE,
        Pull.TYPE,
        Mark.TYPE,
        Copy.TYPE,
        Changes.TYPE,
        Seal.TYPE,
        Total.TYPE,
        CountSlices.TYPE,
        Fetch.TYPE,
        Hold.TYPE,
    )
)
"Requests that only the node role may send."


class Acceptor:
    """The requests of one worker's environment.

    Args:
        replicas: planes of all groups that nothing else was said of.
        worker: index of this worker; ``workers`` is how many share the node by lane.
    """

    def __init__(self, *, replicas: int, worker: int, workers: int, ballots: Ballots) -> None:
        self.served = Served(replicas=replicas, worker=worker, workers=workers)
        self.ceiling = Ceiling()
        self.doubts = Doubts()
        "Copies here that are to be looked at (``core.mend``)."
        self.votes = votes = Votes(self.served, ballots, self.ceiling)
        self.write_count = 0
        "Writes that were tried; when it stands still, nothing of the slices has changed."
        self._reads: dict[int, Callable[[Any, ReadTxn], Reply]] = {
            Get.TYPE: votes.get,
            Read.TYPE: votes.read,
            Scan.TYPE: self._scan,
            GetBlob.TYPE: self._get_blob,
            Survey.TYPE: self._survey,
            SurveySlices.TYPE: self._survey_slices,
            References.TYPE: self._references,
            Pull.TYPE: self._pull,
            Recheck.TYPE: self._recheck,
        }
        self._writes: dict[int, Callable[[Any, WriteTxn, bytes | memoryview, int], Reply]] = {
            Put.TYPE: votes.put,
            Delete.TYPE: lambda request, txn, body, now_ms: votes.delete(request, txn, now_ms),
            Shut.TYPE: self._shut,
            PutBlob.TYPE: self._put_blob,
            Prepare.TYPE: lambda request, txn, body, now_ms: votes.prepare(request, txn, now_ms),
            Accept.TYPE: votes.accept,
            Collect.TYPE: lambda request, txn, body, now_ms: votes.collect(request, txn),
            Hold.TYPE: self._hold,
        }

    @property
    def replicas(self) -> int:
        """Planes that hold data."""
        return self.served.replicas

    def activate(self, slice16s: set[int], cfg: int = 1) -> None:
        """Own these /80 slices, and vote for all of them; other lanes than ours are left out."""
        self.served.own(slice16s)
        for slice16 in self.served.owned:
            self.served.vote(slice16, cfg)

    @property
    def active(self) -> KeysView[int]:
        """The slices, by number, that this worker votes for."""
        return self.served.active

    @property
    def owned(self) -> frozenset[int]:
        """The slices, by number, that are this worker's."""
        return self.served.owned

    def read(self, request: Any, txn: ReadTxn) -> Reply:
        """Answer a read. Raises Refusal, CorruptObject."""
        try:
            return self._reads[request.TYPE](request, txn)
        except CorruptObject as error:
            self.doubts.add(error.key)
            raise

    def write(self, request: Any, txn: WriteTxn, body: bytes | memoryview, now_ms: int) -> Reply:
        """Decide and apply a write. Raises Refusal (nothing written), StoreFull, CorruptObject."""
        self.write_count += 1
        try:
            return self._writes[request.TYPE](request, txn, body, now_ms)
        except CorruptObject as error:
            self.doubts.add(error.key)
            raise

    def _scan(self, request: Scan, txn: ReadTxn) -> Reply:
        locator, cfg = self.served.check_shard(request), self.served.cfg_of(request.iid)
        self.served.check_count(request)
        if request.shards:
            fields, page = scan_page(txn, record_key(locator, request.kind, request.bucket, b""), request)
            return [*fields, cfg], page
        found = slice_holds(txn, self.served.slice_at(request.iid), request.kind, request.bucket)
        return [found, cfg, self.served.last_locator(request.iid)], b""

    def _get_blob(self, request: GetBlob, txn: ReadTxn) -> Reply:
        locator = self.served.check_blob(request)
        self.served.check_count(request)
        return blobstore.get_blob(request, locator, txn)

    def _references(self, request: References, txn: ReadTxn) -> Reply:
        return blobstore.list_references(request, self.served.check_blob(request), txn)

    def _survey(self, request: Survey, txn: ReadTxn) -> Reply:
        page = survey(txn, self.served.check_slice(request.iid), request.after, request.end)
        self._note_rotten(page)
        rows = msgpack.packb([list(row) for row in page.rows]) if request.listing else b""
        return [page.last, page.count, page.digest, page.is_cut], rows

    def _survey_slices(self, request: SurveySlices, txn: ReadTxn) -> Reply:
        self.served.check_slice(request.iid)
        wanted = struct.unpack(f">{len(request.slices) // 2}H", request.slices)
        served = sorted(self.served.active & set(wanted))
        holding = occupied(txn, served)
        rows: list[list[Any]] = [[slice16, 0, EMPTY] for slice16 in served if slice16 not in holding]
        size = 0
        for slice16 in sorted(holding):
            if size >= SURVEY_BYTES_MAX:
                break
            page = survey(txn, slice16, b"", b"")
            self._note_rotten(page)
            size += page.size
            if not page.is_cut:
                rows.append([slice16, page.count, page.digest])
        return [], msgpack.packb(rows)

    def _note_rotten(self, page: SurveyPage) -> None:
        for stored_key in page.rotten:
            self.doubts.add(stored_key)

    def _recheck(self, request: Recheck, txn: ReadTxn) -> Reply:
        number = self.served.check_slice(request.iid)
        stored_key = in_plane(request.key, plane_of(request.iid))
        first, end = slice_range(number)
        if not first <= stored_key < end:
            raise Refusal(Status.MISDIRECTED, "the key is not of the slice that it was sent to")
        self.doubts.add(stored_key)
        try:
            return [txn.get(stored_key) is not None], b""
        except CorruptObject:
            return [False], b""

    def _put_blob(self, request: PutBlob, txn: WriteTxn, body: bytes | memoryview, now_ms: int) -> Reply:
        locator, cfg = self.served.check_blob(request), self.served.cfg_of(request.iid)
        self.served.check_count(request)
        existed = blobstore.put_blob(request, locator, txn, body, now_ms)
        return [existed, cfg], b""

    def _shut(self, request: Shut, txn: WriteTxn, body: bytes | memoryview, now_ms: int) -> Reply:
        self.served.check_shard(request)
        cfg = self.served.cfg_of(request.iid)
        self.served.check_count(request)
        set_shut(request, self.served.mark_locator(request.iid, request.shards), txn)
        return [cfg, self.served.last_locator(request.iid)], b""

    def _hold(self, request: Hold, txn: WriteTxn, body: bytes | memoryview, now_ms: int) -> Reply:
        self.served.check_shard(request)
        cfg = self.served.cfg_of(request.iid)
        self.served.check_count(request)
        if is_far_ahead(ballot_of(request.hold), now_ms):
            raise Refusal(Status.BAD_REQUEST, "a ballot of more than a day ahead")
        set_hold(request, self.served.mark_locator(request.iid, request.shards), txn)
        return [cfg], b""

    def _pull(self, request: Pull, txn: ReadTxn) -> Reply:
        plane = self.served.check_plane(request.iid)
        stands = unpack_stands(request.stands)
        for part, cfg in stands:
            number = slice_number(plane, part)
            iid = numbered_slice(number).first
            if not covers(self.served.slice_at(iid), number):
                raise Refusal(Status.SILENT, f"slice {slice_name(number)} is not all in one slice here")
            self.served.check_cfg(iid, cfg)
        page = pull_page(txn, plane, [part for part, _ in stands], request.after)
        return [page.truncated, page.last, page.checksum], page.body


def encode_coverage(active: Iterable[int], epoch: int) -> bytes:
    """Body of a COVERAGE frame: msgpack [epoch, runs of first and end of 16-bit slice numbers].

    Where slices are split a third element has runs of first and end of locators.
    """
    return _encode_coverage(frozenset(active), epoch)


@lru_cache(maxsize=64)
def _encode_coverage(active: frozenset[int], epoch: int) -> bytes:
    joined: list[list[int]] = []
    for first, end in sorted(map(locators_of_slice, active)):
        if joined and joined[-1][1] == first:
            joined[-1][1] = end
        else:
            joined.append([first, end])
    runs: list[list[int]] = []
    rest: list[list[int]] = []
    for first, end in joined:
        whole, after = (first + 0xFFFF) >> 16, end >> 16
        if whole >= after:
            rest.append([first, end])
            continue
        runs.append([whole, after])
        rest += [run for run in ([first, whole << 16], [after << 16, end]) if run[0] < run[1]]
    packed: bytes = msgpack.packb([epoch, runs, rest] if rest else [epoch, runs])
    return packed
