"""A turn's answer kept and read again is the same answer."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clawdforge.domain.answers import facts_of, result_of
from clawdforge.domain.ids import SessionId
from clawdforge.domain.ports import TurnEnd
from clawdforge.domain.turns import TurnResult
from clawdforge.errors import (
    AgentExited,
    AgentFellSilent,
    AgentMisbehaved,
    AgentNotResumable,
    AgentNotStarted,
    AgentTimedOut,
    ClawdforgeError,
    SessionGone,
)

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
messages = st.dictionaries(st.text(), json_values, max_size=3)
results = st.builds(
    TurnResult,
    turn_index=st.integers(1, 9),
    ending=st.sampled_from(["completed", "cancelled", "failed", "timed_out"]),
    stop_reason=st.text(),
    duration_ms=st.integers(0, 9),
    events=st.lists(messages, max_size=3).map(json.dumps),
    events_dropped=st.integers(0, 9),
    skipped_lines=st.integers(0, 9),
    text=st.text(),
    usage=st.none() | st.dictionaries(st.text(), json_values, min_size=1, max_size=2),
    cancelled_tool_calls=st.lists(st.text(), max_size=3).map(tuple),
)


def as_kept(result: TurnResult) -> TurnResult:
    """Through the ledger's forms and back."""
    end = TurnEnd(
        session_id=SessionId("s"),
        turn_index=result.turn_index,
        ending=result.ending,
        stop_reason=result.stop_reason,
        text=result.text,
        duration_ms=result.duration_ms,
        ended_at=1,
        detail=str(result.error) if result.error else None,
        facts=json.loads(json.dumps(facts_of(result))),
    )
    return result_of(end, result.events)


@given(results)
def test_a_kept_result_is_the_same(result: TurnResult) -> None:
    """Whatever the agent said, and however it ended."""
    assert as_kept(result) == result


@pytest.mark.parametrize(
    "error",
    [
        AgentExited("demo", "exit code 3", was_asked=False),
        AgentFellSilent("demo", 4),
        AgentMisbehaved("demo", "no tokens"),
        AgentNotResumable("demo"),
        AgentNotStarted("demo", "not there", "clawdforge setup"),
        AgentTimedOut("demo", 10),
        SessionGone(),
    ],
)
def test_a_kept_error_is_the_same(error: ClawdforgeError) -> None:
    """Its kind, its fields and its words."""
    failed = TurnResult(turn_index=1, ending="failed", stop_reason="error", duration_ms=1)
    kept = as_kept(attrs.evolve(failed, error=error)).error
    assert type(kept) is type(error)
    assert str(kept) == str(error)


def test_an_error_of_another_version_keeps_its_words() -> None:
    """A kind that is known no more is still a failure that says why."""
    facts = {"error": {"kind": "AgentVanished", "fields": {"agent": "demo"}}}
    end = TurnEnd(SessionId("s"), 1, "failed", "error", "", 1, 1, detail="it vanished", facts=facts)
    error = result_of(end, None).error
    assert error is not None
    assert "it vanished" in str(error)
