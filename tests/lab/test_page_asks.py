"""How often the console's page asks its gateway: a browser, and a console whose nodes are made up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import Queue

import pytest
from playwright.sync_api import Page

from tests.browser import chromium
from tests.desks import running_desk

EVERY_MS, WATCHED_MS = 250, 2500


@pytest.fixture
def link(tmp_path: Path) -> Iterator[str]:
    """One that logs in, to a console on a thread of its own."""
    made: Queue[tuple[str, asyncio.AbstractEventLoop, asyncio.Event]] = Queue()

    async def serve() -> None:
        ended = asyncio.Event()
        async with running_desk(tmp_path) as desk:
            found = f"{desk.url}/?every={EVERY_MS}#login={desk.code()}"
            made.put((found, asyncio.get_running_loop(), ended))
            await ended.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    found, loop, ended = made.get(timeout=20)
    yield found
    loop.call_soon_threadsafe(ended.set)
    thread.join(20)


def asked(page: Page) -> int:
    """Questions for the state in ``WATCHED_MS``."""
    count = 0

    def note(url: str) -> None:
        nonlocal count
        count += "/console/state" in url

    page.on("request", lambda request: note(request.url))
    page.wait_for_timeout(WATCHED_MS)
    return count


def test_who_logs_in_or_out_makes_the_page_ask_no_more_often(link: str) -> None:
    with chromium() as browser:
        page = browser.new_page()
        page.goto(link)
        page.wait_for_selector("#leave:visible")
        assert 1 <= asked(page) <= 1.4 * WATCHED_MS / EVERY_MS
        page.click("#leave")
        page.wait_for_selector("#enter:visible")
        assert 1 <= asked(page) <= 1.4 * WATCHED_MS / EVERY_MS
