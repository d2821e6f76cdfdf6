"""One state of a slice out of the states of several planes. Pure.

What a lost acceptor may have taken part in choosing is held by at least one of F+1
other planes, since every majority meets them.  So the highest of everything is safe to
begin with, and nothing less is:

    record (slot)     highest accepted ballot with its value, highest promise
    mark of a bucket  the latest step of the latest deletion, and of its quota
    blob, reference   all of them; a reference's latest time
    floor             the highest

It may be more than what was chosen: a value that only one plane had accepted counts as
accepted by the rebuilt one too, exactly as if its Accept had arrived there.
"""

from __future__ import annotations

from collections.abc import Sequence

from ssastore.core.pages import END_KIND, KIND_AT, Rows
from ssastore.core.register import NO_BALLOT, decode_slot
from ssastore.core.shuts import merge_marks
from ssastore.errors import CorruptObject
from ssastore.messages import RECORD_KINDS, Kind
from ssastore.wire import Body


def merge_rows(pages: Sequence[Rows], horizon: bytes | None) -> Rows:
    """The merged rows up to ``horizon``, in key order; None is no bound.

    Raises:
        CorruptObject: a row that no store of this version writes.
    """
    keys = sorted({key for rows in pages for key in rows if horizon is None or key <= horizon})
    return {key: merge_values(key[KIND_AT], [rows[key] for rows in pages if key in rows]) for key in keys}


def merge_values(kind: int, values: Sequence[Body]) -> Body:
    """What several planes hold under one key, as one value. Raises CorruptObject."""
    if kind in RECORD_KINDS:
        return _merge_slots(values)
    if kind == Kind.SHUT:
        return merge_marks(values)
    if kind == Kind.REF:
        return max(values, key=lambda value: bytes(value[:8]))
    if kind == END_KIND:
        return max(map(bytes, values))
    if kind == Kind.BLOB:
        return values[0]
    raise CorruptObject(f"a record of the unknown kind {kind:#x} cannot be merged")


def _merge_slots(values: Sequence[Body]) -> bytes:
    slots = [decode_slot(value, NO_BALLOT) for value in values]
    newest = max(slots, key=lambda slot: slot.accepted)
    newest.promise = max(slot.seen for slot in slots)
    return b"".join(newest.encode())
