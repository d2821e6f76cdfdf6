"""One pass of all nodes at the same time: what it heals, what it cannot heal, and what it says of it."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import pytest

from ssastore.core import scrub
from ssastore.core import survey as survey_module
from ssastore.core.mend import Mended, Mender
from ssastore.core.register import NO_BALLOT, counter_of, decode_slot
from ssastore.env import spawn
from ssastore.errors import EnvironmentProblem
from ssastore.messages import Kind
from ssastore.sim.upkeep import rotten_keys
from ssastore.sim.workload import BUCKET
from tests.sim.ward import OLD_S, Ward, engine_of, keys_of, play

HURT = 20


@pytest.fixture(autouse=True)
def quiet() -> Any:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("harm", ["rot", "lose"])
@pytest.mark.parametrize("seed", range(3))
def test_one_pass_heals_all_that_one_node_has_lost(seed: int, harm: str) -> None:
    """The mates see what is rotten there as missing, and it is not healed yet when they do."""

    async def work(ward: Ward) -> None:
        await ward.write()
        hurt = ward.nodes[0]
        before = set(keys_of(hurt))
        picked = ward.stage.world.stream("hurt").sample(sorted(before), HURT)
        for key in picked:
            getattr(hurt.disk, harm)(key)
        passes = await ward.scrub()
        assert ward.health() == ["healthy"] * 4
        assert all(done.is_healthy and not done.unrepaired for done in passes), passes
        assert set(keys_of(hurt)) == before and not rotten_keys(hurt) and not ward.differing()
        found = [done.rotten + done.missing for done in passes]
        # A rotten reference is healed along with its blob.
        assert HURT // 2 <= found[0] <= HURT and not any(found[1:]), passes
        assert sum(done.repaired for done in passes) == found[0]

    play(work, seed)


def test_two_rotten_copies_of_three_wait_and_every_pass_says_so() -> None:
    """The third may be an older one: nobody can tell. What was rotten is never served as something else."""

    async def work(ward: Ward) -> None:
        await ward.write(6)
        (good, _), *bad = next(iter(ward.copies(Kind.OBJECT).values()))
        for node, key in bad:
            node.disk.rot(key)
        for _ in range(2):
            passes = await ward.scrub()
            assert [done.unrepaired for done in passes] == [int(node in dict(bad)) for node in ward.nodes]
            for node, health in zip(ward.nodes, ward.health(), strict=True):
                assert health == ("1 copies not good" if node in [good, *dict(bad)] else "healthy")
            left = engine_of(bad[0][0]).upkeep.scrub.report()["left"]
            assert left == {
                "here": 1,
                "elsewhere": 0,
                "unheard": 0,
                "why": {"too few of its other copies can be read": 1},
                "objects": [],
            }
        assert len([key for node in ward.nodes for key in rotten_keys(node)]) == 2

    play(work)


def test_two_bad_copies_of_a_blob_are_healed_from_the_third() -> None:
    async def work(ward: Ward) -> None:
        await ward.write(6)
        _, (one, lost), (other, rotten) = next(iter(ward.copies(Kind.BLOB).values()))
        one.disk.lose(lost)
        other.disk.rot(rotten)
        passes = await ward.scrub()
        assert ward.health() == ["healthy"] * 4 and not ward.differing(), passes
        assert sum(done.repaired for done in passes) == 2

    play(work)


def test_an_old_copy_under_ballots_ahead_of_the_clock_is_found() -> None:
    """A repair's ballot is ahead of the clock. A plane that did not get it is behind, and not young."""

    async def work(ward: Ward) -> None:
        await ward.write(6)
        (one, key), _, (other, old_key) = next(iter(ward.copies(Kind.OBJECT).values()))
        image = other.disk.image().sealed[old_key]
        one.disk.rot(key)
        assert not (await engine_of(one).upkeep.mender.mend(key)).here
        other.disk.poke(old_key, image)
        assert ward.differing()
        await ward.scrub()
        assert ward.health() == ["healthy"] * 4 and not ward.differing()

    play(work)


def test_a_node_that_is_away_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(scrub.log, "info", lambda message, **_: told.append(message))

    async def work(ward: Ward) -> None:
        await ward.write(6)
        gone = ward.nodes.pop()
        gone.host.power_off()
        passes = await ward.scrub()
        assert ward.health() == ["not all replicas could be compared"] * 3
        assert all(done.not_compared > 100 and not done.is_healthy for done in passes)
        assert 0 < told.count("scrub.not_compared") < 10 * len(passes), "a line for each slice fills a disk"

    play(work)


def test_a_mate_that_is_too_slow_to_answer_is_no_bad_copy() -> None:
    """A pass has something to look at again when a mate stands still: nothing is known against any copy then,
    and it is not called healthy. The mate goes on, and some seconds later it is."""

    async def work(ward: Ward) -> None:
        await ward.write(6)
        (hurt, key), (other, _), (third, _) = next(iter(ward.copies(Kind.OBJECT).values()))
        hurt.disk.lose(key)
        scrub_of_other = engine_of(other).upkeep.scrub
        scrub_of_other.request()
        while scrub_of_other.current is None or not scrub_of_other.current.looking_again:
            await ward.stage.pause(0.01)
        await ward.stage.pause(0.5)
        assert not ward.differing(), "it is healed before it is looked at again"
        third.host.pause()
        while scrub_of_other.last is None:
            await ward.stage.pause(0.1)
        done, report = scrub_of_other.last, scrub_of_other.report()
        assert report["health"] == "not all replicas could be compared"
        assert done.unheard and not done.is_healthy and not done.unrepaired + done.elsewhere
        assert report["left"]["here"] == report["left"]["elsewhere"] == 0 < report["left"]["unheard"]
        third.host.resume()
        await ward.stage.pause(40)
        assert scrub_of_other.report()["health"] == "healthy"

    play(work)


def test_a_pass_that_breaks_off_is_no_good_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(ward: Ward) -> None:
        await ward.write(3)
        await ward.scrub()
        assert ward.health() == ["healthy"] * 4

        def fail(*_: Any) -> Any:
            raise EnvironmentProblem("a page cannot be read")

        monkeypatch.setattr(scrub, "occupied", fail)
        passes = await ward.scrub()
        assert ward.health() == ["the last pass broke off"] * 4
        assert all("a page cannot be read" in done.broke_off for done in passes)
        monkeypatch.undo()
        await ward.scrub()
        assert ward.health() == ["healthy"] * 4

    play(work)


def test_what_cannot_be_healed_is_tried_again_between_passes() -> None:
    """Its mate comes back: the copy is healed without another pass, and no pass is needed to say so."""

    async def work(ward: Ward) -> None:
        await ward.write(6)
        (one, key), (other, other_key), _ = next(iter(ward.copies(Kind.OBJECT).values()))
        one.disk.rot(key)
        good = other.disk.image().sealed[other_key]
        other.disk.rot(other_key)
        await ward.scrub()
        assert "1 copies not good" in ward.health()
        other.disk.poke(other_key, good)
        await ward.stage.pause(70)
        assert ward.health() == ["healthy"] * 4 and not rotten_keys(one) and not ward.differing()

    play(work)


def test_a_lost_record_is_healed_above_the_ceiling_of_who_lost_it() -> None:
    """Not by a round in which its plane votes as one that is new: what it had promised is lost as well."""

    async def work(ward: Ward) -> None:
        await ward.write(6)
        (one, key), *_ = next(iter(ward.copies(Kind.OBJECT).values()))
        one.disk.lose(key)
        ceiling = engine_of(one).acceptor.ceiling.top
        await ward.scrub()
        assert not ward.differing() and ward.health() == ["healthy"] * 4
        with one.disk.read() as txn:
            slot = decode_slot(bytes(txn.get(key) or b""), NO_BALLOT)
        assert counter_of(slot.accepted) > ceiling

    play(work)


def test_a_copy_that_missed_a_delete_in_a_bucket_that_is_gone_is_no_fault() -> None:
    """No ACC passes there any more: it cannot be healed, and nobody can ask for it."""

    async def work(ward: Ward) -> None:
        await ward.write(4)
        objects: Any = ward.stage.objects[0]
        *_, (away, _) = next(iter(ward.copies(Kind.OBJECT).values()))
        away.host.power_off()
        for number in range(4):
            await ward.stage.on(0, "delete", objects.delete(BUCKET, f"key{number}"))
        await ward.stage.on(0, "delete bucket", objects.buckets.delete(BUCKET))
        away.host.start()
        while away.engine is None:
            await ward.stage.pause(0.05)
        await ward.stage.pause(OLD_S)
        await ward.scrub()
        assert ward.health() == ["healthy"] * 4

    play(work)


def test_writes_beside_a_pass_are_no_faults() -> None:
    async def work(ward: Ward) -> None:
        await ward.write(6)
        puts = spawn("puts", _put_for(ward, 12.0))
        for _ in range(2):
            passes = await ward.scrub()
            assert ward.health() == ["healthy"] * 4
            assert not any(done.unrepaired or done.elsewhere or done.rotten for done in passes)
        await puts

    play(work)


async def _put_for(ward: Ward, seconds: float) -> None:
    ends_s, number = ward.stage.now_s + seconds, 0
    while ward.stage.now_s < ends_s:
        await ward.put(f"key{number % 6}", f"newer{number}")
        await ward.stage.pause(0.2)
        number += 1


def test_a_node_that_starts_again_in_the_middle_of_a_pass_is_not_called_healthy_unread() -> None:
    async def work(ward: Ward) -> None:
        await ward.write()
        for node in ward.nodes:
            engine_of(node).upkeep.scrub.request()
        await ward.stage.pause(0.01)
        again = ward.nodes[1]
        again.host.power_off()
        await ward.stage.pause(1.0)
        again.host.start()
        while again.engine is None:
            await ward.stage.pause(0.05)
        assert engine_of(again).upkeep.scrub.report()["health"] == "not checked yet"
        await ward.scrub()
        assert ward.health() == ["healthy"] * 4 and not ward.differing()

    play(work)


def test_one_key_is_asked_for_whatever_stands_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """More names lie between it and its own stem than a page has entries."""
    looks: list[bytes] = []
    look = Mender._mend_alone

    async def counted(self: Mender, stored_key: bytes) -> Mended:
        looks.append(stored_key)
        return await look(self, stored_key)

    async def work(ward: Ward) -> None:
        await ward.write(60)
        copies = ward.copies(Kind.OBJECT)
        name = max(copies, key=lambda key: sum(key[:-1] < other < key for other in copies))
        assert sum(name[:-1] < other < name for other in copies) > 3
        monkeypatch.setattr(survey_module, "SURVEY_ENTRIES_MAX", 3)
        monkeypatch.setattr(Mender, "_mend_alone", counted)
        node, stored_key = copies[name][0]
        node.disk.rot(stored_key)
        found = await engine_of(node).upkeep.mender.mend(stored_key)
        assert (found.fault, found.is_good) == ("rotten", True)
        await ward.stage.pause(30.0)
        assert len(looks) == 1
        assert not ward.differing()

    play(work)


def test_plane_that_has_only_promised_asks_all_planes() -> None:
    """It may have lost what it accepted, and then it must not be half of a majority."""
    asked: list[bool] = []

    class Settled:
        async def settle(self, label: bytes, planes: object, *, is_by_all: bool = False) -> None:
            asked.append(is_by_all)

    mender = Mender.__new__(Mender)
    names = SimpleNamespace(of_stored=lambda key: SimpleNamespace(label=b""))
    coordinator = SimpleNamespace(planes_of=lambda name: ())
    mender._tools = SimpleNamespace(names=names, settler=Settled(), coordinator=coordinator)  # type: ignore[assignment]
    mender._has_slot = lambda stored_key: True  # type: ignore[method-assign]
    asyncio.run(mender._agree(b"\x10\0\0\0\1" + b"x" * 9, {1: None, 0: b"h" * 24}))
    asyncio.run(mender._agree(b"\x10\0\0\0\1" + b"x" * 9, {1: b"g" * 24, 0: b"h" * 24}))
    assert asked == [True, False]
