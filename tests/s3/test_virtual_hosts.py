"""Buckets by the name of the host: boto3 in virtual-host style."""

from __future__ import annotations

import io
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.s3.gateways import Gateway
from tests.s3.raw import Site, presign, sign

DOMAIN = "s3.test"


@pytest.fixture(scope="module")
def named() -> Iterator[Gateway]:
    """A gateway that has a domain."""
    with Gateway(domain=DOMAIN) as found:
        yield found


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """All names below the domain are this machine's."""
    ask = socket.getaddrinfo

    def answer(host: Any, *arguments: Any, **options: Any) -> Any:
        return ask("127.0.0.1" if str(host).endswith(DOMAIN) else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", answer)


@pytest.fixture(params=["virtual", "path"])
def client(named: Gateway, request: pytest.FixtureRequest) -> Any:
    style = {"addressing_style": request.param}
    return named.boto(url=f"http://{DOMAIN}:{named.port}", config={"s3": style})


def fetch(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_both_styles_mean_the_same(named: Gateway, client: Any) -> None:
    bucket = "by-" + client.meta.config.s3["addressing_style"]
    client.create_bucket(Bucket=bucket)
    client.put_object(Bucket=bucket, Key="a/b ü+", Body=b"value")
    client.upload_fileobj(io.BytesIO(b"file"), bucket, "file")
    client.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "a/b ü+"})
    assert client.get_object(Bucket=bucket, Key="copy")["Body"].read() == b"value"
    plain = named.boto()
    listed = plain.list_objects_v2(Bucket=bucket)["Contents"]
    assert [entry["Key"] for entry in listed] == ["a/b ü+", "copy", "file"]
    assert plain.get_object(Bucket=bucket, Key="a/b ü+")["Body"].read() == b"value"
    assert [entry["Name"] for entry in client.list_buckets()["Buckets"]].count(bucket) == 1
    client.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": entry["Key"]} for entry in listed]})
    client.delete_bucket(Bucket=bucket)


@pytest.mark.parametrize("version", ["s3v4", "s3"])
def test_urls_are_for_one_bucket(named: Gateway, version: str) -> None:
    config = {"s3": {"addressing_style": "virtual"}, "signature_version": version}
    client = named.boto(url=f"http://{DOMAIN}:{named.port}", config=config)
    for bucket in ("mine", "other"):
        named.boto().create_bucket(Bucket=bucket)
        named.boto().put_object(Bucket=bucket, Key="k", Body=bucket.encode())
    url = client.generate_presigned_url("get_object", Params={"Bucket": "mine", "Key": "k"})
    assert url.startswith(f"http://mine.{DOMAIN}:")
    assert fetch(url) == (200, b"mine")
    assert fetch(url.replace("//mine.", "//other."))[0] == 403
    assert fetch(url.replace("//mine.", "//").replace("/k?", "/other/k?"))[0] == 403
    for bucket in ("mine", "other"):
        named.boto().delete_object(Bucket=bucket, Key="k")
        named.boto().delete_bucket(Bucket=bucket)


def test_a_bucket_in_host_and_path_is_that_of_the_host(named: Gateway) -> None:
    bucket = "in-the-host"
    named.boto().create_bucket(Bucket=bucket)
    Site(named, bucket)
    host = f"{bucket}.{DOMAIN}:{named.port}"
    assert Site.exchange(named, sign(host, "GET", f"/{Site.KEY}")).body == Site.DATA
    assert Site.exchange(named, presign(host, "GET", f"/{Site.KEY}")).body == Site.DATA
    missing = Site.exchange(named, sign(host, "GET", f"/{bucket}/{Site.KEY}"))
    assert (missing.status, missing.code) == (404, "NoSuchKey")
    listed = Site.exchange(named, sign(host, "GET", "/?list-type=2"))
    assert f"<Name>{bucket}</Name>".encode() in listed.body


@pytest.mark.parametrize("host", ["a%2fb", "..", "xn--a", "a_b"])
def test_what_is_no_bucket_is_refused(named: Gateway, host: str) -> None:
    answer = Site.exchange(named, sign(f"{host}.{DOMAIN}", "GET", "/k"))
    assert (answer.status, answer.code) == (400, "InvalidBucketName")


def test_without_a_domain_a_host_is_no_bucket(gateway: Gateway, bucket: str) -> None:
    answer = Site.exchange(gateway, sign(f"{bucket}.{DOMAIN}", "GET", "/kept"))
    assert (answer.status, answer.code) == (404, "NoSuchBucket")
