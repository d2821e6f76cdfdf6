"""One id on client, proposer and planes; and what ``trace`` makes of it. Three replicas, real frames."""

from __future__ import annotations

import json
import logging
from collections import Counter
from typing import Any

import pytest

from ssastore.cli.trace import lines
from ssastore.core.requestid import REQUEST, name_of, new_id
from ssastore.observe import JsonFormatter, TextFormatter
from ssastore.requestpath import follow
from ssastore.system import SystemRandomness
from ssastore.transport import told as module
from ssastore.transport.told import Told
from tests.cluster import small_cluster


def told_lines(caplog: pytest.LogCaptureFixture, name: str) -> Counter[str]:
    return Counter(
        line.__dict__["op"]
        for line in caplog.records
        if line.msg == "request.told" and line.__dict__["id"] == name
    )


async def test_a_put_and_what_every_plane_did_for_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with small_cluster(4, replicas=3) as cluster:
        client = cluster.client()
        bucket = await client.create_bucket("photos")
        found = await follow(client, "photos", "cat", b"miaow")
        assert await bucket.get("cat") == b"miaow"
        assert found["outcome"].startswith("durable: 5 bytes")
        assert [step["plane"] for step in found["connects"]] == [0, 1, 2]
        assert len({step["who"] for step in found["connects"]}) == 3
        assert [step["address"] for step in found["connects"]] == found["location"]["addresses"]
        put = next(call for call in found["calls"] if call["op"] == "Put")
        assert put["outcome"] == "OK" and 0 < put["took_us"] <= found["took_us"]
        done = Counter(part["op"] for part in found["parts"])
        assert done["Put"] == 1 and done["Accept"] >= 1, "a majority, of which the proposer is one"
        (written,) = [part for part in found["parts"] if part["op"] == "Put"]
        assert 0 < written["took_us"] <= put["took_us"], "what the node took is in what the client waited"
        # The same id is in the logs of the nodes, and nothing that others asked for.
        assert told_lines(caplog, found["id"]) == done
        assert {line.__dict__["id"] for line in caplog.records if line.msg == "request.told"} == {found["id"]}
        text = "\n".join(lines(found))
        assert found["id"] in text and all(address in text for address in found["location"]["addresses"])
        assert json.loads(json.dumps(found)) == found


async def test_a_get_with_its_blobs_and_one_of_nothing() -> None:
    async with small_cluster(4, replicas=3) as cluster:
        client = cluster.client()
        await (await client.create_bucket("photos")).put("large", bytes(5 << 20))
        found = await follow(client, "photos", "large")
        assert found["outcome"].startswith(f"{5 << 20} bytes")
        assert Counter(part["op"] for part in found["parts"])["GetBlob"] == 2
        missing = await follow(client, "photos", "nothing")
        assert missing["outcome"].startswith("ObjectNotFound") and missing["parts"]


def test_a_line_on_behalf_of_a_request_has_its_id() -> None:
    record = logging.LogRecord("x", logging.INFO, "", 0, "thing.happened", None, None)
    upper = new_id(SystemRandomness())
    assert "id" not in json.loads(JsonFormatter("n1/0").format(record))
    token = REQUEST.set(upper)
    try:
        assert json.loads(JsonFormatter("n1/0").format(record))["id"] == name_of(upper)
        assert f"id='{name_of(upper)}'" in TextFormatter("n1/0").format(record)
    finally:
        REQUEST.reset(token)


def test_so_many_are_told_in_a_second_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "A_SECOND", 3)
    told = Told()
    part: list[Any] = ["C00000000000", "Get", "0" * 16, 0, 5_000, 10]
    for _ in range(5):
        told.note(part)
    assert len(told.parts) == 3
    told.note([*part[:4], 6_000, 10])
    assert len(told.parts) == 4
