"""Credentials that are missing, malformed, forged, late, or for something else.

End to end: the rules themselves are tested in tests/unit/s3/test_sigv4.py and test_chunked.py; here it is
shown that no refused request leaves a trace.  The numbers in the ids are rows of the catalogue of bad input.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from tests.s3.gateways import REGION
from tests.s3.raw import ChunkSigner, Header, Sent, Signing, Site, now, timestamp_at, unsigned_chunks

BODY = b"body"
DIGEST = hashlib.sha256(BODY).hexdigest()
MINUTE_MS = 60_000
MISMATCH = "SignatureDoesNotMatch"


def put(site: Site, *headers: Header, unsigned: tuple[Header, ...] = (), **signing: str) -> Sent:
    """A PUT that would create an object, signed as told."""
    return site.sign("PUT", "new", BODY, headers, signing=Signing(**signing), unsigned=unsigned)


def authorization(sent: Sent, change: Callable[[str], str]) -> Sent:
    return sent.with_header("Authorization", change(sent.header("Authorization")))


def signature(sent: Sent, change: Callable[[str], str]) -> Sent:
    """Change the signature in the Authorization header."""
    head, _, value = sent.header("Authorization").rpartition("=")
    return sent.with_header("Authorization", f"{head}={change(value)}")


def ago(ms: int) -> str:
    return timestamp_at(time.time() * 1000 - ms)


def with_unsigned(name: str, value: str) -> Callable[[Site], Sent]:
    return lambda site: put(site, unsigned=((name, value),))


@dataclass(frozen=True)
class Row:
    """A request that is refused."""

    id: str
    build: Callable[[Site], Sent]
    code: str
    status: int = 403


HEADER = [
    Row("44 no credentials", lambda s: put(s).with_header("Authorization", None), "AccessDenied"),
    Row("45 empty", lambda s: put(s).with_header("Authorization", ""), "InvalidArgument", 400),
    Row(
        "45 another scheme",
        lambda s: put(s).with_header("Authorization", "Basic YTpi"),
        "InvalidRequest",
        400,
    ),
    Row(
        "45 half of it",
        lambda s: authorization(put(s), lambda a: a[:60]),
        "AuthorizationHeaderMalformed",
        400,
    ),
    Row(
        "45 a part twice",
        lambda s: authorization(put(s), lambda a: a + ", Signature=" + "0" * 64),
        "AuthorizationHeaderMalformed",
        400,
    ),
    Row("46 unknown key", lambda s: put(s, access_key="AKIDNOBODY"), "InvalidAccessKeyId"),
    Row("46 wrong secret", lambda s: put(s, secret_key="wrong"), MISMATCH),
    Row("46 somebody else's secret", lambda s: put(s, access_key="AKIDOTHER"), MISMATCH),
    Row("46 key of 4 KiB", lambda s: put(s, access_key="A" * 4096), "InvalidAccessKeyId"),
    Row("47 63 digits", lambda s: signature(put(s), lambda v: v[:-1]), MISMATCH),
    Row("47 65 digits", lambda s: signature(put(s), lambda v: v + "0"), MISMATCH),
    Row("47 upper case", lambda s: signature(put(s), str.upper), MISMATCH),
    Row("47 not hexadecimal", lambda s: signature(put(s), lambda v: "g" * 64), MISMATCH),
    Row("47 not ASCII", lambda s: signature(put(s), lambda v: "é" * 32), MISMATCH),
    Row("48 16 minutes ago", lambda s: put(s, timestamp=ago(16 * MINUTE_MS)), "RequestTimeTooSkewed"),
    Row("48 in 16 minutes", lambda s: put(s, timestamp=ago(-16 * MINUTE_MS)), "RequestTimeTooSkewed"),
    Row("48 year 1969", lambda s: put(s, timestamp="19690101T000000Z"), "RequestTimeTooSkewed"),
    Row("48 year 9999", lambda s: put(s, timestamp="99991231T235959Z"), "RequestTimeTooSkewed"),
    Row("48 30 February", lambda s: put(s, timestamp="20240230T000000Z"), "AccessDenied"),
    Row("48 no time", lambda s: put(s).with_header("X-Amz-Date", None), "AccessDenied"),
    Row("48 another form", lambda s: put(s, timestamp="2024-01-01T00:00:00Z"), "AccessDenied"),
    Row(
        "49 date of the scope differs",
        lambda s: put(s, scope=f"20200101/{REGION}/s3/aws4_request"),
        MISMATCH,
    ),
    Row("50 wrong region", lambda s: put(s, region="mars-1"), "AuthorizationHeaderMalformed"),
    Row("50 wrong service", lambda s: put(s, service="ec2"), MISMATCH),
    Row(
        "50 wrong terminator",
        lambda s: put(s, scope=f"{now()[:8]}/{REGION}/s3/aws4"),
        MISMATCH,
    ),
    Row(
        "50 no terminator", lambda s: put(s, scope=f"{now()[:8]}/{REGION}/s3"), "AuthorizationHeaderMalformed"
    ),
    Row(
        "51 host not signed",
        lambda s: put(s, signed_headers="x-amz-content-sha256;x-amz-date"),
        MISMATCH,
    ),
    Row(
        "51 a header that is absent",
        lambda s: put(s, signed_headers="host;x-absent;x-amz-content-sha256;x-amz-date"),
        MISMATCH,
    ),
    Row(
        "51 unsorted",
        lambda s: put(s, signed_headers="x-amz-date;host;x-amz-content-sha256"),
        MISMATCH,
    ),
    Row(
        "51 twice",
        lambda s: put(s, signed_headers="host;host;x-amz-content-sha256;x-amz-date"),
        MISMATCH,
    ),
    Row("51 date not signed", lambda s: put(s, signed_headers="host;x-amz-content-sha256"), "AccessDenied"),
    *[
        Row(f"52 {name} not signed", with_unsigned(name, value), code)
        for name, value, code in (
            ("x-amz-copy-source", "/other/key", "AccessDenied"),
            ("x-amz-acl", "public-read", "AccessDenied"),
            ("x-amz-meta-colour", "red", "AccessDenied"),
            ("x-amz-security-token", "token", "InvalidToken"),
            ("x-amz-server-side-encryption", "AES256", "AccessDenied"),
        )
    ],
    Row("53 no digest", lambda s: put(s).with_header("X-Amz-Content-SHA256", None), "InvalidRequest", 400),
    Row("53 no such digest", lambda s: put(s, payload="0" * 63), "InvalidArgument"),
    Row("53 digest in upper case", lambda s: put(s, payload=DIGEST.upper()), "InvalidArgument"),
    Row("53 no such mode", lambda s: put(s, payload="UNSIGNED"), "InvalidArgument"),
    Row(
        "53 mode changed", lambda s: put(s).with_header("X-Amz-Content-SHA256", "UNSIGNED-PAYLOAD"), MISMATCH
    ),
    Row("54 another body", lambda s: replace(put(s), body=b"evil"), "XAmzContentSHA256Mismatch", 400),
    Row(
        "61 signature V2",
        lambda s: put(s).with_header("Authorization", "AWS AKIDTEST:c2ln"),
        "InvalidRequest",
        400,
    ),
    Row(
        "61 SigV4A",
        lambda s: authorization(put(s), lambda a: a.replace("HMAC", "ECDSA-P256")),
        "InvalidRequest",
        400,
    ),
    Row("63 session token", lambda s: put(s, ("x-amz-security-token", "token")), "InvalidToken"),
    Row("another method", lambda s: replace(s.sign("GET", "new", BODY), method="PUT"), MISMATCH),
    Row("another key", lambda s: replace(put(s), target=s.target("other")), MISMATCH),
    Row("another host", lambda s: put(s).with_header("Host", "other"), MISMATCH),
    Row("a query added", lambda s: replace(put(s), target=s.target("new", "tagging=")), MISMATCH),
]


@pytest.mark.parametrize("row", HEADER, ids=lambda row: row.id)
def test_header(site: Site, row: Row) -> None:
    answer = site.send(row.build(site))
    assert (answer.status, answer.code) == (row.status, row.code), answer


def test_45_two_headers(site: Site) -> None:
    """The parser refuses the second one, which is as good as our own answer."""
    sent = put(site)
    assert site.send(sent.plus(("Authorization", sent.header("Authorization")))).status == 400


def test_45_a_header_of_a_mebibyte(site: Site) -> None:
    assert site.send(put(site).with_header("Authorization", "A" * 2**20)).status == 400


def test_53_an_unsigned_payload_is_taken(site: Site) -> None:
    """A choice: S3 takes it over plain HTTP as well; the signature still covers everything else."""
    assert site.send(put(site, payload="UNSIGNED-PAYLOAD")).status == 200
    assert site.send(site.sign("DELETE", "new")).status == 204


def test_64_a_captured_put_can_be_sent_again_but_not_undo_a_newer_one(site: Site) -> None:
    """As in S3, for 15 minutes; a condition makes the repetition harmless."""
    captured = put(site)
    assert site.send(captured).status == site.send(captured).status == 200
    site.send(site.sign("DELETE", "new"))
    conditional = put(site, ("If-None-Match", "*"))
    assert site.send(conditional).status == 200
    assert site.send(conditional).status == 412
    site.send(site.sign("DELETE", "new"))


# -- presigned URLs ---------------------------------------------------------------------------------


def soon() -> int:
    """In seconds since 1970."""
    return int(time.time()) + 300


def url(site: Site, change: Callable[[str], str] = str, **options: Any) -> Sent:
    """A presigned PUT that would create an object, its target changed."""
    sent = site.presign("PUT", "new", BODY, **options)
    return replace(sent, target=change(sent.target))


def expiring(value: object) -> Callable[[Site], Sent]:
    return lambda site: url(site, expires=value)


def drop(target: str, name: str) -> str:
    path, _, query = target.partition("?")
    return f"{path}?" + "&".join(pair for pair in query.split("&") if not pair.startswith(f"{name}="))


MALFORMED = "AuthorizationQueryParametersError"
QUERY = [
    Row("56 no signature", lambda s: url(s, lambda t: drop(t, "X-Amz-Signature")), MALFORMED, 400),
    Row("56 no credential", lambda s: url(s, lambda t: drop(t, "X-Amz-Credential")), MALFORMED, 400),
    Row("56 no time", lambda s: url(s, lambda t: drop(t, "X-Amz-Date")), MALFORMED, 400),
    Row("56 a part twice", lambda s: url(s, lambda t: t + "&X-Amz-Expires=604800"), MALFORMED, 400),
    Row(
        "56 header and query",
        lambda s: url(s).plus(("Authorization", put(s).header("Authorization"))),
        "InvalidArgument",
        400,
    ),
    *[
        Row(f"57 expires {value}", expiring(value), MALFORMED, 400)
        for value in (0, -1, 604_801, "1e9", "", "ten", 10**30, "+60")
    ],
    Row("57 expired", lambda s: url(s, signing=Signing(timestamp=ago(61_000)), expires=60), "AccessDenied"),
    Row(
        "57 from the future",
        lambda s: url(s, signing=Signing(timestamp=ago(-16 * MINUTE_MS))),
        "AccessDenied",
    ),
    Row("57 a longer life", lambda s: url(s, lambda t: t.replace("Expires=300", "Expires=301")), MISMATCH),
    Row("58 a GET as PUT", lambda s: replace(url(s), target=s.presign("GET", "new").target), MISMATCH),
    Row("58 another key", lambda s: url(s, lambda t: t.replace("/new?", "/other?")), MISMATCH),
    Row("58 another host", lambda s: url(s).with_header("Host", "other"), MISMATCH),
    Row("58 more in the query", lambda s: url(s, lambda t: t + "&uploads="), MISMATCH),
    Row("52 a header not signed", lambda s: url(s).plus(("x-amz-meta-a", "b")), "AccessDenied"),
    Row("52 a copy not signed", lambda s: url(s).plus(("x-amz-copy-source", "/a/b")), "AccessDenied"),
    Row("50 wrong region", lambda s: url(s, signing=Signing(region="mars-1")), MALFORMED),
    Row("46 unknown key", lambda s: url(s, signing=Signing(access_key="AKIDNOBODY")), "InvalidAccessKeyId"),
    Row("46 wrong secret", lambda s: url(s, signing=Signing(secret_key="x")), MISMATCH),
    Row(
        "61 signature V2, expired",
        lambda s: url(s, lambda t: s.target("new", "AWSAccessKeyId=AKIDTEST&Signature=x&Expires=1")),
        "AccessDenied",
    ),
    Row(
        "61 signature V2, made up",
        lambda s: url(s, lambda t: s.target("new", f"AWSAccessKeyId=AKIDTEST&Signature=x&Expires={soon()}")),
        MISMATCH,
    ),
    Row(
        "61 signature V2, unknown key",
        lambda s: url(s, lambda t: s.target("new", f"AWSAccessKeyId=AKIDX&Signature=x&Expires={soon()}")),
        "InvalidAccessKeyId",
    ),
    Row(
        "61 signature V2, a parameter that it does not sign",
        lambda s: url(
            s, lambda t: s.target("new", f"AWSAccessKeyId=A&Signature=x&Expires={soon()}&prefix=a")
        ),
        "AccessDenied",
    ),
    Row(
        "63 session token",
        lambda s: s.presign("PUT", "new", BODY, query="X-Amz-Security-Token=t"),
        "InvalidToken",
    ),
    Row(
        "54 another body", lambda s: replace(url(s, signing=Signing(payload=DIGEST)), body=b"evil"), MISMATCH
    ),
]


@pytest.mark.parametrize("row", QUERY, ids=lambda row: row.id)
def test_query(site: Site, row: Row) -> None:
    answer = site.send(row.build(site))
    assert (answer.status, answer.code) == (row.status, row.code), answer


def test_62_a_form_without_a_policy_is_nobody_s(site: Site) -> None:
    """Who sends it does not count: the form says who asks."""
    form = b'--x\r\nContent-Disposition: form-data; name="key"\r\n\r\nnew\r\n'
    form += b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\nbytes\r\n--x--\r\n'
    headers = [("Content-Type", "multipart/form-data; boundary=x")]
    signed = site.sign("POST", "", form, headers)
    for sent in (signed, signed.with_header("Authorization", None)):
        answer = site.send(sent)
        assert (answer.status, answer.code) == (403, "AccessDenied")


def test_answers_do_not_tell_the_secret(site: Site) -> None:
    """The canonical request is sent back to help; nothing in it comes from the server."""
    answer = site.send(put(site, secret_key="wrong"))
    assert answer.element("StringToSign").startswith("AWS4-HMAC-SHA256")
    assert b"SECRET" not in answer.body and answer.element("AWSAccessKeyId") == "AKIDTEST"


# -- chunks ----------------------------------------------------------------------------------------

PIECES = (bytes(9000), bytes(9000), b"end")
DATA = b"".join(PIECES)
CRC = base64.b64encode(binascii.crc32(DATA).to_bytes(4, "big")).decode()
SIGNED, SIGNED_TRAILER, UNSIGNED_TRAILER = (
    "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
    "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
    "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
)
TRAILER = ("x-amz-trailer", "x-amz-checksum-crc32")
CRC_LINE = f"x-amz-checksum-crc32:{CRC}\r\n".encode()


def chunked(site: Site, mode: str, *headers: Header, length: object = len(DATA), **signing: Any) -> Sent:
    """The head of a PUT whose body is sent in aws-chunks; ``framed`` adds the body."""
    announced = [("x-amz-decoded-content-length", str(length))] if length is not None else []
    headers = (("Content-Encoding", "aws-chunked"), *announced, *headers)
    # Any value will do: framed() sets the right one, and Content-Length is not among the signed headers
    # that the server asks for.
    return site.sign("PUT", "new", b"", headers, signing=Signing(payload=mode, **signing))


def framed(sent: Sent, body: bytes) -> Sent:
    return replace(sent.with_header("Content-Length", str(len(body))), body=body)


def signed(site: Site, *headers: Header, mode: str = SIGNED, **options: Any) -> tuple[Sent, list[bytes]]:
    """A request with signed chunks, and these chunks, the empty one included."""
    sent = chunked(site, mode, *headers, **options)
    signer = ChunkSigner(sent)
    chunks = [signer.chunk(piece) for piece in (*PIECES, b"")]
    if mode == SIGNED_TRAILER:
        chunks.append(signer.trailer("x-amz-checksum-crc32", CRC))
    return sent, chunks


def with_chunks(
    change: Callable[[list[bytes]], list[bytes]], *headers: Header, **options: Any
) -> Callable[[Site], Sent]:
    def build(site: Site) -> Sent:
        sent, chunks = signed(site, *headers, **options)
        if options.get("mode") != SIGNED_TRAILER:
            chunks[-1] += b"\r\n"
        return framed(sent, b"".join(change(chunks)))

    return build


def unsigned(body: bytes, *headers: Header, **options: Any) -> Callable[[Site], Sent]:
    return lambda site: framed(chunked(site, UNSIGNED_TRAILER, *headers, **options), body)


def flip(chunk: bytes) -> bytes:
    """Change a byte of a chunk's data."""
    return chunk[:200] + bytes([chunk[200] ^ 1]) + chunk[201:]


def forge(chunk: bytes) -> bytes:
    """Change a digit of a chunk's signature."""
    at = chunk.index(b"chunk-signature=") + 20
    return chunk[:at] + (b"0" if chunk[at : at + 1] != b"0" else b"1") + chunk[at + 1 :]


GOOD_CHUNKS = {
    "signed": with_chunks(list),
    "signed with trailer": with_chunks(list, TRAILER, mode=SIGNED_TRAILER),
    "unsigned": unsigned(unsigned_chunks(*PIECES)),
    "unsigned with trailer": unsigned(unsigned_chunks(*PIECES, trailer=CRC_LINE), TRAILER),
}
INVALID = ("InvalidRequest", 400)
SHORT = ("IncompleteBody", 400)
TRAILERS = ("MalformedTrailerError", 400)
BAD_CHUNKS = [
    Row("59 second chunk forged", with_chunks(lambda c: [c[0], forge(c[1]), *c[2:]]), MISMATCH),
    Row("59 second chunk changed", with_chunks(lambda c: [c[0], flip(c[1]), *c[2:]]), MISMATCH),
    Row("59 last chunk forged", with_chunks(lambda c: [*c[:-1], forge(c[-1])]), MISMATCH),
    Row("59 chunks in another order", with_chunks(lambda c: [c[1], c[0], *c[2:]]), MISMATCH),
    Row("59 first chunk twice", with_chunks(lambda c: [c[0], c[0], *c[2:]]), MISMATCH),
    Row("59 no signature", with_chunks(lambda c: [b"3\r\nend\r\n", *c]), MISMATCH),
    Row(
        "59 of another request",
        lambda s: framed(chunked(s, SIGNED, ("x-amz-meta-a", "b")), b"".join(signed(s)[1])),
        MISMATCH,
    ),
    Row(
        "59 trailer forged",
        with_chunks(
            lambda c: [*c[:-1], c[-1].replace(CRC.encode(), b"AAAAAA==")], TRAILER, mode=SIGNED_TRAILER
        ),
        MISMATCH,
    ),
    Row(
        "55 false signature",
        lambda s: framed(chunked(s, UNSIGNED_TRAILER, secret_key="x"), unsigned_chunks(*PIECES)),
        MISMATCH,
    ),
    Row("60 length too small", unsigned(unsigned_chunks(*PIECES), length=len(DATA) - 1), *SHORT),
    Row("60 length too large", unsigned(unsigned_chunks(*PIECES), length=len(DATA) + 1), *SHORT),
    Row("60 no length", unsigned(unsigned_chunks(*PIECES), length=None), *INVALID),
    Row("60 length no number", unsigned(unsigned_chunks(*PIECES), length="1e3"), "InvalidArgument", 400),
    Row("60 length negative", unsigned(unsigned_chunks(*PIECES), length=-1), "InvalidArgument", 400),
    Row(
        "60 length above all objects",
        unsigned(unsigned_chunks(*PIECES), length=10**18),
        "EntityTooLarge",
        400,
    ),
    Row("60 cut in a header", unsigned(unsigned_chunks(*PIECES)[:-7] + b"3"), *SHORT),
    Row("60 cut in the data", unsigned(unsigned_chunks(*PIECES)[:5000]), *SHORT),
    Row("60 no last chunk", with_chunks(lambda c: c[:-1]), *SHORT),
    Row("60 nothing", unsigned(b""), *SHORT),
    Row("60 not framed", unsigned(DATA), *INVALID),
    Row("60 size of 20 digits", unsigned(b"f" * 20 + b"\r\n"), *INVALID),
    Row("60 size with 0x", unsigned(b"0x3\r\nend\r\n0\r\n\r\n", length=3), *INVALID),
    Row("60 size line without an end", unsigned(b"3" * 5000), *INVALID),
    Row("60 bare LF", unsigned(b"3\nend\n0\n\n", length=3), *INVALID),
    Row("60 chunk longer than its size", unsigned(b"2\r\nend\r\n0\r\n\r\n", length=2), *INVALID),
    Row("60 extension", unsigned(b"3;a=b\r\nend\r\n0\r\n\r\n", length=3), *INVALID),
    Row("60 bytes after the end", unsigned(unsigned_chunks(*PIECES) + b"more"), *INVALID),
    Row("60 trailer not announced", unsigned(unsigned_chunks(*PIECES, trailer=CRC_LINE)), *TRAILERS),
    Row("60 trailer missing", unsigned(unsigned_chunks(*PIECES), TRAILER), *TRAILERS),
    Row("60 trailer twice", unsigned(unsigned_chunks(*PIECES, trailer=CRC_LINE * 2), TRAILER), *TRAILERS),
    Row(
        "60 trailer of 64 KiB",
        unsigned(
            unsigned_chunks(*PIECES, trailer=b"x-amz-checksum-crc32:" + b"A" * 65536 + b"\r\n"), TRAILER
        ),
        *INVALID,
    ),
    Row(
        "60 trailer no checksum",
        unsigned(unsigned_chunks(*PIECES, trailer=b"x-amz-checksum-crc32:?\r\n"), TRAILER),
        "BadDigest",
        400,
    ),
    Row(
        "60 wrong checksum",
        unsigned(unsigned_chunks(*PIECES, trailer=b"x-amz-checksum-crc32:AAAAAA==\r\n"), TRAILER),
        "BadDigest",
        400,
    ),
    Row(
        "60 another trailer announced",
        unsigned(unsigned_chunks(*PIECES), ("x-amz-trailer", "x-amz-meta-a")),
        *INVALID,
    ),
    Row(
        "60 trailer and header",
        unsigned(unsigned_chunks(*PIECES, trailer=CRC_LINE), TRAILER, ("x-amz-checksum-crc32", CRC)),
        *INVALID,
    ),
    Row(
        "14 a million chunks of a byte",
        unsigned(unsigned_chunks(*[b"x"] * 100_000), length=100_000),
        "InvalidChunkSizeError",
    ),
    Row(
        "60 a signed chunk of 17 MiB",
        lambda s: framed(
            chunked(s, SIGNED, length=17 << 20), b"1100000;chunk-signature=" + b"0" * 64 + b"\r\n"
        ),
        *INVALID,
    ),
]


@pytest.mark.parametrize("name", GOOD_CHUNKS)
def test_good_chunks(site: Site, name: str) -> None:
    answer = site.send(GOOD_CHUNKS[name](site))
    assert answer.status == 200, answer
    found = site.send(site.sign("GET", "new"))
    assert found.body == DATA and "content-encoding" not in found.headers
    site.send(site.sign("DELETE", "new"))


@pytest.mark.parametrize("row", BAD_CHUNKS, ids=lambda row: row.id)
def test_bad_chunks(site: Site, row: Row) -> None:
    began = time.perf_counter()
    answer = site.send(row.build(site))
    assert (answer.status, answer.code) == (row.status, row.code), answer
    assert time.perf_counter() - began < 2
