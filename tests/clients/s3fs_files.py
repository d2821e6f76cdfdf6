"""s3fs (fsspec over aiobotocore): files, multipart uploads, ranges, exclusive creation, attributes, moves."""

from __future__ import annotations

import os

import s3fs

system = s3fs.S3FileSystem()  # All settings by environment.
system.mkdir("made-by-s3fs")

large = os.urandom(60 << 20)
with system.open("made-by-s3fs/a/large", "wb") as file:
    file.write(large)
assert system.cat("made-by-s3fs/a/large") == large
assert system.cat_file("made-by-s3fs/a/large", start=5, end=50) == large[5:50]
with system.open("made-by-s3fs/a/large", "rb", block_size=1 << 20) as file:
    file.seek(-7, os.SEEK_END)
    assert file.read() == large[-7:]

system.pipe_file("made-by-s3fs/once", b"1", mode="create")
try:
    system.pipe_file("made-by-s3fs/once", b"2", mode="create")
except OSError:
    pass
else:
    raise AssertionError("created twice")
assert system.cat("made-by-s3fs/once") == b"1"

system.setxattr("made-by-s3fs/once", colour="red")
assert system.getxattr("made-by-s3fs/once", "colour") == "red"
system.put_tags("made-by-s3fs/once", {"project": "alpha"})
assert system.get_tags("made-by-s3fs/once") == {"project": "alpha"}
system.mv("made-by-s3fs/a/large", "made-by-s3fs/b/large")
system.touch("made-by-s3fs/empty")
system.invalidate_cache()
assert system.find("made-by-s3fs") == ["made-by-s3fs/b/large", "made-by-s3fs/empty", "made-by-s3fs/once"]
assert system.info("made-by-s3fs/b/large")["size"] == len(large)
system.rm("made-by-s3fs", recursive=True)
assert not system.exists("made-by-s3fs")
