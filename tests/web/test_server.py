"""The server around the routes: its socket, its signals, its end."""

from __future__ import annotations

import inspect
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import Any

import attrs
import hypercorn.protocol.http_stream
import hypercorn.run
import hypercorn.trio.run
import hypercorn.trio.task_group
import hypercorn.trio.tcp_server
import pytest
import trio

from clawdforge import asgi, server
from clawdforge.config import Config
from clawdforge.connections import (
    BoundedTCPServer,
    ServerConfig,
    install_bounded_connections,
)
from clawdforge.errors import DataDirectoryBusy, WrongConfiguration
from clawdforge.handover import PromptTaskGroup
from clawdforge.listening import UNREAD_SECS, bind_listener, listen, split_bind, url_of
from clawdforge.server import Stopping, run_service, serve_until_stopped
from clawdforge.web.edge import HANGUP
from clawdforge.worker_exit import remembering
from tests.web.stage import (
    ADMIN,
    SESSION,
    FakeService,
    make_service,
    read_response,
    read_to_end,
    request_bytes,
)

TURN = request_bytes("POST", f"/sessions/{SESSION}/turn", b'{"prompt":"hi"}')
READY = request_bytes("GET", "/readyz")
CONFIG = Config(bind="127.0.0.1:0", drain_secs=5, cancel_grace_secs=0.1)


# --- the socket -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bind", "expected"),
    [
        ("127.0.0.1:8800", ("127.0.0.1", 8800)),
        ("[::1]:0", ("::1", 0)),
        ("localhost:1", ("localhost", 1)),
    ],
)
def test_bind_is_host_and_port(bind: str, expected: tuple[str, int]) -> None:
    """The setting is a host and a port, IPv6 in brackets."""
    assert split_bind(bind) == expected


@pytest.mark.parametrize(
    "bind", ["", "8800", ":8800", "127.0.0.1", "127.0.0.1:", "::1:80", "h:x", "h:70000", "h:-1"]
)
def test_bind_that_does_not_parse(bind: str) -> None:
    """Anything else is a wrong setting, named as the operator wrote it."""
    with pytest.raises(WrongConfiguration, match="CLAWDFORGE_BIND"):
        bind_listener(bind)


def test_address_in_use() -> None:
    """A second service on the same address is refused in one line, whoever came first."""
    with bind_listener("127.0.0.1:0") as first:
        listen(first)
        with pytest.raises(WrongConfiguration, match=r"CLAWDFORGE_BIND: .* is in use"):
            bind_listener(f"127.0.0.1:{first.getsockname()[1]}")


def test_address_taken_between_bind_and_listen() -> None:
    """The same when the other began to listen after we had bound."""
    with bind_listener("127.0.0.1:0") as first, socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(first.getsockname())
        other.listen()
        with pytest.raises(WrongConfiguration, match="is in use"):
            listen(first)


def test_address_of_another_machine() -> None:
    """An address that is not ours is a wrong setting."""
    with pytest.raises(WrongConfiguration, match="no address of this machine"):
        bind_listener("203.0.113.1:0")


def test_port_zero_is_told() -> None:
    """With port 0 the URL has the port that was picked, and IPv6 its brackets."""
    with bind_listener("127.0.0.1:0") as listener:
        port = listener.getsockname()[1]
        assert port != 0
        assert url_of(listener) == f"http://127.0.0.1:{port}"
    with bind_listener("[::1]:0") as listener:
        assert url_of(listener).startswith("http://[::1]:")


def test_clients_that_do_not_read_are_bounded_by_the_kernel() -> None:
    """An accepted connection has inherited the bound on a peer that takes nothing."""
    with bind_listener("127.0.0.1:0") as listener:
        listen(listener)
        with socket.create_connection(listener.getsockname()):
            listener.setblocking(True)
            accepted, _ = listener.accept()
            with accepted:
                got = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
    assert got == UNREAD_SECS * 1000


# --- the server underneath ------------------------------------------------------------------------


def test_hypercorn_is_the_one_that_was_cured() -> None:
    """The class that we replace has the shape that the cure was written for."""
    assert version("hypercorn").startswith("0.18.")
    original = hypercorn.trio.tcp_server.TCPServer
    assert issubclass(BoundedTCPServer, original)
    source = inspect.getsource(original.protocol_send)
    for line in (
        "async with self.send_lock:",
        "cancel_scope.shield = True",
        "await self.stream.send_all(event.data)",
        "await self.protocol.handle(Closed())",
    ):
        assert line in source
    source = inspect.getsource(original)
    assert source.count("self.idle_task") == 4
    assert source.count("await self.idle_task.restart(self._task_group, self._idle_timeout)") == 2
    assert source.count("await self.idle_task.stop()") == 1
    assert "TCPServer," in inspect.getsource(hypercorn.trio.run.worker_serve)
    assert "async with TaskGroup() as task_group:" in inspect.getsource(original.run)
    assert inspect.getsource(original.run).count("await self._read_data()") == 1
    source = inspect.getsource(original._read_data)
    for line in (
        "data = await self.stream.receive_some(MAX_RECV)",
        "await self.protocol.handle(RawData(bytes(data)))",
        'if data == b"":',
        "await self.protocol.handle(Closed())",
    ):
        assert line in source
    spawned = inspect.getsource(hypercorn.trio.task_group.TaskGroup.spawn_app)
    *_, arguments = spawned.partition("self._nursery.start_soon(")
    assert [line.strip() for line in arguments.splitlines() if line.strip()] == [
        "_handle,",
        "app,",
        "config,",
        "scope,",
        "app_receive_channel.receive,",
        "send,",
        "trio.to_thread.run_sync,",
        "trio.from_thread.run,",
        ")",
        "return app_send_channel.send",
    ]
    source = inspect.getsource(hypercorn.protocol.http_stream.HTTPStream.handle)
    assert '"extensions": {},' in source
    assert 'await self.app_put({"type": "http.disconnect"})' in source


def test_our_connection_classes_are_used() -> None:
    """Once installed, the worker looks up our classes."""
    install_bounded_connections()
    assert vars(hypercorn.trio.run)["TCPServer"] is BoundedTCPServer
    assert vars(hypercorn.trio.tcp_server)["TaskGroup"] is PromptTaskGroup


def test_the_date_goes_with_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The headers of one second are made once, and those of the next anew (RFC 9110, 6.6.1)."""
    now = [1_790_000_000.2]
    monkeypatch.setattr(time, "time", lambda: now[0])
    monkeypatch.setattr("hypercorn.config.time", lambda: now[0])
    config = ServerConfig()
    config.include_server_header = False
    first = config.response_headers("h11")
    now[0] += 0.5
    assert config.response_headers("h11") is first
    now[0] += 0.5
    assert first == [(b"date", b"Mon, 21 Sep 2026 14:13:20 GMT")]
    assert config.response_headers("h11") == [(b"date", b"Mon, 21 Sep 2026 14:13:21 GMT")]


async def test_whole_answer_is_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """The head waits for the body that is about to come: a client is woken once for both."""
    pieces: list[bytes] = []

    async def send(peer: trio.socket.SocketType, data: memoryview) -> int:
        pieces.append(bytes(data))
        return await peer.send(data)

    monkeypatch.setattr("clawdforge.connections._send_some", send)
    async with (
        serving(await make_service(config=CONFIG)) as (_, port, _),
        await trio.open_tcp_stream("127.0.0.1", port) as client,
    ):
        await client.send_all(READY)
        status, body = await read_response(client)
    assert (status, len(pieces)) == (200, 1)
    assert pieces[0].startswith(b"HTTP/1.1 200 \r\n")
    assert pieces[0].endswith(b"\r\n\r\n" + body)


async def test_head_without_its_body_is_not_kept_back() -> None:
    """HEAD gets the head of its answer, which tells a length, and the connection goes on."""
    async with (
        serving(await make_service(config=CONFIG)) as (_, port, _),
        await trio.open_tcp_stream("127.0.0.1", port) as client,
    ):
        await client.send_all(request_bytes("HEAD", "/readyz"))
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += await client.receive_some(4096)
        assert head.startswith(b"HTTP/1.1 200 ")
        assert b"content-length: 0" not in head
        assert b"content-length: " in head
        await client.send_all(READY)
        assert (await read_response(client))[0] == 200


def test_exit_code_of_the_command_is_kept() -> None:
    """A worker that failed is remembered when Hypercorn asks a second time, and finds nobody."""
    answers = iter([0, 3, 0])
    join = remembering(lambda _: next(answers))
    assert [join([]), join([]), join([])] == [0, 3, 3]
    source = inspect.getsource(hypercorn.run.run)
    assert source.count("_join_exited(processes)") == 2


# --- drain ----------------------------------------------------------------------------------------


@asynccontextmanager
async def serving(service: FakeService) -> AsyncIterator[tuple[Stopping, int, trio.Event]]:
    """A service served until stopped: how to stop it, its port, and an event for its end."""
    stopping = Stopping(service.config)
    ended = trio.Event()
    listener = bind_listener(service.config.bind)
    port = listener.getsockname()[1]

    async def serve(*, task_status: trio.TaskStatus[None]) -> None:
        await serve_until_stopped(service, listener, stopping, lambda _: task_status.started())
        ended.set()

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await nursery.start(serve)
            yield stopping, port, ended
            stopping.asked.set()


async def test_drain_lets_turns_finish() -> None:
    """While a turn finishes, the server still answers, saying that it drains; then it closes."""
    service = await make_service(config=CONFIG, holds=True)
    async with serving(service) as (stopping, port, ended):
        turn = await trio.open_tcp_stream("127.0.0.1", port)
        await turn.send_all(TURN)
        await service.entered.wait()
        stopping.asked.set()
        await trio.testing.wait_all_tasks_blocked()
        async with await trio.open_tcp_stream("127.0.0.1", port) as late:
            await late.send_all(READY)
            status, body = await read_response(late)
            assert (status, b"draining" in body) == (503, True)
        assert not ended.is_set()
        service.released.set()
        assert (await read_response(turn))[0] == 200
        await turn.aclose()
        await ended.wait()
    assert not service.was_cancelled


async def test_drain_by_the_admin() -> None:
    """The admin's request begins the same drain as a signal, and the server ends after it."""
    config = attrs.evolve(CONFIG, admin_token=ADMIN)
    service = await make_service(config=config, holds=True)
    async with serving(service) as (stopping, port, ended):
        turn = await trio.open_tcp_stream("127.0.0.1", port)
        await turn.send_all(TURN)
        await service.entered.wait()
        async with await trio.open_tcp_stream("127.0.0.1", port) as admin:
            await admin.send_all(request_bytes("POST", "/admin/drain", token=ADMIN))
            assert (await read_response(admin))[0] == 200
        await stopping.asked.wait()
        assert not ended.is_set()
        service.released.set()
        assert (await read_response(turn))[0] == 200
        await turn.aclose()
        await ended.wait()
    assert service.has_stopped
    assert not service.was_cancelled
    stopping.call_off_watchdog()


async def test_drain_has_an_end() -> None:
    """A turn that outlasts the drain is called off; its caller is told 503, not just hung up on."""
    service = await make_service(config=attrs.evolve(CONFIG, drain_secs=0.2), holds=True)
    async with serving(service) as (stopping, port, ended):
        turn = await trio.open_tcp_stream("127.0.0.1", port)
        await turn.send_all(TURN)
        await service.entered.wait()
        stopping.asked.set()
        status, body = await read_response(turn)
        assert (status, b"draining" in body) == (503, True)
        assert await read_to_end(turn) == b""
        await ended.wait()
        await turn.aclose()
    assert service.was_cancelled


# --- the whole of serve ---------------------------------------------------------------------------

OpenService = Callable[[Config], Any]


@pytest.fixture
def compose(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[OpenService], None]]:
    """Put another composition root in the place of the real one."""
    before = signal.getsignal(signal.SIGTERM)
    yield partial(monkeypatch.setattr, server, "open_service")
    assert signal.getsignal(signal.SIGTERM) is before


def opens(**fields: Any) -> OpenService:
    """A composition root that opens a fake service."""

    @asynccontextmanager
    async def open_service(config: Config) -> AsyncIterator[FakeService]:
        yield await make_service(config=config, **fields)

    return open_service


def send_sigterm(_: str = "") -> None:
    """What a service manager does."""
    os.kill(os.getpid(), signal.SIGTERM)


def test_serve_and_stop(
    compose: Callable[[OpenService], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """Serve prints one ready line with its URL, and ends with 0 after a signal."""
    compose(opens())

    def announce(url: str) -> None:
        server.print_ready(url)
        send_sigterm()

    assert run_service(CONFIG, announce=announce) == 0
    out = capsys.readouterr().out
    ready = [line for line in out.splitlines() if "ready" in line]
    assert len(ready) == 1
    assert "http://127.0.0.1:" in ready[0]


def test_signal_before_it_is_ready(compose: Callable[[OpenService], None]) -> None:
    """A signal during the start ends the start, and that is no failure."""

    @asynccontextmanager
    async def open_service(_: Config) -> AsyncIterator[FakeService]:
        send_sigterm()
        await trio.Event().wait()  # until the signal ends it
        yield FakeService()

    compose(open_service)
    assert run_service(CONFIG) == 0


def test_second_signal_is_immediate(compose: Callable[[OpenService], None]) -> None:
    """A second signal ends the drain at once, and the exit code says so."""
    compose(opens(is_ever_idle=False, on_drain=send_sigterm))
    config = attrs.evolve(CONFIG, drain_secs=600)
    assert run_service(config, announce=send_sigterm) == 128 + signal.SIGTERM


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (
            WrongConfiguration("CLAWDFORGE_X", "must be y"),
            2,
            "clawdforge: CLAWDFORGE_X: must be y\n",
        ),
        (DataDirectoryBusy(), 2, "clawdforge: another clawdforge holds this data directory\n"),
        (RuntimeError("/home/x"), 1, ""),
    ],
)
def test_start_that_fails(
    compose: Callable[[OpenService], None],
    capsys: pytest.CaptureFixture[str],
    error: Exception | None,
    code: int,
    words: str,
) -> None:
    """A start that fails is one line, without a traceback, and a code that is not zero."""

    @asynccontextmanager
    async def open_service(_: Config) -> AsyncIterator[FakeService]:
        await trio.lowlevel.checkpoint()
        if error is not None:
            raise error
        yield await make_service()

    compose(open_service)
    assert run_service(CONFIG) == code
    told = capsys.readouterr()
    assert told.err == words
    assert "/home" not in told.out + told.err
    assert "Traceback" not in told.out + told.err


def test_tree_that_fails_while_serving(compose: Callable[[OpenService], None]) -> None:
    """When the actors fail, the server goes down with them, with a code that is not zero."""
    failing = trio.Event()

    @asynccontextmanager
    async def open_service(config: Config) -> AsyncIterator[FakeService]:
        async def fail() -> None:
            await failing.wait()
            raise RuntimeError

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            yield await make_service(config=config)

    compose(open_service)
    assert run_service(CONFIG, announce=lambda _: failing.set()) == 1


def test_address_in_use_before_anything_starts(
    compose: Callable[[OpenService], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """An address in use is said before the composition root is even asked."""
    compose(lambda _: pytest.fail("nothing may start"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert run_service(attrs.evolve(CONFIG, bind=f"127.0.0.1:{port}")) == 2
    assert capsys.readouterr().err.startswith("clawdforge: CLAWDFORGE_BIND: ")


# --- under the hypercorn command ------------------------------------------------------------------


class Lifespan:
    """The server's side of the lifespan; like Hypercorn's, it raises what it is told failed."""

    def __init__(self) -> None:
        self.to_app, self.receive_channel = trio.open_memory_channel[dict[str, str]](10)
        self.said: list[str] = []
        self.is_up = trio.Event()

    async def receive(self) -> dict[str, str]:
        return await self.receive_channel.receive()

    async def send(self, message: Any) -> None:
        await trio.lowlevel.checkpoint()
        self.said.append(message["type"])
        if message["type"].endswith(".failed"):
            raise RuntimeError(message["message"])
        self.is_up.set()


async def test_asgi_lives_between_start_and_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """The application opens the service at start-up, serves, and closes it at shutdown."""
    monkeypatch.setattr(asgi, "open_service", opens())
    app = asgi.Application({})
    lifespan = Lifespan()
    answers: list[Any] = []

    async def ask() -> int:
        scope: dict[str, Any] = {
            "type": "http",
            "method": "GET",
            "headers": [],
            "client": ("127.0.0.1", 1),
        }
        scope |= {"path": "/livez", "raw_path": b"/livez", "query_string": b"", "root_path": ""}
        scope |= {"http_version": "1.1", "scheme": "http", "asgi": {}}
        scope["extensions"] = {HANGUP: lambda _: None}
        todo = [{"type": "http.request", "body": b"", "more_body": False}]
        answers.clear()

        async def receive() -> Any:
            return todo.pop() if todo else await trio.sleep_forever()

        async def send(message: Any) -> None:
            await trio.lowlevel.checkpoint()
            answers.append(message)

        await app(scope, receive, send)
        return int(answers[0]["status"])

    with trio.fail_after(10):
        assert await ask() == 503
        async with trio.open_nursery() as nursery:
            nursery.start_soon(app, {"type": "lifespan"}, lifespan.receive, lifespan.send)
            await lifespan.to_app.send({"type": "lifespan.startup"})
            await lifespan.is_up.wait()
            assert await ask() == 200
            await lifespan.to_app.send({"type": "lifespan.shutdown"})
    assert lifespan.said == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_asgi_tells_the_server_that_its_tree_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """When the actors fail, the server is told in the one way that makes it end."""
    failing = trio.Event()

    @asynccontextmanager
    async def open_service(config: Config) -> AsyncIterator[FakeService]:
        async def fail() -> None:
            await failing.wait()
            raise RuntimeError

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            yield await make_service(config=config)

    monkeypatch.setattr(asgi, "open_service", open_service)
    lifespan = Lifespan()
    with (
        trio.fail_after(10),
        pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="RuntimeError")),
    ):
        async with trio.open_nursery() as nursery:
            app = asgi.Application({})
            nursery.start_soon(app, {"type": "lifespan"}, lifespan.receive, lifespan.send)
            await lifespan.to_app.send({"type": "lifespan.startup"})
            await lifespan.is_up.wait()
            failing.set()
    assert lifespan.said == ["lifespan.startup.complete", "lifespan.shutdown.failed"]


async def test_asgi_with_a_wrong_setting() -> None:
    """A wrong setting fails the start-up, in its own words."""
    lifespan = Lifespan()
    await lifespan.to_app.send({"type": "lifespan.startup"})
    app = asgi.Application({"CLAWDFORGE_DRAIN_SECS": "soon"})
    with pytest.raises(RuntimeError, match="CLAWDFORGE_DRAIN_SECS"):
        await app({"type": "lifespan"}, lifespan.receive, lifespan.send)
    assert lifespan.said == ["lifespan.startup.failed"]


def test_hypercorn_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings module gives Hypercorn our address, one worker and the drain as its patience."""
    settings = {"CLAWDFORGE_DRAIN_SECS": "17", "CLAWDFORGE_BIND": "127.0.0.1:8899"}
    monkeypatch.setattr(os, "environ", settings)
    sys.modules.pop("clawdforge.hypercorn_conf", None)
    got = hypercorn.config.Config.from_object("clawdforge.hypercorn_conf")
    sys.modules.pop("clawdforge.hypercorn_conf", None)
    assert got.graceful_timeout == 17
    assert got.bind == ["127.0.0.1:8899"]
    assert (got.workers, got.worker_class) == (1, "trio")
