"""minio-py: streams of unknown length, copies, composed objects, tags, presigned URLs, versions."""

from __future__ import annotations

import io
import os
import urllib.request

from minio import Minio
from minio.commonconfig import ENABLED, ComposeSource, CopySource, Tags
from minio.deleteobjects import DeleteObject
from minio.versioningconfig import VersioningConfig

BUCKET = "made-by-minio"
MIB = 1 << 20

client = Minio(
    os.environ["AWS_ENDPOINT_URL"].removeprefix("http://"),
    access_key=os.environ["AWS_ACCESS_KEY_ID"],
    secret_key=os.environ["AWS_SECRET_ACCESS_KEY"],
    region=os.environ["AWS_DEFAULT_REGION"],
    secure=False,
)
assert not client.bucket_exists(bucket_name=BUCKET)
client.make_bucket(bucket_name=BUCKET)

large = os.urandom(11 * MIB)
client.put_object(
    bucket_name=BUCKET, object_name="large", data=io.BytesIO(large), length=-1, part_size=5 * MIB
)
with client.get_object(bucket_name=BUCKET, object_name="large") as answer:
    assert answer.read() == large
with client.get_object(bucket_name=BUCKET, object_name="large", offset=5 * MIB - 3, length=6) as answer:
    assert answer.read() == large[5 * MIB - 3 :][:6]

client.put_object(
    bucket_name=BUCKET,
    object_name="dir/smäll +1",
    data=io.BytesIO(b"hello"),
    length=5,
    content_type="text/plain",
    metadata={"colour": "red"},
)
found = client.stat_object(bucket_name=BUCKET, object_name="dir/smäll +1")
assert (found.size, found.content_type) == (5, "text/plain")
assert found.metadata is not None and found.metadata["x-amz-meta-colour"] == "red"

source = CopySource(bucket_name=BUCKET, object_name="dir/smäll +1")
client.copy_object(bucket_name=BUCKET, object_name="copy", source=source)
whole = ComposeSource(bucket_name=BUCKET, object_name="large")
client.compose_object(bucket_name=BUCKET, object_name="twice", sources=[whole, whole])
with client.get_object(bucket_name=BUCKET, object_name="twice") as answer:
    assert answer.read() == large * 2

tags = Tags.new_object_tags()
tags["project"] = "alpha"
client.set_object_tags(bucket_name=BUCKET, object_name="copy", tags=tags)
assert client.get_object_tags(bucket_name=BUCKET, object_name="copy") == tags

with urllib.request.urlopen(client.presigned_get_object(bucket_name=BUCKET, object_name="copy")) as answer:
    assert answer.read() == b"hello"

names = [entry.object_name for entry in client.list_objects(bucket_name=BUCKET, recursive=True)]
assert names == ["copy", "dir/smäll +1", "large", "twice"], names
top = [str(entry.object_name) for entry in client.list_objects(bucket_name=BUCKET)]
assert sorted(top) == ["copy", "dir/", "large", "twice"], top

client.set_bucket_versioning(bucket_name=BUCKET, config=VersioningConfig(ENABLED))
client.put_object(bucket_name=BUCKET, object_name="copy", data=io.BytesIO(b"again"), length=5)
client.remove_object(bucket_name=BUCKET, object_name="copy")
versions = list(client.list_objects(bucket_name=BUCKET, recursive=True, include_version=True))
copies = [entry.is_delete_marker for entry in versions if entry.object_name == "copy"]
assert sorted(copies) == [False, False, True], copies
gone = [DeleteObject(entry.object_name, entry.version_id) for entry in versions]
assert list(client.remove_objects(bucket_name=BUCKET, delete_object_list=gone)) == []
client.remove_bucket(bucket_name=BUCKET)
