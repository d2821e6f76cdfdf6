"""The Python client: compute the address, connect to it.

    async with AsyncClient.from_url("ssa://[2001:db8:5a:1::]", access_key=..., secret_key=...) as client:
        photos = client.bucket("photos")
        await photos.put("cat.jpg", data)
        data = await photos.get("cat.jpg")

``ssastore.Client`` (module ``blocking``) has the same names without ``await``.
Nothing connects before the first call.  The client knows no nodes: only the
service prefix, from which and from the key it computes every address.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from ipaddress import IPv6Network
from pathlib import Path
from typing import IO, Any, Self
from urllib.parse import parse_qs, urlsplit

from blake3 import blake3

from ssastore.core.content import Content
from ssastore.core.demand import Demand
from ssastore.core.locate import Location, locate_blob, locate_object
from ssastore.core.objects import CommonPrefix, ObjectInfo, ObjectReader, Objects
from ssastore.core.registers import key_bytes, when
from ssastore.env import Links
from ssastore.errors import ConfigError, ObjectNotFound
from ssastore.keyspace import REPLICAS_ALLOWED, service_network
from ssastore.limits import (
    CALL_DEADLINE_MS,
    CALL_DEADLINE_MS_MAX,
    INLINE_BYTES_MAX,
    MIB,
    SHARDS_DEFAULT,
)
from ssastore.messages import Kind
from ssastore.rules.hashes import token_from_text
from ssastore.rules.record import NATIVE_PORT, ServiceRecord, record_from_text
from ssastore.system import SystemClock, SystemRandomness
from ssastore.transport.connection import Identity
from ssastore.transport.lookup import NOWHERE, Find, Found
from ssastore.transport.pool import Pool
from ssastore.transport.ruled import RuledLinks
from ssastore.transport.tcp import TcpLinks
from ssastore.transport.tls import Tls, TlsFiles

Source = bytes | bytearray | memoryview | IO[bytes] | Iterable[bytes] | AsyncIterable[bytes]
"""What ``put`` takes: bytes, an open binary file, or an (async) iterable of bytes."""

_BYTES = (bytes, bytearray, memoryview)

_READ_BYTES = 1 * MIB


def native_etag(digest_hex: str) -> str:
    """ETag of an object that the native client wrote: BLAKE3-128 with a mark in front.

    S3 tools take 32 hexadecimal digits for an MD5 and complain when they are not.
    """
    return f"b3-{digest_hex[:32]}"


def secret_from(environment: Mapping[str, str], name: str) -> str:
    """The secret in variable ``name``, or in the file that ``name_FILE`` names; else empty."""
    if path := environment.get(f"{name}_FILE"):
        return Path(path).read_text().strip()
    return environment.get(name, "")


def parse_url(url: str) -> tuple[IPv6Network | str, int, int, list[str]]:
    """(service, port or 0, replicas or 0, path parts) of ``ssa://HOST:PORT/BUCKET/KEY?replicas=N``.

    HOST is a service prefix in brackets, or a name in DNS that says where the service is.

    Raises:
        ConfigError: not such a URL.
    """
    if url[:6].lower() != "ssa://":
        raise ConfigError(f"an ssastore URL starts with ssa://, got {url!r}")
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        service = host if "[" not in parts.netloc and is_name(host) else service_network(f"{host}/64")
        port = parts.port or 0
        replicas = int(parse_qs(parts.query).get("replicas", ["0"])[-1])
    except ValueError as error:
        raise ConfigError(
            f"the host of {url!r} must be the service prefix in brackets, "
            f"as in ssa://[2001:db8:5a:1::], or a name: {error}"
        ) from None
    if replicas not in (0, *REPLICAS_ALLOWED):
        raise ConfigError(f"replicas is 1, 3 or 5, got {replicas}")
    return service, port, replicas, [part for part in parts.path.lstrip("/").split("/", 1) if part]


def is_name(host: str) -> bool:
    """Whether a host is a whole name in DNS, with a dot in it, and not an address or prefix."""
    is_dotted = "." in host.strip(".") and ":" not in host and "/" not in host
    return is_dotted and any(letter.isalpha() for letter in host)


def finder(name: str, port: int, name_server: str, links: RuledLinks) -> Find:
    """What looks a service's name up; ``port`` and ``name_server`` are those of ``AsyncClient``.

    From then on ``links`` keep the rule that was found with it.
    """

    async def find() -> Found:
        # A library of a tenth of a second, which only names need.
        from ssastore.naming.resolve import look_up, name_server_from

        where = await look_up(name, server=name_server_from(name_server) if name_server else None)
        links.record = where.record
        return Found(where.sites, port or where.record.port, where.holes, where.ttl_s)

    return find


def _tls(service: str, name: str, ca: str) -> Tls | None:
    """TLS as a client's arguments say it. Raises ConfigError."""
    name = name or (service if ca and is_name(service) else "")
    if ca and not name:
        raise ConfigError("tls_ca: which name is a node to prove? tls_name says it")
    return Tls(TlsFiles(ca), name) if name else None


class AsyncClient:
    """A client of one service. Use it as an async context manager, or call ``close``."""

    def __init__(
        self,
        service: str | IPv6Network,
        *,
        access_key: str = "",
        secret_key: str = "",
        port: int = 0,
        replicas: int = 0,
        deadline_ms: int = CALL_DEADLINE_MS,
        use_hints: bool = True,
        links: Links | None = None,
        identity: Identity | None = None,
        name_server: str = "",
        rules: str = "",
        rule_token: str = "",
        tls_name: str = "",
        tls_ca: str = "",
    ) -> None:
        """Make a client; nothing connects yet.

        Args:
            service: the service /64, as text or network, or its name in DNS.
            access_key: name of the key.
            secret_key: its secret; never sent.
            port: native port of the nodes; 0 is what the name says, else 7480.
            replicas: what the cluster must have (1, 3, 5), or 0 to take what it says.
            deadline_ms: bound on one call, retries included.
            use_hints: reuse connections by the coverage that nodes announce.
            links: how addresses are reached; the kernel's routes by default.
            identity: for the parts of a cluster itself; replaces the access key.
            name_server: ADDRESS or [ADDRESS]:PORT to ask for names, instead of those of the system.
            rules: the service record, where it is not found with a name: ``v=SSA1; data=content+source``.
            rule_token: for keyed rules, what the operator gave clients in this /64, 32 hexadecimal digits.
            tls_name: of the service: connections go by TLS, and every node has to prove this name.
            tls_ca: the file of those who may sign for it, by default whom the system believes. With it a
                service that is a name in DNS has to prove that one.

        Raises:
            ConfigError: ``service`` is neither an IPv6 /64 nor a name, or ``deadline_ms`` is out of range;
                ``tls_ca`` cannot be used.
        """
        if not 0 < deadline_ms <= CALL_DEADLINE_MS_MAX:
            # Nodes remember an operation for some minutes: no call may repeat it later than that.
            raise ConfigError(f"deadline_ms is 1 to {CALL_DEADLINE_MS_MAX}, got {deadline_ms}")
        self._randomness = SystemRandomness()
        self._ruled = RuledLinks(
            links or TcpLinks(_tls(str(service), tls_name, tls_ca)),
            record_from_text(rules) if rules else ServiceRecord(),
            SystemClock(),
            self._randomness,
            token=token_from_text(rule_token) if rule_token else b"",
        )
        self.links: Links = self._ruled
        network, find = self._where(service, port, name_server)
        identity = identity or Identity("client", access_key, secret_key.encode(), replicas)
        self.pool = Pool(
            network,
            port or NATIVE_PORT,
            identity,
            links=self.links,
            randomness=self._randomness,
            deadline_ms=deadline_ms,
            use_hints=use_hints,
            find=find,
        )
        self.objects = Objects(self.pool, SystemClock(), self._randomness)

    def _where(
        self, service: str | IPv6Network, port: int, name_server: str
    ) -> tuple[IPv6Network, Find | None]:
        """The prefix; or what looks the name up, and NOWHERE yet. Raises ConfigError."""
        if isinstance(service, str) and is_name(service):
            return NOWHERE, finder(service, port, name_server, self._ruled)
        try:
            return service_network(str(service)), None
        except ValueError as error:
            raise ConfigError(f"service: {error}") from None

    @property
    def service(self) -> IPv6Network:
        """The service prefix; another one than at the start when the cluster was renumbered since.

        Raises:
            ConfigError: it is a name, which is looked up by the first call.
        """
        if self.pool.service is NOWHERE:
            raise ConfigError("the name of the service was not looked up yet: the first call does that")
        return self.pool.service

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Self:
        """A client of ``ssa://[PREFIX]`` or ``ssa://NAME``; a bucket or key in the URL is ignored here.

        Access key, secret and name server come from ``options``, else from the environment.
        """
        service, port, replicas, _ = parse_url(url)
        if port:
            options.setdefault("port", port)
        options.setdefault("replicas", replicas)
        options.setdefault("name_server", os.environ.get("SSASTORE_NAME_SERVER", ""))
        options.setdefault("rules", os.environ.get("SSASTORE_RULES", ""))
        options.setdefault("rule_token", secret_from(os.environ, "SSASTORE_RULE_TOKEN"))
        options.setdefault("tls_name", os.environ.get("SSASTORE_TLS_NAME", ""))
        options.setdefault("tls_ca", os.environ.get("SSASTORE_TLS_CA", ""))
        if "identity" not in options:
            options.setdefault("access_key", os.environ.get("SSASTORE_ACCESS_KEY", ""))
            options.setdefault("secret_key", secret_from(os.environ, "SSASTORE_SECRET_KEY"))
        return cls(service, **options)

    @classmethod
    def from_env(cls, **options: Any) -> Self:
        """A client of the URL in ``SSASTORE_URL``. Raises ConfigError when it is not set."""
        url = os.environ.get("SSASTORE_URL")
        if not url:
            raise ConfigError("SSASTORE_URL is not set; `ssastore exec -- CMD` sets it inside a lab")
        return cls.from_url(url, **options)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self.pool.close()

    # -- buckets ------------------------------------------------------------------------------------

    def bucket(self, name: str) -> AsyncBucket:
        """A handle; nothing is asked of the store."""
        return AsyncBucket(self, name)

    async def create_bucket(self, name: str, *, shards: int = SHARDS_DEFAULT) -> AsyncBucket:
        """Create a bucket; ``shards=0`` makes a hashed one, without ordered listing.

        Raises:
            BucketAlreadyExists, InvalidBucketName.
        """
        await self.objects.buckets.create(name, shards=shards)
        return self.bucket(name)

    async def delete_bucket(self, name: str) -> None:
        """Delete an empty bucket. Raises BucketNotFound, BucketNotEmpty."""
        await self.objects.buckets.delete(name)

    async def list_buckets(self) -> AsyncIterator[str]:
        """Names of all buckets in order."""
        async for bucket in self.objects.buckets.all():
            yield bucket.name

    # -- content ------------------------------------------------------------------------------------

    async def put_content(self, content: bytes) -> str:
        """Store bytes (at most CHUNK_BYTES) under their own digest; BLAKE3-256 in hexadecimal."""
        return (await self.objects.blobs.put(content)).hex()

    async def get_content(self, digest: str) -> bytes:
        """Bytes by digest, verified. Raises ObjectNotFound, CorruptObject."""
        try:
            raw = bytes.fromhex(digest)
            if len(raw) != 32:
                raise ValueError
        except ValueError:
            raise ObjectNotFound("a digest is 64 hexadecimal digits") from None
        return bytes(await self.objects.blobs.get(raw))

    def locate_content(self, digest: str) -> Location:
        """Addresses of a blob."""
        return locate_blob(self.service, bytes.fromhex(digest), self.pool.replicas or 1)


class AsyncBucket:
    """A bucket of a client."""

    def __init__(self, client: AsyncClient, name: str, objects: Objects | None = None) -> None:
        """``objects``: reach the store by these conversations, for who watches them."""
        self.client = client
        self.name = name
        self._objects = objects or client.objects

    async def put(
        self,
        key: str,
        data: Source,
        *,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        if_match: str | None = None,
        if_none_match: str | None = None,
    ) -> ObjectInfo:
        """Store an object; returns when it is durable.

        Args:
            key: 1 to 1024 bytes of UTF-8.
            data: bytes, an open binary file, or an (async) iterable of bytes, of any length.
            content_type: kept and given back.
            metadata: the caller's own names.
            if_match: only when the object has this ETag (``"*"``: only when it exists).
            if_none_match: ``"*"``: only when it does not exist.

        Raises:
            PreconditionFailed, ObjectNotFound (``if_match`` and no object), BucketNotFound, StoreFull,
            Unavailable, OutcomeUnknown: nobody answered; only the last leaves a doubt.
        """
        if isinstance(data, memoryview):
            data = _as_bytes(data)
        when(if_match, if_none_match)  # A mistake shows before anything is sent.
        if isinstance(data, _BYTES) and len(data) <= INLINE_BYTES_MAX:
            content, digest = Content(len(data), bytes(data)), blake3(data).hexdigest(length=16)
        else:
            content, digest = await self._store(key, data)
        return await self._objects.commit(
            self.name,
            key,
            content,
            native_etag(digest),
            headers={"content-type": content_type} if content_type else None,
            metadata=dict(metadata) if metadata else None,
            demand=Demand(if_match, if_none_match),
        )

    async def _store(self, key: str, data: Source) -> tuple[Content, str]:
        # Not from the cache: the blobs are stored for this bucket id, and no other can keep them.
        record = await self._objects.buckets.read(self.name)
        writer = self._objects.writer(record, key_bytes(key))
        hasher = blake3()
        try:
            async for piece in _pieces(data):
                hasher.update(piece)
                await writer.write(piece)
            return await writer.finish(), hasher.hexdigest(length=16)
        except BaseException:
            await writer.cancel()
            raise

    async def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """The object's bytes, or ``length`` of them from ``start`` (negative: from the end).

        Raises:
            ObjectNotFound, BucketNotFound, RangeNotSatisfiable, CorruptObject, Unavailable.
            EncryptedObject: an S3 gateway encrypted it.
        """
        if not start and length is None:
            found = await self._objects.find(self.name, key)
            # A small object needs neither its metadata decoded nor a reader.
            if found.data and found.is_plain:
                return bytes(found.data)
            return await self._objects.reader(key, found).read()
        return await (await self.open(key, start=start, length=length)).read()

    async def open(self, key: str, *, start: int = 0, length: int | None = None) -> ObjectReader:
        """A reader that streams: ``async for chunk in await bucket.open(key)``; ``.info`` is the head."""
        reader = await self._objects.open(self.name, key)
        return reader.narrow(start, length) if start or length is not None else reader

    async def head(self, key: str) -> ObjectInfo:
        """Size, ETag, time and metadata. Raises ObjectNotFound."""
        return await self._objects.head(self.name, key)

    async def delete(self, key: str, *, if_match: str | None = None) -> bool:
        """Delete; False when there was nothing. Raises PreconditionFailed (``if_match``)."""
        return (await self._objects.delete(self.name, key, demand=Demand(if_match))).existed

    async def list(
        self, prefix: str = "", *, delimiter: str = "", start_after: str = ""
    ) -> AsyncIterator[ObjectInfo | CommonPrefix]:
        """Objects in byte order of their keys; complete, or it raises."""
        entries = self._objects.list(self.name, prefix=prefix, delimiter=delimiter, start_after=start_after)
        async for entry in entries:
            yield entry

    async def locate(self, key: str) -> Location:
        """The object's addresses. Reads the bucket's record once, the rest is arithmetic."""
        record = await self._objects.bucket(self.name)
        return locate_object(self.client.service, record.place, key_bytes(key), self.client.pool.replicas)

    async def explain(self, key: str) -> dict[str, Any]:
        """How a key is found, step by step, with what each step gave and how long it took."""
        started = time.perf_counter()
        record = await self._objects.buckets.read(self.name)
        bucket_us = (time.perf_counter() - started) * 1e6
        location = await self.locate(key)
        fresh = Pool(
            self.client.service,
            self.client.pool.port,
            self.client.pool.identity,
            links=self.client.links,
            randomness=SystemRandomness(),
            deadline_ms=5000,
        )
        started = time.perf_counter()
        try:
            found = await Objects(fresh, SystemClock(), SystemRandomness()).registers.get(
                record.place, Kind.OBJECT, key_bytes(key), head_only=True
            )
            state = f"{found.metadata.size} bytes, ETag {found.metadata.etag}"
        except ObjectNotFound:
            state = "no such object (the node that would hold it answered)"
        finally:
            dial_us = (time.perf_counter() - started) * 1e6
            await fresh.close()
        return {
            "schema": "ssastore.explain/1",
            "bucket": {"name": self.name, "id": f"{record.place.bucket:016x}", "shards": record.place.shards},
            "location": location.as_json(),
            "object": state,
            "read_bucket_us": round(bucket_us),
            "dial_and_read_us": round(dial_us),
        }


def _as_bytes(view: memoryview) -> memoryview | bytes:
    """The same bytes with a length that counts bytes: a view may have larger items, or gaps."""
    return view.cast("B") if view.c_contiguous else view.tobytes()


async def _pieces(data: Source) -> AsyncIterator[bytes | memoryview]:
    """The source as pieces of bytes; files are read on a thread, so a slow disk stalls nobody."""
    if isinstance(data, bytes | bytearray | memoryview):
        yield memoryview(data)
    elif isinstance(data, AsyncIterable):
        async for piece in data:
            yield piece
    elif hasattr(data, "read"):
        while piece := await asyncio.to_thread(data.read, _READ_BYTES):
            yield piece
    else:
        for piece in data:
            yield piece
