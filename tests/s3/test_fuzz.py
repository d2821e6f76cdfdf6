"""Requests made at random, from a fixed seed: none may crash a handler, stall, or harm what is stored."""

from __future__ import annotations

import base64
import hashlib
import random
import select
from collections import Counter
from urllib.parse import quote

import pytest

from tests.s3.raw import Header, Sent, Signing, Site

KEYS = ("", "", "kept", "new", "a%2Fb", "a//b", "%01", "k" * 1000, "..", "a%00", "%F0%9F%98%80")
HEADERS = (
    "Cache-Control", "Content-Encoding", "Content-MD5", "Content-Type", "Cookie", "Date", "Expires",
    "If-Match", "If-Modified-Since", "If-None-Match", "If-Unmodified-Since", "Origin", "Range", "x-amz-acl",
    "x-amz-checksum-algorithm", "x-amz-checksum-crc32", "x-amz-checksum-mode", "x-amz-checksum-sha256",
    "x-amz-checksum-type", "x-amz-decoded-content-length", "x-amz-meta-a", "x-amz-mp-object-size",
    "x-amz-sdk-checksum-algorithm", "x-amz-storage-class", "x-amz-trailer",
)  # fmt: skip
PARAMETERS = (
    "X-Amz-Expires", "continuation-token", "delete", "delimiter", "encoding-type", "fetch-owner",
    "key-marker", "list-type", "location", "marker", "max-keys", "max-parts", "max-uploads",
    "part-number-marker", "partNumber", "prefix", "response-content-type", "start-after",
    "upload-id-marker", "uploadId", "uploads", "versionId", "x-id",
)  # fmt: skip
VALUES = (
    "", "*", "0", "1", "-1", "2", "1e3", "9" * 23, "1" * 400, "true", "url", "ENABLED", "CRC32", "AAAAAA==",
    '"a"', 'W/"a"', '"a', '"a","b"', "bytes=0-1", "bytes=-1", "bytes=" + "9" * 23 + "-", "gzip",
    "aws-chunked", "x-amz-checksum-crc32", "Thu, 01 Jan 2026 00:00:00 GMT", "x" * 5000, ",,,", "null",
    "Thu, 01 Jan 2026 00:00:00 +99999999999999", "\udcff\udcfe", "\u00fc", "\u2028", "a\tb", "\x7f", "<&>",
)  # fmt: skip
BODIES = (
    b"",
    b"body",
    b"\xff",
    b"<a/>",
    b"<Delete><Object><Key>new</Key></Object></Delete>",
    b"<Delete><Object><Key>n&#1;</Key></Object></Delete>",
    b"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>x</ETag></Part></CompleteMultipartUpload>",
)
MODES = (
    "",
    "",
    "UNSIGNED-PAYLOAD",
    "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
    "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
)


def draw(site: Site, dice: random.Random) -> Sent:
    """Well signed, otherwise anything; nothing that would rightly change the kept object or its bucket."""
    method, key = dice.choice(("GET", "HEAD", "PUT", "POST", "DELETE")), dice.choice(KEYS)
    if key in ("", "kept") and method in ("PUT", "DELETE"):
        key = "new"
    names = dice.sample(PARAMETERS, dice.choice((0, 1, 1, 2, 3)))
    values = [dice.choice(VALUES).encode("utf-8", "surrogateescape") for _ in names]
    query = "&".join(f"{name}={quote(value)}" for name, value in zip(names, values, strict=True))
    headers: list[Header] = [
        (name, dice.choice(VALUES)) for name in dice.sample(HEADERS, dice.choice((0, 0, 1, 2, 3)))
    ]
    body = dice.choice(BODIES) if method in ("PUT", "POST") else b""
    if dice.random() < 0.5:
        headers.append(("Content-MD5", base64.b64encode(hashlib.md5(body).digest()).decode()))
    return site.sign(method, key, body, headers, query=query, signing=Signing(payload=dice.choice(MODES)))


def clean(site: Site) -> None:
    """Take away what the random requests have rightly made."""
    for key in site.stored():
        if key != site.KEY:
            assert site.send(site.sign("DELETE", key)).status == 204
    s3 = site.gateway.boto()
    for upload in s3.list_multipart_uploads(Bucket=site.bucket).get("Uploads", []):
        s3.abort_multipart_upload(Bucket=site.bucket, Key=upload["Key"], UploadId=upload["UploadId"])


@pytest.mark.parametrize("seed", range(3))
def test_signed_requests(site: Site, seed: int) -> None:
    dice = random.Random(seed)
    statuses: Counter[int] = Counter()
    for _ in range(300):
        sent = draw(site, dice)
        answer = site.send(sent)
        assert answer.status not in (0, 500, 503) and answer.is_whole, (sent, answer)
        statuses[answer.status] += 1
    # Not all were refused at the door.
    assert statuses[200] > 10 and statuses[400] > 10 and statuses[204] > 5, statuses
    clean(site)


@pytest.mark.parametrize("seed", range(3))
def test_damaged_requests(site: Site, seed: int) -> None:
    """Bytes of a good request changed, dropped, doubled: it is refused, or it stores exactly its body."""
    dice = random.Random(seed)
    stored = 0
    for _ in range(200):
        # Damage to what is not signed may go unseen.
        padding = (("User-Agent", "x" * 200), ("Accept", "a/b, c/d; q=0.5"), ("Cookie", "a=b; " * 40))
        sent = site.sign("PUT", "new", b"body", [("Content-Type", "a/b")], unsigned=padding)
        raw = bytearray(sent.raw())
        for _ in range(dice.choice((1, 1, 2, 5))):
            at = dice.randrange(len(raw) - len(sent.body))
            match dice.randrange(3):
                case 0:
                    raw[at] ^= 1 << dice.randrange(8)
                case 1:
                    del raw[at : at + dice.choice((1, 1, 20))]
                case _:
                    raw[at:at] = raw[at : at + dice.choice((1, 20, 200))]
        with site.wire() as wire:
            wire.send(bytes(raw))
            if not select.select([wire.socket], [], [], 0.1)[0]:
                wire.end()  # it waits for more
            answer = wire.answer("PUT")
        assert answer.status not in (500, 503), (bytes(raw), answer)
        if answer.status == 200:
            stored += 1
            assert site.send(site.sign("GET", "new")).body == b"body", bytes(raw)
            assert site.send(site.sign("DELETE", "new")).status == 204
    assert 10 < stored < 150, "the damage is too great or too small"
    clean(site)
