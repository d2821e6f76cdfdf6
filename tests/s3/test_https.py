"""S3 by HTTPS: a client of its own, one that comes without, and a certificate that is renewed meanwhile."""

from __future__ import annotations

import http.client
import os
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from ssastore.s3.serving import Serving
from ssastore.transport.tls import Tls
from tests.authorities import Signer
from tests.s3.gateways import ACCESS_KEY, REGION, SECRET_KEY, Gateway


class Site:
    """One more port of the gateway, which speaks HTTPS."""

    def __init__(self, gateway: Gateway, signer: Signer) -> None:
        self.gateway, self.signer = gateway, signer
        self.files = signer.files("localhost", "127.0.0.1")
        self.tls = Tls(self.files)
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        self.serving = gateway.run(self._begin(listener))

    async def _begin(self, listener: socket.socket) -> Serving:
        serving = Serving(self.gateway.server, tls=self.tls)
        await serving.begin(listener)
        return serving

    def ask(self, wire: http.client.HTTPSConnection) -> int:
        wire.request("GET", "/")
        response = wire.getresponse()
        response.read()
        return response.status


@pytest.fixture(scope="module")
def site(gateway: Gateway, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(gateway, Signer(tmp_path_factory.mktemp("https") / "tls"))
    yield made
    gateway.run(made.serving.close())


def test_boto3_speaks_https(site: Site, bucket: str) -> None:
    s3: Any = boto3.client(
        "s3",
        endpoint_url=f"https://localhost:{site.port}",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        region_name=REGION,
        verify=site.signer.ca,
    )
    for size in (0, 1000, 9_000_000):
        body = os.urandom(size)
        s3.put_object(Bucket=bucket, Key="k", Body=body)
        assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == body
    s3.close()


def test_who_comes_without_tls_is_told_so(site: Site) -> None:
    wire = http.client.HTTPConnection("127.0.0.1", site.port, timeout=5)
    wire.request("PUT", "/b/k", body=b"x" * 200_000)
    response = wire.getresponse()
    assert response.status == 400
    assert b"<Code>InvalidRequest</Code><Message>This port speaks HTTPS" in response.read()
    wire.close()


def test_a_renewed_certificate_ends_no_connection(site: Site) -> None:
    context = ssl.create_default_context(cafile=site.signer.ca)
    first = http.client.HTTPSConnection("127.0.0.1", site.port, context=context, timeout=5)
    assert site.ask(first) == 403  # Without a signature.
    shown = first.sock.getpeercert(True)
    site.signer.files("localhost", "127.0.0.1")

    async def look() -> None:
        site.tls.watch.look()

    site.gateway.run(look())
    assert site.ask(first) == 403 and first.sock.getpeercert(True) == shown
    second = http.client.HTTPSConnection("127.0.0.1", site.port, context=context, timeout=5)
    assert site.ask(second) == 403 and second.sock.getpeercert(True) != shown
    first.close()
    second.close()


def test_an_answer_of_another_host_is_refused(site: Site) -> None:
    context = ssl.create_default_context(cafile=site.signer.ca)
    sock = socket.create_connection(("127.0.0.1", site.port), 5)
    with sock, pytest.raises(ssl.SSLCertVerificationError):
        context.wrap_socket(sock, server_hostname="s3.example.org")


def test_the_authority_s_files_are_private(site: Site) -> None:
    for path in Path(site.signer.directory).iterdir():
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_key_of_root_s_comes_and_goes(gateway: Gateway) -> None:
    """Whoever reads the secrets file changes the keys in place: nothing is started again."""
    keys = gateway.server._access_keys
    s3 = gateway.boto(access_key="AKIDNEW", secret_key="a new secret")
    with pytest.raises(Exception, match="InvalidAccessKeyId"):
        s3.list_buckets()
    keys["AKIDNEW"] = b"a new secret"
    s3.list_buckets()
    del keys["AKIDNEW"]
    with pytest.raises(Exception, match="InvalidAccessKeyId"):
        s3.list_buckets()
