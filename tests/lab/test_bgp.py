"""A lab whose router hears of slices by BGP alone: moves, flapping sessions, nodes that announce too much."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from ipaddress import IPv6Network
from pathlib import Path

import pytest

from ssastore.judge.verdicts import judge, read_history, share_of_success
from ssastore.keyspace import GROUP_BITS
from ssastore.rebalance import Move, MoveState, move_states, order_move
from tests.birds import birdc, is_established, need_bird, prefixes_in
from tests.faults import load_on
from tests.lab.shared import ask, covers, module_lab, processes_with, wait_until
from tests.lab.test_front import gateway_on, gateways, is_settled, process_of, under_load
from tests.lab.test_moving import COUNT, LOAD, PLANE, leads_to, node_address, owners
from tests.labs import PYTHON, RunningLab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(240)]

FLAP_S = float(os.environ.get("SSASTORE_SOAK_FLAP_S", "6"))
FLAP_EVERY_S = 2.0
DOWN_S = 1.0

SHAPE = ("--nodes", "4", "--replicas", "3", "--workers", "1", "--gateways", "2", "--topology", "bgp")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningLab]:
    need_bird()
    with module_lab(tmp_path_factory, "bgp", *SHAPE) as found:
        yield found


def routes_of(lab: RunningLab, host: str, *what: str) -> set[str]:
    """Prefixes of a host's main table."""
    command = ("ip", "-6", "route", "show", *what)
    lines = lab.cli("exec", "--host", host, "--", *command).stdout.splitlines()
    return {line.removeprefix("unreachable ").split()[0] for line in lines}


def test_the_router_has_what_nodes_own_from_bgp_and_nothing_else(lab: RunningLab) -> None:
    service = lab.status()["service"]
    wait_until(
        lambda: routes_of(lab, "router", "proto", "bird") == covers(lab),
        "the router has learnt what nodes and gateways announce",
    )
    assert routes_of(lab, "router", "proto", "74") == set()
    assert routes_of(lab, "router", "type", "unreachable") == {service}
    assert routes_of(lab, "n1", "proto", "74") < covers(lab)
    assert routes_of(lab, "n1", "proto", "bird") == set()


def test_an_announcement_that_somebody_takes_away_comes_back(lab: RunningLab) -> None:
    """The node reads its routes back every 5 s; the router's daemon says since when it knows the prefix."""
    victim = sorted(routes_of(lab, "n1", "proto", "74"))[0]

    def known() -> str:
        return birdc(lab, "router", "show", "route", "for", victim)

    before = known()
    lab.cli("exec", "--host", "n1", "--", "ip", "-6", "route", "del", "unreachable", victim, "proto", "74")
    wait_until(lambda: victim in known() != before, "the router forgets it and has it again")


def test_a_slice_moves_under_load_behind_bird_and_no_call_fails(
    lab: RunningLab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Until the router's kernel sends its addresses to the new owner."""
    stop = tmp_path / "stop"
    load = lab.start(PYTHON, "-c", LOAD, str(COUNT), str(stop))
    assert load.stdout is not None
    where = json.loads(load.stdout.readline())
    group, address = int(where["group"], 16), where["addresses"][PLANE]
    (target,) = {"n1", "n2", "n3", "n4"} - set(owners(lab, group))
    assert f"via {node_address(lab, owners(lab, group)[PLANE])} " in leads_to(lab, "router", address)
    move = Move(PLANE << GROUP_BITS | group, target)
    ask(lab, lambda control: order_move(control, move.number, target))
    wait_until(
        lambda: ask(lab, lambda control: move_states(control, [move]))[move] is MoveState.DONE, "it moved", 60
    )
    hop = f"via {node_address(lab, target)} "
    wait_until(lambda: hop in leads_to(lab, "router", address), "the router sends it there")
    time.sleep(1)
    stop.touch()
    found = json.loads(load.communicate(timeout=60)[0])
    with capsys.disabled():
        print(f"\n  {found['calls']} calls, {len(found['failed'])} failed, slowest {found['slowest_ms']} ms ")
    assert found["failed"] == [] and found["calls"] > 100


def test_a_part_of_the_front_plane_moves_behind_bird_and_no_s3_client_notices(
    lab: RunningLab, capsys: pytest.CaptureFixture[str]
) -> None:
    """Away from a gateway that ends, and to it again; the router knows by BGP alone. Nothing is repeated."""
    config = lab.data / "config" / "gw2.toml"
    hop = ("proto", "bird", "via", gateways(lab)["gw2"]["address"])
    wait_until(lambda: is_settled(lab, ["gw", "gw2"]), "the front plane is shared out", 20)
    wait_until(
        lambda: routes_of(lab, "router", *hop) == set(gateways(lab)["gw2"]["prefixes"]), "it is led there"
    )
    assert routes_of(lab, "router", "proto", "75") == set()
    with under_load(lab, "fronts", 0) as told:
        os.kill(process_of(lab, "gw2"), signal.SIGTERM)
        wait_until(lambda: not processes_with(str(config)), "gw2 has ended", 40)
        assert routes_of(lab, "router", *hop) == set()
        with gateway_on(lab, "gw2", config):
            wait_until(lambda: is_settled(lab, ["gw", "gw2"]), "gw2 has its part again", 40)
            wait_until(
                lambda: routes_of(lab, "router", "proto", "bird") == covers(lab), "and it is led there"
            )
            assert routes_of(lab, "router", *hop)
    with capsys.disabled():
        print(f"\n  {told['done']} puts and gets, {len(told['failed'])} failed ")
    assert told["failed"] == [] and told["done"] > 50
    assert routes_of(lab, "gw2", "table", "all", "proto", "75") == set(), "who has ended leaves nothing"


def test_a_session_that_flaps_spoils_nothing(
    lab: RunningLab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """While it is down, nobody is led to the node: other planes answer. 0 wrong data, 99 % success."""
    flaps = 0
    with load_on(lab, tmp_path, name="flaps") as load:
        end = time.monotonic() + FLAP_S
        while (began := time.monotonic()) < end:
            birdc(lab, "n2", "disable", "upstream")
            time.sleep(DOWN_S)
            assert not is_established(lab, "router", "n2")
            birdc(lab, "n2", "enable", "upstream")
            flaps += 1
            time.sleep(max(0.0, FLAP_EVERY_S - (time.monotonic() - began)))
        found = load.stop()
    judged = judge(read_history(load.settings.history))
    with capsys.disabled():
        print(f"\n  {flaps} flaps, {judged.keys} keys, {judged.operations} operations, {found} ")
    assert (judged.violations, judged.undecided, judged.lost) == ([], [], [])
    assert share_of_success(found) >= 0.99, found
    wait_until(lambda: is_established(lab, "router", "n2"), "the session is there again")
    wait_until(lambda: routes_of(lab, "router", "proto", "bird") == covers(lab), "all routes are back")


LEAKS = """
protocol static leaks {{
    ipv6;
    route {part}:1234:5678:9abc::/112 unreachable;
    route {part}1:2345:6789::/100 unreachable;
    route {service} unreachable;
    route {wide} unreachable;
    route 2001:db8:dead::/48 unreachable;
    route ::/0 unreachable;
    {more}
}}
"""


@pytest.fixture
def leak(lab: RunningLab) -> Iterator[str]:
    """The settings of n3's daemon without its own rule for what it exports; put right at the end."""
    path = lab.data / "config" / "bird-n3.conf"
    honest = path.read_text()
    yield honest.replace('export where proto = "announced"', "export all")
    path.write_text(honest)
    birdc(lab, "n3", "configure")
    wait_until(lambda: is_established(lab, "router", "n3"), "the session is there again")
    wait_until(lambda: routes_of(lab, "router", "proto", "bird") == covers(lab), "all routes are there")


def let_leak(lab: RunningLab, settings: str, more: str = "") -> set[str]:
    """Let n3 announce these as well; what is not its own or nobody's."""
    service = lab.status()["service"]
    part = service.removesuffix("::/64")
    wide = IPv6Network(service).supernet(new_prefix=60)
    leaks = LEAKS.format(part=part, service=service, wide=wide, more=more)
    (lab.data / "config" / "bird-n3.conf").write_text(settings + leaks)
    assert "Reconfigured" in birdc(lab, "n3", "configure")
    return {line.split()[1] for line in leaks.splitlines() if line.strip().startswith("route ")}


def test_leaks_and_foreign_prefixes_are_filtered(lab: RunningLab, leak: str) -> None:
    """They come to the router, which shows them as filtered; its kernel has the same routes as before."""
    wanted = routes_of(lab, "router", "proto", "bird")
    assert wanted == covers(lab)
    leaks = let_leak(lab, leak)
    wait_until(
        lambda: len(prefixes_in(birdc(lab, "router", "show", "route", "filtered"))) >= len(leaks), "they come"
    )
    time.sleep(0.5)
    assert routes_of(lab, "router", "proto", "bird") == wanted
    assert len(prefixes_in(birdc(lab, "router", "show", "route", "filtered"))) == len(leaks)


def test_a_flood_of_prefixes_ends_the_session_alone(lab: RunningLab, leak: str) -> None:
    """10,000 of them trip the limit: what the node owns is answered by other planes meanwhile."""
    others = "".join(f"route 2001:db8:{number:x}::/48 unreachable;" for number in range(10_000))
    let_leak(lab, leak, others)
    wait_until(lambda: not is_established(lab, "router", "n3"), "the session ends")
    assert all(is_established(lab, "router", node) for node in ("n1", "n2", "n4"))
    assert not {prefix for prefix in routes_of(lab, "router") if prefix.startswith("2001:db8:")}
    lab.cli("mb", f"flood{time.monotonic_ns()}")
