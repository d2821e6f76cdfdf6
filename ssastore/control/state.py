"""What a control store holds and how it changes; no clock, no file, no task.

A change is decided first and applied later, so that a shell can make it durable
in between: ``plan_*`` reads the state and returns a ``Change``; ``apply`` carries
it out and cannot fail.  Changes must be applied in the order they were planned,
one at a time.

Time comes in as ``now_ms``, milliseconds of any clock that never goes back.  A lease
has ended when its deadline is reached, but its keys stay until the shell plans and
applies ``plan_end(due(now_ms))``; shells do that before they answer anything.

Invariants: the revision rises by one with every change of keys and never otherwise;
an item's revision is that of its last change; the history holds every change above
``compacted``, in order; every lease that an item names is alive.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ssastore.env import Compare, Event, Item, WatchCompacted, Write
from ssastore.errors import Conflict, Overloaded, RequestError, StoreFull
from ssastore.limits import (
    CONTROL_BYTES_MAX,
    CONTROL_EVENTS_BYTES_MAX,
    CONTROL_EVENTS_MAX,
    CONTROL_KEY_BYTES_MAX,
    CONTROL_LEASES_MAX,
    CONTROL_OPS_MAX,
    CONTROL_TRANSACTION_BYTES_MAX,
)

_LISTINGS_MAX = 16


class Entry(NamedTuple):
    """What is stored under a key."""

    value: bytes
    revision: int
    lease: int | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """One step of the state, complete: applying it needs no further decision."""

    revision: int
    "The store's revision after it; the one before it when no key changes."
    next_lease: int
    "Number of the lease to be granted next, after it."
    writes: tuple[Write, ...] = ()
    granted: tuple[int, int] | None = None
    "Number and period in milliseconds of a new lease."
    ended: tuple[int, ...] = ()


class ControlState:
    """Items, leases and recent history of one store."""

    def __init__(
        self,
        *,
        now_ms: int = 0,
        revision: int = 0,
        next_lease: int = 1,
        entries: Mapping[str, Entry] | None = None,
        periods: Mapping[int, int] | None = None,
    ) -> None:
        """A new store, or one as it was saved.

        Deadlines are not saved: a clock of another boot means nothing. Every lease gets a fresh
        period from ``now_ms`` on, so a restart never ends a lease whose holder is still alive.
        """
        self.revision = revision
        self.next_lease = next_lease
        self.compacted = revision
        "Changes up to this revision are no longer in the history."
        self._entries: dict[str, Entry] = dict(entries or {})
        self._keys: list[str] = sorted(self._entries)
        self._bytes = sum(_size(key, entry.value) for key, entry in self._entries.items())
        self._listed: dict[str, Sequence[Item]] = {}
        "The last listings by prefix, until a key below it changes: all that start ask for the same."
        self._items: dict[str, Item] = {}
        "Items that were listed: who compares two listings finds most of them to be the same."
        self._periods: dict[int, int] = dict(periods or {})
        self._deadlines = {lease: now_ms + period for lease, period in self._periods.items()}
        self._history: list[Event] = []
        self._history_bytes = 0

    def copy(self) -> ControlState:
        """Another store that holds the same items, without leases and history."""
        assert not self._periods, "a lease belongs to one store"
        other = ControlState(revision=self.revision, next_lease=self.next_lease)
        other._entries, other._keys, other._bytes = dict(self._entries), list(self._keys), self._bytes
        other._listed, other._items = dict(self._listed), dict(self._items)
        return other

    # -- reading ------------------------------------------------------------------------------------

    def get(self, key: str) -> Item | None:
        """The item of a key."""
        entry = self._entries.get(key)
        return entry and Item(key, entry.value, entry.revision)

    def items(self, prefix: str) -> Sequence[Item]:
        """Items whose key starts with ``prefix``, in key order; the same sequence until one changes."""
        listed = self._listed.get(prefix)
        if listed is not None:
            return listed
        items: list[Item] = []
        # Code points compare as their UTF-8 bytes do, so this is the order of every other adapter.
        for at in range(bisect_left(self._keys, prefix), len(self._keys)):
            key = self._keys[at]
            if not key.startswith(prefix):
                break
            item = self._items.get(key)
            if item is None:
                entry = self._entries[key]
                item = self._items[key] = Item(key, entry.value, entry.revision)
            items.append(item)
        if len(self._listed) == _LISTINGS_MAX:
            self._listed.clear()
        self._listed[prefix] = items
        return items

    def events(self, prefix: str, after_revision: int) -> Sequence[Event]:
        """Changes under ``prefix`` after a revision, in order, up to now.

        Raises:
            WatchCompacted: the history that far back is gone, or the revision is of another history.
        """
        if not self.compacted <= after_revision <= self.revision:
            known = f"{self.compacted} to {self.revision}"
            raise WatchCompacted(f"changes since revision {after_revision} are not known, only {known}")
        first = bisect_right(self._history, after_revision, key=lambda event: event.revision)
        return [event for event in self._history[first:] if event.key.startswith(prefix)]

    # -- deciding -----------------------------------------------------------------------------------

    def plan_transact(self, compares: Iterable[Compare], writes: Iterable[Write]) -> Change | None:
        """What the transaction changes; None when a compare does not hold.

        Deleting a key that does not exist changes nothing.

        Raises:
            RequestError: a key or the whole is too large, or a key is written twice.
            Conflict: a write names a lease that has ended.
            StoreFull: it would grow the store above its bound.
        """
        compares, writes = tuple(compares), tuple(writes)
        check_transaction(compares, writes)
        if not all(self._revision_of(compare.key) == compare.revision for compare in compares):
            return None
        for write in writes:
            if write.value is not None and write.lease is not None and write.lease not in self._periods:
                raise Conflict(f"lease {write.lease} of {write.key} has ended")
        effective = tuple(w for w in writes if w.value is not None or w.key in self._entries)
        growth = sum(self._growth(write) for write in effective)
        if growth > 0 and self._bytes + growth > CONTROL_BYTES_MAX:
            raise StoreFull(f"the control store is full: {CONTROL_BYTES_MAX} bytes")
        return Change(self.revision + bool(effective), self.next_lease, effective)

    def plan_grant(self, ttl_ms: int) -> Change:
        """A new lease, whose number is never used again.

        Raises:
            RequestError: the period is not positive.
            Overloaded: too many leases.
        """
        if ttl_ms <= 0:
            raise RequestError(f"a lease's period must be positive, got {ttl_ms}")
        if len(self._periods) >= CONTROL_LEASES_MAX:
            raise Overloaded(f"the control store has {CONTROL_LEASES_MAX} leases")
        return Change(self.revision, self.next_lease + 1, granted=(self.next_lease, ttl_ms))

    def plan_end(self, leases: Iterable[int]) -> Change | None:
        """End these leases and delete their keys; None when none of them is alive."""
        ended = tuple(lease for lease in leases if lease in self._periods)
        if not ended:
            return None
        writes = tuple(Write(key, None) for key in self._keys if self._entries[key].lease in ended)
        return Change(self.revision + bool(writes), self.next_lease, writes, ended=ended)

    def due(self, now_ms: int) -> list[int]:
        """Leases whose deadline is reached, in the order they were granted."""
        return [lease for lease, deadline in self._deadlines.items() if deadline <= now_ms]

    def next_deadline_ms(self) -> int | None:
        """When the next lease will be due."""
        return min(self._deadlines.values(), default=None)

    # -- changing -----------------------------------------------------------------------------------

    def keep_alive(self, lease: int, now_ms: int) -> bool:
        """Give a lease a fresh period; False when it has ended."""
        if lease not in self._periods:
            return False
        self._deadlines[lease] = now_ms + self._periods[lease]
        return True

    def apply(self, change: Change, now_ms: int) -> None:
        """Carry out a change that was planned on this very state."""
        assert change.revision - self.revision == bool(change.writes), "changes are applied in order"
        self.revision, self.next_lease = change.revision, change.next_lease
        for write in change.writes:
            self._write(write)
        if change.granted:
            lease, period = change.granted
            self._periods[lease], self._deadlines[lease] = period, now_ms + period
        for lease in change.ended:
            del self._periods[lease], self._deadlines[lease]
        self._forget()

    def check(self) -> None:
        """Assert the invariants of the module."""
        assert self._keys == sorted(self._entries)
        assert self._bytes == sum(_size(key, entry.value) for key, entry in self._entries.items())
        assert self._periods.keys() == self._deadlines.keys()
        assert all(lease < self.next_lease for lease in self._periods)
        for entry in self._entries.values():
            assert 0 < entry.revision <= self.revision
            assert entry.lease is None or entry.lease in self._periods
        revisions = [event.revision for event in self._history]
        assert revisions == sorted(revisions)
        assert len(self._history) <= CONTROL_EVENTS_MAX and self._history_bytes <= CONTROL_EVENTS_BYTES_MAX
        assert self._history_bytes == sum(_size(event.key, event.value) for event in self._history)

    def _revision_of(self, key: str) -> int:
        entry = self._entries.get(key)
        return entry.revision if entry else 0

    def _growth(self, write: Write) -> int:
        old = self._entries.get(write.key)
        before = _size(write.key, old.value) if old else 0
        return (0 if write.value is None else _size(write.key, write.value)) - before

    def _write(self, write: Write) -> None:
        self._bytes += self._growth(write)
        if write.value is None:
            del self._entries[write.key]
            del self._keys[bisect_left(self._keys, write.key)]
        else:
            if write.key not in self._entries:
                insort(self._keys, write.key)
            self._entries[write.key] = Entry(write.value, self.revision, write.lease)
        self._items.pop(write.key, None)
        for prefix in [prefix for prefix in self._listed if write.key.startswith(prefix)]:
            del self._listed[prefix]
        self._history.append(Event(write.key, write.value, self.revision))
        self._history_bytes += _size(write.key, write.value)

    def _forget(self) -> None:
        """Drop the oldest history above the bounds; a revision dropped in part counts as dropped."""
        drop = max(0, len(self._history) - CONTROL_EVENTS_MAX)
        left = self._history_bytes - sum(_size(event.key, event.value) for event in self._history[:drop])
        while left > CONTROL_EVENTS_BYTES_MAX:
            left -= _size(self._history[drop].key, self._history[drop].value)
            drop += 1
        if drop:
            self.compacted = self._history[drop - 1].revision
            self._history_bytes = left
            del self._history[:drop]


def _size(key: str, value: bytes | None) -> int:
    return len(key) + len(value or b"")


def check_transaction(compares: Sequence[Compare], writes: Sequence[Write]) -> None:
    """RequestError for what no control store takes: too many, too large, or a key that is written twice."""
    if len(compares) > CONTROL_OPS_MAX or len(writes) > CONTROL_OPS_MAX:
        raise RequestError(f"a transaction has at most {CONTROL_OPS_MAX} compares and as many writes")
    for key in [compare.key for compare in compares] + [write.key for write in writes]:
        check_key(key)
    # The order in which one key's two writes count is not the same in every store.
    if len({write.key for write in writes}) != len(writes):
        raise RequestError("a transaction writes a key twice")
    size = sum(_size(write.key, write.value) for write in writes)
    if size > CONTROL_TRANSACTION_BYTES_MAX:
        raise RequestError(f"a transaction has at most {CONTROL_TRANSACTION_BYTES_MAX} bytes, got {size}")


def check_key(key: str) -> None:
    """RequestError unless the key has 1 to 256 bytes of UTF-8."""
    if not key:
        raise RequestError("a key must not be empty")
    check_prefix(key)


def check_prefix(prefix: str) -> None:
    """RequestError unless it is the beginning of a key; the empty one is that of all."""
    try:
        size = len(prefix.encode())
    except UnicodeEncodeError as error:
        raise RequestError("a key must be text that UTF-8 can carry") from error
    if size > CONTROL_KEY_BYTES_MAX:
        raise RequestError(f"a key has at most {CONTROL_KEY_BYTES_MAX} bytes of UTF-8, got {size}")
