"""``ssa://`` for fsspec, and so for pandas, Dask, zarr, DuckDB and whatever else opens files by URL.

    fsspec.open("ssa://[2001:db8:5a:1:0:0:0:0]/photos/cat.jpg")    the service stands in the URL
    fsspec.filesystem("ssa", service="2001:db8:5a:1::/64")         or in the storage options
    fsspec.open("ssa://photos/cat.jpg")                            or in SSASTORE_URL

Invariants: a file opened for reading is one version to its end; a file opened for writing is seen whole
after ``close`` or never; a listing is complete or it raises; nothing is cached unless asked for.
"""

from ssastore.fsspec.file import SsaFile
from ssastore.fsspec.filesystem import SsaFileSystem

__all__ = ["SsaFile", "SsaFileSystem"]
