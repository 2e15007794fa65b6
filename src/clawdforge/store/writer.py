"""The one thread that writes: group commit over a bounded mailbox.

Whoever writes hands over a plain function. The writer takes all that wait, runs them in one
transaction with a savepoint each, commits once and wakes everybody: with ``synchronous=FULL`` a
thousand writers at once cost a few waits for the disk instead of a thousand. It reads its mailbox
in the connection's own thread, so that a write is one way there and one way back.

The rules: an operation that raises is undone alone and its error reaches its caller alone; a
transaction that does not commit fails every caller in it, and leaves nothing; the writer outlives
both. Whoever was told "written" finds it written after any crash.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Final, Generic, TypeVar

import apsw
import attrs
import trio

from clawdforge.at_once import acquire
from clawdforge.errors import StoreUnavailable
from clawdforge.store.connections import run_here, run_on
from clawdforge.store.faults import FOREIGN, FileMoved, unavailable

Result = TypeVar("Result")

MAILBOX_WRITES: Final = 1024
"""Writes that may be in hand; further writers wait for room, within their own deadlines."""

BATCH_WRITES: Final = 512
"""The most operations in one transaction: keeps one commit, and so everybody's wait, short."""


@attrs.define(eq=False)
class Write(Generic[Result]):
    """One operation on its way through the writer, and its caller's place to wait."""

    operation: Callable[[apsw.Connection], Result]
    is_abandoned: bool = False
    _value: Result | None = None
    _error: Exception | None = None
    _done: trio.Event = attrs.field(factory=trio.Event)

    def run(self, db: apsw.Connection) -> None:
        """Run the operation and keep its result. Raises what it raises. In the worker thread."""
        self._value = self.operation(db)

    def attempt(self, db: apsw.Connection) -> None:
        """Run the operation in a savepoint, and keep its result or error. In the worker thread.

        Raises only when SQLite has given up the whole transaction (disk full, I/O error), or
        should have: nothing is committed to a file that is known to be damaged.
        """
        db.execute("SAVEPOINT operation")
        try:
            self.run(db)
        except Exception as error:
            if not db.in_transaction or isinstance(error, apsw.CorruptError):
                raise
            db.execute("ROLLBACK TO operation")
            self._error = error
        db.execute("RELEASE operation")

    def settle(self, error: Exception | None) -> None:
        """Let the caller have its result, or ``error`` when the transaction is not committed."""
        self._error = error or self._error
        self._done.set()

    async def wait(self) -> Result:
        """The result. Bounded by the writer, which answers every write it has taken or refused.

        A caller that is cancelled leaves: its operation is skipped if it has not begun.
        """
        try:
            await self._done.wait()
        finally:
            self.is_abandoned = not self._done.is_set()
        if isinstance(self._error, FOREIGN):
            raise unavailable(self._error) from self._error
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]  # set by attempt(), or there is an error


class Writer:
    """Owns the writing connection's transactions. ``run`` is the only reader of the mailbox."""

    def __init__(self, db: apsw.AsyncConnection) -> None:
        self._db = db
        self._room = trio.Semaphore(MAILBOX_WRITES)
        self._mail: SimpleQueue[Write[Any] | None] = SimpleQueue()  # ``_room`` bounds it
        self._is_closed = False

    async def write(self, operation: Callable[[apsw.Connection], Result]) -> Result:
        """Run ``operation`` in the writer's next transaction; returns when that is on the disk.

        Raises what the operation raises, and StoreUnavailable. Cancelled never means "not written".
        """
        write = Write(operation)
        await acquire(self._room)
        if self._is_closed:
            self._room.release()
            raise StoreUnavailable("the ledger is closed")
        self._mail.put(write)
        return await write.wait()

    def close(self) -> None:
        """Take nothing new; ``run`` returns when what was taken is written. Idempotent."""
        if not self._is_closed:
            self._is_closed = True
            self._mail.put(None)

    async def run(self) -> None:
        """Write until ``close``. Shielded: it must outlive everybody who still has to write."""
        token = trio.lowlevel.current_trio_token()

        def settle(writes: Sequence[Write[Any]], error: Exception | None) -> None:
            token.run_sync_soon(self._settle, writes, error)

        with trio.CancelScope(shield=True):
            try:
                await run_on(self._db, lambda db: self._work(db, settle))
            finally:
                self._is_closed = True
                self._settle(self._queued(MAILBOX_WRITES), StoreUnavailable("the ledger is closed"))

    def _settle(self, writes: Sequence[Write[Any]], error: Exception | None) -> None:
        """Wake the callers, in Trio's thread."""
        for write in writes:
            write.settle(error)
            self._room.release()

    def _work(
        self,
        db: apsw.Connection,
        settle: Callable[[Sequence[Write[Any]], Exception | None], None],
    ) -> None:
        """Write until the end of the mail. In the connection's thread."""
        # Unbounded: having nothing to write is a writer's ordinary state, and ``close`` ends it.
        while (first := self._mail.get()) is not None:
            writes = [first, *self._queued(BATCH_WRITES - 1)]
            error: Exception | None = StoreUnavailable("the writer failed")
            try:
                wanted = [write for write in writes if not write.is_abandoned]
                run_here(partial(commit_together, writes=wanted), db)
                error = None
            except FOREIGN as refusal:
                error = refusal
            finally:
                settle(writes, error)

    def _queued(self, limit: int) -> list[Write[Any]]:
        """What lies in the mailbox, at most ``limit``."""
        writes: list[Write[Any]] = []
        while len(writes) < limit:
            try:
                write = self._mail.get_nowait()
            except Empty:
                break
            if write is None:  # the end, and nothing comes behind it
                self._mail.put(None)
                break
            writes.append(write)
        return writes


def commit_together(db: apsw.Connection, writes: Sequence[Write[Any]]) -> None:
    """All operations in one transaction. Raises one of ``FOREIGN`` when it is not committed.

    As a rule none of them raises, and none needs a savepoint. When one does, all are run again,
    each in its own.
    """
    if not writes:
        return
    _roll_back(db)  # what a rollback that failed itself has left behind
    try:
        db.execute("BEGIN IMMEDIATE")
        try:
            for write in writes:
                write.run(db)
        except Exception:  # noqa: BLE001 - whatever it was, it comes up again
            _roll_back(db)
            db.execute("BEGIN IMMEDIATE")
            for write in writes:
                write.attempt(db)
        _insist_on_place(db)
        db.execute("COMMIT")
    except BaseException:
        _roll_back(db)
        raise


def _insist_on_place(db: apsw.Connection) -> None:
    """Raise FileMoved when the file's path leads elsewhere: SQLite asks stat(2)."""
    moved = ctypes.c_int()
    db.file_control("main", apsw.SQLITE_FCNTL_HAS_MOVED, ctypes.addressof(moved))
    if moved.value:
        raise FileMoved


def _roll_back(db: apsw.Connection) -> None:
    if db.in_transaction:
        db.execute("ROLLBACK")
