"""The reception: how a request finds its session's actor, or the answer that it had before.

It holds no state. The rule for keys: *what a key stands for is looked up before anything is asked
for*, and the ledger, which takes a key once only, has the last word when two come at the same time.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Final

import attrs
import trio

from clawdforge.actors.context import SessionContext
from clawdforge.actors.messages import (
    ActivateSession,
    CancelTurn,
    CloseSession,
    DecidePermission,
    ListPermissions,
    OpenSession,
    SessionRef,
    StartTurn,
)
from clawdforge.actors.pool import PoolActor
from clawdforge.actors.ticket import StoredTicket, TurnTicket
from clawdforge.domain.admission import RETRY_DRAINING_SECS
from clawdforge.domain.answers import result_of
from clawdforge.domain.ids import SESSION_ID_BYTES, AgentName, AppName, SessionId
from clawdforge.domain.keys import CREATION_KEY_SECS, IdempotencyKey, same_request
from clawdforge.domain.ports import SessionRow, TurnRow
from clawdforge.domain.questions import PendingPermission
from clawdforge.domain.turns import CancelReceipt, TurnRequest, TurnResult, TurnTarget
from clawdforge.errors import (
    IdempotencyKeyTaken,
    PermissionNotFound,
    SessionClosed,
    SessionGone,
    SessionNotFound,
    ShuttingDown,
    TurnNotFound,
)
from clawdforge.web.service import NewSession, NewTurn

TRIES: Final = 3
"""Under one key two requests can miss each other once; a third look finds what the first did."""


@attrs.frozen
class Reception:
    """Sessions and turns as requests. See :class:`clawdforge.web.service.Service`."""

    context: SessionContext
    pool: PoolActor

    # --- sessions ---------------------------------------------------------------------------------

    async def create(self, request: NewSession) -> SessionRow:
        """Open a session; with a key that was used, the one that was opened then."""
        key = request.key
        for _ in range(TRIES):
            row = self._new_row(request)
            made = None if key is None else await self._find_creation(row, key)
            if made is not None:
                return made
            try:
                return await self.pool.mailbox.ref.ask(partial(OpenSession, row, key))
            except (IdempotencyKeyTaken, SessionGone):
                if key is None:
                    raise
        raise SessionGone

    def _new_row(self, request: NewSession) -> SessionRow:
        profile = self.context.config.agents[request.agent]
        return SessionRow(
            session_id=SessionId(secrets.token_urlsafe(SESSION_ID_BYTES)),
            app_name=request.app,
            agent=request.agent,
            model=request.model or profile.model,
            created_at=self.context.now(),
            permissions=request.permissions or profile.permissions,
            meta=request.meta,
        )

    async def _find_creation(self, row: SessionRow, key: IdempotencyKey) -> SessionRow | None:
        since = self.context.now() - CREATION_KEY_SECS
        made = await self.context.store.find_creation(row.app_name, key.name, since=since)
        if made is None:
            return None
        same_request(key, made.fields_sha256)
        return attrs.evolve(
            row,
            session_id=made.session_id,
            agent=AgentName(made.agent),
            model=made.model,
            created_at=made.created_at,
        )

    async def close(self, session_id: SessionId, app: AppName) -> bool:
        """Close it; False when it was closed already."""
        row = await self.find(session_id, app)
        if row.closed_at is not None:
            return False
        ref = self.pool.lookup(session_id)
        if ref is None:
            is_ours = await self.context.store.close_session(
                session_id, event="close", cause="caller", at=self.context.now()
            )
            self.context.feeds.close(session_id, "caller")
            await self.context.launcher.discard(session_id)
            return is_ours
        try:
            return await ref.ask(
                lambda reply: CloseSession(cause="caller", only_if_idle=False, reply=reply)
            )
        except SessionGone:
            return False

    async def find(self, session_id: SessionId, app: AppName) -> SessionRow:
        """The app's session. Raises SessionNotFound."""
        row = await self.context.store.find_session(session_id, app)
        if row is None:
            raise SessionNotFound
        return row

    # --- turns ------------------------------------------------------------------------------------

    async def start_turn(
        self, session_id: SessionId, app: AppName, request: NewTurn, *, is_patient: bool = False
    ) -> TurnTicket:
        """Have a turn admitted, or attach to the one that the key stands for.

        With ``is_patient`` it answers when the turn is over.
        """
        key, kept = request.key, None
        row = self.pool.find(session_id, app) if key is None else None
        if row is None:  # it does not live, or is not theirs: the ledger says which
            row = await self.find(session_id, app)
        for _ in range(TRIES):
            if key is not None:
                kept = await self._find_keyed(session_id, key)
            if kept is not None and (kept.end is not None or self.pool.lookup(session_id) is None):
                break
            try:
                if kept is None:
                    self._refuse_new_turn(row)
                    asked = await self._admissible(app, request)
                else:
                    asked = _plain(request)
                return await self._ask_for_turn(row, asked, is_patient=is_patient)
            except IdempotencyKeyTaken:
                continue
        assert kept is not None, "the ledger says that the key is taken"
        return await self._stored_ticket(kept)

    async def _find_keyed(self, session_id: SessionId, key: IdempotencyKey) -> TurnRow | None:
        """The turn that the key stands for. Raises IdempotencyKeyReused."""
        found = await self.context.store.find_keyed_turn(session_id, key.name)
        if found is None:
            return None
        same_request(key, found.fields_sha256)
        return await self.context.store.find_turn(session_id, found.turn_index)

    def _refuse_new_turn(self, row: SessionRow) -> None:
        if self.pool.is_draining:
            raise ShuttingDown(RETRY_DRAINING_SECS)
        if row.closed_at is not None:
            raise SessionClosed(row.close_cause or "closed")

    async def _admissible(self, app: AppName, request: NewTurn) -> TurnRequest:
        """The request with its files, which are held for as long as the turn may take."""
        if not request.files:
            return _plain(request)
        files = await self.context.files.claim(app, request.files, hold_secs=request.timeout_secs)
        return attrs.evolve(_plain(request), files=tuple(files))

    async def _ask_for_turn(
        self, row: SessionRow, asked: TurnRequest, *, is_patient: bool
    ) -> TurnTicket:
        ref = await self._ref_of(row)
        gone: SessionGone
        try:
            return await ref.ask(partial(StartTurn, asked, is_patient))
        except SessionGone as error:
            gone = error
        await self._explain_end(row)
        raise gone

    async def _stored_ticket(self, row: TurnRow) -> TurnTicket:
        """The answer as it was; a turn that has none will have none: its outcome is unknown."""
        start = row.start
        if row.end is None:
            unknown = TurnResult(
                turn_index=start.turn_index,
                ending="interrupted",
                stop_reason="interrupted",
                duration_ms=max(0, self.context.now() - start.started_at) * 1000,
            )
            return StoredTicket(unknown)
        events = await self.context.store.find_kept_events(start.session_id, start.turn_index)
        result = result_of(row.end, events)
        return StoredTicket(result, row.end.first_event, row.end.last_event)

    async def _ref_of(self, row: SessionRow) -> SessionRef:
        """The session's actor; an open session that has none is admitted again."""
        ref = self.pool.lookup(row.session_id)
        if ref is not None:
            return ref
        return await self.pool.mailbox.ref.ask(lambda reply: ActivateSession(row=row, reply=reply))

    async def _explain_end(self, row: SessionRow) -> None:
        """An actor that ended under a request: say why, if the ledger knows."""
        now = await self.find(row.session_id, row.app_name)
        if now.closed_at is not None:
            raise SessionClosed(now.close_cause or "closed")

    # --- cancelling -------------------------------------------------------------------------------

    async def cancel(
        self, session_id: SessionId, app: AppName, target: TurnTarget
    ) -> CancelReceipt:
        """Stop the turn that is meant; the receipt, when it is over."""
        began = trio.current_time()
        await self.find(session_id, app)
        ref = self.pool.lookup(session_id)
        if ref is not None:
            with suppress(SessionGone):  # it ended first; the ledger knows how
                receipt: CancelReceipt | None = await ref.ask(partial(CancelTurn, target))
                if receipt is not None:
                    return receipt
        turn_index = await self._find_finished(session_id, target)
        took_ms = round((trio.current_time() - began) * 1000)
        return CancelReceipt(False, turn_index, "idle", took_ms)

    async def _find_finished(self, session_id: SessionId, target: TurnTarget) -> int | None:
        """The turn that is meant and is in no line any more. Raises TurnNotFound, SessionGone."""
        index = target.turn_index
        if target.key_name is not None:
            keyed = await self.context.store.find_keyed_turn(session_id, target.key_name)
            index = -1 if keyed is None else keyed.turn_index
        if index is None:
            return None
        row = await self.context.store.find_turn(session_id, index)
        if row is None:
            raise TurnNotFound
        if row.end is None:  # no receipt for what is not known to be over
            raise SessionGone
        return index

    # --- permissions ------------------------------------------------------------------------------

    async def list_permissions(
        self, session_id: SessionId, app: AppName
    ) -> Sequence[PendingPermission]:
        """What waits; nothing does in a session without an actor."""
        await self.find(session_id, app)
        ref = self.pool.lookup(session_id)
        if ref is None:
            return ()
        try:
            return await ref.ask(ListPermissions)
        except SessionGone:
            return ()

    async def decide_permission(
        self, session_id: SessionId, app: AppName, request_id: str, option_id: str
    ) -> None:
        """Decide one."""
        await self.find(session_id, app)
        ref = self.pool.lookup(session_id)
        if ref is None:
            raise PermissionNotFound
        try:
            await ref.ask(lambda reply: DecidePermission(request_id, option_id, reply))
        except SessionGone:
            raise PermissionNotFound from None


def _plain(request: NewTurn) -> TurnRequest:
    """The request without its files: enough to attach to a turn that has them already."""
    return TurnRequest(
        prompt=request.prompt,
        timeout_secs=request.timeout_secs,
        on_disconnect=request.on_disconnect,
        first_output_secs=request.first_output_secs,
        silence_secs=request.silence_secs,
        key=request.key,
    )
