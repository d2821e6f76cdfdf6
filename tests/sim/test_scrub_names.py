"""What records name: a pass sees blobs that are gone everywhere, and keeps those that nothing kept."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from ssastore.core import survey as survey_module
from ssastore.core.blobstore import references_of
from ssastore.core.content import Blobs
from ssastore.core.mend import Mender
from ssastore.core.records import split_place
from ssastore.errors import CorruptObject, ObjectNotFound
from ssastore.messages import Kind
from ssastore.sim.workload import BUCKET
from tests.sim.ward import OLD_S, Ward, engine_of, keys_of, play

NOT_HEALED = "no plane has a good copy of a blob that it names"
AGAIN_S = 45.0
"Longer than until what was left is tried again."


@pytest.fixture(autouse=True)
def quiet() -> Any:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects of few bytes have manifests."""
    monkeypatch.setattr("ssastore.core.content.CHUNK_BYTES", 512)
    monkeypatch.setattr("ssastore.core.content.SEGMENTS_MAX", 4)
    monkeypatch.setattr("ssastore.core.content._MANIFEST_SEGMENTS", 8)


def lose(ward: Ward, *kinds: Kind, digest: bytes | None = None) -> set[bytes]:
    """Take blobs, references or both from all planes; of one blob, or of all. The digests."""
    lost = set()
    for node in ward.nodes:
        for key in keys_of(node):
            if split_place(key)[1] in kinds and digest in (None, key[5:37]):
                node.disk.lose(key)
                lost.add(key[5:37])
    return lost


def left(ward: Ward) -> dict[str, int]:
    """Why copies are not good, as all nodes say together."""
    why: dict[str, int] = {}
    for node in ward.nodes:
        for reason, count in engine_of(node).upkeep.scrub.report()["left"]["why"].items():
            why[reason] = why.get(reason, 0) + count
    return why


def objects_left(ward: Ward) -> list[str]:
    return sorted(
        name for node in ward.nodes for name in engine_of(node).upkeep.scrub.report()["left"]["objects"]
    )


async def put_large(ward: Ward, key: str, size: int) -> None:
    """An object of blobs that are its own."""
    objects: Any = ward.stage.objects[0]

    async def put() -> None:
        writer = objects.writer(await objects.bucket(BUCKET), key.encode(), inline_bytes_max=0)
        await writer.write(ward.stage.world.stream(key).bytes(size))
        await objects.commit(BUCKET, key, await writer.finish(), "etag")

    await ward.stage.on(0, "put", put())


async def read(ward: Ward, key: str) -> Any:
    objects: Any = ward.stage.objects[0]

    async def read() -> Any:
        return await (await objects.open(BUCKET, key)).read()

    return await ward.stage.on(0, "read", read())


async def delete(ward: Ward, key: str) -> None:
    objects: Any = ward.stage.objects[0]
    await ward.stage.on(0, "delete", objects.delete(BUCKET, key))


def test_an_object_whose_blob_is_gone_on_all_planes_is_named() -> None:
    """As after the loss of what was newer than the backups: blob and references are nowhere."""

    async def work(ward: Ward) -> None:
        await ward.write(6)
        await put_large(ward, "large", 100)
        await ward.stage.pause(OLD_S)
        assert all(done.is_healthy for done in await ward.scrub())
        (digest,) = ward.blobs_of("large")
        assert lose(ward, Kind.BLOB, Kind.REF, digest=digest)
        with pytest.raises(CorruptObject):
            await read(ward, "large")
        for _ in range(2):
            passes = await ward.scrub()
            assert sum(done.unrepaired for done in passes) == 1 and not sum(done.elsewhere for done in passes)
            assert left(ward) == {NOT_HEALED: 1}
            assert objects_left(ward) == [f"{BUCKET}/large"]
        await put_large(ward, "large", 200)
        await ward.scrub()
        assert ward.health() == ["healthy"] * 4 and not objects_left(ward), "the pass has seen it"
        lose(ward, Kind.BLOB, Kind.REF)
        await ward.scrub()
        assert f"{BUCKET}/large" in objects_left(ward)
        for key in ("large", "key1", "key3", "key5"):
            await delete(ward, key)
        await ward.stage.pause(AGAIN_S)
        assert ward.health() == ["healthy"] * 4 and not objects_left(ward)

    play(work)


def test_a_blob_that_nothing_keeps_is_kept_again_on_all_planes() -> None:
    """Its references are gone, and it itself but for one plane."""

    async def work(ward: Ward) -> None:
        await put_large(ward, "large", 100)
        await ward.write(0)
        (digest,) = ward.blobs_of("large")
        lose(ward, Kind.REF, digest=digest)
        _, *others = next(iter(ward.copies(Kind.BLOB).values()))
        for node, key in others:
            node.disk.lose(key)
        passes = await ward.scrub()
        assert ward.health() == ["healthy"] * 4 and sum(done.repaired for done in passes) >= 1
        await ward.stage.pause(OLD_S)
        await ward.scrub()
        assert not ward.differing() and len(next(iter(ward.copies(Kind.BLOB).values()))) == 3
        assert len(await read(ward, "large")) == 100
        for node, key in next(iter(ward.copies(Kind.BLOB).values())):
            with node.disk.read() as txn:
                kept = references_of(txn, int.from_bytes(key[:4], "big"), digest)
            assert any(ref is not None and ref.name.endswith(b"large") for _, ref in kept)

    play(work)


def test_references_without_their_blob_are_seen() -> None:
    """Planes that lack the same are alike."""

    async def work(ward: Ward) -> None:
        await put_large(ward, "large", 100)
        await ward.write(0)
        lose(ward, Kind.BLOB)
        passes = await ward.scrub()
        assert ward.health().count("healthy") < 4 and sum(done.unrepaired for done in passes) >= 1
        await delete(ward, "large")
        await put_large(ward, "large", 100)
        await ward.stage.pause(AGAIN_S)
        assert ward.health() == ["healthy"] * 4

    play(work)


def test_blobs_behind_manifests_are_looked_for(small_chunks: None) -> None:
    async def work(ward: Ward) -> None:
        await put_large(ward, "large", 512 * 20)
        await ward.write(0)
        passes = await ward.scrub()
        named = sum(done.named for done in passes)
        assert ward.health() == ["healthy"] * 4 and named == len(ward.copies(Kind.BLOB)) == 23
        blobs = sorted(key[5:] for key in ward.copies(Kind.BLOB))
        lost = next(digest for digest in blobs if digest not in ward.blobs_of("large"))
        lose(ward, Kind.BLOB, Kind.REF, digest=lost)
        await ward.scrub()
        assert left(ward) == {NOT_HEALED: 1} and objects_left(ward) == [f"{BUCKET}/large"]

    play(work)


@pytest.mark.parametrize("change", ["deleted", "overwritten"])
def test_an_object_that_changes_while_it_is_looked_at_is_no_fault(
    change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its old blob is swept between the look at the record and that at the blob."""
    changed: list[bytes] = []
    get = Blobs.get

    async def work(ward: Ward) -> None:
        async def get_late(blobs: Blobs, digest: bytes) -> Any:
            try:
                return await get(blobs, digest)
            except ObjectNotFound:
                if not changed:
                    changed.append(digest)
                    if change == "deleted":
                        await delete(ward, "large")
                    else:
                        await put_large(ward, "large", 200)
                raise

        await put_large(ward, "large", 100)
        await ward.write(0)
        lose(ward, Kind.BLOB, Kind.REF)
        monkeypatch.setattr(Blobs, "get", get_late)
        passes = await ward.scrub()
        assert changed and ward.health() == ["healthy"] * 4
        assert not any(done.unrepaired or done.elsewhere for done in passes)

    play(work)


def test_a_record_that_is_healed_in_the_pass_is_asked_about_as_well() -> None:
    """The plane that asks had lost it, or has an older one, as when its backup is older than the others."""

    async def work(ward: Ward) -> None:
        await put_large(ward, "large", 100)
        await ward.write(0)
        lose(ward, Kind.BLOB, Kind.REF)
        (copies,) = [copies for key, copies in ward.copies(Kind.OBJECT).items() if key.endswith(b"large")]
        (asking,) = [copy for copy in copies if engine_of(copy[0]).upkeep.named.read(copy[1])]
        asking[0].disk.lose(asking[1])
        await ward.scrub()
        assert left(ward) == {NOT_HEALED: 1}

    play(work)


def test_a_healthy_cluster_wants_no_close_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where every page ends behind a blob, before its references."""
    looks: list[bytes] = []
    look = Mender._mend_alone

    async def counted(self: Mender, stored_key: bytes) -> Any:
        looks.append(stored_key)
        return await look(self, stored_key)

    async def work(ward: Ward) -> None:
        await ward.write(12)
        monkeypatch.setattr(survey_module, "SURVEY_BYTES_MAX", 1)
        monkeypatch.setattr(Mender, "_mend_alone", counted)
        passes = await ward.scrub()
        assert ward.health() == ["healthy"] * 4 and sum(done.named for done in passes) == 6
        assert not looks

    play(work)


def test_small_objects_are_not_asked_about() -> None:
    async def work(ward: Ward) -> None:
        for number in range(0, 20, 2):
            await ward.put(f"key{number}", "inline")
        await ward.stage.pause(OLD_S)
        passes = await ward.scrub()
        assert sum(done.objects for done in passes) >= 30 and not any(done.named for done in passes)

    play(work)


def test_a_part_counts_while_its_upload_is_open() -> None:
    async def work(ward: Ward) -> None:
        objects: Any = ward.stage.objects[0]

        async def upload() -> str:
            bucket = await objects.bucket(BUCKET)
            uploads = objects.multipart(bucket)
            upload_id: str = await uploads.create(b"large", {}, {})
            key = b"large\0" + upload_id.encode()
            writer = objects.writer(bucket, key, inline_bytes_max=0)
            await writer.write(b"part" * 9)
            await uploads.put_part(b"large", upload_id, 1, "etag", await writer.finish())
            return upload_id

        upload_id = await ward.stage.on(0, "upload", upload())
        await ward.write(0)
        await ward.scrub()
        assert ward.health() == ["healthy"] * 4
        lose(ward, Kind.BLOB, Kind.REF)
        await ward.scrub()
        assert left(ward) == {NOT_HEALED: 1}
        assert objects_left(ward) == [f"{BUCKET}/large (part 1 of upload {upload_id})"]
        for copies in ward.copies(Kind.UPLOAD).values():
            for node, key in copies:
                node.disk.lose(key)
        await ward.stage.pause(AGAIN_S)
        assert ward.health() == ["healthy"] * 4, "nobody can complete it any more"

    play(work)
