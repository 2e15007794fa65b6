"""Making a child's words fit to be shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clawdforge.processes.plain import LIMIT, plain_lines, plain_reason


@pytest.mark.parametrize(
    ("words", "plain"),
    [
        ("no such session", "no such session"),
        ("two\n  lines\tof it", "two lines of it"),
        ("open '/home/joe/.npmrc' failed", "open '…' failed"),
        ("see /root/x-1/y.log: gone", "see …: gone"),
        ("at file:///srv/app/a.mjs:3:1 x", "at … x"),
        ("request to https://registry.npmjs.org/acpx failed", None),
        ("proxy http://joe:pass@proxy:80 said no", "proxy http://proxy:80 said no"),
        ("either/or and 1/2", None),
        ("~/.config/x is missing", "… is missing"),
    ],
)
def test_paths_and_credentials_are_left_out(words: str, plain: str | None) -> None:
    """Absolute paths and credentials go; addresses and ordinary slashes stay (None: unchanged)."""
    assert plain_reason(words) == (words if plain is None else plain)


def test_hidden_values_are_left_out() -> None:
    """A credential does not show; a value too short to be one is no reason to blacken words."""
    said = "key sk-ant-12345 is on no list"
    assert plain_reason(said, hidden=["sk-ant-12345", "no", ""]) == "key … is on no list"


@given(st.text(max_size=2000))
def test_a_reason_is_one_bounded_line(text: str) -> None:
    """Whatever was said, the reason is one line within the limit."""
    reason = plain_reason(text)
    assert len(reason) <= LIMIT
    assert len(reason.splitlines()) <= 1


def test_the_end_of_many_lines_is_kept_as_lines() -> None:
    """What a program said last is the best hint; paths and secrets, split over lines or not, go."""
    said = "first\n\n  at /root/x.js:3\nkey = multi\nline-secret\nlast"
    plain = "first\nat …:3\nkey = …\nlast"
    assert plain_lines(said, hidden=["multi\nline-secret"], limit=100) == plain
    assert plain_lines("x" * 50 + "\nthe end", limit=8) == "…the end"
