"""A worker as the proposer of a name: from a client's Put, Delete or Read to the planes. Coroutines.

The plane that the request came in by is this worker's own: its acceptor is a function
call and a commit away.  The others are asked at their computed addresses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ssastore.core.acceptor import Acceptor
from ssastore.core.birth import birth_of
from ssastore.core.caller import STATUS_ERRORS, Caller
from ssastore.core.holds import is_counted_kind, split_witness
from ssastore.core.ledger import Ledger
from ssastore.core.names import RecordName
from ssastore.core.operations import decide_delete, decide_put
from ssastore.core.planes import Outrun, Promise, Stale, Uncounted
from ssastore.core.proposer import Operation, Proposer
from ssastore.core.register import Ballot
from ssastore.core.replies import Refusal, Reply, reply_of
from ssastore.core.settle import Collecting
from ssastore.core.shardname import ShardName, shard_with
from ssastore.core.suspects import Suspects
from ssastore.core.votes import check_birth, check_value
from ssastore.env import Clock, Store
from ssastore.errors import (
    BadFrame,
    BucketNotFound,
    HeldElsewhere,
    OutcomeUnknown,
    OutOfStep,
    Overloaded,
    Recounted,
    SsaStoreError,
    TryLater,
    Unavailable,
)
from ssastore.keyspace import PLANES_MAX, position_of, slice16_of
from ssastore.messages import (
    BALLOT_BYTES,
    Accept,
    Collect,
    Delete,
    Get,
    Hold,
    Prepare,
    Put,
    Read,
    Scan,
    Status,
)

if TYPE_CHECKING:
    from ssastore.core.bill import OneBill

MATE_BUDGET_MS = 800
"How long a mate is tried: shorter than a client waits for this proposer."

PROPOSED = frozenset((Put.TYPE, Delete.TYPE, Read.TYPE))
"Requests that start a proposer when there are several replicas."


class _Foreign(NamedTuple):
    """What somebody said of a group that has no plane here."""

    cfg: int
    planes: int


class _Planes:
    """The acceptors of one name, for the proposer: ``core.proposer.Planes``.

    As they are known when it is made: who votes for another configuration refuses.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        name: RecordName,
        foreign: _Foreign | None = None,
        bill: OneBill | None = None,
    ) -> None:
        self._coordinator = coordinator
        self._foreign = foreign
        self.bill = bill
        self._ledger: Ledger | None = None
        self._record = name
        self._name = name.fields
        served = coordinator.acceptor.served
        self.count = served.count_at(self._name(0)[0])
        for plane in range(self.count):
            iid = self._name(plane)[0]
            cfg = served.cfgs.get(slice16_of(iid))
            if cfg is None:
                number = served.slice_at(iid)
                cfg = served.cfgs.get(number) or served.sealed.get(number)
            if cfg is not None:
                self.cfg = cfg
                if bill is not None:
                    self._ledger = bill.look(cfg)
                return
        if foreign is None:
            raise Unavailable("no plane of this name votes here")
        self.cfg, self.count = foreign

    def now(self) -> _Planes:
        """See ``core.proposer.Planes``."""
        return _Planes(self._coordinator, self._record, self._foreign, self.bill)

    async def prepare(self, plane: int, ballot: Ballot) -> Promise:
        """See ``core.proposer.Planes``."""
        fields, value = await self._ask(plane, Prepare(*self._name(plane), self.cfg, ballot), b"")
        if tuple(map(type, fields)) != (int, bytes, bytes, bytes):
            raise BadFrame("a reply to Prepare has other fields")
        cfg, accepted, floor, witness = fields
        if not (witness or self._ledger) or not is_counted_kind(self._record.kind):
            return Promise(cfg, accepted, floor, value)
        held, is_counted = split_witness(witness)
        if self._ledger is not None:
            self._check_hold(self._ledger, held, is_counted=is_counted)
        return Promise(cfg, accepted, floor, value, held if is_counted else b"", bool(held))

    def _check_hold(self, ledger: Ledger, held: bytes, *, is_counted: bool) -> None:
        """Let only a plane take part that is under the hold, and was counted with the others."""
        assert self.bill is not None
        if held > ledger.hold:
            self.bill.lost(ledger)
            raise Uncounted("the shard is held by somebody else")
        if held != ledger.hold or (ledger.is_counted and not is_counted):
            self.bill.widen(ledger)
            raise Unavailable("what the plane holds was not counted")

    async def accept(
        self, plane: int, cfg: int, ballot: Ballot, value: bytes, reserved: Ballot, hold: bytes = b""
    ) -> None:
        """See ``core.proposer.Planes``."""
        if self._ledger is not None:
            hold = self._ledger.hold
        await self._ask(plane, Accept(*self._name(plane), cfg, ballot, reserved, hold), value)

    async def collect(self, plane: int, cfg: int, ballot: Ballot) -> None:
        """See ``core.settle.Collecting``."""
        await self._ask(plane, Collect(*self._name(plane), cfg, ballot), b"")

    async def _ask(self, plane: int, message: Prepare | Accept | Collect, body: bytes) -> Reply:
        coordinator = self._coordinator
        served = coordinator.acceptor.served
        if slice16_of(message.iid) not in served.active:
            number = served.slice_at(message.iid)
            if number in served.sealed:
                raise Unavailable("the plane is being handed over")
            if number not in served.active:
                try:
                    return await coordinator.ask_mate(message, body)
                except HeldElsewhere as error:
                    raise Uncounted(str(error)) from None
        now_ms = coordinator.clock.now_ms()
        try:
            return await coordinator.store.submit(
                lambda txn: coordinator.acceptor.write(message, txn, body, now_ms), size=len(body) + 512
            )
        except Refusal as refusal:
            if refusal.status == Status.OUTRUN:
                raise Outrun(_ballot_of(refusal.text)) from None
            if refusal.status in (Status.STALE, Status.BEHIND):
                raise Stale(refusal.text) from None
            if refusal.status == Status.HELD:
                raise Uncounted(refusal.text) from None
            raise STATUS_ERRORS[refusal.status](refusal.text) from None


def _ballot_of(text: str) -> Ballot:
    try:
        ballot = bytes.fromhex(text)
    except ValueError:
        raise Unavailable(text) from None
    if len(ballot) != BALLOT_BYTES:
        raise BadFrame("a refusal names something that is no ballot")
    return ballot


class Coordinator:
    """Proposes for the names that this worker is asked for."""

    def __init__(
        self, acceptor: Acceptor, proposer: Proposer, store: Store, mates: Caller, clock: Clock
    ) -> None:
        self.acceptor = acceptor
        self.store = store
        self.mates = mates
        self.clock = clock
        self._proposer = proposer
        self._suspects = Suspects(lambda: asyncio.get_running_loop().time())
        self.ledgers: Mapping[ShardName, Ledger] = {}
        self.bill_of: Callable[[RecordName], OneBill] | None = None
        "Both are set where buckets may have quotas: everywhere but in tests of less (``core.counting``)."

    def is_counted(self, request: Put | Delete | Read) -> bool:
        """Whether writes of a record are counted here, as its bucket has a quota."""
        if not self.ledgers or not request.shards:
            return False
        return shard_with(request.bucket, request.shards, request.key) in self.ledgers

    def planes_of(self, name: RecordName) -> Collecting:
        """The acceptors of a record of which a plane votes here. Raises Unavailable: none does."""
        return _Planes(self, name)

    async def planes_anywhere(self, name: RecordName) -> Collecting:
        """The acceptors of any record: its group's cfg is asked for when none of its planes is here.

        Who votes refuses another cfg than its own, so a wrong word costs a round and no more. Raises
        SsaStoreError when no plane answers.
        """
        served = self.acceptor.served
        if any(served.slice_at(name.fields(plane)[0]) in served.active for plane in range(PLANES_MAX)):
            return _Planes(self, name)
        failure: SsaStoreError = Unavailable("no plane was asked")
        count, plane = self.mates.replicas or self.acceptor.replicas, 0
        while plane < count:
            message = Get(*name.fields(plane), True, count)
            try:
                header, _ = await self.mates.call(message, message.iid, within_ms=MATE_BUDGET_MS)
            except Recounted as error:
                # Every other count is more, or was taken from an answer: so this ends.
                count, plane = error.replicas, 0 if error.replicas > count else plane + 1
                failure = error
                continue
            except SsaStoreError as error:
                failure, plane = error, plane + 1
                continue
            return _Planes(self, name, _Foreign(header[2], count))
        raise failure

    async def ask_mate(self, message: Prepare | Accept | Collect | Hold | Scan, body: bytes) -> Reply:
        """One request to the acceptor of another plane. Raises Outrun, SsaStoreError.

        A mate that does not answer is not waited for by every call: the others are a majority, and
        calls that wait in vain would hold their values in memory.
        """
        if self._suspects.is_suspect(message.iid):
            raise Unavailable("the node of this plane did not answer lately")
        try:
            header, answer = await self.mates.call(message, message.iid, body, within_ms=MATE_BUDGET_MS)
        except OutOfStep as error:
            self._suspects.answered(message.iid)
            raise Stale(str(error)) from None
        except (Unavailable, OutcomeUnknown):
            self._suspects.failed(message.iid)
            raise
        except Overloaded as error:
            self._suspects.answered(message.iid)
            raise Outrun(_ballot_of(str(error))) from None
        self._suspects.answered(message.iid)
        return header[2:], answer

    async def handle(self, request: Any, body: bytes) -> Reply:
        """Answer a Put, Delete or Read. Raises Refusal, also for what the library raises."""
        self.acceptor.served.check_call(request)
        position = position_of(request.iid)
        record = RecordName(position, request.kind, request.bucket, request.shards, request.key)
        name = record.label
        bill = None
        if self.bill_of is not None and request.shards and is_counted_kind(request.kind):
            bill = self.bill_of(record)
        try:
            planes = _Planes(self, record, None, bill)
            if isinstance(request, Read):
                ballot, value = await self._proposer.read(name, planes)
                data = b"" if request.head_only else bytes(value.data)
                cfg = self.acceptor.served.call_cfg_of(request.iid)
                return [cfg, ballot, value.state, value.modified_ms, bytes(value.metadata)], data
            now_ms = self.clock.now_ms()
            check_birth(request, now_ms)
            decide: Callable[..., Any]
            if isinstance(request, Put):
                check_value(request, body)
                decide = decide_put(request, body, now_ms)
            else:
                decide = decide_delete(request, now_ms)
            operation = Operation(request.op_id, decide, birth_of(request.born_ms, now_ms), request.attempt)
            outcome = await self._proposer.write(name, planes, operation)
        except OutcomeUnknown as error:
            raise Refusal(Status.UNKNOWN, str(error)) from None
        except Unavailable as error:
            raise Refusal(Status.UNREACHED, str(error)) from None
        except BucketNotFound as error:
            raise Refusal(Status.NO_BUCKET, str(error)) from None
        except TryLater as error:
            raise Refusal(Status.HELD, str(error)) from None
        finally:
            if bill is not None:
                bill.end()
        return reply_of(outcome.result, outcome.modified_ms)
