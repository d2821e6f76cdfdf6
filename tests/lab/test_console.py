"""The console in a real browser, beside a cluster on which slices move."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from tests.browser import chromium
from tests.lab.shared import module_lab, s3_client
from tests.labs import RunningLab

WAIT_MS = 60_000
"A busy machine starts a node in ten seconds."
POINTS = """async () => {
    const { point, cell } = await import("/console/hilbert.js");
    const found = [];
    for (let d = 0; d < 65536; d += 1) {
        const [x, y] = point(8, d);
        if (cell(8, x, y) !== d) throw new Error(`cell of point ${d}`);
        found.push([x, y]);
    }
    return JSON.stringify(found);
}"""
RECTANGLES = """async (asked) => {
    const { rectangle } = await import("/console/hilbert.js");
    return asked.map(([locator, depth]) => rectangle(locator, depth));
}"""
PREFIXES = """async ([service, texts]) => {
    const { parsePrefix, prefixText } = await import("/console/model.js");
    return texts.map((text) => {
        const found = parsePrefix(service, text);
        return found && prefixText(service, found.locator, found.depth);
    });
}"""
DIGESTS = """async (texts) => {
    const { hex, hmac, bytesOf, sha256 } = await import("/console/sha256.js");
    return {
        plain: texts.map((text) => hex(sha256(text))),
        keyed: texts.map((text) => hex(hmac(bytesOf(text), "told"))),
    };
}"""
LEGEND = """() => [...document.querySelectorAll("#legend li")].map(
    (item) => `${item.textContent} ${item.querySelector(".sample").style.background}`)"""
COLOURS = """() => {
    const canvas = document.getElementById("map");
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    const at = (x, y) => Array.from(data.slice(4 * (y * canvas.width + x), 4 * (y * canvas.width + x) + 3));
    const found = [];
    for (let y = 0; y < 256; y += 1) for (let x = 0; x < 256; x += 1) found.push(at(4 * x + 3, 4 * y + 3));
    return JSON.stringify(found);
}"""


@cache
def hilbert(order: int, d: int) -> tuple[int, int]:
    """The curve by its definition: four smaller ones, the first and last mirrored."""
    if order == 0:
        return 0, 0
    side = 1 << (order - 1)
    quarter, rest = divmod(d, side * side)
    x, y = hilbert(order - 1, rest)
    return [(y, x), (x, side + y), (side + x, side + y), (2 * side - 1 - y, side - 1 - x)][quarter]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningLab]:
    with module_lab(tmp_path_factory, "console", "--nodes", "2") as lab:
        lab.cli("mb", "photos")
        yield lab


@pytest.fixture(scope="module")
def complaints() -> list[str]:
    """What the page wrote to the browser's console."""
    return []


@pytest.fixture(scope="module")
def page(lab: RunningLab, complaints: list[str]) -> Iterator[Page]:
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1500, "height": 1100}, color_scheme="dark")
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("requestfailed", lambda request: complaints.append(f"not loaded: {request.url}"))
        page.goto(f"http://localhost:{lab.admin_port}/")
        page.wait_for_selector("#nodes .good", timeout=WAIT_MS)
        yield page


def test_slices_follow_each_other_on_the_map(page: Page) -> None:
    assert json.loads(page.evaluate(POINTS)) == [list(hilbert(8, d)) for d in range(65536)]


@pytest.mark.parametrize("depth", range(33))
def test_a_prefix_is_a_rectangle_that_its_halves_fill(page: Page, depth: int) -> None:
    locator = 0xC0FFEE42 >> (32 - depth) << (32 - depth)
    asked = [
        [locator, depth],
        *([[locator | half << (31 - depth), depth + 1] for half in (0, 1)] if depth < 32 else []),
    ]
    whole, *halves = page.evaluate(RECTANGLES, asked)
    assert whole[2] * whole[3] == 2.0**-depth and whole[2] / whole[3] in (1, 2, 0.5)
    for x, y, width, height in halves:
        assert whole[0] <= x and x + width <= whole[0] + whole[2]
        assert whole[1] <= y and y + height <= whole[1] + whole[3]
        assert width * height * 2 == whole[2] * whole[3]


def test_what_is_typed_to_be_looked_at(page: Page) -> None:
    service = "fd5a:1:2:3::/64"
    asked = {
        "1a3f": "fd5a:1:2:3:1a3f::/80",
        "1/68": "fd5a:1:2:3:1000::/68",
        "1a3f8/82": "fd5a:1:2:3:1a3f:8000::/82",
        "1a3f0/84": "fd5a:1:2:3:1a3f::/84",
        "0000": "fd5a:1:2:3::/80",
        "fd5a:1:2:3:1a3f::/80": "fd5a:1:2:3:1a3f::/80",
        "fd5a:1:2:3:1a3f:12:0:9": "fd5a:1:2:3:1a3f:12::/96",
        service: "fd5a:1:2:3::/64",
        "fd5a:1:2:4::/80": None,
        "1a3f/63": None,
        "1a3f/97": None,
        "": None,
        "x": None,
        "1::2::3": None,
    }
    assert page.evaluate(PREFIXES, [service, list(asked)]) == list(asked.values())


def test_the_map_shows_every_slice_in_the_colour_of_its_owner(page: Page, lab: RunningLab) -> None:
    def colours() -> list[tuple[int, ...]]:
        found = json.loads(page.evaluate(COLOURS))
        return [tuple(found[y * 256 + x]) for x, y in (hilbert(8, number) for number in range(65536))]

    state: dict[str, Any] = page.evaluate("async () => (await fetch('/console/state')).json()")
    owner_of = {first + at: owner for first, count, owner, *_ in state["runs"] for at in range(count)}
    seen = colours()
    nobodys = {seen[number] for number in range(1 << 12, 15 << 12) if number % 16 not in (0, 15)}
    # Names of fields are written over some slices, and lines over others.
    legend: list[str] = page.evaluate(LEGEND)
    for owner in set(owner_of.values()):
        own = Counter(seen[number] for number, found in owner_of.items() if found == owner)
        ((red, green, blue), alike), *_ = own.most_common()
        assert alike > 0.9 * own.total()
        assert legend[owner] == f"{state['names'][owner]} rgb({red}, {green}, {blue})"
        assert (red, green, blue) not in nobodys
    assert len(set(owner_of.values())) == 2


def test_the_keyboard_reaches_every_slice(page: Page) -> None:
    page.focus("#field")
    page.keyboard.press("ArrowRight")
    told = page.inner_text("#under")
    page.keyboard.press("ArrowDown")
    assert told != page.inner_text("#under") and "/80 · n1" in told
    page.keyboard.press("+")
    assert page.inner_text("#seen").endswith("/66")
    page.keyboard.press("Escape")
    assert page.inner_text("#seen").endswith("/64")


def test_a_key_is_explained_as_the_command_does(page: Page, lab: RunningLab) -> None:
    page.fill("#path", "photos/cat.jpg")
    page.keyboard.press("Enter")
    page.wait_for_selector("#steps li:nth-child(4)", timeout=WAIT_MS)
    steps = page.inner_text("#steps")
    assert "ssastore explain photos/cat.jpg" in page.inner_text("#explain-cli")
    told = lab.cli("explain", "photos/cat.jpg").stdout
    address = next(line.split()[2] for line in told.splitlines() if line.startswith("plane 0"))
    assert address in steps


def test_a_move_appears_while_it_is_under_way(page: Page, lab: RunningLab) -> None:
    lab.cli("node", "add", "n3")
    plan = str(lab.data / "plan.json")
    lab.cli("plan", "--out", plan)
    lab.cli("apply", plan, "--no-wait")
    page.locator("#moving", has_text="under way").wait_for(timeout=WAIT_MS)
    page.locator("#story", has_text="to n3").wait_for(timeout=WAIT_MS)
    page.wait_for_selector("#nodes tr:nth-child(3) .good", timeout=WAIT_MS)


def test_who_has_no_login_is_asked_for_one(page: Page) -> None:
    page.click("[data-act=pause]")
    page.wait_for_selector("#login[open]")
    page.fill("#token", "not the token")
    page.keyboard.press("Enter")
    page.locator("#login-error", has_text="not the admin token").wait_for(timeout=WAIT_MS)
    page.keyboard.press("Escape")
    assert not page.is_visible("#login")


def test_a_link_logs_in_once_and_leaves_no_trace_in_the_address(page: Page, lab: RunningLab) -> None:
    url = json.loads(lab.cli("console", "--json").stdout)["url"]
    page.goto("about:blank")
    page.goto(url)
    page.locator("#may", has_text="May act").wait_for(timeout=WAIT_MS)
    assert "#" not in page.url
    stranger = page.context.browser.new_context().new_page()  # type: ignore[union-attr]
    stranger.goto(url)
    stranger.locator("#login-error", has_text="was used").wait_for(timeout=WAIT_MS)
    stranger.context.close()


@pytest.mark.parametrize(
    ("act", "value", "command", "told"),
    [
        ("pause", "", "ssastore pause", "paused"),
        ("rate", "64M", "ssastore moves --rate 64M", "64 MiB/s a worker"),
        ("abort", "", "ssastore abort", "called off"),
        ("resume", "", "ssastore resume", "move again"),
        ("scrub", "", "ssastore scrub", "begun by"),
    ],
)
def test_an_act_is_confirmed_beside_its_command_and_told(
    page: Page, lab: RunningLab, act: str, value: str, command: str, told: str
) -> None:
    page.click(f"[data-act={act}]")
    if value:
        page.fill("#confirm-value", value)
    assert page.inner_text("#confirm-cli") == command
    page.click("#confirm-do")
    page.locator("#said", has_text=told).wait_for(timeout=WAIT_MS)
    settings = json.loads(lab.cli("moves", "--json").stdout)
    if act in ("pause", "resume"):
        assert settings["paused"] is (act == "pause")
    if act == "rate":
        assert settings["bytes_per_s"] == 64 << 20


def test_what_is_not_confirmed_is_not_done_and_an_error_is_told(page: Page, lab: RunningLab) -> None:
    page.click("[data-act=pause]")
    page.click("#confirm [data-close]")
    page.click("[data-act=rate]")
    page.fill("#confirm-value", "fast")
    page.click("#confirm-do")
    page.locator("#confirm-error", has_text="no number of bytes").wait_for(timeout=WAIT_MS)
    page.keyboard.press("Escape")
    assert json.loads(lab.cli("moves", "--json").stdout)["paused"] is False


def test_a_node_is_drained_by_the_plan_that_was_shown(page: Page, lab: RunningLab) -> None:
    page.click("#nodes button[aria-label='Drain n3']")
    page.locator("#confirm-words", has_text="slices leave n3").wait_for(timeout=WAIT_MS)
    assert page.inner_text("#confirm-cli").startswith("ssastore plan --drain n3 --out plan.json && ")
    page.click("#confirm-do")
    page.locator("#said", has_text="ordered to leave n3").wait_for(timeout=WAIT_MS)
    page.locator("#story", has_text="n3 to n").wait_for(timeout=WAIT_MS)


def test_a_route_that_is_missing_shows_in_red_with_what_to_do_and_is_remembered(
    page: Page, lab: RunningLab
) -> None:
    lab.cli("abort")
    page.wait_for_selector("#truth.good", timeout=WAIT_MS)
    # Another one than it is asked at.
    node = max(lab.status()["nodes"], key=lambda node: len(node["prefixes"]))
    name, prefix = node["name"], node["prefixes"][-1]
    # The node mends it within five seconds: it is taken away again and again.
    taking = f"for at in $(seq 150); do ip -6 route del local {prefix} 2>/dev/null; sleep 0.1; done"
    thief = lab.start("sh", "-c", taking, host=name)
    page.wait_for_selector("#truth.bad", timeout=WAIT_MS)
    told = page.inner_text("#differences")
    assert f"{name} owns {prefix}" in told and "does not accept it" in told and "ssastore doctor" in told
    thief.communicate()
    page.wait_for_selector("#truth.good", timeout=WAIT_MS)
    assert f"{name}: not accepted, {prefix}" in page.inner_text("#ended")


def test_the_map_is_brighter_where_calls_go(page: Page, lab: RunningLab) -> None:
    bench = threading.Thread(target=lab.cli, args=("bench", "--op", "one", "--seconds", "6", "--quiet"))
    bench.start()
    page.locator("#hot", has_text="a second").wait_for(timeout=WAIT_MS)
    bench.join()


def test_the_map_and_its_words_tell_when_slices_were_verified(page: Page, lab: RunningLab) -> None:
    lab.cli("scrub", "--wait")
    page.locator("#health.good", has_text="every slice was read").wait_for(timeout=WAIT_MS)
    page.click("#whole")
    page.select_option("#paints", "verified")
    assert page.is_visible("#ages")
    page.wait_for_timeout(300)
    seen = json.loads(page.evaluate(COLOURS))
    owned = Counter(tuple(seen[y * 256 + x]) for x, y in (hilbert(8, number) for number in range(4096)))
    (red, green, blue), _ = owned.most_common(1)[0]
    assert green > red and green > blue
    page.focus("#field")
    page.keyboard.press("ArrowRight")
    assert "; verified " in page.inner_text("#under")
    page.select_option("#paints", "owner")


def test_what_is_older_than_the_state_is_asked_for(page: Page) -> None:
    with page.expect_response(lambda response: "/console/past?back=86400" in response.url) as found:
        page.click("[data-back='86400']")
    told = found.value.json()
    assert told["step"] == 60 and told["marks"]
    page.click("[data-back='120']")


def test_digests_are_those_of_the_standard(page: Page) -> None:
    texts = ["", "abc", "x" * 55, "x" * 56, "x" * 64, "€" * 1000]
    found = page.evaluate(DIGESTS, texts)
    assert found["plain"] == [hashlib.sha256(text.encode()).hexdigest() for text in texts]
    assert found["keyed"] == [hmac.digest(text.encode(), b"told", "sha256").hex() for text in texts]


def test_files_go_up_and_come_down_with_the_key_of_a_login(
    page: Page, lab: RunningLab, tmp_path: Path
) -> None:
    small, large = tmp_path / "größe & 1+1.txt", tmp_path / "large"
    small.write_bytes(b"small")
    large.write_bytes(bytes(range(256)) * 4096 * 20)  # Three parts.
    lab.cli("put", "photos/2026/01/cat.jpg", str(small))
    page.click("#keys button")
    page.click("#rows button:text-is('photos')")
    page.click("#rows button:text-is('2026/')")
    page.wait_for_selector("#rows button:text-is('01/')")
    page.set_input_files("#files", [str(small), str(large)])
    page.locator("#objects-said", has_text="2 stored").wait_for(timeout=WAIT_MS)
    for path in (small, large):
        with page.expect_download() as coming:
            page.click(f"[aria-label='Download 2026/{path.name}']")
        assert coming.value.path().read_bytes() == path.read_bytes()
    listed = lab.cli("ls", "photos/2026/").stdout
    assert small.name in listed and "large" in listed
    page.click("#trail button:text-is('photos')")
    page.wait_for_selector("#rows button:text-is('2026/')")


def test_a_folder_is_told_by_the_page(page: Page, lab: RunningLab) -> None:
    s3 = s3_client(lab)
    for at in range(150):
        s3.put_object(Bucket="photos", Key=f"many/{at:03}", Body=b"")
    page.click("#again")
    page.click("#rows button:text-is('many/')")
    page.locator("#objects-said", has_text="100 shown, and there are more").wait_for(timeout=WAIT_MS)
    page.click("#more")
    page.locator("#objects-said", has_text="150 shown").wait_for(timeout=WAIT_MS)
    assert page.locator("#rows tr").count() == 150 and not page.is_visible("#more")


def test_keys_that_are_typed_sign_in_the_page_and_wrong_ones_are_told(page: Page, lab: RunningLab) -> None:
    key, secret = lab.aws()["AWS_ACCESS_KEY_ID"], lab.aws()["AWS_SECRET_ACCESS_KEY"]
    sent: list[str] = []
    page.on("request", lambda request: sent.append(f"{request.url} {request.headers} {request.post_data}"))
    for typed, told in (("wrong", "SignatureDoesNotMatch"), (secret, "shown")):
        page.fill("#key", key)
        page.fill("#secret", typed)
        page.click("#keys button")
        page.locator("#objects-said", has_text=told).wait_for(timeout=WAIT_MS)
    assert any("/console/s3/" in one for one in sent) and not any(secret in one for one in sent)


def test_what_an_object_holds_is_never_a_page_of_the_console(page: Page, lab: RunningLab) -> None:
    shown = {"ContentType": "text/html", "ContentDisposition": "inline"}
    s3_client(lab).put_object(Bucket="photos", Key="evil.html", Body=b"<script>1</script>", **shown)
    page.click("#rows button:text-is('photos')")
    with page.expect_download() as coming:
        page.click("[aria-label='Download evil.html']")
    headers = page.request.get(coming.value.url).headers
    assert headers["content-disposition"] == "attachment" and "sandbox" in headers["content-security-policy"]


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_nothing_is_in_the_way_of_those_who_cannot_see_or_point(page: Page, theme: str) -> None:
    """By axe-core, the page as it is and with each dialogue open; WCAG 2 A and AA among its rules."""
    page.select_option("#theme", theme)
    page.click("#whole")

    def offences() -> list[str]:
        found = Axe().run(page).response["violations"]
        return [f"{rule['id']}: {node['html']}" for rule in found for node in rule["nodes"]]

    assert offences() == []
    page.click("[data-act=rate]")
    assert offences() == []
    page.keyboard.press("Escape")
    page.evaluate("document.getElementById('login').showModal()")
    assert offences() == []
    page.keyboard.press("Escape")


def test_a_theme_is_chosen_and_kept(page: Page) -> None:
    page.select_option("#theme", "dark")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.select_option("#theme", "light")
    assert page.evaluate("document.documentElement.dataset.theme") == "light"
    page.reload()
    page.wait_for_selector("#nodes .good", timeout=WAIT_MS)
    assert page.evaluate("document.documentElement.dataset.theme") == "light"


def test_it_says_when_nobody_answers(page: Page, lab: RunningLab, complaints: list[str]) -> None:
    # The browser also notes what was refused on purpose, and what was asked when the page was left.
    expected = ("the server responded with a status of 4", "/console/state?")
    assert [text for text in complaints if not any(part in text for part in expected)] == []
    page.route("**/console/state*", lambda route: route.abort())
    page.wait_for_selector("#live.bad", timeout=WAIT_MS)
    page.unroute("**/console/state*")
    page.wait_for_selector("#live.good", timeout=WAIT_MS)
