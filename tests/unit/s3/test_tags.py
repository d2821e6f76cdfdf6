"""Tags: what S3 takes, in both forms."""

from __future__ import annotations

import pytest

from ssastore.limits import METADATA_BYTES_MAX
from ssastore.s3 import xmlsettings
from ssastore.s3.errors import S3Error
from ssastore.s3.tags import parse_tag_header, parse_tagging, tags_of_headers


def document(*pairs: tuple[str, str]) -> bytes:
    return xmlsettings.tagging(dict(pairs)) if len(dict(pairs)) == len(pairs) else _with_repetitions(*pairs)


def _with_repetitions(*pairs: tuple[str, str]) -> bytes:
    tags = "".join(f"<Tag><Key>{key}</Key><Value>{value}</Value></Tag>" for key, value in pairs)
    return f"<Tagging><TagSet>{tags}</TagSet></Tagging>".encode()


@pytest.mark.parametrize(
    ("header", "tags"),
    [
        ("", {}),
        ("a=1", {"a": "1"}),
        ("foo=bar&bar", {"bar": "", "foo": "bar"}),
        ("a=&b", {"a": "", "b": ""}),
        ("%C3%BC=a+b%26c%2B%3D-._%3A/%40", None),
        ("a%20b=%E4%BD%A0", {"a b": "你"}),
    ],
)
def test_header_is_a_query(header: str, tags: dict[str, str] | None) -> None:
    if tags is None:
        with pytest.raises(S3Error) as caught:
            parse_tag_header(header)
        assert caught.value.code == "InvalidTag", "& is no character of a tag"
        return
    assert parse_tag_header(header) == tags_of_headers({"x-amz-tagging": header}) == tags
    assert list(tags) == sorted(tags)


def test_no_header_is_no_tags() -> None:
    assert tags_of_headers({}) == {}


@pytest.mark.parametrize("header", ["a=1&a=2", "a=%zz", "a=%00", "a=%ff"])
def test_header_that_is_no_query(header: str) -> None:
    with pytest.raises(S3Error) as caught:
        parse_tag_header(header)
    assert (caught.value.code, caught.value.status) == ("InvalidArgument", 400)


def test_document_comes_back_in_order_of_keys() -> None:
    assert list(parse_tagging(document(("b", " 1 "), ("a", ""), ("B", "<&>"[:0]))).items()) == [
        ("B", ""),
        ("a", ""),
        ("b", " 1 "),
    ]
    assert parse_tagging(document()) == {}


@pytest.mark.parametrize(
    "pairs",
    [
        [(str(at), "") for at in range(11)],
        [("k" * 129, "")],
        [("", "v")],
        [("k", "v" * 257)],
        [("k", "1"), ("k", "2")],
        [("aws:k", "v")],
        [("k", "a!b")],
        [("k?", "b")],
    ],
)
def test_tags_that_s3_refuses(pairs: list[tuple[str, str]]) -> None:
    with pytest.raises(S3Error) as caught:
        parse_tagging(document(*pairs))
    assert (caught.value.code, caught.value.status) == ("InvalidTag", 400)


def test_largest_tags_fit_the_metadata() -> None:
    pairs = [("𝔘" * 127 + str(at), "𝔘" * 256) for at in range(10)]
    tags = parse_tagging(document(*pairs))
    assert tags == dict(pairs)
    assert sum(len((key + value).encode()) + 8 for key, value in tags.items()) + 6 * 1024 < METADATA_BYTES_MAX


def test_a_bucket_has_up_to_fifty() -> None:
    assert len(parse_tagging(document(*[(str(at), "") for at in range(50)]), of_bucket=True)) == 50
    with pytest.raises(S3Error):
        parse_tagging(document(*[(str(at), "") for at in range(51)]), of_bucket=True)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<Tagging/>",
        b"<Other><TagSet/></Other>",
        b"<Tagging><TagSet><Tag><Key>a</Key></Tag></TagSet></Tagging>",
        b"<Tagging><TagSet><Tag><Value>a</Value></Tag></TagSet></Tagging>",
        b"<Tagging><TagSet><Thing><Key>a</Key><Value>b</Value></Thing></TagSet></Tagging>",
        b"<Tagging><TagSet><Tag><Key>a</Key><Key>b</Key><Value>b</Value></Tag></TagSet></Tagging>",
        b"<Tagging><TagSet><Tag><Key>a<b/></Key><Value>b</Value></Tag></TagSet></Tagging>",
        b"<Tagging><TagSet/><TagSet/></Tagging>",
    ],
)
def test_document_that_is_none(body: bytes) -> None:
    with pytest.raises(S3Error) as caught:
        parse_tagging(body)
    assert caught.value.code == "MalformedXML"
