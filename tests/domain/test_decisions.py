"""The pure decisions: admission, restarts, verdicts, rejections, transcripts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clawdforge.domain.admission import refuse_admission
from clawdforge.domain.ids import AgentName
from clawdforge.domain.permissions import choose_rejection
from clawdforge.domain.restarting import Intensity, RestartHistory
from clawdforge.domain.transcript import Transcript
from clawdforge.domain.turns import StopCause, judge_turn
from clawdforge.errors import AgentExited, AgentTimedOut, PoolFull, ShuttingDown

AGENT = AgentName("demo")
DIED = AgentExited(AGENT, "exit code 3")


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
    ],
)
def test_verdicts(
    cause: StopCause | None, answer: str | AgentExited | None, ending: str, stop_reason: str
) -> None:
    """Every pair of why it was stopped and what came of it has one ending."""
    verdict = judge_turn(AGENT, cause, answer, 10)
    assert (verdict.ending, verdict.stop_reason) == (ending, stop_reason)
    expected = {"failed": AgentExited, "timed_out": AgentTimedOut}.get(ending, type(None))
    assert type(verdict.error) is expected


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
        transcript.add(message, size)
    kept = list(transcript.events)
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
        transcript.add(update("abcd"), 4)
    assert transcript.text == "abcdabcdab"
