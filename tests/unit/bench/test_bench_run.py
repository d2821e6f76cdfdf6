"""Plan, order and processes of a run; no peer is started here."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bench.__main__ import BASIC, FULL, QUICK, options_of, parser
from bench.errors import BenchError, LeftOut
from bench.run import PRODUCTS, PROTOCOLS, comparisons, cores_of, in_turn, names, selected
from bench.servers import Foreign, Server, free_ports, program
from bench.targets import Target
from bench.targets.ceph import Ceph
from bench.targets.memcached import Memcached
from bench.targets.nginx import Nginx, configuration
from bench.targets.redis import Redis
from bench.targets.s3url import S3Url
from bench.targets.ssastore import Ssastore
from bench.targets.swift import Swift
from ssastore.load import OPS


def targets_of(*only: str) -> dict[str, list[str]]:
    plan = selected(comparisons(), only)
    return {f"{one.protocol} {one.op}": [target.name for target in one.targets] for one in plan}


def test_durable_writes_are_compared_with_durable_writes_only() -> None:
    found = targets_of()
    assert len(found) == len(PROTOCOLS) * len(OPS) - 1, "all but a listing of a hashed bucket"
    assert "native list" not in found
    for work, targets in found.items():
        is_read = work.split()[1] in ("get", "hot", "one")
        for peer in ("redis", "memcached"):
            assert (peer in targets) is (is_read and work.startswith("native"))
        assert ("redis-always" in targets) is (not is_read and work.startswith("native"))


def test_all_operations_of_a_protocol_use_the_same_ssastore() -> None:
    for protocol in PROTOCOLS:
        first, *others = [one.targets[:2] for one in comparisons() if one.protocol == protocol]
        assert all(one is two for other in others for one, two in zip(first, other, strict=True))


@pytest.mark.parametrize(
    ("only", "expected"),
    [
        (
            ("get",),
            {
                "native get": ["ssastore", "ssastore R=3", "redis", "memcached", "nginx"],
                "s3 get": ["ssastore S3", "ssastore S3 R=3", "Swift", "Ceph RGW", "nginx"],
            },
        ),
        (("put", "redis"), {"native put": ["redis-always"], "s3 put": []}),
        (("put", "ssastore", "s3"), {"s3 put": ["ssastore S3", "ssastore S3 R=3"]}),
        (("put", "nginx", "native"), {"native put": []}),
        (("ssastore", "nginx", "get", "native"), {"native get": ["ssastore", "ssastore R=3", "nginx"]}),
    ],
)
def test_only_names_operations_and_products(only: tuple[str, ...], expected: dict[str, list[str]]) -> None:
    assert targets_of(*only) == expected


def test_names_of_only_are_known() -> None:
    assert names(["get, redis", "nginx"]) == {"get", "redis", "nginx"}
    assert names([]) == frozenset()
    with pytest.raises(ValueError, match=r"unknown: mysql; known: native, s3, get, hot, one, put"):
        names(["get,mysql"])


def test_names_cover_the_plan() -> None:
    plan = comparisons()
    assert {one.protocol for one in plan} == set(PROTOCOLS)
    assert {one.op for one in plan} == set(OPS)
    products = {target.product for one in plan for target in one.targets}
    assert products | {"url"} == set(PRODUCTS)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_everybody_goes_first_equally_often(count: int) -> None:
    targets: list[Target] = [Redis(durable=False), Ssastore(), Nginx()]
    del targets[count:]
    orders = [[target.name for target in in_turn(targets, number)] for number in range(2 * count)]
    assert all(sorted(order) == sorted(orders[0]) for order in orders)
    firsts = [order[0] for order in orders]
    assert all(firsts.count(target.name) == 2 for target in targets)


def test_cores_are_apart_when_pinned() -> None:
    servers, client = cores_of(pin=True)
    assert not servers & client
    assert servers | client <= os.sched_getaffinity(0)
    assert bool(servers) == bool(client) == (len(os.sched_getaffinity(0)) > 1)
    assert cores_of(pin=False) == (set(), set())


def test_quick_is_shorter_and_options_win_over_it() -> None:
    full, quick = options_of(parser().parse_args([])), options_of(parser().parse_args(["--quick"]))
    assert (full.seconds, full.rounds) == FULL
    assert (quick.seconds, quick.rounds) == QUICK
    assert quick.seconds * quick.rounds < full.seconds * full.rounds
    mixed = options_of(parser().parse_args(["--quick", "--rounds", "2", "--only", "get,redis"]))
    assert (mixed.seconds, mixed.rounds, mixed.only) == (QUICK[0], 2, frozenset({"get", "redis"}))


def test_operations_that_nobody_named_are_the_basic_ones() -> None:
    def only_of(*arguments: str) -> set[str]:
        return set(options_of(parser().parse_args(arguments)).only)

    assert only_of() == set(BASIC)
    assert only_of("--only", "s3") == {"s3", *BASIC}
    assert only_of("--only", "s3,hot") == {"s3", "hot"}


def test_sizes_and_numbers_of_callers_may_be_several() -> None:
    options = options_of(parser().parse_args(["--size", "4096", "65536", "--inflight", "1", "256"]))
    assert (options.sizes, options.inflight) == ((4096, 65536), (1, 256))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--size", "-1"],
        ["--size", "4096", "67108865"],
        ["--rounds", "0"],
        ["--inflight", "1025"],
        ["--seconds", "x"],
        ["--only", "mysql"],
        ["--s3-url", "http://127.0.0.1:9000"],
        ["--s3-url", "minio=http://127.0.0.1:9000,x"],
        ["--workers", "17"],
    ],
)
def test_options_out_of_bounds_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parser().parse_args(arguments)
    assert caught.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def script(text: str) -> list[str]:
    return [sys.executable, "-S", "-c", text]


def test_server_is_ended_in_order(tmp_path: Path) -> None:
    text = (
        "import signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
        "print('up', flush=True)\nsignal.pause()\n"
    )
    server = Server("x", script(text), tmp_path, stdout=subprocess.PIPE)
    assert server.process.stdout is not None
    assert server.process.stdout.readline() == b"up\n"
    server.check()
    server.stop()
    assert server.process.returncode == 7
    server.stop()


def test_server_that_ended_is_reported_with_its_last_words(tmp_path: Path) -> None:
    server = Server("x", script("import sys; sys.exit('out of luck')"), tmp_path)
    server.process.wait()
    with pytest.raises(BenchError, match=r"(?s)x ended with code 1.*out of luck"):
        server.check()
    with pytest.raises(BenchError, match="out of luck"):
        server.wait_for_port(free_ports(1)[0])


def test_server_dies_with_the_run(tmp_path: Path) -> None:
    """Even when the run is killed outright: then the kernel ends its servers.

    Method: a process in the middle starts a server whose output is a pipe; we kill the middle one and
    wait for the end of the pipe, which comes when the server is gone.
    """
    reader, writer = os.pipe()
    middle = os.fork()
    if middle == 0:
        try:
            Server("x", ["sh", "-c", "echo $$; exec sleep 60"], tmp_path, stdout=writer)
            signal.pause()
        finally:
            os._exit(1)
    os.close(writer)
    with open(reader, "rb", buffering=0) as pipe:
        pid = int(pipe.read(20))
        os.kill(middle, signal.SIGKILL)
        os.waitpid(middle, 0)
        ended, _, _ = select.select([pipe], [], [], 10)
        if not ended:
            os.kill(pid, signal.SIGKILL)
        assert ended, "the server outlived the run"
        assert pipe.read(1) == b""


def test_server_runs_on_the_cores_it_was_given(tmp_path: Path) -> None:
    core = max(os.sched_getaffinity(0))
    server = Server("x", script("import os; print(os.sched_getaffinity(0))"), tmp_path, cores={core})
    server.process.wait()
    assert server.log_end().strip() == f"{{{core}}}"


def test_free_ports_are_free_and_differ() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_ports(1)[0]))
        taken.listen()
        ports = free_ports(50, also=10_000)
        assert len(set(ports)) == 50
        assert taken.getsockname()[1] not in ports


def test_programs_are_found_beside_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    assert program("sh")
    assert program("no-such-program") is None
    monkeypatch.setenv("PATH", "/nowhere")
    assert str(program("ldconfig")).endswith("/sbin/ldconfig")


@pytest.mark.parametrize(
    ("target", "missing"),
    [
        (Nginx(), "nginx"),
        (Redis(durable=True), "redis-server"),
        (Redis(durable=False), "redis-cli"),
        (Memcached(), "memcached"),
        (Swift(), "swift-ring-builder"),
        (Ceph(), "radosgw"),
    ],
)
def test_peer_that_is_not_installed_is_left_out_by_name(
    target: Target, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("nginx", "redis", "memcached", "swift", "ceph"):
        monkeypatch.setattr(f"bench.targets.{module}.program", lambda name: None if name == missing else "/x")
    with pytest.raises(LeftOut, match=f"^{missing} is not installed$"):
        target.check()


def test_nginx_is_told_its_port_and_folders(tmp_path: Path) -> None:
    text = configuration(tmp_path, 12345)
    assert "listen 127.0.0.1:12345" in text
    assert f"root {tmp_path}/files" in text
    assert text.count("{") == text.count("}")
    assert ("user " in text) == (os.geteuid() == 0)


def test_endpoints_take_part_in_all_work_by_s3() -> None:
    arguments = ["--s3-url", "minio=http://127.0.0.1:9000,1,2", "--s3-url", "rgw=https://[::1]:7480"]
    options = options_of(parser().parse_args(arguments))
    plan = comparisons(options.workers, options.endpoints)
    for one in plan:
        names_of = [target.name for target in one.targets if target.product == "url"]
        assert names_of == (["minio", "rgw"] if one.protocol == "s3" else [])
    (minio,) = {target for one in plan for target in one.targets if target.name == "minio"}
    assert [server.pid for server in minio.servers] == [1, 2]


def test_endpoint_that_cannot_be_used_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    S3Url("x", "http://127.0.0.1:9000/", [os.getpid()]).check()
    with pytest.raises(LeftOut, match="is no URL"):
        S3Url("x", "127.0.0.1:9000").check()
    with pytest.raises(LeftOut, match="has ended"):
        S3Url("x", "http://127.0.0.1:9000", [2**22 + 1]).check()
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(LeftOut, match="AWS_SECRET_ACCESS_KEY is not set"):
        S3Url("x", "http://127.0.0.1:9000").check()


def test_process_of_somebody_else_is_left_alone() -> None:
    process = subprocess.Popen(["sleep", "60"])
    try:
        foreign = Foreign(process.pid)
        foreign.check()
        foreign.stop()
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
    with pytest.raises(BenchError, match="has ended"):
        foreign.check()


def test_workers_reach_all_who_have_such_a_setting() -> None:
    about = {target.name: target.about for one in comparisons(4) for target in one.targets}
    assert {name for name, text in about.items() if "4 workers" in text or "4 threads" in text} == {
        *("ssastore", "ssastore R=3", "ssastore S3", "ssastore S3 R=3", "nginx", "memcached", "Swift")
    }
