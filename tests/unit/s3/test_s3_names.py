"""Names and headers: the rows of the bad-input catalogue, one table for each reader."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssastore.s3.errors import S3Error
from ssastore.s3.names import (
    ETags,
    bucket_of_host,
    check_bucket_name,
    check_key,
    decode_key,
    parse_copy_range,
    parse_copy_source,
    parse_etags,
    parse_number,
    parse_query,
    parse_range,
    percent_decode,
    split_path,
    user_metadata,
)


def refusal(call: Callable[..., object], *arguments: object, **named: object) -> S3Error:
    with pytest.raises(S3Error) as caught:
        call(*arguments, **named)
    return caught.value


# -- paths and keys ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "bucket", "key"),
    [
        (b"/", None, None),
        (b"/photos", "photos", None),
        (b"/photos/", "photos", None),
        (b"/photos/a", "photos", "a"),
        (b"/photos/a/", "photos", "a/"),
        (b"/photos/a//b", "photos", "a//b"),
        (b"/photos//a", "photos", "/a"),
        (b"/photos//", "photos", "/"),
        (b"/photos/%2Fa", "photos", "/a"),
        (b"/photos/..%2f../etc/passwd", "photos", "../../etc/passwd"),
        (b"/photos/%2e%2e%2f", "photos", "../"),
        (b"/photos/..%5c", "photos", "..\\"),
        (b"/photos/.", "photos", "."),
        (b"/photos/a+b", "photos", "a+b"),
        (b"/photos/a%2Bb%20c", "photos", "a+b c"),
        (b"/photos/%01%0D%0A", "photos", "\x01\r\n"),
        (b"/photos/%C3%A9", "photos", "é"),
        (b"/photos/e%CC%81", "photos", "e\u0301"),  # not normalised: another object than the line above
        (b"/photos/\xc3\xa9", "photos", "é"),
        (b"/photos/" + b"%F0%9F%90%88" * 256, "photos", "🐈" * 256),
        (b"/%70hotos/a%3Fb", "photos", "a?b"),
    ],
)
def test_a_raw_path_names_bucket_and_key(path: bytes, bucket: str | None, key: str | None) -> None:
    assert split_path(path) == (bucket, key)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        (b"", "InvalidURI"),
        (b"*", "InvalidURI"),
        (b"http://host/photos/a", "InvalidURI"),
        (b"//a", "InvalidBucketName"),
        (b"/photos/%zz", "InvalidURI"),
        (b"/photos/%", "InvalidURI"),
        (b"/photos/%4", "InvalidURI"),
        (b"/photos/%+1", "InvalidURI"),
        (b"/photos/% 1", "InvalidURI"),
        (b"/photos/%0", "InvalidURI"),
        (b"/photos/a%00b", "InvalidURI"),
        (b"/photos/%ff%fe", "InvalidURI"),
        (b"/photos/\xff", "InvalidURI"),
        (b"/photos/%c0%af", "InvalidURI"),  # an overlong slash
        (b"/photos/%ed%a0%80", "InvalidURI"),  # a surrogate
        (b"/photos/" + b"a" * 1025, "KeyTooLongError"),
        (b"/photos/" + b"%F0%9F%90%88" * 256 + b"a", "KeyTooLongError"),
        (b"/ph%00otos/a", "InvalidURI"),
        (b"/Photos/a", "InvalidBucketName"),
    ],
)
def test_paths_that_name_nothing_are_refused(path: bytes, code: str) -> None:
    error = refusal(split_path, path)
    assert (error.code, error.status) == (code, 400)


@given(
    st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), min_size=1, max_size=200)
)
def test_every_key_survives_encoding(key: str) -> None:
    for safe in ("/", "", "/~-_.!*'()"):
        assert decode_key(quote(key, safe=safe).encode()) == key


@given(st.binary(max_size=60))
def test_percent_decoding_never_fails_in_another_way(raw: bytes) -> None:
    try:
        assert len(percent_decode(raw)) <= len(raw)
    except S3Error as error:
        assert b"%" in raw
        assert error.code == "InvalidURI"


def test_a_megabyte_of_escapes_is_decoded_or_refused() -> None:
    assert percent_decode(b"%41" * 400_000) == b"A" * 400_000
    assert refusal(percent_decode, b"%" * 1_000_000).code == "InvalidURI"


def test_keys_that_come_in_a_body_obey_the_same_bounds() -> None:
    check_key("a" * 1024)
    assert refusal(check_key, "é" * 513).code == "KeyTooLongError"
    assert refusal(check_key, "").code == "InvalidArgument"


# -- buckets ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["abc", "a" * 63, "0a0", "my.bucket-1.x", "a--b", "192.168.0.1.2", "192.168.0.x", "xn-a", "b.c.d.e"],
)
def test_good_bucket_names(name: str) -> None:
    check_bucket_name(name)


@pytest.mark.parametrize(
    "name",
    [
        *("", "A", "ab", "a" * 64, "192.168.0.1", "1.2.3.4", "a..b", "-ab", "ab-", ".ab", "ab.", "xn--abc"),
        *("aBc", "a_b", "a b", "ab\n", "ab/", "äbc", "٣٣٣", "a.-b", "a-.b", ".meta", "admin", "sthree-a"),
        *("abc-s3alias", "abc--ol-s3", "abc.mrap", "abc--x-s3", "abc--table-s3", "a\0b"),
    ],
)
def test_bad_bucket_names(name: str) -> None:
    error = refusal(check_bucket_name, name)
    assert (error.code, error.status) == ("InvalidBucketName", 400)


# -- query ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "parameters"),
    [
        (b"", {}),
        (b"&&", {}),
        (b"location", {"location": ""}),
        (b"prefix=a+b%2Bc%2f&list-type=2", {"prefix": "a b+c/", "list-type": "2"}),
        (b"a=b=c", {"a": "b=c"}),
        (b"prefix=%C3%A9", {"prefix": "é"}),
        (b"x%2Did=PutObject", {"x-id": "PutObject"}),
    ],
)
def test_a_query_is_parsed(query: bytes, parameters: dict[str, str]) -> None:
    assert parse_query(query) == parameters


@pytest.mark.parametrize(
    ("query", "code"),
    [
        (b"a=1&a=2", "InvalidArgument"),
        (b"uploadId=1&upload%49d=2", "InvalidArgument"),
        (b"a=%zz", "InvalidURI"),
        (b"%=1", "InvalidURI"),
        (b"prefix=%ff%fe", "InvalidURI"),
        (b"prefix=%00", "InvalidURI"),
    ],
)
def test_a_query_with_two_readings_is_refused(query: bytes, code: str) -> None:
    error = refusal(parse_query, query)
    assert (error.code, error.status) == (code, 400)


@pytest.mark.parametrize(
    "text", ["-1", "", "abc", "1e3", "+1", " 1", "1 ", "1_0", "٣", "0x1", "1.0", "9" * 5000]
)
def test_numbers_are_decimal_digits(text: str) -> None:
    error = refusal(parse_number, "max-keys", text, least=0)
    assert (error.code, error.status) == ("InvalidArgument", 400)
    assert error.fields["ArgumentName"] == "max-keys"


def test_numbers_have_bounds() -> None:
    assert parse_number("max-keys", "0", least=0) == 0
    assert parse_number("max-keys", str(10**12), least=0) == 10**12
    assert parse_number("partNumber", "10000", least=1, most=10_000) == 10_000
    for text in ("0", "10001"):
        assert refusal(parse_number, "partNumber", text, least=1, most=10_000).code == "InvalidArgument"


# -- copy source ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "source"),
    [
        ("/photos/a", ("photos", "a", None)),
        ("photos/a%20b%3Fc/d", ("photos", "a b?c/d", None)),
        ("photos/a+b", ("photos", "a+b", None)),
        ("photos/é", ("photos", "é", None)),
        ("photos/a?versionId=x%2By", ("photos", "a", "x+y")),
    ],
)
def test_a_copy_source_names_an_object(value: str, source: tuple[str, str, str | None]) -> None:
    assert parse_copy_source(value) == source


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("", "InvalidArgument"),
        ("/", "InvalidArgument"),
        ("photos", "InvalidArgument"),
        ("photos/", "InvalidArgument"),
        ("photos/a?", "InvalidArgument"),
        ("photos/a?versionId=", "InvalidArgument"),
        ("photos/a?versionId=1&versionId=2", "InvalidArgument"),
        ("photos/a?acl", "InvalidArgument"),
        ("photos/%zz", "InvalidURI"),
        ("photos/\udcff", "InvalidURI"),
        ("Photos/a", "InvalidBucketName"),
        ("photos/" + "a" * 10_240, "KeyTooLongError"),
    ],
)
def test_a_copy_source_that_names_nothing_is_refused(value: str, code: str) -> None:
    error = refusal(parse_copy_source, value)
    assert (error.code, error.status) == (code, 400)


# -- ranges -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "span"),
    [
        ("bytes=0-0", (0, 0)),
        ("bytes=0-9", (0, 9)),
        ("bytes=5-", (5, 9)),
        ("bytes=9-9", (9, 9)),
        ("bytes=5-100", (5, 9)),
        (f"bytes=5-{10**30}", (5, 9)),
        ("bytes=-3", (7, 9)),
        ("bytes=-10", (0, 9)),
        (f"bytes=-{10**30}", (0, 9)),
        ("bytes=000000005-6", (5, 6)),
        # What S3 ignores: the whole body is sent.
        (None, None),
        ("", None),
        ("bytes=5-2", None),
        ("bytes=", None),
        ("bytes=-", None),
        ("bytes=5", None),
        ("bytes=a-b", None),
        ("bytes=+1-2", None),
        ("bytes=--1", None),
        ("bytes=1-2-3", None),
        ("bytes=٣-٤", None),
        ("bytes=0-1,3-4", None),
        ("bytes=" + ",".join(f"{at}-{at}" for at in range(1000)), None),
        ("x=0-1", None),
        ("bytes 0-1", None),
        ("bytes=0-" + "9" * 200, None),
    ],
)
def test_ranges_of_ten_bytes(value: str | None, span: tuple[int, int] | None) -> None:
    assert parse_range(value, 10) == span


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ("bytes=10-", 10),
        ("bytes=10-20", 10),
        (f"bytes={10**30}-", 10),
        ("bytes=-0", 10),
        ("bytes=0-", 0),
        ("bytes=-5", 0),
    ],
)
def test_ranges_outside_the_object_cannot_be_satisfied(value: str, size: int) -> None:
    error = refusal(parse_range, value, size)
    assert (error.code, error.status) == ("InvalidRange", 416)
    assert error.headers == {"Content-Range": f"bytes */{size}"}
    assert error.fields == {"RangeRequested": value, "ActualObjectSize": str(size)}


@given(st.integers(0, 50), st.none() | st.integers(0, 50), st.none() | st.integers(0, 50))
def test_a_range_never_leaves_the_object(size: int, first: int | None, last: int | None) -> None:
    value = f"bytes={'' if first is None else first}-{'' if last is None else last}"
    try:
        span = parse_range(value, size)
    except S3Error as error:
        assert error.status == 416
    else:
        assert span is None or 0 <= span[0] <= span[1] < size


def test_a_copied_range_must_be_exact_and_inside() -> None:
    assert parse_copy_range("bytes=0-9", 10) == (0, 9)
    for value in ("bytes=0-", "bytes=-5", "bytes=5-2", "0-9", "", "bytes=0-1,2-3"):
        error = refusal(parse_copy_range, value, 10)
        assert (error.code, error.status) == ("InvalidArgument", 400)
    error = refusal(parse_copy_range, "bytes=0-10", 10)
    assert (error.code, error.status) == ("InvalidRange", 400)


# -- conditions -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "tags"),
    [
        (None, None),
        ("*", ETags(any=True)),
        (" * ", ETags(any=True)),
        ('"a"', ETags(strong=("a",))),
        ("a", ETags(strong=("a",))),
        ('""', ETags(strong=("",))),
        ('"a", "b,c" ,d', ETags(strong=("a", "b,c", "d"))),
        ('W/"a","b"', ETags(strong=("b",), weak=("a",))),
        ('"*"', ETags(strong=("*",))),
        ('"9a0364b9e99bb480dd25e1f0284c8555-2"', ETags(strong=("9a0364b9e99bb480dd25e1f0284c8555-2",))),
    ],
)
def test_etag_lists(value: str | None, tags: ETags | None) -> None:
    assert parse_etags("If-Match", value) == tags


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        '"a',
        'a"',
        '"a"b',
        '"a" "b"',
        "a b",
        ",",
        "a,",
        ",a",
        '"a",,"b"',
        "*,a",
        "a,*",
        'W/"a',
        '"' * 5,
    ],
)
def test_malformed_etag_lists_are_refused(value: str) -> None:
    error = refusal(parse_etags, "If-Match", value)
    assert (error.code, error.status) == ("InvalidArgument", 400)
    assert error.fields["ArgumentName"] == "If-Match"


def test_a_weak_tag_matches_only_weakly() -> None:
    tags = parse_etags("If-None-Match", 'W/"a", "b"')
    assert tags is not None
    assert (tags.matches("a"), tags.matches_weakly("a")) == (False, True)
    assert (tags.matches("b"), tags.matches_weakly("b")) == (True, True)
    assert (tags.matches("c"), tags.matches_weakly("c")) == (False, False)
    anything = ETags(any=True)
    assert (anything.matches("c"), anything.matches_weakly("c")) == (True, True)


# -- user metadata ----------------------------------------------------------------------------------


def test_user_metadata_is_what_follows_the_prefix() -> None:
    headers = {
        "X-Amz-Meta-Mtime": "1.5",
        "x-amz-meta-a-b": " two\twords ",
        "x-amz-metadata-directive": "COPY",
    }
    assert user_metadata(headers) == {"mtime": "1.5", "a-b": " two\twords "}


def test_repeated_metadata_headers_are_joined() -> None:
    class Headers(dict[str, str]):
        def items(self):  # type: ignore[no-untyped-def]  # what a multi-dict does
            return [("x-amz-meta-a", "1"), ("X-Amz-Meta-A", "2")]

    assert user_metadata(Headers()) == {"a": "1,2"}


def test_user_metadata_is_bounded() -> None:
    assert user_metadata({"x-amz-meta-a": "b" * 2047}) == {"a": "b" * 2047}
    error = refusal(user_metadata, {"x-amz-meta-a": "b" * 2047, "x-amz-meta-c": ""})
    assert (error.code, error.status) == ("MetadataTooLarge", 400)


@pytest.mark.parametrize(
    "value", ["é", "a\rb", "a\nb", "a\r\nSet-Cookie: x", "a\0b", "\x7f", "\udcff", "\x1b[0m"]
)
def test_metadata_that_no_header_can_carry_is_refused(value: str) -> None:
    error = refusal(user_metadata, {"x-amz-meta-a": value})
    assert (error.code, error.status) == ("InvalidArgument", 400)


@pytest.mark.parametrize(
    ("host", "bucket"),
    [
        ("photos.s3.example.org", b"photos"),
        ("photos.s3.example.org:7482", b"photos"),
        ("Photos.S3.Example.org", b"photos"),
        ("a.b.s3.example.org", b"a.b"),
        ("s3.example.org", b""),
        ("photos.example.org", b""),
        ("photoss3.example.org", b""),
        ("photos.s3.example.org.evil.org", b""),
        ("[::1]:7482", b""),
        ("127.0.0.1", b""),
        ("", b""),
    ],
)
def test_a_host_names_a_bucket_in_front_of_the_domain(host: str, bucket: bytes) -> None:
    assert bucket_of_host(host, "s3.example.org") == bucket
