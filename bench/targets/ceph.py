"""Ceph's S3 gateway (RGW) before a monitor, a manager and one or more OSDs, on loopback.

BlueStore on a sparse file of the run's folder, authentication between the daemons off, pools of few
placement groups: a small cluster of one host.  Configuration: Ceph's "Manual Deployment" and its reference
of settings.
"""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Collection
from importlib.metadata import version
from pathlib import Path
from secrets import token_hex
from typing import Any

from bench.errors import BenchError, LeftOut
from bench.servers import Server, free_ports, program, waiting_for

PROGRAMS = (
    "ceph",
    "ceph-mon",
    "ceph-mgr",
    "ceph-osd",
    "radosgw",
    "radosgw-admin",
    "monmaptool",
    "ceph-authtool",
)
_COMMAND_S = 120
_OSD_BYTES = 12 << 30
"Of a sparse file."

_GLOBAL = """[global]
fsid = {fsid}
mon_host = v2:127.0.0.1:{port}
mon_initial_members = a
public_network = 127.0.0.0/8
cluster_network = 127.0.0.0/8
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
ms_mon_client_mode = crc
osd_pool_default_size = {replicas}
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 8
osd_pool_default_pgp_num = 8
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 1000
mon_data_avail_warn = 2
mon_data_avail_crit = 1
mon_data = {folder}/mon
mgr_data = {folder}/mgr
osd_data = {folder}/osd$id
osd_objectstore = bluestore
bluestore_block_size = {osd_bytes}
bluestore_block_create = true
bluestore_block_wal_create = false
bluestore_block_db_create = false
run_dir = {folder}
admin_socket = {folder}/$name.asok
pid_file =
log_file = {folder}/$name.log
mon_cluster_log_file = {folder}/cluster.log
keyring = {folder}/keyring
[client.rgw]
rgw_frontends = beast endpoint=127.0.0.1:{rgw_port} tcp_nodelay=1
rgw_data = {folder}/rgw
rgw_enable_usage_log = false
"""


class Ceph:
    """All daemons on ports of 127.0.0.1."""

    product = "ceph"
    module = "s3"

    def __init__(self, replicas: int = 1) -> None:
        self.name = "Ceph RGW" if replicas == 1 else f"Ceph RGW R={replicas}"
        copies = "1 copy" if replicas == 1 else f"{replicas} copies"
        self.about = f"1 gateway, {replicas} OSD (BlueStore on a file), {copies}, 1 monitor, 1 manager"
        self.servers: list[Server] = []
        self._replicas = replicas
        self._folder = Path()
        self._port = 0
        self._keys = ("bench", token_hex(20))

    def check(self) -> None:
        """See ``Target.check``."""
        for name in PROGRAMS:
            if program(name) is None:
                raise LeftOut(f"{name} is not installed")

    def start(self, directory: Path, cores: Collection[int]) -> None:
        """Make a cluster with an owner of buckets."""
        self._folder = directory / f"ceph-{self._replicas}"
        for name in ("mon", "mgr", "rgw"):
            (self._folder / name).mkdir(parents=True)
        port, self._port = free_ports(2)
        fsid = str(uuid.uuid4())
        text = _GLOBAL.format(
            fsid=fsid,
            port=port,
            rgw_port=self._port,
            replicas=self._replicas,
            folder=self._folder,
            osd_bytes=_OSD_BYTES,
        )
        (self._folder / "ceph.conf").write_text(text)
        # Nobody is asked for a key, but the gateway does not start without one.
        keyring = str(self._folder / "keyring")
        self._do(
            "ceph-authtool", "--create-keyring", keyring, "--gen-key", "-n", "mon.", "--cap", "mon", "allow *"
        )
        self._do("ceph-authtool", keyring, "--gen-key", "-n", "client.admin", "--cap", "mon", "allow *")
        monitors = str(self._folder / "monmap")
        address = f"[v2:127.0.0.1:{port}]"
        self._do("monmaptool", "--create", "--addv", "a", address, "--fsid", fsid, monitors)
        self._do("ceph-mon", "--mkfs", "-i", "a", "--monmap", monitors, "--keyring", keyring)
        self._run("ceph-mon", "a", directory, cores).wait_for_port(port)
        self._run("ceph-mgr", "x", directory, cores)
        for number in range(self._replicas):
            self._start_disk(number, directory, cores)
        for _ in waiting_for("the OSDs"):
            if f"{self._replicas} up" in self._do("ceph", "osd", "stat"):
                break
        self._run("radosgw", "client.rgw", directory, cores).wait_for_port(self._port, _COMMAND_S)
        keys = ("--access-key", self._keys[0], "--secret", self._keys[1])
        self._do("radosgw-admin", "user", "create", "--uid", "bench", "--display-name", "bench", *keys)

    def _start_disk(self, number: int, directory: Path, cores: Collection[int]) -> None:
        (self._folder / f"osd{number}").mkdir()
        identity = str(uuid.uuid4())
        self._do("ceph", "osd", "new", identity, str(number))
        self._do("ceph-osd", "-i", str(number), "--mkfs", "--osd-uuid", identity)
        self._run("ceph-osd", str(number), directory, cores)

    def _run(self, name: str, identity: str, directory: Path, cores: Collection[int]) -> Server:
        option = "-n" if name == "radosgw" else "-i"
        argv = [program(name) or "", "-c", str(self._folder / "ceph.conf"), option, identity, "-f"]
        server = Server(f"{name}-{self._replicas}-{identity}", argv, directory, cores=cores)
        self.servers.append(server)
        return server

    def _do(self, name: str, *arguments: str) -> str:
        """A command's output. Raises BenchError."""
        argv = [program(name) or "", *arguments]
        environment = {**os.environ, "CEPH_CONF": str(self._folder / "ceph.conf")}
        try:
            done = subprocess.run(argv, capture_output=True, text=True, timeout=_COMMAND_S, env=environment)
        except subprocess.TimeoutExpired:
            raise BenchError(f"{name} did not end within {_COMMAND_S} s") from None
        if done.returncode:
            raise BenchError(f"{name}: {(done.stderr or done.stdout).strip()[-500:]}")
        return done.stdout

    def settings(self) -> dict[str, Any]:
        """See ``Target.settings``."""
        access_key, secret = self._keys
        return {
            "endpoint": f"http://127.0.0.1:{self._port}",
            "access_key": access_key,
            "secret": secret,
            "region": "default",
        }

    def on_client_host(self, argv: list[str]) -> list[str]:
        """Here."""
        return argv

    def versions(self) -> dict[str, str]:
        """See ``Target.versions``."""
        done = subprocess.run(
            [program("ceph") or "", "--version"], capture_output=True, text=True, timeout=30
        )
        return {"ceph": done.stdout.split()[2], "aiohttp": version("aiohttp")}
