"""An S3 endpoint that is there already: MinIO, Garage, Ceph RGW, Swift, or whatever somebody runs.

It is given by its URL; the keys come from the environment, as other S3 tools take them.  The load
makes a bucket of its own and removes it with all that it has put.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench.errors import BenchError, LeftOut
from bench.servers import Foreign, Server

ACCESS_KEY, SECRET, REGION = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"
_REGION_DEFAULT = "us-east-1"


class S3Url:
    """Somebody else's servers: nothing is started, and what they take is only known by their processes."""

    product = "url"
    module = "s3"

    def __init__(self, name: str, url: str, pids: Collection[int] = ()) -> None:
        """``pids`` are the server's processes, where they are on this machine: their children count, too."""
        self.name = name
        self.about = (
            f"S3 endpoint {url}; {'its processes were named' if pids else 'its CPU time is not known'}"
        )
        self.servers: list[Server] = [Foreign(pid) for pid in pids]
        self._url = url.rstrip("/")

    def check(self) -> None:
        """See ``Target.check``."""
        parts = urlsplit(self._url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise LeftOut(f"{self._url} is no URL like http://127.0.0.1:9000")
        if missing := [name for name in (ACCESS_KEY, SECRET) if not os.environ.get(name)]:
            raise LeftOut(f"{missing[0]} is not set")
        try:
            for server in self.servers:
                server.check()
        except BenchError as error:
            raise LeftOut(str(error)) from None

    def start(self, directory: Path, cores: Collection[int]) -> None:
        """It runs already."""

    def settings(self) -> dict[str, Any]:
        """See ``Target.settings``."""
        return {
            "endpoint": self._url,
            "access_key": os.environ[ACCESS_KEY],
            "secret": os.environ[SECRET],
            "region": os.environ.get(REGION, _REGION_DEFAULT),
            "is_kept": False,
        }

    def on_client_host(self, argv: list[str]) -> list[str]:
        """Here."""
        return argv

    def versions(self) -> dict[str, str]:
        """See ``Target.versions``."""
        return {"aiohttp": version("aiohttp")}
