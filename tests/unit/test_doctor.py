"""What a look at a host says of what is as wanted, and of each thing that is not. Some looks are real."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyroute2 import IPRoute

from ssastore.config import NodeConfig, load
from ssastore.core.cluster import NodeRecord
from ssastore.doctor import disk, host, network, owners
from ssastore.doctor.findings import Finding, State, as_json, good, look_at
from ssastore.doctor.service import judge_control, judge_routes
from ssastore.hosting.files import make_first, token_book
from ssastore.hosting.plan import Places, Site
from ssastore.lab.namespaces import in_new_namespaces

CHAIN = {"family": "inet", "table": "filter", "name": "input", "hook": "input", "policy": "drop"}
NET_ADMIN = 1 << 12


def ruleset(*expressions: Any, **chain: str) -> dict[str, Any]:
    """As nft -j has it: one chain, and rules in it."""
    where = {"family": "inet", "table": "filter", "chain": "input"}
    rules = [{"rule": {**where, "expr": [expression]}} for expression in expressions]
    return {"nftables": [{"metainfo": {}}, {"chain": CHAIN | chain}, *rules]}


def match(right: Any) -> dict[str, Any]:
    payload = {"protocol": "tcp", "field": "dport"}
    return {"match": {"op": "==", "left": {"payload": payload}, "right": right}}


@pytest.mark.parametrize(
    "finding",
    [
        host.judge_kernel("Linux", "6.1.0-18-amd64"),
        host.judge_kernel("Linux", "4.6"),
        host.judge_files(4096, 4096),
        host.judge_files(-1, -1),
        host.judge_clock(0, 0x2001),
        network.judge_privilege(NET_ADMIN),
        network.judge_mtu([("lo", 65536), ("eth0", 1280)]),
        network.judge_packet_filter({"nftables": []}, 7480),
        network.judge_packet_filter(ruleset(policy="accept"), 7480),
        network.judge_packet_filter(ruleset(hook="forward"), 7480),
        network.judge_packet_filter(ruleset(match(7480)), 7480),
        network.judge_packet_filter(ruleset(match({"set": [22, 7480]})), 7480),
        network.judge_packet_filter(ruleset(match({"range": [7000, 8000]})), 7480),
        network.judge_packet_filter(ruleset(family="ip"), 7480),
        disk.judge_file_system(Path("/data"), "ext4"),
        disk.judge_room(1 << 30),
        disk.judge_flush(60),
        judge_control("etcd://[::1]:2379", 20),
        judge_routes({"fd00::/68"}, {"fd00::/68"}),
        judge_routes(set(), set()),
    ],
    ids=lambda finding: f"{finding.name}: {finding.found}",
)
def test_what_is_as_wanted_has_nothing_to_mend(finding: Finding) -> None:
    assert finding.state is State.OK
    assert finding.found and not finding.wanted and not finding.mend


@pytest.mark.parametrize(
    ("finding", "state", "mend"),
    [
        (host.judge_kernel("Darwin", "23.1.0"), State.BAD, "Linux"),
        (host.judge_kernel("Linux", "4.5.9"), State.BAD, "newer kernel"),
        (host.judge_files(1024, 65536), State.WARN, "ulimit -n 4096"),
        (host.judge_files(1024, 1024), State.WARN, "LimitNOFILE"),
        (host.judge_clock(5, 0), State.WARN, "chrony"),
        (host.judge_clock(0, 0x40), State.WARN, "chrony"),
        (network.judge_privilege(~NET_ADMIN & 0xFFFFFFFF), State.WARN, "CAP_NET_ADMIN"),
        (network.judge_mtu([("lo", 65536), ("wg0", 1279)]), State.BAD, "ip link set wg0 mtu"),
        (
            network.judge_packet_filter(ruleset(match(22), match({"range": [7481, 8000]})), 7480),
            State.WARN,
            "nft insert rule inet filter input tcp dport 7480 accept",
        ),
        (disk.judge_file_system(Path("/run/data"), "tmpfs"), State.BAD, "data_dir"),
        (disk.judge_file_system(Path("/net/data"), "nfs4"), State.BAD, "data_dir"),
        (disk.judge_room((1 << 30) - 1), State.WARN, "disk"),
        (disk.judge_flush(3), State.WARN, "hdparm -W0"),
        (disk.judge_flush(30_000), State.WARN, "faster"),
        (judge_control("etcd://[::1]:2379", 9000), State.WARN, "nearer"),
        (judge_routes({"fd00::/68", "fd00:0:0:0:1000::/68"}, {"fd00::/68"}), State.WARN, "start the node"),
        (judge_routes({"fd00::/68"}, {"fd00::/68", "fd00:0:0:0:1000::/68"}), State.WARN, "restart"),
    ],
    ids=lambda value: f"{value.name}: {value.found}" if isinstance(value, Finding) else None,
)
def test_what_is_not_says_what_is_wanted_and_how_to_mend_it(
    finding: Finding, state: State, mend: str
) -> None:
    assert finding.state is state
    assert finding.wanted and mend in finding.mend


ROOT, SERVICES = owners.Owner(0, 0, 0o600), owners.Owner(54321, 980, 0o700)
PLACES = Places(Path("/etc/ssastore"), Path("/var/lib/ssastore"))


@pytest.mark.parametrize(
    ("owner", "can_replace"),
    [
        (ROOT, False),
        (owners.Owner(0, 980, 0o640), False),
        (owners.Owner(0, 980, 0o750), False),
        (owners.Owner(0, 981, 0o770), False),
        (owners.Owner(0, 980, 0o770), True),
        (owners.Owner(0, 0, 0o666), True),
        (owners.Owner(54321, 0, 0o400), True),
    ],
)
def test_settings_that_services_could_replace(owner: owners.Owner, can_replace: bool) -> None:
    found = owners.judge_settings(SERVICES, {"/etc/ssastore/tls": owner, "/etc/ssastore": ROOT}, PLACES)
    assert found.state is (State.WARN if can_replace else State.OK)
    if can_replace:
        assert found.found.endswith("can replace /etc/ssastore/tls")
        assert found.mend.startswith(
            "ssastore node protect --user 54321 --settings /etc/ssastore --data /var"
        )
    assert owners.judge_settings(ROOT, {"/etc/ssastore": owner}, PLACES).state is State.OK


def test_a_host_that_an_earlier_version_made(tmp_path: Path) -> None:
    """Each of its files and directories counts, by itself."""
    places = Places(tmp_path / "etc", tmp_path / "data")
    make_first(Site("store.example", "fd5a::/64", 1, (NodeRecord("n1", "fd00::1"),)), places)
    places.admin_token.write_text("")
    token_book(places).write_text("[]")
    config = load(str(places.node), NodeConfig)
    if os.geteuid() != 0:
        pytest.skip("only root can give files to another user")
    os.chown(places.data, 54321, 54322)
    assert owners.look_at_settings(config) == good("settings", "not 54321's, as whom the services run")
    made = [places.settings, *places.settings.rglob("*")]
    assert len(made) == 13
    for path in made:
        os.chown(path, 54321, -1)
        assert owners.look_at_settings(config).found.endswith(f"can replace {path}")
        os.chown(path, 0, -1)
    places.site.unlink()
    assert "not made by" in owners.look_at_settings(config).found


def test_many_prefixes_are_not_all_listed() -> None:
    wanted = {f"fd00:0:0:0:{number}000::/68" for number in range(1, 9)}
    found = judge_routes(wanted, set()).found
    assert found.startswith("8 of 8") and found.count("/68") == 3 and found.endswith("...")


def test_what_cannot_be_looked_at_says_so_and_hides_nothing() -> None:
    def fail() -> Finding:
        raise PermissionError(13, "Permission denied")

    finding = look_at("ipv6", fail)
    assert finding.state is State.UNKNOWN and "Permission denied" in finding.found
    report = as_json([finding, good("kernel", "Linux 6")])
    assert report["ok"] and [row["state"] for row in report["findings"]] == ["unknown", "ok"]
    assert not as_json([Finding("mtu", State.BAD, "wg0 576")])["ok"]


def test_ipv6_that_the_kernel_lacks_or_is_switched_off(tmp_path: Path) -> None:
    assert network.look_at_ipv6(tmp_path).state is State.BAD
    for name in ("all", "default", "lo"):
        folder = tmp_path / "sys/net/ipv6/conf" / name
        folder.mkdir(parents=True)
        (folder / "disable_ipv6").write_text("0\n")
    assert network.look_at_ipv6(tmp_path).state is State.OK
    (tmp_path / "sys/net/ipv6/conf/lo/disable_ipv6").write_text("1\n")
    assert network.look_at_ipv6(tmp_path).mend == "sysctl -w net.ipv6.conf.lo.disable_ipv6=0"


def test_the_nearest_mount_counts() -> None:
    mounts = "/dev/a / ext4 rw 0 0\ntmpfs /srv tmpfs rw 0 0\n/dev/b /srv/my\\040data xfs rw 0 0\n"
    kinds = [disk.file_system_of(Path(at), mounts) for at in ("/home", "/srv/x", "/srv/my data/n1", "/srvx")]
    assert kinds == ["ext4", "tmpfs", "xfs", "ext4"]


LOOKS: list[Callable[[], Finding]] = [
    host.look_at_kernel,
    host.look_at_python,
    host.look_at_files,
    host.look_at_clock,
    network.look_at_privilege,
    network.look_at_steering,
    network.look_at_mtu,
    lambda: network.look_at_packet_filter(7480),
    lambda: disk.look_at_room(Path()),
    lambda: disk.look_at_flush(Path()),
    lambda: disk.look_at_file_system(Path().absolute()),
]


@pytest.mark.parametrize("look", LOOKS, ids=lambda look: getattr(look, "__name__", ""))
def test_this_host_can_be_looked_at(look: Callable[[], Finding]) -> None:
    finding = look_at("anything", look)
    assert finding.name != "anything" and finding.found


def _switched_off() -> tuple[Finding, Finding]:
    Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").write_text("1")
    return network.look_at_ipv6(), look_at("anyip", network.look_at_anyip)


def _with_a_small_interface() -> Finding:
    with IPRoute() as ip:
        ip.link("set", index=1, mtu=1000, state="up")
    return network.look_at_mtu()


def test_a_real_network_without_ipv6() -> None:
    """In a name space of its own; AnyIP is tried in another one, where IPv6 is as it comes."""
    ipv6, anyip = in_new_namespaces(_switched_off)
    assert ipv6.state is State.BAD and "disable_ipv6=0" in ipv6.mend
    assert anyip.state is State.OK


def test_a_real_interface_that_is_too_thin() -> None:
    found = in_new_namespaces(_with_a_small_interface)
    assert found.state is State.BAD and found.found == "lo 1000"
