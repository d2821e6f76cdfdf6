"""The filesystem: fsspec's coroutines on a client. What they mean for keys is in ``tree``."""

from __future__ import annotations

import asyncio
import errno
import io
import os  # noqa: TID251  # a shell: paths of this machine
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from glob import has_magic
from typing import IO, Any, cast

from fsspec.asyn import AsyncFileSystem, sync_wrapper
from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.utils import isfilelike, stringify_path, tokenize

from ssastore.client import AsyncBucket, AsyncClient, Source
from ssastore.core.objects import ObjectReader
from ssastore.env import Links
from ssastore.errors import (
    BucketAlreadyExists,
    BucketNotEmpty,
    BucketNotFound,
    ObjectNotFound,
    PreconditionFailed,
)
from ssastore.fsspec import tree
from ssastore.fsspec.file import SsaFile
from ssastore.fsspec.paths import options_of, path_of, split_path, url_of
from ssastore.fsspec.session import Session
from ssastore.limits import INLINE_BYTES_MAX, MIB, SHARDS_DEFAULT

_FILES_AT_ONCE = 64
"""Files of one bulk operation under way. Each may hold two chunks, one filling and one on its way, so this
bounds memory at half a GiB; fsspec's own default counts file descriptors and would allow far more."""

_COPY_BYTES = 1 * MIB
"One read of a local file."


class SsaFileSystem(AsyncFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Buckets and objects of one service as directories and files.

    One instance has one client, made on the event loop when it is first needed.  With
    ``asynchronous=True`` that loop is the caller's; ``await (await fs.set_session()).close()`` ends it.
    """

    protocol = "ssa"

    def __init__(
        self,
        service: str | None = None,
        *,
        access_key: str | None = None,
        secret_key: str | None = None,
        port: int | None = None,
        replicas: int | None = None,
        deadline_ms: int | None = None,
        links: Links | None = None,
        batch_size: int | None = None,
        use_listings_cache: bool = False,
        **options: Any,
    ) -> None:
        """Make a filesystem; nothing connects yet.

        Args:
            service: the /64 (or its first address), or an ``ssa://`` URL; else SSASTORE_URL says it.
            access_key: name of the key; else SSASTORE_ACCESS_KEY.
            secret_key: its secret; else SSASTORE_SECRET_KEY, or the file that SSASTORE_SECRET_KEY_FILE names.
            port: native port of the nodes.
            replicas: what the cluster must have (1, 3, 5).
            deadline_ms: bound on one call, retries included.
            links: how addresses are reached; the kernel's routes by default.
            batch_size: files of one bulk operation under way.
            use_listings_cache: remember what ``ls`` saw until this instance changes it;
                ``listings_expiry_time`` (seconds) bounds its age.
            options: those of ``fsspec.asyn.AsyncFileSystem`` (``asynchronous``, ``loop`` ...).

        Raises:
            ConfigError: no service is named, or it is not a /64.
        """
        batch_size = batch_size or _FILES_AT_ONCE
        super().__init__(batch_size=batch_size, use_listings_cache=use_listings_cache, **options)
        self._session = Session(
            service,
            port=port,
            replicas=replicas,
            access_key=access_key,
            secret_key=secret_key,
            deadline_ms=deadline_ms,
            links=links,
        )

    async def set_session(self) -> AsyncClient:
        """The client, made on the running loop at the first call.

        Raises:
            RuntimeError: the instance is at work on another loop, or was made before a fork.
        """
        return self._session.client()

    # -- paths --------------------------------------------------------------------------------------

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [path_of(stringify_path(one)) for one in path]
        return path_of(stringify_path(path))

    @staticmethod
    def _get_kwargs_from_urls(path: Any) -> dict[str, Any]:
        return options_of(stringify_path(path))

    def unstrip_protocol(self, name: str) -> str:
        """A URL that names the service too."""
        return url_of(self._session.service, self._session.port, self._strip_protocol(name))

    async def _object(self, path: Any) -> tuple[AsyncBucket, str]:
        """The bucket's handle and the key. Raises IsADirectoryError for a bucket."""
        bucket, key = split_path(self._strip_protocol(path))
        if not key:
            raise tree.is_directory(str(path))
        return (await self.set_session()).bucket(bucket), key

    def invalidate_cache(self, path: Any = None) -> None:
        """Forget the listings of a path, of what is below it, and of the directories that it is in."""
        if path is None:
            self.dircache.clear()
        else:
            path = self._strip_protocol(path)
            for listed in list(self.dircache):
                if not listed or f"{path}/".startswith(f"{listed}/") or listed.startswith(f"{path}/"):
                    self.dircache.pop(listed, None)
        super().invalidate_cache(path)

    # -- what is there ------------------------------------------------------------------------------

    async def _info(self, path: Any, **kwargs: Any) -> tree.Info:
        return await tree.path_info(await self.set_session(), self._strip_protocol(path))

    # fsspec takes every OSError for "no": then an unreachable node would send a copy to the wrong place.

    async def _isdir(self, path: Any) -> bool:
        try:
            return bool((await self._info(path))["type"] == "directory")
        except FileNotFoundError:
            return False

    async def _isfile(self, path: Any) -> bool:
        try:
            return bool((await self._info(path))["type"] == "file")
        except FileNotFoundError:
            return False

    async def _ls(self, path: Any, detail: bool = True, refresh: bool = False, **kwargs: Any) -> list[Any]:
        path = self._strip_protocol(path)
        infos: list[tree.Info] | None = None if refresh else self.dircache.get(path)
        if infos is None:
            infos = self.dircache[path] = await tree.directory(await self.set_session(), path)
        return [dict(info) for info in infos] if detail else [info["name"] for info in infos]

    async def _walk(
        self, path: Any, maxdepth: int | None = None, *args: Any, on_error: Any = "omit", **kwargs: Any
    ) -> AsyncIterator[Any]:
        # fsspec would leave out what cannot be read; here only what is not there.
        handler = _raise_unless_missing if on_error == "omit" else on_error
        async for step in super()._walk(path, maxdepth, *args, on_error=handler, **kwargs):
            yield step

    async def _find(
        self,
        path: Any,
        maxdepth: int | None = None,
        withdirs: bool = False,
        detail: bool = False,
        **kwargs: Any,
    ) -> Any:
        if maxdepth is not None and maxdepth < 1:
            raise ValueError("maxdepth must be at least 1")
        client = await self.set_session()
        found = await tree.find(client, self._strip_protocol(path), maxdepth, kwargs.get("prefix", ""))
        if not withdirs:
            found = {name: info for name, info in found.items() if info["type"] == "file"}
        return dict(sorted(found.items())) if detail else sorted(found)

    async def _du(self, path: Any, total: bool = True, maxdepth: int | None = None, **kwargs: Any) -> Any:
        found = await self._find(path, maxdepth=maxdepth, detail=True)
        sizes = {name: info["size"] for name, info in found.items()}
        return sum(sizes.values()) if total else sizes

    def checksum(self, path: Any) -> int:
        """Made of the ETag alone: it changes when the content does, not when that is written again."""
        info = self.info(path)
        return int(tokenize(info.get("ETag", info)), 16)

    def ukey(self, path: Any) -> str:
        """The ETag; of a directory, what fsspec makes up."""
        return str(self.info(path).get("ETag") or super().ukey(path))

    async def _modified(self, path: Any) -> datetime:
        """When the current version was written. Raises IsADirectoryError for what has no time."""
        info = await self._info(path)
        known: datetime | None = info.get("LastModified") or info.get("created")
        if known is None:
            raise tree.is_directory(str(path))
        return known

    modified = sync_wrapper(_modified)
    created = sync_wrapper(_modified)  # an object is replaced, never changed: the two are one

    # -- reading ------------------------------------------------------------------------------------

    async def reader(self, path: Any) -> ObjectReader:
        """The current version of an object."""
        bucket, key = await self._object(path)
        return await bucket.open(key)

    async def _cat_file(
        self, path: Any, start: int | None = None, end: int | None = None, **kwargs: Any
    ) -> bytes:
        """All bytes, or those that a Python slice would take; an empty range gives none."""
        reader = await self.reader(path)
        if start is None and end is None:
            return await reader.read()
        first, last, _ = slice(start, end).indices(reader.info.size)
        return await reader.narrow(first, last - first).read() if first < last else b""

    async def _get_file(
        self, rpath: Any, lpath: Any, callback: Any = DEFAULT_CALLBACK, **kwargs: Any
    ) -> None:
        try:
            reader = await self.reader(rpath)
        except (ObjectNotFound, IsADirectoryError):
            if isfilelike(lpath) or not await self._isdir(rpath):
                raise
            os.makedirs(lpath, exist_ok=True)
            return
        if isfilelike(lpath):
            await _copy_out(reader, lpath, callback)
            return
        os.makedirs(os.path.dirname(os.path.abspath(lpath)), exist_ok=True)
        with open(lpath, "wb") as target:
            await _copy_out(reader, target, callback)

    # -- writing ------------------------------------------------------------------------------------

    async def store(
        self,
        path: Any,
        data: Source,
        mode: str = "overwrite",
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Put an object. Raises FileExistsError when ``mode`` is ``create`` and there is one."""
        if mode not in ("overwrite", "create"):
            raise ValueError(f"mode is 'overwrite' or 'create', got {mode!r}")
        bucket, key = await self._object(path)
        condition = "*" if mode == "create" else None
        try:
            await bucket.put(key, data, content_type=content_type, metadata=metadata, if_none_match=condition)
        except PreconditionFailed as error:
            raise OSError(errno.EEXIST, "Exists", str(path)) from error
        finally:
            self.invalidate_cache(path)

    async def _pipe_file(self, path: Any, value: bytes, mode: str = "overwrite", **described: Any) -> None:
        await self.store(path, value, mode, **described)

    async def _put_file(
        self,
        lpath: Any,
        rpath: Any,
        callback: Any = DEFAULT_CALLBACK,
        mode: str = "overwrite",
        **described: Any,
    ) -> None:
        if os.path.isdir(lpath):
            await self._makedirs(rpath, exist_ok=True)
            return
        with open(lpath, "rb") as source:
            size = os.fstat(source.fileno()).st_size
            callback.set_size(size)
            if size <= INLINE_BYTES_MAX:
                # As bytes it is one request; a stream reads the bucket's record first.
                await self.store(rpath, source.read(), mode, **described)
                callback.relative_update(size)
            else:
                await self.store(rpath, _pieces(source, callback), mode, **described)

    async def _cp_file(self, path1: Any, path2: Any, **kwargs: Any) -> None:
        """Copy one object through this client, chunk by chunk, with its content type and metadata.

        A directory is nothing to copy: the keys below it make it.
        """
        try:
            reader = await self.reader(path1)
        except (ObjectNotFound, IsADirectoryError):
            if not await self._isdir(path1):
                raise
            return
        known = reader.info
        # The client takes chunks that are views too.
        data = cast("Source", await reader.read() if known.size <= INLINE_BYTES_MAX else reader)
        await self.store(path2, data, content_type=known.headers.get("content-type"), metadata=known.metadata)

    async def _copy(self, path1: Any, path2: Any, on_error: str | None = None, **kwargs: Any) -> None:
        # fsspec would take the brackets of a service for a pattern here. And by default it ignores every
        # FileNotFoundError of a recursive copy, a missing target bucket among them.
        source, target = self._without_service(path1), self._without_service(path2)
        await super()._copy(source, target, on_error=on_error or "raise", **kwargs)

    def _without_service(self, path: Any) -> Any:
        """The path alone; a slash at its end stays, because it means "into this directory"."""
        if isinstance(path, list):
            return self._strip_protocol(path)
        text = stringify_path(path)
        return path_of(text) + ("/" if text.endswith("/") else "")

    async def _touch(self, path: Any, truncate: bool = True, **described: Any) -> None:
        """Make an empty object, or with ``truncate=False`` only where there is none.

        Raises:
            io.UnsupportedOperation: ``truncate=False`` and it exists; its time is that of its content.
        """
        try:
            await self.store(path, b"", "overwrite" if truncate else "create", **described)
        except FileExistsError as error:
            raise io.UnsupportedOperation("the time of an object changes only with its content") from error

    touch = sync_wrapper(_touch)

    async def _rm_file(self, path: Any, **kwargs: Any) -> None:
        bucket, key = await self._object(path)
        try:
            if not await bucket.delete(key):
                raise tree.not_found(str(path))
        finally:
            self.invalidate_cache(path)

    async def _rm(
        self,
        path: Any,
        recursive: bool = False,
        batch_size: int | None = None,
        maxdepth: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Delete objects; with ``recursive`` what is below them too, and a bucket with all that it holds."""
        if not recursive:
            await super()._rm(path, batch_size=batch_size)
            return
        for one in path if isinstance(path, list) else [path]:
            depth = maxdepth
            if depth is not None and has_magic(self._strip_protocol(one)):
                depth -= 1  # as in fsspec, the pattern is the first level
            for root in await self._expand_path(one):
                await self._rm_tree(root, depth, batch_size or self.batch_size)

    async def _rm_tree(self, root: str, depth: int | None, at_once: int) -> None:
        client = await self.set_session()
        is_bucket = "/" not in root
        try:
            deleted = await tree.delete_tree(client, root, depth, at_once=at_once)
            if not deleted and not is_bucket and depth != 0:
                raise tree.not_found(root)
            if is_bucket and depth is None:
                await self._rmdir(root)
        finally:
            self.invalidate_cache(root)

    # -- directories --------------------------------------------------------------------------------

    async def _mkdir(
        self, path: Any, create_parents: bool = True, shards: int = SHARDS_DEFAULT, **kwargs: Any
    ) -> None:
        """Create a bucket; below one there is nothing to create but, if need be, the bucket."""
        client = await self.set_session()
        bucket, key = split_path(self._strip_protocol(path))
        if not bucket:
            raise OSError(errno.EEXIST, "Exists", "/")
        if key:
            try:
                await client.objects.bucket(bucket)
                return
            except BucketNotFound:
                if not create_parents:
                    raise
        try:
            await client.create_bucket(bucket, shards=shards)
        except BucketAlreadyExists:
            if not key:
                raise
        finally:
            self.invalidate_cache(bucket)

    async def _makedirs(self, path: Any, exist_ok: bool = False) -> None:
        try:
            await self._mkdir(path)
        except FileExistsError:
            if not exist_ok:
                raise

    async def _rmdir(self, path: Any) -> None:
        """Delete an empty bucket.

        Raises:
            OSError: ENOTEMPTY for a bucket with objects, and for any directory below one: it is there only
                while something is in it.
        """
        bucket, key = split_path(self._strip_protocol(path))
        not_empty = OSError(errno.ENOTEMPTY, "Not empty", str(path))
        if key:
            raise not_empty if await self._isdir(path) else tree.not_found(str(path))
        try:
            await (await self.set_session()).delete_bucket(bucket)
        except BucketNotEmpty as error:
            raise not_empty from error
        finally:
            self.invalidate_cache(bucket)

    rmdir = sync_wrapper(_rmdir)

    # -- open files ---------------------------------------------------------------------------------

    def _open(
        self,
        path: Any,
        mode: str = "rb",
        block_size: int | None = None,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        **options: Any,
    ) -> SsaFile:
        described = {"content_type": content_type, "metadata": metadata}
        return SsaFile(self, path, mode, block_size, described=described, **options)


def _raise_unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


async def _pieces(source: IO[bytes], callback: Any) -> AsyncIterator[bytes]:
    """A local file, read on a thread: a slow disk stalls nobody."""
    while piece := await asyncio.to_thread(source.read, _COPY_BYTES):
        yield piece
        callback.relative_update(len(piece))


async def _copy_out(reader: ObjectReader, target: IO[bytes], callback: Any) -> None:
    callback.set_size(reader.size)
    async for chunk in reader:
        await asyncio.to_thread(target.write, chunk)
        callback.relative_update(len(chunk))
