"""The filter as a router between clients and the service: classes, queues, orders, on veth pairs."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from bench.filterlab import CLIENT_PREFIX, INSIDE, OUTSIDE, SERVICE, Row, inside, row
from ssastore.rules.address import address_under
from ssastore.rules.hashes import ClientKeys
from ssastore.rules.record import record_from_text
from tests.bpf import need_bpf
from tests.integration.test_filter import LISTEN

RECORD = "v=SSA1; replicas=3; data=content+source; front=source"


def address_of(source: int) -> str:
    """What the rule allows a client."""
    front = record_from_text(RECORD).front
    return str(SERVICE[address_under(front, 15, source, free=1, epoch=0, keys=ClientKeys())])


GOOD = address_of(CLIENT_PREFIX)
STRAY = "2001:db8:5a:1:28b6:5d07:3f92:5c9d"
UNBOUND = "2001:db8:5a:1:f0ab::5"
SSASTORE = [sys.executable, "-m", "ssastore"]

# Sends data, closes its half and reads it back the other way round; on one connection, or says why not.
TURN = """
import socket, sys
address, size, within_s = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
data, found = bytes(range(256)) * (size // 256), b""
try:
    s = socket.socket(socket.AF_INET6, socket.SOCK_STREAM); s.settimeout(within_s)
    s.connect((address, 7480)); s.sendall(data); s.shutdown(socket.SHUT_WR)
    while piece := s.recv(1 << 20): found += piece
    print("turned" if found == data[::-1] else f"{len(found)} bytes")
except OSError as error: print(type(error).__name__)
"""

# Opens many connections that it never finishes, at a pace, from sockets that do not wait.
OPEN = """
import socket, sys, time
address, count, pace = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
kept, begun = [], time.monotonic()
for number in range(count):
    while number / pace > time.monotonic() - begun: time.sleep(0.001)
    s = socket.socket(socket.AF_INET6, socket.SOCK_STREAM); s.setblocking(False)
    s.connect_ex((address, 7480)); kept.append(s)
"""


# One ICMPv6 echo; whether it is answered.
PING = """
import socket, sys
s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6); s.settimeout(2)
s.sendto(bytes([128, 0, 0, 0, 0, 7, 0, 1]), (sys.argv[1], 0))
while s.recv(1500)[0] != 129: pass
print("answered")
"""


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    if process.stdout:
        process.stdout.close()


@dataclass
class Running:
    """``ssastore filter run`` on the middle host, and somebody who listens behind it."""

    hosts: Row
    judging: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)

    def outside(self, *command: str) -> str:
        asked = inside(self.hosts.outside, *command)
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()

    def turn(self, address: str, size: int = 2560, within_s: float = 8.0) -> str:
        return self.outside(sys.executable, "-c", TURN, address, str(size), str(within_s))

    def ssastore(self, *words: str) -> subprocess.CompletedProcess[str]:
        asked = inside(self.hosts.filter, *SSASTORE, "filter", *words)
        return subprocess.run(asked, capture_output=True, text=True, check=False)

    def counts(self) -> dict[str, int]:
        told = self.ssastore("show", OUTSIDE, "--json")
        found: dict[str, int] = json.loads(told.stdout)["counts"]
        return found

    def wait_for(self, line: str) -> None:
        assert self.judging.stdout
        for told in self.judging.stdout:
            if told.startswith(line):
                return
        raise AssertionError(f"it ended without {line!r}")


@pytest.fixture
def running(request: pytest.FixtureRequest) -> Iterator[Running]:
    need_bpf()
    options: list[str] = getattr(request, "param", [])
    with row() as hosts:
        asked = ["run", OUTSIDE, "--inside", INSIDE, "--service", str(SERVICE), "--record", RECORD, *options]
        command = inside(hosts.filter, *SSASTORE, "filter", *asked)
        listen = inside(hosts.inside, sys.executable, "-c", LISTEN)
        listening = subprocess.Popen(listen, stdout=subprocess.PIPE, text=True)
        judging = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert listening.stdout and listening.stdout.readline() == "listening\n"
            found = Running(hosts, judging)
            found.wait_for(f"judging {SERVICE} at {OUTSIDE} (native XDP, queues at {INSIDE})")
            yield found
        finally:
            for process in (listening, judging):
                end(process)


def test_a_connection_is_assumed_good_and_then_known(running: Running) -> None:
    """A large transfer is not paced: of 10 MB the queue that is paced saw the first packets only."""
    assert running.turn(GOOD, 10_000_000) == "turned"
    assert running.turn(STRAY, within_s=0.6) == "TimeoutError"
    counts = running.counts()
    assert counts["kept"] == 1 and counts["tail"] >= 1 and counts["unmarked"] == 0
    assert counts["known good, sent"] == counts["known"] > 100
    assert counts["assumed good, sent"] == counts["kept"] + counts["later"] <= 3
    assert counts["known good, dropped"] == 0


def test_what_goes_on_while_the_filter_starts_is_learned(running: Running) -> None:
    """Connections of before become known by what the service sends in them."""
    script = f"""
import socket, sys
s = socket.create_connection(("{GOOD}", 7480)); s.sendall(b"a" * 2000); print("open", flush=True)
sys.stdin.readline(); s.sendall(b"b" * 500000); s.shutdown(socket.SHUT_WR)
got = 0
while piece := s.recv(1 << 20): got += len(piece)
print(got)
"""
    hosts = running.hosts
    asking = subprocess.Popen(
        inside(hosts.outside, sys.executable, "-c", script),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert asking.stdout and asking.stdin and asking.stdout.readline() == "open\n"
        running.judging.send_signal(signal.SIGTERM)
        running.judging.wait()
        command = ["run", OUTSIDE, "--inside", INSIDE, "--service", str(SERVICE), "--record", RECORD]
        again = subprocess.Popen(
            inside(hosts.filter, *SSASTORE, "filter", *command), stdout=subprocess.PIPE, text=True
        )
        try:
            assert again.stdout and again.stdout.readline().startswith("judging")
            told = asking.communicate("go\n", timeout=30)[0]
            counts = running.counts()
        finally:
            end(again)
    finally:
        asking.kill()
        asking.communicate()
    assert told == "502000\n"
    assert counts["later"] > 0 and counts["known"] > 0


@pytest.mark.parametrize("running", [["--pace", "100"]], indirect=True)
def test_the_assumed_good_are_paced_and_the_known_go_past(running: Running) -> None:
    """1,000 SYNs a second at a pace of 100: 100 a second get through."""
    flood = subprocess.Popen(
        inside(running.hosts.outside, sys.executable, "-c", OPEN, GOOD, "3000", "1000"),
        stderr=subprocess.PIPE,
    )
    try:
        time.sleep(0.5)
        before = running.counts()
        time.sleep(2.0)
        after = running.counts()
    finally:
        flood.kill()
        flood.communicate()
    sent = after["assumed good, sent"] - before["assumed good, sent"]
    assert after["assumed good, dropped"] > before["assumed good, dropped"]
    assert 150 < sent < 300, "200 in 2 s, and what the two questions took"
    assert after["known good, dropped"] == 0


@contextmanager
def far_host(hosts: Row) -> Iterator[str]:
    """A client behind the outer host, which sends it 1,280 bytes at once at most; it does not know that."""
    far = f"{hosts.outside}-far"
    quiet = "echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad"
    forward = "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding"
    try:
        for command in (
            ["ip", "netns", "add", far],
            inside(far, "sh", "-c", quiet),
            ["ip", "link", "add", "f0", "netns", far, "type", "veth", "peer", "f1", "netns", hosts.outside],
            ["ip", "-n", far, "link", "set", "f0", "up"],
            ["ip", "-n", hosts.outside, "link", "set", "f1", "mtu", "1280", "up"],
            ["ip", "-n", far, "address", "add", "2001:db8:77:9::9/64", "dev", "f0", "nodad"],
            ["ip", "-n", hosts.outside, "address", "add", "2001:db8:77:9::1/64", "dev", "f1", "nodad"],
            inside(hosts.outside, "sh", "-c", forward),
            ["ip", "-n", far, "route", "add", "default", "via", "2001:db8:77:9::1"],
        ):
            subprocess.run(command, check=True)
        yield far
    finally:
        subprocess.run(["ip", "netns", "delete", far], capture_output=True, check=False)


def test_packet_too_big_passes_and_large_transfers_work(running: Running) -> None:
    """On the way to the client there is a narrow link: what the service sends must become smaller."""
    with far_host(running.hosts) as far:
        script = (sys.executable, "-c", TURN, address_of(CLIENT_PREFIX + 1), "1000000", "20")
        told = subprocess.run(inside(far, *script), capture_output=True, text=True, check=True)
        assert told.stdout == "turned\n"
    counts = running.counts()
    seen = subprocess.run(
        inside(running.hosts.inside, "cat", "/proc/net/snmp6"), capture_output=True, text=True, check=True
    )
    too_big = next(
        line.split()[1] for line in seen.stdout.splitlines() if line.startswith("Icmp6InPktTooBigs")
    )
    assert int(too_big) >= 1
    assert counts["unjudged"] == 0, "they quote a known flow, and are as good as it"


def test_echo_has_the_last_place_and_works(running: Running) -> None:
    for address in (GOOD, STRAY):
        assert running.outside(sys.executable, "-c", PING, address) == "answered"
    assert running.counts()["possibly bad, sent"] == 2


def test_orders_are_given_shown_and_withdrawn(running: Running) -> None:
    """Also to a flow that is known; each with a counter of its reason."""
    assert running.turn(GOOD) == "turned"
    told = running.ssastore("inject", OUTSIDE, "2001:db8:77::/48", "--reason", "attack", "--for", "60")
    assert told.stdout == "attack: from 2001:db8:77::/48, for 60 s\n", told.stderr
    assert running.turn(GOOD, within_s=0.6) == "TimeoutError"
    assert running.counts()["attack"] >= 1
    assert "attack: from 2001:db8:77::/48, for 5" in running.ssastore("show", OUTSIDE).stdout
    assert running.ssastore("withdraw", OUTSIDE, "2001:db8:77::/48").returncode == 0
    assert running.turn(GOOD) == "turned"
    port = ("--to", "--port", "7480")
    assert running.ssastore("inject", OUTSIDE, f"{GOOD}/128", *port, "--for", "1").returncode == 0
    assert running.turn(GOOD, within_s=0.4) == "TimeoutError"
    time.sleep(1.0)
    assert running.turn(GOOD) == "turned", "it has ended by itself"
    assert running.counts()["injected"] >= 1


def test_an_attack_sets_clients_without_a_rule_back(running: Running) -> None:
    assert running.turn(UNBOUND) == "turned"
    assert running.ssastore("attack", OUTSIDE, "on", "--for", "60").stdout == "attack on, for 60 s\n"
    assert running.turn(UNBOUND) == "turned", "nobody better waits"
    counts = running.counts()
    assert counts["open"] == 1 and counts["unbound"] >= 1
    assert running.ssastore("attack", OUTSIDE, "off").returncode == 0
    assert running.turn(UNBOUND) == "turned" and running.counts()["open"] == 2


def test_orders_that_cannot_be_kept(running: Running) -> None:
    for words, complaint in (
        (["inject", "nowhere", "::/0"], "no filter runs at nowhere"),
        (["attack", "nowhere", "on"], "no filter runs at nowhere"),
        (["inject", OUTSIDE, "10.0.0.0/8"], "not an IPv6 prefix"),
        (["inject", OUTSIDE, "::/0", "--for", "1e9"], "an order stands for at most 86400 s"),
        (["inject", OUTSIDE, "::/0", "--for", "nan"], "an order stands for at most"),
        (["withdraw", OUTSIDE, "::/0"], "there is no order from ::/0"),
    ):
        told = running.ssastore(*words)
        assert told.returncode != 0 and complaint in told.stderr
    for request, complaint in (
        ({}, "'do'"),
        ({"do": "dance"}, "'dance'"),
        ({"do": "inject", "prefix": "::/0", "reason": "kept", "for_s": 1}, "no reason of an order"),
        ({"do": "inject", "prefix": "::/0", "reason": "attack", "for_s": "soon"}, "could not convert"),
        ([], "list indices"),
    ):
        asked = f"from ssastore.filter.desk import ask; ask({OUTSIDE!r}, {request!r})"
        command = inside(running.hosts.filter, sys.executable, "-c", asked)
        told = subprocess.run(command, capture_output=True, text=True, check=False)
        assert complaint in told.stderr.splitlines()[-1]
    assert running.turn(GOOD) == "turned"


def test_only_root_gives_orders(running: Running) -> None:
    """The command says so; whoever does not use it is not listened to."""
    script = f"""
import os, ssastore.filter.desk as desk
os.setuid(65534)
with desk.socket.socket(desk.socket.AF_UNIX) as s:
    s.connect(desk._address({OUTSIDE!r}))
    try:
        s.sendall(b'{{"do": "attack", "on": true, "for_s": 60}}')
        print(s.recv(100))
    except OSError as error: print(type(error).__name__)
desk.ask({OUTSIDE!r}, {{}})
"""
    command = inside(running.hosts.filter, sys.executable, "-c", script)
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert told.stdout.strip() in ("b''", "ConnectionResetError", "BrokenPipeError")
    assert "only root gives orders" in told.stderr
    assert "attack" not in running.ssastore("show", OUTSIDE).stdout


def test_an_interface_that_is_made_anew_is_judged_again(running: Running) -> None:
    hosts = running.hosts
    hosts.unlink_outside()
    running.wait_for(f"nothing is judged: {OUTSIDE} is gone")
    hosts.link_outside()
    running.wait_for(f"judging at {OUTSIDE} again (native XDP, queues at {INSIDE})")
    assert running.turn(STRAY, within_s=0.6) == "TimeoutError"
    assert running.turn(GOOD) == "turned"
    assert running.counts()["known good, sent"] > 0
    shown = ["ip", "netns", "exec", hosts.filter, "tc", "qdisc", "show", "dev", INSIDE]
    running.judging.send_signal(signal.SIGTERM)
    running.judging.wait()
    assert "htb" not in subprocess.run(shown, capture_output=True, text=True, check=True).stdout


def test_what_a_killed_filter_leaves_holds_nothing_back(running: Running) -> None:
    """The queues stay, and nothing is put into them; the next filter takes their place."""
    running.judging.kill()
    running.judging.wait()
    assert running.turn(STRAY, 1_000_000) == "turned"
    command = ["run", OUTSIDE, "--inside", INSIDE, "--service", str(SERVICE), "--record", RECORD]
    again = subprocess.Popen(
        inside(running.hosts.filter, *SSASTORE, "filter", *command), stdout=subprocess.PIPE, text=True
    )
    try:
        assert again.stdout and again.stdout.readline().startswith("judging")
        assert running.turn(GOOD) == "turned"
    finally:
        end(again)


def test_two_filters_at_one_interface_and_foreign_queues_are_refused(running: Running) -> None:
    told = running.ssastore("run", OUTSIDE, "--service", str(SERVICE), "--record", RECORD)
    assert told.returncode != 0 and OUTSIDE in told.stderr
    foreign = ["tc", "qdisc", "replace", "dev", OUTSIDE, "root", "handle", "7:", "pfifo", "limit", "9"]
    subprocess.run(inside(running.hosts.filter, *foreign), check=True)
    other = ["run", INSIDE, "--inside", OUTSIDE, "--service", str(SERVICE), "--record", RECORD]
    told = running.ssastore(*other)
    assert told.returncode != 0 and "has queues of its own (qdisc 7:)" in told.stderr
