"""The filter in the kernel: equal to the check in Python, packet by packet, and at work on a veth pair.

SSASTORE_TEST_RULES sets how many addresses are drawn for each rule (``make rules``: 10,000).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from ipaddress import IPv6Network
from pathlib import Path
from random import Random

import pytest

from bench.packets import ACK, SERVICE, SYN, SYN_ACK, extension, fragment, frame, tagged, tcp
from ssastore.cli.filter import Teller
from ssastore.errors import ConfigError
from ssastore.filter.bpf import FilterRefused
from ssastore.filter.classes import Reason
from ssastore.filter.header import COUNTERS
from ssastore.filter.kernel import Filter
from ssastore.keyspace import FRONT_PLANE
from ssastore.rules.address import address_under
from ssastore.rules.hashes import ClientKeys, ServiceKeys
from ssastore.rules.record import ServiceRecord, record_from_text
from ssastore.rules.rule import rule_from_text
from ssastore.rules.vectors import RULES, changed, vectors
from tests.bpf import need_bpf

COUNT = int(os.environ.get("SSASTORE_TEST_RULES", "60"))
OF_RECORDS = [text for text in RULES if not text.startswith(("low", "inverted"))]
DATA_RULES = [text for text in RULES if text.startswith("content")]


def record_with(text: str, public: bytes) -> ServiceRecord:
    """A record in which this is the rule of the plane that it fits."""
    rule = rule_from_text(text)
    plain = ServiceRecord(replicas=3, public=public)
    return replace(plain, data=rule) if text in DATA_RULES else replace(plain, front=rule)


@pytest.mark.parametrize("text", OF_RECORDS)
def test_kernel_and_python_say_the_same(text: str) -> None:
    """Of addresses by the rule, of what is like them, and of any; by either of two keys."""
    need_bpf()
    drawn = list(vectors(rule_from_text(text), COUNT, seed=3))
    record, random, seen = record_with(text, drawn[0].public), Random(text), set()
    rule = record.data if text in DATA_RULES else record.front
    with Filter(record) as judging:
        for vector in drawn:
            if (vector.plane == FRONT_PLANE) == (text in DATA_RULES):
                continue
            order = 1 if vector.free & 1 else -1
            keys = ServiceKeys((vector.public, bytes(16))[::order], (vector.secret, b"s" * 16)[::order])
            iid = vector.iid()
            stray = ("any", random.getrandbits(64), random.getrandbits(64), vector.epoch)
            asked = [*changed(vector, iid), stray]
            for _, source, other_iid, epoch in asked:
                unix_s = epoch * rule.hop_s
                judging.set_keys([SERVICE], unix_s, keys)
                expected = record.check(source, other_iid, unix_s=unix_s, keys=keys)
                assert judging.reason(frame(source, other_iid)) == expected
                seen.add(str(expected))
    assert {"reserved", "kept" if rule.is_hashed or text == "match" else "open"} <= seen


@pytest.mark.parametrize("text", ["source", "pow:8", "keyed+hop:30"])
def test_wrong_addresses_pass_no_more_often_in_the_kernel(text: str) -> None:
    need_bpf()
    record, random = record_with(text, bytes(16)), Random(text)
    keys = ServiceKeys(secrets=(b"s" * 16,))
    with Filter(record) as judging:
        judging.set_keys([SERVICE], 0, keys)
        passed = sum(
            judging.reason(frame(7, 0xF << 60 | random.getrandbits(60))) == "kept" for _ in range(COUNT * 100)
        )
    assert passed == 0


@pytest.fixture(scope="module")
def judging() -> Iterator[Filter]:
    need_bpf()
    with Filter(record_from_text("v=SSA1; replicas=3; data=content+source; front=source")) as loaded:
        loaded.set_keys([SERVICE], 0, ServiceKeys())
        yield loaded


WRONG = 0x1000_0000_0000_0001


@pytest.mark.parametrize(
    ("packet", "counter"),
    [
        (frame(7, WRONG), "tail"),
        (frame(7, WRONG, tcp(ACK)), "later"),
        (frame(7, WRONG, tcp(SYN_ACK)), "later"),
        (frame(7, WRONG, bytes(8), kind=17), "tail"),
        (frame(7, WRONG, bytes(8), kind=58), "unjudged"),
        (frame(7, WRONG, extension(6), kind=44), "malformed"),
        (frame(7, WRONG, extension(6) + tcp(), kind=44), "tail"),
        (frame(7, WRONG, extension(44) + extension(6) + tcp(), kind=0), "tail"),
        (frame(7, WRONG, fragment(place=1) + tcp(), kind=44), "fragment"),
        (frame(7, WRONG, fragment(has_more=True) + tcp(), kind=44), "tail"),
        (frame(7, WRONG, fragment() + tcp(ACK), kind=44), "fragment"),
        (frame(7, 0xF0AB_0000_0000_0001, fragment(has_more=True) + tcp(), kind=44), "fragment"),
        (frame(7, WRONG, tcp(SYN | 1)), "tail"),
        (frame(7, WRONG, tcp(SYN | 0x28)), "tail"),
        (tagged(frame(7, WRONG), 1), "tail"),
        (tagged(frame(7, WRONG), 2), "tail"),
        (tagged(frame(7, WRONG), 3), "malformed"),
        (tagged(frame(7, WRONG, service=IPv6Network("2001:db8:5a:2::/64")), 1), "foreign"),
        (frame(7, WRONG, extension(60) * 3 + extension(6) + tcp(), kind=60), "tail"),
        (frame(7, WRONG, extension(60) * 4 + extension(6) + tcp(), kind=60), "malformed"),
        (frame(7, 0x0200_5EFF_FE00_0000), "reserved"),
        (frame(7, 0x0200_5EFF_FEFF_FFFF), "reserved"),
        (frame(7, 0x0200_5EFF_FF00_0000), "tail"),
        (frame(7, 0xFDFF_FFFF_FFFF_FF80), "reserved"),
        (frame(7, 0xFDFF_FFFF_FFFF_FF7F), "locator"),
        (frame(7, WRONG, extension(6) + tcp(), kind=0), "tail"),
        (frame(7, WRONG, extension(60, 2) + extension(6, 1) + tcp(), kind=0), "tail"),
        (frame(7, WRONG, extension(6) + tcp(), kind=43), "malformed"),
        (frame(7, WRONG, extension(43) + extension(6) + tcp(), kind=60), "malformed"),
        (frame(7, WRONG, extension(60) * 5 + tcp(), kind=60), "malformed"),
        (frame(7, WRONG, extension(6, 200), kind=0), "malformed"),
        (frame(7, WRONG, extension(6), kind=0), "malformed"),
        (frame(7, WRONG, tcp()[:-1]), "malformed"),
        (frame(7, WRONG, bytes(8), kind=4), "malformed"),
        (frame(7, WRONG, service=IPv6Network("2001:db8:5a:2::/64")), "foreign"),
        (frame(7, WRONG, ether=0x0800), "foreign"),
        (frame(7, WRONG)[:40], "foreign"),
        (frame(7, 0xF0AB_0000_0000_0001), "open"),
        (frame(7, 0x3000_0000_0000_0001), "plane"),
        (frame(7, 0), "reserved"),
    ],
)
def test_headers(judging: Filter, packet: bytes, counter: str) -> None:
    assert judging.reason(packet) == counter


def test_any_bytes_are_survived(judging: Filter) -> None:
    random = Random(5)
    for _ in range(3000):
        packet = bytearray(frame(7, WRONG, extension(60) + tcp(), kind=0))
        for _ in range(random.randrange(1, 6)):
            packet[random.randrange(12, len(packet))] = random.getrandbits(8)
        assert judging.reason(bytes(packet[: random.randrange(14, len(packet) + 1)])) in Reason


def test_without_a_compiler_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssastore.filter.tools.shutil.which", lambda tool: None)
    with pytest.raises(ConfigError, match="needs clang"):
        Filter(ServiceRecord())


# -- on an interface --------------------------------------------------------------------------------


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def pair() -> Iterator[tuple[str, str, str]]:
    """Two namespaces and a veth pair: (name of the clients' namespace, of the service's, its interface)."""
    need_bpf()
    clients, service = (f"ssaf-{os.getpid()}-{side}" for side in "cs")
    try:
        for name in (clients, service):
            run("ip", "netns", "add", name)
        run(
            "ip",
            "link",
            "add",
            "c0",
            "netns",
            clients,
            "type",
            "veth",
            "peer",
            "name",
            "s0",
            "netns",
            service,
        )
        for name, link, address in (
            (clients, "c0", "2001:db8:77:8::1/64"),
            (service, "s0", "2001:db8:77:8::2/64"),
        ):
            run("ip", "-n", name, "address", "add", address, "dev", link, "nodad")
            run("ip", "-n", name, "link", "set", link, "up")
            run("ip", "-n", name, "link", "set", "lo", "up")
        run("ip", "-n", clients, "route", "add", str(SERVICE), "via", "2001:db8:77:8::2")
        run("ip", "-n", service, "route", "add", "local", str(SERVICE), "dev", "lo")
        yield clients, service, "s0"
    finally:
        for name in (clients, service):
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


LISTEN = """
import socket, threading
def answer(c):
    with c:
        try:
            data = b""
            while piece := c.recv(65536): data += piece
            c.sendall(data[::-1])
        except OSError: pass
s = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
s.bind(("::", 7480)); s.listen(64); print("listening", flush=True)
while True: threading.Thread(target=answer, args=(s.accept()[0],), daemon=True).start()
"""

CONNECT = """
import socket, sys
s = socket.socket(socket.AF_INET6, socket.SOCK_STREAM); s.settimeout(float(sys.argv[2]))
try: s.connect((sys.argv[1], 7480)); print("open")
except OSError as error: print(type(error).__name__)
"""


def inside(namespace: str, *command: str) -> list[str]:
    return ["ip", "netns", "exec", namespace, *command]


SSASTORE = [sys.executable, "-m", "ssastore"]
CLIENT = ("--source", "2001:db8:77:8::1")
STRAY = "2001:db8:5a:1:28b6:5d07:3f92:5c9d"


@dataclass
class AtWork:
    """``ssastore filter run`` in the service's namespace, and somebody who listens behind it."""

    clients: str
    judging: subprocess.Popen[str]
    secret: Path

    def connect(self, address: str, within_s: float = 8.0) -> str:
        asked = inside(self.clients, sys.executable, "-c", CONNECT, address, str(within_s))
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()

    def set_secret(self, key: str) -> None:
        assert self.judging.stdout
        self.secret.write_text(key)
        self.judging.send_signal(signal.SIGHUP)
        while self.judging.stdout.readline() != "keys read again\n":
            pass
        time.sleep(0.3)

    def end(self) -> dict[str, int]:
        """Its last counters."""
        assert self.judging.stdout
        self.judging.send_signal(signal.SIGTERM)
        counts: dict[str, int] = json.loads(self.judging.stdout.read().splitlines()[-1])
        assert self.judging.wait(10) == 0
        return counts


@pytest.fixture
def at_work(pair: tuple[str, str, str], tmp_path: Path) -> Iterator[AtWork]:
    clients, service, interface = pair
    record = "v=SSA1; replicas=3; data=content+source; front=keyed; hop=30"
    secret = tmp_path / "secret"
    secret.write_text("00" * 16)
    options = ["--service", str(SERVICE), "--record", record, "--secret-file", str(secret), "--every", "0.2"]
    command = [*SSASTORE, "filter", "run", interface, *options, "--json"]
    listen = inside(service, sys.executable, "-c", LISTEN)
    listening = subprocess.Popen(listen, stdout=subprocess.PIPE, text=True)
    judging = subprocess.Popen(inside(service, *command), stdout=subprocess.PIPE, text=True)
    try:
        assert listening.stdout and listening.stdout.readline() == "listening\n"
        assert judging.stdout and judging.stdout.readline().startswith(
            f"judging {SERVICE} at s0 (native XDP)"
        )
        yield AtWork(clients, judging, secret)
    finally:
        for process in (listening, judging):
            process.kill()
            process.communicate()


def ssastore(*words: str, given: str = "") -> str:
    done = subprocess.run([*SSASTORE, *words], input=given, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_what_keeps_the_rule_gets_through_and_nothing_else(at_work: AtWork) -> None:
    place = ("--plane", "2", "--position", "8b65d073f925c9d")
    good = ssastore("rule", "address", "content+source+hop:30", str(SERVICE[0]), *CLIENT, *place)
    assert at_work.connect(good) == "open"
    assert at_work.connect(STRAY, 0.6) == "TimeoutError"
    assert at_work.connect("2001:db8:5a:1:f0ab::5") == "open"
    assert at_work.connect("2001:db8:77:8::2") == "open", "what is not of the service is left alone"
    counts = at_work.end()
    assert counts["kept"] == 1 and counts["open"] == 1 and counts["tail"] >= 1 and counts["foreign"] >= 1
    assert at_work.connect(STRAY) == "open", "the filter is gone"


def test_a_key_is_changed_while_the_filter_is_at_work(at_work: AtWork) -> None:
    made = []
    for key in ("00" * 16, "11" * 16):
        at_work.set_secret(key)
        token = ssastore("rule", "token", "2001:db8:77:8::", "--secret-file", str(at_work.secret))
        address = ("rule", "address", "keyed+hop:30", str(SERVICE[0]), *CLIENT, "--token-file", "-")
        made.append(ssastore(*address, given=token))
        assert at_work.connect(made[-1]) == "open"
    assert at_work.connect(made[0], 0.6) == "TimeoutError"
    at_work.secret.write_text("00" * 15)
    at_work.judging.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert at_work.connect(made[1]) == "open", "what is no key changes nothing"


ASK = """
import socket, sys
data, answer = bytes(range(256)) * int(sys.argv[1]), b""
try:
    with socket.create_connection(("127.0.0.1", 9000), timeout=20) as s:
        s.sendall(data); s.shutdown(socket.SHUT_WR)
        while piece := s.recv(65536): answer += piece
    print("answered" if answer == data[::-1] else f"{len(answer)} bytes")
except TimeoutError: print("nothing in time")
except OSError: print("reset")
"""


@contextmanager
def sidecar_in(namespace: str, target: str, rules: str, token: str) -> Iterator[None]:
    command = inside(namespace, *SSASTORE, "sidecar", target, "--rules", rules)
    known = {**os.environ, "SSASTORE_RULE_TOKEN_FILE": token}
    running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=known)
    try:
        assert running.stdout
        assert running.stdout.readline() == f"127.0.0.1:9000 goes to {target} by rule keyed+hop:30\n"
        yield
        running.send_signal(signal.SIGTERM)
        assert running.wait(10) == 0
    finally:
        running.kill()
        running.communicate()


def test_programs_that_know_no_rule_get_through_by_the_sidecar(at_work: AtWork, tmp_path: Path) -> None:
    """Data and its end go both ways; without the token the connection is reset."""
    target, rules = f"[{SERVICE[0]}]:7480", "v=SSA1; front=keyed; hop=30"
    token = tmp_path / "token"
    token.write_text(ssastore("rule", "token", "2001:db8:77:8::", "--secret-file", str(at_work.secret)))
    for file, expected in ((str(token), "answered"), ("", "reset")):
        with sidecar_in(at_work.clients, target, rules, file):
            for size in (1, 20_000):
                asked = inside(at_work.clients, sys.executable, "-c", ASK, str(size))
                told = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
                assert told == expected
    counts = at_work.end()
    assert counts["kept"] == 2 and counts["locator"] == 0


def test_monitor_lets_everything_pass(pair: tuple[str, str, str]) -> None:
    need_bpf()
    record = record_from_text("v=SSA1; data=content+source")
    with Filter(record) as judging:
        judging.set_keys([SERVICE], 0, ServiceKeys(), is_monitor=True)
        packet = frame(7, 0x0123_4567_89AB_CDEF)
        assert judging.reason(packet) == "tail"
        assert judging.passes(packet)
        judging.set_keys([SERVICE], 0, ServiceKeys())
        assert not judging.passes(packet)
        assert judging.counts()["tail"] == 2
        # What is not judged passes, what nobody needs does not.
        assert judging.passes(frame(7, 1, tcp(ACK))) and judging.passes(frame(7, 1, bytes(8), kind=58))
        assert judging.passes(frame(7, 1, ether=0x0800)) and not judging.passes(
            frame(7, 1, bytes(8), kind=43)
        )


def test_its_clock_runs_by_itself() -> None:
    """Whoever set the keys may be held up: the next epoch begins all the same."""
    need_bpf()
    record = record_from_text("v=SSA1; front=source; hop=1")
    iid = address_under(record.front, FRONT_PLANE, 7, epoch=1000, keys=ClientKeys())
    with Filter(record) as judging:
        judging.set_keys([SERVICE], 1000.0, ServiceKeys())
        seen = [judging.reason(frame(7, iid))]
        for _ in range(30):
            time.sleep(0.1)
            seen.append(judging.reason(frame(7, iid)))
    assert seen[0] == "kept" and seen[5] == "kept" and seen[-1] == "locator"


def test_nothing_stays_when_the_process_is_killed(at_work: AtWork) -> None:
    """Neither a program with an old key at the interface, nor a pin."""
    assert at_work.connect(STRAY, 0.6) == "TimeoutError"
    at_work.judging.kill()
    at_work.judging.wait(10)
    time.sleep(0.2)
    assert at_work.connect(STRAY) == "open"


def test_who_does_not_read_the_counters_does_not_hold_it_up() -> None:
    reading, writing = os.pipe()
    stdout = sys.stdout
    with os.fdopen(writing, "w") as pipe:
        sys.stdout = pipe
        try:
            teller = Teller(as_json=True)
            for _ in range(3000):
                teller.tell(dict.fromkeys(COUNTERS, 10**12))
                time.sleep(0.0005)
            began = time.monotonic()
            teller.close()
            took_s = time.monotonic() - began
        finally:
            sys.stdout = stdout
            # Whoever still prints is let go.
            while teller._printing.is_alive():
                os.read(reading, 1 << 16)
                teller.close()
    os.close(reading)
    assert took_s < 5


@pytest.mark.parametrize(
    ("kind", "complaint"), [("none", "there is no interface"), ("tun", "no Ethernet frames")]
)
def test_where_nothing_could_be_judged(kind: str, complaint: str) -> None:
    need_bpf()
    if kind == "tun":
        run("ip", "tuntap", "add", "dev", "ssaf-tun", "mode", "tun")
    try:
        with Filter(record_from_text("v=SSA1")) as judging, pytest.raises(FilterRefused, match=complaint):
            judging.attach("ssaf-tun")
    finally:
        subprocess.run(["ip", "link", "delete", "ssaf-tun"], capture_output=True)
    assert not list(Path("/sys/fs/bpf").glob(f"ssastore-{os.getpid()}-*"))
