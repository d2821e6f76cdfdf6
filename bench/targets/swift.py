"""OpenStack Swift with s3api: a proxy, and an account, container and object server for each copy.

Swift reads ``swift.conf`` and its rings in one folder of the system.  What is there stays as it is: our
servers see a folder of the run in that place, in a mount namespace of their own.

Configuration: the deployment guide of Swift, and the manual of its middleware (s3api, tempauth).
"""

from __future__ import annotations

import pwd
import subprocess
from collections.abc import Collection
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.errors import LeftOut
from bench.servers import START_S, Server, free_ports, program

SYSTEM_FOLDER = Path("/etc/swift")
KINDS = ("account", "container", "object")
_USER, _KEY = "bench:bench", "benching"
_PART_POWER = 8

# The namespace is entered by a shell as root of it, who may mount. The server is somebody else in one more:
# as root it would want to drop groups, which is denied there.
_NOBODY = pwd.getpwnam("nobody")
_INSIDE = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
_SHELL = (
    f'mount --bind "$0" {SYSTEM_FOLDER} && '
    f'exec unshare --user --map-user={_NOBODY.pw_uid} --map-group={_NOBODY.pw_gid} "$@"'
)

_SWIFT = """[swift-hash]
swift_hash_path_prefix = bench
swift_hash_path_suffix = bench
[storage-policy:0]
name = one
default = yes
"""

_PIPELINE = (
    "catch_errors gatekeeper healthcheck cache listing_formats s3api tempauth slo dlo versioned_writes"
)

_PROXY = """[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = {workers}
user = nobody
log_level = ERROR
[pipeline:main]
pipeline = {pipeline} proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
allow_account_management = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:healthcheck]
use = egg:swift#healthcheck
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:{cache_port}
memcache_max_connections = 64
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
[filter:tempauth]
use = egg:swift#tempauth
user_{user} = {key} .admin
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
[filter:versioned_writes]
use = egg:swift#versioned_writes
allow_versioned_writes = true
"""

_STORAGE = """[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = {workers}
user = nobody
devices = {devices}
mount_check = false
log_level = ERROR
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
"""


class Swift:
    """All servers on ports of 127.0.0.1; every PUT is synced by the object server."""

    product = "swift"
    module = "s3"

    def __init__(self, replicas: int = 1, *, workers: int = 1) -> None:
        self.name = "Swift" if replicas == 1 else f"Swift R={replicas}"
        count = "1 worker" if workers == 1 else f"{workers} workers"
        copies = "1 copy" if replicas == 1 else f"{replicas} copies"
        self.about = f"proxy with s3api and tempauth, {copies}, {count} for each server, memcached beside it"
        self.servers: list[Server] = []
        self._replicas = replicas
        self._workers = workers
        self._port = 0

    def check(self) -> None:
        """See ``Target.check``."""
        needed = ["swift-proxy-server", "swift-ring-builder", "memcached", "unshare"]
        for name in [*needed, *(f"swift-{kind}-server" for kind in KINDS)]:
            if program(name) is None:
                raise LeftOut(f"{name} is not installed")
        if not SYSTEM_FOLDER.is_dir():
            raise LeftOut(f"there is no {SYSTEM_FOLDER}, in whose place the configuration is seen")
        if subprocess.run([*_INSIDE, "true"], capture_output=True, timeout=START_S).returncode:
            raise LeftOut("this machine allows no mount namespaces")

    def start(self, directory: Path, cores: Collection[int]) -> None:
        """Build the rings and start everything."""
        seen = directory / f"swift-{self._replicas}"
        seen.mkdir()
        self._port, cache_port, *ports = free_ports(2 + len(KINDS) * self._replicas)
        cache = ["-l", "127.0.0.1", "-p", str(cache_port), "-u", "nobody", "-c", "4096", "-t", "1"]
        self._run("memcached", seen, directory, cores, cache).wait_for_port(cache_port)
        (seen / "swift.conf").write_text(_SWIFT)
        user = _USER.replace(":", "_")
        text = _PROXY.format(
            port=self._port,
            workers=self._workers,
            cache_port=cache_port,
            user=user,
            key=_KEY,
            pipeline=_PIPELINE,
        )
        (seen / "proxy-server.conf").write_text(text)
        for at, kind in enumerate(KINDS):
            self._start_storage(kind, ports[at :: len(KINDS)], seen, directory, cores)
        proxy = self._run("swift-proxy-server", seen, directory, cores, [str(seen / "proxy-server.conf")])
        proxy.wait_for_port(self._port)

    def _start_storage(
        self, kind: str, ports: list[int], seen: Path, directory: Path, cores: Collection[int]
    ) -> None:
        """The servers of one kind, one for each copy, and their ring."""
        builder = [program("swift-ring-builder") or "", str(seen / f"{kind}.builder")]
        _build([*builder, "create", str(_PART_POWER), str(self._replicas), "0"])
        for number, port in enumerate(ports, 1):
            devices = seen / f"devices-{number}"
            (devices / "disk").mkdir(parents=True, exist_ok=True)
            _build([*builder, "add", f"r1z{number}-127.0.0.1:{port}/disk", "1"])
            path = seen / f"{kind}-{number}.conf"
            path.write_text(_STORAGE.format(port=port, workers=self._workers, devices=devices, kind=kind))
            self._run(f"swift-{kind}-server", seen, directory, cores, [str(path)]).wait_for_port(port)
        _build([*builder, "rebalance"])

    def _run(
        self, name: str, seen: Path, directory: Path, cores: Collection[int], arguments: list[str]
    ) -> Server:
        argv = [*_INSIDE, _SHELL, str(seen), program(name) or "", *arguments]
        server = Server(f"{name}-{self._replicas}", argv, directory, cores=cores)
        self.servers.append(server)
        return server

    def settings(self) -> dict[str, Any]:
        """See ``Target.settings``."""
        return {
            "endpoint": f"http://127.0.0.1:{self._port}",
            "access_key": _USER,
            "secret": _KEY,
            "region": "us-east-1",
        }

    def on_client_host(self, argv: list[str]) -> list[str]:
        """Here."""
        return argv

    def versions(self) -> dict[str, str]:
        """See ``Target.versions``."""
        # The script's first line names the Python that has the package.
        python = (
            Path(program("swift-proxy-server") or "").read_text().splitlines()[0].removeprefix("#!").split()
        )
        argv = [*python, "-c", "import swift; print(swift.__version__)"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=START_S)
        return {"swift": done.stdout.strip() or "unknown", "aiohttp": version("aiohttp")}


def _build(argv: list[str]) -> None:
    """The ring builder: exit code 1 is a warning."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=START_S)
    if done.returncode not in (0, 1):
        raise LeftOut(f"swift-ring-builder: {(done.stderr or done.stdout).strip()[-300:]}")
