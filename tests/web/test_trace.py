"""How long a request may take, phase by phase."""

from __future__ import annotations

import math

import pytest
import trio

from clawdforge.errors import BodyTooSlow, TooSlow
from clawdforge.web.trace import Patience

pytestmark = pytest.mark.virtual_time


async def test_each_phase_has_its_own_time_and_its_own_words() -> None:
    """The body, then the handler: whichever is late is what the caller is told."""
    patience = Patience()
    patience.begin(1000)
    patience.allow(60, BodyTooSlow())
    assert (patience.scope.deadline, type(patience.otherwise)) == (
        trio.current_time() + 60,
        BodyTooSlow,
    )
    patience.allow(30)
    with patience.scope:
        await trio.sleep_forever()
    assert patience.scope.cancelled_caught
    assert isinstance(patience.otherwise, TooSlow)


async def test_no_phase_is_longer_than_the_whole() -> None:
    """The edge's own bound is the last word."""
    patience = Patience()
    patience.begin(10)
    patience.allow(1000)
    assert patience.scope.deadline == trio.current_time() + 10


async def test_an_answer_has_longer_than_its_handler() -> None:
    """A client that takes a long answer slowly has what is left of the whole."""
    patience = Patience()
    patience.begin(1000)
    patience.allow(30)
    patience.answer(is_live=False)
    assert patience.scope.deadline == trio.current_time() + 1000


async def test_a_live_answer_ends_by_its_own_rules() -> None:
    """No clock runs while a stream flows."""
    patience = Patience()
    patience.begin(1000)
    patience.answer(is_live=True)
    assert patience.scope.deadline == math.inf
