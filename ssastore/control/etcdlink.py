"""HTTP to the endpoints of one etcd cluster: whom to ask, for how long, with which token.

The endpoint that answered last is asked first.  A question that changes nothing when it is asked
twice goes on to the next endpoint whatever went wrong; one that does goes on only while
it cannot have been sent.  An answer of etcd that is a refusal ends the call: another endpoint
would say the same.

Passwords and tokens appear in no message and no log.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from io import BytesIO
from typing import Any

import aiohttp

from ssastore.control import etcdjson
from ssastore.control.address import EtcdAddress
from ssastore.control.etcdjson import AuthIsOff, TokenRefused, Unlike
from ssastore.errors import ConfigError, SsaStoreError, Unavailable
from ssastore.filewatch import FileWatch
from ssastore.limits import CONTROL_ANSWER_BYTES_MAX

_CLOSED = "this client of the control store is closed"
_VERSION_MIN = (3, 4)
_NOT_FOUND = 404
_OK = 200


class AnswerTooLong(Exception):
    """An answer is longer than CONTROL_ANSWER_BYTES_MAX; ask for less."""


class _NotSent(Unavailable):
    """The endpoint could not be reached: it cannot have done anything."""


class _Late(Unavailable):
    """No answer in time."""


class EtcdLink:
    """A client of all endpoints. Used from one event loop; opened by the first question."""

    def __init__(
        self, address: EtcdAddress, user: str, password: str, *, timeout_ms: int, quiet_ms: int
    ) -> None:
        """``user`` is empty where etcd lets everybody in.

        Raises:
            ConfigError: a file for TLS cannot be used.
        """
        self._endpoints = list(address.endpoints)
        self._address = address
        self._tls = _tls_context(address) if address.is_secure else None
        self._watch = FileWatch("certificates for etcd", (address.ca, address.cert, address.key), self._renew)
        self._user, self._password = user, password
        self._token = ""
        self._timeout_s = timeout_ms / 1000
        self._quiet_s = quiet_ms / 1000
        self._probe = etcdjson.count_request(address.prefix.encode())
        self._session: aiohttp.ClientSession | None = None
        self._streams: dict[aiohttp.ClientResponse, None] = {}
        self._cluster_id = ""
        self._is_closed = False

    def _renew(self) -> None:
        """Connections that are made from now on are by what the files say now."""
        if self._address.is_secure:
            self._tls = _tls_context(self._address)

    async def ask(self, path: str, body: dict[str, Any], *, is_repeatable: bool = True) -> dict[str, Any]:
        """The answer to a question, from whichever endpoint answers.

        Raises:
            Unavailable: no endpoint answers in time; what is not repeatable may have been done.
            AnswerTooLong: see there.
            what ``etcdjson.refusal`` makes of a refusal.
        """

        async def once(endpoint: str, wait_s: float) -> dict[str, Any]:
            return await self._ask_one(endpoint, path, body, wait_s)

        answer: dict[str, Any] = await self._in_turn(once, is_repeatable=is_repeatable)
        return answer

    @asynccontextmanager
    async def stream(
        self, path: str, body: dict[str, Any]
    ) -> AsyncIterator[tuple[str, AsyncGenerator[Any, None]]]:
        """An endpoint and the results that it sends, for as long as the block lasts.

        Raises what ``ask`` does, the results too; they do not end by themselves.
        """

        async def once(endpoint: str, wait_s: float) -> aiohttp.ClientResponse:
            return await self._post(endpoint, path, body, wait_s, is_stream=True)

        response = await self._in_turn(once, is_repeatable=True)
        endpoint = str(response.url.origin())
        self._streams[response] = None
        try:
            async with aclosing(self._results(endpoint, response)) as results:
                yield endpoint, results
        except (Unavailable, Unlike):
            self.leave(endpoint)
            raise
        finally:
            del self._streams[response]
            response.close()

    def leave(self, endpoint: str) -> None:
        """Ask the others first from now on."""
        if self._endpoints[0] == endpoint:
            self._endpoints.append(self._endpoints.pop(0))

    async def close(self) -> None:
        self._is_closed = True
        for response in self._streams:  # Closing the session would leave their readers waiting.
            response.content.set_exception(Unavailable(_CLOSED))
        if self._session:
            await self._session.close()

    # -- whom to ask --------------------------------------------------------------------------------

    async def _in_turn(self, once: Callable[[str, float], Any], *, is_repeatable: bool) -> Any:
        """What ``once`` returns for the first endpoint that answers."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout_s
        problems: list[Unavailable | Unlike] = []
        endpoints = list(self._endpoints)
        for at, endpoint in enumerate(endpoints):
            left = deadline - loop.time()
            try:
                return await self._with_token(once, endpoint, left / (len(endpoints) - at))
            except (Unavailable, Unlike) as problem:
                problems.append(problem)
                self.leave(endpoint)
                if self._is_closed or not (is_repeatable or isinstance(problem, (_NotSent, Unlike))):
                    break
        texts = "; ".join(str(problem) for problem in problems)
        if all(isinstance(problem, Unlike) for problem in problems):
            raise Unlike(texts) from problems[-1]
        raise Unavailable(texts) from problems[-1]

    async def _with_token(self, once: Callable[[str, float], Any], endpoint: str, wait_s: float) -> Any:
        if self._user and not self._token:
            await self._authenticate(endpoint, wait_s)
        try:
            return await once(endpoint, wait_s)
        except TokenRefused:
            if not self._user:
                raise
        await self._authenticate(endpoint, wait_s)
        return await once(endpoint, wait_s)

    async def renew_token(self, endpoint: str, refused: TokenRefused) -> None:
        """Log in again; raises ``refused`` where there is nobody to log in as."""
        if not self._user:
            raise refused
        await self._authenticate(endpoint, self._timeout_s)

    async def _authenticate(self, endpoint: str, wait_s: float) -> None:
        self._token = ""
        body = {"name": self._user, "password": self._password}
        try:
            answer = await self._ask_one(endpoint, etcdjson.AUTHENTICATE, body, wait_s)
        except AuthIsOff:
            return
        token = answer.get("token")
        if not isinstance(token, str) or not token.isprintable():
            raise Unlike(f"{endpoint} does not answer as etcd does: no token")
        self._token = token

    # -- HTTP ---------------------------------------------------------------------------------------

    async def _ask_one(self, endpoint: str, path: str, body: dict[str, Any], wait_s: float) -> dict[str, Any]:
        response = await self._post(endpoint, path, body, wait_s)
        with _translated(endpoint):
            async with response:
                answer = etcdjson.parse(await _read_all(response, endpoint))
        if path == etcdjson.KEEP_ALIVE:
            answer = etcdjson.result_of(answer)
        self._check_cluster(endpoint, answer)
        return answer

    async def _post(
        self, endpoint: str, path: str, body: dict[str, Any], wait_s: float, *, is_stream: bool = False
    ) -> aiohttp.ClientResponse:
        """A response that is not a refusal, its body unread."""
        # A member that has lost the others ends a watch only when it is asked to.
        self._watch.look()
        headers = {"Grpc-Metadata-hasleader": "true"} if is_stream else {}
        if self._token:
            headers["Authorization"] = self._token
        # Half of the time to connect: who is refused then is known not to have been asked.
        total = None if is_stream else wait_s
        limits = aiohttp.ClientTimeout(total=total, sock_connect=wait_s / 2)
        with _translated(endpoint):
            async with asyncio.timeout(wait_s):
                response = await self._opened().post(
                    endpoint + path,
                    data=BytesIO(json.dumps(body).encode()),
                    headers=headers,
                    timeout=limits,
                    ssl=self._tls or True,
                    allow_redirects=False,
                )
                if response.status == _OK:
                    return response
                async with response:
                    text = await _read_all(response, endpoint)
        raise await self._refusal(endpoint, response, text, wait_s)

    async def _refusal(
        self, endpoint: str, response: aiohttp.ClientResponse, text: bytes, wait_s: float
    ) -> Exception:
        if response.content_type == "application/json":
            with _translated(endpoint):
                error = etcdjson.parse(text)
                return etcdjson.refusal(etcdjson.integer(error, "code"), str(error.get("message", "")))
        if response.status == _NOT_FOUND:
            return Unlike(f"{endpoint} {await self._what_it_is(endpoint, wait_s)}")
        if response.status >= 500:
            return Unavailable(f"{endpoint} answers with HTTP status {response.status}")
        return Unlike(f"{endpoint} does not answer as etcd does: HTTP status {response.status}")

    async def _what_it_is(self, endpoint: str, wait_s: float) -> str:
        """Why an endpoint does not know version 3 of the interface."""
        wanted = ".".join(map(str, _VERSION_MIN))
        try:
            limits = aiohttp.ClientTimeout(total=wait_s)
            async with self._opened().get(
                endpoint + "/version", timeout=limits, ssl=self._tls or True, allow_redirects=False
            ) as response:
                version = etcdjson.parse(await _read_all(response, endpoint)).get("etcdserver")
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, AnswerTooLong):
            version = None
        if not isinstance(version, str) or len(version) > 32 or not version.isprintable():
            return f"is not etcd {wanted} or later"
        return f"runs etcd {version}; it takes {wanted} or later, with its JSON gateway enabled"

    async def _results(self, endpoint: str, response: aiohttp.ClientResponse) -> AsyncGenerator[Any, None]:
        """The results of a stream, one a line."""
        kept = bytearray()
        while True:
            chunk = await self._chunk(endpoint, response)
            kept += chunk
            if b"\n" not in chunk:
                if len(kept) > CONTROL_ANSWER_BYTES_MAX:
                    raise Unlike(f"{endpoint} does not answer as etcd does: an endless line")
                continue
            *lines, kept = kept.split(b"\n")
            for line in lines:
                if line:
                    with _translated(endpoint):
                        result = etcdjson.result_of(etcdjson.parse(line))
                        self._check_cluster(endpoint, result)
                    yield result

    async def _chunk(self, endpoint: str, response: aiohttp.ClientResponse) -> bytes:
        """What comes next. While nothing comes, the endpoint must answer something else now and then.

        A member that is stopped, or cut off with its connections standing, would be taken for a quiet one.
        """
        while True:
            try:
                with _translated(endpoint):
                    async with asyncio.timeout(self._quiet_s):
                        chunk = await response.content.readany()
            except (
                RuntimeError
            ) as error:  # What aiohttp says of a connection that was closed under its reader.
                raise Unavailable(f"{endpoint}: the connection was closed") from error
            except _Late:
                await self._ask_one(endpoint, etcdjson.RANGE, self._probe, self._timeout_s)
            else:
                if not chunk:
                    raise Unavailable(f"{endpoint} ended the stream")
                return chunk

    def _check_cluster(self, endpoint: str, answer: dict[str, Any]) -> None:
        """Endpoints of different clusters would be taken for one store."""
        cluster_id, _ = etcdjson.header_of(answer)
        self._cluster_id = self._cluster_id or cluster_id
        if cluster_id != self._cluster_id:
            raise Unlike(f"{endpoint} is a member of another etcd cluster")

    def _opened(self) -> aiohttp.ClientSession:
        if self._is_closed:
            raise Unavailable(_CLOSED)
        if self._session is None:
            # Watches hold their connections, so there is no bound; each user has few of them.
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        return self._session


class _translated:
    """What aiohttp and the operating system raise, in our words; the endpoint's name before it."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        match error:
            case Unlike() if not str(error).startswith(self._endpoint):
                raise Unlike(f"{self._endpoint} does not answer as etcd does: {error}") from None
            case SsaStoreError():
                pass  # Some of ours are built-in ones too.
            case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError():
                raise Unlike(f"{self._endpoint}: TLS: {error.args[-1]}") from error
            case aiohttp.ClientConnectorError():
                number = error.os_error.errno or 0
                # asyncio puts the address into the text, the resolver has numbers of its own.
                reason = os.strerror(number) if number > 0 else error.os_error.strerror or error.os_error
                raise _NotSent(f"{self._endpoint}: {reason}") from error
            case aiohttp.ConnectionTimeoutError():
                raise _NotSent(f"{self._endpoint}: no connection in time") from error
            case TimeoutError():
                raise _Late(f"{self._endpoint} did not answer in time") from error
            case aiohttp.ClientError() | OSError():
                raise Unavailable(f"{self._endpoint}: the connection was lost") from error


async def _read_all(response: aiohttp.ClientResponse, endpoint: str) -> bytes:
    """A body, bounded."""
    kept = bytearray()
    async for chunk in response.content.iter_any():
        kept += chunk
        if len(kept) > CONTROL_ANSWER_BYTES_MAX:
            raise AnswerTooLong(f"{endpoint}: an answer above {CONTROL_ANSWER_BYTES_MAX} bytes")
    return bytes(kept)


def _tls_context(address: EtcdAddress) -> ssl.SSLContext:
    """Certificates are verified against the endpoint's name, always."""
    try:
        context = ssl.create_default_context(cafile=address.ca or None)
        if address.cert:
            context.load_cert_chain(address.cert, address.key)
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(filter(None, (address.ca, address.cert, address.key)))
        raise ConfigError(f"control: cannot use {files}: {error.strerror or error}") from None
    return context
