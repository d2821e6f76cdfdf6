"""Delta Lake: several writers append to one table, which only conditional writes keep whole."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

WRITERS, EACH = 4, 5
PLACE = f"s3://{os.environ['BUCKET']}/table"
OPTIONS = {"AWS_ALLOW_HTTP": "true"}  # The rest is in the environment.


def rows(writer: int, *numbers: int) -> pa.Table:
    writers = pa.array([writer] * len(numbers), pa.int64())
    return pa.table({"writer": writers, "number": pa.array(numbers, pa.int64())})


def write(writer: int) -> None:
    for number in range(EACH):
        write_deltalake(PLACE, rows(writer, number), mode="append", storage_options=OPTIONS)


write_deltalake(PLACE, rows(0), storage_options=OPTIONS)
with ThreadPoolExecutor(WRITERS) as pool:
    for _ in pool.map(write, range(WRITERS)):
        pass

expected = [(writer, number) for writer in range(WRITERS) for number in range(EACH)]
table = DeltaTable(PLACE, storage_options=OPTIONS)
assert table.version() == WRITERS * EACH, table.version()


def found() -> list[tuple[int, int]]:
    return sorted((row["writer"], row["number"]) for row in table.to_pyarrow_table().to_pylist())


assert found() == expected, found()
table.optimize.compact()
assert table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
assert found() == expected, found()

# Threads of Arrow that outlive the interpreter abort the process at times: apache/arrow#34314.
os._exit(0)
