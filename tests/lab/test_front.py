"""The front plane of a lab: S3 by AAAA alone, by rule, and while gateways come, go and die.

SSASTORE_SOAK_CLIENTS sets how many clients dial by the rule, each in a /64 of its own (``make soak``: 10000).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path
from typing import Any

import pytest

from ssastore.lab.status import fetch
from tests.lab.shared import module_lab, processes_with, wait_until
from tests.lab.test_wire_truth import sniffed
from tests.labs import PYTHON, RunningLab

COUNT = int(os.environ.get("SSASTORE_SOAK_CLIENTS", "240"))

pytestmark = [pytest.mark.lab, pytest.mark.timeout(120 + COUNT // 20)]

GATEWAYS = ["gw", "gw2", "gw3", "gw4"]
HOP_S = 1
RULES = f"v=SSA1; front=source; hop={HOP_S}"

S3 = """
import os, sys, boto3
from botocore.config import Config

def s3(endpoint, **options):
    return boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1", config=Config(**options),
        aws_access_key_id=os.environ["SSASTORE_ACCESS_KEY"],
        aws_secret_access_key=os.environ["SSASTORE_SECRET_KEY"],
    )
"""

HOME = """
import socket, sys
probe = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
probe.connect((sys.argv[1], 9))
print(probe.getsockname()[0])
"""

PLAIN = (
    S3
    + """
client = s3(sys.argv[1], retries={"max_attempts": 0})
client.create_bucket(Bucket=sys.argv[2])
for number in range(20):
    client.put_object(Bucket=sys.argv[2], Key=f"k{number}", Body=b"x" * number)
    assert client.get_object(Bucket=sys.argv[2], Key=f"k{number}")["Body"].read() == b"x" * number
print(len(client.list_objects_v2(Bucket=sys.argv[2])["Contents"]))
"""
)

LOAD = (
    S3
    + """
import json, threading, time
attempts, bucket, endpoint = int(sys.argv[1]), *sys.argv[2:]
done, failed, stopped = [0], [], threading.Event()

def work(name):
    client = s3(endpoint, retries={"max_attempts": attempts, "mode": "standard"})
    number = 0
    while not stopped.is_set():
        body, key = os.urandom(2000), f"{name}-{number % 50}"
        try:
            client.put_object(Bucket=bucket, Key=key, Body=body)
            assert client.get_object(Bucket=bucket, Key=key)["Body"].read() == body
            done[0] += 1
        except Exception as error:
            failed.append(repr(error))
        number += 1

s3(endpoint).create_bucket(Bucket=bucket)
threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
for thread in threads:
    thread.start()
print("begun", flush=True)
sys.stdin.readline()
stopped.set()
for thread in threads:
    thread.join()
print(json.dumps({"done": done[0], "failed": failed}), flush=True)
"""
)

SLOW = (
    S3
    + """
import hashlib, socket, time
from urllib.parse import urlsplit
address, seconds = sys.argv[1], float(sys.argv[2])
client = s3("http://front.test:7482")
client.create_bucket(Bucket="slow")
content = os.urandom(24 << 20)
client.put_object(Bucket="slow", Key="large", Body=content)
url = urlsplit(client.generate_presigned_url("get_object", Params={"Bucket": "slow", "Key": "large"}))
dial = socket.socket(socket.AF_INET6)
dial.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)
dial.settimeout(20)
dial.connect((address, 7482))
head = [f"GET {url.path}?{url.query} HTTP/1.1", f"Host: {url.netloc}", "Connection: close", "", ""]
dial.sendall("\\r\\n".join(head).encode())
answer = dial.recv(65536)
print("begun", flush=True)
while piece := dial.recv(1 << 18):
    answer += piece
    time.sleep(seconds * len(piece) / len(content))
print(answer.partition(b"\\r\\n\\r\\n")[2] == content, flush=True)
"""
)

CLIENTS = """
import asyncio, json, socket, sys, time
from ipaddress import IPv6Address, IPv6Network
from ssastore.rules.address import address_under
from ssastore.rules.hashes import PUBLIC_KEY, ClientKeys
from ssastore.rules.record import record_from_text

service, rule = IPv6Network(sys.argv[1]), record_from_text(sys.argv[2]).front
first, count = int(IPv6Address(sys.argv[3])), int(sys.argv[4])
QUESTION = b"GET / HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n"

def own(source):
    iid = address_under(rule, 15, source, epoch=rule.epoch_at(time.time()), keys=ClientKeys(PUBLIC_KEY))
    return str(IPv6Address(int(service.network_address) | iid))

async def answers(source, address):
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET6) as dial:
        dial.setblocking(False)
        dial.setsockopt(socket.IPPROTO_IPV6, 78, 1)  # IPV6_FREEBIND: the address is one of an AnyIP prefix
        dial.bind((str(IPv6Address(source << 64 | 1)), 0))
        try:
            await loop.sock_connect(dial, (address, 7482))
            await loop.sock_sendall(dial, QUESTION)
            return (await loop.sock_recv(dial, 100)).startswith(b"HTTP/1.1 403")
        except OSError:
            return False

async def main():
    kept = strayed = 0
    addresses = []
    for number in range(count):
        source, other = (first >> 64) + number, (first >> 64) + (number + 1) % count
        address = own(source)
        kept += await answers(source, address)
        addresses.append(address)
        if number % 20 == 0:
            strayed += await answers(source, own(other))
    observed = own(first >> 64)
    died = None
    for half in range(10):
        await asyncio.sleep(rule.hop_s / 2)
        if not await answers(first >> 64, observed):
            died = (half + 1) / 2
            break
    print(json.dumps({"kept": kept, "strayed": strayed, "addresses": addresses, "died_after_epochs": died}))

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningLab]:
    options = ("--nodes", "1", "--gateways", "4", "--rules", RULES)
    with module_lab(tmp_path_factory, "front", *options) as found:
        wait_until(lambda: is_settled(found, GATEWAYS), "the front plane is shared out")
        yield found


def gateways(lab: RunningLab) -> dict[str, Any]:
    _, report = fetch(lab.admin_port, "/status")
    return {gate["name"]: gate for gate in report["front"]["gateways"]}


def is_settled(lab: RunningLab, names: list[str]) -> bool:
    """These share the front plane, and nothing is on its way."""
    found = gateways(lab)
    return sorted(found) == sorted(names) and all(
        gate["share"] * len(names) > 0.85 and not gate["gives"] and not gate["takes"]
        for gate in found.values()
    )


def process_of(lab: RunningLab, name: str) -> int:
    (pid,) = processes_with(str(lab.data / "config" / f"{name}.toml"))
    return pid


class Owners:
    """Who owns which address of the front plane, by what status lists now."""

    def __init__(self, lab: RunningLab) -> None:
        self.gateways = gateways(lab)

    def of(self, address: IPv6Address) -> str:
        (name,) = [
            name
            for name, gate in self.gateways.items()
            if any(address in IPv6Network(prefix) for prefix in gate["prefixes"])
        ]
        return name


@contextmanager
def under_load(lab: RunningLab, bucket: str, attempts: int) -> Iterator[dict[str, Any]]:
    """Plain S3 clients work meanwhile, by AAAA alone; what they say is there afterwards."""
    load = lab.start(PYTHON, "-c", LOAD, str(attempts), bucket, f"http://{lab.name}.test:7482")
    assert load.stdout
    assert load.stdout.readline() == "begun\n"
    told: dict[str, Any] = {}
    try:
        yield told
    finally:
        output, _ = load.communicate("stop\n", timeout=60)
        told |= json.loads(output)


@contextmanager
def gateway_on(lab: RunningLab, host: str, config: Path) -> Iterator[None]:
    """One more gateway, which ends as it should."""
    entered = [PYTHON, "-m", "ssastore", "--context", lab.name, "exec", "--host", host, "--"]
    command = [*entered, PYTHON, "-m", "ssastore", "gateway", "--config", str(config)]
    log = lab.data / "log" / f"{host}-again.log"
    with log.open("w") as said, subprocess.Popen(command, env=lab.environment, stderr=said) as process:
        try:
            yield
        finally:
            process.terminate()
            assert process.wait(40) == 0, log.read_text()


def test_a_client_that_knows_nothing_works_by_aaaa_alone(lab: RunningLab) -> None:
    """boto3, by a name that any program would find; what the router sees goes to the unbound part."""
    with sniffed(lab) as packets:
        assert lab.python(PLAIN, "http://front.test:7482", "plain") == "20\n"
    service = IPv6Network(lab.status()["service"])
    unbound = IPv6Network(f"{IPv6Address(int(service.network_address) | 0xF000 << 48)}/72")
    home = next(packet.source for packet in packets if packet.target in unbound)
    link = IPv6Network(f"{home}/64", strict=False)
    sent = [packet for packet in packets if packet.source == home and packet.target not in link]
    assert sent and all(packet.target in unbound for packet in sent)
    reached = {(packet.interface, packet.target) for packet in sent if packet.interface in GATEWAYS}
    said = lab.cli("exec", "--", PYTHON, "-m", "ssastore", "dns", "check", "front.test").stdout
    assert f"service   {service}" in said and f"front=source; hop={HOP_S}" in said, (
        "and who knows of rules finds them"
    )
    owners = Owners(lab)
    assert reached and all(owners.of(target) == interface for interface, target in reached)


def test_a_gateway_that_others_would_suffer_from_is_refused(lab: RunningLab, tmp_path: Path) -> None:
    """One of another's name, a second one on a host, one whose address is the service's, one with a node's
    sessions."""
    text = (lab.data / "config" / "gw2.toml").read_text()
    own, inside = address_of(text), lab.status()["service"].replace("::/64", ":f000::1")
    home = lab.python(HOME, gateways(lab)["gw"]["address"]).strip()
    named = text.replace(f'"{own}"', f'"{home}"')
    node = next(known["address"] for known in lab.status()["nodes"] if known["name"] == "n1")
    announces = 'announce = "bgp"\nbgp_as = 65001\nbgp_neighbours = "2001:db8::1 as 65000"\n'
    asked = {
        f"another gateway is called gw2, at {own}": ("client", named),
        "a gateway of the front plane runs on this host already": (
            "gw2",
            text.replace('"gw2"', '"gw9"') + 's3_listen = "[::]:7999"\nadmin_listen = ""\n',
        ),
        f"address {inside} lies inside the service": ("client", named.replace(f'"{home}"', f'"{inside}"')),
        f"address {node} is that of node n1": ("n1", text.replace(f'"{own}"', f'"{node}"') + announces),
    }
    for number, (says, (host, settings)) in enumerate(asked.items()):
        config = tmp_path / f"{number}.toml"
        config.write_text(settings)
        command = (PYTHON, "-m", "ssastore", "gateway", "--config", str(config))
        done = lab.cli("exec", "--host", host, "--", *command, check=False)
        assert done.returncode == 2 and says in done.stderr, done.stderr
    assert is_settled(lab, GATEWAYS)


def test_each_clients_own_part_of_the_front_plane_and_no_other(lab: RunningLab) -> None:
    """Clients in /64s of their own, behind one host; their own addresses answer, others' do not."""
    clients, count = IPv6Network("2001:db8:c::/48"), COUNT
    lab.cli("exec", "--", "ip", "-6", "route", "add", "local", str(clients), "dev", "lo")
    home = lab.python(HOME, gateways(lab)["gw"]["address"]).strip()
    lab.cli("exec", "--host", "router", "--", "ip", "-6", "route", "add", str(clients), "via", home)
    service = lab.status()["service"]
    arguments = (service, RULES, str(clients.network_address), str(count))
    told = json.loads(lab.python(CLIENTS, *arguments, timeout=100 + count / 40))
    owners = Owners(lab)
    reached = Counter(owners.of(IPv6Address(address)) for address in told["addresses"])
    print(
        f"{told['kept']} of {count} reached their own part, {told['strayed']} another's; "
        f"{sorted(reached.values())} at each gateway; dead after {told['died_after_epochs']} epochs"
    )
    assert (told["kept"], told["strayed"]) == (count, 0)
    assert 1 < told["died_after_epochs"] <= 2.5, "an address that somebody saw is of no use soon"
    assert sorted(reached) == GATEWAYS
    # Within a tenth where they are many; of few, chance has its share.
    slack = 0.1 if count >= 10_000 else 0.5
    assert all(abs(4 * number / count - 1) < slack for number in reached.values()), reached
    counted = {name: kept_at(lab, name) for name in GATEWAYS}
    assert all(abs(counted[name] - reached[name]) <= 5 for name in GATEWAYS), (counted, reached)


def kept_at(lab: RunningLab, name: str) -> int:
    """Connections that kept the rule, by a gateway's own count."""
    if name == "gw":
        script = f"import urllib.request as u; print(u.urlopen('http://127.0.0.1:{lab.admin_port}/metrics').read().decode())"
        text = subprocess.run([PYTHON, "-c", script], text=True, capture_output=True, check=True).stdout
    else:
        text = lab.python(
            "import urllib.request as u; print(u.urlopen('http://[::1]:7481/metrics').read().decode())",
            host=name,
        )
    lines = [line for line in text.splitlines() if line.startswith("ssastore_front_connections_total")]
    return sum(int(line.split()[-1]) for line in lines if 'verdict="kept"' in line)


def test_a_program_follows_every_epoch_through_a_sidecar(lab: RunningLab) -> None:
    sidecar = lab.start(PYTHON, "-m", "ssastore", "sidecar", "front.test:7482", "--listen", "127.0.0.1:9000")
    assert sidecar.stdout
    assert "by rule source+hop:1" in sidecar.stdout.readline()
    before = sum(kept_at(lab, name) for name in GATEWAYS)
    for number in range(2):
        assert lab.python(PLAIN, "http://127.0.0.1:9000", f"through-{number}") == "20\n"
    sidecar.terminate()
    sidecar.communicate(timeout=20)
    assert sum(kept_at(lab, name) for name in GATEWAYS) >= before + 2


def test_a_gateway_that_ends_and_one_that_comes_are_not_noticed(lab: RunningLab) -> None:
    """No client repeats anything, and a download that began before is complete."""
    unbound = next(prefix for prefix in gateways(lab)["gw2"]["prefixes"] if ":f0" in prefix)
    slow = lab.start(PYTHON, "-c", SLOW, str(IPv6Network(unbound)[1]), "6")
    assert slow.stdout
    assert slow.stdout.readline() == "begun\n"
    leaving = process_of(lab, "gw2")
    with under_load(lab, "moves", 0) as told:
        os.kill(leaving, signal.SIGTERM)
        wait_until(lambda: not processes_with(str(lab.data / "config" / "gw2.toml")), "gw2 has ended", 40)
        assert slow.communicate(timeout=60)[0] == "True\n"
        assert is_settled(lab, ["gw", "gw3", "gw4"])
        with gateway_on(lab, "gw2", lab.data / "config" / "gw2.toml"):
            wait_until(lambda: is_settled(lab, GATEWAYS), "gw2 has its part again", 40)
    print(f"{told['done']} puts and gets, {len(told['failed'])} failed")
    assert told["failed"] == [] and told["done"] > 50
    assert "dup to" in lab.cli("exec", "--host", "gw", "--", "nft", "list", "ruleset").stdout
    left = lab.cli("exec", "--host", "gw2", "--", "nft", "list", "ruleset").stdout
    shown = ["ip", "-6", "route", "show", "table", "local", "proto", "75"]
    left += lab.cli("exec", "--host", "gw2", "--", *shown).stdout
    assert left == "", "who has ended leaves nothing on its host"
    assert is_settled(lab, ["gw", "gw3", "gw4"]), "who has ended has given everything before"


def test_a_gateway_that_is_killed_is_replaced(lab: RunningLab, tmp_path: Path) -> None:
    """By one on a node's own host first: any node may serve S3."""
    before = sorted(gateways(lab))
    text = (lab.data / "config" / "gw2.toml").read_text()
    address = next(node["address"] for node in lab.status()["nodes"])
    mine = text.replace('"gw2"', '"n1"').replace(f'"{address_of(text)}"', f'"{address}"')
    config = tmp_path / "n1-gateway.toml"
    config.write_text(mine)
    with gateway_on(lab, "n1", config), under_load(lab, "deaths", 5) as told:
        wait_until(lambda: is_settled(lab, [*before, "n1"]), "a node's host serves S3", 40)
        os.kill(process_of(lab, "gw3"), signal.SIGKILL)
        left = {*before, "n1"} - {"gw3"}
        wait_until(lambda: is_settled(lab, sorted(left)), "the others have its part", 40)
        routes = lab.cli("exec", "--host", "n1", "--", "ip", "-6", "route", "show", "table", "local").stdout
    assert told["failed"] == [] and told["done"] > 50
    assert "proto 74" in routes and "proto 75" in routes


def address_of(config: str) -> str:
    (line,) = [line for line in config.splitlines() if line.startswith("address")]
    return str(json.loads(line.partition("=")[2]))
