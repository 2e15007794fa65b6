"""What an agent said in one turn, within a size. Pure: fed message by message, read at the end.

Past the limit the oldest updates are left out and counted; the text and every message that is not
an update (requests, the response) stay. Source: HTTP contract, turn events.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from clawdforge.domain.ports import Message
from clawdforge.protocol.acp import context_in, text_in, tokens_in, tool_call_in

MAX_OPEN_CALLS: Final = 1000
MAX_CALL_ID: Final = 200
"""Open tool calls that are remembered, and characters of an id: far beyond any real agent's."""


class Transcript:
    """The events of one turn, at most ``limit_bytes`` of them as they were on the wire.

    They are held as text: parsed they would be several times as large. The answer's text is held to
    the same limit of its own, so that a turn costs at most twice that.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._events: deque[tuple[str, int, bool]] = deque()
        self._kept: list[str] = []
        self._size = 0
        self._text: list[str] = []
        self._text_size = 0
        self.dropped = 0
        self.skipped_lines = 0
        self._context: Mapping[str, Any] = {}
        self._tokens: Mapping[str, Any] = {}
        self.open_calls: dict[str, None] = {}

    def add(self, message: Message, update: Message | None, text: str, size_bytes: int) -> None:
        """Take one more message: the update it carries, its JSON ``text``, the size of that."""
        may_go = message.get("method") == "session/update"
        self._events.append((text, size_bytes, may_go))
        self._size += size_bytes
        if update is not None:
            self._add_text(text_in(update))
            self._follow_calls(update)
        if update is None:
            self._tokens = tokens_in(message) or self._tokens
        elif update["sessionUpdate"] == "usage_update":
            self._context = context_in(update) or self._context
        while self._size > self._limit and len(self._events) > 1:
            self._drop_oldest()

    @property
    def events(self) -> str:
        """The messages in order, as one JSON array. Those that outlived the limit come first."""
        return f"[{','.join((*self._kept, *(event[0] for event in self._events)))}]"

    @property
    def text(self) -> str:
        """The agent's answer in one string, thoughts excluded."""
        return "".join(self._text)

    @property
    def usage(self) -> Mapping[str, Any] | None:
        """What the agent says the turn used, in its own field names; None when it says nothing.

        Two sources, one mapping: the last ``usage_update`` (the context) and the prompt's response
        (tokens).
        """
        return {**self._context, **self._tokens} or None

    def _add_text(self, text: str) -> None:
        room = self._limit - self._text_size
        if text and room > 0:
            self._text.append(text[:room])
            self._text_size += len(text)

    def _follow_calls(self, update: Message) -> None:
        """Which tool calls are open, whatever was dropped; a call that only goes on is not new."""
        call = tool_call_in(update)
        if call is None:
            return
        call_id, is_open = call
        if not is_open:
            self.open_calls.pop(call_id, None)
        elif len(self.open_calls) < MAX_OPEN_CALLS:
            self.open_calls[call_id[:MAX_CALL_ID]] = None

    def _drop_oldest(self) -> None:
        text, size, may_go = self._events.popleft()
        self._size -= size
        if may_go:
            self.dropped += 1
        else:
            self._kept.append(text)
