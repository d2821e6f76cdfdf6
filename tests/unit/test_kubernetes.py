"""The manifests: valid by Kubernetes' own schemas, and at one with the settings and commands they name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from ssastore import __version__
from ssastore.cli import cli
from ssastore.config import GatewayConfig, NodeConfig, load

REPOSITORY = Path(__file__).parents[2]
FOLDER = REPOSITORY / "packaging" / "kubernetes"
VERSIONS = ("1.37", "1.29")
"The newest known, and the first that takes all fields that are used here (ReadWriteOncePod)."

Manifest = dict[str, Any]


def manifests() -> list[Manifest]:
    return [item for path in sorted(FOLDER.glob("*.yaml")) for item in yaml.safe_load_all(path.read_text())]


def named(kind: str, name: str) -> Manifest:
    (found,) = [item for item in manifests() if (item["kind"], item["metadata"]["name"]) == (kind, name)]
    return found


def pods() -> list[Manifest]:
    return [item["spec"]["template"]["spec"] for item in manifests() if "template" in item.get("spec", {})]


def containers() -> list[Manifest]:
    return [one for pod in pods() for one in [*pod["initContainers"], *pod["containers"]]]


@pytest.mark.parametrize("version", VERSIONS)
def test_all_are_valid_and_have_no_field_that_is_unknown(version: str) -> None:
    for item in manifests():
        kubernetes_validate.validate(item, version, strict=True)


def test_a_misspelt_field_is_seen() -> None:
    wrong = named("StatefulSet", "ssastore")
    wrong["spec"]["replica"] = wrong["spec"].pop("replicas")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)


def test_settings_are_those_of_a_node_and_of_a_gateway(tmp_path: Path) -> None:
    data = named("ConfigMap", "ssastore")["data"]
    for name in ("node.toml", "gateway.toml"):
        (tmp_path / name).write_text(data[name].replace("NAME", "ssastore-0"))
    node = load(str(tmp_path / "node.toml"), NodeConfig)
    gateway = load(str(tmp_path / "gateway.toml"), GatewayConfig)
    assert node.name == "ssastore-0" and node.control == gateway.control
    (pod,) = [pod for pod in pods() if pod.get("hostNetwork")]
    mounts = {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    assert str(Path(node.data_dir).parent) in mounts and str(Path(node.secrets_file).parent) in mounts
    ports = {port["name"]: port["containerPort"] for one in containers() for port in one.get("ports", ())}
    assert ports == {"native": node.port, "s3": 7482, "admin": 7481}
    listens = gateway.s3_listen, gateway.admin_listen
    assert [int(text.rpartition(":")[2]) for text in listens] == [ports["s3"], ports["admin"]]


def test_every_command_is_one_of_ours() -> None:
    words = []
    for one in containers():
        text = " ".join([*one.get("command", ["ssastore"]), *one.get("args", [])])
        words += re.findall(r"(?:^|\s)ssastore ((?:[a-z]+ ?)+)--config", text)
    assert {word.strip() for word in words} == {"control form", "node", "gateway"}
    for word in words:
        command: Any = cli
        for part in word.split():
            command = command.get_command(None, part)
            assert command is not None, word


def test_image_and_selectors_fit_together() -> None:
    assert {one["image"] for one in containers()} == {f"ssastore:{__version__}"}
    labels = [
        item["spec"]["template"]["metadata"]["labels"]
        for item in manifests()
        if item["kind"] in ("StatefulSet", "Deployment")
    ]
    for item in manifests():
        if item["kind"] == "Service":
            assert item["spec"]["selector"] in labels
        if item["kind"] in ("StatefulSet", "Deployment", "PodDisruptionBudget"):
            assert item["spec"]["selector"]["matchLabels"] in labels


def test_only_a_node_has_a_privilege() -> None:
    """And that is one, after it has become another user."""
    for one in containers():
        rights = one["securityContext"]
        assert rights["allowPrivilegeEscalation"] is False and rights["readOnlyRootFilesystem"]
        assert rights["capabilities"]["drop"] == ["ALL"]
        if one["name"] == "node":
            assert set(rights["capabilities"]["add"]) == {"NET_ADMIN", "SETUID", "SETGID"}
            assert "--ambient-caps=-all,+net_admin" in one["command"] and "--reuid=ssastore" in one["command"]
        elif one["name"] != "prepare":
            assert "add" not in rights["capabilities"]
