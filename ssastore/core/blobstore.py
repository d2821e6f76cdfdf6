"""Blobs of one environment: immutable, named by their digest, with the references to them. Pure."""

from __future__ import annotations

from blake3 import blake3

from ssastore.core.records import blob_key, reference_key
from ssastore.core.replies import Refusal, Reply
from ssastore.env import ReadTxn, WriteTxn
from ssastore.errors import CorruptObject
from ssastore.messages import GetBlob, PutBlob, Status


def get_blob(request: GetBlob, locator: int, txn: ReadTxn) -> Reply:
    """All of a blob; the reader verifies the digest. Raises CorruptObject."""
    stored = txn.get(blob_key(locator, request.digest))
    if stored is None:
        raise Refusal(Status.NOT_FOUND, "no such blob")
    return [], bytes(stored)


def put_blob(request: PutBlob, locator: int, txn: WriteTxn, body: bytes | memoryview, now_ms: int) -> Reply:
    """Store a blob and the reference to it."""
    if blake3(body).digest() != request.digest:
        raise Refusal(Status.BAD_REQUEST, "the blob does not match its digest")
    stored_key = blob_key(locator, request.digest)
    try:
        existed = txn.get(stored_key) is not None
    except CorruptObject:
        existed = False  # Here is the right content: it replaces the rotten one.
    if not existed:
        txn.put(stored_key, body)
    if request.reference:
        reference = reference_key(locator, request.digest, request.reference)
        txn.put(reference, now_ms.to_bytes(8, "big"), request.reference)
    return [existed], b""
