"""The edge over real sockets: the cures of the servers' faults, and who may not come in at all."""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

import attrs
import pytest
import structlog
import trio
import trio.testing

from clawdforge import server
from clawdforge.config import Config
from clawdforge.domain.limits import FilePlan
from clawdforge.handover import Inbox
from clawdforge.web import edge as edge_module
from clawdforge.web import operations, weight
from clawdforge.web.app import make_app, make_edge
from clawdforge.web.edge import Edge
from tests.web.stage import (
    ADMIN,
    DONE,
    SESSION,
    TOKEN,
    ask,
    bearer,
    make_service,
    open_site,
    read_response,
    read_to_end,
    request_bytes,
)

TURN = f"/sessions/{SESSION}/turn"
PROMPT = b'{"prompt":"hi"}'
BOTH_LENGTHS = (
    b"POST /sessions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
)
WEBSOCKET = (
    b"GET /sessions HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


# --- the wedge ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hosts", "status"),
    [
        (["localhost:8800"], 200),
        (["[::1]:8800"], 200),
        ([""], 200),
        (["x" * 500], 200),
        (["a", "a"], 200),
        (["a", "b"], 400),
        (["[::1"], 400),
        (["a b"], 400),
        (["\xff"], 400),
        (["a/b"], 400),
    ],
)
async def test_hosts(hosts: list[str], status: int) -> None:
    """Any host that can be one is served, whatever DNS would say; what can be none is 400."""
    headers = [("Host", host) for host in hosts]
    answer = await ask(make_edge(await make_service()), "GET", "/livez", headers=headers)
    assert answer.status == status


async def test_idle_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that idles after its first answer is closed when its time is over."""
    monkeypatch.setattr(server, "KEEP_ALIVE_SECS", 0.3)
    async with open_site(await make_service()) as site, await site.connect() as stream:
        await stream.send_all(request_bytes("GET", "/livez"))
        await read_response(stream)
        with trio.fail_after(5):
            assert await read_to_end(stream) == b""


async def test_idle_connection_does_not_hold_up_shutdown() -> None:
    """Shutdown closes idle connections at once and waits for none of them."""
    async with (
        open_site(await make_service(), graceful_secs=20) as site,
        await site.connect() as stream,
    ):
        await stream.send_all(request_bytes("GET", "/livez"))
        await read_response(stream)
        site.close.set()
        with trio.fail_after(5):
            assert await read_to_end(stream) == b""


async def test_many_requests_on_one_connection() -> None:
    """A connection serves one request after the other."""
    async with open_site(await make_service()) as site, await site.connect() as stream:
        for _ in range(20):
            await stream.send_all(request_bytes("GET", "/sessions"))
            assert (await read_response(stream))[0] == 200


@pytest.mark.parametrize(
    ("method", "target", "token", "status"),
    [
        ("POST", "/sessions", None, 401),
        ("POST", "/nothing", TOKEN, 404),
        ("PUT", "/sessions", TOKEN, 405),
    ],
)
async def test_answer_before_the_body(
    method: str, target: str, token: str | None, status: int
) -> None:
    """An answer given before the body has come neither hangs nor costs the connection."""
    body = b"x" * 100_000
    whole = request_bytes(method, target, body, token=token)
    async with open_site(await make_service()) as site, await site.connect() as stream:
        await stream.send_all(whole[: -len(body)])
        assert (await read_response(stream))[0] == status
        await stream.send_all(body)
        await stream.send_all(request_bytes("GET", "/sessions"))
        with trio.fail_after(5):
            assert (await read_response(stream))[0] == 200


async def test_body_over_the_cap_still_sees_its_refusal() -> None:
    """A client that writes a body over the cap to its end, and only then reads, reads the 413."""
    service = await make_service()
    service.config = attrs.evolve(service.config, max_body_bytes=100_000)
    async with open_site(service) as site, await site.connect() as stream:
        await stream.send_all(request_bytes("POST", TURN, b"x" * 8_000_000))
        assert (await read_response(stream))[0] == 413


async def test_body_that_never_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """After an early answer, a client that never sends its body is let go after a while."""
    monkeypatch.setattr(edge_module, "LINGER_SECS", 0.2)
    whole = request_bytes("POST", "/sessions", b"x" * 100, token=None)
    async with open_site(await make_service()) as site, await site.connect() as stream:
        await stream.send_all(whole[:-100])
        assert (await read_response(stream))[0] == 401
        with trio.fail_after(5):
            assert await read_to_end(stream) == b""


# --- callers that leave ---------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["/sessions", TURN])
@pytest.mark.parametrize("how", ["closes", "resets"])
async def test_caller_that_leaves_cancels_its_request(target: str, how: str) -> None:
    """When the caller's connection goes, its handler is cancelled, however it goes."""
    service = await make_service(holds=True)
    body = b"{}" if target == "/sessions" else PROMPT
    async with open_site(service) as site:
        stream = await site.connect()
        await stream.send_all(request_bytes("POST", target, body))
        await service.entered.wait()
        if how == "resets":
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await stream.aclose()
        with trio.fail_after(5):
            await service.left.wait()
        assert service.was_cancelled


@pytest.mark.parametrize("target", ["/sessions", TURN, "/run"])
async def test_half_a_body_is_nobodys(target: str) -> None:
    """A caller that leaves in the middle of its body has asked for nothing."""
    service = await make_service()
    whole = request_bytes("POST", target, PROMPT + b" " * 100)
    with structlog.testing.capture_logs() as lines:
        async with open_site(service) as site:
            stream = await site.connect()
            await stream.send_all(whole[:-100])  # JSON that is whole, in a body that is not
            await trio.testing.wait_all_tasks_blocked()
            await stream.aclose()
            with trio.fail_after(5):
                while not [line for line in lines if line["event"] == "request"]:
                    await trio.testing.wait_all_tasks_blocked(0.01)
    assert service.asked == []
    assert [line["status"] for line in lines if line["event"] == "request"] == [None]


async def test_caller_that_has_left_before_it_was_heard() -> None:
    """A word that comes before anybody listens is told to who listens then."""
    inbox, calls = Inbox(2), []
    await inbox.put({"type": "http.disconnect"})
    inbox.when_hung_up(lambda: calls.append("gone"))
    assert calls == ["gone"]


async def test_word_of_a_hang_up_needs_no_reader() -> None:
    """With messages that nobody has taken, and nobody at work on them, it is told at once."""
    inbox, calls = Inbox(2), []
    inbox.when_hung_up(lambda: calls.append("gone"))
    await inbox.put({"type": "http.request", "body": b"x", "more_body": True})
    await inbox.put({"type": "http.disconnect"})
    assert calls == ["gone"]
    kinds = [(await inbox.take())["type"] for _ in range(2)]
    assert kinds == ["http.request", "http.disconnect"]


# --- bounds ---------------------------------------------------------------------------------------


async def test_body_that_stops_arriving(monkeypatch: pytest.MonkeyPatch) -> None:
    """408 after a while, said to be the body's fault, and the handler was never asked."""
    monkeypatch.setattr(operations, "BODY_SECS", 0.2)
    service = await make_service()
    async with open_site(service) as site, await site.connect() as stream:
        await stream.send_all(request_bytes("POST", TURN, PROMPT + b" " * 100)[:-100])
        with trio.fail_after(5):
            status, body = await read_response(stream)
    assert (status, b"the body did not arrive in time" in body) == (408, True)
    assert service.asked == []


async def test_request_is_bounded() -> None:
    """A request that takes for ever is ended by the edge with 503, and its handler cancelled."""
    service = await make_service(holds=True)
    edge = Edge(make_app(service), bound_secs=0.2)  # type: ignore[arg-type] # typed by hypercorn
    async with open_site(service, edge=edge) as site, await site.connect() as stream:
        await stream.send_all(request_bytes("POST", TURN, PROMPT))
        status, body = await read_response(stream)
        assert (status, b"did not answer in time" in body) == (503, True)
        assert service.was_cancelled


async def test_route_has_its_own_bound(autojump_clock: Any) -> None:
    """A route that is stuck ends at its own bound, long before that of a turn."""
    service = await make_service(holds=True)
    began_at = trio.current_time()
    answer = await ask(
        make_edge(service), "DELETE", f"/sessions/{SESSION}", headers=bearer(), patience=10_000
    )
    assert answer.status == 503
    assert trio.current_time() - began_at < 60


async def test_stalled_reader_does_not_hold_up_shutdown() -> None:
    """A client that has stopped reading in mid-answer is cut off when the server closes."""
    service = await make_service(result=attrs.evolve(DONE, text="x" * 30_000_000))
    with trio.fail_after(10):
        async with open_site(service) as site:
            stalled = trio.socket.socket()
            stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            await stalled.connect(("127.0.0.1", site.port))
            await stalled.send(request_bytes("POST", TURN, PROMPT))
            assert await stalled.recv(100)
            site.close.set()
    stalled.close()


async def test_slow_reader_gets_it_all() -> None:
    """A client that reads slowly, but reads, gets the whole of a large answer."""
    service = await make_service(result=attrs.evolve(DONE, text="x" * 8_000_000))
    async with open_site(service) as site, await site.connect() as stream:
        await stream.send_all(request_bytes("POST", TURN, PROMPT))
        status, body = await read_response(stream)
        assert (status, len(body) > 8_000_000) == (200, True)


# --- what is not spoken here ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (BOTH_LENGTHS, 400),
        (b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n", 405),
        (WEBSOCKET, 426),
        (b"GET /healthz HTTP/1.1\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 100_000 + b"\r\n\r\n", 431),
        (b"nonsense\r\n\r\n", 400),
    ],
    ids=["both lengths", "CONNECT", "WebSocket", "no Host", "long header", "nonsense"],
)
async def test_not_spoken_here(request_: bytes, status: int) -> None:
    """What is not plain HTTP for this service is refused, never with HTML, and the server lives."""
    async with open_site(await make_service()) as site:
        async with await site.connect() as stream:
            await stream.send_all(request_)
            with trio.fail_after(5):
                head = (await stream.receive_some(65536)).decode()
            assert head.split()[1] == str(status)
            assert "html" not in head.lower()
        async with await site.connect() as stream:
            await stream.send_all(request_bytes("GET", "/livez"))
            assert (await read_response(stream))[0] == 200


async def test_both_lengths_close_the_connection() -> None:
    """After a request whose end is in doubt nothing more is read from its connection."""
    smuggled = request_bytes("DELETE", f"/sessions/{SESSION}")
    service = await make_service()
    async with open_site(service) as site, await site.connect() as stream:
        await stream.send_all(BOTH_LENGTHS + smuggled)
        with trio.fail_after(5):
            answers = await read_to_end(stream)
    assert answers.count(b"HTTP/1.1 ") == 1
    assert service.asked == []


async def test_only_so_many_large_bodies_at_once() -> None:
    """With four of the largest in hand the fifth is told 503, a small one is let in; then it is."""
    large, small = {"prompt": "x" * 900_000}, {"prompt": "x"}
    config = Config(admin_token=ADMIN, max_body_bytes=1_000_000)
    service = await make_service(config=config, holds=True)
    edge, held = make_edge(service), 4
    async with trio.open_nursery() as nursery:

        async def turn(body: object) -> None:
            answer = await ask(edge, "POST", TURN, headers=bearer(), body=body)
            assert answer.status == 200

        for _ in range(held):
            nursery.start_soon(turn, large)
        nursery.start_soon(turn, small)
        await trio.testing.wait_all_tasks_blocked()
        assert len(service.asked) == held + 1
        refused = await ask(edge, "POST", TURN, headers=bearer(), body=large)
        assert refused.status == 503
        assert int(refused.header("retry-after") or 0) > 0
        service.released.set()
    again = await ask(edge, "POST", TURN, headers=bearer(), body=large)
    assert again.status == 200


async def test_body_that_was_refused_weighs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the rest of one that found no room is taken from its client, the next finds room."""
    monkeypatch.setattr(weight, "BODIES", 1)
    service = await make_service(config=Config(admin_token=ADMIN, max_body_bytes=1_000_000))
    service.holds = True
    large = b'{"prompt":"' + b"x" * 900_000 + b'"}'
    whole = request_bytes("POST", TURN, large)
    async with open_site(service) as site, await site.connect() as first:
        await first.send_all(whole)
        await service.entered.wait()
        async with await site.connect() as refused, await site.connect() as next_one:
            await refused.send_all(whole[:1000])  # and keeps the edge waiting for the rest
            assert (await read_response(refused))[0] == 503
            service.released.set()
            assert (await read_response(first))[0] == 200
            await next_one.send_all(whole)
            assert (await read_response(next_one))[0] == 200


async def test_connections_over_the_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection over the cap is told 503 and closed; when one goes, the next may come."""
    monkeypatch.setattr(server, "plan_open_files", lambda _: FilePlan(1, connections=1))
    async with open_site(await make_service()) as site:
        async with await site.connect() as first:
            await first.send_all(request_bytes("GET", "/livez"))
            await read_response(first)
            async with await site.connect() as second:
                await second.send_all(request_bytes("GET", "/livez"))
                assert (await read_response(second))[0] == 503
                assert await read_to_end(second) == b""
            await first.send_all(request_bytes("GET", "/livez", extra="Connection: close\r\n"))
            await read_to_end(first)
        status = 503
        while status == 503:  # until the server has noticed too; the site bounds it
            async with await site.connect() as third:
                await third.send_all(request_bytes("GET", "/livez"))
                status, _ = await read_response(third)
        assert status == 200


# --- the log --------------------------------------------------------------------------------------


async def test_log_has_one_line_per_request_and_no_secret() -> None:
    """The access log says who asked for which route and how it went, and no word of theirs."""
    service = await make_service()
    edge = make_edge(service)
    with structlog.testing.capture_logs() as lines:
        await ask(edge, "GET", f"/sessions/{SESSION}?token={TOKEN}", headers=bearer())
        await ask(edge, "GET", f"/nothing/{TOKEN}", headers=bearer())
        await ask(edge, "GET", "/admin/tokens", headers=bearer(ADMIN))
    assert [(line["route"], line["status"], line["app"]) for line in lines] == [
        ("/sessions/:session_id", 422, "kitchen"),
        ("/", 404, None),
        ("/admin/tokens", 200, None),
    ]
    text = repr(lines)
    assert TOKEN not in text
    assert ADMIN not in text
    assert SESSION not in text


async def test_bug_is_logged_without_a_traceback() -> None:
    """A bug of ours is 500 with a request id, and the line under that id says where, by module."""
    service = await make_service(fails_with=ValueError(f"{TOKEN} in /home/somebody"))
    with structlog.testing.capture_logs() as lines:
        answer = await ask(make_edge(service), "POST", "/sessions", headers=bearer(), body={})
    assert answer.status == 500
    failed, request = lines
    assert failed["request_id"] == request["request_id"] == answer.header("x-request-id")
    assert failed["error"] == "ValueError"
    assert any("stage" in place for place in failed["at"])
    for text in (repr(lines), answer.body.decode()):
        assert TOKEN not in text
        assert "/home" not in text
        assert ".py" not in text


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\n\r\n", 400),
        (b"nonsense\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 100_000 + b"\r\n\r\n", 431),
        (b"POST /run HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"POST /run HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
    ],
)
async def test_what_is_no_http_is_a_problem_document_too(raw: bytes, status: int) -> None:
    """The parser's own refusals are like ours, and the connection is closed."""
    async with open_site(await make_service()) as site, await site.connect() as stream:
        await stream.send_all(raw)
        answered = await read_to_end(stream)
    head, _, body = answered.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"content-type: application/problem+json" in head
    assert f"content-length: {len(body)}".encode() in head
    assert json.loads(body)["status"] == status
