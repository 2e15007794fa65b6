"""The one thread that writes: group commit over a bounded mailbox.

Whoever writes hands over a plain function. The writer takes all that wait, runs them in one
transaction with a savepoint each, commits once and wakes everybody: with ``synchronous=FULL`` a
thousand writers at once cost a few waits for the disk instead of a thousand. A batch goes to the
connection's own thread and comes back, with no task in between.

Who writes alone waits for nobody. Where several write, a batch is handed over when all have had
their turn: each transaction costs both threads several waits for Python's lock, so that a few large
ones cost a fifth less processor than many small ones, and less time.

The rules: an operation that raises is undone alone and its error reaches its caller alone; a
transaction that does not commit fails every caller in it, and leaves nothing; the writer outlives
both. Whoever was told "written" finds it written after any crash. Everybody is told something
within ``ANSWER_SECS``, also by a disk that hangs.
"""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from queue import SimpleQueue
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

ANSWER_SECS: Final = 15.0
"""The longest that a write is waited for. One watch for all: a deadline each costs a turn of an
agent a twentieth of its processor time."""

WATCHES: Final = 3
"""So often the watch looks in ``ANSWER_SECS``: a write that it finds for the third time is late."""

GATHER_SECS: Final = 0.025
"""The longest that a batch is kept back for company that keeps coming."""

QUIET_TURNS: Final = 6
"""So many turns of the loop without a new write, and all have had theirs. Measured: fewer are small
transactions, more are of no use, and on an idle machine six are a tenth of a millisecond."""


@attrs.define(eq=False)
class Write(Generic[Result]):
    """One operation on its way through the writer, and its caller's place to wait."""

    operation: Callable[[apsw.Connection], Result]
    is_abandoned: bool = False
    times_seen: int = 0
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

    def give_up(self) -> None:
        """It takes too long: its caller is told, and it is skipped if it has not begun."""
        if not self._done.is_set():
            self.is_abandoned = True
            self.settle(StoreUnavailable("the ledger did not answer in time"))

    async def wait(self) -> Result:
        """The result. Bounded by the writer, which answers every write it has taken or refused.

        A caller that is cancelled leaves: its operation is skipped if it has not begun.
        """
        try:
            await self._done.wait()
        except trio.Cancelled:
            self.is_abandoned = not self._done.is_set()
            raise
        if isinstance(self._error, FOREIGN):
            raise unavailable(self._error) from self._error
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]  # set by attempt(), or there is an error


class Writer:
    """Owns the writing connection's transactions: one batch at a time is in its thread."""

    def __init__(self, db: apsw.AsyncConnection) -> None:
        self._db = db
        self._room = trio.Semaphore(MAILBOX_WRITES)
        self._waiting: deque[Write[Any]] = deque()  # ``_room`` bounds it
        self._batches: SimpleQueue[Sequence[Write[Any]] | None] = SimpleQueue()  # one at a time
        self._in_thread: Sequence[Write[Any]] = ()
        self._company = trio.Event()
        self._is_crowded = self._is_closed = False

    async def write(self, operation: Callable[[apsw.Connection], Result]) -> Result:
        """Run ``operation`` in the writer's next transaction; returns when that is on the disk.

        Raises what the operation raises, and StoreUnavailable, by the time that ANSWER_SECS says
        (twice that where it has to wait for room first). Neither that nor Cancelled means "not
        written".
        """
        write = Write(operation)
        if self._room.value > 0:
            await acquire(self._room)
        else:
            await self._wait_for_room()
        if self._is_closed:
            self._room.release()
            raise StoreUnavailable("the ledger is closed")
        self._waiting.append(write)
        if self._in_thread:
            pass  # it goes with the next batch
        elif self._is_crowded:
            self._company.set()
        else:
            self._hand_over()
        return await write.wait()

    async def _wait_for_room(self) -> None:
        with trio.move_on_after(ANSWER_SECS) as patience:
            await self._room.acquire()
        if patience.cancelled_caught:
            raise StoreUnavailable("the ledger is far behind")

    def close(self) -> None:
        """Take nothing new; ``run`` returns when what was taken is written. Idempotent."""
        if not self._is_closed:
            self._is_closed = True
            if not self._in_thread:
                self._hand_over()

    async def run(self) -> None:
        """Write until ``close``. Shielded: it must outlive everybody who still has to write."""
        token = trio.lowlevel.current_trio_token()

        def settle(writes: Sequence[Write[Any]], error: Exception | None) -> None:
            token.run_sync_soon(self._take_back, writes, error)

        with trio.CancelScope(shield=True):
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._gather)
                    nursery.start_soon(self._watch)
                    await run_on(self._db, lambda db: self._work(db, settle))
                    nursery.cancel_scope.cancel()
            finally:
                self._is_closed = True
                self._batches.put(None)
                left, self._waiting = tuple(self._waiting), deque()
                self._settle(left, StoreUnavailable("the ledger is closed"))

    async def _gather(self) -> None:
        """Where several write, hand over what they have when they have all had their turn."""
        while True:  # until cancelled
            await self._company.wait()
            await self._all_have_had_their_turn()
            self._company = trio.Event()
            if not self._in_thread:
                self._hand_over()

    async def _watch(self) -> None:
        """Answer those who have waited long enough."""
        while True:  # until cancelled
            await trio.sleep(ANSWER_SECS / WATCHES)
            for write in (*self._in_thread, *self._waiting):
                write.times_seen += 1
                if write.times_seen >= WATCHES:
                    write.give_up()

    async def _all_have_had_their_turn(self) -> None:
        """Return when nobody has come for ``QUIET_TURNS`` turns of the loop, or enough have."""
        seen = quiet = 0
        until = trio.current_time() + GATHER_SECS
        while quiet < QUIET_TURNS and len(self._waiting) < BATCH_WRITES:
            if trio.current_time() > until:
                return
            await trio.lowlevel.checkpoint()
            quiet = quiet + 1 if len(self._waiting) == seen else 0
            seen = len(self._waiting)

    def _hand_over(self) -> None:
        """Give the connection's thread what waits; the end, when nothing does and none will."""
        count = min(len(self._waiting), BATCH_WRITES)
        if count > 0:
            self._in_thread = [self._waiting.popleft() for _ in range(count)]
            self._batches.put(self._in_thread)
        elif self._is_closed:
            self._batches.put(None)

    def _take_back(self, writes: Sequence[Write[Any]], error: Exception | None) -> None:
        """What the thread has written, or failed to."""
        self._settle(writes, error)
        self._in_thread = ()
        self._is_crowded = len(writes) > 1 or bool(self._waiting)
        if self._is_closed:
            self._hand_over()
        elif self._waiting:
            self._company.set()

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
        """Write until the end of the batches. In the connection's thread."""
        # Unbounded: having nothing to write is a writer's ordinary state, and ``close`` ends it.
        while (writes := self._batches.get()) is not None:
            error: Exception | None = StoreUnavailable("the writer failed")
            try:
                wanted = [write for write in writes if not write.is_abandoned]
                run_here(partial(commit_together, writes=wanted), db)
                error = None
            except FOREIGN as refusal:
                error = refusal
            finally:
                settle(writes, error)


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
