"""Group commit: few commits, one fate for a batch, a fate of its own for each operation."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import apsw
import pytest
import trio
import trio.testing

from clawdforge.errors import SessionNotFound, StoreUnavailable
from clawdforge.store import writer as writing
from clawdforge.store.connections import READERS, open_connections, run_on
from clawdforge.store.sqlite import SqliteStore, open_sqlite_store
from clawdforge.store.writer import Write, Writer, commit_together

from .examples import LAB, from_outside, session, session_id, turn


@pytest.fixture
def commits() -> Iterator[list[None]]:
    """Grows by one with each commit of any connection opened after it."""
    seen: list[None] = []

    def hook() -> bool:
        seen.append(None)
        return False  # True would turn the commit into a rollback

    def count(db: apsw.Connection) -> None:
        db.set_commit_hook(hook)

    apsw.connection_hooks.append(count)
    yield seen
    apsw.connection_hooks.remove(count)


@asynccontextmanager
async def open_writer(database: Path) -> AsyncIterator[Writer]:
    """A writer at work on a database of its own."""
    async with open_connections(database, busy_timeout_secs=5) as connections:
        writer = Writer(connections.writer)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.run)
            try:
                yield writer
            finally:
                writer.close()  # or a test that fails would wait for ever


def note(number: int) -> Callable[[apsw.Connection], None]:
    """An operation that leaves a mark."""

    def operation(db: apsw.Connection) -> None:
        db.execute(
            "INSERT INTO session_events (session_id, event, at) VALUES (?, 'n', 0)", (number,)
        )

    return operation


def note_and_raise(number: int) -> Callable[[apsw.Connection], None]:
    """An operation that leaves a mark and then thinks better of it."""

    def operation(db: apsw.Connection) -> None:
        note(number)(db)
        raise SessionNotFound

    return operation


def noted(database: Path) -> set[int]:
    """The marks, as another process sees them; taking them needs the write lock."""
    ((*rows,),) = from_outside(database, "SELECT session_id FROM session_events WHERE event = 'n'")
    return {int(number) for (number,) in rows}


async def test_writers_at_once_share_commits(database: Path, commits: list[None]) -> None:
    """A thousand concurrent writes are a handful of commits, and all of them are there."""
    async with open_sqlite_store(database) as store:
        before = len(commits)
        async with trio.open_nursery() as nursery:
            for number in range(1000):
                nursery.start_soon(store.add_session, session(number))
        assert len(await store.list_all_sessions()) == 1000
        assert len(commits) - before <= 10


async def test_who_writes_alone_waits_for_nobody(database: Path) -> None:
    """Its write is at work before the loop has had another turn, however many there were."""
    async with open_writer(database) as writer:
        for number in range(5):
            begun = Event()

            def write(db: apsw.Connection, begun: Event = begun, number: int = number) -> None:
                begun.set()
                note(number)(db)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(writer.write, write)
                for _ in range(2):  # the turn in which it is started, and the one before
                    await trio.lowlevel.checkpoint()
                assert begun.wait(30)  # the loop stands still meanwhile
        assert noted(database) == set(range(5))


async def test_company_waits_for_each_other(
    database: Path, commits: list[None], mock_clock: trio.testing.MockClock
) -> None:
    """Where two write at once, those who come turn by turn of the loop share one commit as well."""
    async with open_writer(database) as writer:
        hold, is_held = Event(), trio.Event()
        token = trio.lowlevel.current_trio_token()

        def wait(_db: apsw.Connection) -> None:
            token.run_sync_soon(is_held.set)
            hold.wait(30)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.write, wait)
            await is_held.wait()
            nursery.start_soon(writer.write, note(1))
            nursery.start_soon(writer.write, note(2))
            await trio.testing.wait_all_tasks_blocked()
            hold.set()
        before = len(commits)
        async with trio.open_nursery() as nursery:
            for number in range(3, 20):
                nursery.start_soon(writer.write, note(number))
                await trio.lowlevel.checkpoint()
        assert len(commits) - before == 1
        assert noted(database) == set(range(1, 20))


async def test_company_that_keeps_coming_is_not_waited_for_for_ever(
    database: Path, commits: list[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However they come, turn by turn of the loop: a batch has an end in time."""
    monkeypatch.setattr(writing, "GATHER_SECS", -1)
    async with open_writer(database) as writer:
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(writer.write, note(number))
        before = len(commits)
        async with trio.open_nursery() as nursery:
            for number in range(10, 20):
                nursery.start_soon(writer.write, note(number))
                await trio.lowlevel.checkpoint()
        assert len(commits) - before > 1
        assert noted(database) == set(range(20))


async def test_a_write_that_has_returned_is_committed(
    sqlite_store: SqliteStore, database: Path
) -> None:
    """Another process sees it at once, and finds the write lock free."""
    await sqlite_store.add_session(session())
    assert from_outside(database, "SELECT session_id FROM sessions") == [[[session_id(1)]]]


async def test_one_error_leaves_its_neighbours_alone(database: Path, commits: list[None]) -> None:
    """In one transaction, what raised is undone and told so; the others are written."""
    async with open_writer(database) as writer:
        before = len(commits)
        errors: list[int] = []

        async def write(number: int) -> None:
            is_bad = number % 3 == 0
            try:
                await writer.write(note_and_raise(number) if is_bad else note(number))
            except SessionNotFound:
                errors.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(300):
                nursery.start_soon(write, number)
        assert len(commits) - before <= 4
        assert set(errors) == set(range(0, 300, 3))
        assert noted(database) == set(range(300)) - set(errors)


async def test_a_batch_that_cannot_commit_fails_everybody_in_it(database: Path) -> None:
    """Nobody is told "written", nothing is, and the next batch is none the worse."""
    veto = Event()
    veto_commit = lambda db: db.set_commit_hook(veto.is_set)  # noqa: E731 - the list wants functions
    apsw.connection_hooks.append(veto_commit)
    try:
        async with open_writer(database) as writer:
            veto.set()
            failed: list[int] = []

            async def write(number: int) -> None:
                with pytest.raises(StoreUnavailable):
                    await writer.write(note(number))
                failed.append(number)

            async with trio.open_nursery() as nursery:
                for number in range(50):
                    nursery.start_soon(write, number)
            veto.clear()
            assert len(failed) == 50
            await writer.write(note(99))
            assert noted(database) == {99}
    finally:
        apsw.connection_hooks.remove(veto_commit)


async def test_a_domain_error_in_a_batch_that_cannot_commit_is_no_answer(database: Path) -> None:
    """What an operation found out in a transaction that never was is not told to anybody."""
    async with open_writer(database) as writer:

        def lose_the_transaction(db: apsw.Connection) -> None:
            db.execute("ROLLBACK")
            raise apsw.FullError("as SQLite does when the disk is full")

        outcomes: list[str] = []

        async def write(operation: Callable[[apsw.Connection], None]) -> None:
            with pytest.raises(StoreUnavailable) as caught:
                await writer.write(operation)
            outcomes.append(caught.value.reason)

        hold, is_held = Event(), trio.Event()
        token = trio.lowlevel.current_trio_token()

        def wait(_db: apsw.Connection) -> None:
            token.run_sync_soon(is_held.set)
            hold.wait(30)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.write, wait)  # so that the next three are one batch
            await is_held.wait()
            for operation in (note(1), note_and_raise(2), lose_the_transaction):
                nursery.start_soon(write, operation)
            await trio.testing.wait_all_tasks_blocked()
            hold.set()
        assert outcomes == ["the disk is full"] * 3
        assert noted(database) == set()


async def test_nothing_is_committed_to_a_damaged_file(database: Path) -> None:
    """One operation that meets damage fails its whole batch."""

    def meet_damage(_db: apsw.Connection) -> None:
        raise apsw.CorruptError

    async with open_connections(database, busy_timeout_secs=5) as connections:
        batch = [Write(note(1)), Write(meet_damage)]
        with pytest.raises(apsw.CorruptError):
            await run_on(connections.writer, lambda db: commit_together(db, batch))
        assert noted(database) == set()


async def test_a_transaction_left_over_is_ended_first(database: Path) -> None:
    """What a rollback that failed left open neither stops the next batch nor gets into it."""

    def leave_open(db: apsw.Connection) -> None:
        db.execute("BEGIN IMMEDIATE")
        note(1)(db)

    async with open_connections(database, busy_timeout_secs=5) as connections:
        await run_on(connections.writer, leave_open)
        await run_on(connections.writer, lambda db: commit_together(db, [Write(note(2))]))
        assert noted(database) == {2}


async def test_an_operation_whose_caller_has_left_is_skipped(database: Path) -> None:
    """Left before its transaction began: not run at all."""
    async with open_writer(database) as writer:
        hold, is_held = Event(), trio.Event()
        token = trio.lowlevel.current_trio_token()

        def wait(_db: apsw.Connection) -> None:
            token.run_sync_soon(is_held.set)
            hold.wait(30)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.write, wait)
            await is_held.wait()
            async with trio.open_nursery() as leaving:
                leaving.start_soon(writer.write, note(1))
                await trio.testing.wait_all_tasks_blocked()
                leaving.cancel_scope.cancel()
            hold.set()
        assert noted(database) == set()


async def test_a_cancel_storm_loses_nothing_and_leaves_nothing_open(database: Path) -> None:
    """Thousands of writers, many cancelled: the acknowledged are there, the raised are not."""
    rng = random.Random(20)
    acknowledged: set[int] = set()
    refused: set[int] = set()
    cancelled: set[int] = set()

    async def write(number: int, scope: trio.CancelScope) -> None:
        with scope:
            try:
                await writer.write((note, note_and_raise)[number % 7 == 0](number))
                acknowledged.add(number)
            except SessionNotFound:
                refused.add(number)
        if scope.cancelled_caught:
            cancelled.add(number)

    async with open_writer(database) as writer:
        async with trio.open_nursery() as nursery:
            alive: list[trio.CancelScope] = []
            for number in range(4000):
                alive.append(trio.CancelScope())
                nursery.start_soon(write, number, alive[-1])
                if rng.random() < 0.1:
                    await trio.lowlevel.checkpoint()
                if rng.random() < 0.5:
                    alive.pop(rng.randrange(max(0, len(alive) - 200), len(alive))).cancel()
        in_file = noted(database)  # takes the write lock while the store is still open

    assert acknowledged | refused | cancelled == set(range(4000))
    assert min(len(acknowledged), len(refused), len(cancelled)) > 100
    assert acknowledged <= in_file
    assert not in_file & {number for number in range(4000) if number % 7 == 0}
    assert in_file <= acknowledged | cancelled


class Bug(BaseException):
    """What nobody expects of an operation."""


async def test_a_writer_that_fails_tells_everybody(database: Path) -> None:
    """Who is in its transaction and who is behind it; the failure itself comes out of ``run``."""
    hold, is_held = Event(), trio.Event()
    token = trio.lowlevel.current_trio_token()
    reasons: list[str] = []

    def fail(_db: apsw.Connection) -> None:
        token.run_sync_soon(is_held.set)
        hold.wait(30)
        raise Bug

    async def write(operation: Callable[[apsw.Connection], None]) -> None:
        with trio.CancelScope(shield=True), pytest.raises(StoreUnavailable) as caught:
            await writer.write(operation)
        reasons.append(caught.value.reason)

    with pytest.RaisesGroup(Bug, flatten_subgroups=True):
        async with open_connections(database, busy_timeout_secs=5) as connections:
            writer = Writer(connections.writer)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(writer.run)
                nursery.start_soon(write, fail)
                await is_held.wait()
                nursery.start_soon(write, note(1))
                await trio.testing.wait_all_tasks_blocked()
                hold.set()
    assert reasons == ["the writer failed", "the ledger is closed"]
    with pytest.raises(StoreUnavailable, match="closed"):
        await writer.write(note(2))
    assert noted(database) == set()


async def test_a_disk_that_hangs_is_not_waited_for_for_ever(
    database: Path, mock_clock: trio.testing.MockClock
) -> None:
    """All are told in time, and what had not begun never does; then the writer is as before."""
    async with open_writer(database) as writer:
        hold, is_held, told = Event(), trio.Event(), list[str]()
        token = trio.lowlevel.current_trio_token()

        def hang(_db: apsw.Connection) -> None:
            token.run_sync_soon(is_held.set)
            hold.wait(30)

        async def be_told(operation: Callable[[apsw.Connection], None]) -> None:
            with pytest.raises(StoreUnavailable, match="in time"):
                await writer.write(operation)
            told.append("too late")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(be_told, hang)
            await is_held.wait()
            nursery.start_soon(be_told, note(1))
            for _ in range(writing.WATCHES):
                assert told == []
                await trio.testing.wait_all_tasks_blocked()
                mock_clock.jump(writing.ANSWER_SECS / writing.WATCHES)
        assert len(told) == 2
        hold.set()
        await writer.write(note(2))
        assert noted(database) == {2}


async def test_room_is_not_waited_for_for_ever(
    database: Path, mock_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a disk that hangs, who finds no room is told so in time."""
    monkeypatch.setattr(writing, "MAILBOX_WRITES", 1)
    async with open_writer(database) as writer:
        hold, told = Event(), list[str]()

        async def be_told(operation: Callable[[apsw.Connection], object]) -> None:
            with pytest.raises(StoreUnavailable) as failure:
                await writer.write(operation)
            told.append(failure.value.reason)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(be_told, lambda _: hold.wait(30))
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(be_told, note(1))
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(writing.WATCHES):
                mock_clock.jump(writing.ANSWER_SECS / writing.WATCHES)
                await trio.testing.wait_all_tasks_blocked()
        hold.set()
        assert sorted(told) == [
            "the ledger did not answer in time",
            "the ledger is far behind",
        ]


async def test_waiting_for_room_is_the_callers_own_time(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a full mailbox a writer waits, and may leave; nobody else is disturbed."""
    monkeypatch.setattr(writing, "MAILBOX_WRITES", 2)
    async with open_writer(database) as writer:
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(writer.write, note(number))
            with trio.CancelScope() as scope:
                scope.cancel()
                await writer.write(note(99))
        assert scope.cancelled_caught
        assert noted(database) == set(range(20))


async def test_closing_writes_what_was_taken(database: Path) -> None:
    """A cancelled service still writes what lies in the mailbox; later writers are told."""
    written: list[int] = []
    store: SqliteStore | None = None

    async def write(number: int) -> None:
        assert store is not None
        with trio.CancelScope(shield=True):
            await store.add_session(session(number))
        written.append(number)

    with trio.CancelScope() as service:
        async with open_sqlite_store(database) as store, trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(write, number)
            await trio.testing.wait_all_tasks_blocked()
            service.cancel()
    assert len(written) == 100
    assert store is not None
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.check()
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.find_session(session_id(1), LAB)
    async with open_sqlite_store(database) as again:
        assert len(await again.list_all_sessions()) == 100


async def test_a_callers_deadline_is_a_plain_cancel(sqlite_store: SqliteStore) -> None:
    """A read that takes too long is interrupted: the caller leaves in time, the reader is free.

    In the reader's thread, too, it is a cancellation and not an error of its own.
    """
    seen: list[type[BaseException]] = []

    def query(db: apsw.Connection) -> None:
        try:
            db.execute(endless).fetchall()
        except BaseException as error:
            seen.append(type(error))
            raise

    endless = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    )
    with trio.fail_after(30):
        for _ in range(4):
            with trio.move_on_after(0.05) as scope:
                await sqlite_store._read(query)
            assert scope.cancelled_caught
        for _ in range(READERS):
            assert await sqlite_store.list_sessions(LAB, include_closed=True) == []
    assert len(seen) == 4
    assert trio.TooSlowError not in seen


async def test_the_blocks_own_error_comes_out_alone(database: Path) -> None:
    """No exception group around what the caller's code raised."""
    with pytest.raises(SessionNotFound):
        async with open_sqlite_store(database) as store:
            await store.begin_turn(turn())


async def test_the_blocks_own_error_is_not_lost_to_a_cancel(database: Path) -> None:
    """Closing is not cancellable: what the caller's code raised comes out all the same."""

    async def fail_while_cancelled(service: trio.CancelScope) -> None:
        async with open_sqlite_store(database):
            service.cancel()
            raise SessionNotFound

    with pytest.raises(SessionNotFound), trio.CancelScope() as service:
        await fail_while_cancelled(service)


async def test_a_look_up_that_is_not_at_once_goes_the_long_way(
    sqlite_store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that meets a lock or a fault is no reason to refuse: a reader's thread waits."""
    await sqlite_store.add_session(session(1))

    def busy(*_: object) -> None:
        raise apsw.BusyError

    glancing = SimpleNamespace(execute=busy, release_memory=lambda: None)
    monkeypatch.setattr(sqlite_store, "_glancing", glancing)
    assert await sqlite_store.find_session(session_id(1), LAB) == session(1)


async def test_a_look_up_can_be_cancelled(sqlite_store: SqliteStore) -> None:
    """Even one that waits for nothing."""
    with trio.CancelScope() as scope:
        scope.cancel()
        await sqlite_store.find_session(session_id(1), LAB)
    assert scope.cancelled_caught
