"""docker-compose.yml and what belongs to it: of one piece, no more rights than are said, no secret."""

from __future__ import annotations

import copy
import re
import subprocess
from collections.abc import Callable
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path
from typing import Any

import pytest
import yaml

from ssastore.config import GatewayConfig, NodeConfig, load
from ssastore.lab.birdconfig import Speaker, find_bird, router_config
from ssastore.routes.bgpspeaker import parse_neighbours
from tests.birds import need_bird
from tests.composed import Failure, client_command

ROOT = Path(__file__).parents[2]
NODES = ["n1", "n2", "n3", "n4"]
HOST_CAPS = {"NET_ADMIN", "SETUID", "SETGID"}
CAPS = {
    **dict.fromkeys(NODES, HOST_CAPS),
    "gateway": HOST_CAPS,
    "router": {"NET_ADMIN", "NET_BIND_SERVICE"},
    "keys": {"CHOWN", "DAC_OVERRIDE"},
    "etcd": set(),
    "form": set(),
    "tools": set(),
}
File = dict[str, Any]


def read() -> File:
    found: File = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return found


def complaints(file: File) -> list[str]:
    """What is not as docs/how-to/compose.md says."""
    services: File = file["services"]
    found = [f"services {sorted(services)}"] if services.keys() != CAPS.keys() else []
    for name, service in services.items():
        if service.get("privileged") or service.get("cap_drop") != ["ALL"]:
            found.append(f"{name} has rights that nobody listed")
        if set(service.get("cap_add", ())) != CAPS.get(name):
            found.append(f"{name} has the capabilities {service.get('cap_add')}")
        if not re.fullmatch(r"ssastore(-[a-z]+)?:\$\{SSASTORE_TAG:-\d+\.\d+\.\d+\}", service["image"]):
            found.append(f"{name} has the image {service['image']}")
        if service.get("pull_policy") != "never":
            found.append(f"{name} may take a stranger's image of that name")
        if any(not port.startswith("127.0.0.1:") for port in service.get("ports", ())):
            found.append(f"{name} is open to other machines")
        if bool(service.get("ports")) != (name == "gateway"):
            found.append(f"ports of {name}")
        if any(re.search("SECRET|PASSWORD|TOKEN", variable) for variable in service.get("environment", ())):
            found.append(f"a secret in the environment of {name}")
    found += [
        f"{name} has no disk of its own"
        for name in NODES
        if f"{name}:/var/lib/ssastore" not in services[name]["volumes"]
    ]
    found += [
        f"{name} knows no admin token"
        for name in ("gateway", "tools")
        if "gateway:/var/lib/ssastore" not in services[name].get("volumes", ())
    ]
    if [secret["file"] for secret in file["secrets"].values()] != ["./compose/secrets/secrets.json"]:
        found.append("secrets are elsewhere")
    return found


def test_the_file_asks_for_no_more_than_is_said() -> None:
    assert complaints(read()) == []


@pytest.mark.parametrize(
    ("plant", "text"),
    [
        (lambda services: services["n1"].update(privileged=True), "n1 has rights"),
        (lambda services: services["etcd"].pop("cap_drop"), "etcd has rights"),
        (lambda services: services["n2"]["cap_add"].append("SYS_ADMIN"), "n2 has the capabilities"),
        (lambda services: services["router"].update(image="ssastore-router:latest"), "router has the image"),
        (lambda services: services["tools"].pop("pull_policy"), "tools may take"),
        (lambda services: services["gateway"]["ports"].append("7480:7480"), "gateway is open"),
        (lambda services: services["etcd"].update(ports=["127.0.0.1:2379:2379"]), "ports of etcd"),
        (lambda services: services["n3"].update(environment={"AWS_SECRET": "x"}), "a secret in"),
        (lambda services: services["n4"].update(volumes=["n3:/var/lib/ssastore"]), "n4 has no disk"),
        (lambda services: services["tools"].pop("volumes"), "tools knows no admin token"),
        (lambda services: services.pop("router"), "services"),
    ],
)
def test_a_planted_offence_is_seen(plant: Callable[[File], object], text: str) -> None:
    file = copy.deepcopy(read())
    plant(file["services"])
    assert any(text in line for line in complaints(file)), complaints(file)


def test_a_client_of_compose_takes_it() -> None:
    try:
        command = client_command()
    except Failure as failure:
        pytest.skip(str(failure))
    done = subprocess.run([*command, "config", "--quiet"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_settings_addresses_and_sessions_are_of_one_piece() -> None:
    services = read()["services"]
    addresses = {
        name: IPv6Address(service["networks"]["cluster"]["ipv6_address"])
        for name, service in services.items()
        if isinstance(service.get("networks"), dict)
    }
    arguments: list[str] = services["form"]["command"]
    assert [text for text in arguments if text.startswith("n")] == [f"{n}={addresses[n]}" for n in NODES]
    (service,) = [IPv6Network(text.split("=")[1]) for text in arguments if text.startswith("--service=")]
    router = Speaker("router", addresses["router"])
    speakers = [Speaker(name, addresses[name]) for name in NODES]
    for speaker in speakers:
        path = f"compose/settings/{speaker.name}.toml"
        assert services[speaker.name]["command"] == ["node", "--config", f"/etc/ssastore/{speaker.name}.toml"]
        node = load(str(ROOT / path), NodeConfig)
        assert (node.name, node.announce, node.bgp_as) == (speaker.name, "bgp", speaker.number), path
        (neighbour,) = parse_neighbours(node.bgp_neighbours)
        assert (neighbour.address, neighbour.number) == (router.address, router.number), path
    gateway = load(str(ROOT / "compose/settings/gateway.toml"), GatewayConfig)
    assert gateway.admin_token_file == "/var/lib/ssastore/admin-token"
    assert {services[name]["environment"]["ROUTER"] for name in (*NODES, "gateway")} == {str(router.address)}
    # The router believes what the router of a lab does, and has the edge besides (docs/how-to/bgp.md).
    text = (ROOT / "compose/router/bird.conf").read_text()
    assert f"    route {service} unreachable;\n" in text
    shown = re.sub(r"protocol static edge \{.*?\n\}\n", "", text, flags=re.DOTALL)
    assert plain(shown.replace(' || proto = "edge"', "")) == plain(router_config(router, speakers, [service]))


def plain(text: str) -> list[str]:
    lines = text.replace("'", "").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_bird_takes_the_router_s_settings() -> None:
    need_bird()
    done = subprocess.run(
        [find_bird(), "-p", "-c", ROOT / "compose/router/bird.conf"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_images_are_built_from_the_base_and_the_checkout_by_any_builder() -> None:
    text = (ROOT / "Dockerfile").read_text()
    stages = re.findall(r"^FROM (\S+) AS (\S+)$", text, re.MULTILINE)
    assert {base for base, _ in stages} == {"${BASE}"} and len(stages) == text.count("\nFROM ")
    built = {service["build"]["target"] for service in read()["services"].values() if "build" in service}
    assert built == {name for _, name in stages} - {"build"}
    for word in ("HEALTHCHECK", "STOPSIGNAL", "EXPOSE", "ENTRYPOINT"):
        assert len(re.findall(rf"^{word} ", text, re.MULTILINE)) == len(built), word
    assert "\nUSER ssastore\n" in text and "\nUSER etcd\n" in text
    # The classic builder knows neither; nothing is fetched but by the package managers.
    assert not re.search(r"--mount|--chmod|^ADD |curl|wget|https?://", text, re.MULTILINE)


def test_no_secret_and_no_wheel_is_kept_in_the_repository() -> None:
    for folder in ("secrets", "wheels"):
        assert (ROOT / "compose" / folder / ".gitignore").read_text() == "*\n!.gitignore\n"
    assert "secrets" not in (ROOT / ".dockerignore").read_text()
