"""One operation id for all attempts of a request, as the SDKs tell it. Pure.

An SDK that gets no answer sends the request again under the same
``amz-sdk-invocation-id``, with a rising number in ``amz-sdk-request``.  A conditional
write must then find its own first attempt, or it is refused for what it has itself
written.  So the id of the operation is derived from the invocation; a client
that sends none gets a fresh one each time.

A write without a condition needs none of this: each attempt is an operation of its
own, and the last one wins as it does at S3.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping

from blake3 import blake3

from ssastore.core.birth import not_after
from ssastore.core.registers import Once
from ssastore.env import Clock
from ssastore.limits import INVOCATIONS_MAX
from ssastore.messages import OP_ID_BYTES
from ssastore.s3.principal import Principal

_INVOCATION = re.compile(r"[\x21-\x7e]{8,128}")
_ATTEMPT = re.compile(r"(?:^|;)\s*attempt=(\d{1,4})\s*(?:;|$)")


def attempt_of(headers: Mapping[str, str]) -> int:
    """Number of the attempt, from 1; 0 when the client does not say what it is an attempt of."""
    if not _INVOCATION.fullmatch(headers.get("amz-sdk-invocation-id", "")):
        return 0
    found = _ATTEMPT.search(headers.get("amz-sdk-request", ""))
    # Without a number nobody knows whether it is the first.
    return max(1, int(found[1])) if found else 2


class Attempts:
    """Knows the births of the latest requests (``core.birth``).

    A first attempt was born when it was signed, or when it came if that is earlier.  SDKs sign each
    attempt anew, so of a request whose first attempt went to another gateway one thing is
    known: it was signed before this one, by the same clock.  That a client's own clock does not go back
    between two attempts is all that is trusted.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._born_ms: OrderedDict[bytes, int] = OrderedDict()

    def once(
        self,
        principal: Principal,
        method: str,
        name: tuple[str, str],
        headers: Mapping[str, str],
        payload: str,
    ) -> Once | None:
        """How the store is to recognise this request; None when the client does not say.

        Args:
            principal: an invocation is one client's own.
            method: of the request.
            name: bucket and key.
            headers: of the request.
            payload: what tells this write from others: its bytes, and the key that they are encrypted by.
        """
        invocation = headers.get("amz-sdk-invocation-id", "")
        if not (attempt := attempt_of(headers)):
            return None
        parts = [principal.access_key, invocation, payload, method, *name]
        encoded = b"".join(len(part).to_bytes(4, "big") + part for part in map(str.encode, parts))
        op_id = blake3(encoded).digest(length=OP_ID_BYTES)
        born_ms = self._born_ms.get(op_id)
        if born_ms is None:
            # The end of the second that it says: what was over before that is no reason for a doubt.
            signed_ms = principal.signed_at_ms + 999
            born_ms = min(self._clock.now_ms(), signed_ms) if attempt == 1 else not_after(signed_ms)
            self._born_ms[op_id] = born_ms
            if len(self._born_ms) > INVOCATIONS_MAX:
                self._born_ms.popitem(last=False)
        elif attempt == 1:
            attempt = 2  # A proxy repeats it, or a client that does not count.
        return Once(op_id, attempt, born_ms)
