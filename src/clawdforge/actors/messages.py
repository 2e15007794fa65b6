"""The messages of each actor: frozen, imperative, one closed union per mailbox.

``reply`` is where the answer goes; every message that has one gets exactly one answer.
"""

from __future__ import annotations

import attrs

from clawdforge.actors.mailbox import Ref, Reply
from clawdforge.actors.ticket import TurnTicket
from clawdforge.domain.ids import AppName
from clawdforge.domain.ports import SessionRow
from clawdforge.domain.sweeping import SweepCounts
from clawdforge.domain.turns import TurnRequest

# --- to a session ---------------------------------------------------------------------------------


@attrs.frozen
class StartTurn:
    """Run one turn; answered with a ticket when it is admitted, that is, in the ledger.

    Abandoning the reply is leaving the ticket.
    """

    request: TurnRequest
    reply: Reply[TurnTicket]


@attrs.frozen
class CloseSession:
    """End the session and its actor; turns are cancelled first. ``cause`` goes into the audit.

    With ``only_if_idle`` a session that has a turn answers False and goes on (the sweeper's way).
    Answered True when the process tree is dead and the ledger says closed.
    """

    cause: str
    only_if_idle: bool
    reply: Reply[bool]


SessionMail = StartTurn | CloseSession
SessionRef = Ref[SessionMail]

# --- to the pool ----------------------------------------------------------------------------------


@attrs.frozen
class OpenSession:
    """Admit and start a new session; answered with its row when the agent has shaken hands.

    Abandoning the reply undoes it.
    """

    row: SessionRow
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
