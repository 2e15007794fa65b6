"""The bodies of successful answers, and how any answer becomes JSON.

Field names are the contract's, and the key sets are exact: a field that is ``OMITTED`` is not in
the body at all, any other one always is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final

import attrs

from clawdforge.domain.ports import AppRow, Ending, SessionRow
from clawdforge.domain.questions import PendingPermission
from clawdforge.domain.runs import RunResult
from clawdforge.domain.turns import How, TurnResult
from clawdforge.protocol.menus import NO_MENUS, Menu, Menus

OMITTED: Final[Any] = object()
"""The value of a field that is left out of the body."""


class _Verbatim(str):
    """See ``verbatim``."""

    __slots__ = ()


def verbatim(text: str) -> Any:  # noqa: ANN401 - as OMITTED
    """JSON that goes into an answer as it stands; only as the field ``events`` of one."""
    return _Verbatim(text)


@attrs.frozen
class Done:
    """``{ok: true}``, and whether there was nothing left to do."""

    ok: bool = True
    already_closed: bool = OMITTED


@attrs.frozen(kw_only=True)
class Health:
    """The answer of ``/healthz``."""

    ok: bool = True
    claude_present: bool
    claude_version: str | None
    acpx_present: bool
    acpx_version: str | None
    open_sessions: int


@attrs.frozen(kw_only=True)
class SessionCreated:
    """The answer of ``POST /sessions``."""

    ok: bool = True
    session_id: str
    agent: str
    model: str | None
    created_at: int


@attrs.frozen(kw_only=True)
class SessionView:
    """One session as its app sees it.

    ``models`` and ``modes`` are what its agent offers, in one session's answer and if it is known.
    """

    session_id: str
    agent: str
    model: str | None
    created_at: int
    last_turn_at: int | None
    turn_count: int
    closed_at: int | None
    live: bool
    meta: Mapping[str, Any]
    models: Menu = OMITTED
    modes: Menu = OMITTED

    @classmethod
    def of(cls, row: SessionRow, *, is_live: bool, menus: Menus = NO_MENUS) -> SessionView:
        """The view of a row; ``is_live`` says whether an actor holds it now."""
        return cls(
            session_id=row.session_id,
            agent=row.agent,
            model=row.model,
            created_at=row.created_at,
            last_turn_at=row.last_turn_at,
            turn_count=row.turn_count,
            closed_at=row.closed_at,
            live=is_live,
            meta=row.meta,
            models=menus.models or OMITTED,
            modes=menus.modes or OMITTED,
        )


@attrs.frozen
class SessionList:
    """The answer of ``GET /sessions``: newest first."""

    sessions: Sequence[SessionView]
    count: int


@attrs.frozen(kw_only=True)
class TurnDone:
    """The answer of a turn that completed or was cancelled.

    ``usage`` is there if the agent reported it, ``events_dropped`` and ``skipped_lines`` if they
    are not zero.
    """

    ok: bool = True
    session_id: str
    turn_index: int
    events: Sequence[Mapping[str, Any]]
    stop_reason: str
    duration_ms: int
    text: str
    usage: Mapping[str, Any] = OMITTED
    events_dropped: int = OMITTED
    skipped_lines: int = OMITTED

    @classmethod
    def of(
        cls, session_id: str, result: TurnResult, events: Sequence[Mapping[str, Any]]
    ) -> TurnDone:
        """The answer for a result, with its events in the form that was asked for."""
        return cls(
            session_id=session_id,
            turn_index=result.turn_index,
            events=events,
            stop_reason=result.stop_reason,
            duration_ms=result.duration_ms,
            text=result.text,
            usage=OMITTED if result.usage is None else result.usage,
            events_dropped=result.events_dropped or OMITTED,
            skipped_lines=result.skipped_lines or OMITTED,
        )


@attrs.frozen(kw_only=True)
class TurnCancelled:
    """The receipt of a cancel. ``cancelled`` is false when the turn had ended before, or had none.

    ``how`` is ``agent`` (it stopped at the word), ``killed``, ``not_started`` or ``idle``.
    """

    ok: bool = True
    cancelled: bool
    turn_index: int | None
    how: How
    took_ms: int


@attrs.frozen(kw_only=True)
class TurnView:
    """One turn of a session's history; null is what a turn in progress does not have yet.

    ``cut`` is there when a text is not shown whole.
    """

    turn_index: int
    prompt: str
    started_at: int
    ended_at: int | None
    duration_ms: int | None
    ending: Ending | None
    stop_reason: str | None
    detail: str | None
    text: str | None
    first_event: int | None
    last_event: int | None
    usage: Mapping[str, Any] = OMITTED
    cancelled_tool_calls: Sequence[str] = OMITTED
    cut: bool = OMITTED


@attrs.frozen
class TurnList:
    """A page of ``GET /sessions/{id}/turns``; the next one is ``before`` ``next_before``."""

    turns: Sequence[TurnView]
    next_before: int | None


@attrs.frozen(kw_only=True)
class PermissionView:
    """A permission request that waits; at ``expires_at`` it is rejected."""

    request_id: str
    turn_index: int
    tool_call: Mapping[str, Any]
    options: Sequence[Mapping[str, Any]]
    expires_at: int

    @classmethod
    def of(cls, pending: PendingPermission) -> PermissionView:
        """The view of a request."""
        return cls(
            request_id=pending.request_id,
            turn_index=pending.turn_index,
            tool_call=pending.tool_call,
            options=pending.options,
            expires_at=pending.expires_at,
        )


@attrs.frozen
class PermissionList:
    """The answer of ``GET /sessions/{id}/permissions``: oldest first."""

    permissions: Sequence[PermissionView]
    count: int


@attrs.frozen
class Page:
    """An answer that is no JSON: bytes of ours, sent as they are."""

    body: bytes = attrs.field(repr=False)
    content_type: str
    headers: tuple[tuple[str, str], ...] = ()


@attrs.frozen
class FileKept:
    """The answer of ``POST /files``: the only time that the token's text is shown."""

    file_token: str = attrs.field(repr=False)
    ttl_secs: int
    size: int


@attrs.frozen(kw_only=True)
class RunDone:
    """The answer of a run that succeeded: exactly these. ``result`` is any JSON, or text."""

    ok: bool = True
    result: Any
    duration_ms: int
    stop_reason: str

    @classmethod
    def of(cls, result: RunResult) -> RunDone:
        """The answer for a result."""
        return cls(
            result=result.result, duration_ms=result.duration_ms, stop_reason=result.stop_reason
        )


STDERR_CHARACTERS: Final = 2000
"""The most of a run's stderr that an answer carries."""


@attrs.frozen(kw_only=True)
class RunFailed:
    """The flat body of a run that failed: kept for clients that read no problem documents."""

    ok: bool = False
    error: str
    stderr: str
    duration_ms: int
    stop_reason: str

    @classmethod
    def of(cls, result: RunResult) -> RunFailed:
        """The answer for a result."""
        return cls(
            error=result.error or "the run failed",
            stderr=result.raw_stderr[-STDERR_CHARACTERS:],
            duration_ms=result.duration_ms,
            stop_reason=result.stop_reason,
        )


@attrs.frozen
class TokenMinted:
    """The answer of ``POST /admin/tokens``: the only time that the token's text is shown."""

    name: str
    token: str = attrs.field(repr=False)
    ip_cidrs: Sequence[str]


@attrs.frozen
class TokenView:
    """One token as the admin sees it."""

    name: str
    ip_cidrs: Sequence[str]
    created_at: int

    @classmethod
    def of(cls, row: AppRow) -> TokenView:
        """The view of a row."""
        return cls(row.name, row.ip_cidrs, row.created_at)


@attrs.frozen
class TokenList:
    """The answer of ``GET /admin/tokens``."""

    tokens: Sequence[TokenView]


def to_json(value: object) -> bytes:
    """Any answer as JSON in UTF-8.

    An agent's words may hold what UTF-8 or JSON cannot: a lone surrogate goes out escaped as it
    came in, a number that JSON does not know goes out as null.
    """
    body = _dump_sound(_to_plain(value))
    events = getattr(value, "events", None)
    if type(events) is _Verbatim:
        # The first in there is ours: in a text its quotes would be escaped.
        body = body.replace(b'"events":null', b'"events":' + events.encode(), 1)
    return body


def _dump_sound(plain: object) -> bytes:
    try:
        return _dump(plain).encode()
    except UnicodeEncodeError:
        return json.dumps(plain, separators=(",", ":")).encode()
    except ValueError:
        return _dump(json.loads(json.dumps(plain), parse_constant=lambda _: None)).encode()


def _dump(value: object) -> str:
    return _ENCODER.encode(value)


_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
"""One for all answers: ``json.dumps`` with options makes another each time."""


_PLAIN: Final = frozenset({str, int, bool, float, type(None), dict})
"""What is JSON as it stands: nearly all there is to look at."""


@cache
def _names(kind: type[Any]) -> tuple[str, ...] | None:
    """The fields of an answer's class; None for what is no answer."""
    return tuple(field.name for field in attrs.fields(kind)) if attrs.has(kind) else None


def _to_plain(value: object) -> object:
    """Answers become dicts, without their omitted fields; what is no answer stays as it is."""
    kind: type[Any] = type(value)
    if kind in _PLAIN:
        return value
    if kind is _Verbatim:
        return None
    names = _names(kind)  # type: ignore[arg-type]  # a class is hashable
    if names is not None:
        plain = {}
        for name in names:
            inner = getattr(value, name)
            if inner is not OMITTED:
                plain[name] = inner if type(inner) in _PLAIN else _to_plain(inner)
        return plain
    if isinstance(value, (list, tuple)):
        return [_to_plain(inner) for inner in value]
    return dict(value) if isinstance(value, Mapping) else value
