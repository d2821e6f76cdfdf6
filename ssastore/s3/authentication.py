"""The one point of authentication: a request becomes a ``Principal``, or is refused. Pure."""

from __future__ import annotations

from collections.abc import Callable

from ssastore.s3 import sigv4
from ssastore.s3.principal import Principal, SignedRequest
from ssastore.s3.sigv2 import authenticate_url, is_signed_by_v2


def authenticate(
    request: SignedRequest, *, now_ms: int, region: str, secret_of: Callable[[str], str | None]
) -> Principal:
    """Verify the signature of ``request``, in its header or its URL.

    Args:
        secret_of: the secret of an access key id, None if there is no such key. Called once.

    Raises:
        S3Error: as ``sigv4.authenticate`` and ``sigv2.authenticate_url``.
    """
    if is_signed_by_v2(request.query):
        return authenticate_url(request, now_ms=now_ms, secret_of=secret_of)
    return sigv4.authenticate(request, now_ms=now_ms, region=region, secret_of=secret_of)
