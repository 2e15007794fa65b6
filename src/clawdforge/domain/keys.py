"""Idempotency keys: the same key with the same fields is the same request, however often it comes.

Pure. Source: HTTP contract part 2, after the IETF's draft on the Idempotency-Key header field.
"""

from __future__ import annotations

import re
from typing import Final, Protocol

import attrs

from clawdforge.domain.ids import AppName, SessionId
from clawdforge.errors import IdempotencyKeyReused

KEY_NAME: Final = re.compile(r"[\x20-\x7e]{1,255}")
"""Printable characters, 1 to 255 of them."""

CREATION_KEY_SECS: Final = 24 * 3600
"""How long the key of a creation is kept; that of a turn lives as long as its session."""


@attrs.frozen
class IdempotencyKey:
    """A caller's own name for a request, and a digest of the fields that it was sent with."""

    name: str
    fields_sha256: str


@attrs.frozen
class KeyedTurn:
    """The turn that a key stands for."""

    fields_sha256: str
    turn_index: int


@attrs.frozen
class KeyedCreation:
    """The session that a key stands for, as its creation was answered."""

    fields_sha256: str
    session_id: SessionId
    agent: str
    model: str | None
    created_at: int


def same_request(key: IdempotencyKey, fields_sha256: str) -> None:
    """Raises IdempotencyKeyReused unless ``key`` came with the same fields as then."""
    if key.fields_sha256 != fields_sha256:
        raise IdempotencyKeyReused


class KeyBook(Protocol):
    """The part of the ledger that holds keys: called by the service for requests that have one.

    Keys are written with what they stand for (``add_session``, ``begin_turn``). These methods keep
    the promises that all of :class:`~clawdforge.domain.ports.Store` keeps.
    """

    async def find_creation(self, app: AppName, name: str, *, since: int) -> KeyedCreation | None:
        """The session that the app has created under that key at or after ``since``."""

    async def find_keyed_turn(self, session_id: SessionId, name: str) -> KeyedTurn | None:
        """The turn of the session that was begun under that key."""

    async def find_kept_events(self, session_id: SessionId, turn_index: int) -> str | None:
        """The events that were kept with the ending of a turn, as JSON text."""
