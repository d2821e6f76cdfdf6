"""One reading of headers, whoever reads them."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from ssastore.s3.errors import S3Error
from ssastore.s3.headers import folded, joined, without_keys
from ssastore.s3.principal import SignedRequest, anonymous

Pairs = list[tuple[str, str]]


def read(pairs: Pairs) -> dict[str, str]:
    return {name.lower(): value for name, value in joined(CIMultiDictProxy(CIMultiDict(pairs))).items()}


def signed(pairs: Pairs) -> dict[str, str]:
    found = folded([(name.encode(), value.encode()) for name, value in pairs])
    return {name.decode(): value.decode() for name, value in found.items()}


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([("A", "1"), ("b", "2")], {"a": "1", "b": "2"}),
        ([("x-amz-acl", "private"), ("X-Amz-ACL", "public-read")], {"x-amz-acl": "private,public-read"}),
        ([("a", "1"), ("b", "2"), ("A", "3"), ("a", "1")], {"a": "1,3,1", "b": "2"}),
        ([("a", ""), ("a", "")], {"a": ","}),
    ],
)
def test_what_is_read_is_what_is_signed(pairs: Pairs, expected: dict[str, str]) -> None:
    assert read(pairs) == signed(pairs) == expected


@pytest.mark.parametrize("name", ["Authorization", "HOST", "x-amz-content-sha256", "X-Amz-Date"])
def test_what_there_can_be_one_of_is_not_there_twice(name: str) -> None:
    pairs = [(name, "a"), ("b", "c"), (name.swapcase(), "a")]
    for reading in (read, signed):
        with pytest.raises(S3Error) as caught:
            reading(pairs)
        assert (caught.value.code, caught.value.fields["ArgumentName"]) == ("InvalidArgument", name.lower())


def test_who_has_no_credentials_says_one_thing_of_his_body() -> None:
    digests = [(b"x-amz-content-sha256", b"0" * 64), (b"X-Amz-Content-SHA256", b"1" * 64)]
    request = SignedRequest("PUT", b"/b/k", b"", digests)
    with pytest.raises(S3Error) as caught:
        anonymous(request, 0)
    assert caught.value.code == "InvalidArgument"


@pytest.mark.parametrize("prefix", ["x-amz-", "X-Amz-Copy-Source-"])
def test_keys_are_left_out_of_what_is_shown(prefix: str) -> None:
    name = f"{prefix}server-side-encryption-customer-key"
    text = (
        f"PUT\n/b/{name}\na=b&{name}=SECRET%3D&{name}-md5=c\n{name}:SECRET&MORE= SECRET\n{name}-md5:d\n"
        f"x-amz-meta-a:{name}:e"
    )
    assert without_keys(text.encode()).decode() == (
        f"PUT\n/b/{name}\na=b&{name}=(left out)&{name}-md5=c\n{name}:(left out)\n{name}-md5:d\n"
        f"x-amz-meta-a:{name}:e"
    )
