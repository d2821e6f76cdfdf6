"""Buckets, keys and queries spelled in ways that other servers have fallen for.

A key is an opaque string: whatever decodes to UTF-8 without NUL is a key, and nothing of it is ever a path.
The numbers in the ids are rows of the catalogue of bad input.
"""

from __future__ import annotations

import unicodedata
from urllib.parse import quote, unquote

import pytest

from tests.s3.raw import Site, sign

MALFORMED = "InvalidURI"


@pytest.mark.parametrize(
    ("number", "key"),
    [
        (31, "a%00b"),
        (31, "%00"),
        (32, "a%zzb"),
        (32, "a%"),
        (32, "a%4"),
        (32, "%%41"),
        (33, "%ff%fe"),
        (33, "a%e9b"),
        (33, "%ed%a0%80"),  # half of a surrogate pair
        (33, "%f5%80%80%80"),  # above the last code point
        (34, "%c0%af"),
        (34, "%e0%80%af"),
        (34, "..%c0%afetc"),
    ],
)
@pytest.mark.parametrize("method", ["PUT", "GET", "DELETE"])
def test_no_key(site: Site, number: int, key: str, method: str) -> None:
    answer = site.send(site.sign(method, key, b"x" if method == "PUT" else b""))
    assert (answer.status, answer.code) == (400, MALFORMED), answer


@pytest.mark.parametrize("key", ["\udcff", "\u00fc"])
def test_33_bytes_that_are_not_escaped(site: Site, key: str) -> None:
    """Not allowed in a URL; aiohttp refuses them by itself."""
    assert site.send(site.sign("PUT", key, b"x")).status == 400


@pytest.mark.parametrize(
    ("number", "spelling"),
    [
        (29, "../../etc/passwd"),
        (29, "%2e%2e%2f%2e%2e%2fetc"),
        (29, "..%5c..%5cetc"),
        (29, "./."),
        (29, ".."),
        (29, "a/../kept"),
        (29, "%2e%2e/other-bucket/kept"),
        (30, "a%2Fb"),
        (30, "a%252Fb"),
        (36, quote("\U0001f600" * 256)),
        (36, "k" * 1024),
        (38, "a//b"),
        (38, "/a"),
        (38, "//"),
        (38, "a/"),
        (39, "%01%02%1f"),
        (39, "a%0d%0ab"),
        (39, "%7f%c2%80"),
        (39, "%ef%bf%be%ef%bf%bf"),
        (39, "%e2%80%ae"),
        (0, "a+b"),
        (0, "a:b@c;d=e,f"),
        (0, "%3Fuploads"),
        (0, "%20"),
    ],
)
def test_a_key_is_opaque(site: Site, number: int, spelling: str) -> None:
    """However it is spelled, the object is found under what the spelling decodes to, and only there."""
    key = unquote(spelling)
    assert site.send(site.sign("PUT", spelling, b"x")).status == 200
    assert site.stored() == sorted([quote(key, safe="/-._~"), site.KEY], key=unquote)
    assert site.send(site.sign("GET", quote(key, safe=""))).body == b"x"
    plain = site.send(site.sign("GET", query="list-type=2"))  # keys not encoded: well-formed all the same
    assert plain.status == 200 and plain.body.count(b"<Key>") == 2
    assert not any(byte < 32 and byte not in (9, 10, 13) for byte in plain.body)
    assert site.send(site.sign("DELETE", spelling)).status == 204


def test_30_slash_and_its_escape_are_one_key_to_signature_and_store(site: Site) -> None:
    assert site.send(site.sign("PUT", "a%2fb", b"x")).status == 200
    assert site.send(site.sign("GET", "a/b")).body == b"x"
    # The signature covers the spelling: what was signed as one must not be sent as the other.
    sent = site.sign("GET", "a/b")
    assert site.send(sent.raw().replace(b"a/b", b"a%2Fb", 1)).code == "SignatureDoesNotMatch"
    site.send(site.sign("DELETE", "a/b"))


def test_35_a_key_of_1025_bytes(site: Site) -> None:
    for key in ("k" * 1025, quote("\U0001f600" * 256 + "k"), "%41" * 1025):
        answer = site.send(site.sign("PUT", key, b"x"))
        assert (answer.status, answer.code) == (400, "KeyTooLongError"), key


def test_37_a_slash_after_the_bucket_is_no_key(site: Site) -> None:
    target = f"/{site.bucket}/"
    put = site.send(sign(site.gateway.host, "PUT", target))
    assert put.code == "BucketAlreadyOwnedByYou"
    listed = site.send(sign(site.gateway.host, "GET", target))
    assert b"<ListBucketResult" in listed.body


def test_38_slashes_make_different_keys(site: Site) -> None:
    for key in ("a", "a/", "a//b", "/a"):
        assert site.send(site.sign("PUT", key, key.encode())).status == 200
    assert site.stored() == ["/a", "a", "a/", "a//b", site.KEY]
    for key in ("a", "a/", "a//b", "/a"):
        assert site.send(site.sign("GET", key)).body == key.encode()
        site.send(site.sign("DELETE", key))


def test_40_nothing_is_normalised(site: Site) -> None:
    keys = [unicodedata.normalize(form, "\u00fc") for form in ("NFC", "NFD")]
    for key in keys:
        assert site.send(site.sign("PUT", quote(key), key.encode())).status == 200
    assert [site.send(site.sign("GET", quote(key))).body for key in keys] == [key.encode() for key in keys]
    for key in keys:
        site.send(site.sign("DELETE", quote(key)))


@pytest.mark.parametrize(
    "name",
    [
        "A",
        "Bucket",
        "ab",
        "b" * 64,
        "192.168.0.1",
        "a..b",
        "a.-b",
        "-ab",
        "ab-",
        ".ab",
        "a_b",
        "xn--abc",
        "sthree-abc",
        "abc-s3alias",
        "abc--ol-s3",
        "abc--x-s3",
        "b%C3%BCcher",
        "a%20b",
        "a%2Fb",
        "..",
        "%2e%2e",
        "admin",
        ".meta",
        "bucket%0aname",
    ],
)
@pytest.mark.parametrize("method", ["PUT", "GET", "HEAD", "DELETE"])
def test_41_no_bucket_name(site: Site, name: str, method: str) -> None:
    answer = site.send(sign(site.gateway.host, method, f"/{name}"))
    assert answer.status == 400, answer
    assert method == "HEAD" or answer.code == "InvalidBucketName"


@pytest.mark.parametrize("path", ["//key", "//kept/kept"])
def test_no_bucket_at_all(site: Site, path: str) -> None:
    answer = site.send(sign(site.gateway.host, "GET", path))
    assert (answer.status, answer.code) == (400, "InvalidBucketName")


def test_43_the_host_never_names_a_bucket(site: Site) -> None:
    """Only paths do; a host that looks like a bucket's is signed and otherwise of no meaning."""
    headers = [("Host", f"other-bucket.{site.gateway.host}")]
    assert site.send(site.sign("GET", site.KEY, headers=headers)).body == site.DATA


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("list-type=2&prefix=%ff", MALFORMED),
        ("list-type=2&prefix=%zz", MALFORMED),
        ("list-type=2&prefix=%00", MALFORMED),
        ("list-type=2&%ff=1", MALFORMED),
        ("list-type=2&prefix=%c0%af", MALFORMED),
        ("list-type=2&prefix=a&prefix=b", "InvalidArgument"),
        ("uploads=&uploads=", "InvalidArgument"),
        ("list-type=3", "InvalidArgument"),
        ("list-type=", "InvalidArgument"),
        ("encoding-type=base64&list-type=2", "InvalidArgument"),
    ],
)
def test_no_query(site: Site, query: str, code: str) -> None:
    answer = site.send(site.sign("GET", query=query))
    assert (answer.status, answer.code) == (400, code), answer


def test_a_query_of_empty_pairs_is_empty(site: Site) -> None:
    assert site.send(site.sign("GET", query="&&&")).status == 200
