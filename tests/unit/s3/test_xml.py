"""XML: botocore reads what we write, we read what boto3 writes, and nothing dangerous is read at all."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from xml.etree import ElementTree

import pytest
from botocore.handlers import decode_list_object, decode_list_object_v2
from botocore.parsers import create_parser
from hypothesis import given
from hypothesis import strategies as st

from ssastore.core.demand import NOTHING, Demand
from ssastore.core.objects import Listed
from ssastore.limits import XML_BYTES_MAX, XML_DEPTH_MAX, XML_ELEMENTS_MAX
from ssastore.s3 import xml, xmlread, xmltext
from ssastore.s3.errors import S3Error
from ssastore.s3.xmlread import read_tree

MODIFIED_MS = 1767323045678
MODIFIED = datetime(2026, 1, 2, 3, 4, 5, 678000, UTC)
ODD_KEYS = ["a b/c+d%", "<&>\"'", "\r\n\t", "é🐈", "]]>", "a~*()!"]
ILLEGAL_KEYS = ["a\x01b", "\x1f", "\ufffe", "\x0b\x0c"]


@pytest.fixture(scope="session")
def parsed(boto: Callable[..., Any]) -> Callable[..., Any]:
    """``parsed(operation, document)``: what botocore makes of an answer."""
    model = boto().meta.service_model
    parser = create_parser("rest-xml")

    def parse(operation: str, document: bytes, status: int = 200) -> Any:
        response = {"body": document, "headers": {}, "status_code": status}
        return parser.parse(response, model.operation_model(operation).output_shape)

    return parse


def refusal(call: Callable[..., object], *arguments: object) -> S3Error:
    with pytest.raises(S3Error) as caught:
        call(*arguments)
    return caught.value


# -- writing ----------------------------------------------------------------------------------------


def test_errors_carry_code_message_and_fields(parsed: Callable[..., Any]) -> None:
    failure = S3Error("NoSuchKey", "no <such> key", Key="a&b\x01")
    document = xml.error(failure, resource="/photos/a&b", request_id="17")
    error = parsed("GetObject", document, 404)["Error"]
    assert error["Code"] == "NoSuchKey"
    assert error["Message"] == "no <such> key"
    assert error["Key"] == "a&b\ufffd"
    assert error["Resource"] == "/photos/a&b"
    assert b"<RequestId>17</RequestId>" in document


def test_buckets_are_listed(parsed: Callable[..., Any]) -> None:
    answer = parsed("ListBuckets", xml.list_buckets("me", [("photos", MODIFIED_MS), ("b", 0)]))
    assert [bucket["Name"] for bucket in answer["Buckets"]] == ["photos", "b"]
    assert answer["Buckets"][0]["CreationDate"] == MODIFIED
    assert answer["Owner"]["ID"] == "me"
    assert parsed("ListBuckets", xml.list_buckets("me", []))["Buckets"] == []


def listed(key: str) -> Listed:
    return Listed(key, MODIFIED_MS, "0123-2", 5)


@pytest.mark.parametrize("encoding_type", [None, "url"])
def test_listings_give_keys_back(parsed: Callable[..., Any], encoding_type: str | None) -> None:
    keys = ODD_KEYS if encoding_type is None else ODD_KEYS + ILLEGAL_KEYS
    document = xml.list_objects_v2(
        bucket="photos",
        prefix="<p ",
        delimiter="/ ",
        max_keys=7,
        objects=[listed(key) for key in keys],
        common_prefixes=["x y/"],
        encoding_type=encoding_type,
        start_after="a b",
        continuation_token="t<",
        next_token="n",
        owner="me",
    )
    answer = parsed("ListObjectsV2", document)
    if encoding_type:
        answer = decoded(answer)
    assert [entry["Key"] for entry in answer["Contents"]] == keys
    entry = answer["Contents"][0]
    assert (entry["ETag"], entry["Size"], entry["LastModified"]) == ('"0123-2"', 5, MODIFIED)
    assert (entry["StorageClass"], entry["Owner"]["ID"]) == ("STANDARD", "me")
    assert answer["CommonPrefixes"] == [{"Prefix": "x y/"}]
    assert (answer["Prefix"], answer["Delimiter"], answer["StartAfter"]) == ("<p ", "/ ", "a b")
    assert (answer["KeyCount"], answer["MaxKeys"], answer["IsTruncated"]) == (len(keys) + 1, 7, True)
    assert (answer["ContinuationToken"], answer["NextContinuationToken"]) == ("t<", "n")
    assert answer.get("EncodingType") == encoding_type


def decoded(answer: Any) -> Any:
    """``answer`` as botocore decodes it for callers."""
    decode = decode_list_object if "Marker" in answer else decode_list_object_v2
    decode(answer, {"encoding_type_auto_set": True})
    return answer


def test_the_last_page_has_no_token(parsed: Callable[..., Any]) -> None:
    document = xml.list_objects_v2(bucket="photos", prefix="", max_keys=1000, objects=[])
    answer = parsed("ListObjectsV2", document)
    assert (answer["IsTruncated"], answer["KeyCount"], answer["Prefix"]) == (False, 0, "")
    assert not {"NextContinuationToken", "Contents", "Delimiter", "StartAfter"} & set(answer)


def test_url_encoding_keeps_slashes_and_encodes_blank_and_plus() -> None:
    """What the public S3 suite expects: plus and blank must both survive any decoder."""
    document = xml.list_objects_v2(
        bucket="b", prefix="", max_keys=1, objects=[listed("asdf+b/c d")], encoding_type="url"
    )
    assert b"<Key>asdf%2Bb/c%20d</Key>" in document


def test_listings_of_version_one(parsed: Callable[..., Any]) -> None:
    document = xml.list_objects_v1(
        bucket="photos",
        prefix="p",
        marker="m ",
        max_keys=1,
        is_truncated=True,
        objects=[listed("a b")],
        owner="me",
        common_prefixes=["c/"],
        delimiter="/",
        encoding_type="url",
        next_marker="n m",
    )
    answer = decoded(parsed("ListObjects", document))
    assert (answer["Marker"], answer["NextMarker"], answer["IsTruncated"]) == ("m ", "n m", True)
    assert answer["Contents"][0]["Key"] == "a b"
    assert answer["Contents"][0]["Owner"]["ID"] == "me"
    assert answer["CommonPrefixes"] == [{"Prefix": "c/"}]


@pytest.mark.parametrize(("region", "constraint"), [("us-east-1", None), ("eu-west-1", "eu-west-1")])
def test_the_location_of_the_first_region_is_empty(
    parsed: Callable[..., Any], region: str, constraint: str | None
) -> None:
    document = xml.location(region)
    assert (ElementTree.fromstring(document).text or None) == constraint


def test_answers_to_copies_and_uploads(parsed: Callable[..., Any]) -> None:
    answer = parsed("CopyObject", xml.copied_object("e", MODIFIED_MS, {"CRC32": "AAAAAA=="}))
    assert answer["CopyObjectResult"] == {
        "ETag": '"e"',
        "LastModified": MODIFIED,
        "ChecksumCRC32": "AAAAAA==",
    }
    answer = parsed("UploadPartCopy", xml.copied_part("e", MODIFIED_MS, {}))
    assert answer["CopyPartResult"] == {"ETag": '"e"', "LastModified": MODIFIED}
    answer = parsed("CreateMultipartUpload", xml.initiated_upload(bucket="b", key="<k>", upload_id="u"))
    assert (answer["Bucket"], answer["Key"], answer["UploadId"]) == ("b", "<k>", "u")
    document = xml.completed_upload(
        url="http://h/b/k",
        bucket="b",
        key="k",
        etag="e-2",
        checksum={"SHA1": "c-2"},
        checksum_type="COMPOSITE",
    )
    answer = parsed("CompleteMultipartUpload", document)
    assert (answer["Location"], answer["Key"], answer["ETag"]) == ("http://h/b/k", "k", '"e-2"')


def test_deletes_report_each_key(parsed: Callable[..., Any]) -> None:
    failure = xml.DeleteFailure("c", "v", S3Error("AccessDenied"))
    deleted = [xml.DeletedObject("a&", None), xml.DeletedObject("b", "v1"), xml.DeletedObject("d", None, "m")]
    answer = parsed("DeleteObjects", xml.delete_result(deleted, [failure]))
    assert answer["Deleted"] == [
        {"Key": "a&"},
        {"Key": "b", "VersionId": "v1"},
        {"Key": "d", "DeleteMarker": True, "DeleteMarkerVersionId": "m"},
    ]
    expected = {"Key": "c", "VersionId": "v", "Code": "AccessDenied", "Message": "Access Denied"}
    assert answer["Errors"] == [expected]
    assert set(parsed("DeleteObjects", xml.delete_result([], []))) == {"ResponseMetadata"}


def test_parts_are_listed(parsed: Callable[..., Any]) -> None:
    document = xml.list_parts(
        bucket="b",
        key="k k",
        upload_id="u",
        owner="me",
        initiator="you",
        part_number_marker=2,
        max_parts=2,
        is_truncated=True,
        parts=[xml.ListedPart(3, MODIFIED_MS, "e3", 5), xml.ListedPart(7, MODIFIED_MS, "e7", 6)],
    )
    answer = parsed("ListParts", document)
    assert [(part["PartNumber"], part["ETag"], part["Size"]) for part in answer["Parts"]] == [
        (3, '"e3"', 5),
        (7, '"e7"', 6),
    ]
    assert (answer["PartNumberMarker"], answer["NextPartNumberMarker"]) == (2, 7)
    assert (answer["Key"], answer["IsTruncated"], answer["Initiator"]["ID"]) == ("k k", True, "you")


def test_uploads_are_listed(parsed: Callable[..., Any]) -> None:
    document = xml.list_uploads(
        bucket="b",
        prefix="p",
        key_marker="m",
        upload_id_marker="u0",
        max_uploads=1,
        uploads=[xml.ListedUpload("k k", "u1", MODIFIED_MS, "me", "you", ("SHA1", "COMPOSITE"))],
        common_prefixes=["c/"],
        delimiter="/",
        next_marker=("k k", "u1"),
    )
    answer = parsed("ListMultipartUploads", document)
    upload = answer["Uploads"][0]
    assert (upload["Key"], upload["UploadId"], upload["Initiated"]) == ("k k", "u1", MODIFIED)
    assert (upload["Owner"]["ID"], upload["Initiator"]["ID"]) == ("me", "you")
    assert upload["ChecksumAlgorithm"] == "SHA1"
    assert (answer["NextKeyMarker"], answer["NextUploadIdMarker"]) == ("k k", "u1")
    assert (answer["KeyMarker"], answer["IsTruncated"]) == ("m", True)
    last = parsed(
        "ListMultipartUploads",
        xml.list_uploads(
            bucket="b", prefix="", key_marker="", upload_id_marker="", max_uploads=1, uploads=[]
        ),
    )
    assert last["IsTruncated"] is False
    assert "NextKeyMarker" not in last


@given(st.text(max_size=50))
def test_any_key_leaves_the_document_well_formed(key: str) -> None:
    """Characters that XML cannot carry become U+FFFD; all others survive."""
    document = xml.initiated_upload(bucket="b", key=key, upload_id="u")
    namespace = "{http://s3.amazonaws.com/doc/2006-03-01/}"
    read = ElementTree.fromstring(document).findtext(f"{namespace}Key")
    illegal = "[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]"
    assert read == re.sub(illegal, "\ufffd", key)


def test_times_have_milliseconds() -> None:
    assert xmltext.iso8601(MODIFIED_MS) == "2026-01-02T03:04:05.678Z"
    assert xmltext.iso8601(0) == "1970-01-01T00:00:00.000Z"


def test_only_url_is_an_encoding_type() -> None:
    assert (xml.check_encoding_type(None), xml.check_encoding_type("url")) == (None, "url")
    assert refusal(xml.check_encoding_type, "base64").code == "InvalidArgument"


# -- reading ----------------------------------------------------------------------------------------


def test_what_boto3_writes_is_read(capture: Callable[..., Any]) -> None:
    parts = [
        {"PartNumber": number, "ETag": f'"e{number}"', "ChecksumCRC32C": "AAAAAA=="}
        for number in (1, 2, 10_000)
    ]
    sent = capture(
        "complete_multipart_upload", Bucket="b-1", Key="k", UploadId="u", MultipartUpload={"Parts": parts}
    )
    assert xmlread.parse_complete_upload(sent.body) == [
        xmlread.NamedPart(number, f"e{number}", {"CRC32C": "AAAAAA=="}) for number in (1, 2, 10_000)
    ]

    entries = [{"Key": key} for key in ODD_KEYS] + [
        {
            "Key": "k",
            "VersionId": "v",
            "ETag": '"e"',
            "LastModifiedTime": datetime(2015, 11, 29, 23, tzinfo=UTC),
            "Size": 7,
        }
    ]
    sent = capture("delete_objects", Bucket="b-1", Delete={"Objects": entries, "Quiet": True})
    is_quiet, objects = xmlread.parse_delete(sent.body)
    assert is_quiet
    assert objects == [
        *(xmlread.DeleteEntry(key, None, NOTHING) for key in ODD_KEYS),
        xmlread.DeleteEntry("k", "v", Demand("e", modified_s=1448838000, size=7)),
    ]

    configuration = {"LocationConstraint": "eu-west-1"}
    sent = capture("create_bucket", Bucket="b-1", CreateBucketConfiguration=configuration)
    assert xmlread.parse_bucket_configuration(sent.body) == "eu-west-1"


def complete(*parts: str) -> bytes:
    return f"<CompleteMultipartUpload>{''.join(parts)}</CompleteMultipartUpload>".encode()


def part(number: object, etag: str = "e") -> str:
    return f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"


@pytest.mark.parametrize(
    "body",
    [
        complete(part(1, "&quot;e&quot;")),
        complete(part(1, '"e"')),
        complete("\n  <Part>\n<ETag> e </ETag>\n<PartNumber> 1 </PartNumber>\n</Part>\n"),
        complete("<Other><Part/></Other><Part><Size>5</Size><PartNumber>1</PartNumber><ETag>e</ETag></Part>"),
        b'<?xml version="1.0" encoding="UTF-8"?>' + complete(part(1)),
        b'<?xml version="1.0"?><!-- a --><?b c?>' + complete(part(1)),
        b"\xef\xbb\xbf" + complete(part(1)),
        (
            b'<s:CompleteMultipartUpload xmlns:s="http://s3.amazonaws.com/doc/2006-03-01/"><s:Part>'
            b"<s:PartNumber>1</s:PartNumber><s:ETag>e</s:ETag></s:Part></s:CompleteMultipartUpload>"
        ),
    ],
)
def test_spellings_of_one_part(body: bytes) -> None:
    assert xmlread.parse_complete_upload(body) == [xmlread.NamedPart(1, "e", {})]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (complete(), "MalformedXML"),
        (complete("<Part/>"), "MalformedXML"),
        (complete("<Part><PartNumber>1</PartNumber></Part>"), "MalformedXML"),
        (complete("<Part><ETag>e</ETag></Part>"), "MalformedXML"),
        (complete(part("1</PartNumber><PartNumber>2")), "MalformedXML"),
        (complete(part(1, "a<b/>c")), "MalformedXML"),
        (complete(part(0)), "InvalidArgument"),
        (complete(part(10_001)), "InvalidArgument"),
        (complete(part("1e3")), "InvalidArgument"),
        (complete(part(-1)), "InvalidArgument"),
        (complete(part("")), "InvalidArgument"),
        (complete(part(2), part(1)), "InvalidPartOrder"),
        (complete(part(1), part(1)), "InvalidPartOrder"),
        (complete(*(part(number) for number in range(1, 10_002))), "InvalidArgument"),
    ],
)
def test_lists_of_parts_that_cannot_be_completed(body: bytes, code: str) -> None:
    error = refusal(xmlread.parse_complete_upload, body)
    assert (error.code, error.status) == (code, 400)


def test_all_ten_thousand_parts_can_be_completed() -> None:
    row = "<Part><PartNumber>{}</PartNumber><ETag>{}</ETag><ChecksumSHA256>{}</ChecksumSHA256></Part>"
    etag = f"&quot;{'e' * 32}&quot;"
    body = complete(*(row.format(number, etag, "c" * 44) for number in range(1, 10_001)))
    assert len(body) < XML_BYTES_MAX
    assert len(xmlread.parse_complete_upload(body)) == 10_000


def delete(*entries: str, quiet: str = "") -> bytes:
    return f"<Delete>{quiet}{''.join(f'<Object>{entry}</Object>' for entry in entries)}</Delete>".encode()


def test_deletes_are_read_as_they_are_written() -> None:
    assert xmlread.parse_delete(delete("<Key> a </Key>")) == (
        False,
        [xmlread.DeleteEntry(" a ", None, NOTHING)],
    )
    assert xmlread.parse_delete(delete("<Key>a</Key><VersionId/>", quiet="<Quiet>FALSE</Quiet>"))[0] is False
    same = xmlread.parse_delete(delete(*["<Key>a</Key>"] * 1000, quiet="<Quiet>true</Quiet>"))
    assert same == (True, [xmlread.DeleteEntry("a", None, NOTHING)] * 1000)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (delete(), "MalformedXML"),
        (delete(*["<Key>a</Key>"] * 1001), "MalformedXML"),
        (delete("<Key/>"), "MalformedXML"),
        (delete("<VersionId>v</VersionId>"), "MalformedXML"),
        (delete("<Key>a</Key><Key>b</Key>"), "MalformedXML"),
        (delete("<Key>a<x>b</x>c</Key>"), "MalformedXML"),
        (delete("<Key>a</Key><ETag>e<x/></ETag>"), "MalformedXML"),
        (delete("<Key>a&#1;</Key>"), "MalformedXML"),
        (delete("<Key>a</Key>", quiet="<Quiet>maybe</Quiet>"), "MalformedXML"),
        (delete("<Key>a</Key><Size>-5</Size>"), "InvalidArgument"),
        (delete("<Key>a</Key><LastModifiedTime>x</LastModifiedTime>"), "InvalidArgument"),
    ],
)
def test_deletes_that_cannot_be_meant(body: bytes, code: str) -> None:
    assert refusal(xmlread.parse_delete, body).code == code


@pytest.mark.parametrize(
    ("body", "location"),
    [
        (b"", None),
        (b" \n", None),
        (b"<CreateBucketConfiguration/>", None),
        (b"<CreateBucketConfiguration><LocationConstraint/></CreateBucketConfiguration>", None),
        (
            b"<CreateBucketConfiguration><LocationConstraint>x</LocationConstraint></CreateBucketConfiguration>",
            "x",
        ),
        (
            b"<CreateBucketConfiguration><Tags><Tag><Key>k</Key></Tag></Tags></CreateBucketConfiguration>",
            None,
        ),
    ],
)
def test_bucket_configurations(body: bytes, location: str | None) -> None:
    assert xmlread.parse_bucket_configuration(body) == location


ENTITIES = b"".join(b'<!ENTITY l%d "%b">' % (at, b"&l%d;" % (at - 1) * 10) for at in range(1, 10))
GOOD = complete(part(1))


@pytest.mark.parametrize(
    "body",
    [
        b'<!DOCTYPE a SYSTEM "file:///etc/passwd">' + GOOD,
        b'<!DOCTYPE a [<!ENTITY x SYSTEM "http://127.0.0.1/">]>' + GOOD,
        b'<!DOCTYPE a PUBLIC "-//W3C//DTD" "http://127.0.0.1/x.dtd">' + GOOD,
        b'<!DOCTYPE a [<!ENTITY l0 "lol">' + ENTITIES + b"]>" + complete(part(1, "&l9;")),
        b'<!DOCTYPE a [<!ENTITY x "' + b"x" * 50_000 + b'">]>' + complete(part(1, "&x;" * 10_000)),
        b"<!DOCTYPE a>" + GOOD,
        complete(part(1, "&x;")),
        GOOD.decode().encode("utf-16"),
        GOOD.decode().encode("utf-16-le"),
        GOOD.decode().encode("utf-32"),
        b'<?xml version="1.0" encoding="utf-7"?>' + GOOD,
        b'<?xml version="1.0" encoding="iso-8859-1"?>' + GOOD,
        b'<?xml version="1.0" encoding="utf-16"?>' + GOOD,
        b'<?xml version="1.1"?>' + complete(part(1, "&#1;")),
        complete(part(1, "\xff")).replace(b"\xc3\xbf", b"\xff"),
        complete(part(1), "<a>" * 10_000 + "</a>" * 10_000),
        complete(part(1), "<a>" * XML_DEPTH_MAX + "</a>" * XML_DEPTH_MAX),
        complete(part(1), "<x>" + "<a/>" * 100_000 + "</x>"),
        complete(part(1), " " * XML_BYTES_MAX),
        complete(part(1), "<a " + " ".join(f"a{number}=''" for number in range(100_000)) + "/>"),
        GOOD.replace(b"CompleteMultipartUpload", b"Other"),
        GOOD + GOOD,
        GOOD[:-1],
        GOOD + b"x",
        b"<",
        b"{}",
        b"",
        b"\0" + GOOD,
    ],
)
def test_dangerous_or_broken_documents_are_refused(body: bytes) -> None:
    error = refusal(xmlread.parse_complete_upload, body)
    assert (error.code, error.status) == ("MalformedXML", 400)


@given(st.binary(max_size=200))
def test_noise_is_malformed_and_nothing_worse(noise: bytes) -> None:
    assert refusal(xmlread.parse_delete, noise).code == "MalformedXML"
    for at in range(0, len(GOOD), 7):
        try:
            xmlread.parse_complete_upload(GOOD[:at] + noise + GOOD[at:])
        except S3Error as error:
            assert error.status == 400


# -- trees ------------------------------------------------------------------------------------------


def test_a_configuration_is_a_tree() -> None:
    body = (
        b'<r:Rules xmlns:r="urn:x"><Rule kind="a"><Id> one </Id><On>1</On></Rule><Rule><Id/></Rule></r:Rules>'
    )
    tree = read_tree(body, "Rules")
    first, second = tree.all("Rule")
    assert (first.value("Id"), first.value("On"), second.value("Id"), second.value("On")) == (
        "one",
        "1",
        "",
        None,
    )
    assert first.attributes == {"kind": "a"} and tree.one("Other") is None
    with pytest.raises(S3Error, match="given twice"):
        tree.one("Rule")
    with pytest.raises(S3Error, match="must be text"):
        read_tree(b"<R><A><B/></A></R>", "R").value("A")


@pytest.mark.parametrize(
    "body",
    [
        b"", b"<Other/>", b"<R>", b"<R></R><R/>", b"<!DOCTYPE R><R/>", b"<R>" * 40 + b"</R>" * 40,
        b"<R>\xff</R>", "<R/>".encode("utf-16"), b"<R>" + b"<A/>" * XML_ELEMENTS_MAX + b"</R>",
    ],
)  # fmt: skip
def test_no_tree_of_what_is_malformed(body: bytes) -> None:
    with pytest.raises(S3Error) as caught:
        read_tree(body, "R")
    assert caught.value.code == "MalformedXML"
