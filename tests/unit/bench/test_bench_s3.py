"""The S3 client of the benchmarks: its URLs are what botocore makes."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from aiohttp import web
from aiohttp.test_utils import RawTestServer
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from bench.targets.s3 import Presigner, open_client

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize("key", ["KEY", "bench:bench"])
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_urls_are_signed_as_botocore_signs_them(
    method: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: AT.replace(tzinfo=None))
    endpoint, path = "http://127.0.0.1:7480", "/bench/get/4096/00000003"
    request = AWSRequest(method, endpoint + path)
    S3SigV4QueryAuth(Credentials(key, "secret"), "s3", "us-east-1", expires=86400).add_auth(request)
    found = Presigner(endpoint, key, "secret", "us-east-1", at=AT).url(method, path)
    assert str(found) == request.url


def test_parameters_of_a_listing_are_signed(monkeypatch: pytest.MonkeyPatch) -> None:
    """botocore puts them first and sorts them for its signature; the order of a URL means nothing."""
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: AT.replace(tzinfo=None))
    endpoint, parameters = (
        "http://127.0.0.1:7480",
        "&list-type=2&max-keys=3&prefix=get%2F8%2F&start-after=get%2F8%2F1",
    )
    request = AWSRequest("GET", f"{endpoint}/bench?{parameters[1:]}")
    S3SigV4QueryAuth(Credentials("KEY", "secret"), "s3", "us-east-1", expires=86400).add_auth(request)
    found = Presigner(endpoint, "KEY", "secret", "us-east-1", at=AT).url("GET", "/bench", parameters)
    assert sorted(found.raw_query_string.split("&")) == sorted(request.url.partition("?")[2].split("&"))


async def test_client_leaves_nothing_behind_where_it_is_a_guest() -> None:
    """Method: an endpoint that notes what it is asked."""
    asked: list[str] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        asked.append(f"{request.method} {request.path.partition('/')[2].partition('/')[2]}")
        document = "<ListBucketResult><Contents><Key>a</Key></Contents><Contents><Key>b</Key></Contents>"
        return web.Response(text=document, status=200)

    async with RawTestServer(answer) as server:
        settings = {"endpoint": str(server.make_url("")).rstrip("/"), "inflight": 2, "region": "r"}
        settings |= {"access_key": "KEY", "secret": "secret", "is_kept": False}
        client = await open_client(settings)
        await client.put("a", b"x")
        await client.put("b", b"x")
        assert await client.page("", "", 2) == ["a", "b"]
        await client.close()
    assert asked[:4] == ["PUT ", "PUT a", "PUT b", "GET "]
    assert sorted(asked[4:6]) == ["DELETE a", "DELETE b"]
    assert asked[6:] == ["DELETE "]
