"""Forms: read the same however they are cut, bounded, and whole or refused."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssastore.limits import FORM_BYTES_MAX, FORM_TAIL_BYTES_MAX
from ssastore.s3.errors import S3Error
from ssastore.s3.form import Fields, FormReader, Head, parse_boundary

BOUNDARY = b"b0unda-ry"


def part(name: str, value: bytes, more: str = "") -> bytes:
    head = f'Content-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode()
    return b"--" + BOUNDARY + b"\r\n" + head + value + b"\r\n"


END = b"--" + BOUNDARY + b"--\r\n"


async def cut(body: bytes, size: int) -> AsyncIterator[bytes]:
    for at in range(0, len(body), size):
        yield body[at : at + size]


async def read(body: bytes, size: int = 7) -> tuple[dict[str, str], Head, bytes]:
    reader = FormReader(cut(body, size), BOUNDARY)
    fields, head = await reader.fields()
    return fields, head, b"".join([piece async for piece in reader.file()])


DATA = b"bytes\r\n--b0unda-rx\r\n--b0unda"
FORM = (
    part("key", b"a/${filename}")
    + part("X-Amz-Meta-Ü", "wörld\r\nline".encode())
    + part("empty", b"")
    + part(
        "file",
        b"bytes\r\n--b0unda-rx\r\n--b0unda",
        '; filename="dir/\\"na;me\\".txt"\r\nContent-Type: text/plain',
    )
    + part("submit", b"after the file")
    + END
)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 13, 100, 10_000])
async def test_form_is_the_same_however_it_is_cut(size: int) -> None:
    fields, head, data = await read(FORM, size)
    assert fields == {"key": "a/${filename}", "x-amz-meta-ü": "wörld\r\nline", "empty": ""}
    assert head == Head("file", 'dir/"na;me".txt', "text/plain")
    assert data == DATA


@given(data=st.binary(max_size=300), size=st.integers(1, 40))
async def test_any_file_comes_through(data: bytes, size: int) -> None:
    body = part("key", b"k") + part("file", data) + END
    assert (await read(body, size))[2] == data


async def test_file_is_not_collected() -> None:
    data = bytes(1 << 20)
    reader = FormReader(cut(part("file", data) + END, 1000), BOUNDARY)
    await reader.fields()
    assert max([len(piece) async for piece in reader.file()]) < 2000


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "MalformedPOSTRequest"),
        (b"junk" + FORM, "MalformedPOSTRequest"),
        (FORM[:20], "MalformedPOSTRequest"),
        (FORM[:-30], "MalformedPOSTRequest"),
        (FORM.replace(b"--b0unda-ry--", b"--b0unda-ry!!"), "MalformedPOSTRequest"),
        (part("key", b"k") + END, "InvalidArgument"),
        (END, "InvalidArgument"),
        (part("key", b"k") + part("KEY", b"k") + part("file", b"") + END, "InvalidArgument"),
        (part("key", b"\xff") + part("file", b"") + END, "MalformedPOSTRequest"),
        (b"--b0unda-ry\r\nContent-Disposition: form-data\r\n\r\nx\r\n" + END, "MalformedPOSTRequest"),
        (b"--b0unda-ry\r\nContent-Type: text/plain\r\n\r\nx\r\n" + END, "MalformedPOSTRequest"),
        (part("key", b"k" * FORM_BYTES_MAX) + part("file", b"") + END, "MaxPostPreDataLengthExceeded"),
        (
            b"".join(part(f"x-ignore-{at}", b"i" * 900) for at in range(25)) + part("file", b"") + END,
            "MaxPostPreDataLengthExceeded",
        ),
        (b"\0" * FORM_BYTES_MAX * 2, "MaxPostPreDataLengthExceeded"),
        (
            part("file", b"x") + part("later", bytes(FORM_TAIL_BYTES_MAX)) + END,
            "MaxPostPreDataLengthExceeded",
        ),
        (part("file", b"x") + END + bytes(FORM_TAIL_BYTES_MAX + 1), "MalformedPOSTRequest"),
    ],
)
async def test_form_that_is_none(body: bytes, code: str) -> None:
    with pytest.raises(S3Error) as caught:
        await read(body, 1000)
    assert (caught.value.code, caught.value.status) == (code, 400)


@pytest.mark.parametrize(
    ("header", "boundary"),
    [
        ("multipart/form-data; boundary=abc", b"abc"),
        ('Multipart/Form-Data;boundary="a b"', b"a b"),
        ("multipart/form-data; charset=utf-8; boundary=----x", b"----x"),
    ],
)
def test_boundaries(header: str, boundary: bytes) -> None:
    assert parse_boundary(header) == boundary


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "PreconditionFailed"),
        ("application/x-www-form-urlencoded", "PreconditionFailed"),
        ("multipart/form-data", "MalformedPOSTRequest"),
        ("multipart/form-data; boundary=" + "b" * 71, "MalformedPOSTRequest"),
        ("multipart/form-data; boundary=ü", "MalformedPOSTRequest"),
    ],
)
def test_what_has_no_boundary(header: str | None, code: str) -> None:
    with pytest.raises(S3Error) as caught:
        parse_boundary(header)
    assert caught.value.code == code


def test_fields_are_found_in_any_case() -> None:
    fields = Fields({"Content-Type": "a/b"})
    assert fields["content-TYPE"] == "a/b" and "CONTENT-type" in fields and 5 not in fields
    assert fields.get("other") is None and list(fields) == ["content-type"] and len(fields) == 1
