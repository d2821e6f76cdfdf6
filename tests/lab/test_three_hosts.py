"""deploy.md, command by command: three hosts, from a wheel, with TLS, an etcd and an init script."""

from __future__ import annotations

import json
import os
import re
import select
import shlex
import socket
import ssl
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv6Network
from pathlib import Path
from typing import Any

import pytest

from ssastore.lab.birdconfig import Speaker, find_bird, router_config
from ssastore.lab.fabric import Fabric
from ssastore.lab.namespaces import in_namespace
from tests.birds import need_bird
from tests.etcds import require_etcd
from tests.lab.shared import wait_until

pytestmark = pytest.mark.lab

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "how-to" / "deploy.md").read_text(encoding="utf-8")
SERVICE = IPv6Network("fd5a:0:0:1::/64")
HOSTS = ["n1", "n2", "n3"]
NODES_AS = 65011


class Announcer(Speaker):
    """A node, whose AS is that of all nodes."""

    @property
    def number(self) -> int:
        return NODES_AS


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel; what it depends on is taken from the one of the tests."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run([*pip, *build], check=True)
    home = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    (packages,) = home.glob("lib/python*/site-packages")
    ours = next(path for path in sys.path if path.endswith("site-packages"))
    (packages / "dependencies.pth").write_text(ours)
    (wheel,) = folder.glob("*.whl")
    python = str(home / "bin" / "python")
    subprocess.run([*pip, "--python", python, "install", "--no-deps", "--no-index", str(wheel)], check=True)
    return home


class Deployment:
    """Three hosts and a client on a link with a router that hears of slices by BGP."""

    def __init__(self, folder: Path, installed: Path) -> None:
        self.folder, self.installed = folder, installed
        self.fabric = Fabric.build(SERVICE, [*HOSTS, "client"], forwarding=True)
        self.init_script = installed / "share" / "ssastore" / "init.d" / "ssastore"
        nodes = [Announcer(name, self.fabric.address_of(name)) for name in HOSTS]
        self.router = Speaker("router", self.fabric.router)
        config = folder / "bird.conf"
        config.write_text(router_config(self.router, nodes, [SERVICE]))
        self._bird = subprocess.Popen(
            [find_bird(), "-f", "-c", str(config), "-s", str(folder / "bird")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

        self._told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._told.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._told.bind(str(folder / "notify"))

    def told(self) -> set[str]:
        """What ``n3`` has told a service manager since it was asked last: NODE or GATEWAY, and the line."""
        lines = set()
        while select.select([self._told], [], [], 0)[0]:
            text, credentials, _, _ = self._told.recvmsg(4096, socket.CMSG_SPACE(12))
            pid = struct.unpack("3i", credentials[0][2])[0]
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            lines |= {f"{what} {text.decode()}" for what in ("node", "gateway") if what.encode() in words}
        return lines

    def address(self, host: str) -> str:
        return str(self.fabric.address_of(host))

    def settings(self, host: str) -> Path:
        return self.folder / host / "etc"

    def run(self, host: str, *command: str, is_checked: bool = True, **environment: str) -> str:
        """What a command prints on a host, where it finds that host's directories."""
        home = self.folder / host
        own = {
            name: str(home / part) for name, part in (("SETTINGS", "etc"), ("DATA", "data"), ("RUN", "run"))
        }
        environ = {f"SSASTORE_{name}": value for name, value in own.items()} | environment
        if host == "n3":
            environ["NOTIFY_SOCKET"] = str(self.folder / "notify")
        environ |= {
            "SSASTORE_LOG": str(home / "log"),
            "PATH": f"{self.installed / 'bin'}:{os.environ['PATH']}",
        }
        with in_namespace(self.fabric.namespace_fd(host)):
            done = subprocess.run(
                command, env=environ, cwd=self.folder, capture_output=True, text=True, timeout=60
            )
        output = done.stdout + done.stderr
        assert not is_checked or done.returncode == 0, (command, output, self.logs())
        return output

    def as_written(self, text: str) -> str:
        """A command of the document, with what this network has in the place of what is only an example."""
        text = text.replace("2001:db8:5a:1::/64", str(SERVICE)).replace(
            "/etc/init.d/ssastore", str(self.init_script)
        )
        for name in HOSTS:
            text = text.replace(f"2001:db8:99::1{name[1:]}", self.address(name))
        return text.replace("2001:db8:99::1 as 65000", f"{self.router.address} as {self.router.number}")

    def logs(self) -> str:
        paths = sorted(self.folder.glob("*/log/*.log"))
        return "\n".join(f"{path}\n{path.read_text()[-2000:]}" for path in paths if path.stem != "etcd")

    def close(self) -> None:
        for host in HOSTS:
            self.run(host, str(self.init_script), "stop", is_checked=False)
        self._bird.terminate()
        self._bird.wait(10)
        self._told.close()


@contextmanager
def deployment(folder: Path, installed: Path) -> Iterator[Deployment]:
    made = Deployment(folder, installed)
    try:
        yield made
    finally:
        made.close()


def commands_of(heading: str) -> list[tuple[str, str]]:
    """(host, command) of the first block under a heading."""
    block = DOCUMENT.split(f"## {heading}\n", 1)[1].split("```\n", 2)[1].replace("\\\n", " ")
    found = re.findall(r"^(n\d)#\s+(.*)$", block, re.MULTILINE)
    return [(host, command.split("#")[0].strip()) for host, command in found]


def form_as_documented(site: Deployment) -> dict[str, str]:
    """The six commands; the tokens that were used."""
    commands = commands_of("Six commands")
    assert len(commands) == 6
    tokens: dict[str, str] = {}
    for host, command in commands:
        for name, token in tokens.items():
            command = command.replace(f"TOKEN-OF-{name.upper()}", token)
        told = site.run(host, *shlex.split(site.as_written(command)))
        tokens |= dict(re.findall(r"on (n\d), and start it then:\n +ssastore node join (\S+)", told))
    assert list(tokens) == ["n2", "n3"]
    return tokens


def test_three_hosts_come_up_in_six_commands(tmp_path: Path, installed: Path, inside: Any) -> None:
    need_bird()
    require_etcd()

    def work() -> float:
        with deployment(tmp_path, installed) as site:
            began = time.monotonic()
            tokens = form_as_documented(site)
            gateway = str(site.settings("n3") / "gateway.toml")
            site.run("n3", "ssastore", "--context", gateway, "ready", "--wait", "30")
            took_s = time.monotonic() - began
            assert site.told() == {"node READY=1", "gateway READY=1"}
            look_at(site, tokens, gateway)
            certificates_are_renewed(site)
            stops(site)
            return took_s

    print(f"ready {inside(work):.1f} s after the first command")


def look_at(site: Deployment, tokens: dict[str, str], gateway: str) -> None:
    """What is there is one cluster, by TLS, and nobody gets in who has no business there."""
    status = json.loads(site.run("n3", "ssastore", "--context", gateway, "status", "--json"))
    assert sorted(node["name"] for node in status["nodes"]) == HOSTS
    # Who speaks to clients sets no routes.
    workers = [worker["pid"] for node in status["nodes"] for worker in node["workers"]]
    for pid in workers:
        found = re.search(r"^CapEff:\s+(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
        assert found is not None and not int(found[1], 16) >> 12 & 1
    ca = str(site.settings("n1") / "tls" / "ca.pem")
    # A client of the native protocol, on a host that has nothing but the authority's certificate and a key.
    (key, secret), *_ = json.loads((site.settings("n1") / "secrets.json").read_text())["access_keys"].items()
    service = f"ssa://[{SERVICE.network_address}]/"
    client = {"SSASTORE_URL": service, "SSASTORE_ACCESS_KEY": key, "SSASTORE_SECRET_KEY": secret}
    believing = client | {"SSASTORE_TLS_NAME": "store.example", "SSASTORE_TLS_CA": ca}
    (site.folder / "cat.jpg").write_text("meow")
    site.run("client", "ssastore", "mb", "photos", **believing)
    site.run("client", "ssastore", "put", "photos/cat.jpg", "cat.jpg", **believing)
    assert site.run("client", "ssastore", "get", "photos/cat.jpg", **believing) == "meow"
    told = site.run("client", "ssastore", "get", "photos/cat.jpg", is_checked=False, **client)
    assert "it speaks TLS" in told
    wrong = believing | {"SSASTORE_TLS_NAME": "other.example"}
    assert "does not prove that it is other.example" in site.run(
        "client", "ssastore", "ls", is_checked=False, **wrong
    )
    # S3, by HTTPS at the address of a host; and the etcd, which wants a certificate.
    endpoint = f"https://[{site.address('n2')}]:7482"
    aws = {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret, "AWS_DEFAULT_REGION": "us-east-1"}
    script = f"import boto3; s3 = boto3.client('s3', endpoint_url={endpoint!r}, verify={ca!r})\n"
    script += "print(s3.get_object(Bucket='photos', Key='cat.jpg')['Body'].read())"
    assert site.run("client", sys.executable, "-c", script, **aws).strip() == "b'meow'"
    with in_namespace(site.fabric.namespace_fd("client")):
        context = ssl.create_default_context(cafile=ca)
        with pytest.raises((urllib.error.URLError, ssl.SSLError, ConnectionError)):
            urllib.request.urlopen(f"https://[{site.address('n1')}]:2379/health", context=context, timeout=5)
    # Both tokens are used up; with that, nobody is admitted any more.
    again = {"SSASTORE_SETTINGS": str(site.folder / "thief")}
    told = site.run(
        "client", "ssastore", "node", "join", "--wait", "0", tokens["n2"], is_checked=False, **again
    )
    assert "was used already" in told or "does not answer" in told
    wait_until(lambda: not (site.folder / "n1" / "run" / "admit.pid").exists(), "nobody is admitted any more")


def certificates_are_renewed(site: Deployment) -> None:
    """S3 shows the new one, and nothing was started again."""
    tls, address = site.settings("n1") / "tls", site.address("n1")

    def shown() -> str:
        with in_namespace(site.fabric.namespace_fd("client")):
            return ssl.get_server_certificate((address, 7482), timeout=5)

    before, pids = shown(), site.run("n1", str(site.init_script), "status")
    issue = ["ssastore", "tls", "issue", str(tls), "--name", "store.example", "--also", address]
    site.run("n1", *issue, "--out", str(tls / "host"))
    site.run("n1", str(site.init_script), "reload")
    wait_until(lambda: shown() != before, "a new certificate is shown")
    assert site.run("n1", str(site.init_script), "status") == pids
    site.run(
        "n1", "ssastore", "--context", str(site.settings("n1") / "gateway.toml"), "ready", "--wait", "10"
    )


def stops(site: Deployment) -> None:
    for host in HOSTS:
        site.run(host, str(site.init_script), "stop")
        assert "node does not run" in site.run(host, str(site.init_script), "status", is_checked=False)
        assert list((site.folder / host / "run").iterdir()) == []
