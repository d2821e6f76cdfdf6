"""pyarrow's S3 file system: Parquet files, a partitioned data set, streams, moves, directories."""

from __future__ import annotations

import os

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as fs
import pyarrow.parquet as pq

ROWS = 500_000

system = fs.S3FileSystem(
    access_key=os.environ["AWS_ACCESS_KEY_ID"],
    secret_key=os.environ["AWS_SECRET_ACCESS_KEY"],
    endpoint_override=os.environ["AWS_ENDPOINT_URL"].removeprefix("http://"),
    scheme="http",
    region=os.environ["AWS_DEFAULT_REGION"],
    allow_bucket_creation=True,
    allow_bucket_deletion=True,
)
system.create_dir("arrow/tables")
table = pa.table({"n": range(ROWS), "group": [number % 5 for number in range(ROWS)]})
pq.write_table(table, "arrow/tables/one.parquet", filesystem=system)
assert pq.read_table("arrow/tables/one.parquet", filesystem=system) == table
ds.write_dataset(table, "arrow/parts", filesystem=system, format="parquet", partitioning=["group"])
parts = ds.dataset("arrow/parts", filesystem=system, format="parquet", partitioning=["group"])
assert parts.count_rows() == ROWS
assert parts.to_table(filter=ds.field("group") == 3).num_rows == ROWS // 5

data = os.urandom(1 << 20)
with system.open_output_stream("arrow/large") as stream:
    for _ in range(25):
        stream.write(data)
with system.open_input_file("arrow/large") as file:
    assert file.size() == 25 << 20
    file.seek((24 << 20) - 5)
    assert file.read(10) == data[-5:] + data[:5]
system.move("arrow/large", "arrow/moved")
system.copy_file("arrow/moved", "arrow/copied")
kinds = {info.path: info.type for info in system.get_file_info(fs.FileSelector("arrow"))}
assert kinds == {
    "arrow/copied": fs.FileType.File,
    "arrow/moved": fs.FileType.File,
    "arrow/parts": fs.FileType.Directory,
    "arrow/tables": fs.FileType.Directory,
}, kinds
system.delete_dir("arrow")
assert system.get_file_info("arrow").type == fs.FileType.NotFound
