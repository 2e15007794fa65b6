"""The pure decisions: admission, restarts, verdicts, rejections, transcripts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clawdforge.domain.admission import refuse_admission
from clawdforge.domain.ids import AgentName
from clawdforge.domain.permissions import choose_rejection
from clawdforge.domain.ports import Ending
from clawdforge.domain.restarting import Intensity, RestartHistory
from clawdforge.domain.transcript import Transcript
from clawdforge.domain.turns import (
    CancelReceipt,
    How,
    StopCause,
    TurnRequest,
    TurnResult,
    judge_turn,
    receipt_for,
)
from clawdforge.errors import (
    AgentExited,
    AgentFellSilent,
    AgentNeverSpoke,
    AgentTimedOut,
    PoolFull,
    ShuttingDown,
)
from clawdforge.protocol.acp import update_of

AGENT = AgentName("demo")
DIED = AgentExited(AGENT, "exit code 3")
REQUEST = TurnRequest(prompt="hello", timeout_secs=10, first_output_secs=3, silence_secs=4)


@pytest.mark.parametrize(
    ("live", "limit", "is_draining", "refusal"),
    [
        (0, 1, False, None),
        (1, 1, False, PoolFull),
        (2, 1, False, PoolFull),
        (0, 0, False, PoolFull),
        (0, 1, True, ShuttingDown),
        (9, 1, True, ShuttingDown),
    ],
)
def test_admission(live: int, limit: int, is_draining: bool, refusal: type | None) -> None:
    """Below the cap one is let in; draining outranks a full pool."""
    answer = refuse_admission(live=live, limit=limit, is_draining=is_draining)
    assert type(answer) is (refusal or type(None))


@given(st.lists(st.integers(0, 100), max_size=40), st.integers(0, 4), st.integers(1, 20))
def test_no_window_holds_more_restarts_than_the_intensity(
    crashes: list[int], restarts: int, within: int
) -> None:
    """Whatever the times of the crashes, until the budget is spent."""
    intensity, history, granted = Intensity(restarts, within), RestartHistory(), []
    for now in sorted(crashes):
        after = history.after_crash(now, intensity)
        if after is None:
            break
        history = after
        granted.append(now)
    for now in granted:
        assert sum(now - within < then <= now for then in granted) <= restarts
    assert len(history.at) <= restarts


@pytest.mark.parametrize(
    ("cause", "answer", "ending", "stop_reason"),
    [
        (None, "end_turn", "completed", "end_turn"),
        (None, "refusal", "completed", "refusal"),
        (None, "cancelled", "cancelled", "cancelled"),
        (None, DIED, "failed", "error"),
        ("cancel", "cancelled", "cancelled", "cancelled"),
        ("cancel", "end_turn", "completed", "end_turn"),
        ("caller_gone", DIED, "cancelled", "cancelled"),
        ("close", None, "cancelled", "cancelled"),
        ("deadline", "cancelled", "timed_out", "timeout"),
        ("deadline", "end_turn", "timed_out", "timeout"),
        ("deadline", DIED, "timed_out", "timeout"),
        ("deadline", None, "timed_out", "timeout"),
        ("never_spoke", "cancelled", "timed_out", "never_spoke"),
        ("fell_silent", DIED, "timed_out", "fell_silent"),
    ],
)
def test_verdicts(
    cause: StopCause | None, answer: str | AgentExited | None, ending: str, stop_reason: str
) -> None:
    """Every pair of why it was stopped and what came of it has one ending."""
    verdict = judge_turn(AGENT, cause, answer, REQUEST)
    assert (verdict.ending, verdict.stop_reason) == (ending, stop_reason)
    blamed = {
        "error": AgentExited,
        "timeout": AgentTimedOut,
        "never_spoke": AgentNeverSpoke,
        "fell_silent": AgentFellSilent,
    }
    assert type(verdict.error) is blamed.get(stop_reason, type(None))


@pytest.mark.parametrize(
    ("ending", "how", "told"),
    [
        ("cancelled", "agent", (True, "agent")),
        ("cancelled", "killed", (True, "killed")),
        ("cancelled", "not_started", (True, "not_started")),
        ("completed", "agent", (False, "idle")),
        ("timed_out", "killed", (False, "idle")),
        ("failed", "agent", (False, "idle")),
    ],
)
def test_receipts(ending: Ending, how: How, told: tuple[bool, How]) -> None:
    """A cancel is acknowledged only when the turn has ended as cancelled."""
    result = TurnResult(turn_index=3, ending=ending, stop_reason="x", duration_ms=1)
    assert receipt_for(result, how, 7) == CancelReceipt(told[0], 3, told[1], 7)


def option(option_id: object, kind: str) -> dict[str, Any]:
    """A permission option."""
    return {"optionId": option_id, "kind": kind}


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        ([], None),
        ([option("a", "allow_once")], None),
        ([option("a", "allow_once"), option("n", "reject_once")], "n"),
        ([option("N", "reject_always"), option("n", "reject_once")], "n"),
        ([option("N", "reject_always")], "N"),
        ([{"kind": "reject_once"}, option(5, "reject_once")], None),
    ],
)
def test_the_mildest_rejection_is_chosen(options: list[dict[str, Any]], chosen: str | None) -> None:
    """Once before always; no option without an id."""
    assert choose_rejection(options) == chosen


def update(text: str) -> dict[str, Any]:
    """A piece of an answer, as an agent sends it."""
    chunk = {"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": text}}
    return {"method": "session/update", "params": {"update": chunk}}


@given(st.lists(st.tuples(st.sampled_from(["update", "request"]), st.integers(1, 50))))
def test_a_transcript_keeps_its_limit_and_its_order(said: list[tuple[str, int]]) -> None:
    """Only the oldest updates are dropped, each is counted, and requests stay."""
    transcript, messages = Transcript(100), []
    for number, (kind, size) in enumerate(said):
        message = update(str(number)) if kind == "update" else {"method": "x", "id": number}
        messages.append(message)
        transcript.add(message, update_of(message), json.dumps(message), size)
    kept = json.loads(transcript.events)
    assert transcript.dropped == len(messages) - len(kept)
    assert [m for m in messages if m["method"] == "x"] == [m for m in kept if m["method"] == "x"]
    updates = [m for m in kept if m["method"] != "x"]
    assert (
        updates
        == [m for m in messages if m["method"] != "x"][-len(updates) or None :][: len(updates)]
    )


def test_the_text_of_a_transcript_is_bounded_too() -> None:
    """An endless answer costs no more than the limit."""
    transcript = Transcript(10)
    for _ in range(5):
        piece = update("abcd")
        transcript.add(piece, update_of(piece), "{}", 4)
    assert transcript.text == "abcdabcdab"


def test_a_transcript_joins_both_sources_of_usage() -> None:
    """The response's tokens do not take the place of what the agent said of its context."""
    transcript = Transcript(1000)
    context = {"sessionUpdate": "usage_update", "used": 2, "size": 9}
    for message in (
        {"method": "session/update", "params": {"update": context}},
        {"id": 2, "result": {"usage": {"totalTokens": 12}}},
    ):
        transcript.add(message, update_of(message), "{}", 10)
    assert transcript.usage == {"used": 2, "size": 9, "totalTokens": 12}
