"""Which headers of encryption mean what, where none may be, and which key opens which object."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from ssastore.core.buckets import Bucket
from ssastore.core.ciphers import ENCRYPTION, Piece
from ssastore.core.place import Place
from ssastore.errors import ConfigError, CorruptObject
from ssastore.s3.conditions import OF_COPY_SOURCE
from ssastore.s3.encryption import (
    PLAIN,
    SSE,
    CustomerKey,
    Encryption,
    Scheme,
    check_headers,
    parse_default,
    said_headers,
    wants_server_key,
)
from ssastore.s3.errors import S3Error
from ssastore.s3.headers import joined
from ssastore.system import SystemRandomness

KEY, OTHER = bytes(range(32)), bytes(32)
FIRST, SECOND = ("first", b"1" * 32), ("second", b"2" * 32)
AES = {SSE: "AES256"}


def customer(secret: bytes = KEY, /, prefix: str = "x-amz-", **changes: str | None) -> dict[str, str]:
    start = f"{prefix}server-side-encryption-customer-"
    headers: dict[str, str | None] = {
        "algorithm": "AES256",
        "key": base64.b64encode(secret).decode(),
        "key-MD5": base64.b64encode(hashlib.md5(secret).digest()).decode(),
    }
    headers |= {name.replace("_", "-"): value for name, value in changes.items()}
    return {f"{start}{name}": value for name, value in headers.items() if value is not None}


def bucket(**config: Any) -> Bucket:
    return Bucket("bucket", Place(1, 4), 0, "active", "e", config=config)


def headers(*some: Mapping[str, str]) -> CIMultiDict[str]:
    return CIMultiDict({name: value for one in some for name, value in one.items()})


def refusal(call: Any, *arguments: Any) -> str:
    with pytest.raises(S3Error) as caught:
        call(*arguments)
    assert caught.value.status in (400, 501)
    return caught.value.code


def encryption(*keys: tuple[str, bytes]) -> Encryption:
    return Encryption(keys or (FIRST,), SystemRandomness())


def is_same(one: Scheme, other: Scheme) -> bool:
    assert one.cipher is not None and other.cipher is not None
    return other.cipher.decrypt(Piece(0, 0), one.cipher.encrypt(Piece(0, 0), b"abc")) == b"abc"


# -- headers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"algorithm": None}, "InvalidArgument"),
        ({"algorithm": "AES128"}, "InvalidEncryptionAlgorithmError"),
        ({"algorithm": "aws:kms"}, "InvalidEncryptionAlgorithmError"),
        ({"key": None}, "InvalidArgument"),
        ({"key": ""}, "InvalidArgument"),
        ({"key": "not base64"}, "InvalidArgument"),
        ({"key": base64.b64encode(KEY[:31]).decode()}, "InvalidArgument"),
        ({"key_MD5": None}, "InvalidArgument"),
        ({"key_MD5": "AAAAAAAAAAAAAAAAAAAAAA=="}, "InvalidArgument"),
        ({"key_MD5": "é"}, "InvalidArgument"),
    ],
)
def test_half_a_key_is_refused_and_not_shown(changes: dict[str, Any], code: str) -> None:
    with pytest.raises(S3Error) as caught:
        CustomerKey.of(headers(customer(**changes)))
    text = f"{caught.value} {caught.value.fields} {caught.value.__cause__!r}"
    assert caught.value.code == code and base64.b64encode(KEY[:24]).decode() not in text


def test_a_key_is_read_and_not_shown() -> None:
    found = CustomerKey.of(headers(customer()))
    assert found is not None and found.key == KEY and repr(KEY) not in repr(found)
    assert CustomerKey.of(headers()) is None
    assert CustomerKey.of(headers(customer()), OF_COPY_SOURCE) is None
    assert CustomerKey.of(headers(customer(prefix=OF_COPY_SOURCE)), OF_COPY_SOURCE) == found


@pytest.mark.parametrize(
    ("some", "code"),
    [
        ([{SSE: "aws:kms"}], "NotImplemented"),
        ([{SSE: "aws:kms:dsse"}], "NotImplemented"),
        ([{SSE: "aws:kms", f"{SSE}-aws-kms-key-id": "k"}], "NotImplemented"),
        ([{SSE: "aes256"}], "InvalidArgument"),
        ([{SSE: ""}], "InvalidArgument"),
        ([AES, {f"{SSE}-aws-kms-key-id": "k"}], "InvalidArgument"),
        ([{f"{SSE}-aws-kms-key-id": "k"}], "InvalidArgument"),
        ([{f"{SSE}-context": "e30="}], "InvalidArgument"),
        ([AES, {f"{SSE}-bucket-key-enabled": "true"}], "InvalidArgument"),
        ([AES, customer()], "InvalidArgument"),
        ([{SSE: "aws:kms"}, customer()], "InvalidArgument"),
    ],
)
def test_what_a_write_cannot_ask_for(some: list[dict[str, str]], code: str) -> None:
    assert refusal(wants_server_key, headers(*some)) == code


def test_what_a_write_can_ask_for() -> None:
    assert wants_server_key(headers(AES))
    assert wants_server_key(headers(AES, {f"{SSE}-bucket-key-enabled": "false"}))
    assert not wants_server_key(headers()) and not wants_server_key(headers(customer()))


OF_SOURCE = customer(prefix=OF_COPY_SOURCE)
MEANT = {
    "PutObject": [AES, customer()],
    "CreateMultipartUpload": [AES, customer()],
    "CopyObject": [AES, customer(), OF_SOURCE],
    "UploadPartCopy": [customer(), OF_SOURCE],
    **{name: [customer()] for name in ("UploadPart", "GetObject", "HeadObject", "GetObjectAttributes")},
    **{name: [customer()] for name in ("CompleteMultipartUpload", "ListParts")},
    **{
        name: [] for name in ("PostObject", "DeleteObject", "ListObjects", "PutObjectTagging", "CreateBucket")
    },
}


@pytest.mark.parametrize("operation", MEANT)
def test_no_header_is_ignored(operation: str) -> None:
    """Each header either means something to an operation or is refused by it."""
    for one in (AES, customer(), OF_SOURCE):
        for name, value in one.items():
            if one in MEANT[operation]:
                check_headers(operation, headers({name: value}), {})
            else:
                assert refusal(check_headers, operation, headers({name: value}), {}) == "InvalidArgument"
    names = [f"{SSE}-new", f"{SSE}-customer-new", "x-amz-copy-source-server-side-encryption"]
    names += [
        f"{SSE}-customer-new-customer-key",
        f"{OF_COPY_SOURCE}server-side-encryption-customer-customer-key",
    ]
    for name in names:
        assert refusal(check_headers, operation, headers({name: "x"}), {}) == "InvalidArgument"
    in_query = {"X-Amz-Server-Side-Encryption": "AES256"}
    assert refusal(check_headers, operation, headers(), in_query) == "InvalidArgument"
    assert refusal(check_headers, operation, headers({SSE: "aws:kms"}), in_query) == "InvalidArgument"


@pytest.mark.parametrize(
    ("said", "name"),
    [(AES, SSE), *[(customer(), name) for name in customer()]],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_header_is_not_read_in_part(said: dict[str, str], name: str) -> None:
    """Of two, one would be ignored."""
    twice = CIMultiDict([*said.items(), (name.title(), said[name])])
    given = joined(CIMultiDictProxy(twice))
    code = refusal(encryption().fresh, given, bucket(), "k")
    assert code in ("InvalidArgument", "InvalidEncryptionAlgorithmError")


def test_a_header_may_be_repeated_in_the_query() -> None:
    """As signers of Version 2 do."""
    check_headers("PutObject", headers(AES), dict(AES))


def test_what_an_answer_says() -> None:
    assert said_headers({}, headers(customer())) == {}
    assert said_headers({ENCRYPTION: {"kind": "S3"}}, headers()) == AES
    md5 = customer()[f"{SSE}-customer-key-MD5"]
    expected = {f"{SSE}-customer-algorithm": "AES256", f"{SSE}-customer-key-MD5": md5}
    assert said_headers({ENCRYPTION: {"kind": "C"}}, headers(customer())) == expected
    assert said_headers({ENCRYPTION: {"kind": "C"}}, headers()) == {}


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        ("<SSEAlgorithm>AES256</SSEAlgorithm>", ""),
        ("<SSEAlgorithm>aws:kms</SSEAlgorithm>", "NotImplemented"),
        ("<SSEAlgorithm>aws:kms</SSEAlgorithm><KMSMasterKeyID>k</KMSMasterKeyID>", "NotImplemented"),
        ("<SSEAlgorithm>AES256</SSEAlgorithm><KMSMasterKeyID>k</KMSMasterKeyID>", "InvalidArgument"),
        ("<SSEAlgorithm>AES128</SSEAlgorithm>", "MalformedXML"),
        ("", "MalformedXML"),
    ],
)
def test_default_of_a_bucket(rule: str, code: str) -> None:
    for after in ("", "<BucketKeyEnabled>false</BucketKeyEnabled>"):
        body = f"<ApplyServerSideEncryptionByDefault>{rule}</ApplyServerSideEncryptionByDefault>{after}"
        document = (
            f"<ServerSideEncryptionConfiguration><Rule>{body}</Rule></ServerSideEncryptionConfiguration>"
        )
        if code:
            assert refusal(parse_default, document.encode()) == code
        else:
            parse_default(document.encode())


@pytest.mark.parametrize(
    ("inner", "code"),
    [
        ("", "MalformedXML"),
        ("<Rule/>", "MalformedXML"),
        ("<Rule/><Rule/>", "MalformedXML"),
        ("<Rule><BlockedEncryptionTypes/></Rule>", "NotImplemented"),
        (
            "<Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>AES256</SSEAlgorithm>"
            "</ApplyServerSideEncryptionByDefault><BucketKeyEnabled>true</BucketKeyEnabled></Rule>",
            "InvalidArgument",
        ),
    ],
)
def test_defaults_that_cannot_be(inner: str, code: str) -> None:
    document = f"<ServerSideEncryptionConfiguration>{inner}</ServerSideEncryptionConfiguration>"
    assert refusal(parse_default, document.encode()) == code


# -- keys -------------------------------------------------------------------------------------------


def test_a_write_that_asks_for_nothing_is_not_encrypted() -> None:
    assert encryption().fresh(headers(), bucket(), "k") is PLAIN
    assert encryption().of({}, "bucket", "k", headers()) is PLAIN


@pytest.mark.parametrize(("asked", "config"), [(AES, {}), ({}, {ENCRYPTION: "AES256"})])
def test_sse_s3_opens_without_being_asked(asked: dict[str, str], config: dict[str, str]) -> None:
    keys = encryption()
    made = keys.fresh(headers(asked), bucket(**config), "k")
    assert made.is_by_server and is_same(made, keys.of(made.extra, "bucket", "k", headers()))
    assert made.data_key not in repr(made).encode() and made.data_key not in made.extra[ENCRYPTION]["key"]
    assert keys.fresh(headers(AES), bucket(), "k").data_key != made.data_key
    assert made.etag("00" * 16) == "00" * 16


def test_sse_c_opens_with_its_key_alone() -> None:
    keys = encryption()
    made = keys.fresh(headers(customer()), bucket(**{ENCRYPTION: "AES256"}), "k")
    assert not made.is_by_server
    assert is_same(made, keys.of(made.extra, "bucket", "k", headers(customer())))
    assert refusal(keys.of, made.extra, "bucket", "k", headers()) == "InvalidRequest"
    assert refusal(keys.of, made.extra, "bucket", "k", headers(customer(OTHER))) == "InvalidRequest"
    of_source = headers(customer(prefix=OF_COPY_SOURCE))
    assert refusal(keys.of, made.extra, "bucket", "k", of_source) == "InvalidRequest"
    assert is_same(made, keys.of(made.extra, "bucket", "k", of_source, OF_COPY_SOURCE))
    assert KEY not in repr(made.extra).encode() and KEY not in made.extra[ENCRYPTION]["key"]


def test_a_key_for_what_has_none_is_refused() -> None:
    keys = encryption()
    made = keys.fresh(headers(AES), bucket(), "k")
    for extra in ({}, made.extra):
        assert refusal(keys.of, extra, "bucket", "k", headers(customer())) == "InvalidRequest"


def test_etag_of_sse_c_follows_from_key_and_bytes() -> None:
    keys, md5 = encryption(), hashlib.md5(b"abc").hexdigest()
    one, again = [keys.fresh(headers(customer()), bucket(), "k").etag(md5) for _ in range(2)]
    other = keys.fresh(headers(customer(OTHER)), bucket(), "k").etag(md5)
    assert one == again != md5 and other not in (one, md5) and len(bytes.fromhex(one)) == 16


def test_the_last_key_wraps_and_all_of_them_unwrap() -> None:
    old = encryption(FIRST).fresh(headers(AES), bucket(), "k")
    both = encryption(FIRST, SECOND)
    new = both.fresh(headers(AES), bucket(), "k")
    assert (old.extra[ENCRYPTION]["by"], new.extra[ENCRYPTION]["by"]) == ("first", "second")
    for made in (old, new):
        assert is_same(made, both.of(made.extra, "bucket", "k", headers()))
    moved = both.again(both.of(old.extra, "bucket", "k", headers()), "bucket", "copy")
    assert moved.extra[ENCRYPTION]["by"] == "second"
    assert is_same(old, encryption(SECOND).of(moved.extra, "bucket", "copy", headers()))
    with pytest.raises(ConfigError, match="first"):
        encryption(SECOND).of(old.extra, "bucket", "k", headers())


def test_a_wrapped_key_is_for_one_object() -> None:
    made = encryption().fresh(headers(AES), bucket(), "k")
    for name in (("bucket", "other"), ("other", "k")):
        with pytest.raises(CorruptObject):
            encryption().of(made.extra, *name, headers())
    as_customers = {ENCRYPTION: made.extra[ENCRYPTION] | {"kind": "C"}}
    with_its_key = headers(customer(FIRST[1]))
    assert refusal(encryption().of, as_customers, "bucket", "k", with_its_key) == "InvalidRequest"


def test_a_gateway_without_wrapping_keys_has_sse_c_alone() -> None:
    none = Encryption((), SystemRandomness())
    assert refusal(none.check_keys) == "NotImplemented"
    assert refusal(none.fresh, headers(AES), bucket(), "k") == "NotImplemented"
    assert refusal(none.fresh, headers(), bucket(**{ENCRYPTION: "AES256"}), "k") == "NotImplemented"
    assert none.fresh(headers(customer()), bucket(), "k").cipher is not None
