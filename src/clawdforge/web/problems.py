"""Every refusal as a problem document (RFC 9457): the one table from error class to status.

Nothing else in the program knows a status. Details are made from typed errors or are fixed texts:
no token, host path or traceback gets in. ``instance`` is the route with its parameters' names, not
their values, so that another app's session and one that never existed answer the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import attrs

from clawdforge import errors
from clawdforge.domain.turns import TurnResult
from clawdforge.web.answers import to_json

CONTENT_TYPE: Final = "application/problem+json"

UNROUTED: Final = "/"
"""``instance`` where no route was met: the path is the caller's and is not repeated."""


@attrs.frozen
class Kind:
    """A kind of problem: its status and title. ``detail`` replaces the error's own words."""

    status: int
    title: str
    detail: str | None = None

    @property
    def slug(self) -> str:
        """The last part of the ``type`` URN."""
        return self.title.lower().replace(" ", "-")


KINDS: Final[Mapping[type[errors.ClawdforgeError], Kind]] = {
    errors.InvalidRequest: Kind(422, "Invalid request"),
    errors.NotAuthenticated: Kind(401, "Not authenticated"),
    errors.NotAllowed: Kind(403, "Not allowed"),
    errors.SessionNotFound: Kind(404, "Session not found"),
    errors.TurnNotFound: Kind(404, "Turn not found"),
    errors.IdempotencyKeyReused: Kind(422, "Idempotency key reused"),
    errors.IdempotencyKeyTaken: Kind(409, "Idempotency key taken"),
    errors.PermissionNotFound: Kind(404, "Permission not found"),
    errors.PermissionDecided: Kind(409, "Permission decided"),
    errors.UnknownFileToken: Kind(422, "Unknown file token"),
    errors.AppNotFound: Kind(404, "Token not found", "no token has that name"),
    errors.AppNameTaken: Kind(409, "Name taken"),
    errors.SessionClosed: Kind(410, "Session closed"),
    errors.SessionBusy: Kind(409, "Session busy"),
    errors.BodyTooSlow: Kind(408, "Request Timeout"),
    errors.TooLarge: Kind(413, "Too large"),
    errors.PoolFull: Kind(503, "Pool full"),
    errors.RunsFull: Kind(503, "Runs full"),
    errors.ShuttingDown: Kind(503, "Shutting down"),
    errors.CircuitOpen: Kind(503, "Circuit open"),
    errors.MachineFull: Kind(503, "Machine full"),
    errors.TooManyStarts: Kind(503, "Too many starts"),
    errors.AgentNotStarted: Kind(502, "Agent not started"),
    errors.AgentExited: Kind(502, "Agent exited"),
    errors.AgentMisbehaved: Kind(502, "Agent misbehaved"),
    errors.AgentTimedOut: Kind(504, "Agent timed out"),
    errors.AgentNeverSpoke: Kind(504, "Agent never spoke"),
    errors.AgentFellSilent: Kind(504, "Agent fell silent"),
    errors.AgentNotResumable: Kind(502, "Agent not resumable"),
    errors.SessionGone: Kind(503, "Session gone"),
    errors.StoreUnavailable: Kind(503, "Ledger not available", "the ledger is not available now"),
    errors.FilesUnavailable: Kind(503, "Files not available", "files cannot be kept just now"),
    errors.NotReady: Kind(503, "Not ready"),
    errors.TooSlow: Kind(503, "Too slow"),
    errors.RuntimeNotInstalled: Kind(502, "Runtime not installed"),
    errors.WrongConfiguration: Kind(500, "Wrong configuration", "a setting is wrong; see the log"),
    errors.DataDirectoryBusy: Kind(500, "Data directory busy"),
}

OUR_BUG: Final = Kind(500, "Internal error", "an error of ours; the log has it under this request")

_FRAMEWORK_DETAILS: Final = {
    400: "the request is not valid HTTP for this server",
    404: "there is no such route",
    405: "this route does not take that method",
    406: "this route answers with text/event-stream or application/x-ndjson",
    408: "the body did not arrive in time",
    426: "this server does not speak WebSocket",
}


RUN_FAILED: Final = 502
"""The status of the one failure that is no problem document: ``POST /run``'s."""


@attrs.frozen
class Flat:
    """A failure in the old form: a status and a flat body. It is a result, not an exception."""

    status: int
    body: object


@attrs.frozen
class Problem:
    """One refusal, ready to be written: ``members`` are the extra members of the document."""

    kind: Kind
    detail: str
    members: Mapping[str, Any] = attrs.field(factory=dict)
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.kind.status

    def to_bytes(self, instance: str) -> bytes:
        """The document; ``ok: false`` is there for the clients that read nothing else."""
        document = {
            "type": f"urn:clawdforge:problem:{self.kind.slug}",
            "title": self.kind.title,
            "status": self.kind.status,
            "detail": self.detail,
            "instance": instance,
            "ok": False,
        }
        return to_json({**document, **self.members})


def describe_error(error: BaseException) -> Problem:
    """The problem of an error of ours; anything else is a bug of ours and says nothing."""
    kind = _find_kind(type(error))
    if kind is None:
        return Problem(OUR_BUG, OUR_BUG.detail or "")
    return Problem(kind, kind.detail or str(error), _members(error), _headers(error))


def describe_status(status: int, headers: tuple[tuple[str, str], ...] = ()) -> Problem:
    """The problem of a status that the framework chose: unknown route, wrong method, ..."""
    title = HTTPStatus(status).phrase
    detail = _FRAMEWORK_DETAILS.get(status, title.lower())
    return Problem(Kind(status, title), detail, headers=headers)


def describe_turn(result: TurnResult) -> Problem:
    """The problem of an admitted turn that failed (502) or passed its deadline (504)."""
    members = {
        "turn_index": result.turn_index,
        "stop_reason": result.stop_reason,
        "duration_ms": result.duration_ms,
    }
    if isinstance(result.error, errors.AgentError | errors.CapacityError):
        problem = describe_error(result.error)
    elif result.ending == "timed_out":
        problem = Problem(KINDS[errors.AgentTimedOut], "the turn passed its deadline")
    elif result.ending == "interrupted":
        problem = Problem(Kind(502, "Turn interrupted"), "the turn's outcome is unknown")
    else:
        problem = Problem(Kind(502, "Turn failed"), str(result.error or "the turn failed"))
    return attrs.evolve(problem, members={**problem.members, **members})


def _find_kind(error: type[BaseException]) -> Kind | None:
    for ancestor in error.__mro__:
        if issubclass(ancestor, errors.ClawdforgeError) and ancestor in KINDS:
            return KINDS[ancestor]
    return None


def _members(error: BaseException) -> Mapping[str, Any]:
    if isinstance(error, errors.InvalidRequest):
        return {"faults": [attrs.asdict(fault) for fault in error.faults]}
    return {}


def _headers(error: BaseException) -> tuple[tuple[str, str], ...]:
    if isinstance(error, errors.NotAuthenticated):
        return (("WWW-Authenticate", "Bearer"),)
    if isinstance(error, errors.CapacityError):
        return (("Retry-After", str(error.retry_after_secs)),)
    if _is_passing(error):
        return (("Retry-After", "1"),)
    return ()


def _is_passing(error: BaseException) -> bool:
    """Whether it is likely to be over in a second: the store locked, an actor ending."""
    kind = _find_kind(type(error))
    return kind is not None and kind.status == 503
