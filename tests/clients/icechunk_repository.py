"""Icechunk (versioned arrays): of two commits on one parent one is refused, rebases, and both are there."""

from __future__ import annotations

import os

import icechunk
import zarr

storage = icechunk.s3_storage(
    bucket=os.environ["BUCKET"],
    prefix="repository",
    endpoint_url=os.environ["AWS_ENDPOINT_URL"],
    region=os.environ["AWS_DEFAULT_REGION"],
    from_env=True,
    allow_http=True,
    force_path_style=True,
)
repository = icechunk.Repository.create(storage)
session = repository.writable_session("main")
array = zarr.group(session.store).create_array("numbers", shape=(100,), chunks=(10,), dtype="i4")
array[:] = range(100)
session.commit("one")

first, second = repository.writable_session("main"), repository.writable_session("main")
zarr.open_group(first.store)["numbers"][0:10] = 7
zarr.open_group(second.store)["numbers"][50:60] = 8
first.commit("two")
try:
    second.commit("three")
except icechunk.ConflictError:
    pass
else:
    raise AssertionError("a commit overwrote another one")
second.rebase(icechunk.ConflictDetector())
second.commit("three")

numbers = zarr.open_group(repository.readonly_session("main").store, mode="r")["numbers"][:]
assert [int(numbers[at]) for at in (0, 9, 10, 49, 50, 59, 60, 99)] == [7, 7, 10, 49, 8, 8, 60, 99]
messages = [found.message for found in repository.ancestry(branch="main")]
assert messages == ["three", "two", "one", "Repository initialized"], messages
