"""Tags of objects and buckets: S3's rules for them, and the two forms that they come in. Pure.

A header or form field has them as a query string, ``a=1&b``; a body as

    <Tagging><TagSet><Tag><Key>a</Key><Value>1</Value></Tag>...</TagSet></Tagging>

They are kept, and given back, in order of their keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ssastore.limits import BUCKET_TAGS_MAX, OBJECT_TAGS_MAX, TAG_KEY_CHARACTERS_MAX, TAG_VALUE_CHARACTERS_MAX
from ssastore.s3.errors import S3Error
from ssastore.s3.names import parse_query
from ssastore.s3.xmlread import read_tree

_MARKS = frozenset("+-=._:/@")
_RESERVED = "aws:"


def parse_tag_header(value: str) -> dict[str, str]:
    """The tags of an ``x-amz-tagging``. S3Error InvalidArgument, InvalidTag, BadRequest."""
    try:
        pairs = parse_query(value.encode("utf-8", "surrogateescape"))
    except S3Error:
        raise S3Error(
            "InvalidArgument",
            "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters "
            "without tag name duplicates.",
            ArgumentName="x-amz-tagging",
            ArgumentValue=value[:64],
        ) from None
    return _checked(pairs.items(), OBJECT_TAGS_MAX)


def tags_of_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The tags that an upload gives its object. S3Error as ``parse_tag_header``."""
    value = headers.get("x-amz-tagging")
    return {} if value is None else parse_tag_header(value)


def parse_tagging(body: bytes, *, of_bucket: bool = False) -> dict[str, str]:
    """The tags of a Tagging document. S3Error MalformedXML, InvalidTag, BadRequest."""
    found = read_tree(body, "Tagging").one("TagSet")
    if found is None:
        raise S3Error("MalformedXML", "A Tagging needs a TagSet.")
    pairs: list[tuple[str, str]] = []
    for tag in found.children:
        key, value = tag.one("Key"), tag.one("Value")
        if tag.name != "Tag" or key is None or value is None or key.children or value.children:
            raise S3Error("MalformedXML", "A Tag needs Key and Value.")
        pairs.append((key.text, value.text))
    return _checked(pairs, BUCKET_TAGS_MAX if of_bucket else OBJECT_TAGS_MAX)


def _checked(pairs: Iterable[tuple[str, str]], most: int) -> dict[str, str]:
    tags: dict[str, str] = {}
    for key, value in pairs:
        if not 0 < len(key) <= TAG_KEY_CHARACTERS_MAX or not _is_text(key):
            raise S3Error("InvalidTag", "The TagKey you have provided is invalid", TagKey=key[:128])
        if len(value) > TAG_VALUE_CHARACTERS_MAX or not _is_text(value):
            raise S3Error("InvalidTag", "The TagValue you have provided is invalid", TagKey=key)
        if key.startswith(_RESERVED):
            raise S3Error("InvalidTag", "System tags cannot be added or updated by requester", TagKey=key)
        if key in tags:
            raise S3Error("InvalidTag", "Cannot provide multiple Tags with the same key", TagKey=key)
        tags[key] = value
    if len(tags) > most:
        raise S3Error("InvalidTag", f"There cannot be more than {most} tags.")
    return dict(sorted(tags.items()))


def _is_text(text: str) -> bool:
    """Letters, digits and spaces of any script, and a few marks: what S3 takes."""
    return all(c in _MARKS or c.isspace() or c.isalnum() or not c.isascii() for c in text)
