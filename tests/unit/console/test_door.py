"""Who may look and who may act: logins, cookies, tokens, and requests that other pages send."""

from __future__ import annotations

import asyncio
import logging
import socket

import pytest

from ssastore.console.door import SESSION_S, may_be_rebound
from ssastore.console.token import CODE_S, make_token, read_token
from ssastore.errors import ConfigError
from tests.desks import PAGE, Desk

SCRUB = {"act": "scrub"}
OWN = socket.gethostname()


async def test_a_code_lets_somebody_act_and_is_good_once(desk: Desk) -> None:
    code = desk.code()
    assert (await desk.post("/console/act", SCRUB))[0] == 401
    assert (await desk.state())["may_act"] is False
    assert (await desk.post("/console/login", {"code": code}))[0] == 200
    assert (await desk.state())["may_act"] is True
    assert (await desk.post("/console/act", SCRUB))[0] == 200
    desk.leave()
    status, said = await desk.post("/console/login", {"code": code})
    assert status == 403 and "was used" in said["error"]
    assert (await desk.post("/console/act", SCRUB))[0] == 401
    assert desk.scrubs == 1


async def test_a_code_ends(desk: Desk) -> None:
    code = desk.code()
    desk.clock.ms += CODE_S * 1000
    status, said = await desk.post("/console/login", {"code": code})
    assert status == 403 and "ten minutes" in said["error"]


@pytest.mark.parametrize("change", [(0, "0"), (20, "0"), (-1, "0"), (-1, "")])
async def test_a_code_that_somebody_made_up(desk: Desk, change: tuple[int, str]) -> None:
    code = list(desk.code())
    at, sign = change
    code[at] = sign if code[at] != sign else "1"
    assert (await desk.post("/console/login", {"code": "".join(code)}))[0] == 403


@pytest.mark.parametrize(
    "said",
    [
        *({}, {"code": 5}, {"token": None}, {"token": ""}, {"code": "é.é"}, {"token": "é"}),
        *({"token": "\ud800"}, {"code": "\ud800.0.0"}, {"code": "0.0.\ud800"}),
    ],
)
async def test_what_is_no_login(desk: Desk, said: dict[str, object]) -> None:
    assert (await desk.post("/console/login", said))[0] == 403


async def test_a_code_of_before_the_start_may_have_been_used(desk: Desk) -> None:
    desk.clock.ms -= 60_000
    code = desk.code()
    desk.clock.ms += 60_000
    status, said = await desk.post("/console/login", {"code": code})
    assert status == 403 and "before the gateway was started" in said["error"]


async def test_the_token_lets_in_and_is_asked_of_programs(desk: Desk) -> None:
    token = read_token(desk.token_file).decode()
    assert (await desk.post("/console/login", {"token": token + "\n"}))[0] == 200
    desk.leave()
    bearer = {"Authorization": f"Bearer {token}"}
    assert (await desk.post("/console/act", SCRUB, bearer))[0] == 200
    assert (await desk.post("/console/act", SCRUB, {"Authorization": f"Bearer {token}0"}))[0] == 401
    assert (await desk.post("/console/act", SCRUB, {"Authorization": "Bearer "}))[0] == 401
    far = {"Host": "gateway.example:7481"}
    assert (await desk.get("/console/state", **far)).status == 401
    assert (await desk.get("/console/state", **far, **bearer)).status == 200


async def test_a_session_ends_with_its_time_and_with_its_token(desk: Desk) -> None:
    await desk.post("/console/login", {"code": desk.code()})
    desk.clock.ms += SESSION_S * 1000 - 1
    assert (await desk.state())["may_act"] is True
    desk.clock.ms += 1
    assert (await desk.state())["may_act"] is False
    await desk.post("/console/login", {"code": desk.code()})
    assert (await desk.state())["may_act"] is True
    make_token(desk.token_file, desk.randomness)
    assert (await desk.state())["may_act"] is False


async def test_who_logs_out_is_out_wherever_the_cookie_is(desk: Desk) -> None:
    answer = await desk.get(
        "/console/login", method="POST", Authorization="", **PAGE, Content_Type="application/json"
    )
    assert answer.status == 403
    await desk.post("/console/login", {"code": desk.code()})
    cookies = {"Cookie": "; ".join(f"{c.key}={c.value}" for c in desk.cookies())}
    assert (await desk.post("/console/logout", {}))[0] == 200
    assert (await desk.get("/console/state", **cookies)).status == 200
    assert (await desk.post("/console/act", SCRUB, {**PAGE, **cookies}))[0] == 401


async def test_the_cookie_is_for_this_site_and_no_script(desk: Desk) -> None:
    answer = await desk.login_answer()
    said = answer.headers["Set-Cookie"]
    assert "HttpOnly" in said and "SameSite=Strict" in said and "Path=/" in said
    assert said.startswith(f"ssastore-{desk.url.rpartition(':')[2]}=")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (PAGE, 200),
        ({}, 403),
        (PAGE | {"Origin": "http://evil.example"}, 403),
        (PAGE | {"Origin": "http://localhost:1"}, 403),
        (PAGE | {"Origin": "null"}, 403),
    ],
)
async def test_another_page_cannot_act_with_the_cookie(
    desk: Desk, headers: dict[str, str], status: int
) -> None:
    await desk.post("/console/login", {"code": desk.code()})
    assert (await desk.post("/console/act", SCRUB, headers))[0] == status
    assert (await desk.post("/console/act", SCRUB, PAGE | {"Origin": desk.url}))[0] == 200
    desk.leave()
    assert (await desk.post("/console/login", {"code": desk.code()}, headers))[0] == status


async def test_nobody_comes_in_by_a_token_that_others_can_read(desk: Desk) -> None:
    code = desk.code()
    desk.token_file.chmod(0o644)
    make_unseen = desk.token_file.read_text() + "0"
    desk.token_file.write_text(make_unseen)
    status, said = await desk.post("/console/login", {"code": code})
    assert status == 403 and "no admin token" in said["error"]
    desk.token_file.unlink()
    assert (await desk.post("/console/login", {"code": code}))[0] == 403
    with pytest.raises(ConfigError):
        read_token(desk.token_file)


async def test_a_token_is_in_no_log(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    token, code = read_token(desk.token_file).decode(), desk.code()
    await desk.post("/console/login", {"code": code})
    await desk.post("/console/login", {"token": token})
    await desk.post("/console/login", {"token": token[1:]})
    await desk.post("/console/act", SCRUB)
    assert "console.acted" in caplog.text
    said = caplog.text + "".join(str(vars(record)) for record in caplog.records)
    assert token not in said and token[1:] not in said and code not in said


@pytest.mark.parametrize("header", ["Cookie", "Authorization"])
async def test_bytes_that_are_no_text_are_nobodys_secret(desk: Desk, header: str) -> None:
    port = int(desk.url.rpartition(":")[2])
    said = {"Cookie": f"ssastore-{port}=".encode(), "Authorization": b"Bearer "}[header]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"POST /console/act HTTP/1.1\r\nHost: localhost:%d\r\nContent-Length: 0\r\nConnection: close\r\n"
        b"%s: %s\xff\r\n\r\n" % (port, header.encode(), said)
    )
    assert (await reader.readline()).split()[1] == b"401"
    writer.close()


async def test_an_origin_that_is_no_address(desk: Desk) -> None:
    status, _ = await desk.post("/console/login", {"code": desk.code()}, PAGE | {"Origin": "http://["})
    assert status == 403


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *[(host, 200) for host in ("localhost:1", "a.localhost", "127.0.0.1:7481", "[::1]:7481")],
        *[(host, 200) for host in ("192.0.2.1:7481", "[2001:db8::1]:7481", "2001:db8::1", f"{OWN}:7481", "")],
        *[
            (host, 403)
            for host in ("evil.example:7481", "evil.example", f"{OWN}.evil.example", "127.0.0.1.evil")
        ],
    ],
)
async def test_a_page_of_another_name_reads_no_status(desk: Desk, host: str, status: int) -> None:
    """Its site may point that name here, and the browser then takes us for the page's own server."""
    assert (await desk.get("/status", Host=host)).status == status


async def test_a_proxy_that_passes_its_name_on_reads_status_by_the_token(desk: Desk) -> None:
    token = read_token(desk.token_file).decode()
    by = {"Host": "gateway.example", "X-Forwarded-For": "2001:db8::1"}
    assert (await desk.get("/status", **by)).status == 403
    assert (await desk.get("/status", **by, Authorization=f"Bearer {token}")).status == 200


async def test_who_says_no_name_is_no_browser(desk: Desk) -> None:
    """Health checks of some load balancers are HTTP/1.0."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(desk.url.rpartition(":")[2]))
    writer.write(b"GET /status HTTP/1.0\r\n\r\n")
    assert (await reader.readline()).split()[1] == b"200"
    writer.close()


@pytest.mark.parametrize("peer", ["192.0.2.9", "2001:db8::9", ""])
def test_another_machine_may_call_us_as_it_likes(peer: str) -> None:
    """As Prometheus there does: who reaches the port from elsewhere may read by every name."""
    assert not may_be_rebound(peer, "gateway.example:7481")
    assert may_be_rebound("127.0.0.1", "gateway.example:7481")
    assert may_be_rebound("::ffff:127.0.0.1", "gateway.example:7481")


@pytest.mark.parametrize("header", ["Forwarded", "X-Forwarded-For", "X-Real-IP", "Via"])
async def test_who_comes_by_a_proxy_is_not_on_this_machine(desk: Desk, header: str) -> None:
    """It dials from here, and by default with a name of its own choice, as 127.0.0.1."""
    assert (await desk.get("/console/state")).status == 200
    assert (await desk.get("/console/state", **{header: "2001:db8::1"})).status == 401
