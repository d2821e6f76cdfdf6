"""Conditional writes through the S3 gateway of a lab of three replicas: races, and answers that are lost.

CI runs a few keys; `make soak` the long form (docs/explanation/testing.md).
"""

from __future__ import annotations

import asyncio
import os
import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import md5
from typing import Any

import aiohttp
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from botocore.session import get_session

from tests.lab.shared import module_lab, s3_client
from tests.labs import RunningLab

KEYS = int(os.environ.get("SSASTORE_SOAK_RACES", "20"))
RACERS = 50
COUNTERS = 20
COUNTS_EACH = int(os.environ.get("SSASTORE_SOAK_COUNTS", "3"))
LOST = int(os.environ.get("SSASTORE_SOAK_LOST", "30"))
BUCKET = "races"

pytestmark = [pytest.mark.lab, pytest.mark.timeout(240 + KEYS + 20 * COUNTS_EACH + LOST)]

SHAPE = ("--nodes", "4", "--replicas", "3", "--workers", "1")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningLab]:
    with module_lab(tmp_path_factory, "races", *SHAPE) as found:
        s3_client(found).create_bucket(Bucket=BUCKET)
        yield found


class Signed:
    """Signed requests without an SDK: it would retry, and fifty of it would be slow."""

    def __init__(self, lab: RunningLab, session: aiohttp.ClientSession) -> None:
        variables = lab.aws()
        self._endpoint = variables["AWS_ENDPOINT_URL"]
        credentials = Credentials(variables["AWS_ACCESS_KEY_ID"], variables["AWS_SECRET_ACCESS_KEY"])
        self._auth = S3SigV4Auth(credentials, "s3", variables["AWS_DEFAULT_REGION"])
        self._session = session

    async def __call__(
        self, method: str, key: str, body: bytes = b"", **headers: str
    ) -> tuple[int, bytes, str]:
        """Status, body and ETag."""
        url = f"{self._endpoint}/{BUCKET}/{key}"
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        request = AWSRequest(method, url, headers=names, data=body)
        self._auth.add_auth(request)
        sent = dict(request.headers.items())
        async with self._session.request(method, url, data=body, headers=sent) as answer:
            return answer.status, await answer.read(), answer.headers.get("ETag", "")


def with_signed(lab: RunningLab, work: Any) -> Any:
    async def run() -> Any:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            return await work(Signed(lab, session))

    return asyncio.run(run())


def test_of_fifty_that_create_a_key_exactly_one_wins(lab: RunningLab) -> None:
    """And what is there is the winner's."""

    async def race(signed: Signed) -> Counter[int]:
        told: Counter[int] = Counter()
        for number in range(KEYS):
            bodies = [b"%d of %d" % (racer, number) for racer in range(RACERS)]
            answers = await asyncio.gather(
                *[signed("PUT", f"new-{number}", body, If_None_Match="*") for body in bodies]
            )
            told.update(status for status, _, _ in answers)
            winners = [body for body, (status, _, _) in zip(bodies, answers, strict=True) if status == 200]
            assert len(winners) == 1, (number, Counter(status for status, _, _ in answers))
            assert (await signed("GET", f"new-{number}"))[1] == winners[0]
        return told

    told = with_signed(lab, race)
    print(f"{KEYS} keys, {RACERS} clients: {dict(told)}")
    assert told == {200: KEYS, 412: KEYS * (RACERS - 1)}


def test_counter_by_etag_counts_every_success(lab: RunningLab) -> None:
    async def count(signed: Signed) -> tuple[int, Counter[int]]:
        assert (await signed("PUT", "counter", b"0"))[0] == 200
        told: Counter[int] = Counter()

        async def one() -> None:
            done = 0
            while done < COUNTS_EACH:
                status, body, etag = await signed("GET", "counter")
                assert status == 200
                status, _, _ = await signed("PUT", "counter", b"%d" % (int(body) + 1), If_Match=etag)
                told[status] += 1
                done += status == 200
                assert status in (200, 412), status

        await asyncio.gather(*[one() for _ in range(COUNTERS)])
        return int((await signed("GET", "counter"))[1]), told

    final, told = with_signed(lab, count)
    print(f"{COUNTERS} clients: {dict(told)}, final {final}")
    assert final == told[200] == COUNTERS * COUNTS_EACH


# -- answers that are lost --------------------------------------------------------------------------


class LosingProxy:
    """A proxy that passes requests on and drops the answers to first attempts."""

    def __init__(self, port: int) -> None:
        self._upstream = port
        self.lost = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_gateway, from_gateway = None, None
        try:
            from_gateway, to_gateway = await asyncio.open_connection("127.0.0.1", self._upstream)
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = re.search(rb"(?i)content-length: *(\d+)", head)
                if b"100-continue" in head:
                    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                body = await reader.readexactly(int(length[1]) if length else 0)
                to_gateway.write(head.replace(b"Expect: 100-continue\r\n", b"") + body)
                answer = await from_gateway.readuntil(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: *(\d+)", answer)
                is_bodiless = head.startswith(b"HEAD")
                answer += await from_gateway.readexactly(int(length[1]) if length and not is_bodiless else 0)
                if re.search(rb"(?i)amz-sdk-request: *attempt=1", head):
                    self.lost += 1
                    return
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            for stream in (writer, to_gateway):
                if stream is not None:
                    stream.close()


def through_losing_proxy(lab: RunningLab, work: Any) -> int:
    """Run ``work(client)`` on a thread with boto3's client behind the proxy; how many answers were lost."""
    variables = lab.aws()

    async def run() -> int:
        proxy = LosingProxy(lab.s3_port)
        server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        client = get_session().create_client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{port}",
            aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
            region_name=variables["AWS_DEFAULT_REGION"],
            config=Config(
                retries={"mode": "standard"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )
        await asyncio.to_thread(work, client)
        server.close()
        return proxy.lost

    return asyncio.run(run())


def test_repeated_write_whose_answer_was_lost_is_not_refused_for_its_own_effect(lab: RunningLab) -> None:
    """Every first attempt is applied and its answer dropped; the SDK repeats it by itself."""
    refused: list[str] = []

    def write(client: Any, key: str) -> None:
        try:
            client.put_object(Bucket=BUCKET, Key=key, Body=b"one", IfNoneMatch="*")
            etag = f'"{md5(b"one").hexdigest()}"'
            client.put_object(Bucket=BUCKET, Key=key, Body=b"two", IfMatch=etag)
        except ClientError as error:
            refused.append(f"{key}: {error}")

    def work(client: Any) -> None:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: write(client, f"lost-{number}"), range(LOST)))

    lost = through_losing_proxy(lab, work)
    print(f"{LOST} keys, {lost} answers lost, {len(refused)} refused")
    assert lost == 2 * LOST
    assert refused == []
    told = s3_client(lab)
    assert all(
        told.get_object(Bucket=BUCKET, Key=f"lost-{n}")["Body"].read() == b"two" for n in range(0, LOST, 7)
    )


def test_repetition_of_a_true_refusal_stays_a_refusal(lab: RunningLab) -> None:
    told = s3_client(lab)
    told.put_object(Bucket=BUCKET, Key="taken", Body=b"theirs")
    codes: list[str] = []

    def work(client: Any) -> None:
        for _ in range(3):
            with pytest.raises(ClientError) as caught:
                client.put_object(Bucket=BUCKET, Key="taken", Body=b"mine", IfNoneMatch="*")
            codes.append(caught.value.response["Error"]["Code"])

    assert through_losing_proxy(lab, work) == 3
    assert codes == ["PreconditionFailed"] * 3
    assert told.get_object(Bucket=BUCKET, Key="taken")["Body"].read() == b"theirs"
