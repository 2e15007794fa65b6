"""One end of a JSON-RPC 2.0 connection: lines in, values out; values in, lines out. No I/O here.

The rule: *a response belongs to a request of ours, or to nobody.* Both sides number their requests
themselves and the numbers collide (agents begin at 0, as we do); so an id says nothing by itself:
what has a ``method`` is the other side's, what has none answers ours. What fits neither is stray
and changes nothing. Batches are not part of ACP and are no messages here.
Source: https://www.jsonrpc.org/specification, sections 4 and 5.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import attrs

from clawdforge.protocol.ndjson import parse_line

Id = int | float | str | None
"""What names a request. Ours are integers; the other side's are given back as they came."""

METHOD_NOT_FOUND: Final = -32601
"""The method does not exist or is not available (section 5.1)."""


@attrs.frozen
class Call:
    """The other side asks; it waits for ``answer`` or ``refuse`` with this id."""

    request_id: Id
    method: str
    params: Mapping[str, Any]
    message: Mapping[str, Any]


@attrs.frozen
class Notice:
    """The other side tells, and waits for nothing."""

    method: str
    params: Mapping[str, Any]
    message: Mapping[str, Any]


@attrs.frozen
class Answer:
    """The result of our request ``request_id``; an empty mapping when it is no object."""

    request_id: int
    result: Mapping[str, Any]
    message: Mapping[str, Any]


@attrs.frozen
class Refusal:
    """Our request ``request_id`` failed on the other side, in its words."""

    request_id: int
    code: int | None
    reason: str
    message: Mapping[str, Any]


@attrs.frozen
class Stray:
    """A JSON object that is no message, or an answer to nothing that was asked."""

    message: Mapping[str, Any]


Incoming = Call | Notice | Answer | Refusal | Stray


class Peer:
    """Numbers what we ask and knows what is still open. Holds nothing else."""

    def __init__(self) -> None:
        self._next_id = 0
        self._open: set[int] = set()

    def __repr__(self) -> str:
        return f"<Peer {len(self._open)} open of {self._next_id}>"

    def ask(self, method: str, params: Mapping[str, Any]) -> tuple[int, bytes]:
        """A request: its id, under which the answer will come, and the line to send."""
        request_id, self._next_id = self._next_id, self._next_id + 1
        self._open.add(request_id)
        return request_id, _line(id=request_id, method=method, params=params)

    def forget(self, request_id: int) -> None:
        """Nobody waits for that answer any more: it will be stray. Unknown: a no-op."""
        self._open.discard(request_id)

    def receive(self, line: bytes) -> Incoming | None:
        """What a line of the other side's means; None when it holds no JSON object."""
        message = parse_line(line)
        if message is None:
            return None
        if "method" in message:
            return _from_their_side(message)
        request_id = message.get("id")
        # Exactly an integer: in Python True and 1.0 would be found under 1.
        if type(request_id) is not int or request_id not in self._open:
            return Stray(message)
        self._open.discard(request_id)
        if message.get("error") is not None:
            return _refusal(request_id, message)
        return Answer(request_id, mapping(message.get("result")), message)


def tell(method: str, params: Mapping[str, Any]) -> bytes:
    """The line of a notification."""
    return _line(method=method, params=params)


def answer(request_id: Id, result: Mapping[str, Any]) -> bytes:
    """The line that answers a :class:`Call`."""
    return _line(id=request_id, result=result)


def refuse(request_id: Id, code: int, reason: str) -> bytes:
    """The line that refuses a :class:`Call`."""
    return _line(id=request_id, error={"code": code, "message": reason})


def mapping(value: object) -> Mapping[str, Any]:
    """``value`` if it is an object, else an empty one: an agent's fields may hold anything."""
    return value if isinstance(value, dict) else {}


def _from_their_side(message: dict[str, Any]) -> Incoming:
    method, params = message["method"], mapping(message.get("params"))
    if not isinstance(method, str):
        return Stray(message)
    if "id" not in message:
        return Notice(method, params, message)
    if isinstance(message["id"], bool | list | dict):  # no id by section 4; it cannot be answered
        return Stray(message)
    return Call(message["id"], method, params, message)


def _refusal(request_id: int, message: dict[str, Any]) -> Refusal:
    error = mapping(message["error"])
    code, reason = error.get("code"), error.get("message")
    return Refusal(
        request_id,
        code if type(code) is int else None,
        reason if isinstance(reason, str) else "it gave no reason",
        message,
    )


def _line(**fields: object) -> bytes:
    """One message. ASCII only: readers that break lines at U+2028 read it too."""
    return _ENCODER.encode({"jsonrpc": "2.0", **fields}).encode("ascii") + b"\n"


_ENCODER: Final = json.JSONEncoder(separators=(",", ":"))
"""One for all lines: ``json.dumps`` with options makes another each time."""
