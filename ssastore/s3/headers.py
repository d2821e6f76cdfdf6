"""One reading of a request's headers, for those who verify them and those who act on them. Pure.

A header that comes several times has its values joined by commas in their order, as RFC 9110 section 5.3 and
AWS's signatures have it: SDKs send lists so.  Read in part, it would be another request than the one that was
signed.  Where one value is all there can be, a list of them is refused as any other wrong value is; what
decides who asks, or for which host, is refused here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ssastore.s3.errors import S3Error
from ssastore.s3.form import Fields

_CUSTOMER_KEYS = re.compile(
    rb"(?im)((?:^|&)x-amz-(?:copy-source-)?server-side-encryption-customer-key(?:(:)|=))(?(2)[^\n]|[^&\n])*"
)
_SINGLE = frozenset({"authorization", "host", "x-amz-content-sha256", "x-amz-date"})


def folded(headers: Sequence[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Headers as they are signed: by lower-case name, runs of white space made one blank.

    Raises:
        S3Error: InvalidArgument for two of what there can be one of.
    """
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        name = name.lower()
        value = b" ".join(value.split())
        if name in found:
            _check_repeated(name.decode("latin-1"))
            value = found[name] + b"," + value
        found[name] = value
    return found


def joined(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Headers as operations read them: case-insensitive, each once.

    Args:
        headers: case-insensitive; its items may repeat a name, as those of a multi-dict do.

    Raises:
        S3Error: as ``folded``.
    """
    found: dict[str, str] = {}
    is_repeated = False
    # By the items: whether the keys of a multi-dict repeat themselves depends on its version.
    for name, value in headers.items():
        name = name.lower()
        if name in found:
            _check_repeated(name)
            is_repeated, value = True, f"{found[name]},{value}"
        found[name] = value
    return Fields(found) if is_repeated else headers


def without_keys(text: bytes) -> bytes:
    """What is signed, a header a line, with the customer's keys left out: of headers, and of a query."""
    return _CUSTOMER_KEYS.sub(rb"\1(left out)", text)


def _check_repeated(name: str) -> None:
    if name in _SINGLE:
        raise S3Error("InvalidArgument", "A header was given twice.", ArgumentName=name)
