"""What a running lab leaves for the command line: one small file a lab.

``ssastore up`` writes it, other commands read the newest (or the one that
``--context`` names) and enter the lab's namespaces with it.  It names the file
with the secrets and holds none.

A cluster that is no lab is known by its control store: ``--context`` then names
the settings of a gateway on this machine.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ssastore.config import GatewayConfig, load, load_secrets, open_control, parse_listen, write_private
from ssastore.console.token import login_code, read_token, token_path
from ssastore.core.cluster import ClusterRecord, NodeRecord
from ssastore.core.clusterreading import read_nodes, read_record
from ssastore.errors import ConfigError
from ssastore.lab.namespaces import join
from ssastore.system import SystemClock, SystemRandomness
from ssastore.transport.connection import Identity

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


@dataclass(frozen=True, slots=True)
class Context:
    """A running lab, or a cluster that is none.

    ``hosts`` maps a host's name to the number of the descriptor, in process ``pid``, that holds its
    network namespace; empty when the network is simulated, and then ``ports`` maps node to port. Both are
    empty when it is no lab: then this machine is one of its hosts, and ``pid`` is 0.
    """

    name: str
    pid: int
    birth: int
    "When the kernel started that process: a number that comes back does not look like the lab."
    started_ms: int
    service: str
    port: int
    replicas: int
    "With which the lab began."
    data_dir: str
    control: str
    secrets_file: str
    s3_port: int
    admin_port: int
    region: str
    hosts: dict[str, int] = field(default_factory=dict)
    nodes: list[str] = field(default_factory=list)
    ports: dict[str, int] = field(default_factory=dict)
    rules: str = ""
    "The service record, where the lab has rules."
    domain: str = ""
    "The service's name in the DNS of the lab, where it has a network."
    name_server: str = ""
    "Address of who answers for that name."
    admin_token_file: str = ""
    "Where the gateway's admin token is; empty: beside the secrets file."
    tls_name: str = ""
    "With TLS: the name that nodes have to prove, and in which file those are who may sign for it."
    tls_ca: str = ""
    is_https: bool = False
    "S3 speaks HTTPS; its certificate is signed by those of the same file."

    @property
    def url(self) -> str:
        """The service, as a client takes it."""
        # One may have become three since then; more are named, and a client need not ask for them first.
        query = f"?replicas={self.replicas}" if self.replicas > 1 else ""
        return f"ssa://[{self.service.split('/')[0]}]:{self.port}/{query}"

    @property
    def is_simulated(self) -> bool:
        return bool(self.ports)

    @property
    def is_lab(self) -> bool:
        return self.pid != 0

    @property
    def is_running(self) -> bool:
        """Whether the process that holds the lab is there: the very one that wrote this file."""
        return self.birth == birth_of(self.pid)

    def access_key(self) -> tuple[str, str]:
        """(name, secret) of the lab's first access key. Raises ConfigError."""
        for name, secret in load_secrets(self.secrets_file).access_keys.items():
            return name, secret.decode()
        raise ConfigError(f"{self.secrets_file}: holds no access key")

    @property
    def token_path(self) -> Path:
        """Where the admin token of the gateway is."""
        return token_path(self.secrets_file, self.admin_token_file)

    def admin_token(self) -> str:
        """For what changes something by way of the gateway. Raises ConfigError."""
        return read_token(self.token_path).decode()

    def login_url(self) -> str:
        """A link to the console that logs in once; what stands behind # is in no server's log."""
        code = login_code(read_token(self.token_path), SystemClock().now_ms(), SystemRandomness())
        return f"http://localhost:{self.admin_port}/#login={code}"

    def identity(self) -> Identity:
        """For the greeting, as a client."""
        name, secret = self.access_key()
        return Identity("client", name, secret.encode(), self.replicas)

    def enter(self, host: str = "client") -> None:
        """Move this process, which must have one thread, onto a host of the lab.

        Raises:
            ConfigError: no such host.
            NamespaceRefused: the lab is gone or belongs to somebody else.
        """
        if not self.hosts:
            return
        if host not in self.hosts:
            raise ConfigError(f"the lab has no host {host!r}; it has {', '.join(self.hosts)}")
        join(self.pid, self.hosts[host])


def state_dir() -> Path:
    """Where context files are: ``$XDG_STATE_HOME/ssastore``."""
    home = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return Path(home) / "ssastore" / "contexts"


def make_state_dir() -> Path:
    """Make the directory of context files, if need be.

    Raises:
        ConfigError: it cannot be made or written to; says what to set.
    """
    directory = state_dir()
    try:
        # The mode is for the last part of a path only.
        directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{directory}: {error.strerror}; set XDG_STATE_HOME to a directory of yours"
        ) from None
    if not os.access(directory, os.W_OK | os.X_OK):
        raise ConfigError(f"{directory}: not writable; set XDG_STATE_HOME to a directory of yours")
    return directory


def birth_of(pid: int) -> int | None:
    """When process ``pid`` was started, in clock ticks since boot; None when it is gone or a zombie."""
    try:
        # The second field is a name in brackets, in which anything may stand.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def check_free(name: str) -> None:
    """Raises ConfigError when another running lab has that name, or no lab could have it."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name!r} is no name for a lab: letters, digits, dot, hyphen and underscore")
    found = _read(state_dir() / f"{name}.json")
    if found and found.is_running and found.pid != os.getpid():
        raise ConfigError(
            f"a lab named {name!r} is running: stop it with ssastore --context {name} down, "
            "or give this one another --name"
        )


def write(context: Context) -> Path:
    """Write a lab's context file, again when it changed. Raises ConfigError as ``check_free``."""
    check_free(context.name)
    path = make_state_dir() / f"{context.name}.json"
    write_private(path, json.dumps(asdict(context), indent=1))
    return path


def remove(name: str, pid: int) -> None:
    """Forget the lab of process ``pid``; no error when it is forgotten already, or another has its name."""
    path = state_dir() / f"{name}.json"
    found = _read(path)
    if found and found.pid == pid:
        path.unlink(missing_ok=True)


def _read(path: Path) -> Context | None:
    try:
        fields: dict[str, Any] = json.loads(path.read_text())
        return Context(**fields)
    except (OSError, ValueError, TypeError):
        return None


def running(name: str) -> Context | None:
    """The running lab of that name, if there is one."""
    found = _read(state_dir() / f"{name}.json")
    return found if found is not None and found.is_running else None


def of_gateway(path: str) -> Context:
    """The cluster of a gateway that runs on this machine, by the settings of that gateway.

    Raises:
        ConfigError: the settings are wrong, or there is no cluster.
        Unavailable: the control store does not answer.
    """
    settings = load(path, GatewayConfig)
    admin_host, admin_port = parse_listen(settings.admin_listen or "none:1")
    if admin_host not in ("::", "0.0.0.0", "127.0.0.1"):
        raise ConfigError(f"{path}: commands ask the gateway at 127.0.0.1: admin_listen must include that")

    async def read() -> tuple[ClusterRecord, list[NodeRecord]]:
        control = open_control(settings.control, settings.secrets_file)
        try:
            return await read_record(control), await read_nodes(control)
        finally:
            await control.close()

    record, nodes = asyncio.run(read())
    return Context(
        name=path,
        pid=0,
        birth=0,
        started_ms=record.created_at_ms,
        service=record.service,
        port=nodes[0].port,
        replicas=record.replicas,
        data_dir="",
        control=settings.control,
        secrets_file=settings.secrets_file,
        s3_port=parse_listen(settings.s3_listen)[1] if settings.s3_listen else 0,
        admin_port=admin_port,
        region=settings.region,
        nodes=[node.name for node in nodes],
        rules=settings.rules,
        admin_token_file=settings.admin_token_file,
        tls_name=settings.tls_name,
        tls_ca=settings.tls_ca,
        is_https=bool(settings.s3_cert),
    )


def find(name: str | None = None) -> Context:
    """The named lab, or the one started last; the cluster of a gateway, when its settings are named.

    Raises:
        ConfigError: none is running; says how to start one.
    """
    if name is not None and name.endswith(".toml"):
        return of_gateway(name)
    if name is not None and not _NAME.fullmatch(name):
        raise ConfigError(f"{name!r} is no name of a lab")
    paths = sorted(state_dir().glob(f"{name or '*'}.json"))
    running = [found for path in paths if (found := _read(path)) and found.is_running]
    if not running:
        what = f"no lab {name!r} is running" if name else "no lab is running"
        raise ConfigError(f"{what}; start one with: ssastore up")
    return max(running, key=lambda found: found.started_ms)


def find_lab(name: str | None = None) -> Context:
    """As ``find``; ConfigError also when it is a cluster that no ``ssastore up`` runs."""
    found = find(name)
    if not found.is_lab:
        raise ConfigError(f"{name} is no lab's: its nodes are started, stopped and added on their hosts")
    return found
