"""``ssastore up`` and what is done with it: commands, S3, restarts, a simulated network, other users."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from ipaddress import IPv6Network
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from botocore.exceptions import ClientError

from ssastore.keyspace import address_of, group_of, iid_of, position_of_key
from ssastore.limits import CONFIG_AGE_MS, DRIFT_EVERY_MS
from tests.lab.shared import (
    files_of,
    module_lab,
    processes_with,
    run_tool,
    s3_client,
    tool_environment,
    write_tree,
)
from tests.labs import PYTHON, RunningLab, free_port, running_lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(120)]

BIG_BYTES = int(os.environ.get("SSASTORE_TEST_BIG_MIB", "40")) * 2**20
NOBODY = 65534
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningLab]:
    with module_lab(tmp_path_factory, "lab", "--nodes", "4") as found:
        yield found


@pytest.fixture(scope="module")
def docs(lab: RunningLab) -> str:
    """A bucket of four objects."""
    assert lab.cli("mb", "docs").stdout == ""
    for key in ("a.txt", "dir/b.txt", "dir/c.txt", "z.txt"):
        lab.cli("put", f"docs/{key}", input=f"content of {key}")
    return "docs"


def json_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


# -- commands ---------------------------------------------------------------------------------------


def test_object_is_put_and_got_by_file_and_by_stream(lab: RunningLab, docs: str, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(5 * 2**20))
    stored = json.loads(lab.cli("put", f"{docs}/big.bin", str(source), "--json").stdout)
    assert stored["size"] == source.stat().st_size
    lab.cli("get", f"{docs}/big.bin", str(target))
    assert target.read_bytes() == source.read_bytes()
    assert lab.cli("get", f"{docs}/a.txt").stdout == "content of a.txt"
    assert lab.cli("get", f"{docs}/a.txt", "--start", "-5").stdout == "a.txt"
    assert lab.cli("get", f"{docs}/a.txt", "--start", "8", "--length", "2").stdout == "of"
    assert "7 bytes  ETag b3-" in lab.cli("put", f"{docs}/small", input="1234567").stdout
    lab.cli("rm", f"{docs}/small")
    lab.cli("rm", f"{docs}/big.bin")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "target"]


def test_conditions_are_kept(lab: RunningLab, docs: str) -> None:
    first = json.loads(lab.cli("put", f"{docs}/once", "--if-none-match", "*", "--json", input="1").stdout)
    assert lab.cli("put", f"{docs}/once", "--if-none-match", "*", input="2", check=False).returncode == 1
    assert lab.cli("put", f"{docs}/once", "--if-match", "b3-00", input="3", check=False).returncode == 1
    lab.cli("put", f"{docs}/once", "--if-match", first["etag"], input="4")
    assert lab.cli("get", f"{docs}/once").stdout == "4"
    lab.cli("rm", f"{docs}/once")


def test_ls_shows_buckets_prefixes_and_keys_in_order(lab: RunningLab, docs: str) -> None:
    assert docs in lab.cli("ls").stdout.split()
    assert {"bucket": docs} in json_lines(lab.cli("ls", "--json").stdout)
    assert [line.split()[-1] for line in lab.cli("ls", docs).stdout.splitlines()] == [
        "a.txt",
        "dir/",
        "z.txt",
    ]
    keys = [found["key"] for found in json_lines(lab.cli("ls", "-r", "--json", docs).stdout)]
    assert keys == ["a.txt", "dir/b.txt", "dir/c.txt", "z.txt"]
    found = json_lines(lab.cli("ls", "--json", f"{docs}/dir/").stdout)
    assert [(entry["key"], entry["size"]) for entry in found] == [("dir/b.txt", 20), ("dir/c.txt", 20)]


def test_stat_shows_what_was_stored(lab: RunningLab, docs: str) -> None:
    lab.cli("put", f"{docs}/page", "--content-type", "text/html", input="<p>")
    found = json.loads(lab.cli("stat", f"{docs}/page", "--json").stdout)
    assert (found["key"], found["size"], found["headers"]) == ("page", 3, {"content-type": "text/html"})
    text = lab.cli("stat", f"{docs}/page").stdout
    assert found["etag"] in text
    assert "content-type: text/html" in text
    lab.cli("rm", f"{docs}/page")


def test_rm_deletes_an_object_a_prefix_or_an_empty_bucket(lab: RunningLab) -> None:
    lab.cli("mb", "shortlived", "--shards", "4")
    for key in ("a", "dir/b", "dir/c"):
        lab.cli("put", f"shortlived/{key}", input=key)
    assert lab.cli("rm", "shortlived", "--bucket", check=False).returncode == 1
    assert json.loads(lab.cli("rm", "-r", "shortlived/dir/", "--json").stdout) == {"deleted": 2}
    assert "deleted 1" in lab.cli("rm", "shortlived/a").stdout
    lab.cli("rm", "shortlived", "--bucket")
    assert "shortlived" not in lab.cli("ls").stdout.split()


@pytest.mark.parametrize(
    ("command", "code", "text"),
    [
        (("get", "docs/nothing"), 4, "no object docs/nothing"),
        (("stat", "docs/nothing"), 4, "no object docs/nothing"),
        (("rm", "docs/nothing"), 4, "no object docs/nothing"),
        (("get", "nobucket/a"), 4, "no bucket 'nobucket'"),
        (("mb", "docs"), 1, "bucket 'docs' exists"),
        (("mb", "NOT_A_NAME"), 2, "no bucket name"),
        (("get", "docs/a.txt", "--start", "99"), 2, "offset 99 of an object of 16 bytes"),
        (("get", "docs/a.txt", "no/such/directory/x"), 1, "no/such/directory"),
        (("rm", "--bucket", "docs/a.txt"), 2, "names a key"),
        (("put", "docs"), 2, "'docs' must be BUCKET/KEY"),
        (("exec", "--", "no-such-command"), 127, "no-such-command: No such file or directory"),
        (("exec", "--", "/etc/passwd"), 126, "/etc/passwd: Permission denied"),
        (("exec", "--", "sh", "-c", "exit 42"), 42, ""),
        (("exec", "--host", "n9", "--", "true"), 2, "n1, n2, n3, n4, gw, client, router"),
    ],
)
def test_failure_has_its_exit_code_and_says_why(
    lab: RunningLab, docs: str, command: tuple[str, ...], code: int, text: str
) -> None:
    done = lab.cli(*command, check=False, input="")
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_get_leaves_a_device_and_a_link_in_place(lab: RunningLab, docs: str, tmp_path: Path) -> None:
    """A regular file is replaced by renaming; /dev/null must not be."""
    pipe, link, target = tmp_path / "pipe", tmp_path / "link", tmp_path / "target"
    os.mkfifo(pipe)
    target.write_text("old")
    link.symlink_to(target)
    reader = subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE, text=True)
    lab.cli("get", f"{docs}/a.txt", str(pipe))
    assert reader.communicate(timeout=10)[0] == "content of a.txt"
    assert pipe.is_fifo()
    lab.cli("get", f"{docs}/a.txt", str(link))
    assert (link.is_symlink(), target.read_text()) == (True, "content of a.txt")
    assert lab.cli("get", f"{docs}/nothing", str(target), check=False).returncode == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "pipe", "target"]


def test_key_with_control_characters_is_listed_on_one_line(lab: RunningLab) -> None:
    lab.cli("mb", "controls")
    key = "red\x1b[31m\nline"
    lab.cli("put", f"controls/{key}", input="x")
    assert lab.cli("ls", "controls").stdout.count("\n") == 1
    assert "red\\x1b[31m\\nline" in lab.cli("ls", "controls").stdout
    assert json_lines(lab.cli("ls", "controls", "--json").stdout)[0]["key"] == key


def test_letters_that_the_terminal_lacks_are_escaped(lab: RunningLab) -> None:
    lab.cli("mb", "letters")
    lab.cli("put", "letters/ключ", input="x")
    command = [PYTHON, "-m", "ssastore", "--context", lab.name, "ls", "letters"]
    ascii_only = lab.environment | {"PYTHONIOENCODING": "ascii"}
    listed = subprocess.run(command, env=ascii_only, capture_output=True, check=True).stdout
    assert listed.endswith(b"  \\u043a\\u043b\\u044e\\u0447\n")


def test_locate_and_explain_compute_the_address(lab: RunningLab, docs: str) -> None:
    """The address follows from bucket id and key alone, and the node that owns it was dialled there."""
    steps = json.loads(lab.cli("explain", f"{docs}/a.txt", "--json").stdout)
    position = position_of_key(int(steps["bucket"]["id"], 16), steps["bucket"]["shards"], b"a.txt")
    status = lab.status()
    address = str(address_of(IPv6Network(status["service"]), iid_of(position, 0)))
    assert steps["location"]["addresses"] == [address]
    assert json.loads(lab.cli("locate", f"{docs}/a.txt", "--json").stdout) == steps["location"]
    assert lab.cli("locate", f"{docs}/a.txt").stdout == f"{address}\n"
    text = lab.cli("explain", f"{docs}/a.txt").stdout
    assert address in text
    assert f"group {group_of(iid_of(position, 0)):03x}" in text
    assert "16 bytes" in text
    owners = [node for node in status["nodes"] if address in node["workers"][0]["accept_log"]]
    assert [owns(node, address) for node in owners] == [True]


def owns(node: dict[str, Any], address: str) -> bool:
    return any(address_in(address, prefix) for prefix in node["prefixes"])


def address_in(address: str, prefix: str) -> bool:
    return IPv6Network(f"{address}/128").subnet_of(IPv6Network(prefix))


def test_status_and_ready_tell_of_every_node(lab: RunningLab) -> None:
    status = json.loads(lab.cli("status", "--json").stdout)
    assert status.keys() == lab.status().keys(), "other tests ask without the command"
    assert (status["schema"], status["ready"], status["context"]) == ("ssastore.status/1", True, "lab")
    assert [node["name"] for node in status["nodes"]] == ["n1", "n2", "n3", "n4"]
    assert sum(node["slices"] for node in status["nodes"]) == 4096
    text = lab.cli("status").stdout
    assert "all workers answer" in text
    assert all(f"\n{node['name']} " in text and node["prefixes"][0] in text for node in status["nodes"])
    assert lab.cli("ready").stdout == f"ready: 4 nodes of {status['service']}\n"
    assert json.loads(lab.cli("ready", "--json").stdout)["ready"] is True


def test_what_monitoring_asks_for_is_measured(lab: RunningLab, docs: str) -> None:
    """Every name in the queries of dashboard and alert rules has samples in a live scrape."""
    dashboard = json.loads(lab.cli("metrics", "dashboard").stdout)
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    alerts = yaml.safe_load(lab.cli("metrics", "alerts").stdout)["groups"][0]["rules"]
    wanted = set(
        re.findall(r"\b(?:ssastore|process)_\w+", " ".join(queries + [rule["expr"] for rule in alerts]))
    )
    assert len(queries) > 40 and len(alerts) > 15 and len(wanted) > 40
    assert lab.cli("mb", docs, check=False).returncode == 1
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"http://127.0.0.1:{lab.s3_port}/{docs}/a.txt")
    url = f"http://127.0.0.1:{lab.admin_port}/metrics"
    with urllib.request.urlopen(url) as answer:
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        text = answer.read().decode()
    sampled = set(re.findall(r"^([a-z0-9_]+)[ {]", text, re.MULTILINE))
    assert wanted - sampled <= ONLY_WITH_RULES
    declared = set(re.findall(r"^# TYPE (\w+) ", text, re.MULTILINE))
    assert wanted - sampled <= declared
    for name in ("n1", "n2", "n3", "n4"):
        assert f'ssastore_worker_up{{node="{name}",worker="0"}} 1\n' in text


ONLY_WITH_RULES = {"ssastore_front_connections_total", "ssastore_worker_rule_verdicts_total"}
"Declared in every scrape, and counted where the service has a rule of addresses (test_front.py)."


def test_health_says_which_node_is_needed(lab: RunningLab) -> None:
    """With one replica each of them is."""
    url = f"http://127.0.0.1:{lab.admin_port}/healthz/cluster"
    with urllib.request.urlopen(url) as answer:
        assert json.loads(answer.read())["healthy"]
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{url}?without=n2")
    assert refused.value.code == 412 and json.loads(refused.value.read())["lost"] == 1024


def test_top_and_watch_see_the_lab(lab: RunningLab, docs: str) -> None:
    lines = lab.cli("top", "--once", "--interval", "0.5").stdout.splitlines()
    assert "all workers answer" in lines[0] and [line.split()[0] for line in lines[4:]] == [
        "n1",
        "n2",
        "n3",
        "n4",
    ]
    found = json.loads(lab.cli("top", "--once", "--interval", "0.5", "--json").stdout)
    assert all(row["requests_per_s"] > 0 for row in found["workers"])
    command = [PYTHON, "-m", "ssastore", "--context", lab.name, "watch", "--json", "--interval", "0.2"]
    with subprocess.Popen(command, env=lab.environment, stdout=subprocess.PIPE, text=True) as watch:
        assert watch.stdout is not None
        assert json.loads(watch.stdout.readline())["nodes"] == ["n1", "n2", "n3", "n4"]
        os.kill(lab.worker_pid("n3"), signal.SIGKILL)
        seen = []
        while "worker.started" not in seen and "worker.answered" not in seen:
            seen.append(json.loads(watch.stdout.readline())["event"])
        watch.kill()


def test_s3_env_is_what_a_shell_evaluates(lab: RunningLab) -> None:
    variables = json.loads(lab.cli("s3", "env", "--json").stdout)
    assert variables["AWS_ENDPOINT_URL"] == f"http://127.0.0.1:{lab.s3_port}"
    script = f'{lab.cli("s3", "env").stdout}\nprintf %s "$AWS_SECRET_ACCESS_KEY"'
    shown = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
    assert shown == variables["AWS_SECRET_ACCESS_KEY"]


def test_command_inside_knows_service_and_key(lab: RunningLab, docs: str) -> None:
    script = "from ssastore import Client; print(Client.from_env().bucket('docs').get('a.txt').decode())"
    assert lab.python(script) == "content of a.txt\n"
    assert "default via" in lab.cli("exec", "--", "ip", "-6", "route").stdout


def test_routes_that_somebody_took_away_come_back(lab: RunningLab, docs: str) -> None:
    """And only ours are touched: the stranger's route stays."""
    ours = ["ip", "-6", "route", "show", "table", "all", "proto", "74"]
    before = {host: lab.cli("exec", "--host", host, "--", *ours).stdout for host in ("n1", "router")}
    assert all(before.values())
    lab.cli("exec", "--host", "n1", "--", "ip", "-6", "route", "flush", "table", "local", "proto", "74")
    stranger = ["dev", "lo", "proto", "static"]
    lab.cli("exec", "--host", "router", "--", "ip", "-6", "route", "add", "2001:db8:ffff::/64", *stranger)
    # In one command: they may be back before the next one has begun.
    taken = "ip -6 route flush proto 74 && ip -6 route show table all proto 74"
    assert lab.cli("exec", "--host", "router", "--", "sh", "-c", taken).stdout == ""
    deadline = time.monotonic() + 4 * DRIFT_EVERY_MS / 1000
    while before != (
        now := {host: lab.cli("exec", "--host", host, "--", *ours).stdout for host in ("n1", "router")}
    ):
        assert time.monotonic() < deadline, now
        time.sleep(0.2)
    assert lab.python("from ssastore import Client; print(Client.from_env().bucket('docs').get('a.txt'))")
    kept = lab.cli("exec", "--host", "router", "--", "ip", "-6", "route", "show", "2001:db8:ffff::/64").stdout
    assert "proto static" in kept


def test_doctor_sees_control_store_and_routes_of_a_node(lab: RunningLab) -> None:
    """On a host of the lab, with the node's own settings; and with those of a node that it lacks."""
    settings = lab.data / "config" / "n1.toml"

    def look(path: Path) -> tuple[int, dict[str, dict[str, str]]]:
        doctor = [PYTHON, "-m", "ssastore", "doctor", "--json", "--config", str(path)]
        done = lab.cli("exec", "--host", "n1", "--", *doctor, check=False)
        return done.returncode, {row["name"]: row for row in json.loads(done.stdout)["findings"]}

    code, found = look(settings)
    assert code == 0, found
    names = ("control store", "node", "routes", "anyip", "lane steering", "flush")
    assert {name: found[name]["state"] for name in names} == dict.fromkeys(names, "ok"), found
    assert "each with its `local` route" in found["routes"]["found"]
    other = settings.with_name("nobody.toml")
    other.write_text(settings.read_text().replace('name = "n1"', 'name = "n99"'))
    code, found = look(other)
    other.unlink()
    assert code == 1 and found["node"]["state"] == "bad" and "n99" in found["node"]["found"]


# -- S3 ---------------------------------------------------------------------------------------------


def test_one_id_leads_from_the_answer_to_the_logs_of_nodes(lab: RunningLab, docs: str) -> None:
    """``trace`` tells what the nodes write. This lab has one replica; several: test_requestpath.py."""
    found = json.loads(lab.cli("trace", f"{docs}/traced", "--put", "-", "--json", input="some data").stdout)
    assert found["outcome"].startswith("durable: 9 bytes")
    assert lab.cli("get", f"{docs}/traced").stdout == "some data"
    did = {part["node"]: part["op"] for part in found["parts"]}
    (writer,) = [step["who"].split("/")[0] for step in found["connects"]]
    assert did[writer] == "Put"
    for name in did:
        assert f"id='{found['id']}'" in (lab.data / "log" / f"{name}.log").read_text()


def test_a_bundle_has_the_lab_and_none_of_its_secrets(lab: RunningLab, tmp_path: Path) -> None:
    lab.cli("bundle", "-o", str(tmp_path / "bundle.tar.gz"))
    with tarfile.open(tmp_path / "bundle.tar.gz") as tar:
        files = {member.name.partition("/")[2]: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    assert files["missing.txt"] == b"nothing\n"
    assert {"settings/n1.toml", "settings/gateway.toml", "logs/n4.log"} <= set(files)
    assert json.loads(files["status.json"])["ready"] and b"ssastore_s3_requests" in files["metrics.txt"]
    secrets = json.loads((lab.data / "secrets.json").read_text())
    everything = b"".join(files.values())
    for secret in (secrets["cluster_secret"], *secrets["access_keys"].values()):
        assert secret.encode() not in everything


def test_a_user_gets_a_key_and_loses_it(lab: RunningLab) -> None:
    """Made, used through a real gateway, and revoked within five seconds."""
    made = json.loads(lab.cli("key", "create", "--user", "alice", "--json").stdout)
    session = boto3.Session(made["access_key"], made["secret_key"], region_name="us-east-1")
    alice = session.client("s3", endpoint_url=lab.aws()["AWS_ENDPOINT_URL"])
    alice.create_bucket(Bucket="alices")
    alice.put_object(Bucket="alices", Key="k", Body=b"data")
    assert alice.get_object(Bucket="alices", Key="k")["Body"].read() == b"data"
    assert [found["Name"] for found in alice.list_buckets()["Buckets"]] == ["alices"]

    again = lab.cli("key", "create", "--user", "bob", "--id", made["access_key"], check=False)
    assert again.returncode == 1 and "there is an access key" in again.stderr
    given = lab.cli("key", "create", "--user", "bob", "--id", "BOB", "--from-stdin", input="bobs secret\n")
    assert "bobs secret" in given.stdout
    listed = lab.cli("key", "list").stdout
    assert made["access_key"] in listed and "alice" in listed
    assert made["secret_key"] not in listed and "bobs secret" not in listed

    lab.cli("key", "revoke", made["access_key"])
    deadline = time.monotonic() + 2 * CONFIG_AGE_MS / 1000
    while True:
        try:
            alice.list_buckets()
        except ClientError as error:
            assert error.response["Error"]["Code"] == "InvalidAccessKeyId"
            break
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert "revoked" in lab.cli("key", "list").stdout
    assert lab.cli("key", "revoke", "nobodys", check=False).returncode == 4


def test_aws_cli_copies_syncs_and_lists(lab: RunningLab, tmp_path: Path) -> None:
    tree, back = write_tree(tmp_path / "tree"), tmp_path / "back"
    environment = tool_environment(lab, tmp_path)
    aws = [PYTHON, "-m", "awscli", "s3"]
    run_tool([*aws, "mb", "s3://awscli"], environment)
    run_tool([*aws, "cp", "--quiet", "--recursive", str(tree), "s3://awscli/t/"], environment)
    run_tool([*aws, "cp", "--quiet", "--recursive", "s3://awscli/t/", str(back)], environment)
    assert files_of(back) == files_of(tree)
    listed = run_tool([*aws, "ls", "--recursive", "s3://awscli/"], environment)
    assert {line[31:] for line in listed.splitlines()} == {f"t/{name}" for name in files_of(tree)}
    with open(tree / "a.txt", "a") as file:
        file.write("more")
    synced = run_tool([*aws, "sync", "--no-progress", str(tree), "s3://awscli/t/"], environment)
    assert [line.split()[-1] for line in synced.splitlines()] == ["s3://awscli/t/a.txt"]
    (back / "a.txt").unlink()
    run_tool([*aws, "sync", "--quiet", "s3://awscli/t/", str(back)], environment)
    assert files_of(back) == files_of(tree)


def test_large_object_by_boto3_in_default_settings(lab: RunningLab, tmp_path: Path) -> None:
    """Multipart with checksums, as boto3 does it on its own; 40 MiB here, SSASTORE_TEST_BIG_MIB for more."""
    path = tmp_path / "big"
    with open(path, "wb") as file:
        for _ in range(BIG_BYTES // 2**20):
            file.write(os.urandom(2**20))
    s3 = s3_client(lab)
    s3.create_bucket(Bucket="large")
    with open(path, "rb") as file:
        s3.upload_fileobj(file, "large", "big")
    assert s3.head_object(Bucket="large", Key="big")["ContentLength"] == BIG_BYTES
    with open(tmp_path / "back", "wb") as file:
        s3.download_fileobj("large", "big", file)
    assert digest_of(tmp_path / "back") == digest_of(path)
    s3.delete_object(Bucket="large", Key="big")


def digest_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# -- a lab's life -----------------------------------------------------------------------------------


def test_everything_is_there_after_a_restart(lab: RunningLab, docs: str, tmp_path: Path) -> None:
    """The lab of the tests before is stopped and started again with the same directory."""
    content = os.urandom(9 * 2**20)
    s3 = s3_client(lab)
    s3.create_bucket(Bucket="kept")
    s3.put_object(Bucket="kept", Key="large", Body=content, ContentType="x/y", Metadata={"who": "me"})
    by_server = {"ServerSideEncryption": "AES256"}
    by_customer = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": "k" * 32}
    for key, how in (("by server", by_server), ("by customer", by_customer)):
        s3.put_object(Bucket="kept", Key=key, Body=content, **how)
    before = {bucket: lab.cli("ls", "-r", "--json", bucket).stdout for bucket in (docs, "awscli", "kept")}
    keys_before = lab.aws()["AWS_SECRET_ACCESS_KEY"]
    started = time.monotonic()
    lab.stop()
    # boto3 keeps its connection: an idle one must not use up the 10 s that requests under way are given.
    assert time.monotonic() - started < 9
    assert lab.cli("status", check=False).returncode == 2
    lab.cli("key", "wrapping", str(lab.data / "secrets.json"))
    lab.s3_port, lab.admin_port = free_port(), free_port()
    start_again(lab, "--replicas", "1")
    assert lab.aws()["AWS_SECRET_ACCESS_KEY"] == keys_before
    assert {bucket: lab.cli("ls", "-r", "--json", bucket).stdout for bucket in before} == before
    s3 = s3_client(lab)
    found = s3.get_object(Bucket="kept", Key="large")
    assert (found["Body"].read(), found["ContentType"], found["Metadata"]) == (content, "x/y", {"who": "me"})
    assert lab.cli("get", f"{docs}/dir/b.txt").stdout == "content of dir/b.txt"
    # A key was added meanwhile, which wraps what is new.
    s3.put_object(Bucket="kept", Key="new", Body=content, **by_server)
    for key, how in (("by server", {}), ("by customer", by_customer), ("new", {})):
        assert s3.get_object(Bucket="kept", Key=key, **how)["Body"].read() == content


def start_again(lab: RunningLab, *options: str) -> None:
    ports = ["--s3-port", str(lab.s3_port), "--admin-port", str(lab.admin_port)]
    lab.cli("up", "--name", lab.name, "--data", str(lab.data), *ports, "--detach", *options)


@pytest.mark.parametrize("nodes", ["2", "3"])
def test_simulated_network_stores_and_says_so(tmp_path: Path, nodes: str) -> None:
    """No namespace is needed, so this runs everywhere; the path has what TOML and URLs must quote.

    Three nodes have three replicas, so they ask each other.
    """
    directory = tmp_path / 'si m "ü😀'
    directory.mkdir()
    with running_lab(directory, "sim", "--nodes", nodes, "--simulate") as lab:
        log = (directory / "state" / "ssastore" / "contexts" / "sim.log").read_text()
        assert "SIMULATED NETWORK" in log
        lab.cli("mb", "here")
        content = "x" * 5_000_000
        lab.cli("put", "here/large", input=content)
        assert lab.cli("get", "here/large").stdout == content
        s3 = s3_client(lab)
        s3.put_object(Bucket="here", Key="small", Body=b"by S3")
        assert lab.cli("get", "here/small").stdout == "by S3"
        assert s3.get_object(Bucket="here", Key="large")["Body"].read() == content.encode()
        assert [line.split()[-1] for line in lab.cli("ls", "here").stdout.splitlines()] == ["large", "small"]
        assert "2 bytes" not in lab.cli("explain", "here/small").stdout
        for words in (("exec", "--", "true"), ("renumber", "2001:db8:5a:1::/64")):
            refused = lab.cli(*words, check=False)
            assert refused.returncode == 2
            assert "simulated" in refused.stderr


def as_nobody() -> tuple[list[str], dict[str, str]]:
    """(command prefix, environment) of a user without privileges and without a home.

    This Python may be in a directory that only its owner can enter; then another one of the same version
    borrows its packages.
    """
    if os.geteuid() != 0:
        return [PYTHON], {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    if not shutil.which("setpriv"):
        pytest.skip("setpriv is absent, and we are root")
    become = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), sysconfig.get_path("purelib")])}
    script = "import lmdb, os, subprocess, sys; subprocess.run([sys.executable, '-c', ''], check=True)"
    for python, environment in ((PYTHON, {}), (f"/usr/bin/{version}", packages)):
        command = [*become, python, "-c", script]
        found = subprocess.run(
            command, env=os.environ | environment, capture_output=True, cwd="/", check=False
        )
        if found.returncode == 0:
            return [*become, python], environment
    pytest.skip(f"user {NOBODY} can reach neither {PYTHON} nor another {version} with its packages")


def test_lab_needs_no_privilege(lab: RunningLab) -> None:
    """As the user nobody, whose home does not exist: a real network, an object in and out, no root."""
    python, added = as_nobody()
    with tempfile.TemporaryDirectory(prefix="ssastore-nobody-") as directory:
        os.chown(directory, NOBODY, NOBODY) if os.geteuid() == 0 else None
        environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **added}

        def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
            command = [*python, "-m", "ssastore", *arguments]
            return subprocess.run(
                command, env=environment, cwd=directory, text=True, capture_output=True, timeout=60, **options
            )

        up = ["up", "--nodes", "1", "--workers", "2", "--data", f"{directory}/data", "--detach"]
        up += ["--s3-port", str(free_port()), "--admin-port", str(free_port())]
        refused = run(*up)
        assert refused.returncode == 2
        assert "set XDG_STATE_HOME" in refused.stderr
        environment["XDG_STATE_HOME"] = f"{directory}/state"
        started = run(*up)
        assert started.returncode == 0, started.stderr
        try:
            assert "simulated" not in started.stdout
            assert run("mb", "mine").returncode == 0
            assert run("put", "mine/a", input="without root").returncode == 0
            assert run("get", "mine/a").stdout == "without root"
            assert run("exec", "--", "id", "-u").stdout == "0\n", "root of its own namespaces only"
            owners = {path.stat().st_uid for path in Path(directory).rglob("*")}
            assert owners == {NOBODY if os.geteuid() == 0 else os.geteuid()}
        finally:
            assert run("down").returncode == 0


def test_two_labs_run_side_by_side(lab: RunningLab, docs: str) -> None:
    """A second lab of the same user: its own network, data and context; what would clash is refused."""
    state = Path(lab.environment["XDG_STATE_HOME"])
    directory = state.parent / "second"
    directory.mkdir()
    taken = ["--s3-port", str(free_port()), "--admin-port", str(free_port())]
    shape = ["--nodes", "4", "--replicas", "1"]
    for options, code, text in (
        (["--name", lab.name, *taken], 2, "give this one another --name"),
        (["--name", "x", *taken[:2], "--admin-port", str(lab.admin_port)], 2, "Address already in use"),
        (["--name", "x", "--data", str(lab.data), *shape, *taken], 3, "another control server"),
    ):
        refused = lab.cli("up", *options, check=False)
        assert (refused.returncode, refused.stdout) == (code, ""), refused.stderr
        assert text in refused.stderr
    second = RunningLab("second", directory / "data", lab.environment, free_port(), free_port())
    start_again(second, "--nodes", "1")
    try:
        assert second.status()["service"] != lab.status()["service"]
        second.cli("mb", docs)
        second.cli("put", f"{docs}/a.txt", input="of the second")
        assert lab.cli("get", f"{docs}/a.txt").stdout == "content of a.txt"
        command = [PYTHON, "-m", "ssastore", "get", f"{docs}/a.txt"]
        newest = subprocess.run(command, env=lab.environment, text=True, capture_output=True, check=True)
        assert newest.stdout == "of the second"
    finally:
        second.stop()
    assert lab.cli("ready").returncode == 0


def test_secrets_stay_in_their_file(lab: RunningLab, docs: str) -> None:
    """Not in logs, settings, contexts, status, error texts or command lines; and all files are private."""
    secrets = json.loads((lab.data / "secrets.json").read_text())
    raw = bytes.fromhex(secrets["cluster_secret"]).decode("latin-1")
    needles = [secrets["cluster_secret"], raw, *secrets["access_keys"].values()]
    denied = lab.cli("exec", "--", PYTHON, "-c", WRONG_SECRET, check=False)
    assert "AccessDenied" in denied.stderr
    shown = [denied.stderr, lab.cli("status", "--json").stdout, lab.cli("status").stdout]
    shown += [lab.cli("get", "docs/nothing", check=False).stderr, *processes_with("").values()]
    state = Path(lab.environment["XDG_STATE_HOME"]) / "ssastore"
    paths = [path for root in (lab.data, state) for path in [root, *root.rglob("*")]]
    for path in paths:
        mode = path.lstat().st_mode & 0o777
        assert mode == (0o700 if path.is_dir() else 0o600), f"{path} has mode {mode:o}"
        if path.is_file() and path.name not in ("secrets.json", "data.mdb"):
            shown.append(path.read_bytes().decode("latin-1"))
    assert len(shown) > 20
    for needle in needles:
        assert [text[:200] for text in shown if needle in text] == []


WRONG_SECRET = """
import os, ssastore
os.environ["SSASTORE_SECRET_KEY"] = "wrong"
ssastore.Client.from_env().bucket("docs").get("a.txt")
"""
