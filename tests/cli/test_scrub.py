"""`ssastore scrub` and a gateway that takes its time, as one does that gets no processor."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest

from ssastore.cli import upkeep
from ssastore.lab import context
from ssastore.lab.status import fetch
from tests.cli.conftest import Done

LATE_S = 0.6
LEFT = {"here": 0, "elsewhere": 0, "unheard": 0, "why": {}}
PASS = {"number": 1, "broke_off": "", **dict.fromkeys(upkeep._FIGURES, 0)}
WORKER: dict[str, Any] = {
    "worker": 0,
    "ok": True,
    "scrub": {"health": "healthy", "left": LEFT, "pass": None, "last": PASS},
}
ANSWERS: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "/scrub"): {"passes": {"n1 worker 0": 1}, "silent": []},
    ("GET", "/status"): {"nodes": [{"name": "n1", "workers": [WORKER]}]},
}


class Gateway(ThreadingHTTPServer):
    """Its admin interface. ``over`` ends what it waits for."""

    late_s = LATE_S

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.over = threading.Event()


class Answer(BaseHTTPRequestHandler):
    """To one request."""

    server: Gateway

    def answer(self) -> None:
        self.server.over.wait(self.server.late_s)
        body = json.dumps(ANSWERS[self.command, self.path]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = answer

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    """It is late for whoever has the patience of one question."""
    assert fetch.__kwdefaults__
    monkeypatch.setitem(fetch.__kwdefaults__, "timeout_s", LATE_S / 3)
    with Gateway() as server:
        monkeypatch.setattr(
            context,
            "find",
            lambda name: SimpleNamespace(admin_port=server.server_address[1], admin_token=lambda: "secret"),
        )
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


def test_who_waits_for_a_scrub_waits_for_a_late_gateway_too(
    ssastore: Callable[..., Done], gateway: Gateway
) -> None:
    done = ssastore("scrub", "--wait", "--json")
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out)["health"] == "healthy"
    assert ssastore("scrub").code == 0


def test_but_not_for_ever(
    ssastore: Callable[..., Done], gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.late_s = 20.0
    monkeypatch.setattr(upkeep, "_SILENT_S_MAX", 0.3)
    done = ssastore("scrub", "--wait")
    assert done.code == 5 and "does not answer: timed out" in done.err


def test_objects_that_cannot_be_read_are_named(
    ssastore: Callable[..., Done], gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.late_s = 0.0
    monkeypatch.setitem(WORKER["scrub"], "left", LEFT | {"here": 1, "objects": ["photos/large"]})
    done = ssastore("scrub", "--wait")
    assert done.code == 1 and "cannot be read for lack of a blob: photos/large" in done.out
    assert json.loads(ssastore("scrub", "--wait", "--json").out)["objects"] == ["photos/large"]
