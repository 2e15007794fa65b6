"""The log's lines have a bound."""

from __future__ import annotations

from clawdforge.logs import FIELD_CHARACTERS, bound_fields


def test_long_texts_are_cut() -> None:
    """Whatever a caller or an agent says, a field has its end; what is no text stays."""
    event = {"event": "request", "method": "X" * 32_000, "status": 200, "peer": None}
    bounded = bound_fields(None, "info", event)
    assert len(bounded["method"]) == FIELD_CHARACTERS
    assert bounded["method"].endswith("…")
    assert (bounded["event"], bounded["status"], bounded["peer"]) == ("request", 200, None)
