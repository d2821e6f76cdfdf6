"""The control store of a lab, for the commands that need it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ssastore.config import open_control
from ssastore.control.address import parse_control
from ssastore.env import ControlStore
from ssastore.lab.context import Context

T = TypeVar("T")


def with_control(found: Context, work: Callable[[ControlStore], Awaitable[T]]) -> T:
    """Do something with the control store. An etcd is reached from inside the lab: this process enters it."""
    if parse_control(found.control) is not None:
        found.enter()

    async def run() -> T:
        control = open_control(found.control, found.secrets_file)
        try:
            return await work(control)
        finally:
            await control.close()

    return asyncio.run(run())
