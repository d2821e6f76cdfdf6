"""Blobs of one environment: immutable, named by their digest, with the references to them. Pure.

A reference says for which record a blob was stored, and when last.  It is what keeps the
blob: it is dropped when it is older than the grace time and its record names the blob no
more (``core.sweep``), and the blob goes with its last reference.  The empty reference is that
of content stored for its own sake, by digest: nobody can delete it, so it stays.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgpack
from blake3 import blake3

from ssastore.core.records import blob_key, reference_key, references_range
from ssastore.core.replies import Refusal, Reply
from ssastore.core.survey import walk
from ssastore.env import ReadTxn, WriteTxn
from ssastore.errors import CorruptObject
from ssastore.limits import REFERENCES_MAX
from ssastore.messages import GetBlob, PutBlob, References, Status

EMPTY_DIGEST: bytes = blake3(b"").digest()

UNKNOWN_REFERENCE = b"\0"
"""Stands where a blob was found without any reference, from that time on. No record has this name, so such a
blob is collected when the grace time is over and nobody has stored it again."""


def get_blob(request: GetBlob, locator: int, txn: ReadTxn) -> Reply:
    """All of a blob; the reader verifies the digest. Raises CorruptObject."""
    stored = txn.get(blob_key(locator, request.digest))
    if stored is None:
        raise Refusal(Status.NOT_FOUND, "no such blob")
    return [], bytes(stored)


def put_blob(request: PutBlob, locator: int, txn: WriteTxn, body: bytes | memoryview, now_ms: int) -> bool:
    """Store a blob and the reference to it; whether the blob was there before.

    Without a body only the reference, to a blob that is here.
    """
    is_reference_alone = not body and request.digest != EMPTY_DIGEST
    if not is_reference_alone and blake3(body).digest() != request.digest:
        raise Refusal(Status.BAD_REQUEST, "the blob does not match its digest")
    stored_key = blob_key(locator, request.digest)
    try:
        existed = txn.get(stored_key) is not None
    except CorruptObject:
        existed = False  # The right content, if it comes, replaces the rotten one.
    if not existed:
        if is_reference_alone:
            raise Refusal(Status.NOT_FOUND, "no such blob to refer to")
        txn.put(stored_key, body)
    reference = reference_key(locator, request.digest, request.reference)
    txn.put(reference, now_ms.to_bytes(8, "big"), request.reference)
    return existed


@dataclass(frozen=True, slots=True)
class Reference:
    """For which record a blob was stored: bucket id and key; and when it was stored for that last."""

    at_ms: int
    name: bytes


def decode_reference(stored: bytes | memoryview) -> Reference:
    """Raises CorruptObject."""
    if len(stored) < 8:
        raise CorruptObject("a stored reference is cut short")
    return Reference(int.from_bytes(stored[:8], "big"), bytes(stored[8:]))


def references_of(txn: ReadTxn, locator: int, digest: bytes) -> list[tuple[bytes, Reference | None]]:
    """(stored key, reference) of those to a blob; None for a rotten one, which keeps the blob as well."""
    found: list[tuple[bytes, Reference | None]] = []
    for stored_key, value in walk(txn, *references_range(locator, digest)):
        found.append((stored_key, None if value is None else decode_reference(value)))
        if len(found) == REFERENCES_MAX:
            break
    return found


def list_references(request: References, locator: int, txn: ReadTxn) -> Reply:
    """See ``messages.References``."""
    rows = [
        [ref.at_ms, ref.name] for _, ref in references_of(txn, locator, request.digest) if ref is not None
    ]
    try:
        is_there = txn.get(blob_key(locator, request.digest)) is not None
    except CorruptObject:
        is_there = False
    return [is_there], msgpack.packb(rows)


def adopt(
    txn: WriteTxn, locator: int, digest: bytes, body: bytes | memoryview | None, references: list[Reference]
) -> None:
    """Take a blob and references of it from another plane, with their times; what is here and good stays.

    ``body`` None leaves the blob as it is: then it must be here, or references would keep nothing.
    """
    stored_key = blob_key(locator, digest)
    if body is None and txn.get(stored_key) is None:
        raise CorruptObject("references to a blob that is not here", stored_key)
    missing = [ref for ref in references if not has_reference(txn, reference_key(locator, digest, ref.name))]
    if body is not None and not is_good_blob(txn, stored_key):
        txn.put(stored_key, body)
    for ref in missing:
        txn.put(reference_key(locator, digest, ref.name), ref.at_ms.to_bytes(8, "big"), ref.name)


def is_good_blob(txn: ReadTxn, stored_key: bytes) -> bool:
    """Whether a blob is here, and is what its digest says."""
    try:
        stored = txn.get(stored_key)
    except CorruptObject:
        return False
    return stored is not None and blake3(stored).digest() == stored_key[5:]


def is_wrong_blob(txn: ReadTxn, stored_key: bytes) -> bool:
    """Whether a blob is here and is not what its digest says."""
    return not is_good_blob(txn, stored_key) and txn.get(stored_key) is not None


def has_reference(txn: ReadTxn, stored_key: bytes) -> bool:
    """Whether a reference is here, and not rotten."""
    try:
        return txn.get(stored_key) is not None
    except CorruptObject:
        return False


def mark_orphan(txn: WriteTxn, stored_key: bytes, now_ms: int) -> None:
    """Start the grace time of a blob that has no reference at all."""
    locator, digest = int.from_bytes(stored_key[:4], "big"), stored_key[5:]
    if txn.get(stored_key) is not None and not references_of(txn, locator, digest):
        mark = reference_key(locator, digest, UNKNOWN_REFERENCE)
        txn.put(mark, now_ms.to_bytes(8, "big"), UNKNOWN_REFERENCE)


def drop_reference(txn: WriteTxn, reference: bytes, at_ms: int) -> bool:
    """Drop one reference if it was not renewed since ``at_ms``; its blob goes with the last one.

    ``reference`` is its stored key. Whether it went.
    """
    try:
        stored = txn.get(reference)
    except CorruptObject:
        return False
    if stored is None or decode_reference(stored).at_ms != at_ms:
        return False
    locator, digest = int.from_bytes(reference[:4], "big"), reference[5:37]
    others = [key for key, _ in references_of(txn, locator, digest) if key != reference]
    if not others:
        txn.delete(blob_key(locator, digest))
    txn.delete(reference)
    return True
