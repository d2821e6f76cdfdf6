"""URLs of the S3 client of the benchmarks are what botocore makes."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from bench.targets.s3 import Presigner

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_urls_are_signed_as_botocore_signs_them(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: AT.replace(tzinfo=None))
    endpoint, path = "http://127.0.0.1:7480", "/bench/get/4096/00000003"
    request = AWSRequest(method, endpoint + path)
    S3SigV4QueryAuth(Credentials("KEY", "secret"), "s3", "us-east-1", expires=86400).add_auth(request)
    found = Presigner(endpoint, "KEY", "secret", "us-east-1", at=AT).url(method, path)
    assert str(found) == request.url
