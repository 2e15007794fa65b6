"""The ledger in one SQLite file: ``open_sqlite_store`` and the port on top of it.

The database is the truth: nothing is cached, so rows changed by another program (``clawdforge
token``, an operator's ``sqlite3``) count from the next call on. Writes go through one
:class:`~clawdforge.store.writer.Writer`, reads to whichever of two read-only connections is free;
the two look-ups that every turn makes are made where they are asked for (``_look_up``).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence, Set
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

import apsw
import trio

from clawdforge.at_once import take
from clawdforge.domain.events import EventBatch, EventPage
from clawdforge.domain.files import FileRow
from clawdforge.domain.ids import AppName, SessionId
from clawdforge.domain.keys import IdempotencyKey, KeyedCreation, KeyedTurn
from clawdforge.domain.ports import (
    AppRow,
    AuditEvent,
    AuditRow,
    SessionRow,
    TurnEnd,
    TurnRow,
    TurnStart,
)
from clawdforge.store import events, keys, ledger
from clawdforge.store.connections import Connections, open_connections, run_on
from clawdforge.store.faults import unavailable
from clawdforge.store.runs import SqliteRuns
from clawdforge.store.writer import Writer

Result = TypeVar("Result")

BUSY_TIMEOUT_SECS = 5.0


class SqliteStore(SqliteRuns):
    """:class:`clawdforge.domain.ports.Store` on SQLite; made by :func:`open_sqlite_store`."""

    def __init__(self, writer: Writer, connections: Connections) -> None:
        self._write = writer.write
        self._glancing, readers = connections.glancing, connections.readers
        # apsw has the name for type checkers only, hence the quotes.
        self._idle, self._free = trio.open_memory_channel["apsw.AsyncConnection"](len(readers))
        for reader in readers:
            self._idle.send_nowait(reader)

    async def _look_up(self, query: Callable[[apsw.Connection], Result]) -> Result:
        """Find one row by its key, at once: that costs a tenth of going to a reader's thread.

        What cannot be had at once (a lock, a fault) goes there.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            return query(self._glancing)
        except (apsw.Error, ValueError, TypeError):
            with suppress(apsw.Error):  # pages of a file that was mended since would stay for us
                self._glancing.release_memory()
            return await self._read(query)

    async def _read(self, query: Callable[[apsw.Connection], Result]) -> Result:
        """Run ``query`` on a free reading connection; waits for one within the caller's scope."""
        reader = await take(self._free)
        try:
            return await run_on(reader, query)
        except (apsw.Error, ValueError, TypeError) as error:
            raise unavailable(error) from error
        finally:
            self._idle.send_nowait(reader)

    async def add_app(self, row: AppRow, token_sha256: str) -> None:
        """See the port. The same token under the same name once more is a no-op."""
        await self._write(partial(ledger.add_app, row=row, token_sha256=token_sha256))

    async def list_apps(self) -> Sequence[AppRow]:
        """See the port."""
        return await self._read(ledger.list_apps)

    async def revoke_app(self, name: AppName) -> None:
        """See the port. Once more is AppNotFound."""
        await self._write(partial(ledger.revoke_app, name=name))

    async def find_app(self, token_sha256: str) -> AppRow | None:
        """See the port."""
        return await self._look_up(partial(ledger.find_app, token_sha256=token_sha256))

    async def add_file(self, row: FileRow, token_sha256: str) -> None:
        """See the port."""
        await self._write(partial(ledger.add_file, row=row, token_sha256=token_sha256))

    async def claim_files(
        self, app: AppName, tokens_sha256: Sequence[str], *, now: int, until: int
    ) -> Sequence[str | None]:
        """See the port."""
        return await self._write(
            partial(ledger.claim_files, app=app, tokens_sha256=tokens_sha256, now=now, until=until)
        )

    async def expire_files(self, *, now: int) -> Set[str]:
        """See the port."""
        return await self._write(partial(ledger.expire_files, now=now))

    async def add_session(self, row: SessionRow, key: IdempotencyKey | None = None) -> None:
        """See the port. An id that was undone or deleted stays spent: a no-op as well."""
        await self._write(partial(ledger.add_session, row=row, key=key))

    async def find_session(self, session_id: SessionId, app: AppName) -> SessionRow | None:
        """See the port."""
        return await self._look_up(partial(ledger.find_session, session_id=session_id, app=app))

    async def list_sessions(self, app: AppName, *, include_closed: bool) -> Sequence[SessionRow]:
        """See the port."""
        return await self._read(
            partial(ledger.list_sessions, app=app, include_closed=include_closed)
        )

    async def close_session(
        self, session_id: SessionId, *, event: AuditEvent, cause: str, at: int
    ) -> bool:
        """See the port."""
        return await self._write(
            partial(ledger.close_session, session_id=session_id, event=event, cause=cause, at=at)
        )

    async def undo_session(self, row: SessionRow, *, cause: str, at: int) -> None:
        """See the port."""
        await self._write(partial(ledger.undo_session, row=row, cause=cause, at=at))

    async def delete_session(self, session_id: SessionId, *, at: int) -> bool:
        """See the port."""
        return await self._write(partial(ledger.delete_session, session_id=session_id, at=at))

    async def list_all_sessions(self) -> Sequence[SessionRow]:
        """See the port. Oldest first, ties by id."""
        return await self._read(ledger.list_all_sessions)

    async def set_can_resume(self, session_id: SessionId, *, can_resume: bool) -> None:
        """See the port."""
        await self._write(
            partial(ledger.set_can_resume, session_id=session_id, can_resume=can_resume)
        )

    async def begin_turn(self, start: TurnStart) -> None:
        """See the port. On a closed session a turn that was begun before is refused as well."""
        await self._write(partial(ledger.begin_turn, start=start))

    async def end_turn(self, end: TurnEnd, batch: EventBatch | None = None) -> bool:
        """See the port. False for a turn that is missing, too."""
        return await self._write(partial(ledger.end_turn, end=end, batch=batch))

    async def list_turns(
        self, session_id: SessionId, *, before: int | None, limit: int, max_chars: int | None = None
    ) -> Sequence[TurnRow]:
        """See the port."""
        query = partial(
            ledger.list_turns,
            session_id=session_id,
            before=before,
            limit=limit,
            max_chars=max_chars,
        )
        return await self._read(query)

    async def find_turn(self, session_id: SessionId, turn_index: int) -> TurnRow | None:
        """See the port."""
        return await self._read(
            partial(ledger.find_turn, session_id=session_id, turn_index=turn_index)
        )

    async def find_creation(self, app: AppName, name: str, *, since: int) -> KeyedCreation | None:
        """See the port."""
        return await self._read(partial(keys.find_creation, app=app, name=name, since=since))

    async def find_keyed_turn(self, session_id: SessionId, name: str) -> KeyedTurn | None:
        """See the port."""
        return await self._read(partial(keys.find_keyed_turn, session_id=session_id, name=name))

    async def find_kept_events(self, session_id: SessionId, turn_index: int) -> str | None:
        """See the port."""
        return await self._read(
            partial(keys.find_kept_events, session_id=session_id, turn_index=turn_index)
        )

    async def interrupt_turns(self, *, at: int) -> int:
        """See the port."""
        return await self._write(partial(ledger.interrupt_turns, at=at))

    async def append_events(self, batch: EventBatch) -> None:
        """See the port."""
        await self._write(partial(events.append_events, batch=batch))

    async def read_events(self, session_id: SessionId, *, after: int, max_bytes: int) -> EventPage:
        """See the port."""
        return await self._read(
            partial(events.read_events, session_id=session_id, after=after, max_bytes=max_bytes)
        )

    async def take_up_events(self, session_id: SessionId) -> int:
        """See the port."""
        return await self._write(partial(events.take_up_events, session_id=session_id))

    async def note_permission(self, row: AuditRow, request_id: str) -> None:
        """See the port."""
        await self._write(partial(ledger.note_permission, row=row, request_id=request_id))

    async def list_audit(self, session_id: SessionId) -> Sequence[AuditRow]:
        """See the port. In the order of writing."""
        return await self._read(partial(ledger.list_audit, session_id=session_id))

    async def check(self) -> None:
        """See the port. Costs one commit of one page."""
        await self._write(ledger.touch)


@asynccontextmanager
async def open_sqlite_store(
    path: Path, *, busy_timeout_secs: float = BUSY_TIMEOUT_SECS
) -> AsyncIterator[SqliteStore]:
    """Open the ledger at ``path``, create or migrate it as needed, and close it in the end.

    ``busy_timeout_secs`` is how long a write waits for another program's lock before it is
    StoreUnavailable. Raises that, too, when the file cannot be opened or is of a newer version.
    The block's own exceptions come out as they are, in no group. Closing is not cancellable and
    waits for the writes in hand; later calls are StoreUnavailable.
    """
    async with open_connections(path, busy_timeout_secs=busy_timeout_secs) as connections:
        writer = Writer(connections.writer)
        failure: BaseException | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.run)
            try:
                yield SqliteStore(writer, connections)
            except BaseException as error:  # noqa: BLE001, ASYNC103 - raised below, outside the nursery
                failure = error
            writer.close()
        if failure is not None:
            raise failure
