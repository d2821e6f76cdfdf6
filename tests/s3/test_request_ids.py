"""The id of a request: in the answer, in the logs of the gateway, in those of the nodes."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.s3.gateways import Gateway


def ask_to_be_told(s3: Any) -> None:
    def add(request: Any, **_: Any) -> None:
        request.headers["x-ssastore-trace"] = "1"

    s3.meta.events.register("before-sign.s3", add)


def ids_told(caplog: pytest.LogCaptureFixture) -> set[str]:
    return {line.__dict__["id"] for line in caplog.records if line.msg == "request.told"}


def test_nodes_tell_what_they_did_for_a_request_that_asks(
    gateway: Gateway, bucket: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="ssastore")
    s3 = gateway.boto()
    s3.put_object(Bucket=bucket, Key="k", Body=b"data")
    assert ids_told(caplog) == set(), "others cost no line"
    ask_to_be_told(s3)
    answer = s3.get_object(Bucket=bucket, Key="k")
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    name = headers["x-amz-request-id"]
    assert answer["Body"].read() == b"data" and headers["x-amz-id-2"] == name
    assert ids_told(caplog) == {name} and name[0] in "CDEF"
    told = [line.__dict__ for line in caplog.records if line.msg == "request.told"]
    assert "Get" in {line["op"] for line in told}
    told_by_nodes = [part for node in gateway.cluster.nodes for part in node.service.told.parts]
    assert name in {part[0] for part in told_by_nodes}


def test_an_error_has_the_same_id_in_header_and_body(gateway: Gateway, bucket: str) -> None:
    s3 = gateway.boto()
    ask_to_be_told(s3)
    with pytest.raises(ClientError) as caught:
        s3.get_object(Bucket=bucket, Key="nothing")
    answer = caught.value.response
    assert answer["ResponseMetadata"]["HTTPHeaders"]["x-amz-request-id"][0] in "CDEF"
    ids = {answer["ResponseMetadata"]["RequestId"], answer["ResponseMetadata"]["HTTPHeaders"]["x-amz-id-2"]}
    assert ids == {answer["ResponseMetadata"]["HTTPHeaders"]["x-amz-request-id"]}


def test_only_the_clusters_own_keys_may_fill_the_logs(
    gateway: Gateway, mine: str, people: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="ssastore")
    key = gateway.run(gateway.server._users.create("alice"))
    alice = gateway.boto(access_key=key.key_id, secret_key=key.secret)
    ask_to_be_told(alice)
    assert alice.get_object(Bucket=mine, Key="k")["Body"].read() == b"data"
    assert ids_told(caplog) == set()
