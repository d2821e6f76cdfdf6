"""What a page of a slice holds that wants attention, seen while a scrub reads it. Pure."""

from __future__ import annotations

from collections import Counter

from blake3 import blake3

from ssastore.core.blobstore import Reference, decode_reference, references_of
from ssastore.core.collect import is_idle
from ssastore.core.named import NAMING_KINDS, Naming
from ssastore.core.records import PLACE_BYTES, blob_of, split_place
from ssastore.core.register import LIVE, NO_BALLOT, decode_slot, peek_slot
from ssastore.core.tools import UpkeepRules
from ssastore.env import ReadTxn
from ssastore.messages import RECORD_KINDS, Kind

_SYSTEM_BUCKET = bytes(8)
"Id of the bucket of buckets, as it stands in a stored key: its records are nobody's objects."


class Finds:
    """Of one page; ``visit`` is called for each of its entries that is not rotten.

    Args:
        now_ms: by the clock of ages.
        rules: when something is old.
        seen: blobs at the last locator of the pages before this one; of this one when it was read.
        is_asking: whether it is asked here for what records name (``core.named``).
    """

    def __init__(self, now_ms: int, rules: UpkeepRules, seen: set[bytes], *, is_asking: bool) -> None:
        self._seen = seen
        self._is_asking = is_asking
        self._oldest_ms = now_ms - rules.blob_grace_ms
        self._dead_ms = now_ms - 2 * rules.tombstone_kept_ms
        self.old_references: list[tuple[bytes, Reference]] = []
        self.blobs: list[bytes] = []
        self.wrong_blobs: list[bytes] = []
        "Sealed well, and not what their digest says."
        self.bare_blobs: dict[bytes, None] = {}
        "Those that are not there, although something refers to them."
        self.namings: list[Naming] = []
        self.old_promises: list[bytes] = []
        self.dead: list[bytes] = []
        self.objects = 0
        self.weights: Counter[int] = Counter()
        "Bytes by locator."

    def visit(self, stored_key: bytes, value: memoryview | bytes) -> None:
        """Look at one entry; the value's view may die with the call."""
        locator, kind, _ = split_place(stored_key)
        self.weights[locator] += len(stored_key) + len(value)
        if kind == Kind.BLOB:
            self.blobs.append(stored_key)
            if self._seen and next(iter(self._seen))[:4] != stored_key[:4]:
                self._seen.clear()
            self._seen.add(stored_key)
            if blake3(value).digest() != stored_key[5:]:
                self.wrong_blobs.append(stored_key)
        elif kind == Kind.REF:
            reference = decode_reference(value)
            # Blobs stand before the references of their locator, so it would have been seen.
            if (blob := blob_of(stored_key)) not in self._seen:
                self.bare_blobs[blob] = None
            if reference.at_ms < self._oldest_ms:
                self.old_references.append((stored_key, reference))
        elif kind in RECORD_KINDS:
            accepted, state, modified_ms, packed, data = peek_slot(value)
            is_object = kind == Kind.OBJECT and state == LIVE
            self.objects += is_object and not stored_key.startswith(_SYSTEM_BUCKET, PLACE_BYTES)
            if state == LIVE:
                if self._is_asking and not data and kind in NAMING_KINDS:
                    self.namings.append(Naming(stored_key, modified_ms, bytes(packed)))
            elif is_idle(decode_slot(value, NO_BALLOT), self._dead_ms):
                (self.dead if accepted != NO_BALLOT else self.old_promises).append(stored_key)

    def leave_orphans(self, txn: ReadTxn) -> None:
        """Of the page's blobs keep those that nothing refers to."""
        self.blobs = [key for key in self.blobs if not _has_references(txn, key)]


def _has_references(txn: ReadTxn, stored_key: bytes) -> bool:
    return bool(references_of(txn, int.from_bytes(stored_key[:4], "big"), stored_key[5:]))
