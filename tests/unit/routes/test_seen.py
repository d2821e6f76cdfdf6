"""What a supervisor notes of its announcements, and what a worker tells of them."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path
from typing import Any

import pytest

from ssastore.env import Route
from ssastore.routes import seen
from ssastore.routes.bgpsession import State
from ssastore.routes.memory import MemoryRoutes
from ssastore.routes.seen import SeenRoutes, keep_note, note_path

LINK = IPv6Network("fe80::/64")
A, B = "fd00:0:0:1:1000::/68", "fd00:0:0:1:2000::/68"


@dataclass(frozen=True)
class Settings:
    data_dir: str
    manage_routes: bool = True
    simulated: bool = False
    announce: str = "bgp"


class Announced(MemoryRoutes):
    """One neighbour, and the session with it."""

    def states(self) -> dict[IPv6Address, State]:
        return {IPv6Address("fd00::1"): State.ESTABLISHED}


class Kernel(MemoryRoutes):
    """In the place of the kernel's tables."""

    def __init__(self, *_: Any) -> None:
        super().__init__(LINK)
        self.add(Route(A))
        self.add(Route(B, "fe80::1"))


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen, "NetlinkRoutes", Kernel)


async def test_what_is_announced_is_noted_and_told(tmp_path: Path, kernel: None) -> None:
    routes: Any = Announced(LINK)
    routes.add(Route(A))
    job = asyncio.get_running_loop().create_task(keep_note(routes, note_path(str(tmp_path))))
    await asyncio.sleep(0)
    assert SeenRoutes(Settings(str(tmp_path))).describe() == {
        "accepted": [A],
        "sent_on": [B],
        "announced": [A],
        "neighbours": {"fd00::1": "Established"},
        "why": "",
    }
    job.cancel()


async def test_a_note_that_says_the_same_is_not_written_again(
    tmp_path: Path, kernel: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seen, "_NOTE_EVERY_S", 0.01)
    routes: Any = Announced(LINK)
    path = note_path(str(tmp_path))
    job = asyncio.get_running_loop().create_task(keep_note(routes, path))
    await asyncio.sleep(0.05)
    first = path.stat()
    await asyncio.sleep(0.1)
    later = path.stat()
    assert later.st_ino == first.st_ino and later.st_mtime_ns > first.st_mtime_ns
    for change in (lambda: routes.add(Route(A)), path.unlink):
        change()
        await asyncio.sleep(0.1)
        assert json.loads(path.read_text())["announced"] == [A]
    job.cancel()


@pytest.mark.parametrize("what", ["missing", "old", "torn", "strange"])
def test_a_note_that_is_not_of_now_says_nothing(tmp_path: Path, kernel: None, what: str) -> None:
    path = note_path(str(tmp_path))
    if what != "missing":
        texts = {"torn": "{", "strange": "[]", "old": json.dumps({"announced": [A], "neighbours": {}})}
        path.write_text(texts[what])
    if what == "old":
        os.utime(path, (1, 1))
    told = SeenRoutes(Settings(str(tmp_path))).describe()
    assert told is not None and told["announced"] is None and "supervisor does not say" in told["why"]


def test_who_announces_nothing_has_no_note(tmp_path: Path, kernel: None) -> None:
    told = SeenRoutes(Settings(str(tmp_path), announce="")).describe()
    assert told is not None and (told["announced"], told["why"]) == (None, "")
    assert SeenRoutes(Settings(str(tmp_path), manage_routes=False)).describe() is None
    assert SeenRoutes(Settings(str(tmp_path), simulated=True)).describe() is None
    by_daemon = SeenRoutes(Settings(str(tmp_path), announce="kernel")).describe()
    assert by_daemon is not None and by_daemon["announced"] == [A, B]


def test_too_many_prefixes_are_said_to_be(
    tmp_path: Path, kernel: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seen, "PREFIXES_TOLD", 1)
    told = SeenRoutes(Settings(str(tmp_path), announce="")).describe()
    assert told is not None and told["accepted"] == [A] and "too many" in told["why"]


def test_the_kernel_is_not_asked_for_each_report(
    tmp_path: Path, kernel: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has an access key may ask for reports as fast as he can."""
    asked = 0

    def installed(routes: Kernel) -> set[Route]:
        nonlocal asked
        asked += 1
        return MemoryRoutes.installed(routes)

    monkeypatch.setattr(Kernel, "installed", installed)
    routes = SeenRoutes(Settings(str(tmp_path), announce=""))
    told = [routes.describe() for _ in range(10)]
    assert asked == 1 and all(one == told[0] for one in told)
    monkeypatch.setattr(seen, "_KEPT_S", 0.0)
    SeenRoutes(Settings(str(tmp_path), announce="")).describe()
    again = SeenRoutes(Settings(str(tmp_path), announce=""))
    assert again.describe() == again.describe() == told[0] and asked == 4
