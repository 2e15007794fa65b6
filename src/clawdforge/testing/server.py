"""``running_server``: the real app on a loopback port, for synchronous callers and any HTTP client.

It runs inside somebody else's process and not on its main thread, so it installs no signal handler,
subreaper, limit or dumpable flag. Agents are fake by default: nothing needs a network or a model.
"""

from __future__ import annotations

import queue
import secrets
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import outcome
import trio

from clawdforge.app import open_service
from clawdforge.config import Config
from clawdforge.domain.ids import AppName
from clawdforge.domain.ports import Launcher
from clawdforge.domain.runs import Runner
from clawdforge.server import serve_app
from clawdforge.service import LiveService
from clawdforge.testing.fake_launcher import FakeLauncher
from clawdforge.testing.fake_runner import FakeRunner
from clawdforge.web.app import make_edge

START_SECS: Final = 60.0
"""How long the server may take to come up; it takes well under a second."""

STOP_SECS: Final = 60.0
"""How long it may take to go: a turn's grace, its kill and its ledger are far below."""


@attrs.frozen
class _Ready:
    base_url: str
    service: LiveService
    token: trio.lowlevel.TrioToken
    stop: trio.Event


class RunningServer:
    """A server that runs: where it is, and what a test may do to it from any thread."""

    def __init__(self, config: Config, launcher: Launcher, ready: _Ready) -> None:
        assert config.admin_token is not None
        self.base_url: Final = ready.base_url
        self.admin_token: Final = config.admin_token
        self.config: Final = config
        self.database_path: Final = config.database_path
        self.launcher: Final = launcher
        self._service = ready.service
        self._token = ready.token

    def mint(self, name: str, ip_cidrs: Sequence[str] | None = None) -> str:
        """Mint a token. Raises AppNameTaken."""
        return trio.from_thread.run(
            self._service.mint, AppName(name), ip_cidrs or (), trio_token=self._token
        )

    def sweep_once(self) -> dict[str, int]:
        """Sweep now: ``soft_closed`` and ``hard_deleted`` say what was done."""
        counts = trio.from_thread.run(self._service.sweep_once, trio_token=self._token)
        return attrs.asdict(counts)

    @property
    def max_live_sessions(self) -> int:
        """The pool's cap; the next request obeys a new one."""
        return self._service.max_live_sessions

    @max_live_sessions.setter
    def max_live_sessions(self, limit: int) -> None:
        self._service.max_live_sessions = limit


@contextmanager
def running_server(
    config: Config | None = None,
    *,
    launcher: Launcher | None = None,
    runner: Runner | None = None,
) -> Iterator[RunningServer]:
    """Serve around the body, on a free loopback port with a temporary data directory.

    Of ``config`` all is taken but ``bind`` and ``data_dir``; an admin token is made when it has
    none. ``launcher`` is a FakeLauncher by default, ``runner`` (anything with ``async run(**fields)
    -> RunResult``) a FakeRunner. What the server failed with is raised at the
    end of the body.
    """
    launcher = launcher or FakeLauncher()
    runner = runner or FakeRunner()
    with tempfile.TemporaryDirectory(prefix="clawdforge-test-") as folder:
        config = attrs.evolve(
            config or Config(),
            bind="127.0.0.1:0",
            data_dir=Path(folder) / "data",
            admin_token=(config and config.admin_token) or secrets.token_urlsafe(24),
        )
        answers: queue.SimpleQueue[_Ready | None] = queue.SimpleQueue()
        ends: list[outcome.Outcome[None]] = []

        def run() -> None:
            ends.append(outcome.capture(trio.run, _serve, config, launcher, runner, answers))
            answers.put(None)

        thread = threading.Thread(target=run, name="clawdforge", daemon=True)
        thread.start()
        ready = answers.get(timeout=START_SECS)
        if ready is None:
            ends[0].unwrap()
            raise RuntimeError("the server ended before it was ready")
        try:
            yield RunningServer(config, launcher, ready)
        finally:
            if not ends:
                trio.from_thread.run_sync(ready.stop.set, trio_token=ready.token)
            thread.join(STOP_SECS)
        if not ends:
            raise RuntimeError("the server did not stop")
        ends[0].unwrap()


async def _serve(
    config: Config,
    launcher: Launcher,
    runner: Runner,
    answers: queue.SimpleQueue[_Ready | None],
) -> None:
    stop = trio.Event()
    async with (
        open_service(config, launcher=launcher, runner=runner) as service,
        trio.open_nursery() as nursery,
    ):
        edge = make_edge(service)
        url: str = await nursery.start(
            partial(serve_app, edge, config, shutdown_trigger=stop.wait, graceful_secs=0)
        )
        answers.put(_Ready(url, service, trio.lowlevel.current_trio_token(), stop))
        await stop.wait()
        service.start_drain()
        edge.cancel_requests()
        edge.call_off_streams()
