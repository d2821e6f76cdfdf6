"""Signed requests with something changed at random: none is taken that was not signed so, none does harm.

What is taken is compared with ``oracle``; ``SSASTORE_SOAK_FUZZ`` is how many are sent.
"""

from __future__ import annotations

import os
import random
import time
from base64 import b64encode
from binascii import crc32
from collections import Counter
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest

from ssastore.s3.principal import Principal, SignedRequest
from tests.s3 import oracle
from tests.s3.gateways import Gateway
from tests.s3.raw import Answer, ChunkSigner, Sent, Signing, Site, unsigned_chunks

COUNT = int(os.environ.get("SSASTORE_SOAK_FUZZ", "3000"))
SEED = int(os.environ.get("SSASTORE_FUZZ_SEED", time.time_ns() % 1_000_000_007))
WAIT_S = 0.3
"For the answer to a request that may have lost its end."

_TOKENS = [
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b" ",
        b"\t",
        b":",
        b";",
        b",",
        b"&",
        b"=",
        b"?",
        b"/",
        b"//",
        b"/../",
        b"%",
        b"%00",
    ),
    *(
        b"%2F",
        b"%2f",
        b"+",
        b"#",
        b"\x00",
        b"\x7f",
        b"\xff",
        b"\xc3\xbc",
        b"0",
        b"f",
        b"-1",
        b"*",
        b"\r\n\r\n",
    ),
    *(b"x-amz-acl: public-read\r\n", b"x-amz-copy-source: /a/b\r\n", b"X-Amz-Date: 20200101T000000Z\r\n"),
    *(
        b"Content-Length: 0\r\n",
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Host: other\r\n",
    ),
    *(
        b"Authorization: AWS4-HMAC-SHA256 x\r\n",
        b"x-amz-content-sha256: UNSIGNED-PAYLOAD\r\n",
        b"Expect: x\r\n",
    ),
    *(
        b"&X-Amz-Signature=",
        b"&X-Amz-Expires=604800",
        b"&AWSAccessKeyId=AKIDTEST",
        b"&acl",
        b"&uploads",
        b"&delete",
    ),
    *(
        b"UNSIGNED-PAYLOAD",
        b"STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        b"host",
        b";x-amz-acl",
        b"0;chunk-signature=",
    ),
]


def _presigned_by_v2(site: Site) -> Sent:
    """By boto3, as it does unasked."""
    params = {"Bucket": site.bucket, "Key": "new", "ContentType": "text/plain"}
    url = urlsplit(site.gateway.boto().generate_presigned_url("put_object", Params=params))
    headers = (("Host", site.gateway.host), ("Content-Type", "text/plain"), ("Content-Length", "4"))
    return Sent("PUT", f"{url.path}?{url.query}", headers, b"data")


def _chunked(site: Site) -> Sent:
    sent = site.sign(
        "PUT",
        "new",
        headers=[("x-amz-decoded-content-length", "9000"), ("Content-Encoding", "aws-chunked")],
        signing=Signing(payload="STREAMING-AWS4-HMAC-SHA256-PAYLOAD"),
    )
    signer = ChunkSigner(sent)
    body = signer.chunk(b"a" * 8192) + signer.chunk(b"b" * 808) + signer.chunk(b"") + b"\r\n"
    return _with_body(sent, body)


def _with_trailer(site: Site) -> Sent:
    checksum = b64encode(crc32(b"data").to_bytes(4, "big"))
    sent = site.sign(
        "PUT",
        "new",
        headers=[("x-amz-decoded-content-length", "4"), ("x-amz-trailer", "x-amz-checksum-crc32")],
        signing=Signing(payload="STREAMING-UNSIGNED-PAYLOAD-TRAILER"),
    )
    return _with_body(sent, unsigned_chunks(b"da", b"ta", trailer=b"x-amz-checksum-crc32:%b\r\n" % checksum))


def _with_body(sent: Sent, body: bytes) -> Sent:
    kept = sent.with_header("Content-Length", str(len(body)))
    return Sent(kept.method, kept.target, kept.headers, body)


MAKERS: list[Callable[[Site], Sent]] = [
    lambda site: site.sign("GET", Site.KEY, headers=[("Range", "bytes=0-4")]),
    lambda site: site.sign("GET", query="list-type=2&prefix=k&max-keys=5"),
    lambda site: site.sign("PUT", "new", b"data", [("x-amz-meta-a", "b  c"), ("Content-Type", "text/plain")]),
    lambda site: site.sign("DELETE", "new"),
    lambda site: site.sign("PUT", "copy", headers=[("x-amz-copy-source", f"/{site.bucket}/{Site.KEY}")]),
    lambda site: site.presign("GET", Site.KEY, query="response-content-type=a%2Fb"),
    lambda site: site.presign("PUT", "new", b"data"),
    _presigned_by_v2,
    _chunked,
    _with_trailer,
]


def mutated(raw: bytes, drawn: random.Random) -> bytes:
    """One to three changes, most of them before the body."""
    data = bytearray(raw)
    head = raw.index(b"\r\n\r\n") + 4
    for _ in range(drawn.choice((1, 1, 1, 2, 3))):
        at = drawn.randrange(len(data) if drawn.random() < 0.3 else min(head, len(data)))
        end = min(len(data), at + drawn.choice((1, 1, 2, 8, 40)))
        match drawn.randrange(7):
            case 0:
                data[at] ^= 1 << drawn.randrange(8)
            case 1:
                data[at] = drawn.randrange(256)
            case 2:
                del data[at:end]
            case 3:
                data[at:at] = data[at:end]
            case 4:
                data[at:at] = drawn.choice(_TOKENS)
            case 5:
                data[at:end] = drawn.choice(_TOKENS)
            case 6:
                lines = bytes(data).split(b"\r\n")
                here, there = drawn.randrange(len(lines)), drawn.randrange(len(lines))
                lines[here], lines[there] = lines[there], lines[here]
                data = bytearray(b"\r\n".join(lines))
        if not data:
            return b"\0"
    return bytes(data)


@pytest.fixture
def principals(gateway: Gateway) -> Iterator[list[str]]:
    """Access keys that were believed since the list was last emptied."""
    believed: list[str] = []
    server = gateway.server
    ask = server._principal

    async def asked(signed: SignedRequest) -> tuple[Principal, str]:
        principal, user = await ask(signed)
        if principal.access_key:
            believed.append(principal.access_key)
        return principal, user

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(server), "_principal", lambda self, signed: asked(signed))
        yield believed


def send(site: Site, raw: bytes) -> Answer:
    """The first answer; none when it takes too long."""
    with site.wire(timeout=WAIT_S) as wire:
        wire.send(raw)
        try:
            return wire.answer(raw[:4].decode("latin-1").strip())
        except TimeoutError:
            return Answer(0)


@pytest.mark.timeout(3600)
def test_none_is_taken_that_was_not_signed_so(
    site: Site, principals: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    drawn, before = random.Random(SEED), site.gateway.crashes()
    makers, statuses, made_at = [], Counter[int](), 0.0
    for number in range(COUNT):
        if time.monotonic() - made_at > 120:  # Not signed too long ago.
            makers, made_at = [make(site).raw() for make in MAKERS], time.monotonic()
            assert all(oracle.is_signed(raw) for raw in makers)
        raw = mutated(drawn.choice(makers), drawn)
        principals.clear()
        answer = send(site, raw)
        statuses[answer.status] += 1
        told = f"SSASTORE_FUZZ_SEED={SEED}, request {number}: {answer} to {raw!r}"
        assert not principals or oracle.is_head_signed(raw), told
        assert not principals or not 200 <= answer.status < 300 or oracle.is_signed(raw), told
        assert answer.status != 500, told
    assert site.gateway.crashes() == before
    made = set(site.stored()) - {Site.KEY}
    assert made <= {"new", "copy"}
    for key in made:
        assert site.send(site.sign("DELETE", key)).status == 204
    with capsys.disabled():
        print(f"\n  seed {SEED}: {COUNT} requests, {dict(sorted(statuses.items()))} ", end="")
