"""The aws-chunked decoder: AWS's published examples and boto3's bodies must decode however they are
cut; every damage must be refused, and nothing unverified may come out."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssastore.limits import AWS_CHUNK_BYTES_MAX, AWS_SMALL_CHUNKS_MAX, OBJECT_BYTES_MAX
from ssastore.s3.chunked import (
    ChunkedDecoder,
    parse_decoded_length,
    parse_trailer_names,
    stored_content_encoding,
)
from ssastore.s3.errors import S3Error
from ssastore.s3.principal import PayloadMode, SignatureChain, SignedRequest
from ssastore.s3.sigv4 import authenticate

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
ACCESS_KEY = "AKIAIOSFODNN7EXAMPLE"
AWS_NOW_MS = 1369353600000
CRC32C = "x-amz-checksum-crc32c"
Cut = Callable[[bytes], list[bytes]]


def whole(body: bytes) -> list[bytes]:
    return [body]


def byte_by_byte(body: bytes) -> list[bytes]:
    return [body[at : at + 1] for at in range(len(body))]


def run(decoder: ChunkedDecoder, pieces: list[bytes]) -> tuple[bytes, dict[str, str]]:
    data = b"".join(b"".join(decoder.feed(piece)) for piece in pieces)
    return data, decoder.finish()


def refused(decoder: ChunkedDecoder, pieces: list[bytes]) -> tuple[S3Error, bytes]:
    """The error that ``pieces`` end in, and what had come out before."""
    data = b""
    with pytest.raises(S3Error) as caught:
        for piece in pieces:
            data += b"".join(decoder.feed(piece))
        decoder.finish()
    return caught.value, data


# -- signed chunks ----------------------------------------------------------------------------------

AWS_SIGNATURES = (
    "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
    "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
    "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
)
AWS_TRAILER_SIGNATURES = (
    "b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2",
    "1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7",
    "2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992",
)
AWS_TRAILER = (
    b"x-amz-checksum-crc32c:sOO8/Q==\r\n"
    b"x-amz-trailer-signature:d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n\r\n"
)


def aws_body(signatures: tuple[str, str, str], end: bytes) -> bytes:
    first, second, last = signatures
    return (
        f"10000;chunk-signature={first}\r\n{'a' * 65536}\r\n"
        f"400;chunk-signature={second}\r\n{'a' * 1024}\r\n0;chunk-signature={last}\r\n"
    ).encode() + end


def aws_chain(mode: PayloadMode) -> SignatureChain:
    """The chain of AWS's example request, whose seed signature is verified on the way."""
    signed = {
        b"content-encoding": b"aws-chunked",
        b"content-length": b"66824",
        b"host": b"s3.amazonaws.com",
        b"x-amz-content-sha256": mode.value.encode(),
        b"x-amz-date": b"20130524T000000Z",
        b"x-amz-decoded-content-length": b"66560",
        b"x-amz-storage-class": b"REDUCED_REDUNDANCY",
    }
    seed = b"4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"
    if mode.has_trailer:
        del signed[b"content-length"]
        signed[b"x-amz-trailer"] = CRC32C.encode()
        seed = b"106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e"
    names = b";".join(signed)
    credential = ACCESS_KEY.encode() + b"/20130524/us-east-1/s3/aws4_request"
    claim = b"AWS4-HMAC-SHA256 Credential=%b,SignedHeaders=%b,Signature=%b" % (credential, names, seed)
    request = sigv4_request([*signed.items(), (b"Authorization", claim)])
    chain = authenticate(request, now_ms=AWS_NOW_MS, region="us-east-1", secret_of=lambda key: SECRET).chain
    assert chain is not None
    return chain


def sigv4_request(headers: list[tuple[bytes, bytes]]) -> SignedRequest:
    return SignedRequest("PUT", b"/examplebucket/chunkObject.txt", b"", headers)


def aws_decoder(mode: PayloadMode) -> ChunkedDecoder:
    trailers = (CRC32C,) if mode.has_trailer else ()
    return ChunkedDecoder(mode, decoded_length=66560, chain=aws_chain(mode), announced_trailers=trailers)


@pytest.mark.parametrize("cut", [whole, byte_by_byte])
def test_the_chunked_upload_of_the_aws_documentation_decodes(cut: Cut) -> None:
    body = aws_body(AWS_SIGNATURES, b"\r\n")
    assert len(body) == 66824
    assert run(aws_decoder(PayloadMode.CHUNKS), cut(body)) == (b"a" * 66560, {})


@pytest.mark.parametrize("cut", [whole, byte_by_byte])
def test_the_trailer_upload_of_the_aws_documentation_decodes(cut: Cut) -> None:
    body = aws_body(AWS_TRAILER_SIGNATURES, AWS_TRAILER)
    data, trailers = run(aws_decoder(PayloadMode.CHUNKS_TRAILER), cut(body))
    assert (data, trailers) == (b"a" * 66560, {CRC32C: "sOO8/Q=="})


def test_the_trailer_of_minio_go_decodes() -> None:
    """It ends the checksum line with a bare LF and puts an empty line before the signature."""
    trailer = AWS_TRAILER.replace(b"sOO8/Q==\r\n", b"sOO8/Q==\n\r\n")
    body = aws_body(AWS_TRAILER_SIGNATURES, trailer)
    assert run(aws_decoder(PayloadMode.CHUNKS_TRAILER), [body])[1] == {CRC32C: "sOO8/Q=="}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"sOO8/Q==", b"sOO8/g=="),
        (b"x-amz-trailer-signature:d", b"x-amz-trailer-signature:e"),
        (AWS_TRAILER_SIGNATURES[2].encode(), b"0" * 64),
        (AWS_TRAILER_SIGNATURES[1].encode(), AWS_TRAILER_SIGNATURES[0].encode()),
    ],
)
def test_a_changed_trailer_or_chunk_is_refused(old: bytes, new: bytes) -> None:
    body = aws_body(AWS_TRAILER_SIGNATURES, AWS_TRAILER).replace(old, new)
    error, _ = refused(aws_decoder(PayloadMode.CHUNKS_TRAILER), [body])
    assert (error.code, error.status) == ("SignatureDoesNotMatch", 403)


def test_a_trailer_without_its_signature_is_refused() -> None:
    lines = AWS_TRAILER.split(b"\r\n")
    for trailer, code in (
        (lines[0] + b"\r\n\r\n\r\n", "MalformedTrailerError"),
        (lines[0] + b"\r\n\r\n", "IncompleteBody"),
        (b"\r\n", "MalformedTrailerError"),
    ):
        body = aws_body(AWS_TRAILER_SIGNATURES, trailer)
        error, _ = refused(aws_decoder(PayloadMode.CHUNKS_TRAILER), [body])
        assert (error.code, error.status) == (code, 400)


def test_nothing_is_added_after_the_signature_of_the_trailer() -> None:
    added = b"x-amz-checksum-sha1:AA==\r\n"
    body = aws_body(AWS_TRAILER_SIGNATURES, AWS_TRAILER[:-2] + added + b"\r\n")
    mode = PayloadMode.CHUNKS_TRAILER
    announced = (CRC32C, "x-amz-checksum-sha1")
    decoder = ChunkedDecoder(mode, decoded_length=66560, chain=aws_chain(mode), announced_trailers=announced)
    assert refused(decoder, [body])[0].code == "MalformedTrailerError"


def test_no_byte_of_a_chunk_leaves_before_its_signature_is_verified() -> None:
    """Method: the second chunk's signature is wrong; then one byte of its data is."""
    body = aws_body(AWS_SIGNATURES, b"\r\n")
    for changed in (body.replace(b"0055627c", b"1055627c"), body[:-100] + b"b" + body[-99:]):
        error, data = refused(aws_decoder(PayloadMode.CHUNKS), byte_by_byte(changed))
        assert (error.code, data) == ("SignatureDoesNotMatch", b"a" * 65536)


def test_chunks_cannot_be_exchanged_dropped_or_repeated(chunk_signer: Callable[..., Any]) -> None:
    chain, signer = new_chain(chunk_signer)
    first, second, last = signer.chunk(b"1" * 9000), signer.chunk(b"2" * 9000), signer.chunk(b"")
    ends = b"\r\n"
    for body in (
        second + first + last + ends,
        first + first + last + ends,
        first + last + ends,
        second + last + ends,
    ):
        decoder = ChunkedDecoder(PayloadMode.CHUNKS, decoded_length=18000, chain=new_chain(chunk_signer)[0])
        assert refused(decoder, [body])[0].status in (400, 403)
    decoder = ChunkedDecoder(PayloadMode.CHUNKS, decoded_length=18000, chain=chain)
    assert run(decoder, [first + second + last + ends])[0] == b"1" * 9000 + b"2" * 9000


def new_chain(chunk_signer: Callable[..., Any]) -> tuple[SignatureChain, Any]:
    """A chain to verify and a signer to sign with the same key and seed."""
    signer = chunk_signer("0" * 64)
    scope = b"20260102/us-east-1/s3/aws4_request"
    chain = SignatureChain(signer._key, timestamp=b"20260102T030405Z", scope=scope, seed=b"0" * 64)
    return chain, signer


@given(sizes=st.lists(st.integers(1, 300), max_size=6), cuts=st.lists(st.integers(0, 4000), max_size=12))
def test_signed_bodies_decode_wherever_they_are_cut(
    chunk_signer: Callable[..., Any], sizes: list[int], cuts: list[int]
) -> None:
    chain, signer = new_chain(chunk_signer)
    data = [bytes([65 + number]) * size for number, size in enumerate(sizes)]
    body = (
        b"".join(signer.chunk(piece) for piece in data) + signer.chunk(b"") + signer.trailer(CRC32C, "eA==")
    )
    decoder = ChunkedDecoder(
        PayloadMode.CHUNKS_TRAILER, decoded_length=sum(sizes), chain=chain, announced_trailers=(CRC32C,)
    )
    edges = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    pieces = [body[start:end] for start, end in pairwise(edges)]
    assert run(decoder, pieces) == (b"".join(data), {CRC32C: "eA=="})


def test_a_body_cut_short_anywhere_is_incomplete(chunk_signer: Callable[..., Any]) -> None:
    _, signer = new_chain(chunk_signer)
    body = signer.chunk(b"x" * 10) + signer.chunk(b"") + signer.trailer(CRC32C, "eA==")
    for length in range(len(body)):
        decoder = ChunkedDecoder(
            PayloadMode.CHUNKS_TRAILER,
            decoded_length=10,
            chain=new_chain(chunk_signer)[0],
            announced_trailers=(CRC32C,),
        )
        error, _ = refused(decoder, [body[:length]])
        assert (error.code, error.status) == ("IncompleteBody", 400)


def test_a_signed_chunk_has_a_largest_size(chunk_signer: Callable[..., Any]) -> None:
    chain, _ = new_chain(chunk_signer)
    decoder = ChunkedDecoder(PayloadMode.CHUNKS, decoded_length=2**40, chain=chain)
    line = b"%x;chunk-signature=%b\r\n" % (AWS_CHUNK_BYTES_MAX + 1, b"0" * 64)
    assert refused(decoder, [line])[0].code == "InvalidRequest"


def test_held_back_bytes_do_not_grow_with_the_number_of_pieces(chunk_signer: Callable[..., Any]) -> None:
    chain, _ = new_chain(chunk_signer)
    decoder = ChunkedDecoder(PayloadMode.CHUNKS, decoded_length=2**20, chain=chain)
    decoder.feed(b"100000;chunk-signature=%b\r\n" % (b"0" * 64))
    pieces = [bytes([at % 251, at % 241]) for at in range(2**16)]
    tracemalloc.start()
    for piece in pieces:
        assert decoder.feed(piece) == []
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert held < 2 * 2**17


# -- unsigned chunks --------------------------------------------------------------------------------


def unsigned(decoded_length: int, *announced: str) -> ChunkedDecoder:
    return ChunkedDecoder(
        PayloadMode.UNSIGNED_TRAILER, decoded_length=decoded_length, announced_trailers=announced
    )


@pytest.mark.parametrize("size", [0, 1, 1024 * 1024, 2_500_000])
def test_what_boto3_sends_over_https_decodes(capture: Callable[..., Any], size: int) -> None:
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    body = io.BytesIO(data)
    sent = capture("put_object", endpoint="https://localhost:7482", Bucket="photos", Key="k", Body=body)
    announced = parse_trailer_names(sent.header("x-amz-trailer"))
    assert announced == ("x-amz-checksum-crc32",)
    length = parse_decoded_length(sent.header("x-amz-decoded-content-length"))
    assert length == size
    pieces = [sent.body[at : at + 65_521] for at in range(0, len(sent.body), 65_521)]
    decoded, trailers = run(unsigned(length, *announced), pieces)
    assert decoded == data
    assert set(trailers) == set(announced)


def test_bytes_of_an_unsigned_chunk_come_out_at_once() -> None:
    decoder = unsigned(10)
    assert decoder.feed(b"a\r\n01234") == [b"01234"]
    assert decoder.feed(b"56789") == [b"56789"]
    assert decoder.feed(b"\r\n0\r\n\r\n") == []
    assert decoder.finish() == {}


def test_one_unsigned_chunk_can_be_a_whole_part() -> None:
    """aws-sdk-go-v2 sends a body of known length as a single chunk."""
    decoder = unsigned(5 * 2**30)
    assert decoder.feed(b"140000000\r\n") == []
    assert decoder.feed(b"x" * 100) == [b"x" * 100]


@pytest.mark.parametrize("cut", [whole, byte_by_byte])
@pytest.mark.parametrize(
    "end",
    [
        b"x-amz-checksum-crc32:AAAAAA==\r\n\r\n",
        b"X-Amz-Checksum-CRC32: AAAAAA== \r\n\r\n",
        b"x-amz-checksum-crc32:AAAAAA==\n\r\n\r\n",  # minio-go
    ],
)
def test_trailers_are_read_in_the_spellings_of_sdks(cut: Cut, end: bytes) -> None:
    body = b"3\r\nabc\r\n0\r\n" + end
    decoded = run(unsigned(3, "x-amz-checksum-crc32"), cut(body))
    assert decoded == (b"abc", {"x-amz-checksum-crc32": "AAAAAA=="})


TRAILER = b"x-amz-checksum-crc32:AAAAAA==\r\n"


@pytest.mark.parametrize("cut", [whole, byte_by_byte])
@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "IncompleteBody"),
        (b"3", "IncompleteBody"),
        (b"3\r\nab", "IncompleteBody"),
        (b"3\r\nabc\r\n", "IncompleteBody"),
        (b"3\r\nabc\r\n0\r\n", "IncompleteBody"),
        (b"3\r\nabc\r\n0\r\n" + TRAILER, "IncompleteBody"),
        (b"2\r\nab\r\n0\r\n" + TRAILER + b"\r\n", "IncompleteBody"),
        (b"4\r\nabcd\r\n0\r\n" + TRAILER + b"\r\n", "IncompleteBody"),
        (b"3\r\nabc\r\n1\r\n", "IncompleteBody"),
        (b"ffffffffffffffff\r\n", "IncompleteBody"),
        (b"3\r\nabcd\r\n0\r\n", "InvalidRequest"),
        (b"3\r\nabc\n0\r\n", "InvalidRequest"),
        (b"3\nabc\r\n0\r\n", "InvalidRequest"),
        (b"33\nabc\r\n0\r\n", "InvalidRequest"),
        (b"2\r\nab\r\n2\r\ncd\r\n", "IncompleteBody"),
        (b"+3\r\nabc", "InvalidRequest"),
        (b"-3\r\nabc", "InvalidRequest"),
        (b"0x3\r\nabc", "InvalidRequest"),
        (b"1_0\r\nabc", "InvalidRequest"),
        (b" 3\r\nabc", "InvalidRequest"),
        (b"\r\nabc", "InvalidRequest"),
        (b"xyz\r\nabc", "InvalidRequest"),
        (b"0" * 17 + b"3\r\nabc", "InvalidRequest"),
        (b"3;a=b\r\nabc", "InvalidRequest"),
        (b"3;chunk-signature=" + b"0" * 64 + b"\r\n", "InvalidRequest"),
        (b"3" * 2000, "InvalidRequest"),
        (b"3\r\nabc\r\n0\r\n\r\n", "MalformedTrailerError"),
        (b"3\r\nabc\r\n0\r\nx-amz-checksum-sha1:AA==\r\n\r\n", "MalformedTrailerError"),
        (b"3\r\nabc\r\n0\r\n" + TRAILER + TRAILER + b"\r\n", "MalformedTrailerError"),
        (b"3\r\nabc\r\n0\r\n" + TRAILER + b"x-amz-meta-a:b\r\n\r\n", "MalformedTrailerError"),
        (b"3\r\nabc\r\n0\r\nno colon\r\n\r\n", "MalformedTrailerError"),
        (b"3\r\nabc\r\n0\r\nx-amz-checksum-crc32:\xff\r\n\r\n", "MalformedTrailerError"),
        (b"3\r\nabc\r\n0\r\nx-amz-trailer-signature:" + b"0" * 64 + b"\r\n\r\n", "MalformedTrailerError"),
        (b"3\r\nabc\r\n0\r\nx-amz-checksum-crc32:" + b"A" * 20_000, "InvalidRequest"),
        (b"3\r\nabc\r\n0\r\n" + TRAILER + b"\r\nmore", "InvalidRequest"),
        (b"3\r\nabc\r\n0\r\n" + TRAILER + b"\r\n\r\n\r\n", "InvalidRequest"),
    ],
)
def test_broken_bodies_are_refused(cut: Cut, body: bytes, code: str) -> None:
    error, data = refused(unsigned(3, "x-amz-checksum-crc32"), cut(body))
    assert (error.code, error.status) == (code, 400)
    assert len(data) <= 3


def test_chunks_of_a_body_without_trailer_are_not_followed_by_one(chunk_signer: Callable[..., Any]) -> None:
    for trailer in (b"x-amz-checksum-crc32:AAAAAA==\r\n\r\n", None):
        chain, signer = new_chain(chunk_signer)
        body = signer.chunk(b"")
        signed = signer.trailer("x", "y").partition(b"\r\n")[2]  # the line of the signature alone
        decoder = ChunkedDecoder(PayloadMode.CHUNKS, decoded_length=0, chain=chain)
        assert refused(decoder, [body + (trailer or signed)])[0].code == "MalformedTrailerError"


def test_chunks_without_a_signature_are_refused_where_they_must_be_signed(
    chunk_signer: Callable[..., Any],
) -> None:
    for line in (b"3\r\nabc\r\n", b"3;signature=x\r\nabc\r\n", b"3;chunk-signature=\r\nabc\r\n"):
        decoder = ChunkedDecoder(PayloadMode.CHUNKS, decoded_length=3, chain=new_chain(chunk_signer)[0])
        error, data = refused(decoder, [line])
        assert (error.code, data) == ("SignatureDoesNotMatch", b"")


def test_a_decoder_that_has_failed_only_fails() -> None:
    decoder = unsigned(3)
    refused(decoder, [b"zz\r\n"])
    with pytest.raises(S3Error):
        decoder.feed(b"3\r\nabc\r\n0\r\n\r\n")
    with pytest.raises(S3Error):
        decoder.finish()


def test_a_flood_of_tiny_chunks_is_refused_early() -> None:
    decoder = unsigned(10**6)
    error, data = refused(decoder, [b"1\r\nx\r\n" * 1000] * 1000)
    assert error.code == "InvalidChunkSizeError"
    assert len(data) <= AWS_SMALL_CHUNKS_MAX
    # The same number of chunks of a decent size is no flood.
    decoder = unsigned((AWS_SMALL_CHUNKS_MAX + 10) * 8192)
    for _ in range(AWS_SMALL_CHUNKS_MAX + 10):
        decoder.feed(b"2000\r\n" + b"x" * 8192 + b"\r\n")


# -- headers around it ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (None, "InvalidRequest"),
        ("", "InvalidArgument"),
        ("-1", "InvalidArgument"),
        ("+5", "InvalidArgument"),
        ("1e3", "InvalidArgument"),
        ("٣", "InvalidArgument"),
        ("9" * 5000, "InvalidArgument"),
        (str(OBJECT_BYTES_MAX + 1), "EntityTooLarge"),
    ],
)
def test_a_decoded_length_must_be_a_possible_size(value: str | None, code: str) -> None:
    with pytest.raises(S3Error) as caught:
        parse_decoded_length(value)
    assert (caught.value.code, caught.value.status) == (code, 400)


def test_trailer_names_must_be_distinct_checksums() -> None:
    assert parse_trailer_names(None) == ()
    assert parse_trailer_names("X-Amz-Checksum-CRC32 , x-amz-checksum-sha1") == (
        "x-amz-checksum-crc32",
        "x-amz-checksum-sha1",
    )
    for value in ("", "x-amz-meta-a", "x-amz-checksum-crc32,", "x-amz-checksum-sha1,X-Amz-Checksum-SHA1"):
        with pytest.raises(S3Error, match="x-amz-trailer"):
            parse_trailer_names(value)


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (None, None),
        ("aws-chunked", None),
        ("gzip,aws-chunked", "gzip"),
        ("AWS-Chunked, gzip , br", "gzip,br"),
        ("gzip", "gzip"),
        ("", None),
    ],
)
def test_aws_chunked_is_not_an_encoding_of_the_object(value: str | None, stored: str | None) -> None:
    assert stored_content_encoding(value) == stored
