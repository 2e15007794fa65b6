"""The stage of the actor tests: the real tree over the fake launcher and the ledger in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import attrs
import pytest
import trio
import trio.testing

from clawdforge.actors.context import SessionContext
from clawdforge.actors.feed import Feeds
from clawdforge.actors.starts import Starts
from clawdforge.actors.tree import Tree, open_tree
from clawdforge.config import DEMO, Config
from clawdforge.domain.ids import AppName, SessionId
from clawdforge.domain.ports import AuditRow, SessionRow, TurnEnd
from clawdforge.domain.turns import TurnResult
from clawdforge.service import LiveService
from clawdforge.store.files import DiskShelf
from clawdforge.store.memory import MemoryStore
from clawdforge.testing.fake_launcher import FakeLauncher
from clawdforge.testing.fake_runner import FakeRunner
from clawdforge.web.service import NewSession, NewTurn, TurnTicket, Versions

Result = TypeVar("Result")

APP = AppName("kitchen")


@attrs.define
class WallClock:
    """Unix seconds that a test sets; sessions live by these, scopes by Trio's clock."""

    seconds: int = 1_000_000

    def now(self) -> int:
        return self.seconds


class Asked:
    """A request running in the background: its answer or error, and the means to hang up."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.done = trio.Event()
        self.answer: Any = None
        self.error: Exception | None = None

    async def run(self, ask: Callable[[], Awaitable[Any]]) -> None:
        with self.scope:
            try:
                self.answer = await ask()
            except Exception as error:  # noqa: BLE001 - kept for the test to look at
                self.error = error
        self.done.set()

    def hang_up(self) -> None:
        self.scope.cancel()


@attrs.define(eq=False)
class Stage:
    """What a test holds: the service, and what it stands on."""

    service: LiveService
    tree: Tree
    launcher: FakeLauncher
    runner: FakeRunner
    store: MemoryStore
    wall: WallClock
    feeds: Feeds
    _nursery: trio.Nursery

    async def open(self, app: AppName = APP, **fields: Any) -> SessionId:
        row = await self.service.create_session(NewSession(app=app, agent=DEMO, **fields))
        return row.session_id

    async def turn(
        self, session: SessionId, prompt: str, *, within: float = 600, **fields: Any
    ) -> TurnResult:
        return await self.service.run_turn(
            session, APP, NewTurn(prompt=prompt, timeout_secs=within, **fields)
        )

    async def start(
        self, session: SessionId, prompt: str, *, within: float = 600, **fields: Any
    ) -> TurnTicket:
        """A turn admitted; the test holds its ticket."""
        return await self.service.start_turn(
            session, APP, NewTurn(prompt=prompt, timeout_secs=within, **fields)
        )

    def ask(self, ask: Callable[[], Awaitable[Any]]) -> Asked:
        asked = Asked()
        self._nursery.start_soon(asked.run, ask)
        return asked

    async def ask_turn(
        self, session: SessionId, prompt: str, *, within: float = 600, **fields: Any
    ) -> Asked:
        """Start a turn in the background and let everything come to rest."""
        asked = self.ask(lambda: self.turn(session, prompt, within=within, **fields))
        await trio.testing.wait_all_tasks_blocked()
        return asked

    def row(self, session: SessionId) -> SessionRow:
        return self.store.sessions[session]

    def ends(self, session: SessionId) -> list[TurnEnd | None]:
        return [turn.end for _, turn in sorted(self.store.turns.get(session, {}).items())]

    def audit(self, session: SessionId) -> list[tuple[str, object]]:
        return [
            (row.event, row.meta.get("cause"))
            for row in self.store.audit
            if row.session_id == session and row.event != "turn"
        ]

    def audit_rows(self) -> list[AuditRow]:
        return self.store.audit


OpenStage = Callable[..., Any]


async def run_in_place(function: Callable[..., Result], /, *args: object) -> Result:
    """A virtual clock allows no threads."""
    await trio.lowlevel.checkpoint()
    return function(*args)


@pytest.fixture
def open_stage(tmp_path: Path) -> OpenStage:
    """Opens a stage. Its modules run in virtual time."""
    return stage_in(tmp_path)


def stage_in(folder: Path) -> OpenStage:
    """Opens stages whose uploaded files are in ``folder``."""

    @asynccontextmanager
    async def opening(
        *, can_resume: bool = True, starts: Starts | None = None, **settings: Any
    ) -> AsyncIterator[Stage]:
        config = Config(**{"turn_queue": 2, "max_live_sessions": 3, **settings})
        store, launcher, wall = MemoryStore(), FakeLauncher(can_resume=can_resume), WallClock()
        runner = FakeRunner()
        shelf = DiskShelf(
            store=store,
            folder=folder / "files",
            max_bytes=1000,
            now=wall.now,
            run_sync=run_in_place,
        )
        context = SessionContext(
            config, store, launcher, wall.now, shelf, starts=starts or Starts(config)
        )
        async with trio.open_nursery() as nursery:
            async with open_tree(context, runner) as tree:
                service = LiveService(context, tree, Versions)
                await service.mint(APP, ())
                yield Stage(service, tree, launcher, runner, store, wall, context.feeds, nursery)
            nursery.cancel_scope.cancel()
        assert launcher.live == 0, "an agent outlived the tree"

    return opening
