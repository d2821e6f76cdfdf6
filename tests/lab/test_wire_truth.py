"""What is on the wire: connections go to computed addresses and their owners; a dead node is missed aloud.

The packets are caught where the router hands them to each node, by a packet socket on the router: nothing
that clients or nodes say of themselves is believed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from ssastore.keyspace import address_of, iid_of, position_of_key
from tests.lab.shared import is_alive, module_lab, parent_of, s3_client, start_on, wait_until
from tests.labs import PYTHON, RunningLab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(120)]

VICTIM = "n3"
KEYS = [f"key-{number}" for number in range(80)]
"So many that each node has some, all but surely: one of four has none once in 10^9 buckets."
SYSTEM_SHARDS = 16

SNIFF = """
import json, select, socket, sys
ALL, OUTGOING, TCP, SYN, ACK = 3, 4, 6, 2, 16
wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ALL))
wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
print("listening", flush=True)
seen = []
while True:
    ready, _, _ = select.select([wire, sys.stdin], [], [])
    if wire in ready:
        packet, (interface, _, kind, *_) = wire.recvfrom(96)
        if kind == OUTGOING and len(packet) > 54 and packet[0] >> 4 == 6 and packet[6] == TCP:
            opens = packet[53] & (SYN | ACK) == SYN
            seen.append([interface, packet[8:24].hex(), packet[24:40].hex(), opens])
    elif sys.stdin in ready:
        break
print(json.dumps(seen))
"""

STORE_AND_READ = """
import asyncio, json, sys
from ssastore import AsyncClient
from ssastore.system import run

async def main(bucket, keys, use_hints):
    async with AsyncClient.from_env(use_hints=use_hints) as client:
        handle = client.bucket(bucket)
        for key in keys:
            await handle.put(key, key.encode() * 10)
        await asyncio.gather(*[handle.get(key) for key in keys])
        print(json.dumps({key: (await handle.locate(key)).addresses[0] for key in keys}))

run(main(sys.argv[1], json.loads(sys.argv[2]), sys.argv[3] == "hints"))
"""

TRY_ALL = """
import asyncio, json, sys, time
from ssastore import AsyncClient, SsaStoreError
from ssastore.system import run

async def main(bucket, keys):
    async with AsyncClient.from_env(deadline_ms=3000) as client:
        async def get(key):
            started = time.monotonic()
            try:
                found = f"{len(await client.bucket(bucket).get(key))} bytes"
            except SsaStoreError as error:
                found = f"{type(error).__name__}: {error}"
            return key, found, time.monotonic() - started
        print(json.dumps(await asyncio.gather(*[get(key) for key in keys])))

run(main(sys.argv[1], json.loads(sys.argv[2])))
"""

BY_S3 = """
import os, socket, sys, time
import boto3
deadline = time.monotonic() + 20
while socket.socket().connect_ex(("127.0.0.1", int(sys.argv[1]))):
    assert time.monotonic() < deadline, "no gateway"
    time.sleep(0.05)
s3 = boto3.client(
    "s3", endpoint_url=f"http://127.0.0.1:{sys.argv[1]}", region_name="us-east-1",
    aws_access_key_id=os.environ["SSASTORE_ACCESS_KEY"],
    aws_secret_access_key=os.environ["SSASTORE_SECRET_KEY"],
)
for number in range(40):
    s3.put_object(Bucket=sys.argv[2], Key=f"key-{number}", Body=b"x" * 100)
    assert s3.get_object(Bucket=sys.argv[2], Key=f"key-{number}")["Body"].read() == b"x" * 100
"""

FIND_BLOBS = """
import json, sys
from ipaddress import IPv6Address, IPv6Network
from blake3 import blake3
from ssastore import Client
from ssastore.limits import CHUNK_BYTES
home, away = (list(map(IPv6Network, prefixes)) for prefixes in json.loads(sys.argv[2]))
client = Client.from_env()

def chunk(prefixes, size):
    for number in range(1000):
        content = number.to_bytes(4, "big") * (size // 4)
        address = IPv6Address(client.locate_content(blake3(content).hexdigest()).addresses[0])
        if any(address in prefix for prefix in prefixes):
            return content, str(address)

bucket = client.bucket(sys.argv[1])
first, _ = chunk(away, CHUNK_BYTES)
last, address = chunk(home, 200_000)
key = next(f"large-{n}" for n in range(1000)
           if any(IPv6Address(bucket.locate(f"large-{n}").addresses[0]) in prefix for prefix in away))
bucket.put(key, first + last)
print(json.dumps([key, len(first + last), address]))
"""


@dataclass
class Packet:
    """One TCP packet that the router sent out of ``interface``."""

    interface: str
    source: IPv6Address
    target: IPv6Address
    opens: bool


@contextmanager
def sniffed(lab: RunningLab) -> Iterator[list[Packet]]:
    """What the router sends to hosts inside the block; the list is filled at its end."""
    sniffer = start_on(lab, "router", SNIFF)
    assert sniffer.stdin
    assert sniffer.stdout
    assert sniffer.stdout.readline() == "listening\n"
    packets: list[Packet] = []
    try:
        yield packets
    finally:
        output, _ = sniffer.communicate("stop\n", timeout=30)
    for interface, source, target, opens in json.loads(output):
        sent_from, sent_to = (IPv6Address(int(text, 16)) for text in (source, target))
        packets.append(Packet(interface, sent_from, sent_to, opens))


class Owners:
    """Who owns which address, by the prefixes that status lists."""

    def __init__(self, lab: RunningLab) -> None:
        status = lab.status()
        self.service = IPv6Network(status["service"])
        self.prefixes: dict[str, list[str]] = {node["name"]: node["prefixes"] for node in status["nodes"]}

    def of(self, address: IPv6Address | str) -> str:
        place = IPv6Address(address)
        (owner,) = [
            name
            for name, prefixes in self.prefixes.items()
            if any(place in IPv6Network(prefix) for prefix in prefixes)
        ]
        return owner


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningLab]:
    with module_lab(tmp_path_factory, "wire", "--nodes", "4") as found:
        yield found


@pytest.fixture(scope="module")
def owners(lab: RunningLab) -> Owners:
    return Owners(lab)


def bucket_record(owners: Owners, name: str) -> str:
    """Address of a bucket's record: computed here, from the rule alone."""
    position = position_of_key(0, SYSTEM_SHARDS, f"bucket/{name}".encode())
    return str(address_of(owners.service, iid_of(position, 0)))


def bucket_away_from(owners: Owners, node: str, stem: str) -> str:
    """A bucket name whose record another node has."""
    names = (f"{stem}-{number}" for number in range(1000))
    return next(name for name in names if owners.of(bucket_record(owners, name)) != node)


# -- packets ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("hints", ["hints", "no-hints"])
def test_connections_go_to_computed_addresses_and_their_owners(
    lab: RunningLab, owners: Owners, hints: str
) -> None:
    """Without hints every request dials its own address; with hints some of the same addresses are enough."""
    name = f"wire-{hints}"
    lab.cli("mb", name, "--shards", "0")
    with sniffed(lab) as packets:
        computed = json.loads(lab.python(STORE_AND_READ, name, json.dumps(KEYS), hints))
    sent = [packet for packet in packets if packet.target in owners.service]
    dialled = {str(packet.target) for packet in sent if packet.opens}
    expected = {*computed.values(), bucket_record(owners, name)}
    if hints == "no-hints":
        assert dialled == expected
    else:
        assert dialled <= expected
    assert {owners.of(address) for address in dialled} == set(owners.prefixes), "keys of every node"
    reached = [packet for packet in sent if packet.interface in owners.prefixes]
    assert len(reached) > len(KEYS), "the router's ports were watched"
    assert [packet for packet in reached if packet.interface != owners.of(packet.target)] == []


def test_an_s3_program_with_a_gateway_beside_it_is_one_hop_from_each_owner(
    lab: RunningLab, owners: Owners
) -> None:
    """``ssastore gateway --listen localhost``: what leaves the host goes to owners, and nowhere else."""
    lab.cli("mb", "beside", "--shards", "0")
    port = "7490"
    gateway = lab.start(PYTHON, "-m", "ssastore", "gateway", "--listen", f"localhost:{port}")
    try:
        with sniffed(lab) as packets:
            lab.python(BY_S3, port, "beside")
    finally:
        gateway.terminate()
        assert gateway.wait(20) == 0
        gateway.communicate()
    home = next(packet.source for packet in packets if packet.target in owners.service and packet.opens)
    sent = [packet for packet in packets if packet.source == home]
    assert {packet.target in owners.service for packet in sent} == {True}, "to no gateway elsewhere"
    reached = [packet for packet in sent if packet.interface in owners.prefixes]
    assert {packet.interface for packet in reached} == set(owners.prefixes), "each node has some of 40 keys"
    assert [packet for packet in reached if packet.interface != owners.of(packet.target)] == []
    # What comes back comes from the address that was dialled: no node asked another one on the way.
    others = [packet for packet in packets if packet.target != home and packet.source != home]
    between = [
        packet for packet in others if packet.source in owners.service or packet.target in owners.service
    ]
    assert between == []


def test_sniffer_sees_a_packet_that_goes_astray(lab: RunningLab, owners: Owners) -> None:
    """Planted: for a moment the router sends one slice of the victim to another node."""
    name = "astray"
    lab.cli("mb", name, "--shards", "0")
    address = next(
        found
        for key in KEYS
        if owners.of(found := lab.cli("locate", f"{name}/{key}").stdout.strip()) == VICTIM
    )
    wrong = next(node["address"] for node in lab.status()["nodes"] if node["name"] == "n1")
    route = ["ip", "-6", "route", "replace", f"{address}/128", "via", wrong]
    lab.cli("exec", "--host", "router", "--", *route)
    try:
        with sniffed(lab) as packets:
            # A host that owns no such address drops the packet: nobody will ever answer.
            lab.python(
                "import socket; dial = socket.socket(socket.AF_INET6); dial.settimeout(0.1); "
                f"dial.connect_ex(('{address}', 7480))"
            )
    finally:
        lab.cli("exec", "--host", "router", "--", "ip", "-6", "route", "del", f"{address}/128")
    sent = [packet for packet in packets if str(packet.target) == address]
    assert {packet.interface for packet in sent} & set(owners.prefixes) == {"n1"}


# -- a dead node ------------------------------------------------------------------------------------


@dataclass
class Stored:
    """What was stored before the node died."""

    plain: str
    "A hashed bucket; its record is elsewhere."
    listed: str
    "An indexed bucket with shards at home and away; its record is elsewhere."
    addresses: dict[str, str]
    "Of the small objects in ``plain``."
    large: str
    "Key of an object in ``plain`` that lost its last blob; record and first blob are elsewhere."
    large_bytes: int
    blob: str
    "Address of that blob."
    home: list[str]
    "Keys of ``listed`` whose records died."
    away: list[str]


@pytest.fixture(scope="module")
def stored(lab: RunningLab, owners: Owners) -> Stored:
    plain = bucket_away_from(owners, VICTIM, "plain")
    lab.cli("mb", plain, "--shards", "0")
    addresses = json.loads(lab.python(STORE_AND_READ, plain, json.dumps(KEYS), "hints"))
    home = owners.prefixes[VICTIM]
    away = [prefix for name, prefixes in owners.prefixes.items() if name != VICTIM for prefix in prefixes]
    found = lab.python(FIND_BLOBS, plain, json.dumps([home, away]))
    listed = bucket_away_from(owners, VICTIM, "listed")
    lab.cli("mb", listed, "--shards", "64")  # With 64 shards some are the victim's, all but surely.
    places = json.loads(lab.python(STORE_AND_READ, listed, json.dumps(KEYS), "hints"))
    sides: dict[bool, list[str]] = {True: [], False: []}
    for key, address in places.items():
        sides[owners.of(address) == VICTIM].append(key)
    large, large_bytes, blob = json.loads(found)
    return Stored(plain, listed, addresses, large, large_bytes, blob, home=sides[True], away=sides[False])


@dataclass
class Asked:
    """Questions that were put when the node had died; who reads an answer waits for it."""

    command: subprocess.Popen[str]
    "``ssastore get`` of one of its objects, with a deadline of 3 s instead of 30."
    by_s3: dict[str, Future[object]]
    "Requests to the gateway, which has a deadline of 10 s."


@pytest.fixture(scope="module")
def dead(lab: RunningLab, owners: Owners, stored: Stored) -> Iterator[Asked]:
    """The victim's supervisor is killed."""
    worker = lab.worker_pid(VICTIM)
    os.kill(parent_of(worker), signal.SIGKILL)
    wait_until(lambda: not is_alive(worker), "a worker ends with its supervisor")
    key = next(key for key, address in stored.addresses.items() if owners.of(address) == VICTIM)
    argv = [PYTHON, "-c", IMPATIENT, "--context", lab.name, "get", f"{stored.plain}/{key}"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    s3 = s3_client(lab, retries={"max_attempts": 0}, read_timeout=60)
    calls: dict[str, Callable[[], object]] = {
        "get": lambda: s3.get_object(Bucket=stored.listed, Key=stored.home[0]),
        "put": lambda: s3.put_object(Bucket=stored.listed, Key=stored.home[0], Body=b"new"),
        "list": lambda: s3.list_objects_v2(Bucket=stored.listed),
        "large": lambda: read_all(s3, stored.plain, stored.large),
    }
    with ThreadPoolExecutor(len(calls)) as pool:
        by_s3 = {name: pool.submit(call) for name, call in calls.items()}
        with subprocess.Popen(argv, env=lab.environment, **pipes) as command:
            yield Asked(command, by_s3)


IMPATIENT = """
import sys
from ssastore import limits
limits.CALL_DEADLINE_MS = 3000
from ssastore.cli import main
main(sys.argv[1:])
"""


def read_all(s3: Any, bucket: str, key: str) -> bytes:
    content: bytes = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    return content


def slice_text(address: str) -> str:
    """How errors name the slice of an address: its fifth hextet."""
    return f"slice {IPv6Address(address).exploded.split(':')[4]} "


@pytest.mark.usefixtures("dead")
def test_native_client_misses_only_what_died(lab: RunningLab, owners: Owners, stored: Stored) -> None:
    """All small objects and a large one, with a deadline of 3 s for each call."""
    output = lab.python(TRY_ALL, stored.plain, json.dumps([*KEYS, stored.large]))
    answers = {key: (found, seconds) for key, found, seconds in json.loads(output)}
    lost = {key: address for key, address in stored.addresses.items() if owners.of(address) == VICTIM}
    assert 0 < len(lost) < len(KEYS)
    for key, address in {**lost, stored.large: stored.blob}.items():
        found, seconds = answers.pop(key)
        assert found.startswith("Unavailable: ")
        assert slice_text(address) in found
        assert f"[{address}]" in found
        assert seconds < 10
    assert {key: found for key, (found, _) in answers.items()} == {
        key: f"{10 * len(key)} bytes" for key in answers
    }


@pytest.mark.usefixtures("dead")
def test_status_names_the_dead_node(lab: RunningLab) -> None:
    assert f"no answer from {VICTIM} worker 0" in lab.cli("status").stdout
    ready = lab.cli("ready", check=False)
    assert (ready.returncode, ready.stdout) == (5, "")
    assert f"no answer from {VICTIM} worker 0" in ready.stderr


def test_command_line_gives_up_in_time(owners: Owners, dead: Asked) -> None:
    output, error = dead.command.communicate(timeout=40)
    assert (dead.command.returncode, output) == (5, "")
    require_named(owners, error)
    assert "Traceback" not in error


def require_named(owners: Owners, text: str) -> None:
    """The text names an address of the victim, and its slice."""
    address = text.partition("[")[2].partition("]")[0]
    assert owners.of(address) == VICTIM
    assert slice_text(address) in text


def test_s3_answers_503_and_no_short_listing(
    lab: RunningLab, owners: Owners, stored: Stored, dead: Asked
) -> None:
    """Reads, writes and listings that need the dead node: each ends in time, and names the slice."""
    for name in ("get", "put", "list"):
        error = dead.by_s3[name].exception(timeout=40)
        assert isinstance(error, ClientError), (name, error)
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 503
        require_named(owners, error.response["Error"]["Message"])
    error = dead.by_s3["large"].exception(timeout=40)
    assert isinstance(error, ClientError | BotoCoreError), error
    s3 = s3_client(lab)
    for key in stored.away:
        assert read_all(s3, stored.listed, key) == key.encode() * 10


@pytest.mark.usefixtures("dead")
def test_everything_is_back_when_the_node_is(lab: RunningLab, stored: Stored, tmp_path: Path) -> None:
    """First the node is started by hand, as operations.md says; then the lab, on a copy of its data."""
    settings = str(lab.data / "config" / f"{VICTIM}.toml")
    command = [PYTHON, "-m", "ssastore", "--context", lab.name, "exec", "--host", VICTIM, "--"]
    with open(tmp_path / "node.log", "w") as log:
        argv = [*command, PYTHON, "-m", "ssastore", "node", "--config", settings]
        node = subprocess.Popen(argv, env=lab.environment, stderr=log)
    try:
        lab.cli("ready", "--wait", "20")
        require_everything(lab, stored)
    finally:
        node.terminate()
        assert node.wait(20) == 0
    lab.stop()
    copy = shutil.copytree(lab.data, tmp_path / "copy")
    ports = ["--s3-port", str(lab.s3_port), "--admin-port", str(lab.admin_port)]
    shape = ["--nodes", "4", "--replicas", "1"]
    lab.cli("up", "--name", lab.name, "--data", str(copy), *shape, *ports, "--detach")
    require_everything(lab, stored)


def require_everything(lab: RunningLab, stored: Stored) -> None:
    answers = json.loads(lab.python(TRY_ALL, stored.plain, json.dumps([*KEYS, stored.large])))
    sizes = {key: 10 * len(key) for key in KEYS} | {stored.large: stored.large_bytes}
    assert {key: found for key, found, _ in answers} == {key: f"{size} bytes" for key, size in sizes.items()}
    listed = s3_client(lab).list_objects_v2(Bucket=stored.listed)["Contents"]
    assert [entry["Key"] for entry in listed] == sorted(KEYS)
