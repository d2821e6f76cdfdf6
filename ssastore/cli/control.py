"""The control store of a lab, for the commands that need it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from ssastore.env import ControlStore
    from ssastore.lab.context import Context

T = TypeVar("T")


def with_control(found: Context | str | None, work: Callable[[ControlStore], Awaitable[T]]) -> T:
    """Do something with the control store of a lab, or of the one that a context names.

    An etcd is reached from inside the lab: this process enters it.
    """
    import asyncio

    from ssastore.config import open_control
    from ssastore.control.address import parse_control
    from ssastore.lab.context import Context, find

    lab = found if isinstance(found, Context) else find(found)
    if parse_control(lab.control) is not None:
        lab.enter()

    async def run() -> T:
        control = open_control(lab.control, lab.secrets_file)
        try:
            return await work(control)
        finally:
            await control.close()

    return asyncio.run(run())
