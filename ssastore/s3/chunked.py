"""The body framing ``aws-chunked``, decoded as it arrives.

    signed                                       unsigned
    10000;chunk-signature=<64 hex>\\r\\n          10000\\r\\n
    <65536 bytes>\\r\\n                           <65536 bytes>\\r\\n
    0;chunk-signature=<64 hex>\\r\\n              0\\r\\n
    x-amz-checksum-crc32c:<base64>\\r\\n          x-amz-checksum-crc32c:<base64>\\r\\n
    x-amz-trailer-signature:<64 hex>\\r\\n        \\r\\n
    \\r\\n

Trailer lines are there only if the mode has a trailer.  In the trailer section lines
may end in a bare LF and an empty line may stand before the trailer signature or after
the end: AWS documents that form and minio-go sends it.  Everywhere else the framing is
strict, since a decoder that guesses stores framing inside objects.

Invariants: no byte of a signed chunk leaves ``feed`` before its signature is verified;
nothing is complete before ``finish`` has returned; memory is one signed chunk
(``AWS_CHUNK_BYTES_MAX``) or nothing; work is linear in the input, and tiny chunks, which
cost the most, are counted.  After an error the decoder only fails.

Not handled: the checksum that a trailer carries (``checksums`` compares it) and chunk
extensions other than the signature (refused).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from hashlib import sha256

from ssastore.limits import (
    AWS_CHUNK_BYTES_MAX,
    AWS_CHUNK_LINE_BYTES_MAX,
    AWS_SMALL_CHUNK_BYTES,
    AWS_SMALL_CHUNKS_MAX,
    AWS_TRAILER_BYTES_MAX,
    OBJECT_BYTES_MAX,
)
from ssastore.s3.errors import S3Error
from ssastore.s3.names import parse_number
from ssastore.s3.principal import PayloadMode, SignatureChain

_HEX_DIGITS = b"0123456789abcdefABCDEF"
_SIZE_DIGITS_MAX = 16
_SIGNATURE_EXTENSION = b"chunk-signature="
_TRAILER_SIGNATURE = "x-amz-trailer-signature"
_TRAILER_SLACK = b"\r\n"
"What may follow the end of a trailer section: one more empty line (minio-go)."


class _State(Enum):
    SIZE_LINE = "the header line of a chunk"
    DATA = "the bytes of a chunk"
    DATA_END = "the CRLF after them"
    TRAILER = "trailer lines up to an empty one, or the CRLF after the last chunk"
    END = "nothing more"


def parse_decoded_length(value: str | None) -> int:
    """``x-amz-decoded-content-length``: the object's size, which chunked bodies must announce.

    Raises:
        S3Error: InvalidRequest if it is missing, InvalidArgument if it is no number,
            EntityTooLarge if no object can be that large.
    """
    if value is None:
        raise S3Error(
            "InvalidRequest", "Missing required header for this request: x-amz-decoded-content-length"
        )
    length = parse_number("x-amz-decoded-content-length", value, least=0)
    if length > OBJECT_BYTES_MAX:
        raise S3Error("EntityTooLarge", ProposedSize=length, MaxSizeAllowed=OBJECT_BYTES_MAX)
    return length


def parse_trailer_names(value: str | None) -> tuple[str, ...]:
    """The trailing headers that ``x-amz-trailer`` announces, in lower case; S3Error InvalidRequest.

    As in S3, only checksums can be sent there.
    """
    if value is None:
        return ()
    names = tuple(name.strip().lower() for name in value.split(","))
    if len(set(names)) != len(names) or not all(name.startswith("x-amz-checksum-") for name in names):
        raise S3Error("InvalidRequest", "The value specified in the x-amz-trailer header is not supported")
    return names


def stored_content_encoding(value: str | None) -> str | None:
    """A ``Content-Encoding`` without ``aws-chunked``, which describes the upload and not the object."""
    if value is None or "aws-chunked" not in value.lower():
        return value or None
    tokens = [token.strip() for token in value.split(",")]
    return ",".join(token for token in tokens if token and token.lower() != "aws-chunked") or None


class ChunkedDecoder:
    """Decodes one body. The caller feeds what arrives and calls ``finish`` at the end of the body.

    Bytes of unsigned chunks come out at once, so the caller must make nothing visible before
    ``finish`` has returned. All errors are S3Error.
    """

    def __init__(
        self,
        mode: PayloadMode,
        *,
        decoded_length: int,
        chain: SignatureChain | None = None,
        announced_trailers: Sequence[str] = (),
    ) -> None:
        """``chain`` is ``Principal.chain``; ``announced_trailers`` come from ``parse_trailer_names``."""
        assert mode.is_aws_chunked and mode.signs_chunks == (chain is not None)
        self._mode = mode
        self._chain = chain
        self._announced = tuple(announced_trailers)
        self._undecoded = decoded_length
        self._state = _State.SIZE_LINE
        self._has_failed = False
        self._line = bytearray()
        self._small_chunks = 0
        # The chunk being read.
        self._missing = 0
        self._signature = b""
        self._held = bytearray()
        self._hash = sha256()
        # The trailer being read.
        self._trailers: dict[str, str] = {}
        self._trailer_bytes = 0
        self._trailer_is_verified = False
        self._has_empty_line = False
        self._slack = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Decode the next bytes of the body; return what is decoded (and, if signed, verified).

        Raises:
            S3Error: SignatureDoesNotMatch, IncompleteBody (other length than announced),
                InvalidChunkSizeError, MalformedTrailerError, InvalidRequest (no such framing).
        """
        if self._has_failed:
            raise S3Error("IncompleteBody")
        self._has_failed = True  # until this call has come through
        decoded: list[bytes] = []
        position = 0
        while position < len(data):
            if self._state is _State.DATA:
                position = self._take_data(data, position, decoded)
            elif self._state is _State.END:
                position = self._take_slack(data, position)
            else:
                position = self._take_line(data, position, decoded)
        self._has_failed = False
        return decoded

    def finish(self) -> dict[str, str]:
        """The body has ended: return the trailing headers, names in lower case.

        Raises:
            S3Error: IncompleteBody if the framing had not ended.
        """
        if self._has_failed or self._state is not _State.END:
            raise S3Error("IncompleteBody")
        return self._trailers

    # -- chunks ------------------------------------------------------------------------------------

    def _take_data(self, data: bytes, start: int, decoded: list[bytes]) -> int:
        end = min(len(data), start + self._missing)
        piece = data if end - start == len(data) else data[start:end]
        self._missing -= len(piece)
        if self._chain is None:
            decoded.append(piece)
        else:
            self._hash.update(piece)
            self._held += piece  # one buffer: a list of tiny pieces would weigh many times their bytes
        if not self._missing:
            self._state = _State.DATA_END
        return end

    def _take_line(self, data: bytes, start: int, decoded: list[bytes]) -> int:
        """Read up to the next LF and act on the line, if it is complete."""
        newline = data.find(b"\n", start)
        end = newline + 1 if newline >= 0 else len(data)
        self._line += data[start:end]
        longest = AWS_TRAILER_BYTES_MAX if self._state is _State.TRAILER else AWS_CHUNK_LINE_BYTES_MAX
        if len(self._line) > longest:
            raise S3Error("InvalidRequest", "A line of the aws-chunked body is too long.")
        if newline >= 0:
            line = bytes(self._line)
            self._line.clear()
            if self._state is _State.TRAILER:
                self._trailer_line(line)
            elif not line.endswith(b"\r\n"):
                raise S3Error("InvalidRequest", "A line of the aws-chunked body does not end in CRLF.")
            elif self._state is _State.SIZE_LINE:
                self._size_line(line[:-2])
            else:
                self._data_end(line, decoded)
        return end

    def _size_line(self, line: bytes) -> None:
        digits, semicolon, extension = line.partition(b";")
        if not digits or len(digits) > _SIZE_DIGITS_MAX or digits.translate(None, _HEX_DIGITS):
            raise S3Error("InvalidRequest", "The size of a chunk is not a hexadecimal number.")
        size = int(digits, 16)
        if self._chain is None:
            if semicolon:
                raise S3Error("InvalidRequest", "A chunk of an unsigned body has an extension.")
        elif not extension.startswith(_SIGNATURE_EXTENSION):
            raise S3Error("SignatureDoesNotMatch", "A chunk has no chunk-signature.")
        else:
            self._signature = extension[len(_SIGNATURE_EXTENSION) :]
        self._check_size(size)
        self._undecoded -= size
        if size:
            self._missing = size
            self._state = _State.DATA
        else:
            self._end_of_chunks()

    def _check_size(self, size: int) -> None:
        if size > self._undecoded:
            raise S3Error("IncompleteBody", "The body is longer than x-amz-decoded-content-length.")
        if self._chain is not None and size > AWS_CHUNK_BYTES_MAX:
            raise S3Error("InvalidRequest", f"A signed chunk must not be above {AWS_CHUNK_BYTES_MAX} bytes.")
        # S3 refuses the second chunk below 8 KiB.  SDKs that stream do send some, and they do no harm
        # until they are so many that decoding them costs more than their bytes are worth.
        if size < AWS_SMALL_CHUNK_BYTES:
            self._small_chunks += 1
            if self._small_chunks > AWS_SMALL_CHUNKS_MAX:
                raise S3Error("InvalidChunkSizeError", Chunk=self._small_chunks, BadChunkSize=size)

    def _data_end(self, line: bytes, decoded: list[bytes]) -> None:
        if line != b"\r\n":
            raise S3Error("InvalidRequest", "A chunk is longer than its header says.")
        if self._chain is not None:
            self._chain.check_chunk(self._hash.hexdigest(), self._signature)
            decoded.append(bytes(self._held))
            self._held.clear()
            self._hash = sha256()
        self._state = _State.SIZE_LINE

    def _end_of_chunks(self) -> None:
        if self._undecoded:
            raise S3Error("IncompleteBody", "The body is shorter than x-amz-decoded-content-length.")
        if self._chain is not None:
            self._chain.check_chunk(self._hash.hexdigest(), self._signature)
            self._hash = sha256()
        self._state = _State.TRAILER

    # -- trailer -----------------------------------------------------------------------------------

    def _trailer_line(self, line: bytes) -> None:
        self._trailer_bytes += len(line)
        if self._trailer_bytes > AWS_TRAILER_BYTES_MAX:
            raise S3Error("MalformedTrailerError", "The trailing headers are too long.")
        line = line.removesuffix(b"\n").removesuffix(b"\r")
        if not line:
            self._end_of_trailer()
            return
        raw_name, colon, raw_value = line.partition(b":")
        if not colon or not self._mode.has_trailer or not line.isascii():
            raise S3Error("MalformedTrailerError")
        name, value = raw_name.decode().strip().lower(), raw_value.decode().strip()
        if name == _TRAILER_SIGNATURE and self._chain is not None:
            self._verify_trailer(value)
        elif name not in self._announced or name in self._trailers or self._trailer_is_verified:
            raise S3Error("MalformedTrailerError", "A trailing header was not announced or came twice.")
        else:
            self._trailers[name] = value
            self._hash.update(f"{name}:{value}\n".encode())

    def _verify_trailer(self, signature: str) -> None:
        assert self._chain is not None
        if self._trailer_is_verified:
            raise S3Error("MalformedTrailerError")
        self._chain.check_trailer(self._hash.hexdigest(), signature.encode())
        self._trailer_is_verified = True

    def _end_of_trailer(self) -> None:
        if self._mode.has_trailer and len(self._trailers) != len(self._announced):
            raise S3Error("MalformedTrailerError", "A trailing header that was announced is missing.")
        if self._mode.has_trailer and self._chain is not None and not self._trailer_is_verified:
            if self._has_empty_line:
                raise S3Error("MalformedTrailerError", "The signature of the trailing headers is missing.")
            self._has_empty_line = True  # the one that may stand before the signature
        else:
            self._state = _State.END

    def _take_slack(self, data: bytes, start: int) -> int:
        rest = data[start : start + len(_TRAILER_SLACK)]
        if not self._mode.has_trailer or not _TRAILER_SLACK[self._slack :].startswith(rest) or not rest:
            raise S3Error("InvalidRequest", "Bytes follow the end of the aws-chunked body.")
        self._slack += len(rest)
        return start + len(rest)
