"""Disks fill, locks are held, files break: StoreUnavailable, nothing half-written, and recovery."""

from __future__ import annotations

import filecmp
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from clawdforge.errors import StoreUnavailable
from clawdforge.store.memory import MemoryStore
from clawdforge.store.sqlite import SqliteStore, open_sqlite_store
from clawdforge.testing.bad_disk import open_bad_disk

from .examples import LAB, ended, from_outside, session, session_id, start_locker, turn


async def pragma(store: SqliteStore, name: str, value: int | None = None) -> int:
    """Turn a knob of the connection that writes, in its own thread, where the writer lives."""
    arguments = [] if value is None else [value]
    return int(await store._write(lambda db: db.pragma(name, *arguments)) or 0)


async def refused(write: Callable[[], Awaitable[object]]) -> str:
    """The reason why ``write`` is refused; it names no path."""
    with pytest.raises(StoreUnavailable) as caught:
        await write()
    assert "/" not in str(caught.value)
    return caught.value.reason


async def fails_as_a_whole(store: SqliteStore) -> str:
    """Begin a big turn that cannot be written, look that nothing of it was, give the reason."""
    reason = await refused(lambda: store.begin_turn(turn(prompt="x" * 200_000)))
    row = await store.find_session(session_id(1), LAB)
    assert row is not None
    assert (row.turn_count, row.last_turn_at) == (0, None)
    assert await store.list_turns(session_id(1), before=None, limit=9) == []
    return reason


async def works(store: SqliteStore) -> None:
    """The same turn goes through, from its beginning to its end."""
    await store.begin_turn(turn(prompt="x" * 200_000))
    assert await store.end_turn(ended())
    await store.check()


async def test_a_full_disk(database: Path) -> None:
    """SQLite may take no further page: refused as a whole, and well again when there is room."""
    async with open_sqlite_store(database) as store:
        await store.add_session(session())
        pages = await pragma(store, "page_count")
        await pragma(store, "max_page_count", pages)
        assert await fails_as_a_whole(store) == "the disk is full"
        await pragma(store, "max_page_count", 1_000_000)
        await works(store)


def test_a_disk_that_takes_no_more_bytes(database: Path) -> None:
    """A real write that fails in the middle of COMMIT (EFBIG): the same, seen from a process."""
    done = subprocess.run(
        [sys.executable, "-c", NO_MORE_BYTES, str(database)],
        check=True,
        capture_output=True,
        timeout=60,
    )
    first, *others = json.loads(done.stdout)
    assert first == "the disk refuses to read or write"
    assert others == ["the disk refuses to read or write", "well"]
    assert from_outside(database, "SELECT turn_count FROM sessions", "PRAGMA integrity_check") == [
        [[1]],
        [["ok"]],
    ]


NO_MORE_BYTES = """
import json, resource, sys
from pathlib import Path
import trio
from clawdforge.domain.ports import SessionRow, TurnStart
from clawdforge.errors import StoreUnavailable
from clawdforge.store.sqlite import open_sqlite_store

async def main():
    said = []
    database = Path(sys.argv[1])
    async with open_sqlite_store(database) as store:
        await store.add_session(SessionRow("s" * 16, "lab", "demo", None, 1, "ask"))
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        size = Path(f"{database}-wal").stat().st_size
        for limit in (size, size + 5000, hard):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
            try:
                await store.begin_turn(TurnStart("s" * 16, 1, "x" * 50_000, 2))
                await store.check()
                said.append("well")
            except StoreUnavailable as error:
                said.append(error.reason)
    print(json.dumps(said))

trio.run(main)
"""


async def test_a_database_that_became_read_only(database: Path) -> None:
    """Refused while it may only be read; reads go on meanwhile."""
    with open_bad_disk() as disk:
        async with open_sqlite_store(database) as store:
            await store.add_session(session())
            disk.fault = "read-only"
            assert await fails_as_a_whole(store) == "the database is read-only"
            assert await refused(store.check) == "the database is read-only"
            disk.fault = "none"
            await works(store)


async def test_another_program_holds_the_lock(database: Path) -> None:
    """Refused after the time for waiting; reads go on; well again when the lock is given back."""
    async with open_sqlite_store(database, busy_timeout_secs=0.05) as store:
        await store.add_session(session())
        with trio.fail_after(30), start_locker(database) as locker:
            assert await fails_as_a_whole(store) == "another program holds the lock"
            assert await refused(store.check) == "another program holds the lock"
            assert locker.stdin is not None
            locker.stdin.close()
            locker.wait(30)
            await works(store)


async def test_a_lock_held_for_a_moment_is_waited_for(database: Path) -> None:
    """Within the time for waiting nobody notices."""
    async with open_sqlite_store(database, busy_timeout_secs=30) as store:
        await store.add_session(session())
        with trio.fail_after(60), start_locker(database) as locker:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(works, store)
                await trio.testing.wait_all_tasks_blocked()
                assert locker.stdin is not None
                locker.stdin.close()


def damage(database: Path) -> bytes:
    """Rubbish in place of all pages but the first; what was there before."""
    good = database.read_bytes()
    page_size = int.from_bytes(good[16:18], "big")  # https://sqlite.org/fileformat2.html
    mend(database, good[:page_size].ljust(len(good), b"\xff"))
    return good


def mend(database: Path, content: bytes) -> None:
    """Write ``content`` over the file in its place."""
    with database.open("r+b") as file:
        file.write(content)


async def test_a_file_that_breaks_and_is_mended(database: Path) -> None:
    """Rubbish in place of a table's page is damage; with the page put back all is well."""
    async with open_sqlite_store(database) as store:
        await store.add_session(session())
    async with open_sqlite_store(database) as store:
        good = damage(database)
        assert await refused(lambda: store.begin_turn(turn())) == "the database is damaged"
        assert await refused(store.list_all_sessions) == "the database is damaged"
        mend(database, good)
        await works(store)


async def test_a_file_that_is_moved_away(database: Path) -> None:
    """A commit that nobody would find again is refused, until the file is back in its place."""
    async with open_sqlite_store(database) as store:
        await store.add_session(session())
        away = database.with_suffix(".away")
        os.rename(database, away)  # noqa: PTH104 - a plain call, in a test that waits for it
        reason = await refused(lambda: store.begin_turn(turn()))
        assert reason == "the database file was moved or deleted"
        assert await refused(store.check) == reason
        os.rename(away, database)  # noqa: PTH104 - as above
        await works(store)


def place(path: Path, content: bytes) -> None:
    """Make a file."""
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no database at all, but long enough to have had a header" * 100, "is not a database"),
        (b"SQLite format 3\0" + b"\xff" * 4080, "is not a database"),
    ],
)
async def test_opening_something_else(database: Path, content: bytes, reason: str) -> None:
    """A file with a wrong or broken header is refused and left as it is."""
    place(database, content)
    with pytest.raises(StoreUnavailable, match=reason):
        async with open_sqlite_store(database):
            pass
    place(database.with_suffix(".same"), content)
    assert filecmp.cmp(database, database.with_suffix(".same"), shallow=False)


async def test_opening_where_nothing_can_be(tmp_path: Path) -> None:
    """A folder, or a file in a folder that is not there: refused without a path in the words."""
    for path in (tmp_path, tmp_path / "missing" / "clawdforge.db"):
        with pytest.raises(StoreUnavailable) as caught:
            async with open_sqlite_store(path):
                pass
        assert str(tmp_path) not in str(caught.value)


async def test_opening_while_another_program_holds_the_lock(database: Path) -> None:
    """A new database that somebody else is writing is waited for, not for ever."""
    with trio.fail_after(30), start_locker(database) as locker:
        with pytest.raises(StoreUnavailable, match="another program holds the lock"):
            async with open_sqlite_store(database, busy_timeout_secs=0.05):
                pass
        assert locker.stdin is not None
        locker.stdin.close()


def test_opening_a_file_that_may_only_be_read() -> None:
    """An ordinary user with a read-only file is told so."""
    done = subprocess.run(
        [sys.executable, "-c", OPEN_READ_ONLY],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "the database cannot be opened (Permission denied)"


OPEN_READ_ONLY = """
import os, shutil, sys, tempfile
from pathlib import Path
import trio
from clawdforge.errors import StoreUnavailable
from clawdforge.store.sqlite import open_sqlite_store

async def main(path):
    try:
        async with open_sqlite_store(path):
            pass
    except StoreUnavailable as error:
        sys.stdout.write(error.reason)

folder = tempfile.mkdtemp()
try:
    os.chmod(folder, 0o755)
    Path(folder, "clawdforge.db").touch(0o444)
    if os.geteuid() == 0:
        os.seteuid(65534)  # to whom modes do not apply: be nobody
    trio.run(main, Path(folder, "clawdforge.db"))
finally:
    os.seteuid(os.getuid())
    shutil.rmtree(folder)
"""


def open_descriptors() -> int:
    """How many files, pipes and sockets this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def test_failed_openings_leave_nothing(tmp_path: Path) -> None:
    """No descriptor stays open for a file that could not be used."""
    broken = tmp_path / "clawdforge.db"
    broken.write_bytes(b"rubbish" * 1000)
    before = open_descriptors()
    for _ in range(5):
        with pytest.raises(StoreUnavailable):
            async with open_sqlite_store(broken):
                pass
    assert open_descriptors() == before


async def test_the_file_is_its_owners_only(database: Path) -> None:
    """Database, log and shared memory are created with mode 0600, whatever the umask."""
    old = os.umask(0)
    try:
        async with open_sqlite_store(database) as store:
            await store.check()
            made = {path.name: path.stat().st_mode & 0o777 for path in database.parent.iterdir()}
    finally:
        os.umask(old)
    assert made == {f"clawdforge.db{end}": 0o600 for end in ("", "-wal", "-shm")}


async def test_the_twin_can_be_unavailable_too() -> None:
    """While told to be, every method of the ledger in memory refuses with the reason given."""
    store = MemoryStore(unavailable="the disk is full")
    assert await refused(lambda: store.add_session(session())) == "the disk is full"
    assert await refused(store.check) == "the disk is full"
    store.unavailable = None
    await store.check()
