"""What a running lab leaves for the command line: one small file a lab.

``ssastore up`` writes it, other commands read the newest (or the one that
``--context`` names) and enter the lab's namespaces with it.  It names the file
with the secrets and holds none.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ssastore.config import load_secrets
from ssastore.errors import ConfigError
from ssastore.lab.namespaces import join
from ssastore.transport.connection import Identity

LOCAL_KEY = "root"
"Name under which the lab's own access key stands in the secrets file, as its first entry."


@dataclass(frozen=True, slots=True)
class Context:
    """A running lab.

    ``hosts`` maps a host's name to the number of the descriptor, in process ``pid``, that holds its
    network namespace; empty when the network is simulated, and then ``ports`` maps node to port.
    """

    name: str
    pid: int
    started_ms: int
    service: str
    port: int
    replicas: int
    data_dir: str
    control: str
    secrets_file: str
    s3_port: int
    admin_port: int
    region: str
    hosts: dict[str, int] = field(default_factory=dict)
    nodes: list[str] = field(default_factory=list)
    ports: dict[str, int] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """The service, as a client takes it."""
        return f"ssa://[{self.service.split('/')[0]}]:{self.port}/?replicas={self.replicas}"

    @property
    def is_simulated(self) -> bool:
        return not self.hosts

    @property
    def is_running(self) -> bool:
        """Whether the process that holds the lab is there and is what wrote this file."""
        try:
            command = Path(f"/proc/{self.pid}/cmdline").read_bytes()
        except OSError:
            return False
        return b"ssastore" in command

    def access_key(self) -> tuple[str, str]:
        """(name, secret) of the lab's first access key. Raises ConfigError."""
        keys = load_secrets(self.secrets_file).access_keys
        name = next(iter(keys))
        return name, keys[name].decode()

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
        if self.is_simulated:
            return
        if host not in self.hosts:
            raise ConfigError(f"the lab has no host {host!r}; it has {', '.join(self.hosts)}")
        join(self.pid, self.hosts[host])


def state_dir() -> Path:
    """Where context files are: ``$XDG_STATE_HOME/ssastore``."""
    home = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return Path(home) / "ssastore" / "contexts"


def write(context: Context) -> Path:
    """Write a lab's context file. Raises ConfigError when a running lab has that name."""
    directory = state_dir()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = directory / f"{context.name}.json"
    temporary = directory / f".{context.name}.{os.getpid()}"
    temporary.write_text(json.dumps(asdict(context), indent=1))
    temporary.rename(path)
    return path


def remove(name: str) -> None:
    """Forget a lab; no error when it is forgotten already."""
    (state_dir() / f"{name}.json").unlink(missing_ok=True)


def _read(path: Path) -> Context | None:
    try:
        fields: dict[str, Any] = json.loads(path.read_text())
        return Context(**fields)
    except (OSError, ValueError, TypeError):
        return None


def find(name: str | None = None) -> Context:
    """The named lab, or the one started last.

    Raises:
        ConfigError: none is running; says how to start one.
    """
    directory = state_dir()
    paths = [directory / f"{name}.json"] if name else sorted(directory.glob("*.json"))
    running = [found for path in paths if (found := _read(path)) and found.is_running]
    if not running:
        what = f"no lab {name!r} is running" if name else "no lab is running"
        raise ConfigError(f"{what}; start one with: ssastore up")
    return max(running, key=lambda found: found.started_ms)
