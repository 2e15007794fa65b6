"""Idempotency keys in the ledger: whom they stand for, how long, and what goes with them."""

from __future__ import annotations

import attrs
import pytest

from clawdforge.domain.keys import CREATION_KEY_SECS, IdempotencyKey, KeyedCreation, KeyedTurn
from clawdforge.domain.ports import AuditRow, Store
from clawdforge.errors import IdempotencyKeyTaken

from .examples import LAB, SHOP, ended, session, session_id, turn

KEY = IdempotencyKey("order 66", "digest")


async def test_a_creation_is_found_by_its_key(store: Store) -> None:
    """Under the app's own key, as it was answered; not under another's, nor another app's."""
    row = session(model="m")
    await store.add_session(row, KEY)
    found = await store.find_creation(LAB, KEY.name, since=0)
    assert found == KeyedCreation("digest", row.session_id, "demo", "m", row.created_at)
    assert await store.find_creation(SHOP, KEY.name, since=0) is None
    assert await store.find_creation(LAB, "another", since=0) is None
    assert await store.find_creation(LAB, KEY.name, since=row.created_at + 1) is None


async def test_a_creation_key_is_used_once(store: Store) -> None:
    """A second session under a key is refused, and nothing of it is written."""
    await store.add_session(session(1), KEY)
    with pytest.raises(IdempotencyKeyTaken):
        await store.add_session(session(2), KEY)
    assert await store.find_session(session_id(2), LAB) is None
    assert await store.list_audit(session_id(2)) == []
    await store.add_session(session(1), KEY)
    await store.add_session(session(3, app_name=SHOP), KEY)


async def test_a_creation_key_outlives_its_session_and_not_its_day(store: Store) -> None:
    """Deleting the session leaves the key; a day later it may be used again."""
    row = session()
    await store.add_session(row, KEY)
    await store.delete_session(row.session_id, at=row.created_at + 5)
    assert await store.find_creation(LAB, KEY.name, since=0) is not None
    late = row.created_at + CREATION_KEY_SECS + 1
    await store.add_session(session(2, created_at=late), KEY)
    found = await store.find_creation(LAB, KEY.name, since=0)
    assert found is not None
    assert found.session_id == session_id(2)


async def test_a_turn_is_found_by_its_key(store: Store) -> None:
    """From its beginning, in its own session only."""
    await store.add_session(session(1))
    await store.add_session(session(2))
    await store.begin_turn(attrs.evolve(turn(), key=KEY))
    assert await store.find_keyed_turn(session_id(1), KEY.name) == KeyedTurn("digest", 1)
    assert await store.find_keyed_turn(session_id(2), KEY.name) is None
    assert await store.find_keyed_turn(session_id(1), "another") is None


async def test_a_turn_key_is_used_once(store: Store) -> None:
    """Another turn under it is refused and leaves no row; the same one again is a no-op."""
    await store.add_session(session())
    begun = attrs.evolve(turn(), key=KEY)
    await store.begin_turn(begun)
    await store.begin_turn(begun)
    with pytest.raises(IdempotencyKeyTaken) as taken:
        await store.begin_turn(attrs.evolve(turn(index=2), key=KEY))
    assert taken.value.turn_index == 1
    assert await store.find_turn(session_id(1), 2) is None


async def test_events_are_kept_beside_the_ending(store: Store) -> None:
    """They are read by themselves, and only those of a turn that was ended with them."""
    await store.add_session(session())
    await store.begin_turn(turn())
    await store.begin_turn(turn(index=2))
    await store.end_turn(attrs.evolve(ended(), kept_events='[{"a": 1}]', facts={"usage": {"n": 1}}))
    await store.end_turn(ended(index=2))
    assert await store.find_kept_events(session_id(1), 1) == '[{"a": 1}]'
    assert await store.find_kept_events(session_id(1), 2) is None
    found = await store.find_turn(session_id(1), 1)
    assert found is not None
    assert found.end == attrs.evolve(ended(), facts={"usage": {"n": 1}})


async def test_only_the_first_ending_keeps_events(store: Store) -> None:
    """A second ending changes nothing, its events included."""
    await store.add_session(session())
    await store.begin_turn(turn())
    await store.end_turn(attrs.evolve(ended(), kept_events="[1]"))
    assert await store.end_turn(attrs.evolve(ended(), kept_events="[2]")) is False
    assert await store.find_kept_events(session_id(1), 1) == "[1]"


async def test_what_a_turn_kept_goes_with_its_session(store: Store) -> None:
    """Keys and events are session data."""
    await store.add_session(session())
    await store.begin_turn(attrs.evolve(turn(), key=KEY))
    await store.end_turn(attrs.evolve(ended(), kept_events="[1]"))
    await store.delete_session(session_id(1), at=9)
    assert await store.find_keyed_turn(session_id(1), KEY.name) is None
    assert await store.find_kept_events(session_id(1), 1) is None


async def test_one_turn_is_found_by_its_index(store: Store) -> None:
    """With its ending once it has one; another index is nothing."""
    await store.add_session(session())
    await store.begin_turn(turn())
    found = await store.find_turn(session_id(1), 1)
    assert found is not None
    assert (found.start, found.end) == (turn(), None)
    assert await store.find_turn(session_id(1), 2) is None
    assert await store.find_turn(session_id(2), 1) is None


async def test_a_permission_is_noted_once(store: Store) -> None:
    """Each decision is one line of the audit, with its request's id."""
    await store.add_session(session())
    row = AuditRow(session_id(1), "permission", 7, {"by": "caller"})
    await store.note_permission(row, "r1")
    await store.note_permission(row, "r1")
    await store.note_permission(row, "r2")
    noted = [row.meta for row in await store.list_audit(session_id(1)) if row.event != "create"]
    assert noted == [
        {"by": "caller", "request_id": "r1"},
        {"by": "caller", "request_id": "r2"},
    ]
