"""The console with 100 nodes and 65,536 slices: what a browser takes for a tick, and how it grows.

    python -m bench.console [--seconds 20] [--ticks 3600]

A cluster is replayed to the page in Debian's Chromium without a window (so it paints by the processor): all
16 planes are owned, in each tick 200 slices begin to move and 200 arrive, and every 20th tick has what all
nodes say. First ``--seconds`` at 10 Hz, where the CPU time of the thread of the page is read; then on as fast
as it goes to ``--ticks``, 3,600 of which are an hour of the page as it is, where the heap is read.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import Any

from playwright.sync_api import Browser, CDPSession, Page, sync_playwright

from ssastore.console.cells import packed
from ssastore.console.files import Files
from ssastore.console.ownership import STATES, Cell, runs_of

NODES = 100
SLICES = 65_536
MOVED = 200
"Slices that begin to move in a tick, and as many arrive."
ANSWERS = 100
HZ = 10
FAST_MS = 50
"The page asks no faster."


def node(at: int) -> dict[str, Any]:
    """What the gateway tells of a node (``console.desk.condensed``)."""
    scrub = {"health": "healthy", "left": 0, "repaired": 0, "share": None, "ended_ms": 1}
    figures = dict.fromkeys(
        ("records", "used_bytes", "connections", "cpu_s", "coming", "going", "moved_bytes"), 7
    )
    return {
        "name": f"n{at}",
        "address": f"fd00::{at:x}",
        "slices": SLICES // NODES,
        "prefixes": [f"fd5a:1:2:3:{at << 8 | digit << 4:x}::/76" for digit in range(16)],
        "prefixes_left": 9,
        "alive": True,
        "says": "",
        "workers": [True, True],
        "silent": [],
        "not_voting": 0,
        "limit_bytes": 1 << 40,
        "waiting": [],
        "paused": False,
        "scrub": [scrub, scrub],
        **figures,
    }


class Replay:
    """Answers to a page, made beforehand so that making them costs the browser nothing."""

    def __init__(self) -> None:
        self._draw = random.Random(1)
        self.cells: dict[int, Cell] = {number: (number * NODES // SLICES, 0, -1) for number in range(SLICES)}
        self.told = 0
        self.whole = self._answer(self.cells, is_whole=True, report=True)
        moving: dict[int, Cell] = {}
        self.changes = []
        for at in range(ANSWERS):
            arrived = {number: (target, 0, -1) for number, (_, _, target) in moving.items()}
            moving = self._begun()
            self.changes.append(self._answer(arrived | moving, is_whole=False, report=at % 20 == 0))

    def _begun(self) -> dict[int, Cell]:
        drawn = self._draw.sample(range(SLICES), MOVED)
        return {number: (self.cells[number][0], 1, self._draw.randrange(NODES)) for number in drawn}

    def _answer(self, cells: dict[int, Cell], *, is_whole: bool, report: bool) -> dict[str, Any]:
        return {
            "software": "replay",
            "instance": "replay",
            "is_whole": is_whole,
            "service": "fd5a:1:2:3::/64",
            "cluster_id": "ab" * 16,
            "replicas": 3,
            "region": "us-east-1",
            "may_act": True,
            "states": STATES,
            "runs": list(runs_of(cells)),
            "parts": {},
            "front": [],
            "names": [f"n{at}" for at in range(NODES)],
            "report": self._report() if report else None,
        }

    def _report(self) -> dict[str, Any]:
        """What all nodes say: another tenth of the slices is hot, and all are verified."""
        hot = self._draw.sample(range(SLICES), SLICES // 10)
        row = {"wanted": 25, "accepted": 25, "sent_on": 0, "announced": 25, "is_heard": True, "is_kept": True}
        neighbours = {"neighbours": {"fd00::1": "Established"}}
        rows = [{"name": f"n{at}", **row, **neighbours} for at in range(NODES)]
        return {
            "coordinator": "n1",
            "nodes": [node(at) for at in range(NODES)],
            "moves": {"is_paused": False, "left": MOVED, "said": "at a gentle pace", "eta_s": 9},
            "network": {"nodes": rows, "count": 0, "differences": [], "ended": []},
            "heat": {"top": 99.0, "cells": packed({cell: self._draw.randrange(8) for cell in hot})},
            "verified": {"never": 0, "oldest_ms": 1, "cells": packed(dict.fromkeys(range(SLICES), 3))},
        }

    def next(self, *, is_first: bool) -> bytes:
        """The next answer; its numbers go on whichever it is."""
        self.told += 1
        answer = dict(self.whole if is_first else self.changes[self.told % ANSWERS])
        now_ms = 1_800_000_000_000 + self.told * 1000
        answer |= {"version": self.told, "mark": self.told, "now_ms": now_ms, "now_s": float(self.told)}
        answer["seconds"] = [[self.told - 1, 900, 0, 900 + self.told % 90, 4000 + self.told % 990, 9000]]
        answer["marks"] = [[now_ms, "begun", "n1", "n2", MOVED], [now_ms, "moved", "n3", "n4", MOVED]]
        if answer["report"] is not None:
            answer["report"] = answer["report"] | {"number": self.told, "at_ms": now_ms}
        return json.dumps(answer, separators=(",", ":")).encode()


def served(replay: Replay) -> ThreadingHTTPServer:
    """The page and the replay on a port of the loopback address."""
    files = Files()

    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            if path == "/console/state":
                body, kind = replay.next(is_first=not query), "application/json"
            else:
                body, kind, _ = files.content(path)
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def figures_of(session: CDPSession) -> dict[str, float]:
    """Seconds and bytes that the browser counts for the page."""
    found = session.send("Performance.getMetrics")["metrics"]
    return {metric["name"]: metric["value"] for metric in found}


def measure_ticks(session: CDPSession, replay: Replay, seconds: int) -> None:
    """Script and whole time a tick at 10 Hz: all of it, and of the worst second."""
    time.sleep(3)
    rows: list[tuple[int, float, float]] = []
    for _ in range(seconds + 1):
        found = figures_of(session)
        rows.append((replay.told, found["ScriptDuration"], found["TaskDuration"]))
        time.sleep(1)
    (first, script_s, task_s), (last, script_end_s, task_end_s) = rows[0], rows[-1]
    ticks = last - first
    worst_s = max((after[1] - before[1]) / max(1, after[0] - before[0]) for before, after in pairwise(rows))
    print(f"ticks a second          {ticks / seconds:6.1f}")
    print(f"script a tick           {(script_end_s - script_s) / ticks * 1e3:6.2f} ms")
    print(f"  in the worst second   {worst_s * 1e3:6.2f} ms")
    print(f"all work a tick         {(task_end_s - task_s) / ticks * 1e3:6.2f} ms   with layout and painting")


def heap_mb(session: CDPSession) -> float:
    """Of the page after garbage was collected, in MB."""
    session.send("HeapProfiler.collectGarbage")
    return figures_of(session)["JSHeapUsedSize"] / 1e6


def measure_growth(page: Page, session: CDPSession, replay: Replay, url: str, ticks: int) -> None:
    """What the heap grows by from the hundredth tick to the last one."""
    page.goto(f"{url}?every={FAST_MS}")
    first = replay.told
    _wait(replay, first + 100)
    before = heap_mb(session)
    _wait(replay, first + ticks)
    after = heap_mb(session)
    print(f"heap after 100 ticks    {before:6.1f} MB, after {replay.told - first:,}: {after:.1f} MB")


def _wait(replay: Replay, told: int) -> None:
    while replay.told < told:
        time.sleep(0.2)


def run(browser: Browser, seconds: int, ticks: int) -> None:
    """Both measurements, printed."""
    replay = Replay()
    server = served(replay)
    url = f"http://127.0.0.1:{server.server_address[1]}/"
    page = browser.new_page(viewport={"width": 1500, "height": 1100})
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    page.goto(f"{url}?every={1000 // HZ}")
    print(f"{NODES} nodes, {SLICES:,} slices, {2 * MOVED} changed in each tick")
    measure_ticks(session, replay, seconds)
    measure_growth(page, session, replay, url, ticks)
    server.shutdown()
    assert not complaints, complaints


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description="What the console costs a browser.")
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--ticks", type=int, default=3600)
    options = parser.parse_args()
    found = shutil.which("chromium")
    if found is None:
        sys.exit("chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        run(browser, options.seconds, options.ticks)
        browser.close()


if __name__ == "__main__":
    main()
