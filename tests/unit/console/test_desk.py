"""The console over HTTP: its files, what it says to whom, and what it does not."""

from __future__ import annotations

import asyncio

import pytest

from ssastore.console.files import Files
from ssastore.console.telling import condensed
from ssastore.core.moving import begin_move
from tests.desks import NODE, WORKER, Desk


async def test_every_file_of_the_page_is_served_as_what_it_is(desk: Desk) -> None:
    kinds = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml", "/": "text/html"}
    paths = Files().paths
    assert {"/", "/console/main.js", "/console/style.css"} <= set(paths)
    page = await (await desk.get("/")).text()
    for path in paths:
        answer = await desk.get(path)
        assert (answer.status, answer.content_type) == (200, kinds[path.rpartition(".")[2]])
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        text = await answer.text()
        assert "http://" not in text.replace("http://www.w3.org/2000/svg", "") and "https://" not in text
    assert 'style="' not in page and "<script>" not in page


async def test_a_file_that_the_page_has_is_not_sent_again(desk: Desk) -> None:
    tag = (await desk.get("/")).headers["ETag"]
    again = await desk.get("/", If_None_Match=tag)
    assert (again.status, await again.read()) == (304, b"")
    assert (await desk.get("/", If_None_Match='"other"')).status == 200
    assert (await desk.get("/", method="HEAD")).status == 200


@pytest.mark.parametrize(
    ("path", "method", "code"),
    [
        ("/console/", "GET", 404),
        ("/console/../desk.py", "GET", 404),
        ("/console/%2e%2e/desk.py", "GET", 404),
        ("/console//etc/passwd", "GET", 404),
        ("/console/index.html", "GET", 404),
        ("/", "POST", 405),
        ("/console/state", "DELETE", 405),
        ("/console/act", "GET", 405),
        ("/console/login", "GET", 405),
    ],
)
async def test_there_is_no_other_path(desk: Desk, path: str, method: str, code: int) -> None:
    assert (await desk.get(path, method=method)).status == code


@pytest.mark.parametrize(
    ("host", "code"),
    [
        ("localhost:7481", 200),
        ("127.0.0.1", 200),
        ("[::1]:7481", 200),
        ("lab.localhost:1", 200),
        ("evil.example", 401),
        ("127.0.0.1.evil.example:7481", 401),
        ("192.0.2.1:7481", 401),
    ],
)
async def test_a_name_that_somebody_points_here_reads_nothing(desk: Desk, host: str, code: int) -> None:
    answer = await desk.get("/console/state", Host=host)
    assert answer.status == code
    assert code == 200 or "log in" in await answer.text()


async def test_the_state_is_told_once_and_then_what_is_new(desk: Desk) -> None:
    whole = await desk.state()
    assert whole["is_whole"] and sum(run[1] for run in whole["runs"]) == 3 * 4096
    assert whole["names"] == ["n1", "n2", "n3", "n4"]
    nothing = await desk.state(whole)
    assert not nothing["is_whole"] and nothing["runs"] == nothing["marks"] == []
    record = desk.view.groups[9]
    target = next(name for name in whole["names"] if name not in record.owners)
    desk.view.groups[9] = begin_move(record, 0, target, 5, dict.fromkeys(whole["names"], ""))
    desk.view.changes += 1
    moved = await desk.state(nothing)
    assert [run for run in moved["runs"] if run[0] == 9] == [
        [9, 1, whole["names"].index(record.owners[0]), 1, whole["names"].index(target)]
    ]
    assert [mark[1:] for mark in moved["marks"]] == [["begun", record.owners[0], target, 1]]
    stranger = await desk.state(moved | {"instance": "of-another-process"})
    assert stranger["is_whole"] and sum(run[1] for run in stranger["runs"]) == 3 * 4096


async def test_nodes_are_asked_while_somebody_looks(desk: Desk) -> None:
    assert (await desk.state())["report"] is None
    await asyncio.sleep(0)
    told = (await desk.state())["report"]
    assert (told["coordinator"], told["nodes"]) == ("n1", [condensed(NODE)])


async def test_a_key_is_explained_without_reading_it(desk: Desk) -> None:
    answer = await desk.get("/console/explain?path=photos/cat.jpg")
    found = await answer.json()
    assert answer.status == 200
    assert [plane["owner"] for plane in found["planes"]] == list(
        desk.view.groups[int(found["group"], 16)].owners
    )
    assert [plane["slice"] for plane in found["planes"]] == found["slices"]
    assert (await desk.get("/console/explain?path=other/cat.jpg")).status == 404
    assert (await desk.get("/console/explain?path=photos")).status == 400


def test_a_worker_that_does_not_answer_has_verified_nothing() -> None:
    node = condensed(NODE | {"workers": [WORKER, {"worker": 1, "ok": False, "error": "no route"}]})
    assert [scrub["health"] for scrub in node["scrub"]] == ["healthy", "no answer"]
    assert (node["workers"], node["silent"]) == ([True, False], ["no route"])
    assert (node["records"], node["coming"], len(node["prefixes"]), node["prefixes_left"]) == (3, 1, 24, 6)
