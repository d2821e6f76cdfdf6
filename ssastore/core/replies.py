"""What a request to an acceptor is answered, or refused with. Pure."""

from __future__ import annotations

from typing import Any

from ssastore.core.operations import REFUSALS, Result
from ssastore.messages import Status

_APPLIED = int(Result.APPLIED)

Reply = tuple[list[Any], bytes | memoryview]
"""Header items after the request id (status first, put in front by the shell) and body."""


class Refusal(Exception):
    """A request that gets a status other than OK. Raised before anything is written."""

    def __init__(self, status: Status, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


def reply_of(result: int, modified_ms: int) -> Reply:
    """The reply of a decided write. Raises Refusal when it was refused."""
    if result in REFUSALS:
        raise Refusal(*REFUSALS[Result(result)])
    return [modified_ms, result == _APPLIED], b""
