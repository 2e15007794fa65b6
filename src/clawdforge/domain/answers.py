"""A turn's answer as the ledger keeps it, and back again: a retry gets what the first caller got.

Pure. What the turn's own columns say (text, ending, duration) is not kept twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from clawdforge import errors
from clawdforge.domain.ports import TurnEnd
from clawdforge.domain.turns import TurnResult
from clawdforge.errors import AgentMisbehaved, ClawdforgeError


def facts_of(result: TurnResult) -> dict[str, Any]:
    """What a result says beyond the columns of its turn and its events; ready for JSON."""
    facts = {
        "usage": None if result.usage is None else dict(result.usage),
        "events_dropped": result.events_dropped,
        "skipped_lines": result.skipped_lines,
        "cancelled_tool_calls": list(result.cancelled_tool_calls),
        "error": None if result.error is None else _pack(result.error),
    }
    return {name: fact for name, fact in facts.items() if fact}


def result_of(end: TurnEnd, kept_events: str | None) -> TurnResult:
    """The result that ``end`` was written for."""
    facts = end.facts
    return TurnResult(
        turn_index=end.turn_index,
        ending=end.ending,
        stop_reason=end.stop_reason,
        duration_ms=end.duration_ms,
        events=kept_events or "[]",
        events_dropped=facts.get("events_dropped", 0),
        skipped_lines=facts.get("skipped_lines", 0),
        text=end.text,
        usage=facts.get("usage"),
        error=_unpack(facts["error"], end) if "error" in facts else None,
        cancelled_tool_calls=tuple(facts.get("cancelled_tool_calls", ())),
    )


def _pack(error: ClawdforgeError) -> dict[str, Any]:
    kind: type[Any] = type(error)
    names = [field.name for field in attrs.fields(kind)] if attrs.has(kind) else []
    fields = {name: getattr(error, name) for name in names}
    return {"kind": kind.__name__, "fields": fields}


def _unpack(packed: Mapping[str, Any], end: TurnEnd) -> ClawdforgeError:
    """The error again; one that this version knows no more keeps its words."""
    kind = getattr(errors, packed["kind"], None)
    if isinstance(kind, type) and issubclass(kind, ClawdforgeError):
        try:
            return kind(**packed["fields"])
        except TypeError:
            pass
    return AgentMisbehaved("agent", end.detail or "an error that this version does not know")
