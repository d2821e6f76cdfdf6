"""Starts what a lab consists of, each on its host and with a file of settings of its own."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path

from ssastore.lab.etcd import CLIENT_PORT, PEER_PORT, etcd_command
from ssastore.lab.options import UpOptions
from ssastore.lab.processes import Processes, free_port
from ssastore.lab.topologies.network import Network
from ssastore.rules.record import NATIVE_PORT

REGION = "us-east-1"
CLIENT_HOST = "client"
GATEWAY_HOST = "gw"
ETCD_HOST = "etcd"
GATEWAY_PROCESS = "gateway"
OTHER_GATEWAYS = {f"{GATEWAY_HOST}{number}": number for number in range(2, 17)}
"Hosts and processes of further gateways, and their numbers on the link, below those of all other hosts."

_SSASTORE = (sys.executable, "-m", "ssastore")


class Launcher:
    """The commands of a lab, by what they need to know of it."""

    def __init__(
        self, options: UpOptions, directory: Path, processes: Processes, *, control: str, secrets: str
    ) -> None:
        self.control = control
        "As nodes are told; an etcd of our own gets its address when it is started."
        self.fabric: Network | None = None
        self.ports: dict[str, int] = {}
        "Of nodes, in a simulated network."
        self._options = options
        self._directory = directory
        self._processes = processes
        self._secrets = secrets

    def start(self, host: str, name: str, argv: list[str], pass_fds: tuple[int, ...] = ()) -> None:
        """Start a process on a host."""
        namespace = self.fabric.namespace_fd(host) if self.fabric is not None else None
        self._processes.start(name, argv, namespace, pass_fds)

    def start_node(self, name: str) -> None:
        """Start one node's supervisor."""
        path = self._write_config(
            name,
            {
                "name": name,
                "control": self.control,
                "data_dir": str((self._directory / "nodes" / name).resolve()),
                "secrets_file": self._secrets,
                "port": self.ports.get(name, NATIVE_PORT),
                "workers": self._options.workers,
                "manage_routes": self.fabric is not None,
                "simulated": self.fabric is None,
                "rules": self._options.rules,
                **(self.fabric.settings_of(name) if self.fabric is not None else {}),
                **self._options.extra_settings(),
            },
        )
        self.start(name, name, [*_SSASTORE, "node", "--config", path])

    def start_gateway(self, s3: socket.socket, admin: socket.socket) -> None:
        """Start the S3 gateway on sockets of the machine outside, which are its own from then on."""
        path = self._write_gateway_config(GATEWAY_PROCESS, GATEWAY_HOST)
        fds = (s3.fileno(), admin.fileno())
        s3_fd, admin_fd = str(fds[0]), str(fds[1])
        arguments = [*_SSASTORE, "gateway", "--config", path, "--s3-fd", s3_fd, "--admin-fd", admin_fd]
        if self.ports:
            arguments.append("--simulated")
        self.start(GATEWAY_HOST, GATEWAY_PROCESS, arguments, fds)
        # Else nobody would be refused after the gateway's end, our own question whether all is ready
        # included: they would wait in our backlog.
        s3.close()
        admin.close()

    def start_other_gateway(self, host: str) -> None:
        """Start one more gateway, which has addresses of the front plane alone."""
        self.start(host, host, [*_SSASTORE, "gateway", "--config", self._write_gateway_config(host, host)])

    def _write_gateway_config(self, process: str, host: str) -> str:
        settings: dict[str, object] = {
            "control": self.control,
            "secrets_file": self._secrets,
            "region": REGION,
            "s3_domain": self._options.s3_domain,
            "rules": self._options.rules,
        }
        if self.fabric is not None:
            settings |= {"name": host, "address": str(self.fabric.address_of(host))}
            settings |= self.fabric.gateway_settings_of(host)
        return self._write_config(process, settings)

    def start_etcd(self) -> None:
        """Start an etcd on a host of its own; from then on it is the control store that nodes are told."""
        if self.fabric is not None:
            host, client, peer = str(self.fabric.address_of(ETCD_HOST)), CLIENT_PORT, PEER_PORT
        else:
            host, client, peer = "::1", free_port("::1"), free_port("::1")
        self.control = f"etcd://[{host}]:{client}"
        argv = etcd_command(self._directory, host, client_port=client, peer_port=peer)
        self.start(ETCD_HOST, ETCD_HOST, argv)

    def _write_config(self, name: str, settings: dict[str, object]) -> str:
        path = self._directory / "config" / f"{name}.toml"
        # TOML takes JSON's strings, but not its pairs of surrogates.
        lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in settings.items()]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return str(path)
