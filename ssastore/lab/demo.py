"""``make demo``: the main job from nothing, with real data, in one go.

Starts a lab of 4 nodes, stores this Python's standard library and one file of
256 MiB through boto3 and through the native client, reads all of it back and
compares every byte, then shows with the kernel's own route tables that the keys
were found by their addresses alone.  At the end a second lab changes under load (``lab.moves``).  Leaves
nothing running and nothing behind.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path
from typing import Any

from ssastore.client import AsyncClient
from ssastore.lab.processes import free_port
from ssastore.lab.status import fetch
from ssastore.system import run

NODES = 4
BIG_BYTES = 256 * 2**20
BUCKET = "demo"
MOVED_OBJECTS = 300
_PIECE_BYTES = 1 << 20
_AT_ONCE = 32
_BOTO_THREADS = 8
_SHOWN_KEYS = 4
_ROUTED_KEYS = 1000


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    front: str
    files: int
    bytes: int
    put_s: float
    get_s: float


def source_files(big: Path) -> dict[str, Path]:
    """Key -> file: the standard library without caches and installed packages, and the big file."""
    root = Path(sysconfig.get_path("stdlib"))
    left_out = {"__pycache__", "site-packages"}
    files = {
        f"stdlib/{path.relative_to(root)}": path
        for path in sorted(root.rglob("*"))
        if path.is_file() and not left_out & set(path.parts)
    }
    return files | {"big/random.bin": big}


def write_big(path: Path) -> None:
    """Random bytes, so that no layer can cheat by compressing or sharing them."""
    source = random.Random(os.urandom(16))  # noqa: S311
    with open(path, "wb") as file:
        for _ in range(BIG_BYTES // _PIECE_BYTES):
            file.write(source.randbytes(_PIECE_BYTES))


def _ssastore(*arguments: str, context: str = "", **options: Any) -> subprocess.CompletedProcess[str]:
    prefix = [sys.executable, "-m", "ssastore", *(["--context", context] if context else [])]
    return subprocess.run([*prefix, *arguments], check=True, text=True, **options)


# -- boto3 ------------------------------------------------------------------------------------------


def through_boto3(files: dict[str, Path], s3_port: int, key: str, secret: str) -> Row:
    """Store and read back everything with an unmodified S3 client in default settings."""
    import boto3

    s3 = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{s3_port}",
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        region_name="us-east-1",
    )
    s3.create_bucket(Bucket=BUCKET)

    def put(entry: tuple[str, Path]) -> None:
        s3.upload_file(str(entry[1]), BUCKET, entry[0])

    def check(entry: tuple[str, Path]) -> int:
        body = s3.get_object(Bucket=BUCKET, Key=entry[0])["Body"]
        return _compare(entry[0], entry[1], iter(lambda: body.read(_PIECE_BYTES), b""))

    with ThreadPoolExecutor(_BOTO_THREADS) as pool:
        started = time.perf_counter()
        list(pool.map(put, files.items()))
        stored = time.perf_counter()
        total = sum(pool.map(check, files.items()))
        ended = time.perf_counter()
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    listed = [entry["Key"] for page in pages for entry in page["Contents"]]
    if listed != sorted(files, key=str.encode):
        raise SystemExit("demo: the listing is not what was stored")
    return Row("boto3 (S3)", len(files), total, stored - started, ended - stored)


def _compare(key: str, path: Path, pieces: Iterator[bytes]) -> int:
    """Bytes compared; exits when one differs."""
    size = 0
    with open(path, "rb") as file:
        for piece in pieces:
            if file.read(len(piece)) != piece:
                raise SystemExit(f"demo: {key} came back different at byte {size}")
            size += len(piece)
        if file.read(1):
            raise SystemExit(f"demo: {key} came back short, at {size} bytes")
    return size


# -- native client, as a process on the lab's client host -------------------------------------------


async def native(manifest: str) -> None:
    """Store and read back everything with the native client; prints its row and evidence as JSON."""
    files = {key: Path(path) for key, path in json.loads(Path(manifest).read_text()).items()}
    async with AsyncClient.from_env() as client:
        bucket = await client.create_bucket(f"{BUCKET}-native")
        gate = asyncio.Semaphore(_AT_ONCE)

        async def put(key: str, path: Path) -> None:
            async with gate:
                with open(path, "rb") as file:
                    await bucket.put(key, file)

        async def check(key: str, path: Path) -> int:
            async with gate:
                reader = await bucket.open(key)
                with open(path, "rb") as file:
                    async for piece in reader:
                        if file.read(len(piece)) != piece:
                            raise SystemExit(f"demo: {key} came back different")
                    if file.read(1):
                        raise SystemExit(f"demo: {key} came back short")
                return reader.size

        started = time.perf_counter()
        await asyncio.gather(*[put(*entry) for entry in files.items()])
        stored = time.perf_counter()
        total = sum(await asyncio.gather(*[check(*entry) for entry in files.items()]))
        ended = time.perf_counter()
        keys = list(files)
        addresses = [(await bucket.locate(key)).addresses[0] for key in keys[:_ROUTED_KEYS]]
        evidence = [await bucket.explain(key) for key in keys[:: max(1, len(keys) // _SHOWN_KEYS)]]
        print(
            json.dumps(
                {
                    "row": [len(files), total, stored - started, ended - stored],
                    "addresses": addresses,
                    "explained": evidence[:_SHOWN_KEYS],
                    "connections": client.pool.connection_count,
                }
            )
        )


# -- evidence ---------------------------------------------------------------------------------------


def kernel_routes(text: str, service: IPv6Network) -> list[tuple[IPv6Network, str]]:
    """(prefix, next hop or device) of ``/proc/net/ipv6_route`` inside the service prefix."""
    routes = []
    for line in text.splitlines():
        fields = line.split()
        prefix = IPv6Network((int(fields[0], 16), int(fields[1], 16)))
        if prefix.prefixlen >= service.prefixlen and prefix.subnet_of(service):
            hop = IPv6Address(int(fields[4], 16))
            routes.append((prefix, str(hop) if int(hop) else f"dev {fields[9]}"))
    return routes


def next_hop(routes: list[tuple[IPv6Network, str]], address: str) -> str:
    """Longest-prefix match, as the kernel does it."""
    found = [route for route in routes if IPv6Address(address) in route[0]]
    return max(found, key=lambda route: route[0].prefixlen)[1]


def show_evidence(found: dict[str, Any], status: dict[str, Any], context: str) -> None:
    """Print how keys were found, and check it against the kernel's tables and the nodes' accept logs."""
    service = IPv6Network(status["service"])
    table = _ssastore(
        "exec",
        "--host",
        "router",
        "--",
        "cat",
        "/proc/net/ipv6_route",
        context=context,
        stdout=subprocess.PIPE,
    ).stdout
    routes = kernel_routes(table, service)
    nodes = {node["address"]: node for node in status["nodes"]}
    print("\nthe router's own table (/proc/net/ipv6_route):")
    for prefix, hop in routes:
        if hop in nodes:
            print(f"  {prefix!s:32} via {hop}  = {nodes[hop]['name']}")
    print("\nkeys, their computed addresses, and where the kernel sends them:")
    for steps in found["explained"]:
        where = steps["location"]
        owner = nodes[next_hop(routes, where["addresses"][0])]
        print(f"  {where['name'][:40]:40} {where['addresses'][0]:38} {owner['name']}  {steps['object'][:24]}")
        dialled = owner["workers"][0]["accept_log"]
        if where["addresses"][0] not in dialled:
            raise SystemExit(f"demo: {owner['name']} never accepted a connection to {where['addresses'][0]}")
    owners = [nodes[next_hop(routes, address)]["name"] for address in found["addresses"]]
    shares = ", ".join(f"{name} {owners.count(name)}" for name in sorted(set(owners)))
    print(f"\n{len(owners)} keys by the router's table: {shares}")
    print("each node's accept log holds the very addresses that explain computed; no node was ever asked")
    print(f"where a key is: the native client used {found['connections']} connections, learnt by dialling")


def table(rows: list[Row]) -> str:
    """The result as text."""
    lines = [f"{'':12} {'files':>6} {'MiB':>7} {'put s':>7} {'get s':>7} {'put MiB/s':>10} {'get MiB/s':>10}"]
    for row in rows:
        mib = row.bytes / 2**20
        lines.append(
            f"{row.front:12} {row.files:6} {mib:7.0f} {row.put_s:7.1f} {row.get_s:7.1f} "
            f"{mib / row.put_s:10.0f} {mib / row.get_s:10.0f}"
        )
    return "\n".join(lines)


def main() -> None:
    """Run the demo; exits 0 only when every byte came back."""
    if len(sys.argv) == 3 and sys.argv[1] == "native":
        run(native(sys.argv[2]))
        return
    started = time.perf_counter()
    directory = Path(tempfile.mkdtemp(prefix="ssastore-demo-"))
    context = f"demo-{os.getpid()}"
    s3_port, admin_port = free_port(), free_port()
    ports = ["--s3-port", str(s3_port), "--admin-port", str(admin_port)]
    try:
        _ssastore(
            "up", "--nodes", str(NODES), "--name", context, "--data", f"{directory}/lab", *ports, "--detach"
        )
        try:
            _demonstrate(directory, context, s3_port, admin_port)
        finally:
            _ssastore("down", context=context)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print("\nevery byte compared equal; now a cluster that changes while clients work", flush=True)
    moves = [sys.executable, "-m", "ssastore.lab.moves", "--objects", str(MOVED_OBJECTS), "--short"]
    subprocess.run(moves, check=True)
    print(f"\nboth labs are gone; {time.perf_counter() - started:.0f} s in all")


def _demonstrate(directory: Path, context: str, s3_port: int, admin_port: int) -> None:
    files = source_files(directory / "random.bin")
    write_big(directory / "random.bin")
    manifest = directory / "files.json"
    manifest.write_text(json.dumps({key: str(path) for key, path in files.items()}))
    print(
        f"\nstoring {len(files)} files: the standard library of this Python, and one of 256 MiB", flush=True
    )
    variables = json.loads(_ssastore("s3", "env", "--json", context=context, stdout=subprocess.PIPE).stdout)
    rows = [through_boto3(files, s3_port, variables["AWS_ACCESS_KEY_ID"], variables["AWS_SECRET_ACCESS_KEY"])]
    command = [sys.executable, "-m", "ssastore.lab.demo", "native", str(manifest)]
    output = _ssastore("exec", "--", *command, context=context, stdout=subprocess.PIPE).stdout
    found = json.loads(output)
    rows.append(Row("native", *found["row"]))
    show_evidence(found, fetch(admin_port, "/status")[1], context)
    print(f"\n{table(rows)}")


if __name__ == "__main__":
    main()
