"""The stage of the web tests: a scripted service behind the real edge, with or without sockets."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import trio

from clawdforge.actors.feed import EventSpan, Feeds
from clawdforge.actors.reader import EventReader, TurnReader
from clawdforge.config import Config
from clawdforge.domain.ids import AgentName, AppName, SessionId
from clawdforge.domain.ports import AppRow, SessionRow
from clawdforge.domain.questions import PendingPermission
from clawdforge.domain.runs import RunResult
from clawdforge.domain.turns import CancelReceipt, TurnResult, TurnTarget
from clawdforge.errors import SessionNotFound
from clawdforge.protocol.menus import NO_MENUS, Menus
from clawdforge.server import serve_app
from clawdforge.store.files import DiskShelf
from clawdforge.store.memory import MemoryStore
from clawdforge.web.app import make_edge
from clawdforge.web.auth import hash_token
from clawdforge.web.edge import HANGUP, Edge
from clawdforge.web.service import NewRun, NewSession, NewTurn, TurnTicket, Versions

ADMIN = "an admin secret of some length"
TOKEN = "cf_kitchen-0123456789-0123456789-0123456789"
OTHER_TOKEN = "cf_garage-0123456789-0123456789-01234567890"
KITCHEN = AppName("kitchen")
GARAGE = AppName("garage")
SESSION = SessionId("session-of-the-kitchen-0")
INSTALLED = Versions(acpx_present=True, acpx_version="0.19.1")
DONE = TurnResult(
    turn_index=1, ending="completed", stop_reason="end_turn", duration_ms=5, text="hello"
)


RAN = RunResult(True, {"a": 1}, "raw", "", 7, "end_turn")

CANCELLED = CancelReceipt(is_cancelled=True, turn_index=1, how="agent", took_ms=6)


def session_row(session_id: str = SESSION, app: AppName = KITCHEN, **fields: Any) -> SessionRow:
    """A row with what most tests do not care about filled in."""
    return SessionRow(
        **{
            "session_id": SessionId(session_id),
            "app_name": app,
            "agent": AgentName("demo"),
            "model": None,
            "created_at": 1000,
            "permissions": "approve-reads",
            **fields,
        }
    )


@attrs.define
class FakeService:
    """A service whose next answer a test writes: ``fails_with`` is raised, ``result`` returned.

    With ``holds`` every create and turn waits until it is cancelled or ``released``; ``entered``
    and ``left`` say that one has come and gone.
    """

    config: Config = attrs.field(factory=lambda: Config(admin_token=ADMIN))
    store: MemoryStore = attrs.field(factory=MemoryStore)
    folder: Path = Path("/nonexistent/clawdforge/files")
    found: Versions = INSTALLED
    fails_with: BaseException | None = None
    result: TurnResult = DONE
    receipt: CancelReceipt = CANCELLED
    pending: Sequence[PendingPermission] = ()
    run_result: RunResult = RAN
    is_draining: bool = False
    open_sessions: int = 0
    resting_agents: frozenset[AgentName] = frozenset()
    drain_requested: trio.Event = attrs.field(factory=trio.Event)
    has_stopped: bool = False
    live: set[str] = attrs.field(factory=set)
    offered: Menus = NO_MENUS
    asked: list[Any] = attrs.field(factory=list)
    holds: bool = False
    entered: trio.Event = attrs.field(factory=trio.Event)
    released: trio.Event = attrs.field(factory=trio.Event)
    left: trio.Event = attrs.field(factory=trio.Event)
    was_cancelled: bool = False
    is_ever_idle: bool = True
    on_drain: Callable[[], None] = lambda: None

    @property
    def files(self) -> DiskShelf:
        return DiskShelf(
            store=self.store,
            folder=self.folder,
            max_bytes=self.config.max_upload_bytes,
            now=self.now,
        )

    def now(self) -> int:
        return 1000

    def versions(self) -> Versions:
        return self.found

    def is_live(self, session_id: SessionId) -> bool:
        return session_id in self.live

    def menus(self, session_id: SessionId) -> Menus:
        return self.offered if session_id in self.live else NO_MENUS

    async def create_session(self, request: NewSession) -> SessionRow:
        await self._take(request)
        return session_row(
            app=request.app, agent=request.agent, model=request.model, meta=request.meta
        )

    async def start_turn(self, session_id: SessionId, app: AppName, request: NewTurn) -> FakeTicket:
        await self._find(session_id, app)
        await self.files.claim(app, request.files, hold_secs=request.timeout_secs)
        self.asked.append(request)
        if self.fails_with is not None:
            raise self.fails_with
        return FakeTicket(self)

    async def run_turn(self, session_id: SessionId, app: AppName, request: NewTurn) -> TurnResult:
        await self._find(session_id, app)
        await self.files.claim(app, request.files, hold_secs=request.timeout_secs)
        await self._take(request)
        return self.result

    async def cancel_turn(
        self, session_id: SessionId, app: AppName, target: TurnTarget
    ) -> CancelReceipt:
        await self._find(session_id, app)
        await self._take(target)
        return self.receipt

    async def list_permissions(
        self, session_id: SessionId, app: AppName
    ) -> Sequence[PendingPermission]:
        await self._find(session_id, app)
        await self._take(session_id)
        return self.pending

    async def decide_permission(
        self, session_id: SessionId, app: AppName, request_id: str, option_id: str
    ) -> None:
        await self._find(session_id, app)
        await self._take((request_id, option_id))

    def read_turn(self, session_id: SessionId, ticket: TurnTicket) -> EventReader:
        return TurnReader(Feeds(self.store, 1000), session_id, ticket.events)

    async def read_events(self, session_id: SessionId, *, after: int) -> EventReader:
        return EventReader(Feeds(self.store, 1000), session_id, after=after)

    async def close_session(self, session_id: SessionId, app: AppName) -> bool:
        row = await self._find(session_id, app)
        await self._take(session_id)
        return row.closed_at is None

    async def run_once(self, app: AppName, request: NewRun) -> RunResult:
        await self._take((app, request))
        return self.run_result

    async def mint(self, name: AppName, ip_cidrs: Sequence[str]) -> str:
        await self._take((name, ip_cidrs))
        token = f"cf_{name}-minted-0123456789"
        await self.store.add_app(AppRow(name, tuple(ip_cidrs), 1000), hash_token(token))
        return token

    async def revoke(self, name: AppName) -> None:
        await self._take(name)
        await self.store.revoke_app(name)

    def request_drain(self) -> None:
        self.start_drain()
        self.drain_requested.set()

    async def wait_drain_requested(self) -> None:
        await self.drain_requested.wait()

    async def stop_work(self) -> None:
        await trio.lowlevel.checkpoint()
        self.has_stopped = True

    def start_drain(self) -> None:
        self.is_draining = True
        self.on_drain()

    async def wait_idle(self) -> None:
        if not self.is_ever_idle:
            await trio.sleep_forever()
        if self.entered.is_set():
            await self.left.wait()

    async def _find(self, session_id: SessionId, app: AppName) -> SessionRow:
        row = await self.store.find_session(session_id, app)
        if row is None:
            raise SessionNotFound
        return row

    async def _take(self, request: object) -> None:
        self.asked.append(request)
        if self.fails_with is not None:
            raise self.fails_with
        await self.hold()

    async def hold(self) -> None:
        if self.holds:
            self.entered.set()
            try:
                await self.released.wait()
            except trio.Cancelled:
                self.was_cancelled = True
                raise
            finally:
                self.left.set()


@attrs.define
class FakeTicket:
    """A ticket to the service's ``result``."""

    service: FakeService
    is_left: bool = False

    @property
    def turn_index(self) -> int:
        return self.service.result.turn_index

    @property
    def is_over(self) -> bool:
        return True

    @property
    def events(self) -> EventSpan:
        return EventSpan()

    async def result(self) -> TurnResult:
        await self.service.hold()
        return self.service.result

    def leave(self) -> None:
        self.is_left = True


async def make_service(**fields: Any) -> FakeService:
    """A service with two apps and one session of the kitchen's."""
    service = FakeService(**fields)
    await service.store.add_app(AppRow(KITCHEN, (), 1), hash_token(TOKEN))
    await service.store.add_app(AppRow(GARAGE, (), 2), hash_token(OTHER_TOKEN))
    await service.store.add_session(session_row())
    return service


def bearer(token: str = TOKEN) -> dict[str, str]:
    """The header of an app."""
    return {"Authorization": f"Bearer {token}"}


@attrs.frozen
class Answered:
    """A response as it went to the server: everything but the date."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        return dict(self.headers).get(name.lower())


async def ask(
    edge: Edge,
    method: str,
    target: str,
    *,
    headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
    body: object = None,
    peer: str | None = "127.0.0.1",
    patience: float = 10,
) -> Answered:
    """One request in process: no socket, so that the peer may be anybody. The edge is real."""
    path, _, query = target.partition("?")
    pairs = list(headers.items()) if isinstance(headers, Mapping) else list(headers)
    raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    if body is not None:
        pairs.append(("Content-Length", str(len(raw))))
    sent: list[Any] = []
    todo: list[dict[str, Any]] = [{"type": "http.request", "body": raw, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if todo:
            return todo.pop()
        await trio.sleep_forever()
        raise AssertionError

    async def send(message: Any) -> None:
        await trio.lowlevel.checkpoint()
        sent.append(message)

    scope = {
        "type": "http",
        "http_version": "1.1",
        "asgi": {"version": "3.0", "spec_version": "2.1"},
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in pairs],
        "client": None if peer is None else (peer, 50000),
        "server": ("127.0.0.1", 8800),
        "extensions": {HANGUP: lambda _: None},
    }
    with trio.fail_after(patience):
        await edge(scope, receive, send)
    start, *rest = sent
    got = tuple(
        (name.decode().lower(), value.decode("latin-1")) for name, value in start["headers"]
    )
    return Answered(start["status"], got, b"".join(message.get("body", b"") for message in rest))


@attrs.frozen
class Site:
    """A served service: where it is, and the means to close it."""

    url: str
    service: FakeService
    edge: Edge
    close: trio.Event

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    async def connect(self) -> trio.SocketStream:
        """A bare connection."""
        return await trio.open_tcp_stream("127.0.0.1", self.port)


@asynccontextmanager
async def open_site(
    service: FakeService, *, edge: Edge | None = None, graceful_secs: float = 0.2
) -> AsyncIterator[Site]:
    """Serve on a free loopback port until the block ends; then the server must close in time."""
    edge = edge or make_edge(service)
    close = trio.Event()
    config = attrs.evolve(service.config, bind="127.0.0.1:0")
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            url = await nursery.start(
                partial(
                    serve_app,
                    edge,
                    config,
                    shutdown_trigger=close.wait,
                    graceful_secs=graceful_secs,
                )
            )
            try:
                yield Site(url, service, edge, close)
            finally:
                close.set()


def request_bytes(
    method: str, target: str, body: bytes = b"", *, token: str | None = TOKEN, extra: str = ""
) -> bytes:
    """An HTTP/1.1 request as it goes over the wire."""
    auth = f"Authorization: Bearer {token}\r\n" if token else ""
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\n{auth}{length}{extra}\r\n"
    return head.encode() + body


async def read_response(stream: trio.SocketStream) -> tuple[int, bytes]:
    """One response with a Content-Length: its status and body. Fails when the peer closes first."""
    buffer = bytearray()
    while b"\r\n\r\n" not in buffer:
        buffer += await _more(stream)
    head, _, body = bytes(buffer).partition(b"\r\n\r\n")
    length = next(
        int(line.partition(b":")[2])
        for line in head.lower().split(b"\r\n")
        if line.startswith(b"content-length:")
    )
    while len(body) < length:
        body += await _more(stream)
    return int(head.split(b" ")[1]), body


async def read_to_end(stream: trio.SocketStream) -> bytes:
    """Everything until the peer closes; a reset counts as closing."""
    buffer = bytearray()
    try:
        while chunk := await stream.receive_some(65536):
            buffer += chunk
    except trio.BrokenResourceError:
        pass
    return bytes(buffer)


async def _more(stream: trio.SocketStream) -> bytes:
    chunk = await stream.receive_some(65536)
    assert chunk, "the server closed the connection before its answer was whole"
    return bytes(chunk)
