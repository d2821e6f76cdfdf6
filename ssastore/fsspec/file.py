"""An object as a Python file: read by ranges of one version, written as one streaming ``put``."""

from __future__ import annotations

import asyncio
import copy
import errno
import io
import warnings
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from fsspec.asyn import sync
from fsspec.spec import AbstractBufferedFile

from ssastore.core.objects import ObjectReader
from ssastore.env import spawn
from ssastore.errors import PreconditionFailed
from ssastore.fsspec.paths import split_path
from ssastore.fsspec.tree import file_info, is_directory
from ssastore.limits import CHUNK_BYTES

if TYPE_CHECKING:
    from ssastore.fsspec.filesystem import SsaFileSystem


class Upload:
    """One ``put`` that is fed piece by piece; a piece waits here while the one before it is taken."""

    def __init__(self, put: Callable[[AsyncIterable[bytes]], Coroutine[Any, Any, None]]) -> None:
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue(maxsize=1)
        self._task = spawn("fsspec upload", put(self._stream()))
        # Retrieved, whoever asks: a file may be given up without a look at the outcome.
        self._task.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def _stream(self) -> AsyncIterator[bytes]:
        while (piece := await self._pieces.get()) is not None:
            yield piece

    async def feed(self, piece: bytes | None) -> None:
        """Hand over a piece, or None for the end. Raises what ended the ``put`` too early."""
        handed = spawn("fsspec piece", self._pieces.put(piece))
        await asyncio.wait({handed, self._task}, return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            handed.cancel()
            self._check()

    async def finish(self) -> None:
        """The object is there. Raises what ``put`` raises."""
        await self.feed(None)
        await asyncio.wait({self._task})
        self._check()

    def _check(self) -> None:
        # fsspec loses a CancelledError on its way to the calling thread, and then it looks like success.
        if self._task.cancelled():
            raise ValueError("the upload was given up")
        self._task.result()

    def cancel(self) -> None:
        """Give up; nothing becomes visible. No harm after ``finish``."""
        self._task.cancel()

    async def ended(self) -> None:
        """After ``cancel``: nothing is under way any more."""
        await asyncio.wait({self._task})


class SsaFile(AbstractBufferedFile):  # type: ignore[misc]  # fsspec has no types
    """An object opened for reading (``rb``) or writing (``wb``, ``xb``).

    Reading stays with the version that was there at ``open``.  Writing streams: a few chunks are in
    memory, whatever the size.  The object appears at ``close``, or at the end of the transaction.  It
    does not appear when the ``with`` block ends by an exception, or when the file is never closed.
    """

    DEFAULT_BLOCK_SIZE = CHUNK_BYTES

    def __init__(
        self,
        fs: SsaFileSystem,
        path: str,
        mode: str = "rb",
        *args: Any,
        size: int | None = None,
        etag: str | None = None,
        described: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        """See ``AbstractBufferedFile``, which takes the rest.

        Args:
            fs: where it lies.
            path: BUCKET/KEY.
            mode: ``rb``, ``wb``, or ``xb``: only where there is none, decided when the object is made.
            args: block size and so on.
            size: ignored; the version that is read says it.
            etag: read this version or raise PreconditionFailed. A pickled file says so of its own.
            described: content type and metadata of what is written.
            options: more of the same.
        """
        self._upload: Upload | None = None
        self._described = described or {}
        if mode == "rb":
            self._reader: ObjectReader = sync(fs.loop, fs.reader, path)
            known = self._reader.info
            if etag not in (None, known.etag):
                raise PreconditionFailed(f"{path} was replaced: its ETag is {known.etag}, not {etag}")
            self._details = file_info(split_path(path)[0], known)
            options |= {"size": known.size, "etag": known.etag}
        elif mode not in ("wb", "xb"):
            raise io.UnsupportedOperation(f"an object is read, or replaced as a whole: no mode {mode!r}")
        elif not split_path(path)[1]:
            raise is_directory(path)
        elif mode == "xb" and sync(fs.loop, fs._exists, path):
            raise OSError(errno.EEXIST, "Exists", path)
        super().__init__(fs, path, mode, *args, **options)

    def _fetch_range(self, start: int, end: int) -> bytes:
        end = min(end, self._reader.info.size)
        if start >= end:
            return b""
        # A copy, because some of fsspec's caches fetch ranges in several threads.
        return bytes(sync(self.fs.loop, copy.copy(self._reader).narrow(start, end - start).read))

    def _upload_chunk(self, final: bool = False) -> bool:
        sync(self.fs.loop, self._send, self.buffer.getvalue(), final and self.autocommit)
        return True

    async def _send(self, piece: bytes, is_all: bool) -> None:
        # The upload must not refer to the file, or the file would never be collected.
        fs, path, described = self.fs, self.path, self._described
        mode = "create" if self.mode == "xb" else "overwrite"
        if self._upload is None:
            if is_all:
                await fs.store(path, piece, mode, **described)
                return
            self._upload = Upload(lambda pieces: fs.store(path, pieces, mode, **described))
        if piece:
            await self._upload.feed(piece)
        if is_all:
            await self._upload.finish()

    def commit(self) -> None:
        """Make the object; only after ``autocommit=False``. Nothing to do after ``discard``."""
        self.close()
        if self._upload is not None:
            sync(self.fs.loop, self._upload.finish)

    def discard(self) -> None:
        """Close without a trace: what was there before stays."""
        self.closed = True
        upload, self._upload = self._upload, None
        if upload is not None:
            self.fs.loop.call_soon_threadsafe(upload.cancel)
            sync(self.fs.loop, upload.ended)

    def __exit__(self, *exc_info: object) -> None:
        if exc_info[0] is not None and self.mode != "rb":
            self.discard()
        else:
            self.close()

    def __del__(self) -> None:
        if not self.closed and self.mode != "rb":
            self.closed = True
            # Not a ResourceWarning, which Python hides by default: here bytes are lost.
            warnings.warn(f"{self!r} was never closed: it is given up", RuntimeWarning, 1, source=self)
        if self._upload is not None:
            with suppress(
                RuntimeError
            ):  # the loop has ended, or it is that of the process we were forked from
                self.fs.loop.call_soon_threadsafe(self._upload.cancel)
