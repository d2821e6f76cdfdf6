"""What must hold inside the cluster, whatever clients see, asserted while a run is under way.

Every commit of every disk and every vote of every acceptor goes through here, so a
broken rule is red at the step that breaks it, long before a client could notice.

    I1   under one cfg one environment votes for a slice, or several one after the other, each handed over to
    I4   on an acceptor a promise is never below what is accepted, and neither goes back
    I5   one value for each ballot
    I6   the chosen values of a name are one chain: each carries the operations of the one before it
    I8   a record is dropped only when no plane holds an older live value
    I9   a floor never goes back
    I10  votes are given only for slices that are ACTIVE at the voter
    I11  the votes of one ballot are of one cfg
    I14  what a client was served matches its digest (judged by ``workload``)
    I16  who takes a slice over has exactly what the source has when the control store decides

I7 is what the checker of histories shows.  This module only watches: it may not change
what happens, and it knows no clock.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from ssastore.core.acceptor import Acceptor
from ssastore.core.amounts import ZERO, Amount, amount_of
from ssastore.core.custody import Custody
from ssastore.core.groups import GroupRecord
from ssastore.core.numbers import overlaps, plane_of_slice, slice_name, slice_number, whole_of
from ssastore.core.records import FLOORS_FIRST, in_plane, slice_range
from ssastore.core.register import LIVE, NO_BALLOT, Ballot, Slot, Value, decode_slot, decode_value
from ssastore.core.twins import Change
from ssastore.errors import CorruptObject
from ssastore.keyspace import GROUPS, TAIL_BITS
from ssastore.messages import RECORD_KINDS, Accept, Kind, Prepare
from ssastore.store.memory import Records
from ssastore.store.seal import unseal

_KIND_AT = 4
_COUNTED = (Kind.OBJECT, Kind.VERSION)
_VOTES = (Accept, Prepare)
_PLANE_F = 15
_VIOLATIONS_MAX = 10


@dataclass(slots=True)
class _Name:
    """What is known of one register, over all its planes."""

    values: dict[Ballot, bytes] = field(default_factory=dict)
    "Digest of the value that was sent under a ballot."
    holders: dict[Ballot, set[int]] = field(default_factory=dict)
    "Planes that have accepted a ballot."
    cfgs: dict[Ballot, int] = field(default_factory=dict)
    slots: dict[int, Slot] = field(default_factory=dict)
    "By plane, as last committed."
    sealed: dict[int, bytes | None] = field(default_factory=dict)
    "And as it was stored."
    chosen: dict[Ballot, Value] = field(default_factory=dict)


class Invariants:
    """Watches one cluster.

    Args:
        replicas: number of its planes at the beginning.
        note: puts what is broken into the story.
    """

    def __init__(self, replicas: int, note: Callable[[str], None]) -> None:
        self._majority = replicas // 2 + 1
        self._note = note
        self.violations: list[str] = []
        "The first ones, in words. The run goes on, so that its end shows what clients saw of it."
        self._names: dict[bytes, _Name] = {}
        self._acceptors: dict[str, Acceptor] = {}
        "Of the processes that run, by node."
        self._custodies: dict[str, Custody] = {}
        self._drawn: dict[int, set[int]] = {}
        "By group, the configurations that any part of it ever had."
        self._voters: dict[tuple[int, int], dict[int, tuple[int, str]]] = {}
        "By slice and cfg: since which epoch the latest voter had its data, and who it was."
        self.checks = 0
        self.quotas: dict[int, Amount] = {}
        "By bucket, what it may hold."

    # -- what disks commit --------------------------------------------------------------------------

    def committed(self, node: str, key: bytes, before: bytes | None, after: bytes | None) -> None:
        """A change of one stored key: a ``disk.Watch`` but for the name of the node."""
        if key.startswith(FLOORS_FIRST):
            self._check_floor(node, key, before, after)
            return
        if self._is_of_nobody(node, key):
            return  # On its way here, or left behind: the plane's votes are somebody else's.
        plane = key[0] >> 4
        if plane == _PLANE_F or len(key) <= _KIND_AT or key[_KIND_AT] not in RECORD_KINDS:
            return
        self.checks += 1
        name = self._names.setdefault(bytes([key[0] & 0x0F]) + key[1:], _Name())
        old = name.slots.get(plane)
        if before != name.sealed.get(plane):  # It rotted, or the plane was somebody else's meanwhile.
            try:
                old = _slot(key, before)
            except CorruptObject:
                old = None  # What replaces it is a repair.
        new = _slot(key, after)
        name.sealed[plane] = after
        if new is None:
            name.slots.pop(plane, None)
            if not self._is_rebuilt(node, key):
                self._check_drop(node, key, name, old)
            return
        name.slots[plane] = new
        if new.promise < new.accepted:
            self._broken(f"I4: {node} accepted above its promise for {key.hex()}")
        if self._is_rebuilt(node, key):
            old = None  # What a lost acceptor had is replaced by what its mates have; no vote hangs on it.
        if old is not None and (new.promise < old.promise or new.accepted < old.accepted):
            self._broken(f"I4: {node} went back for {key.hex()}: {_tell(old)} to {_tell(new)}")
        if new.accepted != NO_BALLOT and (old is None or new.accepted != old.accepted):
            self._check_accepted(node, key, plane, name, new)

    def recorded(self, before: GroupRecord, record: GroupRecord) -> None:
        """The control store has a new record of a group."""
        drawn = self._drawn.setdefault(record.group, {found.cfg for found in before.parts})
        new = set()
        for found in record.parts:
            former = [
                f.cfg for f in before.parts if overlaps(slice_number(0, f.part), slice_number(0, found.part))
            ]
            if found.cfg not in former:
                new.add(found.cfg)
        for cfg in sorted(new & drawn):
            self._broken(f"I15: group {record.group:03x} draws configuration {cfg} a second time")
        drawn |= new

    def _is_of_nobody(self, node: str, key: bytes) -> bool:
        acceptor = self._acceptors.get(node)
        return acceptor is not None and _slice_at(acceptor, key) not in acceptor.owned

    def handed_over(self, number: int, source: Records, made: int, target: Records) -> None:
        """The control store has made the target the owner of a slice, or of ``made``, the same in another
        plane; both disks as they are now."""
        had, has = _good_records(source, number), _good_records(target, made)
        for key in sorted(had.keys() | has.keys()):
            there = in_plane(key, plane_of_slice(made)), in_plane(key, plane_of_slice(number))
            if had.get(key) != has.get(key) and not (
                _is_rotten(source, there[1]) or _is_rotten(target, there[0])
            ):
                what = "has not" if key not in has else "has more than" if key not in had else "has another"
                self._broken(f"I16: the new owner of slice {slice_name(number)} {what} {key.hex()}")

    def _is_rebuilt(self, node: str, key: bytes) -> bool:
        """Whether the slice of a key does not vote at this node: only a recovery writes to it."""
        acceptor = self._acceptors.get(node)
        return acceptor is not None and _slice_at(acceptor, key) not in acceptor.active

    def _broken(self, what: str) -> None:
        if len(self.violations) < _VIOLATIONS_MAX:
            self.violations.append(what)
            self._note(f"VIOLATION {what}")

    def _check_accepted(self, node: str, key: bytes, plane: int, name: _Name, slot: Slot) -> None:
        ballot = slot.accepted
        digest = blake2b(slot.value, digest_size=8).digest()
        if name.values.setdefault(ballot, digest) != digest:
            self._broken(f"I5: a second value under ballot {ballot.hex()} of {key.hex()}, at {node}")
        holders = name.holders.setdefault(ballot, set())
        holders.add(plane)
        acceptor = self._acceptors.get(node)
        count = acceptor.served.count_of(int.from_bytes(key[:2], "big") & (GROUPS - 1)) if acceptor else None
        if len(holders) == (self._majority if count is None else count // 2 + 1):
            name.chosen[ballot] = decode_value(bytes(slot.value))
            self._check_chain(key, name, ballot)
            self._check_quota(key)

    def _check_chain(self, key: bytes, name: _Name, ballot: Ballot) -> None:
        """A value that is chosen descends from the chosen one below it, and the one above it from it."""
        order = sorted(name.chosen)
        at = order.index(ballot)
        for lower, upper in zip(order[max(0, at - 1) : at + 1], order[max(1, at) : at + 2], strict=False):
            before, after = name.chosen[lower], name.chosen[upper]
            if before.recent and after.find(before.recent[-1].op_id) is None:
                newest = before.recent[-1]
                if after.cut_ballot < newest.ballot:
                    self._broken(
                        f"I6: the value of ballot {upper.hex()} of {key.hex()} does not know operation "
                        f"{newest.op_id.hex()}, which was chosen under {lower.hex()}"
                    )

    def limit(self, bucket: int, amount: Amount) -> None:
        """From now on a bucket's quota is in force."""
        self.quotas[bucket] = amount

    def used(self, bucket: int) -> Amount:
        """What is agreed in a bucket, in objects and versions; one that has two records counts once."""
        of_it, used, current = bucket.to_bytes(8, "big"), ZERO, dict[bytes, Amount]()
        for key, name in self._names.items():
            kind, record = key[_KIND_AT], key[_KIND_AT + 9 :]
            if name.chosen and key[_KIND_AT + 1 : _KIND_AT + 9] == of_it and kind in _COUNTED:
                value = self._agreed(kind, name)
                amount = amount_of(kind, value)
                used += amount
                pair = Change((kind, record), value, value).was
                # A pair is in one shard, and its records come in any order.
                if pair and (other := current.get(pair)) is not None:
                    used -= amount.least(other)
                elif pair:
                    current[pair] = amount
        return used

    def _agreed(self, kind: int, name: _Name) -> Value:
        """The value chosen last; the smallest of those in doubt after it, when a majority has it no more."""
        ballot = max(name.chosen)
        newer = [slot.value for slot in name.slots.values() if slot.accepted > ballot]
        if len(newer) < self._majority:
            return name.chosen[ballot]
        return min(
            (decode_value(bytes(value)) for value in newer), key=lambda value: amount_of(kind, value).size
        )

    def _check_quota(self, key: bytes) -> None:
        """All that is agreed in a bucket is within its quota, at every moment."""
        bucket = int.from_bytes(key[_KIND_AT + 1 : _KIND_AT + 9], "big")
        if (limit := self.quotas.get(bucket)) is not None and not (used := self.used(bucket)).fits(limit):
            self._broken(f"I17: bucket {bucket:016x} holds {used}, and may hold {limit}")

    def _check_floor(self, node: str, key: bytes, before: bytes | None, after: bytes | None) -> None:
        try:
            old = b"" if before is None else bytes(unseal(key, memoryview(before)))
        except CorruptObject:
            return  # It was rotten: what replaces it is a repair.
        new = b"" if after is None else bytes(unseal(key, memoryview(after)))
        if new < old:
            self._broken(f"I9: {node} lowered the floor of slice {key[-2:].hex()}")

    def _check_drop(self, node: str, key: bytes, name: _Name, dropped: Slot | None) -> None:
        if dropped is None or dropped.accepted == NO_BALLOT:
            return
        for plane, slot in name.slots.items():
            if slot.accepted < dropped.accepted and decode_value(slot.value).state == LIVE:
                self._broken(
                    f"I8: {node} dropped {key.hex()} of ballot {dropped.accepted.hex()}, and plane {plane} "
                    f"holds an older live value"
                )

    # -- what acceptors answer ----------------------------------------------------------------------

    def watch_votes(self, node: str, env_id: int, acceptor: Acceptor, custody: Custody) -> None:
        """Judge every vote that this acceptor of an environment gives from now on."""
        self._acceptors[node] = acceptor
        self._custodies[node] = custody
        write: Callable[..., Any] = acceptor.write
        voter = f"{node}, environment {env_id:08x}"

        def watched(request: Any, txn: Any, body: Any, now_ms: int) -> Any:
            reply = write(request, txn, body, now_ms)
            if type(request) in _VOTES:
                self._check_vote(node, voter, acceptor, request)
            return reply

        acceptor.write = watched  # type: ignore[method-assign]

    def _check_vote(self, node: str, voter: str, acceptor: Acceptor, request: Accept | Prepare) -> None:
        number = acceptor.served.slice_at(request.iid)
        if number not in acceptor.active:
            self._broken(f"I10: {node} voted for slice {slice_name(number)}, not ACTIVE there")
        held = self._custodies[node].held(number)
        epoch = held.record.planes[plane_of_slice(number)].complete_epoch if held is not None else 0
        voters = self._voters.setdefault((whole_of(number), request.cfg), {})
        # A split leaves the epochs and a merge makes a higher one, so slices around one another compare.
        for around, (latest, other) in voters.items():
            if overlaps(around, number) and (epoch < latest or (epoch == latest and other != voter)):
                self._broken(
                    f"I1: {voter} voted for slice {slice_name(number)} under cfg {request.cfg} as of epoch "
                    f"{epoch}, and {other} for {slice_name(around)} as of epoch {latest}"
                )
                break
        else:
            voters[number] = epoch, voter
        name = self._names.setdefault(_name_of(request), _Name())
        if name.cfgs.setdefault(request.ballot, request.cfg) != request.cfg:
            self._broken(f"I11: votes of two cfg for ballot {request.ballot.hex()}, at {node}")


def _name_of(request: Accept | Prepare) -> bytes:
    """The stored key without its plane."""
    place = (request.iid >> 32) & 0x0FFFFFFF
    return place.to_bytes(4, "big") + bytes([request.kind]) + request.bucket.to_bytes(8, "big") + request.key


def _slice_at(acceptor: Acceptor, key: bytes) -> int:
    return acceptor.served.slice_at(int.from_bytes(key[:4], "big") << TAIL_BITS)


def _good_records(records: Records, number: int) -> dict[bytes, bytes]:
    """What is stored of a slice, but for what is rotten; by the key that it has in plane 0."""
    first, end = slice_range(number)
    keys = records.keys[bisect_left(records.keys, first) : bisect_left(records.keys, end)]
    good = [key for key in keys if not _is_rotten(records, key)]
    return {in_plane(key, 0): bytes(unseal(key, memoryview(records.sealed[key]))) for key in good}


def _is_rotten(records: Records, key: bytes) -> bool:
    try:
        return key in records.sealed and unseal(key, memoryview(records.sealed[key])) is None
    except CorruptObject:
        return True


def _slot(key: bytes, sealed: bytes | None) -> Slot | None:
    return None if sealed is None else decode_slot(bytes(unseal(key, memoryview(sealed))), NO_BALLOT)


def _tell(slot: Slot) -> str:
    return f"promise {slot.promise.hex()} accepted {slot.accepted.hex()}"
