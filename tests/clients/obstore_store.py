"""obstore (the object_store of Rust): conditional writes by create and by ETag, parts, renames, listings."""

from __future__ import annotations

import asyncio
import os

import obstore
from obstore.store import S3Store

store = S3Store(
    os.environ["BUCKET"],
    endpoint=os.environ["AWS_ENDPOINT_URL"],
    access_key_id=os.environ["AWS_ACCESS_KEY_ID"],
    secret_access_key=os.environ["AWS_SECRET_ACCESS_KEY"],
    region=os.environ["AWS_DEFAULT_REGION"],
    client_options={"allow_http": True},
)

large = os.urandom(20 << 20)
store.put("a/large", large)
assert bytes(store.get("a/large").bytes()) == large
assert bytes(store.get_range("a/large", start=9_999_999, length=1000)) == large[9_999_999:][:1000]
pieces = store.get_ranges("a/large", starts=[1, 6_000_000], ends=[5, 6_000_009])
assert [bytes(piece) for piece in pieces] == [large[1:5], large[6_000_000:6_000_009]]

store.put("lock", b"1", mode="create")
try:
    store.put("lock", b"2", mode="create")
except obstore.exceptions.AlreadyExistsError:
    pass
else:
    raise AssertionError("created twice")
seen = store.head("lock")["e_tag"]
store.put("lock", b"3", mode={"e_tag": seen})
try:
    store.put("lock", b"4", mode={"e_tag": seen})
except obstore.exceptions.PreconditionError:
    pass
else:
    raise AssertionError("replaced what had changed meanwhile")
assert bytes(store.get("lock").bytes()) == b"3"

store.copy("lock", "copied")
store.rename("copied", "renamed")
assert [entry["path"] for page in store.list() for entry in page] == ["a/large", "lock", "renamed"]
found = store.list_with_delimiter()
assert list(found["common_prefixes"]) == ["a"]


async def at_once() -> None:
    await asyncio.gather(*(store.put_async(f"many/{number:03}", b"%d" % number) for number in range(100)))
    assert len([entry for page in store.list("many") for entry in page]) == 100
    await store.delete_async([f"many/{number:03}" for number in range(100)])


asyncio.run(at_once())
store.delete(["a/large", "lock", "renamed"])
assert [entry for page in store.list() for entry in page] == []
