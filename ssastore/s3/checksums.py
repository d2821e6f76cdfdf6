"""Does the body have the digests that the request claims?

A PUT can be protected four times over: by the signed SHA-256 of its body, by
``Content-MD5``, and by one ``x-amz-checksum-*``, sent as a header or as a trailing
header.  ``BodyCheck`` computes what is needed in one pass and compares at the end;
nothing of the body may become visible before that.

    algorithm    header                       digest, sent as base64
    CRC32        x-amz-checksum-crc32         4 bytes, the default of today's SDKs
    CRC32C       x-amz-checksum-crc32c        4 bytes
    CRC64NVME    x-amz-checksum-crc64nvme     8 bytes
    SHA1         x-amz-checksum-sha1          20 bytes
    SHA256       x-amz-checksum-sha256        32 bytes

Cost per MiB here: CRCs 0.03 ms (``anycrc``; 0.18 ms for zlib's CRC32), SHA-1 0.5 ms,
SHA-256 0.5 ms, MD5 1.3 ms.  The hashes release the interpreter lock for inputs above
2 KiB, so ``update`` can run in a thread; the CRCs keep it.

A part of an upload is checked like any body; what they are together: ``uploadsums``.
"""

from __future__ import annotations

import binascii
import hashlib
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import anycrc  # type: ignore[import-untyped, unused-ignore]

from ssastore.s3.errors import S3Error

_HEADER_PREFIX = "x-amz-checksum-"
# These share the prefix and name no digest.
_NOT_DIGESTS = frozenset({"x-amz-checksum-algorithm", "x-amz-checksum-mode", "x-amz-checksum-type"})
COMPOSITE, FULL_OBJECT = "COMPOSITE", "FULL_OBJECT"
"What a checksum is of: the digests of an object's parts, or the object's bytes."
_SDK_ALGORITHM = "x-amz-sdk-checksum-algorithm"


class Hasher(Protocol):
    """What ``hashlib`` objects and ``_Crc`` have in common."""

    def update(self, data: bytes, /) -> None: ...

    def digest(self) -> bytes: ...


class _Crc:
    """A CRC with the interface of ``hashlib``."""

    __slots__ = ("_calc", "_size", "_value")

    def __init__(self, model: Any, size: int) -> None:
        self._calc = model.calc
        self._size = size
        self._value = 0  # all three CRCs are zero for no bytes

    def update(self, data: bytes, /) -> None:
        self._value = self._calc(data, self._value)

    def digest(self) -> bytes:
        return int(self._value).to_bytes(self._size, "big")


def _combine(model: Any, size: int) -> Callable[[bytes, bytes, int], bytes]:
    def combine(first: bytes, second: bytes, second_size: int) -> bytes:
        joined = model.combine(int.from_bytes(first, "big"), int.from_bytes(second, "big"), second_size)
        return int(joined).to_bytes(size, "big")

    return combine


_CRC32 = anycrc.Model("CRC32")
_CRC32C = anycrc.Model("CRC32C")
_CRC64NVME = anycrc.Model("CRC64-NVME")


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One of S3's checksum algorithms."""

    name: str
    size: int
    "Bytes of a digest."
    new: Callable[[], Hasher]
    combine: Callable[[bytes, bytes, int], bytes] | None = None
    "The digest of two texts from theirs and the second one's size, where it follows from them."

    @property
    def header(self) -> str:
        """Header, or trailing header, that carries the digest."""
        return _HEADER_PREFIX + self.name.lower()

    def parse(self, text: str) -> bytes:
        """The digest in a header's value. S3Error BadDigest if it cannot be one: it is that of no body."""
        digest = _decode_base64(text)
        if digest is None or len(digest) != self.size:
            raise S3Error("BadDigest", f"Value for {self.header} header is invalid.")
        return digest


ALGORITHMS = {
    algorithm.name: algorithm
    for algorithm in (
        Algorithm("CRC32", 4, lambda: _Crc(_CRC32, 4), _combine(_CRC32, 4)),
        Algorithm("CRC32C", 4, lambda: _Crc(_CRC32C, 4), _combine(_CRC32C, 4)),
        Algorithm("CRC64NVME", 8, lambda: _Crc(_CRC64NVME, 8), _combine(_CRC64NVME, 8)),
        Algorithm("SHA1", 20, lambda: hashlib.sha1(usedforsecurity=False)),
        Algorithm("SHA256", 32, hashlib.sha256),
    )
}
_BY_HEADER = {algorithm.header: algorithm for algorithm in ALGORITHMS.values()}


@dataclass(frozen=True, slots=True)
class DeclaredChecksum:
    """The one checksum that a request promises for its body."""

    algorithm: Algorithm
    digest: bytes | None
    "None if it comes in the trailer."


def declared_checksum(
    headers: Mapping[str, str], announced_trailers: Sequence[str] = ()
) -> DeclaredChecksum | None:
    """The checksum of a request's headers, or the one its trailer will carry; None if there is none.

    Only for requests whose checksum is that of their body: not for CompleteMultipartUpload, where the
    same header speaks of the object.

    Args:
        headers: may be a multi-dict; names in any case.
        announced_trailers: of ``chunked.parse_trailer_names``.

    Raises:
        S3Error: InvalidRequest for an unknown algorithm, more than one checksum, or an SDK header that
            names another algorithm; BadDigest for a value that is no digest.
    """
    found: list[DeclaredChecksum] = []
    named: str | None = None
    for header, value in headers.items():
        name = header.lower()
        if name.startswith(_HEADER_PREFIX) and name not in _NOT_DIGESTS:
            algorithm = _algorithm_of(name)
            found.append(DeclaredChecksum(algorithm, algorithm.parse(value)))
        elif name == _SDK_ALGORITHM:
            named = value.strip().upper()
    found += [DeclaredChecksum(_algorithm_of(name), None) for name in announced_trailers]
    if len(found) > 1:
        message = "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed."
        raise S3Error("InvalidRequest", message)
    declared = found[0] if found else None
    if named is not None and (declared is None or declared.algorithm.name != named):
        message = f"{_SDK_ALGORITHM} names an algorithm without a matching x-amz-checksum-* or x-amz-trailer."
        raise S3Error("InvalidRequest", message)
    return declared


def _algorithm_of(header: str) -> Algorithm:
    algorithm = _BY_HEADER.get(header)
    if algorithm is None:
        raise S3Error("InvalidRequest", f"Unsupported checksum: {header[:64]}")
    return algorithm


def parse_content_md5(value: str | None) -> bytes | None:
    """The digest of a ``Content-MD5`` header, None without one. S3Error InvalidDigest."""
    if value is None:
        return None
    digest = _decode_base64(value)
    if digest is None or len(digest) != 16:
        raise S3Error("InvalidDigest")
    return digest


def encode_digest(digest: bytes) -> str:
    """A digest as S3 writes it into headers."""
    return b64encode(digest).decode()


def _decode_base64(text: str) -> bytes | None:
    try:
        return b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        return None


class BodyCheck:
    """Digests of one body, computed as it passes and compared at its end.

    The MD5 is computed unless ``with_md5`` is False, since the ETag of a simple PUT is the MD5.
    """

    def __init__(
        self,
        *,
        sha256: bytes | None = None,
        md5: bytes | None = None,
        declared: DeclaredChecksum | None = None,
        with_md5: bool = True,
    ) -> None:
        """``sha256`` is ``Principal.payload_sha256``, ``md5`` that of ``parse_content_md5``."""
        self._wanted_sha256 = sha256
        self._wanted_md5 = md5
        self._declared = declared
        self._sha256 = hashlib.sha256() if sha256 is not None else None
        self._md5 = hashlib.md5(usedforsecurity=False) if with_md5 or md5 is not None else None
        self._checksum = declared.algorithm.new() if declared is not None else None
        hashers: list[Hasher | None] = [self._sha256, self._md5, self._checksum]
        self._hashers = [hasher for hasher in hashers if hasher is not None]

    def want(self, algorithm: Algorithm) -> None:
        """Compute a checksum that was not declared. To be called before ``update``."""
        assert self._checksum is None
        self._checksum = algorithm.new()
        self._hashers.append(self._checksum)

    def update(self, data: bytes) -> None:
        """Pass the next decoded bytes of the body."""
        for hasher in self._hashers:
            hasher.update(data)

    def verify(self, trailers: Mapping[str, str] | None = None) -> None:
        """The body has ended; compare. ``trailers`` are those of ``ChunkedDecoder.finish``.

        Raises:
            S3Error: XAmzContentSHA256Mismatch, or BadDigest for the two others. The body is not what
                the client sent: drop it. MalformedTrailerError if the trailer lacks the checksum.
        """
        if self._sha256 is not None and self._sha256.digest() != self._wanted_sha256:
            raise S3Error("XAmzContentSHA256Mismatch")
        if self._wanted_md5 is not None and self.md5_digest() != self._wanted_md5:
            raise S3Error("BadDigest", "The Content-MD5 you specified did not match what we received.")
        if self._declared is None or self._checksum is None:
            return
        algorithm, wanted = self._declared.algorithm, self._declared.digest
        if wanted is None:
            text = (trailers or {}).get(algorithm.header)
            if text is None:
                raise S3Error("MalformedTrailerError")
            wanted = algorithm.parse(text)
        if self._checksum.digest() != wanted:
            message = f"The {algorithm.name} you specified did not match the calculated checksum."
            raise S3Error("BadDigest", message)

    def md5_digest(self) -> bytes:
        """MD5 of what has passed. Not to be asked for where ``with_md5`` was False."""
        assert self._md5 is not None
        return self._md5.digest()

    def checksum_digest(self) -> bytes | None:
        """Digest of the declared or wanted algorithm over what has passed; None if there is none."""
        return self._checksum.digest() if self._checksum is not None else None
