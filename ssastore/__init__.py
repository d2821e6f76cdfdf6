"""ssastore: an object store whose clients compute the address of the node that holds an object.

Public names::

    from ssastore import AsyncClient, Client, SsaStoreError
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssastore.blocking import Bucket, Client, Reader
    from ssastore.client import AsyncBucket, AsyncClient
    from ssastore.core.locate import Location
    from ssastore.core.objects import CommonPrefix, ObjectInfo, ObjectReader
    from ssastore.errors import (
        AccessDenied,
        BucketAlreadyExists,
        BucketNotEmpty,
        BucketNotFound,
        ConfigError,
        CorruptObject,
        InvalidBucketName,
        InvalidKey,
        NotFound,
        ObjectNotFound,
        ObjectTooLarge,
        OutcomeUnknown,
        PreconditionFailed,
        QuotaExceeded,
        RangeNotSatisfiable,
        SsaStoreError,
        StoreFull,
        Unavailable,
    )

__version__ = "0.1.0"

_HOMES = {
    "ssastore.blocking": ("Bucket", "Client", "Reader"),
    "ssastore.client": ("AsyncBucket", "AsyncClient"),
    "ssastore.core.locate": ("Location",),
    "ssastore.core.objects": ("CommonPrefix", "ObjectInfo", "ObjectReader"),
    "ssastore.errors": (
        "AccessDenied",
        "BucketAlreadyExists",
        "BucketNotEmpty",
        "BucketNotFound",
        "ConfigError",
        "CorruptObject",
        "InvalidBucketName",
        "InvalidKey",
        "NotFound",
        "ObjectNotFound",
        "ObjectTooLarge",
        "OutcomeUnknown",
        "PreconditionFailed",
        "QuotaExceeded",
        "RangeNotSatisfiable",
        "SsaStoreError",
        "StoreFull",
        "Unavailable",
    ),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AccessDenied",
    "AsyncBucket",
    "AsyncClient",
    "Bucket",
    "BucketAlreadyExists",
    "BucketNotEmpty",
    "BucketNotFound",
    "Client",
    "CommonPrefix",
    "ConfigError",
    "CorruptObject",
    "InvalidBucketName",
    "InvalidKey",
    "Location",
    "NotFound",
    "ObjectInfo",
    "ObjectNotFound",
    "ObjectReader",
    "ObjectTooLarge",
    "OutcomeUnknown",
    "PreconditionFailed",
    "QuotaExceeded",
    "RangeNotSatisfiable",
    "Reader",
    "SsaStoreError",
    "StoreFull",
    "Unavailable",
    "__version__",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use: the command line must not pay for the client to print help."""
    from importlib import import_module

    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'ssastore' has no attribute {name!r}")
    return getattr(import_module(home), name)
