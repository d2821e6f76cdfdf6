"""Recoveries that leave out a step, and environments that vote although they must not."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ssastore.core import boot, custody, merge
from ssastore.core.acceptor import Acceptor
from ssastore.core.coordinator import _Planes
from ssastore.core.custody import Custody
from ssastore.core.groups import RECOVERING, GroupRecord
from ssastore.core.marks import Watermark
from ssastore.core.numbers import part_of_slice, plane_of_slice, slice_number
from ssastore.core.pages import pull_page
from ssastore.core.place import Served
from ssastore.core.planes import Promise, Stale, majority
from ssastore.core.proposer import Proposer
from ssastore.core.recovery import Recovery
from ssastore.core.register import NO_BALLOT, Ballot, decode_slot
from ssastore.core.standing import State, judge, unpack_stands
from ssastore.env import ReadTxn
from ssastore.messages import Pull
from ssastore.sim.mutants import Mutant, Put

_SCENARIO = "recovery"
_LATE_S = 1.0


def _learn_late(put: Put) -> None:
    """Records reach everybody but their author a second late. Harmless: a fence is what waits for them."""
    apply = Custody.apply

    def apply_late(self: Custody, record: GroupRecord, revision: int) -> None:
        own = any(plane.env == self.environment.env_id for plane in record.planes)
        if own:
            apply(self, record, revision)
        else:
            asyncio.get_running_loop().call_later(_LATE_S, apply, self, record, revision)

    put(Custody, "apply", apply_late)


def _pages_of_any_cfg(put: Put) -> None:
    def pull(self: Acceptor, request: Pull, txn: ReadTxn) -> Any:
        plane = self.served.check_plane(request.iid)
        page = pull_page(txn, plane, [group for group, _ in unpack_stands(request.stands)], request.after)
        return [page.truncated, page.last, page.checksum], page.body

    put(Acceptor, "_pull", pull)


def _mates(recovery: Recovery, plane: int) -> list[int]:
    return [mate for mate in range(3) if mate != plane][:2]


def _no_fence(put: Put) -> None:
    _learn_late(put)
    _pages_of_any_cfg(put)

    async def fence(self: Recovery, plane: int, cfgs: dict[int, int]) -> tuple[list[int], list[int]]:
        return _mates(self, plane), list(cfgs)

    put(Recovery, "_fence", fence)


def _fence_after_the_copy(put: Put) -> None:
    _learn_late(put)
    _pages_of_any_cfg(put)

    async def recover(self: Recovery, batch: Sequence[int]) -> bool:
        plane = plane_of_slice(batch[0])
        held = await self._begin(plane, [part_of_slice(number) for number in batch])
        filled = await self._fill(plane, held, _mates(self, plane))
        _, fenced = await self._fence(plane, {part: held[part].record.cfg for part in filled})
        await self._finish(plane, {part: held[part] for part in fenced})
        return bool(fenced)

    put(Recovery, "_recover", recover)


def _one_mate_learns_late(put: Put) -> None:
    """Of the mates of what is recovered the second one hears of it a second late. Harmless, as above."""
    apply = Custody.apply

    def apply_late(self: Custody, record: GroupRecord, revision: int) -> None:
        begun = [plane for plane, found in enumerate(record.planes) if found.state == RECOVERING]
        mates = [mate for plane in begun for mate in range(len(record.planes)) if mate != plane]
        if len(mates) > 1 and record.planes[mates[1]].owner == self.node:
            asyncio.get_running_loop().call_later(_LATE_S, apply, self, record, revision)
        else:
            apply(self, record, revision)

    put(Custody, "apply", apply_late)


def _one_mate_fenced(put: Put) -> None:
    _one_mate_learns_late(put)
    _pages_of_any_cfg(put)  # Else the copy itself waits until the other one knows the new cfg.

    async def fence(self: Recovery, plane: int, cfgs: dict[int, int]) -> tuple[list[int], list[int]]:
        mates = _mates(self, plane)
        return mates, sorted(await self._fence_one(mates[0], cfgs))

    put(Recovery, "_fence", fence)


def _one_mate_copied(put: Put) -> None:
    fence = Recovery._fence

    async def fence_all(self: Recovery, plane: int, cfgs: dict[int, int]) -> tuple[list[int], list[int]]:
        sources, fenced = await fence(self, plane, cfgs)
        return sources[:1], fenced

    put(Recovery, "_fence", fence_all)


def _mixed_cfg(put: Put) -> None:
    ask = _Planes._ask

    async def ask_again(self: _Planes, plane: int, message: Any, body: bytes) -> Any:
        try:
            return await ask(self, plane, message, body)
        except Stale as error:
            message.cfg = int(str(error))
            return await ask(self, plane, message, body)

    async def prepare(self: Proposer, planes: Any, call: Any) -> tuple[Ballot, list[Promise]]:
        ballot = call.seen = self._ballots.next(call.seen, self._clock.now_ms())
        return ballot, await majority(planes.count, lambda plane: planes.prepare(plane, ballot))

    put(_Planes, "_ask", ask_again)
    put(Proposer, "_prepare", prepare)


def _hearsay(put: Put) -> None:
    check = Served.check_cfg

    def adopt(self: Served, iid: int, cfg: int) -> None:
        if cfg > self.cfg_of(iid):
            self.cfgs[self.slice_at(iid)] = cfg
        check(self, iid, cfg)

    put(Served, "check_cfg", adopt)


def _any_cfg_votes(put: Put) -> None:
    def check_only_that_it_votes(self: Served, iid: int, cfg: int) -> None:
        self.cfg_of(iid)

    put(Served, "check_cfg", check_only_that_it_votes)


def _judged(put: Put, wrongly_active: frozenset[State]) -> None:
    def favourable(*facts: Any) -> State:
        state = judge(*facts)
        return State.ACTIVE if state in wrongly_active else state

    put(custody, "judge", favourable)


def _votes_early(put: Put) -> None:
    """A slice that is being copied votes, and is copied nevertheless."""
    settle = Custody._settle

    def settled(self: Custody, number: int, record: GroupRecord) -> None:
        settle(self, number, record)
        if self.states.get(number) is State.RECOVERING:
            self._acceptor.served.vote(number, record.cfg)

    put(Custody, "_settle", settled)


def _no_boot_checks(put: Put) -> None:
    async def trust(*facts: Any) -> str:
        return ""

    put(boot, "_why_lost", trust)


def _marks_ignored(put: Put) -> None:
    put(Watermark, "is_behind", lambda self, told: told.boot > self.boot)


def _empty_is_first(put: Put) -> None:
    async def first(control: Any, owner: str, env_id: int) -> int:
        return env_id

    put(boot, "_first", first)


def _promises_not_merged(put: Put) -> None:
    def merge_values_only(values: Sequence[bytes]) -> bytes:
        return b"".join(
            max((decode_slot(value, NO_BALLOT) for value in values), key=lambda s: s.accepted).encode()
        )

    put(merge, "_merge_slots", merge_values_only)


def _takeover_keeps_cfg(put: Put) -> None:
    """Who takes a slice of a lost node over goes on under its cfg: so there is no fence."""
    begin = GroupRecord.begin_recovery

    def begun(self: GroupRecord, plane: int, env: int, owner: str = "") -> GroupRecord:
        taken = begin(self, plane, env, owner)
        return taken if self.owners[plane] == taken.owners[plane] else replace(taken, cfg=self.cfg)

    put(GroupRecord, "begin_recovery", begun)


def _former_owner_takes_hearsay(put: Put) -> None:
    """Who is not the owner any more goes on, under whatever cfg it hears of."""
    _hearsay(put)
    take = Custody._take

    def only_own(self: Custody, record: GroupRecord, revision: int) -> bool:
        is_lost = any(
            number in self._acceptor.owned and plane.state == RECOVERING and plane.owner != self.node
            for number, plane in [
                (slice_number(at, record.part), found) for at, found in enumerate(record.planes)
            ]
        )
        return False if is_lost else take(self, record, revision)

    put(Custody, "_take", only_own)


def _filled_once_is_filled(put: Put) -> None:
    """What was complete for one attempt is believed to be complete for every later one."""

    def believing(*facts: Any) -> State:
        record, plane, _, standing = facts
        state = judge(*facts)
        was_filled = 1 < standing.epoch <= record.planes[plane].epoch
        return State.FILLED if state is State.RECOVERING and was_filled else state

    put(custody, "judge", believing)


MUTANTS = [
    Mutant("no-fence", "a copy is taken while mates still vote under the old cfg", _no_fence, "zombie"),
    Mutant(
        "fence-after-the-copy", "mates are fenced after they were copied", _fence_after_the_copy, "zombie"
    ),
    Mutant(
        "one-mate-fenced",
        "one fenced mate is enough to begin the copy",
        _one_mate_fenced,
        "zombie",
    ),
    Mutant("one-mate-copied", "a lost plane is rebuilt from one mate", _one_mate_copied, _SCENARIO),
    Mutant("mixed-cfg", "votes given under two cfgs count together", _mixed_cfg, _SCENARIO),
    Mutant("hearsay", "an acceptor takes a higher cfg from whoever names it", _hearsay, "zombie"),
    Mutant("any-cfg-votes", "an acceptor votes under whatever cfg it is asked", _any_cfg_votes, _SCENARIO),
    Mutant(
        "quarantined-votes",
        "an environment votes for slices that are another's, or newer than its data",
        lambda put: _judged(put, frozenset((State.QUARANTINED,))),
        _SCENARIO,
    ),
    Mutant(
        "recovering-votes",
        "a slice votes before it is copied",
        lambda put: _judged(put, frozenset((State.RECOVERING,))),
        _SCENARIO,
    ),
    Mutant(
        "no-boot-checks",
        "a start asks nobody what its disk should show",
        _no_boot_checks,
        _SCENARIO,
    ),
    Mutant("marks-ignored", "a start looks at boot numbers only", _marks_ignored, _SCENARIO),
    Mutant(
        "empty-is-first",
        "an empty directory votes for what was its worker's",
        _empty_is_first,
        _SCENARIO,
    ),
    Mutant("takeover-votes-early", "a target votes before it has copied", _votes_early, "lost"),
    Mutant(
        "takeover-without-fence",
        "a target copies what mates may still change",
        _no_fence,
        "outcast",
    ),
    Mutant("takeover-keeps-cfg", "a lost owner is replaced under its own cfg", _takeover_keeps_cfg, "lost"),
    Mutant(
        "former-owner-hearsay",
        "a lost owner that lives on takes a higher cfg from whoever names it",
        _former_owner_takes_hearsay,
        "outcast",
    ),
    Mutant(
        "filled-once",
        "a copy made for one attempt passes for that of a later one",
        _filled_once_is_filled,
        "lost",
    ),
    Mutant("one-mate-copied-elsewhere", "a target copies from one mate", _one_mate_copied, "lost"),
    Mutant(
        "promises-not-merged",
        "a copy has values without promises",
        _promises_not_merged,
        "zombie",
        is_rare=True,
    ),
]

HARMLESS = [
    Mutant("records-come-late", "recoveries are learnt of a second late", _learn_late, _SCENARIO),
]
