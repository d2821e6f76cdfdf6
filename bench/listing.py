"""A bucket of very many keys is listed through S3: first page, all pages, top of the tree, and under moves.

    python -m bench.listing [--keys 1000000] [--replicas 3] [--json]

A lab of four nodes.  The keys are ``00/00/00000000`` and so on: 100 directories of 100 directories.  Pages
are read by a plain HTTP client that finds keys and parses nothing else: an SDK takes longer for a page than
the cluster.  Then every slice of the bucket's shards moves to the node that has none of its group, while
another client puts and deletes, and the bucket is listed again and again.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from threading import Thread
from urllib.parse import quote

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from bench.errors import BenchError
from bench.program import parser_of, run
from bench.servers import START_S, Server
from bench.targets.ssastore import Ssastore
from ssastore.config import open_control
from ssastore.core.numbers import slice_number
from ssastore.core.ordering import ordered_moves
from ssastore.core.settings import MoveSettings, change_move_settings
from ssastore.lab.context import Context
from ssastore.limits import MOVE_BYTES_PER_S_MAX
from ssastore.load import percentile
from ssastore.rebalance import Move, order_moves, read_cluster

BUCKET = "listed"
CHANGING = "~changing/"
"Prefix of keys that come and go while the bucket is listed; behind all others."

_NODES = 4
_FIRST_PAGES = 20
_FILL_S = 3600
_MOVES_S = 3600
_KEY = re.compile(rb"<Key>([^<]*)</Key>")
_PREFIX = re.compile(rb"<CommonPrefixes><Prefix>([^<]*)</Prefix>")
_TOKEN = re.compile(rb"<NextContinuationToken>([^<]*)</NextContinuationToken>")


def key_of(number: int) -> str:
    """The key of an object that stays."""
    return f"{number % 100:02}/{number // 100 % 100:02}/{number:08}"


def gone_key(number: int) -> str:
    """The key of one that was deleted before the first listing."""
    return f"{key_of(number)}~gone"


class Reader:
    """Pages of a bucket over one connection."""

    def __init__(self, found: Context) -> None:
        self._endpoint = f"http://127.0.0.1:{found.s3_port}"
        self._signer = S3SigV4Auth(Credentials(*found.access_key()), "s3", found.region)
        self._connection = http.client.HTTPConnection("127.0.0.1", found.s3_port)

    def page(self, **parameters: str) -> bytes:
        """The document. Raises BenchError for any other answer."""
        parameters["list-type"] = "2"
        query = "&".join(f"{name}={quote(value, safe='')}" for name, value in parameters.items())
        target = f"/{BUCKET}?{query}"
        request = AWSRequest("GET", self._endpoint + target, {"x-amz-content-sha256": "UNSIGNED-PAYLOAD"})
        self._signer.add_auth(request)
        self._connection.request("GET", target, headers=dict(request.headers))
        with self._connection.getresponse() as answer:
            document = answer.read()
        if answer.status != 200:
            raise BenchError(f"a listing was answered by {answer.status}: {document[:200]!r}")
        return document

    def pages(self, **parameters: str) -> Iterator[bytes]:
        """All of them."""
        while True:
            document = self.page(**parameters)
            yield document
            token = _TOKEN.search(document)
            if token is None:
                return
            parameters["continuation-token"] = token[1].decode()

    def keys(self) -> list[bytes]:
        """Those that do not come and go, as they are listed."""
        found: list[bytes] = []
        for document in self.pages():
            found += _KEY.findall(document)
        return [key for key in found if not key.startswith(CHANGING.encode())]


@dataclass(slots=True)
class Result:
    """Figures of one run."""

    keys: int
    replicas: int
    puts_per_s: float
    first_page_ms: list[float]
    "Median and longest of twenty."
    entries_per_s: float
    "Of the whole bucket, listed once."
    page_ms: list[float]
    "Median, p99 and longest of its pages."
    top_ms: float
    "One page of the hundred directories at the top."
    moves: int
    "Slices that changed their owner during the listings below."
    listings: int
    missing: int
    ghosts: int
    disorder: int
    calls: int
    failed: list[str]
    "Puts and deletes beside them."

    @property
    def is_right(self) -> bool:
        """Whether every listing had exactly the keys that it must have."""
        return not (self.missing or self.ghosts or self.disorder or self.failed)

    def table(self) -> str:
        """For people."""
        median, longest = self.first_page_ms
        return (
            f"{self.keys} keys, R={self.replicas}, {_NODES} nodes; written at {self.puts_per_s:.0f}/s\n"
            f"first page          {median:.1f} ms (longest of {_FIRST_PAGES}: {longest:.1f})\n"
            f"all pages           {self.entries_per_s:.0f} entries/s; a page "
            f"{self.page_ms[0]:.1f} ms, p99 {self.page_ms[1]:.1f}, longest {self.page_ms[2]:.1f}\n"
            f"top of the tree     {self.top_ms:.1f} ms, 100 common prefixes\n"
            f"{self.moves} slices moved   {self.listings} listings meanwhile: {self.missing} keys missing, "
            f"{self.ghosts} ghosts, {self.disorder} not in order; {self.calls} calls beside, "
            f"{len(self.failed)} failed" + "".join(f"\n    {reason}" for reason in self.failed[:5])
        )


async def _move(found: Context, groups: list[int]) -> int:
    """Plane by plane, hand every slice of the groups over; how many."""
    control = open_control(found.control, found.secrets_file)
    moved = 0
    try:
        # As fast as they can: else a million keys move for half an hour.
        await change_move_settings(control, lambda known: MoveSettings(MOVE_BYTES_PER_S_MAX))
        async with asyncio.timeout(_MOVES_S):
            for plane in range((await read_cluster(control)).record.replicas):
                cluster = await read_cluster(control)
                names = {node.name for node in cluster.nodes}
                moves = [
                    Move(slice_number(plane, group), min(names - set(cluster.groups[group].owners)))
                    for group in groups
                ]
                await order_moves(control, moves)
                moved += len(moves)
                while await ordered_moves(control):
                    await asyncio.sleep(0.1)
    finally:
        await control.close()
    return moved


def _timed(reader: Reader, **parameters: str) -> tuple[float, bytes]:
    started = time.perf_counter()
    document = reader.page(**parameters)
    return 1000 * (time.perf_counter() - started), document


def measure(directory: Path, keys: int, replicas: int) -> Result:
    """One run in a lab of its own. Raises BenchError, LeftOut."""
    lab = Ssastore(replicas, nodes=_NODES)
    servers: list[Server] = []
    try:
        lab.start(directory, ())
        found = lab.found()
        argv = [sys.executable, "-m", "bench.listfill", str(keys), str(max(1, keys // 50))]
        filler = Server(
            "fill", lab.on_client_host(argv), directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        servers.append(filler)
        print(f"writing {keys} keys", file=sys.stderr)
        filled = filler.answer(_FILL_S)
        print(f"listing; they took {filled['took_s']:.0f} s", file=sys.stderr)
        reader, expected = Reader(found), sorted(key_of(number).encode() for number in range(keys))
        firsts = sorted(_timed(reader)[0] for _ in range(_FIRST_PAGES))
        top_ms, top = _timed(reader, delimiter="/")
        if not {b"%02d/" % number for number in range(min(100, keys))} <= set(_PREFIX.findall(top)):
            raise BenchError("the top of the tree is not complete")
        entries, pages_ms, began = 0, [], time.perf_counter()
        last = began
        for document in reader.pages():
            entries += document.count(b"<Contents>")
            pages_ms.append(1000 * (time.perf_counter() - last))
            last = time.perf_counter()
        took_s = last - began
        pages_ms.sort()

        result = Result(
            keys,
            replicas,
            keys / filled["took_s"],
            [percentile(firsts, 0.5), firsts[-1]],
            entries / took_s,
            [percentile(pages_ms, 0.5), percentile(pages_ms, 0.99), pages_ms[-1]],
            top_ms,
            *(0, 0, 0, 0, 0, 0, []),
        )
        if replicas < _NODES:
            print(f"moving; {entries} entries took {took_s:.1f} s", file=sys.stderr)
            mover = Thread(
                target=lambda: setattr(result, "moves", asyncio.run(_move(found, filled["groups"])))
            )
            mover.start()
            is_last = False
            while not is_last:
                is_last = not mover.is_alive()
                _judge(result, reader.keys(), expected)
            if not result.moves:
                raise BenchError("the slices did not move")
        output, _ = filler.process.communicate(timeout=START_S)
        changed = json.loads(output)
        result.calls, result.failed = changed["calls"], changed["failed"]
        return result
    finally:
        for server in [*reversed(servers), *lab.servers]:
            server.stop()


def _judge(result: Result, listed: list[bytes], expected: list[bytes]) -> None:
    result.listings += 1
    if listed != expected:
        result.missing += len(set(expected) - set(listed))
        result.ghosts += len(set(listed) - set(expected))
        result.disorder += sum(here >= following for here, following in pairwise(listed))


def main() -> int:
    """Run; exit code 0, or 1 when it could not be measured or a listing was wrong."""
    parser = parser_of("listing", __doc__)
    parser.add_argument("--keys", type=int, default=1_000_000, help="in the bucket; default 1000000")
    parser.add_argument("--replicas", type=int, choices=(1, 3), default=3, help="default 3")
    return run(parser, lambda folder, options: measure(folder, options.keys, options.replicas))


if __name__ == "__main__":
    sys.exit(main())
