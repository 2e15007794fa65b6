"""The runs actor: one-shot commands, so many at one time, each with a caller who may leave.

A run is a straight line: its row, its place in line, the command, the row's ending. One cancel
scope a run implements caller gone, deadline, revocation and shutdown alike, and the runner lets a
cancellation through only when nothing of the command is left.
"""

from __future__ import annotations

import secrets
from collections.abc import Set
from functools import partial
from typing import Final, assert_never

import attrs
import structlog
import trio

from clawdforge.actors.context import LEDGER_SECS, SessionContext
from clawdforge.actors.mailbox import Mailbox, answering
from clawdforge.actors.messages import RunsMail, StartRun, StopRuns
from clawdforge.actors.supervisor import ChildSpec, Report, run_child
from clawdforge.domain.ids import AppName
from clawdforge.domain.runs import (
    DEFAULT_MODEL,
    Runner,
    RunRequest,
    RunResult,
    RunStop,
    begin_row,
    end_row,
    stopped_run,
)
from clawdforge.errors import ClawdforgeError, RunsFull, StoreUnavailable

log: Final = structlog.get_logger("clawdforge.runs")

MAILBOX: Final = 1024
"""Messages are handled without waiting, so this many requests may arrive in one scheduler tick."""

WAITING: Final = 128
"""Runs that may wait in line: each holds a prompt, and the last of them is unlikely to get a turn
within its time."""

RETRY_SECS: Final = 10
"""When to try again with a full line: a run takes some seconds."""


@attrs.define(eq=False)
class LiveRun:
    """One run that waits or works; ``over`` is set when nothing of it is left."""

    run_id: str
    app: AppName
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    over: trio.Event = attrs.field(factory=trio.Event)
    cause: RunStop | None = None

    def stop(self, cause: RunStop) -> None:
        """Stop it; the first cause is the one that counts."""
        self.cause = self.cause or cause
        self.scope.cancel()


class RunsActor:
    """All one-shot runs.

    Owns: the slots (``max_runs``), the line before them, the runs' nursery.
    Accepts: StartRun, StopRuns.
    Stops when: its supervisor cancels it; every run ends with it.
    If it crashes: all runs end and their askers are failed; it starts again empty.
    """

    def __init__(self, context: SessionContext, runner: Runner, report: Report) -> None:
        self.mailbox: Mailbox[RunsMail] = Mailbox(MAILBOX)
        self._context = context
        self._runner = runner
        self._report = report
        self._slots = trio.Semaphore(context.config.max_runs)
        self._live: dict[str, LiveRun] = {}

    def __repr__(self) -> str:
        return f"<RunsActor {len(self._live)} live>"

    def apps(self) -> Set[AppName]:
        """Who has a run just now."""
        return {live.app for live in self._live.values()}

    async def run(self) -> None:
        """Live until cancelled. The only place that reads the mailbox."""
        async with trio.open_nursery() as nursery:
            while True:
                message = await self.mailbox.receive()
                with answering(message):
                    self._handle(message, nursery)

    def _handle(self, message: RunsMail, nursery: trio.Nursery) -> None:
        match message:
            case StartRun(request, reply):
                if len(self._live) >= self._context.config.max_runs + WAITING:
                    reply.fail(RunsFull(RETRY_SECS, WAITING))
                    return
                live = LiveRun(secrets.token_hex(16), request.app)
                self._live[live.run_id] = live
                reply.when_abandoned(partial(live.stop, "caller_gone"))
                spec = ChildSpec("run", partial(self._serve, message, live), "temporary")
                nursery.start_soon(run_child, spec, self._report)
            case StopRuns():
                nursery.start_soon(self._stop, message)
            case _:
                assert_never(message)

    async def _serve(self, message: StartRun, live: LiveRun) -> None:
        """One run, from its row to its answer."""
        with answering(message):
            try:
                message.reply.set(await self._run(message.request, live))
            except ClawdforgeError as error:
                message.reply.fail(error)
            finally:
                del self._live[live.run_id]
                live.over.set()

    async def _run(self, request: RunRequest, live: LiveRun) -> RunResult:
        """Raises StoreUnavailable when the run could not be written down; it was not begun then."""
        began_at = trio.current_time()
        live.scope.deadline = began_at + request.timeout_secs
        result: RunResult | None = None
        with live.scope:
            await self._begin(request, live)
            async with self._slots:
                result = await self._ask_runner(request, live)
        if result is None:
            cause: RunStop = live.cause or "deadline"
            duration_ms = round((trio.current_time() - began_at) * 1000)
            result = stopped_run(cause, timeout_secs=request.timeout_secs, duration_ms=duration_ms)
        await self._end(result, live)
        return result

    async def _begin(self, request: RunRequest, live: LiveRun) -> None:
        config = self._context.config
        start = begin_row(
            request,
            run_id=live.run_id,
            model=self._model(request),
            at=self._context.now(),
            is_text_kept=config.audit_prompts,
        )
        await self._context.store.begin_run(start)

    async def _ask_runner(self, request: RunRequest, live: LiveRun) -> RunResult:
        try:
            return await self._runner.run(
                prompt=request.prompt,
                model=self._model(request),
                system=request.system,
                system_mode=request.system_mode,
                effort=request.effort,
                files=request.files,
                timeout_secs=request.timeout_secs,
            )
        except Exception as error:  # noqa: BLE001 - a runner may be anybody's: its bug is no crash
            kind = type(error).__name__
            log.error("runner failed", error=kind)  # noqa: TRY400 - no traceback: it may hold texts
            return RunResult(False, None, "", "", 0, "error", "the runner failed; see the log")

    async def _end(self, result: RunResult, live: LiveRun) -> None:
        """Write the ending. What the ledger does not take, the next start-up calls interrupted."""
        end = end_row(
            result,
            run_id=live.run_id,
            at=self._context.now(),
            is_text_kept=self._context.config.audit_prompts,
        )
        try:
            with trio.move_on_after(LEDGER_SECS):
                await self._context.store.end_run(end)
        except StoreUnavailable as error:
            log.warning("ending of a run not written", reason=error.reason)

    def _model(self, request: RunRequest) -> str:
        config = self._context.config
        command = config.agents[config.run_agent].run
        return request.model or (command and command.model) or DEFAULT_MODEL

    async def _stop(self, message: StopRuns) -> None:
        """Bounded by what the runner takes to let go of its process tree."""
        with answering(message):
            chosen = [live for live in self._live.values() if message.app in {None, live.app}]
            for live in chosen:
                live.stop(message.cause)
            for live in chosen:
                await live.over.wait()
            message.reply.set(None)
