"""Very many connections that do nothing: the gateway stays small, and serves the others."""

from __future__ import annotations

import os
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.lab.shared import module_lab, processes_with, s3_client
from tests.labs import RunningLab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

COUNT = int(os.environ.get("SSASTORE_SOAK_IDLE", "1500"))
KIB_EACH_MAX = 24
"Of the gateway's resident memory, for a connection that has sent half of a request's headers."


def resident_kib(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize() // 1024


def gateway_of(lab: RunningLab) -> int:
    (pid,) = processes_with(f"gateway --config {lab.data}/config/gateway.toml")
    return pid


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningLab]:
    with module_lab(tmp_path_factory, "idle", "--nodes", "1", "--workers", "1") as found:
        s3 = s3_client(found)
        s3.create_bucket(Bucket="served")
        s3.put_object(Bucket="served", Key="k", Body=b"value")
        yield found


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: h\r\nX-A"])
def test_idle_connections_cost_little_and_hold_up_nobody(
    lab: RunningLab, sent: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < COUNT + 500:
        pytest.skip(f"{hard} open files are too few for {COUNT} connections")
    s3, gateway = s3_client(lab), gateway_of(lab)
    before = resident_kib(gateway)
    with ExitStack() as stack:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(COUNT):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", lab.s3_port), 30))
            connection.sendall(sent)
        began = time.perf_counter()
        for _ in range(20):
            assert s3.get_object(Bucket="served", Key="k")["Body"].read() == b"value"
        each_ms = (time.perf_counter() - began) * 50
        kib_each = (resident_kib(gateway) - before) / COUNT
    with capsys.disabled():
        print(
            f"\n  {COUNT} connections: {kib_each:.1f} KiB each; a GET beside them {each_ms:.1f} ms ", end=""
        )
    assert kib_each < KIB_EACH_MAX
