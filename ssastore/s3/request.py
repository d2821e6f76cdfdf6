"""What an operation gets and gives: a request that was authenticated, and a response. Pure.

An operation cannot be called without a ``Principal``: the only way to make one is
``authentication.authenticate``, and the server makes it before it looks at the path.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from ssastore.core.demand import Demand
from ssastore.limits import XML_BYTES_MAX
from ssastore.s3.checksums import Algorithm, BodyCheck, declared_checksum, parse_content_md5
from ssastore.s3.chunked import ChunkedDecoder, parse_decoded_length, parse_trailer_names
from ssastore.s3.errors import S3Error
from ssastore.s3.names import ETags, parse_etags, parse_number, parse_time
from ssastore.s3.principal import Principal
from ssastore.s3.tags import parse_tagging
from ssastore.wire import Body


class RawBody(Protocol):
    """The request's body as it arrives."""

    @property
    def length(self) -> int | None:
        """Bytes that will come, if the client said so."""
        ...

    def pieces(self) -> AsyncIterator[bytes]:
        """The bytes. Raises S3Error IncompleteBody or RequestTimeout when they stop coming."""
        ...


@dataclass(slots=True)
class Request:
    """One authenticated request."""

    method: str
    bucket: str | None
    key: str | None
    query: dict[str, str]
    headers: Mapping[str, str]
    "Case-insensitive."
    principal: Principal
    request_id: str
    body: RawBody
    user: str
    "Whose key it was signed with (``core.users``); ANYBODY for one without credentials."
    remote: str = ""
    "Address of the client; empty when it is not known."
    received_ms: int = 0
    tags: dict[str, str] | None = None
    "What ``body_tags`` has read, or what a copy takes along."

    def upload(self) -> VerifiedBody:
        """The body of an upload, decoded and checked. Raises S3Error for contradicting headers."""
        return VerifiedBody(self)

    async def small_body(self, limit: int, *, has_checksum: bool = True) -> bytes:
        """All of a small body, verified. S3Error MaxMessageLengthExceeded above ``limit`` bytes.

        ``has_checksum`` is False where ``x-amz-checksum-*`` headers speak of something else.
        """
        body = VerifiedBody(self, has_checksum=has_checksum)
        if body.size is not None and body.size > limit:
            raise S3Error("MaxMessageLengthExceeded", MaxMessageLengthBytes=limit)
        taken = bytearray()
        async for piece in body.pieces():
            taken += piece
            if len(taken) > limit:
                raise S3Error("MaxMessageLengthExceeded", MaxMessageLengthBytes=limit)
        return bytes(taken)

    async def body_tags(self) -> dict[str, str]:
        """The tags of a body that is a Tagging document; it is read once.

        Raises S3Error as ``small_body`` and ``parse_tagging``.
        """
        if self.tags is None:
            self.tags = parse_tagging(await self.small_body(XML_BYTES_MAX))
        return self.tags

    def demand(self) -> Demand:
        """What a write demands of the object that is there.

        An ETag in If-None-Match, which AWS refuses, means what RFC 9110 says.

        Raises:
            S3Error: InvalidArgument; NotImplemented for lists of ETags, and for weak ones.
        """
        wanted = parse_etags("If-Match", self.headers.get("If-Match"))
        unwanted = parse_etags("If-None-Match", self.headers.get("If-None-Match"))
        if wanted is not None and unwanted is not None:
            raise S3Error("InvalidArgument", "A write takes If-Match or If-None-Match, not both.")
        return Demand(_single_tag("If-Match", wanted), _single_tag("If-None-Match", unwanted))

    def deletion_demand(self) -> Demand:
        """What a delete demands. Raises S3Error as ``demand``."""
        demand = self.demand()
        if demand.if_none_match is not None:
            raise S3Error("NotImplemented", "A delete takes no If-None-Match.")
        modified, size = self.headers.get(_IF_MODIFIED), self.headers.get(_IF_SIZE)
        return replace(
            demand,
            modified_s=None if modified is None else parse_time(_IF_MODIFIED, modified) // 1000,
            size=None if size is None else parse_number(_IF_SIZE, size, least=0),
        )


_IF_MODIFIED = "x-amz-if-match-last-modified-time"
_IF_SIZE = "x-amz-if-match-size"


def _single_tag(name: str, tags: ETags | None) -> str | None:
    if tags is None:
        return None
    if tags.any:
        return "*"
    if len(tags.strong) != 1 or tags.weak:
        raise S3Error("NotImplemented", f"A write takes {name} with one strong ETag.")
    if not tags.strong[0].isascii():  # what is not UTF-8 could not even be sent to a node
        raise S3Error("InvalidArgument", f"{name} is no ETag of ours.", ArgumentName=name)
    return tags.strong[0]


@dataclass(slots=True)
class Response:
    """What goes back; ``stream`` yields exactly ``length`` bytes and replaces ``body``."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    stream: AsyncIterator[Body] | None = None
    length: int = 0

    @staticmethod
    def xml(document: bytes, status: int = 200) -> Response:
        """A response with an XML body."""
        return Response(status, document, {"Content-Type": "application/xml"})


class VerifiedBody:
    """The bytes of an upload, taken out of aws-chunked and compared with every digest claimed.

    Nothing of it may become visible before ``pieces`` has ended without an error.
    """

    def __init__(self, request: Request, *, has_checksum: bool = True) -> None:
        principal, headers = request.principal, request.headers
        self._raw = request.body
        self._decoder: ChunkedDecoder | None = None
        trailers: tuple[str, ...] = ()
        self.size = request.body.length
        if principal.payload.is_aws_chunked:
            self.size = parse_decoded_length(headers.get("x-amz-decoded-content-length"))
            if principal.payload.has_trailer:
                trailers = parse_trailer_names(headers.get("x-amz-trailer"))
            self._decoder = ChunkedDecoder(
                principal.payload,
                decoded_length=self.size,
                chain=principal.chain,
                announced_trailers=trailers,
            )
        declared = declared_checksum(headers, trailers) if has_checksum else None
        self._algorithm = declared.algorithm if declared else None
        self._check = BodyCheck(
            sha256=principal.payload_sha256,
            md5=parse_content_md5(headers.get("Content-MD5")),
            declared=declared,
        )

    def want(self, algorithm: Algorithm) -> None:
        """Have a checksum by this algorithm, computed here when the client sends none.

        Raises:
            S3Error: InvalidRequest when it sends one by another.
        """
        if self._algorithm is None:
            self._algorithm = algorithm
            self._check.want(algorithm)
        elif self._algorithm != algorithm:
            raise S3Error(
                "InvalidRequest",
                f"Checksum Type mismatch occurred, expected checksum Type: {algorithm.name.lower()}, "
                f"actual checksum Type: {self._algorithm.name.lower()}",
            )

    async def pieces(self) -> AsyncIterator[bytes]:
        """Decoded bytes; raises S3Error at the end when a length, digest or signature is wrong."""
        if self._decoder is None:
            async for piece in self._raw.pieces():
                self._check.update(piece)
                yield piece
            self._check.verify()
            return
        async for raw in self._raw.pieces():
            for piece in self._decoder.feed(raw):
                self._check.update(piece)
                yield piece
        self._check.verify(self._decoder.finish())

    def md5_hex(self) -> str:
        """MD5 of what has passed."""
        return self._check.md5_digest().hex()

    def checksum(self) -> tuple[str, bytes] | None:
        """(algorithm, digest) of the declared or wanted checksum, to be kept and given back."""
        digest = self._check.checksum_digest()
        return (self._algorithm.name, digest) if self._algorithm and digest is not None else None
