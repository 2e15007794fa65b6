"""The route of a cancel: it stops one turn and answers with a receipt, when that turn is over."""

from __future__ import annotations

from typing import Final

from clawdforge.config import Config
from clawdforge.domain.turns import TurnTarget
from clawdforge.errors import Fault, InvalidRequest, SessionGone, SessionNotFound, TurnNotFound
from clawdforge.web.answers import TurnCancelled
from clawdforge.web.bodies import CancelTurn
from clawdforge.web.operations import SHORT_SECS, Call, Operation
from clawdforge.web.sessions import read_session_id


async def cancel_turn(call: Call[CancelTurn]) -> TurnCancelled:
    """Stop a turn: the one that is named, else the one at work."""
    asked = call.asked
    if asked.turn_index is not None and asked.idempotency_key is not None:
        raise InvalidRequest([Fault("$.idempotency_key", "is not for a request with turn_index")])
    target = TurnTarget(asked.turn_index, asked.idempotency_key)
    receipt = await call.service.cancel_turn(read_session_id(call), call.app, target)
    return TurnCancelled(
        cancelled=receipt.is_cancelled,
        turn_index=receipt.turn_index,
        how=receipt.how,
        took_ms=receipt.took_ms,
    )


def cancelling_secs(config: Config) -> float:
    """The grace, then the kill and the ledger."""
    return config.cancel_grace_secs + 2 * SHORT_SECS


OPERATIONS: Final = (
    Operation(
        method="POST",
        path="/sessions/<session_id>/cancel",
        gate="app",
        handle=cancel_turn,
        summary="Cancel a turn and wait until it is over",
        asks=CancelTurn,
        is_body_optional=True,
        bound_secs=cancelling_secs,
        example={"turn_index": 1},
        answer=TurnCancelled(cancelled=True, turn_index=1, how="agent", took_ms=6),
        refusals=[SessionNotFound(), TurnNotFound(), SessionGone()],
    ),
)
