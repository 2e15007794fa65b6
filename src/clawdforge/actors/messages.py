"""The messages of each actor: frozen, imperative, one closed union per mailbox.

``reply`` is where the answer goes; every message that has one gets exactly one answer.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from clawdforge.actors.mailbox import Ref, Reply
from clawdforge.actors.ticket import TurnTicket
from clawdforge.domain.ids import AppName
from clawdforge.domain.keys import IdempotencyKey
from clawdforge.domain.ports import SessionRow
from clawdforge.domain.questions import PendingPermission
from clawdforge.domain.runs import RunRequest, RunResult, RunStop
from clawdforge.domain.sweeping import SweepCounts
from clawdforge.domain.turns import CancelReceipt, TurnRequest, TurnTarget

# --- to a session ---------------------------------------------------------------------------------


@attrs.frozen
class StartTurn:
    """Run one turn; answered with a ticket when it is admitted, that is, in the ledger.

    With ``is_patient`` it is answered when the turn is over: for who would only wait for that.
    Abandoning the reply is leaving the ticket.
    """

    request: TurnRequest
    is_patient: bool
    reply: Reply[TurnTicket]


@attrs.frozen
class CancelTurn:
    """Stop a turn; answered when it is over, or at once with None when no such turn is in line."""

    target: TurnTarget
    reply: Reply[CancelReceipt | None]


@attrs.frozen
class DecidePermission:
    """Decide a pending permission request; answered when the decision is taken."""

    request_id: str
    option_id: str
    reply: Reply[None]


@attrs.frozen
class ListPermissions:
    """Answered with the permission requests that wait, oldest first."""

    reply: Reply[Sequence[PendingPermission]]


@attrs.frozen
class JoinBirth:
    """Answered with the row like the creation itself, which came under the same key."""

    reply: Reply[SessionRow]


@attrs.frozen
class CloseSession:
    """End the session and its actor; turns are cancelled first. ``cause`` goes into the audit.

    With ``only_if_idle`` a session that has a turn answers False and goes on (the sweeper's way).
    Answered True when the process tree is dead and the ledger says closed.
    """

    cause: str
    only_if_idle: bool
    reply: Reply[bool]


SessionMail = StartTurn | CancelTurn | DecidePermission | ListPermissions | JoinBirth | CloseSession
SessionRef = Ref[SessionMail]

# --- to the pool ----------------------------------------------------------------------------------


@attrs.frozen
class OpenSession:
    """Admit and start a new session; answered with its row when the agent has shaken hands.

    Abandoning the reply undoes it, unless it came under a ``key``: then the retry gets it.
    """

    row: SessionRow
    key: IdempotencyKey | None
    reply: Reply[SessionRow]


@attrs.frozen
class ActivateSession:
    """Give an open session without an actor (after a restart or crash) one again."""

    row: SessionRow
    reply: Reply[SessionRef]


@attrs.frozen
class CloseAll:
    """Close all live sessions (of one app, or of all); answered when they are gone."""

    cause: str
    app: AppName | None
    reply: Reply[None]


PoolMail = OpenSession | ActivateSession | CloseAll

# --- to the sweeper -------------------------------------------------------------------------------


@attrs.frozen
class Sweep:
    """Sweep now; answered with what was done."""

    reply: Reply[SweepCounts]


SweeperMail = Sweep

# --- to the runs ----------------------------------------------------------------------------------


@attrs.frozen
class StartRun:
    """Run a one-shot command; answered with how it went. Abandoning the reply stops it."""

    request: RunRequest
    reply: Reply[RunResult]


@attrs.frozen
class StopRuns:
    """Stop all runs (of one app, or of all); answered when nothing of them is left."""

    cause: RunStop
    app: AppName | None
    reply: Reply[None]


RunsMail = StartRun | StopRuns
