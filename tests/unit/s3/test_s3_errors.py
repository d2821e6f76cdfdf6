"""Answers to S3 clients: every error of the library has a row, and the texts are safe to send."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from ssastore import errors
from ssastore.s3 import errors as s3_errors
from ssastore.s3.errors import CODES, S3Error, from_store_error

STORE_ERRORS = [
    kind for kind in vars(errors).values() if inspect.isclass(kind) and issubclass(kind, errors.SsaStoreError)
]


@pytest.mark.parametrize("kind", STORE_ERRORS)
def test_every_error_of_the_library_has_a_row_of_its_own(kind: type[errors.SsaStoreError]) -> None:
    assert kind in s3_errors._ROWS
    answer = from_store_error(kind("at fd00::1"))
    assert answer.status == CODES[answer.code][0]


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (errors.ObjectNotFound(), "NoSuchKey", 404),
        (errors.BucketNotFound(), "NoSuchBucket", 404),
        (errors.UploadNotFound(), "NoSuchUpload", 404),
        (errors.PreconditionFailed(), "PreconditionFailed", 412),
        (errors.BucketAlreadyExists(), "BucketAlreadyOwnedByYou", 409),
        (errors.BucketNotEmpty(), "BucketNotEmpty", 409),
        (errors.RangeNotSatisfiable(), "InvalidRange", 416),
        (errors.InvalidKey(), "KeyTooLongError", 400),
        (errors.InvalidBucketName(), "InvalidBucketName", 400),
        (errors.ObjectTooLarge(), "EntityTooLarge", 400),
        (errors.AccessDenied(), "AccessDenied", 403),
        (errors.StoreFull(), "InsufficientStorage", 507),
        (errors.Unavailable(), "ServiceUnavailable", 503),
        (errors.Overloaded(), "SlowDown", 503),
        (errors.OutcomeUnknown(), "InternalError", 500),
        (errors.CorruptObject(), "InternalError", 500),
    ],
)
def test_clients_get_the_code_they_act_on(error: errors.SsaStoreError, code: str, status: int) -> None:
    answer = from_store_error(error)
    assert (answer.code, answer.status) == (code, status)


def test_a_class_without_a_row_gets_the_row_of_its_parent() -> None:
    class Unheard(errors.PreconditionFailed):
        pass

    assert from_store_error(Unheard()).code == "PreconditionFailed"


@pytest.mark.parametrize(("retry_after_ms", "header"), [(0, "1"), (1, "1"), (1000, "1"), (1001, "2")])
def test_try_later_says_when_in_whole_seconds(retry_after_ms: int, header: str) -> None:
    answer = from_store_error(errors.Unavailable("", retry_after_ms))
    assert answer.headers == {"Retry-After": header}
    assert from_store_error(errors.StoreFull()).headers == {}


TOLD = {
    errors.RequestError,
    errors.InvalidPart,
    errors.InvalidPartOrder,
    errors.PartTooSmall,
    errors.Unavailable,
    errors.NoMajority,
    errors.Unproved,
}


@pytest.mark.parametrize("kind", STORE_ERRORS)
def test_only_texts_about_the_request_reach_the_client(kind: type[errors.SsaStoreError]) -> None:
    told = "fd00::1" in from_store_error(kind("at fd00::1")).message
    assert told == (kind in TOLD)


def test_a_raiser_can_say_more_than_the_table() -> None:
    error = S3Error("InvalidRange", "no", status=400, headers={"a": "b"}, ActualObjectSize=5)
    assert (error.status, error.message, error.headers) == (400, "no", {"a": "b"})
    assert error.fields == {"ActualObjectSize": "5"}
    assert S3Error("InvalidRange").status == 416
    assert str(S3Error("NoSuchKey")).startswith("404 NoSuchKey")


def test_every_code_that_the_package_raises_is_in_the_table() -> None:
    sources = Path(s3_errors.__file__).parent.glob("*.py")
    used = {code for path in sources for code in re.findall(r'S3Error\(\s*"(\w+)"', path.read_text())}
    assert "SignatureDoesNotMatch" in used
    assert used <= set(CODES)
