"""Permission requests that wait for a decision: each one ends, by an answer, the clock or a cancel.

A request nobody decides in time gets a reject option and the turn goes on; one whose turn is
cancelled, and any that comes afterwards, gets the outcome ``cancelled`` (ACP, request_permission).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import structlog
import trio

from clawdforge.actors.turn import Turn
from clawdforge.domain.ids import SessionId
from clawdforge.domain.permissions import choose_rejection, is_offered
from clawdforge.domain.ports import Agent, AuditRow, Message, PermissionRequest, Store
from clawdforge.domain.profiles import Permissions
from clawdforge.domain.questions import (
    Decision,
    PendingPermission,
    decided_by_mode,
    describe_decision,
)
from clawdforge.errors import (
    Fault,
    InvalidRequest,
    PermissionDecided,
    PermissionNotFound,
    StoreUnavailable,
)

log: Final = structlog.get_logger("clawdforge.permissions")

WIRE_SECS: Final = 10.0
"""How long a decision may take onto the wire: a host that reads nothing for so long is stuck."""

NOTE_SECS: Final = 15.0
"""How long the audit of a decision may wait for the ledger; then it is only logged."""

MOST_NOTES: Final = 64
"""Decisions on their way to the audit; an agent that asks faster than the ledger writes is noted
in part."""

REMEMBERED: Final = 256
"""Decided requests of which a second answer is told that it comes too late."""


class PermissionWatch(Protocol):
    """Who shows requests to people. Both methods must return at once."""

    def ask(self, request: PendingPermission) -> None:
        """A request waits from now on."""

    def settle(self, request_id: str) -> None:
        """It waits no more."""


class Question:
    """One request that waits: the first decision counts."""

    def __init__(self, agent: Agent, pending: PendingPermission, turn: Turn) -> None:
        self.agent = agent
        self.pending = pending
        self.turn = turn
        self.decision: Decision | None = None
        self.decided = trio.Event()

    def decide(self, decision: Decision) -> None:
        """Whoever comes first."""
        if self.decision is None:
            self.decision = decision
            self.decided.set()


class PermissionDesk:
    """The pending requests of one session. Decides in the session actor's ``nursery``.

    ``watch`` is told of each request; ``now`` is in Unix seconds.
    """

    nursery: trio.Nursery

    def __init__(
        self,
        session_id: SessionId,
        store: Store,
        now: Callable[[], int],
        wait_secs: float,
        watch: PermissionWatch | None = None,
    ) -> None:
        self._session_id = session_id
        self._store = store
        self._now = now
        self._wait_secs = wait_secs
        self._watch = watch
        self._questions: dict[str, Question] = {}
        self._decided: dict[str, Decision] = {}
        self._notes = 0

    @property
    def pending(self) -> Sequence[PendingPermission]:
        """What waits, oldest first."""
        return [question.pending for question in self._questions.values()]

    def ask(self, agent: Agent, request: PermissionRequest, turn: Turn | None) -> None:
        """Take a request of ``agent``. It is decided in time; at once if its turn is ending."""
        if turn is None or turn.stop_cause is not None:
            self.nursery.start_soon(_tell, agent, request.request_id, None)
            return
        wait_secs = min(self._wait_secs, turn.secs_left)
        pending = PendingPermission(
            request_id=request.request_id,
            turn_index=turn.index,
            tool_call=request.tool_call,
            options=request.options,
            expires_at=self._now() + int(wait_secs),
        )
        question = Question(agent, pending, turn)
        self._questions[request.request_id] = question
        turn.silence.hold()
        if self._watch is not None:
            self._watch.ask(pending)
        self.nursery.start_soon(self._settle, question, wait_secs)

    def observe(self, mode: Permissions, message: Message, turn_index: int) -> None:
        """A message of the agent's: if the session's mode decides it, the audit is to have it."""
        decided = decided_by_mode(mode, message, turn_index)
        if decided is None:
            return
        if self._notes >= MOST_NOTES:
            log.warning("permission not noted: too many at once")
            return
        self._notes += 1
        self.nursery.start_soon(self._note, secrets.token_hex(8), describe_decision(*decided))

    def decide(self, request_id: str, option_id: str) -> None:
        """A caller's decision.

        Raises PermissionNotFound, PermissionDecided, or InvalidRequest for an option that was not
        offered: the request goes on waiting then.
        """
        question = self._questions.get(request_id)
        past = self._decided.get(request_id) or (question and question.decision)
        if past:
            raise PermissionDecided(past.by)
        if question is None:
            raise PermissionNotFound
        if not is_offered(option_id, question.pending.options):
            raise InvalidRequest([Fault("$.option_id", "is none of the request's options")])
        question.decide(Decision("caller", option_id))

    def cancel_all(self) -> None:
        """End every pending request with the outcome ``cancelled``."""
        for question in self._questions.values():
            question.decide(Decision("cancel", None))

    async def _settle(self, question: Question, wait_secs: float) -> None:
        """Wait for the decision, tell the agent, note it."""
        with trio.move_on_after(wait_secs):
            await question.decided.wait()
        pending = question.pending
        question.decide(Decision("clock", choose_rejection(pending.options)))
        assert question.decision is not None
        self._remember(pending.request_id, question.decision)
        question.turn.silence.release()
        if self._watch is not None:
            self._watch.settle(pending.request_id)
        await _tell(question.agent, pending.request_id, question.decision.option_id)
        self._notes += 1
        await self._note(pending.request_id, describe_decision(pending, question.decision))

    def _remember(self, request_id: str, decision: Decision) -> None:
        del self._questions[request_id]
        self._decided[request_id] = decision
        while len(self._decided) > REMEMBERED:
            del self._decided[next(iter(self._decided))]

    async def _note(self, request_id: str, meta: Mapping[str, Any]) -> None:
        row = AuditRow(self._session_id, "permission", self._now(), meta)
        try:
            with trio.fail_after(NOTE_SECS):
                await self._store.note_permission(row, request_id)
        except (StoreUnavailable, trio.TooSlowError):
            log.warning("permission not noted", **meta)
        finally:
            self._notes -= 1


async def _tell(agent: Agent, request_id: str, option_id: str | None) -> None:
    with trio.move_on_after(WIRE_SECS):
        await agent.answer_permission(request_id, option_id)
