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


class Answer:
    """What the agent said at last: an ACP stop reason, or the error met instead."""

    def __init__(self) -> None:
        self.arrived = trio.Event()
        self.value: str | ClawdforgeError = SessionGone()

    async def ask(self, agent: Agent, turn: Turn) -> None:
        """Prompt the agent and keep what comes of it."""
        request = turn.request
        try:
            self.value = await agent.prompt(turn.index, request.prompt, request.files)
        except ClawdforgeError as error:
            self.value = error
        self.arrived.set()


async def converse(
    agent: Agent, turn: Turn, keeper: AgentKeeper, permissions: PermissionDesk, grace_secs: float
) -> str | ClawdforgeError:
    """Ask and wait; when the turn is stopped first, climb the ladder. The answer, or the error.

    Bounded by the turn's deadline, then ``grace_secs``, then the kill.
    """
    answer = Answer()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer.ask, agent, turn)
            turn.how = "agent"
            turn.silence.begin()
            with turn.unless_stopped(), turn.silence.scope as talking:
                await answer.arrived.wait()
            if talking.cancelled_caught:
                turn.stop(turn.silence.cause)
            if not answer.arrived.is_set():
                permissions.cancel_all()
                await _climb_ladder(agent, turn, keeper, answer, grace_secs)
            nursery.cancel_scope.cancel()
    finally:
        permissions.cancel_all()
    return answer.value


async def _climb_ladder(
    agent: Agent, turn: Turn, keeper: AgentKeeper, answer: Answer, grace_secs: float
) -> None:
    """Tell the agent, give it the grace, then kill its tree: the turn is over either way."""
    with trio.move_on_after(grace_secs):
        await agent.cancel(turn.index)
        await answer.arrived.wait()
    if not answer.arrived.is_set():
        turn.how = "killed"
        await keeper.kill()
        with trio.move_on_after(KILL_SECS):
            await answer.arrived.wait()
