"""Links of a lab of three replicas are cut and made lossy with nft; nobody is killed.

The minority's side must not acknowledge a write, and must say so soon; after the cut everything is one
again.  CI runs a few seconds of each; `make soak` the long form (docs/explanation/testing.md).
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from ssastore.judge.verdicts import judge, read_history, share_of_success
from ssastore.lab.up import MTU as LAB_MTU
from tests.faults import Links, load_on
from tests.lab.shared import module_lab, s3_client
from tests.labs import RunningLab

SOAK_S = float(os.environ.get("SSASTORE_SOAK_CUT_S", "5"))
"How long links are cut."
ONE_WAY_PAIRS = int(os.environ.get("SSASTORE_SOAK_PAIRS", "2"))

NODES = ("n1", "n2", "n3", "n4")
SHAPE = ("--nodes", "4", "--replicas", "3", "--workers", "1")
ANSWER_MS_MAX = 2_000

pytestmark = [
    pytest.mark.lab,
    pytest.mark.timeout(240 + 4 * SOAK_S),
    pytest.mark.skipif(shutil.which("nft") is None, reason="nft is not installed (Debian: nftables)"),
]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningLab]:
    with module_lab(tmp_path_factory, "partitions", *SHAPE) as found:
        yield found


@pytest.fixture
def links(lab: RunningLab) -> Iterator[Links]:
    links = Links(lab)
    yield links
    links.heal()


def check_histories(*paths: str) -> int:
    judged = judge(read_history(*paths))
    assert (judged.violations, judged.undecided, judged.lost) == ([], [], [])
    return judged.operations


def writes_of(path: str, since_ns: int, until_ns: int) -> list[dict[str, Any]]:
    """Acknowledged writes that began after one time and were answered before another."""
    lines = [json.loads(line) for line in Path(path).read_text().splitlines()]
    return [
        op
        for op in lines
        if op["kind"] != "get"
        and op["outcome"] in ("done", "absent")
        and op["called_ns"] > since_ns
        and op["answered_ns"] < until_ns
    ]


@pytest.mark.alone
def test_minority_accepts_nothing_and_says_so_soon(lab: RunningLab, links: Links, tmp_path: Path) -> None:
    """One node with clients on it is cut off from three nodes with clients beside them; then healed."""
    shared = {"name": "shared", "clients": 4, "keys": 12}
    with (
        load_on(lab, tmp_path, host="client", **(shared | {"name": "major"})) as major,
        load_on(lab, tmp_path, host="n1", **(shared | {"name": "minor"})) as minor,
    ):
        time.sleep(2)
        links.split(["n1"], [*NODES[1:], "client", "gw"])
        # What had been sent to the other side before may still be answered by a node of this one.
        cut_ns = time.monotonic_ns() + 100_000_000
        time.sleep(SOAK_S)
        healed_ns = time.monotonic_ns()
        links.heal()
        time.sleep(3)
        told_minor, told_major = minor.stop(), major.stop()
    print(f"minority {told_minor}\nmajority {told_major}")
    assert writes_of(minor.settings.history, cut_ns, healed_ns) == []
    assert told_minor["answers"].get("unavailable", 0) > 3, "clients of the minority were told so"
    assert told_minor["slowest_failure_ms"] < ANSWER_MS_MAX
    assert writes_of(major.settings.history, cut_ns, healed_ns), "the majority went on"
    assert share_of_success(told_major) >= 0.999
    assert check_histories(major.settings.history, minor.settings.history) > 100


@pytest.mark.alone
def test_gateway_on_the_minority_side_answers_503_soon(lab: RunningLab, links: Links) -> None:
    client = s3_client(lab, retries={"total_max_attempts": 1}, read_timeout=20)
    client.create_bucket(Bucket="minority")
    keys = [f"key-{n}" for n in range(12)]
    for key in keys:
        client.put_object(Bucket="minority", Key=key, Body=b"before")

    def attempt(what: str, key: str) -> tuple[str, int, float]:
        began = time.monotonic()
        try:
            if what == "put":
                client.put_object(Bucket="minority", Key=key, Body=b"during")
            elif what == "get":
                client.get_object(Bucket="minority", Key=key)["Body"].read()
            elif what == "delete":
                client.delete_object(Bucket="minority", Key=key)
            elif what == "large":
                client.put_object(Bucket="minority", Key=key, Body=bytes(300_000))
            else:
                client.list_objects_v2(Bucket="minority")
            status = 200
        except ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        return what, status, time.monotonic() - began

    links.split(["gw", "n1"], [*NODES[1:], "client"])
    with ThreadPoolExecutor(8) as pool:
        for _ in range(2):
            works = [(what, key) for key in keys for what in ("put", "get", "delete", "large", "list")]
            told = list(pool.map(lambda work: attempt(*work), works))
            for what in ("put", "get", "delete", "large", "list"):
                mine = [(round(took, 2), status) for name, status, took in told if name == what]
                print(what, sorted(mine)[-12:])
            assert not [found for found in told if found[1] < 500 and found[0] != "get"]
            assert max(took for _, _, took in told) < ANSWER_MS_MAX / 1000
    # What was sent to who does not answer any more leaves a doubt, which is a 500; all else is "not now".
    assert {status for what, status, _ in told if what in ("get", "large", "list")} == {503}
    assert 503 in {status for what, status, _ in told if what in ("put", "delete")} <= {500, 503}
    links.heal()
    deadline = time.monotonic() + 10
    while attempt("put", "key-0")[1] != 200:
        assert time.monotonic() < deadline
    assert client.get_object(Bucket="minority", Key="key-0")["Body"].read() == b"during"


@pytest.mark.parametrize("number", range(ONE_WAY_PAIRS))
def test_one_way_cut_stops_nobody(lab: RunningLab, links: Links, tmp_path: Path, number: int) -> None:
    pairs = list(itertools.permutations(NODES, 2))
    sender, receiver = pairs[number * 7 % len(pairs)]
    with load_on(lab, tmp_path, name=f"oneway{number}") as load:
        time.sleep(1)
        links.cut_one_way((sender, receiver))
        time.sleep(SOAK_S)
        links.heal()
        time.sleep(1)
        found = load.stop()
    print(f"{sender} -> {receiver}: {found}")
    assert share_of_success(found) >= 0.99
    assert check_histories(load.settings.history) > 100


def test_lossy_links_cost_time_and_nothing_else(lab: RunningLab, links: Links, tmp_path: Path) -> None:
    """30 % of the TCP packets that arrive anywhere are lost."""
    with load_on(lab, tmp_path, name="lossy") as load:
        time.sleep(1)
        links.lose(30, [*NODES, "client"])
        time.sleep(SOAK_S)
        links.heal()
        time.sleep(1)
        found = load.stop()
    print(found)
    assert check_histories(load.settings.history) > 50


def test_links_of_1280_bytes_carry_large_objects(lab: RunningLab) -> None:
    """IPv6's smallest MTU on every host; the link between them keeps its own."""
    script = (
        "import os; from ssastore import Client\n"
        "data = os.urandom(8 << 20)\n"
        "with Client.from_env() as client:\n"
        "    bucket = client.create_bucket('small-mtu')\n"
        "    bucket.put('k', data)\n"
        "    assert bucket.get('k') == data\n"
        "print('same')"
    )
    hosts = (*NODES, "client")
    try:
        for host in hosts:
            lab.cli("exec", "--host", host, "--", "ip", "link", "set", "dev", "eth0", "mtu", "1280")
        assert lab.python(script).strip() == "same"
    finally:
        for host in hosts:
            lab.cli("exec", "--host", host, "--", "ip", "link", "set", "dev", "eth0", "mtu", str(LAB_MTU))
