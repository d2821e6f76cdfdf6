"""Buckets and keys seen as directories and files. Coroutines on a client.

Directories are not stored: they are what keys have in common up to a slash, and vanish with the last of
them.  A key that ends with a slash, as some S3 tools make, marks a directory that has nothing else.  An
object and a directory may have the same name; then the name means the object.
"""

from __future__ import annotations

import errno
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any, cast

from fsspec.asyn import _run_coros_in_chunks

from ssastore.client import AsyncBucket, AsyncClient
from ssastore.core.buckets import Bucket
from ssastore.core.objects import CommonPrefix, ObjectInfo
from ssastore.errors import (
    BucketNotFound,
    InvalidBucketName,
    InvalidKey,
    ObjectNotFound,
    RequestError,
)
from ssastore.fsspec.paths import below, split_path

Info = dict[str, Any]
"""What fsspec says of a path: name, size, type; of an object ETag and LastModified; of a bucket created."""


def not_found(path: str) -> OSError:
    """FileNotFoundError as the operating system would raise it."""
    return OSError(errno.ENOENT, "No such object, directory or bucket", path)


def is_directory(path: str) -> OSError:
    """IsADirectoryError, for what only an object can do."""
    return OSError(errno.EISDIR, "Not an object", path)


def _at_ms(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def file_info(bucket: str, known: ObjectInfo) -> Info:
    """Of an object; content type and metadata only where they are known, so not in listings."""
    info = {
        "name": f"{bucket}/{known.key}",
        "size": known.size,
        "type": "file",
        "ETag": known.etag,
        "LastModified": _at_ms(known.modified_ms),
    }
    if content_type := known.headers.get("content-type"):
        info["ContentType"] = content_type
    if known.metadata:
        info["metadata"] = known.metadata
    return info


def _directory_info(name: str) -> Info:
    return {"name": name, "size": 0, "type": "directory"}


def _bucket_info(bucket: Bucket) -> Info:
    return {**_directory_info(bucket.name), "created": _at_ms(bucket.created_ms)}


async def path_info(client: AsyncClient, path: str) -> Info:
    """Of whatever the path names. Raises FileNotFoundError."""
    bucket, key = split_path(path)
    if not bucket:
        return _directory_info("")
    try:
        if not key:
            return _bucket_info(await client.objects.buckets.read(bucket))
        try:
            return file_info(bucket, await client.bucket(bucket).head(key))
        except ObjectNotFound:
            if await _has_children(client, bucket, key):
                return _directory_info(path)
            raise
    except (InvalidBucketName, InvalidKey) as error:
        raise not_found(path) from error


async def _has_children(client: AsyncClient, bucket: str, key: str) -> bool:
    listing = client.objects.list(bucket, prefix=below(key), page_size=1)
    try:
        # Closed here and now: what a loop leaves for later is cut off when the loop ends.
        async with aclosing(cast("AsyncGenerator[Any]", listing)) as entries:
            return await anext(entries, None) is not None
    except RequestError:
        return False  # a hashed bucket has no order, so no directories


async def directory(client: AsyncClient, path: str) -> list[Info]:
    """What is directly below a path; of an object, itself. Raises FileNotFoundError."""
    bucket, key = split_path(path)
    if not bucket:
        return [_bucket_info(one) async for one in client.objects.buckets.all()]
    infos = []
    is_there = not key
    start = below(key)
    async for entry in client.bucket(bucket).list(start, delimiter="/"):
        is_there = True
        if isinstance(entry, CommonPrefix):
            if entry.prefix != f"{start}/":  # fsspec has no path for a directory without a name
                infos.append(_directory_info(f"{bucket}/{entry.prefix[:-1]}"))
        elif entry.key != start:
            infos.append(file_info(bucket, entry))
    if not is_there:
        infos.append(file_info(bucket, await client.bucket(bucket).head(key)))
    return infos


async def find(client: AsyncClient, path: str, depth: int | None, prefix: str) -> dict[str, Info]:
    """The path and all below it, ``depth`` levels; of the first level what begins with ``prefix``.

    Without ``depth`` it is one listing of a bucket, however deep the keys lie.  Empty when nothing is there.
    """
    bucket, key = split_path(path)
    if bucket:
        return await _find_in_bucket(client, bucket, key, depth, prefix)
    found: dict[str, Info] = {}
    for info in await directory(client, ""):
        if info["name"].startswith(prefix):
            found[info["name"]] = info
            if depth != 1:
                deeper = None if depth is None else depth - 1
                found |= await _find_in_bucket(client, info["name"], "", deeper, "")
    return found


async def _find_in_bucket(
    client: AsyncClient, bucket: str, key: str, depth: int | None, prefix: str
) -> dict[str, Info]:
    handle = client.bucket(bucket)
    found: dict[str, Info] = {}
    path = f"{bucket}/{key}" if key else bucket
    is_there = not key
    try:
        async for entry, known in _entries(handle, below(key) + prefix, depth):
            is_there = True
            _collect(found, bucket, start=below(key), entry=entry, known=known)
        if is_there:
            found[path] = _directory_info(path)
        elif not prefix:
            found[path] = file_info(bucket, await handle.head(key))
    except (ObjectNotFound, BucketNotFound, InvalidBucketName, InvalidKey):
        return {}
    return found


def _collect(
    found: dict[str, Info], bucket: str, *, start: str, entry: str, known: ObjectInfo | None
) -> None:
    """Add a key and the directories between ``start`` and it."""
    at = entry.find("/", len(start))
    while at >= 0:
        if at > 0 and entry[at - 1] != "/":  # fsspec has no path for a directory without a name
            name = f"{bucket}/{entry[:at]}"
            found.setdefault(name, _directory_info(name))
        at = entry.find("/", at + 1)
    if known is not None and not entry.endswith("/"):
        found[f"{bucket}/{entry}"] = file_info(bucket, known)


async def _entries(
    bucket: AsyncBucket, start: str, depth: int | None
) -> AsyncIterator[tuple[str, ObjectInfo | None]]:
    """Keys that begin with ``start``, ``depth`` levels of them; with None for a common prefix.

    With ``depth`` it is one listing for each directory: what lies deeper is not read.
    """
    async for entry in bucket.list(start, delimiter="" if depth is None else "/"):
        if isinstance(entry, ObjectInfo):
            yield entry.key, entry
            continue
        yield entry.prefix, None
        if depth is not None and depth > 1:
            async for deeper in _entries(bucket, entry.prefix, depth - 1):
                yield deeper


async def delete_tree(client: AsyncClient, path: str, depth: int | None, *, at_once: int) -> int:
    """Delete the object of a path and those below it, ``depth`` levels; how many there were."""
    name, key = split_path(path)
    bucket = client.bucket(name)
    keys = [key] if key else []
    if depth != 0:
        keys += [entry async for entry, known in _entries(bucket, below(key), depth) if known is not None]
    waiting = iter(keys)

    async def work() -> int:
        return sum([await bucket.delete(one) for one in waiting])

    workers = [work() for _ in range(min(at_once, len(keys)))]
    return sum(await _run_coros_in_chunks(workers, batch_size=len(workers))) if workers else 0
