"""Handovers that leave out a step, and slices that do not move as a whole.

What the target compares before it becomes the owner would stop most of them: a handover that
is not complete is begun again.  So here nothing is compared; that by itself breaks nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ssastore.core import blobstore, filling, standing, taking
from ssastore.core.acceptor import Acceptor
from ssastore.core.custody import Custody
from ssastore.core.numbers import slice_number
from ssastore.core.pages import KIND_AT
from ssastore.core.place import Served
from ssastore.core.register import NO_BALLOT, decode_slot
from ssastore.core.standing import Standing
from ssastore.core.taking import Taker
from ssastore.core.totals import SliceTotal, unpack_totals
from ssastore.env import WriteTxn
from ssastore.messages import RECORD_KINDS, Kind, PutBlob, Total
from ssastore.sim.mutants import Mutant, Put

_SCENARIO = "move"


def _nothing_compared(put: Put) -> None:
    async def believe(self: Taker, copying: Any, running: Any) -> None:
        _, body = await self._ask(Total(copying.iid, copying.moves), ())
        totals: Mapping[int, SliceTotal] = unpack_totals(body)
        standings = {
            slice_number(copying.into, part): Standing(copying.h(part) + 1, total.cfg, copying.h(part))
            for part, total in totals.items()
        }
        last = partial(taking._raise_floors, plane=copying.into, totals=totals)
        await self._custody.fill(standings, last)

    put(Taker, "_compare", believe)


def no_seal(put: Put) -> None:
    """The source says that it is sealed, and votes on."""
    _nothing_compared(put)
    put(Custody, "seal", _sealed_in_word)


async def _sealed_in_word(self: Custody, number: int, h: int) -> bool:
    if not self.giving(number, h):
        return False
    await self.note_standings({number: self.standing(number)._replace(seal=h)})
    return True


def _seal_forgotten(put: Put) -> None:
    """A restart finds no seal."""
    decode = standing.decode_standing
    put(standing, "decode_standing", lambda value: decode(value)._replace(seal=0))


def _values_only(put: Put) -> None:
    """The target has values, and promises of nothing else."""
    _nothing_compared(put)

    def without_promises(entries: Any) -> Any:
        for key, value in entries.items():
            if value and key[KIND_AT] in RECORD_KINDS:
                slot = decode_slot(value, NO_BALLOT)
                slot.promise = slot.accepted
                entries[key] = b"".join(slot.encode())
        return entries

    _change_entries(put, without_promises)


def _marks_stay(put: Put) -> None:
    """Marks of shut buckets are not moved."""
    _nothing_compared(put)

    def without_marks(entries: Any) -> Any:
        return {key: value for key, value in entries.items() if key[KIND_AT] != Kind.SHUT}

    _change_entries(put, without_marks)


def _change_entries(put: Put, change: Callable[[Any], Any]) -> None:
    """Of every page that a target takes."""
    fill_range, fill_keys = filling.fill_range, filling.fill_keys

    def changed_range(txn: WriteTxn, **facts: Any) -> list[int]:
        return fill_range(txn, **(facts | {"merged": change(facts["merged"])}))

    def changed_keys(txn: WriteTxn, **facts: Any) -> None:
        fill_keys(txn, **(facts | {"entries": change(facts["entries"])}))

    put(taking, "fill_range", changed_range)
    put(taking, "fill_keys", changed_keys)


def _blobs_outside_the_seal(put: Put) -> None:
    """A sealed source takes blobs."""
    _nothing_compared(put)
    check = Served.check_blob

    def check_as_if_active(self: Served, request: Any) -> int:
        number = self.slice_at(request.iid)
        cfg = self.sealed.get(number)
        if cfg is None or not isinstance(request, PutBlob):
            return check(self, request)
        self.cfgs[number] = cfg
        try:
            return check(self, request)
        finally:
            del self.cfgs[number]

    def put_blob(self: Acceptor, request: PutBlob, txn: WriteTxn, body: Any, now_ms: int) -> Any:
        locator, cfg = self.served.check_blob(request), self.served.call_cfg_of(request.iid)
        return [blobstore.put_blob(request, locator, txn, body, now_ms), cfg], b""

    put(Served, "check_blob", check_as_if_active)
    put(Acceptor, "_put_blob", put_blob)


def _last_changes_before_the_seal(put: Put) -> None:
    """What is changed between the last changes and the seal stays at the source."""
    _nothing_compared(put)
    take, seal = Taker._take_all_changes, Taker._seal

    async def taken_before(self: Taker, copying: Any) -> None:
        await take(self, copying)
        await seal(self, copying)

    async def nothing(self: Taker, copying: Any) -> None:
        return

    put(Taker, "_seal", taken_before)
    put(Taker, "_take_all_changes", nothing)


MUTANTS = [
    Mutant("no-seal", "a source votes while its last changes are taken", no_seal, _SCENARIO),
    Mutant("seal-forgotten", "a restart finds no seal", _seal_forgotten, _SCENARIO),
    Mutant("values-without-promises", "a slice is moved without its promises", _values_only, _SCENARIO),
    Mutant("blobs-outside-the-seal", "a sealed source takes blobs", _blobs_outside_the_seal, _SCENARIO),
    Mutant("marks-stay", "marks of shut buckets are not moved", _marks_stay, _SCENARIO),
    Mutant(
        "changes-before-the-seal",
        "the last changes are read before the seal is durable",
        _last_changes_before_the_seal,
        _SCENARIO,
    ),
]

HARMLESS = [
    Mutant("totals-not-compared", "a target believes that it has everything", _nothing_compared, _SCENARIO),
]
