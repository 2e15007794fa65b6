"""Idempotency keys in memory: the twin of :mod:`.keys`."""

from __future__ import annotations

import attrs

from clawdforge.domain.ids import AppName, SessionId
from clawdforge.domain.keys import CREATION_KEY_SECS, IdempotencyKey, KeyedCreation, KeyedTurn
from clawdforge.domain.ports import SessionRow, TurnEnd, TurnStart
from clawdforge.errors import IdempotencyKeyTaken
from clawdforge.store import rows


@attrs.define
class KeyRing:
    """Whom each key stands for, and the events that go with the answer of a turn."""

    creations: dict[tuple[AppName, str], KeyedCreation] = attrs.field(factory=dict)
    turns: dict[tuple[SessionId, str], KeyedTurn] = attrs.field(factory=dict)
    events: dict[tuple[SessionId, int], str] = attrs.field(factory=dict)

    def add_creation(self, key: IdempotencyKey, row: SessionRow) -> None:
        """Raises IdempotencyKeyTaken; drops what is too old."""
        since = row.created_at - CREATION_KEY_SECS
        self.creations = {
            held: made for held, made in self.creations.items() if made.created_at >= since
        }
        made = KeyedCreation(
            key.fields_sha256, row.session_id, row.agent, row.model, row.created_at
        )
        if self.creations.setdefault((row.app_name, key.name), made) is not made:
            raise IdempotencyKeyTaken

    def find_creation(self, app: AppName, name: str, *, since: int) -> KeyedCreation | None:
        """As the port describes it."""
        made = self.creations.get((app, name))
        return made if made is not None and made.created_at >= since else None

    def add_turn(self, key: IdempotencyKey, start: TurnStart) -> None:
        """Raises IdempotencyKeyTaken when it stands for another turn."""
        begun = KeyedTurn(key.fields_sha256, start.turn_index)
        held = self.turns.setdefault((start.session_id, key.name), begun)
        if held.turn_index != start.turn_index:
            raise IdempotencyKeyTaken(held.turn_index)

    def keep_events(self, end: TurnEnd) -> TurnEnd:
        """The ending as it is shown: without the events, which are kept beside it."""
        if end.kept_events is not None:
            self.events[end.session_id, end.turn_index] = end.kept_events
        facts = rows.read_meta(rows.facts_text(end.facts))
        return attrs.evolve(end, kept_events=None, audited_prompt=None, facts=facts)

    def forget(self, session_id: SessionId) -> None:
        """The keys and events of a session's turns go with it."""
        self.turns = {held: turn for held, turn in self.turns.items() if held[0] != session_id}
        self.events = {held: text for held, text in self.events.items() if held[0] != session_id}
