"""Asking the agent one turn, and the ladder that stops it.

The rule: when ``converse`` returns, the agent works on the turn no more. Either it answered, or its
whole process tree is dead.
"""

from __future__ import annotations

from typing import Final

import trio

from clawdforge.actors.keeper import AgentKeeper
from clawdforge.actors.permissions import PermissionDesk
from clawdforge.actors.turn import Turn
from clawdforge.domain.ports import Agent
from clawdforge.errors import ClawdforgeError, SessionGone

KILL_SECS: Final = 15.0
"""How long a killed agent's ``prompt`` may take to say so; a tree dies in about 25 ms."""


async def converse(
    agent: Agent, turn: Turn, keeper: AgentKeeper, permissions: PermissionDesk, grace_secs: float
) -> str | ClawdforgeError | None:
    """Ask and wait; when the turn is stopped first, climb the ladder.

    What the agent said at last (an ACP stop reason), or the error met instead; None when it was
    stopped before the agent had the prompt. Bounded by the turn's deadline, then ``grace_secs``,
    then the kill.
    """
    asked = turn.request
    turn.how = "agent"
    try:
        with turn.unless_stopped() as talking:
            turn.silence.begin(talking)
            return await agent.prompt(turn.index, asked.prompt, asked.files)
        turn.stop(turn.silence.cause)  # unless it was stopped by something else
        permissions.cancel_all()
        answer = await _climb_ladder(agent, turn, keeper, grace_secs)
    except ClawdforgeError as error:
        return error
    else:
        if answer is None:
            turn.how = "not_started"
        return answer
    finally:
        permissions.cancel_all()


async def _climb_ladder(
    agent: Agent, turn: Turn, keeper: AgentKeeper, grace_secs: float
) -> str | ClawdforgeError | None:
    """Tell the agent, give it the grace, then kill its tree: the turn is over either way."""
    with trio.move_on_after(grace_secs):
        await agent.cancel(turn.index)
        return await agent.rejoin(turn.index)
    turn.how = "killed"
    await keeper.kill()
    with trio.move_on_after(KILL_SECS):
        return await agent.rejoin(turn.index)
    return SessionGone()
