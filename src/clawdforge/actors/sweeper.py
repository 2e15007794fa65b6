"""The sweeper actor: closes what is idle, deletes what is old, and reconciles pool and ledger.

It is always on: a tick every ``sweep_secs``, and whenever it is asked.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import structlog
import trio

from clawdforge.actors.context import SessionContext
from clawdforge.actors.mailbox import Mailbox, answering
from clawdforge.actors.messages import CloseSession, StopRuns, Sweep, SweeperMail
from clawdforge.actors.pool import PoolActor
from clawdforge.actors.runs import RunsActor
from clawdforge.domain.ids import AppName, SessionId
from clawdforge.domain.sweeping import Lifetimes, SweepCounts, SweepPlan, plan_sweep
from clawdforge.errors import FilesUnavailable, SessionBusy, SessionGone, StoreUnavailable

log: Final = structlog.get_logger("clawdforge.sweeper")

MAILBOX: Final = 16
DAY_SECS: Final = 86_400


class SweeperActor:
    """The lifetimes of sessions.

    Owns: its mailbox and its clock.
    Accepts: Sweep.
    Stops when: its supervisor cancels it.
    If it crashes: the asker in hand is failed, and it starts again; a sweep may be repeated.
    """

    def __init__(self, context: SessionContext, pool: PoolActor, runs: RunsActor) -> None:
        self.mailbox: Mailbox[SweeperMail] = Mailbox(MAILBOX)
        self._context = context
        self._pool = pool
        self._runs = runs

    async def run(self) -> None:
        """Sweep at each tick and at each request. The only place that reads the mailbox."""
        while True:
            message: Sweep | None = None
            with trio.move_on_after(self._context.config.sweep_secs):
                message = await self.mailbox.receive()
            with answering(message):
                await self._sweep(message)

    async def _sweep(self, message: Sweep | None) -> None:
        try:
            counts = await self._sweep_once()
        except StoreUnavailable as error:
            log.warning("sweep put off", reason=error.reason)
            if message is not None:
                message.reply.fail(error)
            return
        if message is not None:
            message.reply.set(counts)

    async def _sweep_once(self) -> SweepCounts:
        """Plan on what the ledger says now, then carry it out: stop, close, delete.

        Who lives is read before the rows are: an actor that counts as live has a committed row.
        """
        config, store = self._context.config, self._context.store
        live, running = self._pool.live(), self._runs.apps()
        apps = {app.name for app in await store.list_apps()}
        rows = await store.list_all_sessions()
        lifetimes = Lifetimes(config.session_ttl_secs, config.session_hard_ttl_secs)
        plan = plan_sweep(rows, live, apps, lifetimes, self._context.now())
        counts = await self._carry_out(plan)
        for app in running - apps:
            await self._stop_runs(app)
        await store.sweep_audit(before=self._context.now() - config.audit_days * DAY_SECS)
        await self._sweep_files()
        return counts

    async def _stop_runs(self, app: AppName) -> None:
        """Stop what a revoked app still runs. Bounded by the runs' own end."""
        with suppress(SessionBusy):  # a full mailbox: the next sweep does it
            await self._runs.mailbox.ref.ask(lambda reply: StopRuns("revoked", app, reply))

    async def _sweep_files(self) -> None:
        try:
            await self._context.files.sweep()
        except FilesUnavailable as error:
            log.warning("uploaded files not swept", reason=error.reason)

    async def _carry_out(self, plan: SweepPlan) -> SweepCounts:
        for session_id, cause in plan.stop:
            await self._stop(session_id, cause, only_if_idle=False)
        closed = [session_id for session_id in plan.close if await self._close(session_id)]
        deleted = [session_id for session_id in plan.delete if await self._delete(session_id)]
        return SweepCounts(len(closed), len(deleted))

    async def _stop(self, session_id: SessionId, cause: str, *, only_if_idle: bool) -> bool | None:
        """Close through the actor: whether it did, or None when there is none. Bounded by it."""
        ref = self._pool.lookup(session_id)
        if ref is None:
            return None
        try:
            return await ref.ask(
                lambda reply: CloseSession(cause, only_if_idle=only_if_idle, reply=reply)
            )
        except SessionGone:
            return None
        except SessionBusy:
            return False

    async def _close(self, session_id: SessionId) -> bool:
        stopped = await self._stop(session_id, "idle", only_if_idle=True)
        if stopped is not None:
            return stopped
        is_closed = await self._context.store.close_session(
            session_id, event="sweep_close", cause="idle", at=self._context.now()
        )
        self._context.feeds.close(session_id, "idle")
        await self._context.launcher.discard(session_id)
        return is_closed

    async def _delete(self, session_id: SessionId) -> bool:
        """The slot is freed before the row goes."""
        await self._stop(session_id, "closed", only_if_idle=False)
        await self._context.launcher.discard(session_id)
        return await self._context.store.delete_session(session_id, at=self._context.now())
