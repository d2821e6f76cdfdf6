"""Objects of very many parts through S3: what each part, the listing of parts and the completion cost.

    python -m bench.multipart [--parts 1250 2500 5000 10000] [--replicas 3] [--json]

A lab of four nodes.  Every part is 5 MiB, copied by UploadPartCopy from one object, so 10,000 parts are an
object of 48.8 GiB that takes no room.  It is read at the seams of parts afterwards, and compared.
"""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import boto3

from bench.errors import BenchError
from bench.program import parser_of, run
from bench.targets.ssastore import Ssastore
from ssastore.lab.context import Context
from ssastore.load import MIB

_NODES = 4
_PART = 5 * MIB
_CALLERS = 8
BUCKET = "parts"


@dataclass(frozen=True, slots=True)
class Row:
    """One object."""

    parts: int
    gib: float
    part_ms: float
    "Of wall clock for each part, several at a time."
    list_ms: float
    "For each page of a thousand parts."
    complete_s: float
    complete_us_each: float
    "The same for each part: alike in all rows when the time is linear."
    head_ms: float
    range_ms: float
    "Median of the reads."


@dataclass(frozen=True, slots=True)
class Result:
    """All objects. They were compared as they were read."""

    rows: list[Row]

    @property
    def is_right(self) -> bool:
        """A read that differs is an error, which ends it all."""
        return True

    def table(self) -> str:
        """For people."""
        heads = ("parts", "GiB", "a part ms", "list ms", "complete s", "us a part", "head ms", "range ms")
        widths = (7, 8, 11, 9, 12, 11, 9, 10)
        lines = ["".join(f"{head:>{width}}" for head, width in zip(heads, widths, strict=True))]
        lines += [
            f"{row.parts:7}{row.gib:8.1f}{row.part_ms:11.2f}{row.list_ms:9.1f}{row.complete_s:12.2f}"
            f"{row.complete_us_each:11.0f}{row.head_ms:9.1f}{row.range_ms:10.1f}"
            for row in self.rows
        ]
        return "\n".join(lines)


def _client(found: Context) -> Any:
    name, secret = found.access_key()
    return boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{found.s3_port}",
        aws_access_key_id=name,
        aws_secret_access_key=secret,
        region_name=found.region,
    )


def _timed(work: Any) -> tuple[float, Any]:
    started = time.perf_counter()
    answer = work()
    return time.perf_counter() - started, answer


def _range(s3: Any, target: dict[str, Any], span: str) -> Any:
    return s3.get_object(**target, Range=span)["Body"].read()


def _made(s3: Any, data: bytes, parts: int) -> Row:
    target = {"Bucket": BUCKET, "Key": f"of-{parts}"}
    target["UploadId"] = s3.create_multipart_upload(**target)["UploadId"]

    def copy(number: int) -> dict[str, Any]:
        source = {"Bucket": BUCKET, "Key": "source"}
        found = s3.upload_part_copy(**target, PartNumber=number, CopySource=source)["CopyPartResult"]
        return {"PartNumber": number, "ETag": found["ETag"]}

    with ThreadPoolExecutor(_CALLERS) as pool:
        copied_s, named = _timed(lambda: list(pool.map(copy, range(1, parts + 1))))
    pages = s3.get_paginator("list_parts").paginate(**target)
    listed_s, listed = _timed(lambda: [part["PartNumber"] for page in pages for part in page["Parts"]])
    if listed != list(range(1, parts + 1)):
        raise BenchError(f"{len(listed)} parts are listed of {parts}")
    complete_s, _ = _timed(lambda: s3.complete_multipart_upload(**target, MultipartUpload={"Parts": named}))
    del target["UploadId"]
    head_s, head = _timed(lambda: s3.head_object(**target))
    if head["ContentLength"] != parts * _PART:
        raise BenchError(f"the object has {head['ContentLength']} bytes")
    took = []
    for seam in range(1, parts, max(1, parts // 20)):
        first = seam * _PART - 7
        seconds, found = _timed(partial(_range, s3, target, f"bytes={first}-{first + 13}"))
        if found != data[-7:] + data[:7]:
            raise BenchError(f"the bytes around {seam * _PART} are wrong")
        took.append(1000 * seconds)
    return Row(
        parts,
        parts * _PART / 2**30,
        1000 * copied_s / parts,
        1000 * listed_s / max(1, -(-parts // 1000)),
        complete_s,
        1e6 * complete_s / parts,
        1000 * head_s,
        sorted(took)[len(took) // 2],
    )


def measure(directory: Path, counts: list[int], replicas: int) -> Result:
    """In a lab of its own. Raises BenchError, LeftOut."""
    lab = Ssastore(replicas, nodes=_NODES)
    try:
        lab.start(directory, ())
        s3, data = _client(lab.found()), os.urandom(_PART)
        s3.create_bucket(Bucket=BUCKET)
        s3.put_object(Bucket=BUCKET, Key="source", Body=data)
        return Result([_made(s3, data, parts) for parts in counts])
    finally:
        for server in lab.servers:
            server.stop()


def main() -> int:
    """Run; exit code 0, or 1 when it could not be measured."""
    parser = parser_of("multipart", __doc__)
    parser.add_argument("--parts", type=int, nargs="+", default=[1250, 2500, 5000, 10_000])
    parser.add_argument("--replicas", type=int, choices=(1, 3), default=3, help="default 3")
    return run(parser, lambda folder, options: measure(folder, options.parts, options.replicas))


if __name__ == "__main__":
    sys.exit(main())
