"""The route of a turn: ask the agent, wait, answer.

The caller owns the turn: when its connection goes, this handler is cancelled, and with it the turn.
"""

from __future__ import annotations

import json
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
    IdempotencyKeyReused,
    SessionBusy,
    SessionClosed,
    SessionGone,
    SessionNotFound,
    UnknownFileToken,
)
from clawdforge.protocol.normalized import normalize
from clawdforge.web.accept import JSON, NDJSON, SSE, prefer
from clawdforge.web.answers import TurnDone, verbatim
from clawdforge.web.bodies import RunTurn
from clawdforge.web.keys import read_key
from clawdforge.web.operations import SHORT_SECS, Call, Operation
from clawdforge.web.problems import Problem, describe_turn
from clawdforge.web.service import NewTurn
from clawdforge.web.sessions import EXAMPLE_ID, START_REFUSALS, read_session_id
from clawdforge.web.streams import LiveStream
from clawdforge.web.turn_stream import stream_turn


async def run_turn(call: Call[RunTurn]) -> TurnDone | Problem | LiveStream:
    """Run one turn to its end, or stream it from its admission on, as the caller prefers.

    A preference that we have no form for gets the plain answer, as it did before there were others.
    """
    session_id = read_session_id(call)
    config = call.service.config
    asked = new_turn(call)
    media_type = prefer(call.trace.header("accept"), (JSON, SSE, NDJSON)) or JSON
    if media_type != JSON:
        ticket = await call.service.start_turn(session_id, call.app, asked)
        return stream_turn(call.service, session_id, ticket, media_type, call.trace)
    result = await call.service.run_turn(session_id, call.app, asked)
    if result.ending not in {"completed", "cancelled"}:
        return describe_turn(result)
    return TurnDone.of(session_id, result, shape_events(result, call.asked.events or config.events))


def new_turn(call: Call[RunTurn]) -> NewTurn:
    """The turn that is asked for, with the service's defaults filled in."""
    asked, config = call.asked, call.service.config
    return NewTurn(
        prompt=asked.prompt,
        files=asked.files,
        timeout_secs=asked.timeout_secs or config.turn_timeout_secs,
        on_disconnect=asked.on_disconnect,
        first_output_secs=asked.first_output_secs or config.first_output_secs,
        silence_secs=asked.silence_secs or config.silence_secs,
        key=read_key(call),
    )


def shape_events(result: TurnResult, form: EventsForm) -> Any:  # noqa: ANN401 - as ``verbatim``
    """The turn's events in the form that was asked for."""
    match form:
        case "acp":
            return verbatim(result.events)
        case "normalized":
            return normalize(json.loads(result.events), result.cancelled_tool_calls)
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

STREAMED: Final = {
    SSE: "`acp` events as the agent works, then one `result`, `error` or `end`.",
    NDJSON: "The same, one JSON object a line.",
}

OPERATIONS: Final = (
    Operation(
        method="POST",
        path="/sessions/<session_id>/turn",
        gate="app",
        handle=run_turn,
        summary="Run one turn and wait for its end",
        asks=RunTurn,
        takes_key=True,
        bound_secs=turn_secs,
        also_answers=STREAMED,
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
            IdempotencyKeyReused(),
            SessionGone(),
            *START_REFUSALS,
            *map(describe_turn, FAILED),
        ],
    ),
)
