"""The one task that writes: group commit over a bounded mailbox.

Whoever writes hands over a plain function. The writer takes all that wait, runs them in one
transaction with a savepoint each, commits once and wakes everybody: with ``synchronous=FULL`` a
thousand writers at once cost a few waits for the disk instead of a thousand.

The rules: an operation that raises is undone alone and its error reaches its caller alone; a
transaction that does not commit fails every caller in it, and leaves nothing; the writer outlives
both. Whoever was told "written" finds it written after any crash.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, TypeVar

import apsw
import attrs
import trio

from clawdforge.at_once import give
from clawdforge.errors import StoreUnavailable
from clawdforge.store.connections import run_on
from clawdforge.store.faults import FOREIGN, FileMoved, unavailable

Result = TypeVar("Result")

MAILBOX_WRITES: Final = 1024
"""Writes that may lie in the mailbox; further writers wait for room, within their own deadlines."""

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

    def attempt(self, db: apsw.Connection) -> None:
        """Run the operation in a savepoint, and keep its result or error. In the worker thread.

        Raises only when SQLite has given up the whole transaction (disk full, I/O error), or
        should have: nothing is committed to a file that is known to be damaged.
        """
        db.execute("SAVEPOINT operation")
        try:
            self._value = self.operation(db)
        except Exception as error:
            if not db.in_transaction or isinstance(error, apsw.CorruptError):
                raise
            db.execute("ROLLBACK TO operation")
            self._error = error
        db.execute("RELEASE operation")

    def wake(self) -> None:
        """Let the caller have its result: the transaction is committed."""
        self._done.set()

    def fail(self, error: Exception) -> None:
        """Let the caller have ``error`` instead: the transaction is not committed."""
        self._error = error
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
        self._send, self._receive = trio.open_memory_channel[Write[Any]](MAILBOX_WRITES)

    async def write(self, operation: Callable[[apsw.Connection], Result]) -> Result:
        """Run ``operation`` in the writer's next transaction; returns when that is on the disk.

        Raises what the operation raises, and StoreUnavailable. Cancelled never means "not written".
        """
        write = Write(operation)
        try:
            await give(self._send, write)
        except (trio.ClosedResourceError, trio.BrokenResourceError):
            raise StoreUnavailable("the ledger is closed") from None
        return await write.wait()

    def close(self) -> None:
        """Take nothing new; ``run`` returns when what was taken is written."""
        self._send.close()

    async def run(self) -> None:
        """Write until ``close``. Shielded: it must outlive everybody who still has to write."""
        with trio.CancelScope(shield=True), self._receive:
            try:
                async for first in self._receive:
                    await self._commit([first, *self._queued(BATCH_WRITES - 1)])
            finally:
                for write in self._queued(MAILBOX_WRITES):
                    write.fail(StoreUnavailable("the ledger is closed"))

    def _queued(self, limit: int) -> list[Write[Any]]:
        """What lies in the mailbox, at most ``limit``."""
        writes: list[Write[Any]] = []
        while len(writes) < limit:
            try:
                writes.append(self._receive.receive_nowait())
            except (trio.WouldBlock, trio.EndOfChannel):
                break
        return writes

    async def _commit(self, writes: list[Write[Any]]) -> None:
        """One transaction for all of ``writes`` whose callers are still there."""
        wanted = [write for write in writes if not write.is_abandoned]
        if not wanted:
            return
        token = trio.lowlevel.current_trio_token()

        def commit(db: apsw.Connection) -> None:
            commit_together(db, wanted)
            token.run_sync_soon(wake_all, wanted)  # they need not wait until this task has its turn

        try:
            await run_on(self._db, commit)
        except FOREIGN as error:
            for write in wanted:
                write.fail(error)
        except BaseException:
            for write in wanted:
                write.fail(StoreUnavailable("the writer failed"))
            raise


def wake_all(writes: Sequence[Write[Any]]) -> None:
    """Let every caller have its result."""
    for write in writes:
        write.wake()


def commit_together(db: apsw.Connection, writes: Sequence[Write[Any]]) -> None:
    """All operations in one transaction. Raises one of ``FOREIGN`` when it is not committed."""
    _roll_back(db)  # what a rollback that failed itself has left behind
    try:
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
