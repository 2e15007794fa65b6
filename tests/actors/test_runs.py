"""The runs actor in virtual time: places in line, every way to stop, and the audit of each."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from clawdforge.actors import runs
from clawdforge.domain.ids import AppName
from clawdforge.domain.runs import RunEnd, RunResult, RunRow
from clawdforge.errors import RunsFull, ShuttingDown, StoreUnavailable, UnknownFileToken
from clawdforge.web.service import NewRun

from .conftest import APP, Asked, OpenStage, Stage

pytestmark = pytest.mark.virtual_time

OTHER = AppName("garage")


async def run(stage: Stage, *, app: AppName = APP, within: float = 60, **fields: Any) -> RunResult:
    """One run."""
    request = NewRun(**{"prompt": "hello", "timeout_secs": within, **fields})
    return await stage.service.run_once(app, request)


async def ask_run(stage: Stage, **fields: Any) -> Asked:
    """Start a run in the background and let everything come to rest."""
    asked = stage.ask(lambda: run(stage, **fields))
    await trio.testing.wait_all_tasks_blocked()
    return asked


def rows(stage: Stage) -> list[RunRow]:
    """The audit of runs, in the order of writing."""
    return list(stage.store.runs.values())


def end_of(stage: Stage) -> RunEnd:
    """The ending of the only run."""
    (row,) = rows(stage)
    assert row.end is not None
    return row.end


async def test_the_runner_gets_what_was_asked(open_stage: OpenStage) -> None:
    """Every field, the default model, the time asked for; the result comes back as it is."""
    async with open_stage() as stage:
        assert (await run(stage)).result == "You said: hello"
        await run(stage, model="opus", system="s", system_mode="replace", effort="max")
        first, second = stage.runner.asked
        assert first == {
            "prompt": "hello",
            "model": "sonnet",
            "system": None,
            "system_mode": "append",
            "effort": None,
            "files": (),
            "timeout_secs": 60,
        }
        assert (second["model"], second["system"], second["system_mode"]) == (
            "opus",
            "s",
            "replace",
        )
        assert second["effort"] == "max"


async def test_the_audit_counts_and_keeps_no_text(open_stage: OpenStage) -> None:
    """One row: who, how many characters, how long, how it ended."""
    async with open_stage() as stage:
        stage.runner.next_result = RunResult(True, {"é": [1]}, "", "", 42, "end_turn")
        await run(stage, prompt="héllo", system="be brief")
        ((start, end),) = [(row.start, row.end) for row in rows(stage)]
        assert (start.app_name, start.model, start.started_at) == (APP, "sonnet", 1_000_000)
        assert (start.prompt_chars, start.system_chars, start.prompt) == (5, 8, None)
        assert end is not None
        assert (end.outcome, end.stop_reason, end.duration_ms) == ("completed", "end_turn", 42)
        assert (end.result_chars, end.result) == (len('{"é": [1]}'), None)


async def test_texts_are_kept_on_demand(open_stage: OpenStage) -> None:
    """With ``audit_prompts`` prompt and result are in the row."""
    async with open_stage(audit_prompts=True) as stage:
        await run(stage)
        (row,) = rows(stage)
        assert row.end is not None
        assert (row.start.prompt, row.end.result) == ("hello", "You said: hello")


@pytest.mark.parametrize("is_kept", [True, False])
async def test_turns_are_audited_alike(open_stage: OpenStage, is_kept: bool) -> None:
    """The same setting rules the texts in the audit of sessions."""
    async with open_stage(audit_prompts=is_kept) as stage:
        await stage.turn(await stage.open(), "hello")
        meta = next(row.meta for row in stage.audit_rows() if row.event == "turn")
        texts = {"prompt": "hello", "text": "You said: hello"} if is_kept else {}
        assert {key: meta[key] for key in ("prompt", "text") if key in meta} == texts


async def test_a_failed_run_is_a_result(open_stage: OpenStage) -> None:
    """What the runner says goes through, and the audit says failed."""
    async with open_stage() as stage:
        failed = RunResult(False, None, "", "oh", 3, "error", "no luck")
        stage.runner.next_result = failed
        assert await run(stage) == failed
        assert end_of(stage).outcome == "failed"


async def test_a_runner_with_a_bug_does_not_stop_the_others(open_stage: OpenStage) -> None:
    """An exception is a failed run that shows none of its words; the next run works."""
    async with open_stage() as stage:
        stage.runner.asked = None  # so that it raises
        done = await run(stage)
        assert (done.ok, done.stop_reason) == (False, "error")
        assert done.error == "the runner failed; see the log"
        stage.runner.asked = []
        assert (await run(stage)).ok


async def test_runs_wait_in_line_within_their_time(open_stage: OpenStage) -> None:
    """No more than ``max_runs`` work; who waits past its own time is timed out, unstarted."""
    async with open_stage(max_runs=2) as stage:
        stage.runner.is_holding = True
        began_at = trio.current_time()
        working = [await ask_run(stage, within=100) for _ in range(2)]
        waiting = await ask_run(stage, within=10)
        patient = await ask_run(stage, within=150)
        assert stage.runner.working == 2
        await waiting.done.wait()
        assert trio.current_time() - began_at == 10
        assert waiting.answer.error == "the run did not finish within 10 s"
        assert len(stage.runner.asked) == 2
        await patient.done.wait()
        assert [one.answer.stop_reason for one in (*working, patient)] == ["timeout"] * 3
        assert {row.end.outcome for row in rows(stage) if row.end} == {"timed_out"}


async def test_the_line_has_an_end(open_stage: OpenStage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past it a run is refused with a time to try again; nothing is written down."""
    monkeypatch.setattr(runs, "WAITING", 1)
    async with open_stage(max_runs=1) as stage:
        stage.runner.is_holding = True
        await ask_run(stage)
        await ask_run(stage)
        with pytest.raises(RunsFull) as full:
            await run(stage)
        assert full.value.retry_after_secs > 0
        assert len(rows(stage)) == 2


async def test_a_caller_who_leaves_stops_the_run(open_stage: OpenStage) -> None:
    """Working or waiting: nothing of it goes on, its place is free, and the audit says so."""
    async with open_stage(max_runs=1) as stage:
        stage.runner.is_holding = True
        working, waiting = await ask_run(stage), await ask_run(stage)
        for asked in (waiting, working):
            asked.hang_up()
            await trio.testing.wait_all_tasks_blocked()
        assert (stage.runner.working, stage.runner.stopped) == (0, 1)
        assert [row.end and row.end.outcome for row in rows(stage)] == ["cancelled"] * 2
        stage.runner.is_holding = False
        assert (await run(stage)).ok


async def test_revocation_ends_the_apps_runs(open_stage: OpenStage) -> None:
    """Its own, at once, and nobody else's."""
    async with open_stage() as stage:
        await stage.service.mint(OTHER, ())
        stage.runner.is_holding = True
        mine, other = await ask_run(stage), await ask_run(stage, app=OTHER)
        await stage.service.revoke(APP)
        await mine.done.wait()
        assert (mine.answer.stop_reason, mine.answer.error) == (
            "cancelled",
            "the app's token was revoked",
        )
        assert not other.done.is_set()


async def test_a_sweep_ends_the_runs_of_a_revoked_app(open_stage: OpenStage) -> None:
    """When the token was revoked in the ledger alone, as the command line does."""
    async with open_stage() as stage:
        await stage.service.mint(OTHER, ())
        stage.runner.is_holding = True
        mine, other = await ask_run(stage), await ask_run(stage, app=OTHER)
        await stage.store.revoke_app(APP)
        await stage.service.sweep_once()
        assert mine.answer.stop_reason == "cancelled"
        assert not other.done.is_set()


async def test_a_sweep_forgets_old_runs(open_stage: OpenStage) -> None:
    """After ``audit_days``, and not a day sooner."""
    async with open_stage(audit_days=2, sweep_secs=10**9) as stage:
        await run(stage)
        stage.wall.seconds += 2 * 86_400
        await stage.service.sweep_once()
        assert len(rows(stage)) == 1
        stage.wall.seconds += 1
        await stage.service.sweep_once()
        assert rows(stage) == []


async def test_a_drain_refuses_runs_and_waits_for_those_that_work(open_stage: OpenStage) -> None:
    """A run counts as work in progress until its caller has an answer."""
    async with open_stage() as stage:
        stage.runner.is_holding = True
        working = await ask_run(stage, within=30)
        stage.service.start_drain()
        with pytest.raises(ShuttingDown):
            await run(stage)
        began_at = trio.current_time()
        await stage.service.wait_idle()
        assert trio.current_time() - began_at == 30
        assert working.answer.stop_reason == "timeout"


async def test_shutdown_stops_runs_and_answers_them(open_stage: OpenStage) -> None:
    """Each asker hears why, and each row has its ending."""
    async with open_stage() as stage:
        stage.runner.is_holding = True
        working = await ask_run(stage)
        await stage.service.stop_work()
        await working.done.wait()
        assert working.answer.error == "the service is shutting down"
        assert end_of(stage).outcome == "cancelled"


async def test_a_ledger_that_is_down_refuses_and_does_not_spoil(open_stage: OpenStage) -> None:
    """Before the run: nothing is started. After it: the answer is given all the same."""
    async with open_stage() as stage:
        stage.store.unavailable = "disk full"
        with pytest.raises(StoreUnavailable):
            await run(stage)
        assert stage.runner.asked == []
        stage.store.unavailable = None
        stage.runner.is_holding = True
        working = await ask_run(stage, within=20)
        stage.store.unavailable = "disk full"
        await working.done.wait()
        assert working.answer.stop_reason == "timeout"
        assert rows(stage)[-1].end is None


async def test_an_unknown_file_keeps_the_run_from_starting(open_stage: OpenStage) -> None:
    """The fault names the token's place; no row is written."""
    async with open_stage() as stage:
        with pytest.raises(UnknownFileToken):
            await run(stage, files=("ff_unknown",))
        assert rows(stage) == []
