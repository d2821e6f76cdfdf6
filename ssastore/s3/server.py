"""The HTTP shell of the S3 interface, on aiohttp's low-level server.

One way through: limits, ``authenticate``, route, operation, response.  Every
failure leaves as S3's XML error, or, once a body has begun, as a broken
connection: never as a short answer that looks whole.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from time import perf_counter
from typing import Any

from aiohttp import HttpVersion10, HttpVersion11, web
from aiohttp.http_exceptions import HttpProcessingError

from ssastore.core.buckets import hold_to_buckets
from ssastore.core.objects import Objects
from ssastore.core.requestid import REQUEST, name_of, new_id, told
from ssastore.core.users import ANYBODY, ROOT, AccessKey, Users
from ssastore.env import Clock, Randomness
from ssastore.errors import SsaStoreError
from ssastore.limits import OBJECT_BYTES_MAX
from ssastore.metrics.requests import RequestCounts
from ssastore.recent import Recent
from ssastore.s3 import xml
from ssastore.s3.access import Access
from ssastore.s3.answers import Answer
from ssastore.s3.attempts import Attempts
from ssastore.s3.authentication import authenticate
from ssastore.s3.connections import Connections, LetsIn
from ssastore.s3.cors import Rule, answer_headers, preflight_headers
from ssastore.s3.encryption import Encryption, check_headers
from ssastore.s3.entity import http_date
from ssastore.s3.errors import S3Error, from_store_error
from ssastore.s3.headers import joined
from ssastore.s3.names import bucket_of_host, parse_query, split_path
from ssastore.s3.operations import operations
from ssastore.s3.principal import Principal, SignedRequest, anonymous
from ssastore.s3.request import Request, Response
from ssastore.s3.router import route
from ssastore.wire import Body

log = logging.getLogger(__name__)

LINE_BYTES_MAX = 8190
HEADERS_MAX = 100
_BODY_STALL_S = 30.0
_BODY_BYTES_MIN = 16 * 1024
"What a body must bring in ``_BODY_STALL_S``, else one byte every now and then keeps a connection for ever."
_IDLE_S = 75.0
"Between two requests."
_DISCARD_BYTES_MAX = 256 * 1024
_TOLD = "x-ssastore-trace"
"A request with it, signed with a key of the secrets file, is told by the nodes (``core.requestid``)."
_BELOW, _HEADERS = "ssastore.below", "ssastore.headers"
"Of a request that came by another server: the path that all is below of, and headers of the answer."
_HOST = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]*")
"Characters of a host and port (RFC 3986); no user, no path."


class HttpBody:
    """The body of an aiohttp request, with a limit on how long it may stall."""

    def __init__(self, request: web.BaseRequest, counts: RequestCounts) -> None:
        self._request = request
        self._counts = counts
        self.length = _content_length(request)
        self._is_awaited = request.headers.get("Expect", "").lower() == "100-continue"

    async def pieces(self) -> AsyncIterator[bytes]:
        """See ``request.RawBody``."""
        if self._is_awaited:
            self._is_awaited = False
            # Only now: a client that waits for it need not send a body that is refused.
            transport = self._request.transport
            if transport is not None:
                transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        content, now = self._request.content, asyncio.get_running_loop().time
        received = recent = 0
        left_s = _BODY_STALL_S
        while True:
            try:
                piece = content.read_nowait()
                if not piece:
                    if content.at_eof():
                        break
                    asked_at = now()
                    async with asyncio.timeout(left_s):
                        piece = await content.readany()
                    # Only the time that the client takes counts: between two pieces it waits for us.
                    left_s -= now() - asked_at
            except TimeoutError:
                raise S3Error("RequestTimeout") from None
            except (HttpProcessingError, web.RequestPayloadError, ConnectionError):
                raise S3Error("IncompleteBody") from None
            if not piece:
                break
            received += len(piece)
            self._counts.received_bytes += len(piece)
            recent += len(piece)
            if recent >= _BODY_BYTES_MIN:
                left_s, recent = _BODY_STALL_S, 0
            yield piece
        if self.length is not None and received != self.length:
            raise S3Error("IncompleteBody")


def _content_length(request: web.BaseRequest) -> int | None:
    if request.headers.get("Content-Length") is not None:
        return request.content_length
    return None if request.headers.get("Transfer-Encoding") else 0


def _check_framing(http: web.BaseRequest) -> None:
    """Refuse what aiohttp's parser lets through and another reader might take for something else."""
    if http.version not in (HttpVersion10, HttpVersion11):
        raise S3Error("InvalidRequest", "HTTP/1.1 is spoken here.", status=505)
    if _HOST.fullmatch(http.headers.get("Host", "")) is None:
        raise S3Error("InvalidRequest", "The Host header is not a host.")
    if http.headers.get("Transfer-Encoding", "chunked").lower() != "chunked":
        raise S3Error("NotImplemented", "The only Transfer-Encoding is chunked.")
    expect = http.headers.get("Expect")
    if expect is not None and expect.lower() != "100-continue":
        raise S3Error("ExpectationFailed")


def _given_up(http: web.BaseRequest, name: str) -> ConnectionError:
    """End the connection of a client that does not read: nothing can be said to it."""
    log.warning("response.stalled", extra={"op": name})
    if http.transport is not None:
        http.transport.abort()
    return ConnectionResetError("the client does not read")


def _broken(http: web.BaseRequest) -> ConnectionError:
    """End the connection in the middle of a body: whatever came now would be taken for its rest."""
    if http.transport is not None:
        http.transport.abort()
    return ConnectionResetError("the rest of the object cannot be read")


class _RefusalLog(logging.LoggerAdapter[logging.Logger]):
    """Where aiohttp reports requests that it refuses by itself: one line each.

    Its own lines carry tracebacks with the bytes received, which may hold a presigned URL; a client that
    goes away is not worth a line.
    """

    def exception(self, msg: object, *args: object, exc_info: Any = True, **kwargs: Any) -> None:
        if not isinstance(exc_info, ConnectionError):
            self.logger.warning("request.refused", extra={"reason": type(exc_info).__name__})


class _Call:
    """One request, as it is counted at its end."""

    __slots__ = ("operation",)

    def __init__(self) -> None:
        self.operation = "-"
        "Not known yet."


class S3Server:
    """S3 for one service."""

    def __init__(
        self,
        objects: Objects,
        *,
        region: str,
        access_keys: dict[str, bytes],
        clock: Clock,
        randomness: Randomness,
        wrapping_keys: Sequence[tuple[str, bytes]] = (),
        domain: str = "",
    ) -> None:
        """
        Args:
            access_keys: secret by key id.
            wrapping_keys: as for ``Encryption``.
            domain: ``BUCKET.domain`` as the host of a request is that bucket; empty: none is.
        """
        self._region = region
        self._domain = domain.lower()
        self._access_keys = access_keys  # Whoever has it may change it while we serve.
        self.lent: Callable[[str], str | None] = lambda key_id: None
        "The secret of a key that is lent to one of ROOT for a while (``console.objects``)."
        self._clock = clock
        self._randomness = randomness
        self._buckets = objects.buckets
        self._users = Users(objects.registers, clock, randomness)
        self._access = Access(objects, self._users)
        self.counts = RequestCounts()
        self.recent = Recent()
        self._operations = operations(
            objects,
            self._access,
            self._users,
            Attempts(clock),
            region,
            self._secret_of,
            Encryption(wrapping_keys, randomness),
        )

    def http_server(self, lets_in: LetsIn | None = None) -> Connections:
        """The protocol factory for ``loop.create_server``; one for each server."""
        self._connections = Connections(
            self.handle,
            lets_in=lets_in,
            access_log=None,
            logger=_RefusalLog(log),
            keepalive_timeout=_IDLE_S,
            max_line_size=LINE_BYTES_MAX,
            max_field_size=LINE_BYTES_MAX,
            max_headers=HEADERS_MAX,
            auto_decompress=False,
        )
        return self._connections

    def _ends(self, http: web.BaseRequest) -> bool:
        """Whether the connection has no other request after this one."""
        return self._connections.is_retired(http.protocol)

    async def handle_below(
        self, http: web.BaseRequest, below: str, headers: Mapping[str, str]
    ) -> web.StreamResponse:
        """A request that came by another server, where S3 is ``below`` a path; ``headers``: of its answer."""
        http[_BELOW], http[_HEADERS] = below.encode(), headers
        return await self.handle(http)

    async def handle(self, http: web.BaseRequest) -> web.StreamResponse:
        """One request from its headers to the last byte of its response."""
        REQUEST.set(new_id(self._randomness))
        hold_to_buckets(is_wanted=False)  # Requests of one connection follow each other in one task.
        call, counts = _Call(), self.counts
        began_s = perf_counter()  # The loop's own clock stands still while a turn runs.
        counts.in_flight += 1
        try:
            response = await self._handle(http, call)
            self.recent.note(perf_counter(), perf_counter() - began_s, response.status)
            return response
        finally:
            counts.ended(call.operation, perf_counter() - began_s)

    async def _handle(self, http: web.BaseRequest, call: _Call) -> web.StreamResponse:
        try:
            if http.method == "OPTIONS":
                name = call.operation = "Preflight"
                headers = preflight_headers(await self._cors_rules(http), http.headers)
                return await self._respond(http, name, Response(200, b"", headers))
            request = await self._authenticate(http)
            if _TOLD in request.headers and request.user == ROOT:
                REQUEST.set(told(REQUEST.get()))
                request.request_id = name_of(REQUEST.get())
            name = call.operation = route(
                request.method, request.bucket, request.key, request.query, request.headers
            )
            if name != "PostObject":  # A form says who asks: its own operation reads it first.
                await self._access.check(request, name)
            check_headers(name, request.headers, request.query)
            response = await self._operations[name](request)
            if "Origin" in http.headers:
                response.headers |= await self._cors_headers(http)
            return await self._respond(http, name, response)
        except S3Error as error:
            failure = error
        except SsaStoreError as error:
            failure = from_store_error(error)
            if failure.status >= 500:
                log.warning("request.failed", extra={"op": call.operation, "reason": str(error)})
        except ConnectionError:
            raise
        except Exception:
            log.exception("request.crashed", extra={"op": call.operation})
            failure = S3Error("InternalError")
        if http.method != "OPTIONS":
            failure.headers |= await self._cors_headers(http)
        return await self._fail(http, call.operation, failure)

    # -- steps --------------------------------------------------------------------------------------

    async def _cors_rules(self, http: web.BaseRequest) -> list[Rule] | None:
        """The rules of the bucket that a request names, if it has any. Raises S3Error, SsaStoreError."""
        bucket, _ = split_path(self._signed(http).resource)
        return (await self._buckets.current(bucket)).config.get("cors") if bucket else None

    async def _cors_headers(self, http: web.BaseRequest) -> dict[str, str]:
        """What an answer, good or bad, says to a page that asked."""
        if "Origin" not in http.headers:
            return {}
        try:
            rules = await self._cors_rules(http)
        except (S3Error, SsaStoreError):
            return {}  # The answer itself says what is wrong.
        return answer_headers(rules or (), http.method, http.headers)

    def _signed(self, http: web.BaseRequest) -> SignedRequest:
        raw_path, _, raw_query = http.raw_path.encode("utf-8", "surrogateescape").partition(b"?")
        raw_path = raw_path.removeprefix(http.get(_BELOW, b""))
        bucket = b""
        if self._domain and raw_path.startswith(b"/"):
            bucket = bucket_of_host(http.headers.get("Host", ""), self._domain)
        return SignedRequest(http.method, raw_path, raw_query, http.raw_headers, bucket)

    async def _authenticate(self, http: web.BaseRequest) -> Request:
        """Who asks; nothing of the request is acted on before. Raises S3Error."""
        _check_framing(http)
        signed = self._signed(http)
        headers = joined(http.headers)
        principal, user = await self._principal(signed)
        bucket, key = split_path(signed.resource)
        return Request(
            http.method,
            bucket,
            key,
            parse_query(signed.query),
            headers,
            principal,
            name_of(REQUEST.get()),
            HttpBody(http, self.counts),
            user,
            http.remote or "",
            self._clock.now_ms(),
        )

    def _root_secret(self, key_id: str) -> str | None:
        found = self._access_keys.get(key_id)
        return self.lent(key_id) if found is None else found.decode()

    async def _secret_of(self, key_id: str) -> tuple[str, str] | None:
        """Secret and user of an access key; None when there is no such key."""
        if (secret := self._root_secret(key_id)) is not None:
            return secret, ROOT
        key = await self._users.find(key_id)
        return (key.secret, key.user) if key is not None else None

    async def _principal(self, signed: SignedRequest) -> tuple[Principal, str]:
        """Who signed a request, and whose key it was. Raises S3Error."""
        now_ms = self._clock.now_ms()
        nobody = anonymous(signed, now_ms)
        if nobody is not None:
            return nobody, ANYBODY
        key: AccessKey | None = None
        asked: list[str] = []

        def secret_of(key_id: str) -> str | None:
            asked.append(key_id)
            return key.secret if key is not None else self._root_secret(key_id)

        try:
            return authenticate(signed, now_ms=now_ms, region=self._region, secret_of=secret_of), ROOT
        except S3Error as error:
            # Only who has signed everything else as it should be is looked for in the store.
            if error.code != "InvalidAccessKeyId" or not asked:
                raise
            key = await self._users.find(asked[0])
            if key is None:
                raise
        return authenticate(signed, now_ms=now_ms, region=self._region, secret_of=secret_of), key.user

    def _headers(self) -> dict[str, str]:
        request_id = name_of(REQUEST.get())
        return {
            "x-amz-request-id": request_id,
            "x-amz-id-2": request_id,
            "Server": "ssastore",
            "Date": http_date(self._clock.now_ms() // 1000),
            "X-Content-Type-Options": "nosniff",
        }

    async def _respond(self, http: web.BaseRequest, name: str, response: Response) -> web.StreamResponse:
        headers = self._headers() | response.headers | http.get(_HEADERS, {})
        if response.stream is None:
            is_head = http.method == "HEAD"
            length = response.length if is_head else len(response.body)
            answer = Answer(
                http, response.status, headers, length, closes=self._ends(http), counts=self.counts
            )
            self.counts.answered(name, response.status)
            return await self._say(http, name, answer, b"" if is_head else response.body)
        return await self._stream(http, name, response, headers)

    async def _stream(
        self, http: web.BaseRequest, name: str, response: Response, headers: dict[str, str]
    ) -> web.StreamResponse:
        assert response.stream is not None
        try:
            # The first chunk before the status line: what is missing or cannot be reached is an error
            # that the client can read, not a connection that breaks.
            first = await anext(response.stream, b"")
            answer = Answer(
                http, response.status, headers, response.length, closes=self._ends(http), counts=self.counts
            )
            self.counts.answered(name, response.status)
            try:
                await answer.send(first)
                async for piece in response.stream:
                    await answer.send(piece)
            except TimeoutError:
                raise _given_up(http, name) from None
            except SsaStoreError as error:
                log.warning("response.broken", extra={"op": name, "reason": str(error)})
                raise _broken(http) from error
            except ConnectionError:
                raise
            except Exception as error:
                log.exception("request.crashed", extra={"op": name})
                raise _broken(http) from error
            return answer
        finally:
            await response.stream.aclose()  # type: ignore[attr-defined]  # it is an async generator

    async def _fail(self, http: web.BaseRequest, name: str, failure: S3Error) -> web.StreamResponse:
        self.counts.answered(name, failure.status)
        self.counts.failed(failure.code)
        headers = self._headers() | failure.headers | {"Content-Type": "application/xml"}
        if failure.status == 503:
            headers.setdefault("Retry-After", "1")
        body = xml.error(failure, resource=http.path[:1024], request_id=name_of(REQUEST.get()))
        closes = not await self._discard(http) or self._ends(http)
        answer = Answer(http, failure.status, headers, len(body), closes=closes, counts=self.counts)
        return await self._say(http, name, answer, b"" if http.method == "HEAD" else body)

    @staticmethod
    async def _say(http: web.BaseRequest, name: str, answer: Answer, body: Body) -> Answer:
        """Send an answer that is all there."""
        try:
            await answer.send(body)
        except TimeoutError:
            raise _given_up(http, name) from None
        return answer

    @staticmethod
    async def _discard(http: web.BaseRequest) -> bool:
        """Read what is left of a small body, so that the connection can be used again."""
        length = http.content_length or 0
        if "Transfer-Encoding" in http.headers or length > OBJECT_BYTES_MAX:
            return False
        if "Expect" in http.headers or length > _DISCARD_BYTES_MAX:
            return http.content.at_eof()
        try:
            async with asyncio.timeout(1):
                while await http.content.readany():
                    continue
        except (TimeoutError, HttpProcessingError, web.RequestPayloadError, ConnectionError):
            return False
        return True
