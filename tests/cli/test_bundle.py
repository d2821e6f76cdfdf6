"""``ssastore bundle``: what is in it, and above all what is not."""

from __future__ import annotations

import base64
import json
import os
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ssastore.bundle import LOG_BYTES, MASK, Masks, tail
from tests.cli.conftest import Done

CLUSTER = b"\xc1\xa5" + bytes(range(60, 90))
KEY = "p4Y/load+of-an_access==key"
RULE = "00112233445566778899aabbccddeeff"
ETCD = "etcd-pass w0rd!"
VARIABLE = "a-token-of-the-environment"
SHORT = "abc"
PLANTED = [
    CLUSTER.hex(),
    CLUSTER.hex().upper(),
    base64.b64encode(CLUSTER).decode().rstrip("="),
    base64.urlsafe_b64encode(CLUSTER).decode().rstrip("="),
    repr(CLUSTER)[2:-1],
    KEY,
    base64.b64encode(KEY.encode()).decode().rstrip("="),
    RULE,
    ETCD,
    VARIABLE,
    "5f2bsignature",
    "AKIAKEYOFURL",
    "pw-of-a-url",
    "MIIEprivate",
    "hunter2hunter2",
    "eyJbearer",
]
LINES = [
    f"a line with {CLUSTER!r} and {CLUSTER.hex()}, {CLUSTER.hex().upper()}",
    f"base64 {base64.b64encode(CLUSTER).decode()} {base64.urlsafe_b64encode(CLUSTER).decode()}",
    f"access {KEY} {base64.b64encode(KEY.encode()).decode()}",
    json.dumps({"event": "x", "reason": f"rule {RULE}", "password": "hunter2hunter2"}),
    f"etcd said {ETCD} is wrong; {VARIABLE}",
    "GET /photos/cat.jpg?X-Amz-Credential=AKIAKEYOFURL%2F2026&X-Amz-Signature=5f2bsignature HTTP/1.1",
    "GET /photos/cat.jpg?AWSAccessKeyId=x&Signature=5f2bsignature&Expires=1",
    "Authorization: Bearer eyJbearer.abc",
    "connecting to https://root:pw-of-a-url@etcd.example:2379/",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEprivate\n-----END RSA PRIVATE KEY-----",
    "admin_password = hunter2hunter2",
    "object photos/cat.jpg at fd5a:1:2:3::1 is corrupt",
]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Settings, secrets and a log, all with what must not leave."""
    secrets = tmp_path / "secrets.json"
    content = {
        "cluster_secret": CLUSTER.hex(),
        "access_keys": {"SSAKEY": KEY, "SHORT": SHORT},
        "rule_secrets": [RULE],
        "etcd": {"user": "ssastore", "password": ETCD},
    }
    secrets.write_text(json.dumps(content))
    secrets.chmod(0o600)
    (tmp_path / "n1.toml").write_text(
        f'name = "n1"\nsecrets_file = "{secrets}"\nrule_token = "{RULE}"\n# {KEY}\n'
    )
    (tmp_path / "n1.log").write_text("\n".join(LINES))
    monkeypatch.setenv("SSASTORE_SECRET_KEY", KEY)
    monkeypatch.setenv("SSASTORE_TOKEN", VARIABLE)
    return tmp_path


def unpacked(path: Path) -> dict[str, str]:
    with tarfile.open(path) as tar:
        return {
            member.name.partition("/")[2]: (tar.extractfile(member) or pytest.fail()).read().decode()
            for member in tar
        }


def test_no_secret_leaves(host: Path, ssastore: Callable[..., Done]) -> None:
    """Method: every kind of secret planted where it may stand, then looked for in all of the archive."""
    out = host / "out.tar.gz"
    done = ssastore(
        "bundle", "-o", str(out), "--config", str(host / "n1.toml"), "--log", str(host / "n1.log")
    )
    assert done.code == 0, done.err
    files = unpacked(out)
    everything = "\n".join([*files, *files.values()])
    assert [secret for secret in PLANTED if secret in everything] == []
    assert all(secret in "\n".join(LINES) + repr(os.environ) for secret in PLANTED), "else it proves nothing"
    assert out.stat().st_mode & 0o777 == 0o600


def test_what_a_report_needs_is_there(host: Path, ssastore: Callable[..., Done]) -> None:
    out = host / "out.tar.gz"
    ssastore("bundle", "-o", str(out), "--config", str(host / "n1.toml"), "--log", str(host / "n1.log"))
    files = unpacked(out)
    names = {"README.txt", "doctor.json", "versions.json", "settings/n1.toml", "logs/n1.log", "missing.txt"}
    assert set(files) == names
    assert "no lab is running" in files["missing.txt"]
    assert {finding["name"] for finding in json.loads(files["doctor.json"])["findings"]} >= {
        "kernel",
        "flush",
    }
    versions = json.loads(files["versions.json"])
    assert versions["ssastore"] and versions["environment"]["SSASTORE_TOKEN"] == MASK
    assert f'secrets_file = "{host}/secrets.json"' in files["settings/n1.toml"], "a path is no secret"
    assert LINES[-1] in files["logs/n1.log"], "names stay"
    assert "X-Amz-Signature=" in files["logs/n1.log"], "that there was one stays, too"


def test_without_the_secrets_nobody_knows_what_to_mask(host: Path, ssastore: Callable[..., Done]) -> None:
    (host / "secrets.json").write_text("{")
    out = host / "out.tar.gz"
    done = ssastore("bundle", "-o", str(out), "--config", str(host / "n1.toml"))
    assert done.code == 2 and "mask" in done.err and not out.exists()


def test_a_log_that_is_missing_is_said(host: Path, ssastore: Callable[..., Done]) -> None:
    out = host / "out.tar.gz"
    done = ssastore("bundle", "-o", str(out), "--log", str(host / "nowhere.log"))
    assert done.code == 0 and "without logs/nowhere.log" in done.out
    assert "nowhere.log" in unpacked(out)["missing.txt"]
    again = ssastore("bundle", "-o", str(out))
    assert again.code != 0 and "exists" in again.err, "nothing is overwritten"


def test_logs_of_the_same_name(host: Path, ssastore: Callable[..., Done]) -> None:
    (host / "other").mkdir()
    (host / "other" / "n1.log").write_text("x")
    out = host / "out.tar.gz"
    logs = [str(host / "n1.log"), str(host / "other" / "n1.log")]
    ssastore("bundle", "-o", str(out), "--config", str(host / "n1.toml"), "--log", logs[0], "--log", logs[1])
    assert sum(name.endswith("n1.log") for name in unpacked(out)) == 2


def test_long_words_take_no_longer_than_short_ones() -> None:
    """A log is half a megabyte, and who may write to it chooses how long a word there is."""
    masks = Masks(["hunter2hunter2"])
    began = time.process_time()
    for text in ("a" * LOG_BYTES, "token" * (LOG_BYTES // 5), "token" + " " * LOG_BYTES, '"' * LOG_BYTES):
        masks.text(text)
    assert time.process_time() - began < 20
    assert masks.text("a" * 1000 + "_token=5f2b") == "a" * 1000 + f"_token={MASK}"


def test_of_a_log_the_end(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text("first line\n" + "a line\n" * (LOG_BYTES // 7 + 5) + "the last\n")
    found = tail(log)
    assert len(found) <= LOG_BYTES and found.startswith("a line\n") and found.endswith("the last\n")


@pytest.mark.parametrize(
    "text",
    [
        'ssastore_s3_requests_total{op="GetObject"} 17',
        '"secrets_file": "/etc/ssastore/secrets.json"',
        "12:00:00.123 INFO n1/0 worker.ready slices=12",
        "abc",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert Masks([SHORT, CLUSTER.hex()]).text(text) == text
