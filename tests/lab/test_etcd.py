"""A lab on an etcd of its own, on a real network: it works, and goes on while etcd is away.

The etcd gets SIGKILL while clients read and write, and is started again 20 s later.
"""

from __future__ import annotations

import json
import os
import signal
import time
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.etcds import require_etcd, running_etcd
from tests.lab.outage import moves_around_an_outage
from tests.lab.shared import module_lab, processes_with, start_on, wait_until
from tests.labs import RunningLab, running_lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(180)]

SHAPE = ("--nodes", "4", "--replicas", "3", "--workers", "1", "--control", "etcd")

AWAY_S = 20

LOAD = """
import asyncio, json, sys, time
from ssastore import AsyncClient
from ssastore.system import run

async def main():
    done, failed, slowest = 0, [], 0.0
    async with AsyncClient.from_env() as client:
        bucket = await client.create_bucket("busy")
        await asyncio.gather(*[bucket.put(f"{n:03}", b"0") for n in range(100)])
        print("begun", flush=True)
        end = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().add_reader(sys.stdin, lambda: end.done() or end.set_result(None))

        async def use(name):
            nonlocal done, slowest
            value = 0
            while not end.done():
                for what in ("put", "get"):
                    began = time.monotonic()
                    try:
                        if what == "put":
                            value += 1
                            await bucket.put(name, b"%d" % value)
                        else:
                            found = await bucket.get(name)
                            assert found == b"%d" % value, (found, value)
                        done += 1
                    except Exception as error:
                        failed.append(f"{what} {name}: {error!r}")
                    slowest = max(slowest, time.monotonic() - began)
                await asyncio.sleep(0.05)

        await asyncio.gather(*[use(f"{n:03}") for n in range(0, 100, 10)])
    print(json.dumps({"done": done, "failed": failed[:5], "slowest_s": round(slowest, 3)}), flush=True)

run(main())
"""


REVISION = """
import asyncio, sys
from ssastore.config import open_control

async def main():
    control = open_control(*sys.argv[1:3])
    while True:
        try:
            print((await control.list("mark"))[1])
            break
        except ConnectionError:
            await asyncio.sleep(0.1)
    await control.close()

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningLab]:
    require_etcd()
    with module_lab(tmp_path_factory, "etcd", *SHAPE) as found:
        yield found


def test_lab_on_a_given_etcd_leaves_everything_below_its_prefix(tmp_path: Path) -> None:
    """Its directory belongs to it: with the embedded store it is refused."""
    with running_etcd(tmp_path) as etcd:
        shape: tuple[str, ...] = (
            "--nodes",
            "1",
            "--workers",
            "1",
            "--simulate",
            "--control",
            f"{etcd.url}/given",
        )
        shape = tuple(option.replace("http://", "etcd://") for option in shape)
        (tmp_path / "object").write_bytes(b"kept")
        with running_lab(tmp_path, "given", *shape) as lab:
            lab.cli("mb", "photos")
            lab.cli("put", "photos/a", str(tmp_path / "object"))
            assert lab.cli("get", "photos/a", "-").stdout == "kept"
        found = etcd.ask("/v3/kv/range", key="AA==", range_end="AA==", keys_only=True)
        keys = [b64decode(item["key"]) for item in found["kvs"]]
        assert b"/given/cluster" in keys and all(key.startswith(b"/given/") for key in keys)
        ports = ["--s3-port", str(lab.s3_port), "--admin-port", str(lab.admin_port)]
        up = ["up", "--name", "given", "--data", str(lab.data), *ports, *shape[:5], "--replicas", "1"]
        refused = lab.cli(*up, check=False)
        assert refused.returncode == 3 and "control=etcd://" in refused.stderr


def etcd_of(lab: RunningLab) -> int | None:
    """The process of the lab's etcd."""
    return next(iter(processes_with(f"--config-file {lab.data}/config/etcd.yaml")), None)


def times_logged(lab: RunningLab, event: str) -> int:
    logs = [lab.data / "log" / f"n{number}.log" for number in range(1, 5)]
    return sum(log.read_text().count(event) for log in logs)


def revision_of(lab: RunningLab) -> int:
    context = json.loads((lab.data.parent / "state" / "ssastore" / "contexts" / "etcd.json").read_text())
    return int(lab.python(REVISION, context["control"], context["secrets_file"]))


def test_moves_go_on_after_etcd_stood_still_in_the_middle_of_them(lab: RunningLab, tmp_path: Path) -> None:
    etcd = etcd_of(lab)
    assert etcd is not None
    moves_around_an_outage(lab, tmp_path, etcd)


def test_clients_notice_nothing_while_etcd_is_away(lab: RunningLab) -> None:
    """Killed for 20 s under load, and back: no call fails, no read is wrong, marks are told again."""
    load = start_on(lab, "client", LOAD)
    assert load.stdin and load.stdout
    assert load.stdout.readline().split() == ["begun"]
    etcd = etcd_of(lab)
    assert etcd is not None
    os.kill(etcd, signal.SIGKILL)
    wait_until(lambda: etcd_of(lab) is None, "etcd is dead")
    killed = time.monotonic()
    wait_until(lambda: times_logged(lab, "mark.not_told") > 0, "a worker misses etcd")
    time.sleep(max(0.0, AWAY_S - (time.monotonic() - killed)))
    assert load.poll() is None

    command = ["etcd", "--config-file", f"{lab.data}/config/etcd.yaml"]
    with lab.start(*command, host="etcd") as back:
        try:
            revision = revision_of(lab)
            wait_until(lambda: revision_of(lab) > revision, "etcd is told of an environment's mark again")
            output, _ = load.communicate("end\n", timeout=30)
            found = json.loads(output)
            print(found)
            assert found["failed"] == []
            assert found["done"] > 1000
            done = lab.cli("recover", "--node", "n1", "--json")
            assert json.loads(done.stdout)["done"] is True
        finally:
            back.terminate()
