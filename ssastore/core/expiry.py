"""Carrying out lifecycle rules: one worker for each shard of the system bucket. Coroutines.

The worker that votes in plane 0 of the shard in which a bucket's record is looks after that bucket.  All that
it does is what a client might do, on condition of what it has seen, so it does no harm when two do
it for a while, or when one stops half way: the next pass finds what is left.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress

from ssastore.core.buckets import SYSTEM, Bucket
from ssastore.core.demand import Demand
from ssastore.core.lifecycle import Known, Rule, candidates, is_abandoned, rules_of
from ssastore.core.locks import is_locked
from ssastore.core.metadata import Metadata
from ssastore.core.objects import CommonPrefix, Objects
from ssastore.core.shards import position_of_part
from ssastore.core.versionlist import ListedVersion, Wanted
from ssastore.env import Clock
from ssastore.errors import (
    AccessDenied,
    BucketNotFound,
    NotFound,
    OutcomeUnknown,
    PreconditionFailed,
    SsaStoreError,
    TryLater,
)
from ssastore.limits import LIST_KEYS_MAX
from ssastore.messages import Kind

log = logging.getLogger(__name__)

_PASSES_A_DAY = 4
_PREFIX = b"bucket/"


class Expiry:
    """Lifecycle of the buckets that are this worker's to look after.

    Args:
        objects: of the whole service.
        clock: of ages.
        day_ms: what a day is.
        is_ours: whether this worker votes for an IID.
    """

    def __init__(self, objects: Objects, clock: Clock, day_ms: int, is_ours: Callable[[int], bool]) -> None:
        self._objects = objects
        self._clock = clock
        self._day_ms = day_ms
        self._is_ours = is_ours

    async def run(self) -> None:
        """Passes for ever; what fails is tried again in the next one."""
        while True:
            await asyncio.sleep(self._day_ms / 1000 / _PASSES_A_DAY)
            try:
                await self.work()
            except SsaStoreError as error:
                log.warning("lifecycle.failed", extra={"reason": str(error)})

    async def work(self) -> None:
        """One pass over all buckets that are ours."""
        for shard in range(SYSTEM.shards):
            if self._is_ours(position_of_part(SYSTEM, shard)):
                async for name in self._buckets(shard):
                    await self._look_after(name)

    async def _buckets(self, shard: int) -> AsyncIterator[str]:
        after, is_more = b"", True
        while is_more:
            page = await self._objects.registers.shards.page(
                SYSTEM, Kind.OBJECT, shard, prefix=_PREFIX, after=after, limit=LIST_KEYS_MAX
            )
            for key, *_ in page.rows:
                yield key[len(_PREFIX) :].decode()
            after, is_more = page.last, page.truncated

    async def _look_after(self, name: str) -> None:
        try:
            bucket = await self._objects.buckets.read(name)
            rules = rules_of(bucket.config)
            if rules and bucket.is_indexed:
                await self.expire(bucket, rules)
        except BucketNotFound:
            return
        except SsaStoreError as error:
            log.warning("lifecycle.failed", extra={"bucket": name, "reason": str(error)})

    async def expire(self, bucket: Bucket, rules: list[Rule]) -> None:
        """Everything of a bucket that is due now."""
        failures = _Failures(bucket.name)
        for prefix in _roots(rules):
            async for key, versions in self._keys(bucket, prefix):
                if not await self._is_still_so(bucket):
                    return
                with failures.of_one_key():
                    await self._expire_key(bucket, rules, key, versions)
        multipart = self._objects.multipart(bucket)
        now_ms = self._clock.now_ms()
        for prefix in _roots([rule for rule in rules if rule.abort_days is not None]):
            async for upload in multipart.uploads(prefix.encode(), b""):
                if not await self._is_still_so(bucket):
                    return
                if is_abandoned(rules, upload.key.decode(), upload.started_ms, now_ms, self._day_ms):
                    with failures.of_one_key(), suppress(NotFound):
                        await multipart.abort(upload.key, upload.upload_id)

    async def _is_still_so(self, bucket: Bucket) -> bool:
        """Whether the rules are still those of the bucket, some seconds ago: a pass may take hours."""
        now = await self._objects.buckets.current(bucket.name)
        return now.place == bucket.place and now.config.get("lifecycle") == bucket.config.get("lifecycle")

    async def _keys(self, bucket: Bucket, prefix: str) -> AsyncIterator[tuple[str, list[Known]]]:
        """Keys in order, each with all of its versions."""
        key, versions = "", list[Known]()
        async for entry in self._objects.list_versions(bucket.name, Wanted(prefix=prefix)):
            if isinstance(entry, CommonPrefix):
                continue
            if entry.key != key and versions:
                yield key, versions
                versions = []
            key = entry.key
            versions.append(_known(entry))
        if versions:
            yield key, versions

    async def _expire_key(self, bucket: Bucket, rules: list[Rule], key: str, versions: list[Known]) -> None:
        now_ms = self._clock.now_ms()

        def guard(metadata: Metadata) -> None:
            if is_locked(metadata, now_ms):
                raise AccessDenied("the version is locked")

        for candidate in candidates(rules, key, versions, now_ms, self._day_ms):
            known = candidate.known
            is_current = known.is_latest and not known.is_marker
            version = None if is_current else known.version
            demand = Demand(known.etag or None, modified_s=known.modified_ms // 1000, size=known.size)
            try:
                if not await self._has_tags(bucket, key, candidate.rules, version):
                    continue
                await self._objects.delete(
                    bucket.name, key, version, demand=demand, guard=guard, is_earlier=not known.is_latest
                )
            except (PreconditionFailed, NotFound, AccessDenied):
                continue  # It was changed or deleted meanwhile, or is to be kept.

    async def _has_tags(self, bucket: Bucket, key: str, rules: list[Rule], version: str | None) -> bool:
        """Whether one of the rules is for the tags of an object. They are read only when it matters."""
        if any(not rule.tags for rule in rules):
            return True
        info = await self._objects.head(bucket.name, key, version)
        tags = info.extra.get("tags", {})
        return any(rule.covers(key, info.size, tags) for rule in rules)


class _Failures:
    """Of a pass over one bucket: what fails at one key keeps no other. The first is told in the log."""

    def __init__(self, bucket: str) -> None:
        self._bucket = bucket
        self._is_told = False

    @contextmanager
    def of_one_key(self) -> Iterator[None]:
        try:
            yield
        except (TryLater, OutcomeUnknown):
            raise  # Of nodes rather than of the key: the next pass does it.
        except SsaStoreError as error:
            if not self._is_told:
                log.warning("lifecycle.failed", extra={"bucket": self._bucket, "reason": str(error)})
            self._is_told = True


def _known(entry: ListedVersion) -> Known:
    return Known(entry.version, entry.modified_ms, entry.etag, entry.size, entry.is_latest, entry.is_marker)


def _roots(rules: list[Rule]) -> list[str]:
    """Prefixes that hold all keys of the rules, and none within another."""
    roots: list[str] = []
    for prefix in sorted({rule.prefix for rule in rules}):
        if not roots or not prefix.startswith(roots[-1]):
            roots.append(prefix)
    return roots
