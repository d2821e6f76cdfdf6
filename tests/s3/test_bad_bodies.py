"""XML, parameters, headers and sizes that are refused, and the S3 code each is refused with.

The numbers in the ids are rows of the catalogue of bad input.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from ssastore.limits import OBJECT_BYTES_MAX, PART_BYTES_MAX
from tests.s3.raw import Answer, Header, Site

NAMESPACE = b'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


def md5(body: bytes) -> Header:
    return "Content-MD5", base64.b64encode(hashlib.md5(body).digest()).decode()


def crc32(body: bytes) -> Header:
    return "x-amz-checksum-crc32", base64.b64encode(binascii.crc32(body).to_bytes(4, "big")).decode()


def delete_objects(site: Site, body: bytes) -> Answer:
    return site.send(site.sign("POST", "", body, [md5(body)], query="delete="))


def deletion(*keys: bytes, declaration: bytes = b"", root: bytes = b"Delete " + NAMESPACE) -> bytes:
    objects = b"".join(b"<Object><Key>%b</Key></Object>" % key for key in keys)
    return declaration + b"<%b>%b</%b>" % (root, objects, root.split()[0])


# A body that names the kept object: were it taken, the object would be gone.
KEPT = deletion(b"kept")
LAUGHS = b"<!DOCTYPE d [<!ENTITY a0 'ha'>%b]>" % b"".join(
    b"<!ENTITY a%d '%b'>" % (n, b"&a%d;" % (n - 1) * 10) for n in range(1, 10)
)
XML: dict[str, bytes] = {
    "65 DOCTYPE": b"<!DOCTYPE d>" + KEPT,
    "65 entity from a file": b"<!DOCTYPE d [<!ENTITY x SYSTEM 'file:///etc/passwd'>]>" + deletion(b"&x;"),
    "65 entity from afar": b"<!DOCTYPE d [<!ENTITY x SYSTEM 'http://127.0.0.1:1/'>]>" + deletion(b"&x;"),
    "65 parameter entity": b"<!DOCTYPE d [<!ENTITY % x SYSTEM 'file:///dev/zero'> %x;]>" + KEPT,
    "66 billion laughs": LAUGHS + deletion(b"&a9;"),
    "66 quadratic": b"<!DOCTYPE d [<!ENTITY a '%b'>]>" % (b"a" * 50_000) + deletion(b"&a;" * 10_000),
    "67 10,000 deep": b"<Delete>" + b"<a>" * 10_000 + b"</a>" * 10_000 + b"</Delete>",
    "67 100,000 elements": b"<Delete>" + b"<a/>" * 100_000 + b"</Delete>",
    "70 UTF-16": (b"<?xml version='1.0' encoding='utf-16'?>" + KEPT).decode().encode("utf-16"),
    "70 declared UTF-7": deletion(b"kept", declaration=b"<?xml version='1.0' encoding='utf-7'?>"),
    "70 declared Latin-1": deletion(b"kept", declaration=b"<?xml version='1.0' encoding='iso-8859-1'?>"),
    "70 not UTF-8": deletion(b"\xff"),
    "71 another root": deletion(b"kept", root=b"Create"),
    "68 no keys": deletion(),
    "68 1,001 keys": deletion(*[b"kept"] * 1001),
    "68 a key that is empty": deletion(b""),
    "68 an object without a key": b"<Delete><Object><VersionId>null</VersionId></Object></Delete>",
    "68 two keys in one object": b"<Delete><Object><Key>kept</Key><Key>x</Key></Object></Delete>",
    "68 elements in a key": b"<Delete><Object><Key><a>kept</a></Key></Object></Delete>",
    "68 quiet is perhaps": b"<Delete><Quiet>perhaps</Quiet><Object><Key>kept</Key></Object></Delete>",
    "cut off": KEPT[:-3],
    "two roots": KEPT + KEPT,
    "empty": b"",
    "no XML": b"kept",
    "JSON": b'{"Objects": [{"Key": "kept"}]}',
}


@pytest.mark.parametrize("name", XML)
def test_xml_that_is_refused(site: Site, name: str) -> None:
    began = time.perf_counter()
    answer = delete_objects(site, XML[name])
    assert (answer.status, answer.code) == (400, "MalformedXML"), answer
    assert time.perf_counter() - began < 1


@pytest.mark.parametrize(
    "body",
    [
        deletion(b"new", root=b"Delete"),
        deletion(b"new", declaration=b'<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'),
        deletion(*[b"new"] * 1000),
        b"<s:Delete xmlns:s='urn:x'><s:Object><s:Key>new</s:Key></s:Object></s:Delete>",
        b"<Delete><Unknown>1</Unknown><Object><Key>&#110;e<![CDATA[w]]></Key></Object><!-- --></Delete>",
    ],
    ids=["71 no namespace", "declaration", "68 one key 1,000 times", "71 another namespace", "odd spelling"],
)
def test_xml_that_is_taken(site: Site, body: bytes) -> None:
    site.send(site.sign("PUT", "new", b"x"))
    answer = delete_objects(site, body)
    assert answer.status == 200 and b"<Error>" not in answer.body


def test_68_a_condition_longer_than_any_tag(site: Site) -> None:
    """It is refused for that object, which stays; an entry beside it is judged for itself."""
    entry = b"<Object><Key>kept</Key><ETag>%b</ETag></Object>"
    body = b"<Delete>" + entry % (b"x" * 100_000) + entry % (b"y" * 5000) + b"</Delete>"
    answer = delete_objects(site, body)
    assert answer.status == 200 and answer.body.count(b"<Error>") == 2, answer


def test_68_a_body_above_the_limit_is_not_read(site: Site) -> None:
    body = KEPT + b" " * (2 * 1024 * 1024)
    answer = delete_objects(site, body)
    assert (answer.status, answer.code) == (400, "MaxMessageLengthExceeded")


def test_68_a_body_above_the_limit_without_a_length(site: Site) -> None:
    body = KEPT + b" " * (2 * 1024 * 1024)
    sent = site.sign("POST", "", body, [md5(body)], query="delete=").with_header("Content-Length", None)
    chunk = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    answer = site.send(sent.plus(("Transfer-Encoding", "chunked")).head() + chunk)
    assert (answer.status, answer.code) == (400, "MaxMessageLengthExceeded")


def test_deletions_need_a_checksum(site: Site) -> None:
    answer = site.send(site.sign("POST", "", KEPT, query="delete="))
    assert (answer.status, answer.code) == (400, "InvalidRequest")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"<CreateBucketConfiguration/>", ""),
        (b"", ""),
        (
            b"<CreateBucketConfiguration><LocationConstraint>mars-1</LocationConstraint></CreateBucketConfiguration>",
            "InvalidLocationConstraint",
        ),
        (b"<!DOCTYPE x><CreateBucketConfiguration/>", "MalformedXML"),
        (b"no XML", "MalformedXML"),
    ],
)
def test_bucket_configuration(site: Site, body: bytes, code: str) -> None:
    """Read before anything is done: the bucket exists, so a good body ends in a conflict."""
    assert site.send(site.sign("PUT", "", body)).code == (code or "BucketAlreadyOwnedByYou")


# -- completions ------------------------------------------------------------------------------------


def completion(*parts: tuple[object, str]) -> bytes:
    listed = "".join(
        f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>" for number, etag in parts
    )
    return f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>".encode()


NONE = "0" * 32
COMPLETIONS: dict[str, tuple[bytes, str]] = {
    "69 10,001 parts": (completion(*[(n, NONE) for n in range(1, 10_002)]), "InvalidArgument"),
    "69 out of order": (completion((2, NONE), (1, NONE)), "InvalidPartOrder"),
    "69 twice": (completion((1, NONE), (1, NONE)), "InvalidPartOrder"),
    "69 part 0": (completion((0, NONE)), "InvalidArgument"),
    "69 part 1e3": (completion(("1e3", NONE)), "InvalidArgument"),
    "69 part -1": (completion((-1, NONE)), "InvalidArgument"),
    "69 unknown part": (completion((1, NONE)), "InvalidPart"),
    "69 ETag not hexadecimal": (completion((1, "x")), "InvalidPart"),
    "69 ETag of an odd length": (completion((1, "abc")), "InvalidPart"),
    "69 no parts": (completion(), "MalformedXML"),
    "69 no ETag": (completion((1, NONE)).replace(b"ETag", b"Tag"), "MalformedXML"),
    "69 no number": (completion((1, NONE)).replace(b"PartNumber", b"Number"), "MalformedXML"),
    "69 above the limit": (completion((1, NONE)) + b" " * (2 << 20), "MaxMessageLengthExceeded"),
    "65 entity": (
        b"<!DOCTYPE d [<!ENTITY x SYSTEM 'file:///etc/passwd'>]>" + completion((1, "&x;")),
        "MalformedXML",
    ),
}


@pytest.mark.parametrize("name", COMPLETIONS)
def test_completions(site: Site, name: str) -> None:
    body, code = COMPLETIONS[name]
    upload_id = site.send(site.sign("POST", "new", query="uploads=")).element("UploadId")
    answer = site.send(site.sign("POST", "new", body, query=f"uploadId={upload_id}"))
    assert (answer.status, answer.code) == (400, code), answer
    assert site.send(site.sign("DELETE", "new", query=f"uploadId={upload_id}")).status == 204


# -- parameters -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A request that is refused."""

    id: str
    method: str
    key: str = ""
    query: str = ""
    headers: tuple[Header, ...] = ()
    body: bytes = b""
    status: int = 400
    code: str = "InvalidArgument"
    options: dict[str, Any] = field(default_factory=dict)


def put(id: str, *headers: Header, status: int = 400, code: str = "InvalidArgument") -> Row:
    return Row(id, "PUT", "new", headers=headers, body=b"body", status=status, code=code)


def sized(id: str, length: int, query: str = "") -> Row:
    return Row(id, "PUT", "new", query, (("Content-Length", str(length)),), b"", 400, "EntityTooLarge")


OTHER_MD5 = base64.b64encode(bytes(16)).decode()
CRC = ("x-amz-checksum-crc32", "AAAAAA==")
UPLOAD = "uploadId=" + "0" * 32
ROWS = [
    *[
        Row(f"72 {name} {value}", "GET", query=f"{name}={value}&{rest}")
        for name, rest in (("max-keys", "list-type=2"), ("max-keys", ""), ("max-uploads", "uploads="))
        for value in ("-1", "abc", "1e3", "0x10", "", "%2B5", "1" * 40, "%D9%A1", "1.0", "5%20")
    ],
    Row("72 max-parts", "GET", "kept", f"max-parts=-1&{UPLOAD}"),
    Row("72 part-number-marker", "GET", "kept", f"part-number-marker=x&{UPLOAD}"),
    *[
        Row(f"73 token {token[:12]}", "GET", query=f"continuation-token={token}&list-type=2")
        for token in ("x", "!!!!", "AAAA", "MWE", "MWE=MWE=", "Mv8%3D", "A" * 4000, "%C3%BC")
    ],
    Row("73 a token of 64 KiB", "GET", query="continuation-token=" + "A" * 65536, code=""),
    *[
        put(f"75 MD5 {value}", ("Content-MD5", value), code="InvalidDigest")
        for value in ("x", "AAAA", base64.b64encode(bytes(15)).decode(), "!" * 24, "0" * 32)
    ],
    put("75 another MD5", ("Content-MD5", OTHER_MD5), code="BadDigest"),
    put("76 unknown algorithm", ("x-amz-checksum-md5", OTHER_MD5), code="InvalidRequest"),
    put("76 two checksums", CRC, ("x-amz-checksum-sha1", "A" * 27 + "="), code="InvalidRequest"),
    put("76 no checksum", ("x-amz-checksum-crc32", "?"), code="BadDigest"),
    put("76 of another length", ("x-amz-checksum-crc32", "AAAA"), code="BadDigest"),
    put("76 another checksum", CRC, code="BadDigest"),
    put("76 another is named", CRC, ("x-amz-sdk-checksum-algorithm", "SHA1"), code="InvalidRequest"),
    put("76 one is named", ("x-amz-sdk-checksum-algorithm", "CRC32"), code="InvalidRequest"),
    put("77 3 KiB", ("x-amz-meta-a", "a" * 3000), code="MetadataTooLarge"),
    put("77 3 KiB in all", *[(f"x-amz-meta-{n}", "a" * 100) for n in range(30)], code="MetadataTooLarge"),
    put("77 not ASCII", ("x-amz-meta-a", "\u00fc")),
    put("77 not UTF-8", ("x-amz-meta-a", "\udcff")),
    put(
        "77 headers of 14 KiB",
        ("Cache-Control", "a" * 7000),
        ("Content-Language", "a" * 7000),
        code="MetadataTooLarge",
    ),
    Row(
        "76 checksum algorithm of an upload",
        "POST",
        "new",
        "uploads=",
        (("x-amz-checksum-algorithm", "\udcff"),),
        code="InvalidRequest",
    ),
    put("77 no name", ("x-amz-meta-", "a")),
    put("77 content type not ASCII", ("Content-Type", "\u00fc")),
    *[
        put(f"78 copy of {source[:14]}", ("x-amz-copy-source", source), status=status, code=code)
        for source, status, code in (
            ("/bucket/kept", 404, "NoSuchBucket"),
            ("kept", 400, "InvalidArgument"),
            ("", 400, "InvalidArgument"),
            ("/no-such-bucket/k", 404, "NoSuchBucket"),
            ("%ff", 400, "InvalidURI"),
            ("/b/k", 400, "InvalidBucketName"),
            ("/bucket/k?other=x", 400, "InvalidArgument"),
            ("/bucket/k?versionId=", 400, "InvalidArgument"),
            ("k" * 4000, 400, "InvalidBucketName"),
        )
    ],
    *[
        Row(f"79 part number {number}", "PUT", "new", f"partNumber={number}&{UPLOAD}", body=b"x")
        for number in ("0", "10001", "1e3", "-1", "", "abc", "01x")
    ],
    Row("79 no part number", "PUT", "new", UPLOAD, body=b"x"),
    Row("79 no upload", "PUT", "new", "partNumber=1&uploadId=", body=b"x", status=404, code="NoSuchUpload"),
    sized("82 above the largest object", OBJECT_BYTES_MAX + 1),
    sized("82 above the largest part", PART_BYTES_MAX + 1, f"partNumber=1&{UPLOAD}"),
    put("83 If-None-Match with two tags", ("If-None-Match", '"x", "y"'), status=501, code="NotImplemented"),
    put("83 If-None-Match with a weak tag", ("If-None-Match", 'W/"x"'), status=501, code="NotImplemented"),
    put("83 both", ("If-Match", '"x"'), ("If-None-Match", "*")),
    put("83 unterminated quote", ("If-Match", '"x')),
    put("83 weak tag", ("If-Match", 'W/"x"'), status=501, code="NotImplemented"),
    put("83 two tags", ("If-Match", '"x", "y"'), status=501, code="NotImplemented"),
    put("83 empty", ("If-Match", "")),
    put("83 not UTF-8", ("If-Match", '"\udcff"')),
    put("83 not ASCII", ("If-Match", '"\u00fc"')),
    put("83 a tag of 5 KiB", ("If-Match", '"' + "x" * 5000 + '"')),
    put("83 a tag of 4 KiB", ("If-Match", '"' + "x" * 4000 + '"'), status=404, code="NoSuchKey"),
    Row(
        "83 of another, 4 KiB",
        "PUT",
        "kept",
        "",
        (("If-Match", "x" * 4000),),
        b"x",
        412,
        "PreconditionFailed",
    ),
    put("83 If-Match * without an object", ("If-Match", "*"), status=404, code="NoSuchKey"),
    Row(
        "83 If-None-Match * over an object",
        "PUT",
        "kept",
        "",
        (("If-None-Match", "*"),),
        b"x",
        412,
        "PreconditionFailed",
    ),
    Row("83 If-Match of another", "PUT", "kept", "", (("If-Match", '"x"'),), b"x", 412, "PreconditionFailed"),
    Row(
        "83 delete If-Match of another",
        "DELETE",
        "kept",
        "",
        (("If-Match", '"x"'),),
        b"",
        412,
        "PreconditionFailed",
    ),
    Row(
        "83 delete If-None-Match",
        "DELETE",
        "kept",
        "",
        (("If-None-Match", "*"),),
        status=501,
        code="NotImplemented",
    ),
    Row("83 unterminated quote on a read", "GET", "kept", "", (("If-None-Match", '"x'),)),
    Row("response-content-type not ASCII", "GET", "kept", "response-content-type=%C3%BC"),
    Row("response-content-type with CR LF", "GET", "kept", "response-content-type=a%0d%0aSet-Cookie:x"),
    Row("response-expires with a control character", "GET", "kept", "response-expires=%1b"),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_refused(site: Site, row: Row) -> None:
    answer = site.send(site.sign(row.method, row.key, row.body, row.headers, query=row.query))
    assert (answer.status, answer.code) == (row.status, row.code), answer


def test_77_crlf_in_metadata_cannot_be_sent(site: Site) -> None:
    """It ends the header; what follows is another one, which was not signed."""
    sent = site.sign("PUT", "new", b"x", [("x-amz-meta-a", "b")])
    answer = site.send(sent.raw().replace(b"x-amz-meta-a: b", b"x-amz-meta-a: b\r\nx-amz-acl: public-read"))
    assert (answer.status, answer.code) == (403, "AccessDenied")


@pytest.mark.parametrize(
    ("query", "keys"), [("max-keys=0", 0), ("max-keys=1000000000000", 1), ("max-keys=1", 1)]
)
def test_72_bounds_that_are_taken(site: Site, query: str, keys: int) -> None:
    for version in ("", "&list-type=2"):
        answer = site.send(site.sign("GET", query=query + version))
        assert answer.status == 200 and answer.body.count(b"<Key>") == keys
        assert int(answer.element("MaxKeys")) <= 1000
        assert answer.element("IsTruncated") == "false"


def test_72_a_listing_of_no_keys_still_needs_its_bucket(site: Site) -> None:
    site.bucket, bucket = "no-such-bucket", site.bucket
    answer = site.send(site.sign("GET", query="list-type=2&max-keys=0"))
    site.bucket = bucket
    assert (answer.status, answer.code) == (404, "NoSuchBucket")


@pytest.mark.parametrize("name", ["prefix", "delimiter", "marker", "start-after"])
def test_74_parameters_as_long_as_a_key(site: Site, name: str) -> None:
    version = "" if name == "marker" else "&list-type=2"
    for value in ("z" * 1024, "%F0%9F%98%80" * 256):
        answer = site.send(site.sign("GET", query=f"{name}={value}{version}"))
        assert answer.status == 200, answer
        assert answer.body.count(b"<Key>") == (1 if name == "delimiter" else 0)
        answer = site.send(site.sign("GET", query=f"{name}={value}z{version}"))
        assert (answer.status, answer.code) == (400, "InvalidArgument"), answer


@pytest.mark.parametrize(
    "query",
    [f"prefix={'z' * 1025}", f"key-marker={'z' * 1025}", f"key-marker=k&upload-id-marker={'z' * 200}"],
)
def test_74_of_a_listing_of_uploads(site: Site, query: str) -> None:
    answer = site.send(site.sign("GET", query=f"uploads=&{query}"))
    assert (answer.status, answer.code) == (400, "InvalidArgument"), answer
    longest = f"uploads=&prefix={'z' * 1024}&key-marker={'z' * 1024}&upload-id-marker={'0' * 64}"
    assert site.send(site.sign("GET", query=longest)).status == 200


@pytest.mark.parametrize("name", ["If-Modified-Since", "If-Unmodified-Since"])
@pytest.mark.parametrize(
    "value",
    [
        "",
        "yesterday",
        "Thu, 01 Jan 99999 00:00:00 GMT",
        "Thu, 32 Jan 2026 00:00:00 GMT",
        "Thu, 01 Jan 2026 25:00:00 GMT",
        "Thu, 01 Jan 2026 00:00:00 +9999",
        "Thu, 01 Jan 2026 00:00:00 +" + "9" * 30,
        "Thu, 01 Jan 2026 00:00:00 -" + "9" * 30,
        "Thu, 01 Jan " + "9" * 5000 + " 00:00:00 GMT",
        "Fri, 31 Dec 9999 23:59:59 -2359",
        "Mon, 01 Jan 0001 00:00:00 +2359",
        "1 " * 1000,
    ],
)
def test_a_date_that_is_none_is_ignored(site: Site, name: str, value: str) -> None:
    """RFC 9110: as if the header were not there. Dates at the ends of the calendar are as good as any."""
    for method in ("GET", "HEAD"):
        answer = site.send(site.sign(method, site.KEY, headers=[(name, value)]))
        assert answer.status in (200, 304, 412), answer
        assert answer.status == 200 or "9999 23" in value or "0001" in value


@pytest.mark.parametrize(
    ("validator", "is_met"),
    [
        ("{etag}", True),
        ("{date}", True),
        ('"another"', False),
        ("W/{etag}", False),
        ("Thu, 01 Jan 2099 00:00:00 GMT", False),
        ("Thu, 01 Jan 1998 00:00:00 GMT", False),
        ("*", False),
        ("what", False),
    ],
)
@pytest.mark.parametrize("span", ["bytes=0-3", "bytes=1000-"])
def test_a_range_of_another_state_is_not_given(site: Site, validator: str, is_met: bool, span: str) -> None:
    """RFC 9110, section 13.1.5: who goes on with a download must not get bytes of another object."""
    found = site.send(site.sign("HEAD", site.KEY)).headers
    value = validator.format(etag=found["etag"], date=found["last-modified"])
    answer = site.send(site.sign("GET", site.KEY, headers=[("Range", span), ("If-Range", value)]))
    if is_met:
        assert answer.status == (206 if span == "bytes=0-3" else 416)
    else:
        assert (answer.status, answer.body) == (200, site.DATA)


def test_no_parts_asked_for_are_not_the_first_page_of_more(site: Site) -> None:
    """A paginator would ask for the next empty page for ever."""
    upload_id = site.send(site.sign("POST", "new", query="uploads=")).element("UploadId")
    query = f"uploadId={upload_id}"
    site.send(site.sign("PUT", "new", b"part", query=f"partNumber=1&{query}"))
    for listing in (
        site.sign("GET", "new", query=f"max-parts=0&{query}"),
        site.sign("GET", query="max-uploads=0&uploads="),
    ):
        answer = site.send(listing)
        assert (answer.status, answer.element("IsTruncated")) == (200, "false")
    assert site.send(site.sign("DELETE", "new", query=query)).status == 204


def test_82_a_body_without_any_length(site: Site) -> None:
    sent = site.sign("PUT", "new", b"body").with_header("Content-Length", None)
    answer = site.send(sent.plus(("Transfer-Encoding", "chunked")).head() + b"4\r\nbody\r\n0\r\n\r\n")
    assert (answer.status, answer.code) == (411, "MissingContentLength")


def test_no_length_and_no_coding_is_no_body(site: Site) -> None:
    """RFC 9112: such a request has none; the digest of the body then does not match."""
    answer = site.send(site.sign("PUT", "new", b"body").with_header("Content-Length", None))
    assert answer.status == 400


def test_75_to_77_good_ones_are_taken(site: Site) -> None:
    good: list[Callable[[], list[Header]]] = [
        lambda: [md5(b"body")],
        lambda: [crc32(b"body")],
        lambda: [("x-amz-meta-a", "a" * 2000), ("x-amz-meta-b", "tab\there")],
        lambda: [("x-amz-acl", "private"), ("x-amz-storage-class", "STANDARD")],
    ]
    for headers in good:
        put = site.send(site.sign("PUT", "new", b"body", headers()))
        assert put.status == 200, put
    assert site.send(site.sign("DELETE", "new")).status == 204


def test_metadata_cannot_split_a_response(site: Site) -> None:
    """What a client gets back has exactly the headers that another sent."""
    site.send(
        site.sign("PUT", "new", b"x", [("x-amz-meta-a", "tab\tand: colon"), ("Content-Type", "a/b; c")])
    )
    found = site.send(site.sign("GET", "new"))
    assert (found.headers["x-amz-meta-a"], found.headers["content-type"]) == ("tab\tand: colon", "a/b; c")
    site.send(site.sign("DELETE", "new"))
