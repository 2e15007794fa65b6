"""The composition root: every part of the program is made and handed its others here.

Read ``open_service`` from top to bottom: the order of its lines is the order of life, and its
reverse the order of death. Nothing here decides anything.
"""

from __future__ import annotations

import fcntl
import hashlib
import math
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import structlog
import trio

from clawdforge.actors.context import SessionContext
from clawdforge.actors.starts import Starts
from clawdforge.actors.tree import open_tree
from clawdforge.config import Config
from clawdforge.domain.ports import Launcher, Store
from clawdforge.domain.runs import Runner
from clawdforge.errors import DataDirectoryBusy, RuntimeNotInstalled, WrongConfiguration
from clawdforge.fitting import claim_process
from clawdforge.processes.claude import CommandRunner
from clawdforge.processes.launcher import AgentLauncher
from clawdforge.processes.leftovers import sweep_leftovers
from clawdforge.processes.lodging import Lodging
from clawdforge.processes.marks import Incarnation
from clawdforge.processes.memory import spare_memory
from clawdforge.processes.orphans import remove_orphans
from clawdforge.processes.runtime import ensure_runtime, find_runtime
from clawdforge.service import LiveService
from clawdforge.store.files import DiskShelf
from clawdforge.store.sqlite import open_sqlite_store
from clawdforge.web.service import Versions

log: Final = structlog.get_logger("clawdforge.app")


@asynccontextmanager
async def open_service(
    config: Config,
    *,
    launcher: Launcher | None = None,
    runner: Runner | None = None,
    now: Callable[[], int] = lambda: int(time.time()),
) -> AsyncIterator[LiveService]:
    """Run the program around the body, all but HTTP.

    ``launcher`` takes the place of acpx, ``runner`` that of the one-shot command, for tests. Raises
    DataDirectoryBusy when another service holds the data directory, StoreUnavailable when the
    ledger does not open.
    """
    with hold_data_dir(config.data_dir):
        incarnation = new_incarnation(config.data_dir)
        starts = Starts(config)
        if launcher is None:
            config = claim_process(config)
            starts = Starts(config, spare_memory)
            launcher = await make_launcher(config, incarnation)
        runner = runner or await make_runner(config, incarnation)
        async with open_sqlite_store(config.database_path) as store:
            await settle_ledger(store, launcher, now())
            await clear_orphans(store, config.data_dir)
            files = DiskShelf(
                store=store,
                folder=config.data_dir / "files",
                max_bytes=config.max_upload_bytes,
                now=now,
            )
            context = SessionContext(config, store, launcher, now, files, starts=starts)
            async with open_tree(context, runner) as tree:
                yield LiveService(context, tree, VersionProbe(config.runtime_dir))


@contextmanager
def hold_data_dir(data_dir: Path) -> Iterator[None]:
    """Hold the data directory for this process alone. Raises DataDirectoryBusy."""
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise WrongConfiguration(
            "CLAWDFORGE_DATA_DIR", f"cannot be used: {error.strerror}"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise DataDirectoryBusy from None
    else:
        yield
    finally:
        os.close(lock)


async def make_launcher(config: Config, incarnation: Incarnation) -> Launcher:
    """Clear what an earlier life left, see that acpx is there."""
    cleared = await trio.to_thread.run_sync(sweep_leftovers, incarnation)
    if cleared.killed_count:
        log.warning("leftovers of an earlier life killed", count=cleared.killed_count)
    await trio.to_thread.run_sync(install_acpx, config.runtime_dir, abandon_on_cancel=True)
    lodging = Lodging(
        data_dir=config.data_dir,
        runtime_dir=config.runtime_dir,
        incarnation=incarnation,
        environment=os.environ,
    )
    return AgentLauncher(lodging)


async def make_runner(config: Config, incarnation: Incarnation) -> Runner:
    """The one-shot command of the chosen profile; what an earlier life left of runs is cleared."""
    runner = CommandRunner(
        profile=config.agents[config.run_agent],
        data_dir=config.data_dir.absolute(),
        runtime_dir=config.runtime_dir.absolute(),
        incarnation=incarnation,
        environment=os.environ,
    )
    await trio.to_thread.run_sync(runner.clear)
    return runner


def new_incarnation(data_dir: Path) -> Incarnation:
    """A name for this life on this directory; the directory's own name is a hash of its path."""
    digest = hashlib.sha256(str(data_dir.resolve()).encode()).hexdigest()[:16]
    return Incarnation(digest, secrets.token_hex(8))


def install_acpx(runtime_dir: Path) -> None:
    """Install acpx if it is missing. Without it we serve anyway, not ready, and say so."""
    try:
        ensure_runtime(runtime_dir, "acpx", lambda line: log.info("setup", says=line))
    except RuntimeNotInstalled as error:
        log.warning("acpx is not there", reason=error.reason, remedy=error.remedy)


async def settle_ledger(store: Store, launcher: Launcher, now: int) -> None:
    """Give every turn that a crash left open its ending, and close what cannot be taken up."""
    interrupted = await store.interrupt_turns(at=now)
    if interrupted:
        log.warning("turns of an earlier life interrupted", count=interrupted)
    await store.interrupt_runs(at=now)
    for row in await store.list_all_sessions():
        if row.closed_at is None and not row.can_resume:
            await store.close_session(row.session_id, event="close", cause="not_resumable", at=now)
            await launcher.discard(row.session_id)


async def clear_orphans(store: Store, data_dir: Path) -> None:
    """Remove the directories of sessions that are closed, or of which there is no row."""
    keep = {row.session_id for row in await store.list_all_sessions() if row.closed_at is None}
    count = await trio.to_thread.run_sync(remove_orphans, data_dir / "sessions", keep)
    if count:
        log.warning("directories of sessions that are no more removed", count=count)


LOOK_AGAIN_SECS: Final = 10.0
"""What is not installed is looked for again after so long, so that ``setup`` shows in a running
service: looking is a fifth of a millisecond, as much as all else that a trivial request costs."""


class VersionProbe:
    """What is installed, as our lock files pin it. What was found once is not looked for again."""

    def __init__(self, runtime_dir: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._runtime_dir = runtime_dir
        self._clock = clock
        self._found = Versions()
        self._look_at = -math.inf

    def __call__(self) -> Versions:
        """No program is run. Looks at the disk once, and now and then while a part is missing."""
        is_all_there = self._found.acpx_present and self._found.claude_present
        if not is_all_there and self._clock() >= self._look_at:
            self._look_at = self._clock() + LOOK_AGAIN_SECS
            self._found = self._look()
        return self._found

    def _look(self) -> Versions:
        acpx = find_runtime(self._runtime_dir, "acpx")
        claude = find_runtime(self._runtime_dir, "claude")
        return Versions(
            acpx_present=acpx is not None,
            acpx_version=acpx.packages["acpx"] if acpx else None,
            claude_present=claude is not None,
            claude_version=claude.packages["@anthropic-ai/claude-code"] if claude else None,
        )
