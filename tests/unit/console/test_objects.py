"""S3 behind the console: who may ask it, whose keys are lent, what a browser may do with answers."""

from __future__ import annotations

import pytest

from ssastore.console.door import SESSION_S
from ssastore.console.token import make_token
from ssastore.system import SystemRandomness
from tests.desks import Desk


@pytest.mark.parametrize(
    "path", ["/", "/photos?list-type=2&prefix=a", "/photos/a%2Fb%20c", "/photos/%E2%82%AC"]
)
@pytest.mark.parametrize("method", ["GET", "PUT", "POST", "DELETE"])
async def test_all_of_s3_is_below_a_path(desk: Desk, path: str, method: str) -> None:
    answer = await desk.get(f"/console/s3{path}", method=method)
    assert await answer.text() == f"{method} {path}"


async def test_what_others_made_is_never_shown_as_a_page_of_ours(desk: Desk) -> None:
    headers = (await desk.get("/console/s3/photos/page.html")).headers
    assert headers["Content-Disposition"] == "attachment"
    assert headers["Content-Security-Policy"] == "default-src 'none'; sandbox"


async def test_from_elsewhere_it_takes_a_login(desk: Desk) -> None:
    assert (await desk.get("/console/s3/photos", Host="gateway.example")).status == 401
    assert (await desk.get("/console/s3x")).status == 404


async def test_a_key_is_lent_as_long_as_a_login_lasts(desk: Desk) -> None:
    assert (await desk.post("/console/key", {}))[0] == 401
    await desk.post("/console/login", {"code": desk.code()})
    status, lent = await desk.post("/console/key", {})
    assert status == 200 and desk.lent(lent["key"]) == lent["secret"] and len(lent["secret"]) == 48
    assert (await desk.post("/console/key", {}))[1] == lent and desk.lent("console-") is None
    await desk.post("/console/logout", {})
    assert desk.lent(lent["key"]) is None


@pytest.mark.parametrize("end", ["time", "token"])
async def test_a_key_ends_with_its_login_though_nobody_comes_to_the_console(desk: Desk, end: str) -> None:
    """It is one of ROOT at the S3 port, which whole networks reach."""
    await desk.post("/console/login", {"code": desk.code()})
    _, lent = await desk.post("/console/key", {})
    assert desk.lent(lent["key"]) == lent["secret"]
    if end == "time":
        desk.clock.ms += SESSION_S * 1000
    else:
        make_token(desk.token_file, SystemRandomness())
    assert desk.lent(lent["key"]) is None


async def test_the_key_of_a_login_is_given_to_the_page_alone(desk: Desk) -> None:
    await desk.post("/console/login", {"code": desk.code()})
    assert (await desk.post("/console/key", {}, {}))[0] == 403
    token = desk.token_file.read_text().strip()
    desk.leave()
    assert (await desk.post("/console/key", {}, {"Authorization": f"Bearer {token}"}))[0] == 403
