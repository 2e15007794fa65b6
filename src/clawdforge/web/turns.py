"""The route of a turn: ask the agent, wait, answer.

The caller owns the turn: when its connection goes, this handler is cancelled, and with it the turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, assert_never

from clawdforge.config import Config, EventsForm
from clawdforge.domain.ports import Ending
from clawdforge.domain.turns import TurnResult
from clawdforge.errors import (
    AgentExited,
    AgentFellSilent,
    AgentMisbehaved,
    AgentNeverSpoke,
    AgentTimedOut,
    ClawdforgeError,
    SessionBusy,
    SessionClosed,
    SessionGone,
    SessionNotFound,
    UnknownFileToken,
)
from clawdforge.protocol.normalized import normalize
from clawdforge.web.answers import TurnDone
from clawdforge.web.bodies import RunTurn
from clawdforge.web.operations import SHORT_SECS, Call, Operation
from clawdforge.web.problems import Problem, describe_turn
from clawdforge.web.service import NewTurn
from clawdforge.web.sessions import EXAMPLE_ID, START_REFUSALS, read_session_id


async def run_turn(call: Call[RunTurn]) -> TurnDone | Problem:
    """Run one turn to its end."""
    session_id = read_session_id(call)
    config = call.service.config
    timeout_secs = call.asked.timeout_secs or config.turn_timeout_secs
    result = await call.service.run_turn(
        session_id,
        call.app,
        NewTurn(prompt=call.asked.prompt, files=call.asked.files, timeout_secs=timeout_secs),
    )
    if result.ending not in {"completed", "cancelled"}:
        return describe_turn(result)
    return TurnDone.of(session_id, result, shape_events(result, call.asked.events or config.events))


def shape_events(result: TurnResult, form: EventsForm) -> Sequence[Mapping[str, Any]]:
    """The turn's events in the form that was asked for."""
    match form:
        case "acp":
            return result.events
        case "normalized":
            return normalize(result.events)
        case "none":
            return ()
    assert_never(form)


def turn_secs(config: Config) -> float:
    """The longest turn that may be asked for, then its grace, then the kill."""
    return config.max_timeout_secs + config.cancel_grace_secs + SHORT_SECS


def _failed(ending: Ending, error: ClawdforgeError | None) -> TurnResult:
    return TurnResult(
        turn_index=1, ending=ending, stop_reason=ending, duration_ms=1234, text="", error=error
    )


FAILED: Final = (
    _failed("failed", AgentExited("demo", "exit code 1")),
    _failed("failed", AgentMisbehaved("demo", "it does not know this model")),
    _failed("failed", None),
    _failed("timed_out", AgentTimedOut("demo", 60)),
    _failed("timed_out", AgentNeverSpoke("demo", 30)),
    _failed("timed_out", AgentFellSilent("demo", 30)),
    _failed("interrupted", None),
)
"""Examples of admitted turns that failed, for the API description."""

OPERATIONS: Final = (
    Operation(
        method="POST",
        path="/sessions/<session_id>/turn",
        gate="app",
        handle=run_turn,
        summary="Run one turn and wait for its end",
        asks=RunTurn,
        bound_secs=turn_secs,
        example={"prompt": "What is in the fridge?", "timeout_secs": 60, "events": "none"},
        answer=TurnDone(
            session_id=EXAMPLE_ID,
            turn_index=1,
            events=[],
            stop_reason="end_turn",
            duration_ms=1234,
            text="Milk.",
        ),
        refusals=[
            SessionNotFound(),
            SessionClosed("idle"),
            SessionBusy(8),
            UnknownFileToken.at([0]),
            SessionGone(),
            *START_REFUSALS,
            *map(describe_turn, FAILED),
        ],
    ),
)
