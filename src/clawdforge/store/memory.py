"""The ledger in memory: the port's promises without a file or a thread, for a virtual clock.

Held to the same tests as :class:`~clawdforge.store.sqlite.SqliteStore`. Tests may read and edit the
dictionaries, as an operator edits rows, and set ``unavailable`` to see what a full disk does.
"""

from __future__ import annotations

from collections.abc import Sequence, Set

import attrs
import trio

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
from clawdforge.errors import (
    AppNameTaken,
    AppNotFound,
    SessionClosed,
    SessionNotFound,
    StoreUnavailable,
)
from clawdforge.store import rows
from clawdforge.store.keyring import KeyRing
from clawdforge.store.runbook import MemoryRuns
from clawdforge.store.shelf import EventShelf


@attrs.define
class MemoryStore(MemoryRuns):
    """:class:`clawdforge.domain.ports.Store` without a database.

    Every method is one checkpoint and then one step that nothing can interrupt.
    ``apps`` is by token digest and holds valid tokens only. ``unavailable``: while set, every
    method raises StoreUnavailable with it.
    """

    apps: dict[str, AppRow] = attrs.field(factory=dict)
    files: dict[str, FileRow] = attrs.field(factory=dict)
    sessions: dict[SessionId, SessionRow] = attrs.field(factory=dict)
    turns: dict[SessionId, dict[int, TurnRow]] = attrs.field(factory=dict)
    shelves: dict[SessionId, EventShelf] = attrs.field(factory=dict)
    keys: KeyRing = attrs.field(factory=KeyRing)
    audit: list[AuditRow] = attrs.field(factory=list)
    unavailable: str | None = None

    async def add_app(self, row: AppRow, token_sha256: str) -> None:
        """See the port."""
        await self.check()
        for token, held in sorted(self.apps.items(), key=lambda one: one[1].name != row.name):
            if (held.name, token) == (row.name, token_sha256):
                return
            if held.name == row.name or token == token_sha256:
                raise AppNameTaken(held.name)
        self.apps[token_sha256] = row

    async def list_apps(self) -> Sequence[AppRow]:
        """See the port."""
        await self.check()
        return sorted(self.apps.values(), key=lambda row: (row.created_at, row.name))

    async def revoke_app(self, name: AppName) -> None:
        """See the port."""
        await self.check()
        tokens = [token for token, row in self.apps.items() if row.name == name]
        if not tokens:
            raise AppNotFound(name)
        for token in tokens:
            del self.apps[token]

    async def find_app(self, token_sha256: str) -> AppRow | None:
        """See the port."""
        await self.check()
        return self.apps.get(token_sha256)

    async def add_file(self, row: FileRow, token_sha256: str) -> None:
        """See the port."""
        await self.check()
        self.files.setdefault(token_sha256, row)

    async def claim_files(
        self, app: AppName, tokens_sha256: Sequence[str], *, now: int, until: int
    ) -> Sequence[str | None]:
        """See the port."""
        await self.check()
        return [self._claim(app, token, now=now, until=until) for token in tokens_sha256]

    async def expire_files(self, *, now: int) -> Set[str]:
        """See the port."""
        await self.check()
        self.files = {
            token: row
            for token, row in self.files.items()
            if max(row.expires_at, row.held_until) > now
        }
        return {row.name for row in self.files.values()}

    async def add_session(self, row: SessionRow, key: IdempotencyKey | None = None) -> None:
        """See the port."""
        await self.check()
        if row.session_id in self.sessions or self._has_event(row.session_id, "create"):
            return
        if key is not None:
            self.keys.add_creation(key, row)
        self.sessions[row.session_id] = _as_stored(row)
        self._note(AuditRow(row.session_id, "create", row.created_at))

    async def find_session(self, session_id: SessionId, app: AppName) -> SessionRow | None:
        """See the port."""
        await self.check()
        row = self.sessions.get(session_id)
        return _as_stored(row) if row is not None and row.app_name == app else None

    async def list_sessions(self, app: AppName, *, include_closed: bool) -> Sequence[SessionRow]:
        """See the port."""
        await self.check()
        found = [
            _as_stored(row)
            for row in self.sessions.values()
            if row.app_name == app and (include_closed or row.closed_at is None)
        ]
        return sorted(found, key=lambda row: (-row.created_at, row.session_id))

    async def close_session(
        self, session_id: SessionId, *, event: AuditEvent, cause: str, at: int
    ) -> bool:
        """See the port."""
        await self.check()
        row = self.sessions.get(session_id)
        if row is None or row.closed_at is not None:
            return False
        self.sessions[session_id] = attrs.evolve(row, closed_at=at, close_cause=cause)
        self._note(AuditRow(session_id, event, at, {"cause": cause}))
        return True

    async def undo_session(self, row: SessionRow, *, cause: str, at: int) -> None:
        """See the port."""
        await self.check()
        self._forget(row.session_id)
        if not self._has_event(row.session_id, "create"):
            self._note(AuditRow(row.session_id, "create", row.created_at))
        if not self._has_event(row.session_id, "close"):
            self._note(AuditRow(row.session_id, "close", at, {"cause": cause}))

    async def delete_session(self, session_id: SessionId, *, at: int) -> bool:
        """See the port."""
        await self.check()
        if session_id not in self.sessions:
            return False
        turns = self._forget(session_id)
        self._note(AuditRow(session_id, "hard_delete", at, {"turns": turns}))
        return True

    async def list_all_sessions(self) -> Sequence[SessionRow]:
        """See the port."""
        await self.check()
        found = [_as_stored(row) for row in self.sessions.values()]
        return sorted(found, key=lambda row: (row.created_at, row.session_id))

    async def set_can_resume(self, session_id: SessionId, *, can_resume: bool) -> None:
        """See the port."""
        await self.check()
        if (row := self.sessions.get(session_id)) is not None:
            self.sessions[session_id] = attrs.evolve(row, can_resume=can_resume)

    async def begin_turn(self, start: TurnStart) -> None:
        """See the port."""
        await self.check()
        row = self.sessions.get(start.session_id)
        if row is None:
            raise SessionNotFound
        if row.closed_at is not None:
            raise SessionClosed(row.close_cause or "closed")
        turns = self.turns.setdefault(start.session_id, {})
        if start.key is not None:
            self.keys.add_turn(start.key, start)
        if start.turn_index in turns:
            return
        kept = attrs.evolve(start, prompt=rows.storable(start.prompt), key=None)
        turns[start.turn_index] = TurnRow(kept)
        self.sessions[start.session_id] = attrs.evolve(
            row, turn_count=max(row.turn_count, start.turn_index)
        )
        self._touch(start.session_id, at=start.started_at)

    async def end_turn(self, end: TurnEnd, batch: EventBatch | None = None) -> bool:
        """See the port."""
        await self.check()
        if batch is not None:
            self._shelf(batch.session_id).append(batch)
        return self._end(rows.storable_end(end))

    async def list_turns(
        self, session_id: SessionId, *, before: int | None, limit: int, max_chars: int | None = None
    ) -> Sequence[TurnRow]:
        """See the port."""
        await self.check()
        turns = self.turns.get(session_id, {})
        indexes = sorted((i for i in turns if before is None or i < before), reverse=True)
        return [_cut(turns[index], max_chars) for index in indexes[: max(0, limit)]]

    async def find_turn(self, session_id: SessionId, turn_index: int) -> TurnRow | None:
        """See the port."""
        await self.check()
        return self.turns.get(session_id, {}).get(turn_index)

    async def find_creation(self, app: AppName, name: str, *, since: int) -> KeyedCreation | None:
        """See the port."""
        await self.check()
        return self.keys.find_creation(app, name, since=since)

    async def find_keyed_turn(self, session_id: SessionId, name: str) -> KeyedTurn | None:
        """See the port."""
        await self.check()
        return self.keys.turns.get((session_id, name))

    async def find_kept_events(self, session_id: SessionId, turn_index: int) -> str | None:
        """See the port."""
        await self.check()
        return self.keys.events.get((session_id, turn_index))

    async def interrupt_turns(self, *, at: int) -> int:
        """See the port."""
        await self.check()
        open_turns = sorted(
            (row.start.session_id, row.start.turn_index, row.start)
            for turns in self.turns.values()
            for row in turns.values()
            if row.end is None
        )
        for session_id in {start.session_id for *_, start in open_turns}:
            self._shelf(session_id).pass_over_lost()
        for *_, start in open_turns:
            self._end(rows.interruption(start, at=at))
        return len(open_turns)

    async def append_events(self, batch: EventBatch) -> None:
        """See the port."""
        await self.check()
        self._shelf(batch.session_id).append(batch)

    async def read_events(self, session_id: SessionId, *, after: int, max_bytes: int) -> EventPage:
        """See the port."""
        await self.check()
        return self._shelf(session_id).read(after=after, max_bytes=max_bytes)

    async def take_up_events(self, session_id: SessionId) -> int:
        """See the port."""
        await self.check()
        shelf = self._shelf(session_id)
        if any(row.end is None for row in self.turns.get(session_id, {}).values()):
            shelf.pass_over_lost()
        return shelf.last

    def _shelf(self, session_id: SessionId) -> EventShelf:
        """The session's events; one that nobody keeps when there is no such session."""
        if session_id in self.sessions:
            return self.shelves.setdefault(session_id, EventShelf())
        return EventShelf()

    async def note_permission(self, row: AuditRow, request_id: str) -> None:
        """See the port."""
        await self.check()
        noted = {past.meta.get("request_id") for past in await self.list_audit(row.session_id)}
        if request_id not in noted:
            self._note(attrs.evolve(row, meta={**row.meta, "request_id": request_id}))

    async def list_audit(self, session_id: SessionId) -> Sequence[AuditRow]:
        """See the port."""
        await self.check()
        return [row for row in self.audit if row.session_id == session_id]

    async def sweep_audit(self, *, before: int) -> int:
        """See the port."""
        await self.check()
        kept = [row for row in self.audit if row.at >= before or row.session_id in self.sessions]
        gone = len(self.audit) - len(kept) + self._forget_runs(before=before)
        self.audit[:] = kept
        return gone

    async def check(self) -> None:
        """See the port."""
        await trio.lowlevel.checkpoint()
        if self.unavailable is not None:
            raise StoreUnavailable(self.unavailable)

    def _claim(self, app: AppName, token: str, *, now: int, until: int) -> str | None:
        row = self.files.get(token)
        if row is None or row.app_name != app or row.expires_at <= now:
            return None
        self.files[token] = attrs.evolve(row, held_until=max(row.held_until, until))
        return row.name

    def _end(self, end: TurnEnd) -> bool:
        row = self.turns.get(end.session_id, {}).get(end.turn_index)
        if row is None or row.end is not None:
            return False
        self.turns[end.session_id][end.turn_index] = TurnRow(row.start, self.keys.keep_events(end))
        self._note(rows.turn_audit(end, prompt_bytes=len(row.start.prompt.encode())))
        self._touch(end.session_id, at=end.ended_at)
        return True

    def _touch(self, session_id: SessionId, *, at: int) -> None:
        row = self.sessions.get(session_id)
        if row is not None:
            last = at if row.last_turn_at is None else max(row.last_turn_at, at)
            self.sessions[session_id] = attrs.evolve(row, last_turn_at=last)

    def _forget(self, session_id: SessionId) -> int:
        """Remove the row and its turns; how many turns there were."""
        self.sessions.pop(session_id, None)
        self.shelves.pop(session_id, None)
        self.keys.forget(session_id)
        return len(self.turns.pop(session_id, {}))

    def _has_event(self, session_id: SessionId, event: AuditEvent) -> bool:
        return any(row.session_id == session_id and row.event == event for row in self.audit)

    def _note(self, row: AuditRow) -> None:
        self.audit.append(attrs.evolve(row, meta=rows.read_meta(rows.meta_text(row.meta))))


def _cut(row: TurnRow, max_chars: int | None) -> TurnRow:
    """A row with its texts cut."""
    end = None if row.end is None else attrs.evolve(row.end, text=row.end.text[:max_chars])
    return TurnRow(attrs.evolve(row.start, prompt=row.start.prompt[:max_chars]), end)


def _as_stored(row: SessionRow) -> SessionRow:
    """A copy whose ``meta`` has been through JSON and belongs to nobody else."""
    return attrs.evolve(row, meta=rows.read_meta(rows.meta_text(row.meta)))
