"""The fake launcher: agents in memory, for tests of what stands above the processes. No process.

It keeps the promise of :class:`clawdforge.domain.ports.Launcher` (one contract suite holds it and
the real one to that) and obeys the demo agent's commands as far as memory goes. What a test wants
to go wrong it says on the launcher: ``starting``, ``is_deaf``, ``can_resume``, ``hold_turns()``,
``hold_deaths()``; what the agents saw is kept in ``agents``, ``discarded`` and ``live``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

import attrs
import trio

from clawdforge.domain.ids import SessionId
from clawdforge.domain.ports import (
    Agent,
    AgentExit,
    AgentInfo,
    AgentSink,
    LaunchSpec,
    Message,
    PermissionRequest,
    Started,
)
from clawdforge.errors import (
    AgentExited,
    AgentMisbehaved,
    AgentNotResumable,
    AgentNotStarted,
    ClawdforgeError,
)
from clawdforge.protocol.acp import stop_reason_of
from clawdforge.protocol.menus import Menus
from clawdforge.testing.demo_agent import parse_prompt, text_update, updates_of

DEATH_SECS: Final = 60.0
"""The longest that ``hold_deaths`` may delay the end of an agent: the wait is shielded."""

OPTIONS: Final[tuple[Message, ...]] = (
    {"optionId": "allow", "name": "Allow", "kind": "allow_once"},
    {"optionId": "reject", "name": "Reject", "kind": "reject_once"},
)


@attrs.frozen
class SeenPrompt:
    """A prompt as the agent got it."""

    turn_index: int
    text: str
    files: tuple[Path, ...] = ()


class FakeLauncher:
    """Starts agents that live in memory.

    ``next_turn_events``: ACP messages handed back unchanged as the next turn's events, its stop
    reason taken from the response among them; one turn uses them up. ``starting``: how starts go
    from now on. ``is_deaf``: no agent hears a cancel. ``can_resume``, ``menus``: what they offer.
    All of it may be set at any time; ``release_…`` is for the thread that runs Trio.
    """

    def __init__(self, *, can_resume: bool = True) -> None:
        self.next_turn_events: Sequence[Message] | None = None
        self.starting: Literal["works", "fails", "hangs"] = "works"
        self.is_deaf = False
        self.can_resume = can_resume
        self.menus = Menus()
        self.live = 0
        self.agents: list[FakeAgent] = []
        self.discarded: list[SessionId] = []
        self.conversations: dict[SessionId, list[str]] = {}
        self.turn_gate = Gate()
        self.death_gate = Gate()

    def hold_turns(self) -> None:
        """From now on no turn gets past its beginning, until ``release_turns``."""
        self.turn_gate = Gate(is_open=False)

    def release_turns(self) -> None:
        """Let every held turn go on."""
        self.turn_gate.open()

    def hold_deaths(self) -> None:
        """From now on a killed agent takes its time to die, until ``release_deaths``."""
        self.death_gate = Gate(is_open=False)

    def release_deaths(self) -> None:
        """Let every dying agent be dead."""
        self.death_gate.open()

    async def run_agent(
        self, spec: LaunchSpec, sink: AgentSink, *, task_status: Started[Agent]
    ) -> AgentExit:
        """Start an agent and stay until it is dead, as the port says."""
        with self._counting():
            await self._shake_hands(spec)
            agent = FakeAgent(self, spec, sink)
            self.agents.append(agent)
            try:
                async with trio.open_nursery() as nursery:
                    agent.nursery = nursery
                    task_status.started(agent)
                    await agent.ended.wait()  # unbounded: an agent lives as long as it is wanted
                    nursery.cancel_scope.cancel()
            finally:
                agent.end("killed", was_killed=True)
                with trio.move_on_after(DEATH_SECS, shield=True):
                    await self.death_gate.passed()
        assert agent.exit is not None
        return agent.exit

    async def discard(self, session_id: SessionId) -> None:
        """Forget the conversation."""
        self.discarded.append(session_id)
        self.conversations.pop(session_id, None)

    @contextmanager
    def _counting(self) -> Iterator[None]:
        """One live tree, from the first moment of its start to the proof of its death."""
        self.live += 1
        try:
            yield
        finally:
            self.live -= 1

    async def _shake_hands(self, spec: LaunchSpec) -> None:
        """Begin or take up the conversation. Raises what ``run_agent`` may raise."""
        await trio.lowlevel.checkpoint()
        if self.starting == "fails":
            raise AgentNotStarted(spec.profile.name, "told to fail")
        if self.starting == "hangs":
            await trio.sleep_forever()  # the caller bounds a start
        if not spec.is_resuming:
            self.conversations[spec.session_id] = []
        elif not self.can_resume or spec.session_id not in self.conversations:
            raise AgentNotResumable(spec.profile.name)


class Gate:
    """Open, or shut until it is opened once."""

    def __init__(self, *, is_open: bool = True) -> None:
        self._opened = trio.Event()
        self._is_open = is_open

    def open(self) -> None:
        """Let everybody through."""
        self._is_open = True
        self._opened.set()

    async def passed(self) -> None:
        """Wait until it is open. Unbounded: the waiter has a scope of its own."""
        if not self._is_open:
            await self._opened.wait()


class FakeTurn:
    """A turn at work: its cancel scope, and the answer that ``prompt`` waits for."""

    def __init__(self, turn_index: int) -> None:
        self.turn_index = turn_index
        self.scope = trio.CancelScope()
        self.is_deaf = False
        self.answered = trio.Event()
        self.answer: str | ClawdforgeError | None = None

    def resolve(self, answer: str | ClawdforgeError) -> None:
        """Give the stop reason, or the error met instead; only the first counts."""
        if self.answer is None:
            self.answer = answer
            self.answered.set()

    async def wait(self) -> str:
        """The answer. Unbounded: the caller owns the deadline of a turn."""
        await self.answered.wait()
        assert self.answer is not None
        if isinstance(self.answer, ClawdforgeError):
            raise self.answer
        return self.answer


class FakeAgent:
    """One agent in memory: what it saw, and the levers to make it end."""

    def __init__(self, launcher: FakeLauncher, spec: LaunchSpec, sink: AgentSink) -> None:
        self.spec = spec
        self.prompts: list[SeenPrompt] = []
        self.cancels: list[int] = []
        self.permissions: list[tuple[str, str | None]] = []
        self.kills = 0
        self.exit: AgentExit | None = None
        self.ended = trio.Event()
        self.nursery: trio.Nursery
        self._launcher = launcher
        self._sink = sink
        self._turn: FakeTurn | None = None
        self._decisions: dict[str, trio.MemorySendChannel[str | None]] = {}
        self._info = AgentInfo(launcher.can_resume, "fake", "1", launcher.menus)

    @property
    def info(self) -> AgentInfo:
        """What the agent says of itself."""
        return self._info

    async def prompt(self, turn_index: int, text: str, files: Sequence[Path]) -> str:
        """Run one turn, as the port says."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.exit is not None:
            raise AgentExited(self.spec.profile.name, self.exit.reason, was_asked=False)
        self.prompts.append(SeenPrompt(turn_index, text, tuple(files)))
        turn = self._turn = FakeTurn(turn_index)
        self.nursery.start_soon(self._work, turn, text)
        return await turn.wait()

    async def rejoin(self, turn_index: int) -> str | None:
        """Wait again for that turn."""
        turn = self._turn
        return await turn.wait() if turn and turn.turn_index == turn_index else None

    async def cancel(self, turn_index: int) -> None:
        """Hear a cancel, unless deaf."""
        self.cancels.append(turn_index)
        turn = self._turn
        if turn is not None and turn.turn_index == turn_index and not self._hears_nothing(turn):
            turn.scope.cancel()
        await trio.lowlevel.checkpoint()

    async def answer_permission(self, request_id: str, option_id: str | None) -> None:
        """Hear a decision."""
        self.permissions.append((request_id, option_id))
        decision = self._decisions.pop(request_id, None)
        if decision is not None:
            decision.send_nowait(option_id)
        await trio.lowlevel.checkpoint()

    def kill(self) -> None:
        """Die."""
        self.kills += 1
        self.end("killed", was_killed=True)

    def end(self, reason: str, *, was_killed: bool = False) -> None:
        """End by itself (a test's lever) or as killed: the turn in hand fails. Idempotent."""
        if self.exit is None:
            self.exit = AgentExit(reason, was_killed)
            self.ended.set()
        if self._turn is not None:
            self._turn.resolve(AgentExited(self.spec.profile.name, reason))

    def emit(self, message: Message) -> None:
        """Send one message, as the agent would."""
        self._sink.on_event(message, json.dumps(message).encode())

    def update(self, update: Message) -> None:
        """Send one ``session/update``; a test may do so between turns."""
        params = {"sessionId": self.spec.session_id, "update": update}
        self.emit({"jsonrpc": "2.0", "method": "session/update", "params": params})

    def request(self, request: PermissionRequest) -> None:
        """Ask for permission, whatever is going on."""
        self._sink.on_permission(request)

    def _hears_nothing(self, turn: FakeTurn) -> bool:
        return self._launcher.is_deaf or turn.is_deaf

    async def _work(self, turn: FakeTurn, text: str) -> None:
        try:
            turn.resolve(await self._answer(turn, text))
        except ClawdforgeError as error:
            turn.resolve(error)

    async def _answer(self, turn: FakeTurn, text: str) -> str:
        """One turn up to its stop reason. Raises AgentMisbehaved, AgentExited."""
        said, late = self._launcher.conversations.setdefault(self.spec.session_id, []), []
        stop_reason = "end_turn"
        with turn.scope:
            await trio.lowlevel.checkpoint()
            await self._launcher.turn_gate.passed()
            events, self._launcher.next_turn_events = self._launcher.next_turn_events, None
            if events is not None:
                for event in events:
                    self.emit(event)
                return stop_reason_of(events) or stop_reason
            earlier = tuple(said)
            said.append(text)
            for word, argument in parse_prompt(text):
                if word == "stop":
                    stop_reason = argument
                    break
                if word == "late":
                    late.append(argument)
                await self._obey(turn, word, argument, earlier)
        if turn.scope.cancelled_caught:
            stop_reason = "cancelled"
        response = {"id": turn.turn_index, "result": {"stopReason": stop_reason}}
        self.emit({"jsonrpc": "2.0", **response})
        for title in late:
            self.update({"sessionUpdate": "session_info_update", "title": title})
        return stop_reason

    async def _obey(self, turn: FakeTurn, word: str, argument: str, earlier: Sequence[str]) -> None:
        """Do one step of a prompt; commands that need a process do nothing."""
        for update in updates_of(word, argument):
            self.update(update)
            await trio.lowlevel.checkpoint()
        match word:
            case "quote":
                self._say(f"You said: {argument}")
            case "say":
                self._say(argument)
            case "recall":
                self._say("\n".join(["You said before:", *earlier]))
            case "model":
                self._say(f"Model: {self.spec.model or self.spec.profile.model or 'demo'}")
            case "sleep":
                await trio.sleep(float(argument))
            case "ask":
                self._say(f"Permission: {await self._ask(turn, argument)}")
            case _:
                await self._misbehave(turn, word, argument)

    async def _misbehave(self, turn: FakeTurn, word: str, argument: str) -> None:
        """The commands that make a bad agent of a good one."""
        match word:
            case "deaf":
                turn.is_deaf = True
                await trio.sleep(float(argument))
                turn.is_deaf = False
            case "garbage":
                self._sink.on_skipped(int(argument))
            case "fail":
                raise AgentMisbehaved(self.spec.profile.name, argument or "told to fail")
            case "crash":
                reason = f"exit code {int(argument or 3)}"
                self.end(reason)
                raise AgentExited(self.spec.profile.name, reason)

    def _say(self, text: str) -> None:
        self.update(text_update("agent_message_chunk", text))

    async def _ask(self, turn: FakeTurn, title: str) -> str:
        """Ask for permission as the session's mode has it; the option chosen, or ``cancelled``."""
        request_id = f"ask-{turn.turn_index}-{len(self.permissions) + len(self._decisions)}"
        tool_call: dict[str, Any] = {"toolCallId": request_id, "title": title, "kind": "edit"}
        params = {
            "sessionId": self.spec.session_id,
            "toolCall": tool_call,
            "options": list(OPTIONS),
        }
        method = "session/request_permission"
        self.emit({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params})
        if self.spec.permissions != "ask":
            return "allow" if self.spec.permissions == "approve-all" else "reject"
        send, receive = trio.open_memory_channel[str | None](1)
        self._decisions[request_id] = send
        self._sink.on_permission(PermissionRequest(request_id, tool_call, OPTIONS))
        return await receive.receive() or "cancelled"  # the turn's scope bounds it
