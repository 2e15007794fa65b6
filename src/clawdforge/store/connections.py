"""Opening the database file: one connection that writes, two that read, each with its own thread.

And one that glances: for look-ups of one row by its key, in the thread of whoever asks.

The rules of apsw on Trio are kept here so that nobody else needs to know them: work goes to a
connection as one plain function, never as ``async with db`` (a cancel would leave its transaction
open); opening and closing are shielded (a worker thread that is forgotten keeps the process alive).
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Final, TypeVar, cast

import apsw
import apsw.aio
import attrs
import trio

from clawdforge.errors import StoreUnavailable
from clawdforge.store.faults import unavailable
from clawdforge.store.guard import Guard
from clawdforge.store.migrations import migrate

Result = TypeVar("Result")

READERS: Final = 2

LOG_PAGES: Final = 4000
"""How long the write-ahead log gets before it is worked into the database: pages of 4 KiB, 16 MB.

With SQLite's own 1000 a turn cost a twelfth more processor (sixteen clients): the same pages are
written again four times as often. Three times as many cost the same as these.
"""


@attrs.frozen
class Connections:
    """The open database. Nobody but :mod:`.writer` uses ``writer``.

    ``glancing`` waits for no lock: it is asked in Trio's own thread.
    """

    writer: apsw.AsyncConnection
    readers: tuple[apsw.AsyncConnection, ...]
    glancing: apsw.Connection


async def run_on(db: apsw.AsyncConnection, function: Callable[[apsw.Connection], Result]) -> Result:
    """Run ``function`` in the connection's thread, where the connection is an ordinary one.

    Cancelling leaves at once and interrupts a statement that runs. The caller's deadline is kept
    from apsw, which would raise TooSlowError inside ``function`` on its own account.
    """
    with _no_deadline():
        return cast("Result", await db.async_run(run_here, function, db))


def run_here(function: Callable[[apsw.Connection], Result], db: apsw.Connection) -> Result:
    """Run ``function`` in this thread; pages that turned out to be damaged are not kept."""
    try:
        return function(db)
    except (apsw.CorruptError, apsw.NotADBError):
        db.release_memory()  # the page cache: else a file that was mended would stay broken for us
        raise


@contextmanager
def _no_deadline() -> Iterator[None]:
    token = apsw.aio.deadline.set(math.inf)
    try:
        yield
    finally:
        apsw.aio.deadline.reset(token)


@asynccontextmanager
async def open_connections(path: Path, *, busy_timeout_secs: float) -> AsyncIterator[Connections]:
    """Open the database, created (mode 0600) and migrated as needed.

    Raises StoreUnavailable. Opening is not cancellable; it is bounded by ``busy_timeout_secs`` for
    each of its few steps that another program can hold up.
    """
    busy_ms = round(busy_timeout_secs * 1000)
    async with AsyncExitStack() as stack:
        try:
            guard = stack.enter_context(closing(Guard(path)))
            writing = _connection(path, apsw.SQLITE_OPEN_READWRITE, partial(_prepare, busy_ms))
            writer = await stack.enter_async_context(writing)
            await _shielded(writer, _make_ready)
            readers = []
            for _ in range(READERS):
                reading = _connection(path, apsw.SQLITE_OPEN_READONLY, partial(_prepare, busy_ms))
                readers.append(await stack.enter_async_context(reading))
            glancing = apsw.Connection(str(path), apsw.SQLITE_OPEN_READONLY)
            stack.enter_context(closing(glancing))
            glancing.set_busy_timeout(0)
            stack.enter_context(guard.held())
        except (apsw.Error, OSError) as error:
            raise unavailable(error) from error
        yield Connections(writer, tuple(readers), glancing)


@asynccontextmanager
async def _connection(
    path: Path, flags: int, prepare: Callable[[apsw.Connection], None]
) -> AsyncIterator[apsw.AsyncConnection]:
    with trio.CancelScope(shield=True), _no_deadline():
        db = await apsw.Connection.as_async(str(path), flags)
    try:
        await _shielded(db, prepare)
        yield db
    finally:
        with trio.CancelScope(shield=True):
            await db.aclose()


async def _shielded(db: apsw.AsyncConnection, function: Callable[[apsw.Connection], None]) -> None:
    with trio.CancelScope(shield=True):
        await run_on(db, function)


def _prepare(busy_ms: int, db: apsw.Connection) -> None:
    """How long to wait for another program's lock (https://sqlite.org/c3ref/busy_timeout.html)."""
    db.set_busy_timeout(busy_ms)


def _make_ready(db: apsw.Connection) -> None:
    """Readers beside a writer (WAL), commits that survive a power cut (FULL), the newest schema."""
    if db.pragma("journal_mode", "wal") != "wal":
        raise StoreUnavailable("its file system does not allow a write-ahead log")
    db.pragma("synchronous", "full")
    db.pragma("wal_autocheckpoint", LOG_PAGES)
    migrate(db)
