"""The one table from error to status, and what answers are made of."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from clawdforge import errors
from clawdforge.web.answers import Done, to_json
from clawdforge.web.problems import KINDS, describe_error

ROOTS = {
    errors.ClawdforgeError,
    errors.CallerError,
    errors.CapacityError,
    errors.AgentError,
    errors.ServiceError,
}


def walk(kind: type[errors.ClawdforgeError]) -> Iterator[type[errors.ClawdforgeError]]:
    """The class and all below it, of those that ``errors`` defines."""
    yield kind
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from walk(child)


def test_every_error_has_a_status() -> None:
    """Each concrete class of ``errors`` is in the table, and nothing else is."""
    assert set(KINDS) == set(walk(errors.ClawdforgeError)) - ROOTS


def test_titles_and_types_are_distinct() -> None:
    """Two kinds of problem never share a type."""
    assert len({kind.slug for kind in KINDS.values()}) == len(KINDS)


@pytest.mark.parametrize("error", [ValueError("token cf_abc at /home/x"), RuntimeError("x")])
def test_bugs_say_nothing(error: Exception) -> None:
    """What is no error of ours is 500, and its words stay here."""
    problem = describe_error(error)
    assert problem.status == 500
    assert b"cf_abc" not in problem.to_bytes("/")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Done(), {"ok": True}),
        (Done(already_closed=True), {"ok": True, "already_closed": True}),
        ({"x": "ü\U0001f600"}, {"x": "ü\U0001f600"}),
        ({"x": "\ud800"}, {"x": "\ud800"}),
        ({"x": [float("nan"), float("inf"), 1.5]}, {"x": [None, None, 1.5]}),
        ({"x": "\x00\u2028"}, {"x": "\x00\u2028"}),
    ],
)
def test_answers_are_valid_json(value: Any, expected: Any) -> None:
    """Whatever an agent said, the answer is JSON in UTF-8 and says the same."""

    def no_constants(word: str) -> None:
        raise AssertionError(word)

    assert json.loads(to_json(value).decode("utf-8"), parse_constant=no_constants) == expected
