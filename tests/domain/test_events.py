"""Numbered events: no number is passed over in silence, and sizes are bytes."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from clawdforge.domain.events import (
    Entry,
    EventPage,
    Gap,
    NumberedEvent,
    cut_off,
    last_number,
    name_gaps,
)


def events(*numbers: int) -> list[NumberedEvent]:
    """Events with these numbers."""
    return [NumberedEvent(number, "{}") for number in numbers]


def numbers_of(entries: Sequence[Entry]) -> list[int]:
    """Every number that the entries speak of."""
    spans = [
        range(one.first, one.last + 1) if isinstance(one, Gap) else (one.number,) for one in entries
    ]
    return [number for span in spans for number in span]


@given(after=st.integers(0, 20), kept=st.sets(st.integers(1, 40)), beyond=st.integers(0, 5))
def test_no_number_is_passed_over_in_silence(after: int, kept: set[int], beyond: int) -> None:
    """From where a reader stands to the page's end, each number is told once: shown or missing."""
    shown = sorted(number for number in kept if number > after)
    up_to = (shown[-1] if shown else after) + beyond
    entries = name_gaps(after, EventPage(events(*shown), up_to))
    assert numbers_of(entries) == list(range(after + 1, up_to + 1))
    assert [one.number for one in entries if isinstance(one, NumberedEvent)] == shown
    assert not entries or last_number(entries[-1]) == up_to


@given(st.lists(st.integers(1, 30), unique=True), st.integers(1, 30), st.integers(0, 5))
def test_cutting_off_keeps_what_is_not_beyond(kept: list[int], last: int, width: int) -> None:
    """Events and gaps up to the number stay, a gap across it is shortened."""
    entries: list[Entry] = [NumberedEvent(number, "{}") for number in sorted(kept)]
    entries.append(Gap(31, 31 + width))
    cut = cut_off(entries, last)
    assert [one.number for one in cut if isinstance(one, NumberedEvent)] == [
        number for number in sorted(kept) if number <= last
    ]
    assert cut_off(entries, None) == entries
    assert cut_off([Gap(1, 40)], last) == [Gap(1, last)]


def test_sizes_are_bytes() -> None:
    """What counts against every limit is the text in UTF-8."""
    made = [NumberedEvent(1, "abc"), NumberedEvent(1, "äbc")]
    assert [one.size_bytes for one in made] == [3, 4]
