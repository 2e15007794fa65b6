"""One live agent behind its acpx host: orders go down the pipe, lines come up and become answers.

The rule: *whatever ends the process resolves every call that waits on it.* The lines themselves are
described at the head of ``node/host.mjs``. Nothing is started or killed for good in here; that is
``processes.launcher`` and ``processes.child``.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import outcome
import trio

from clawdforge.domain.ports import AgentExit, AgentInfo, AgentSink, PermissionRequest
from clawdforge.errors import (
    AgentError,
    AgentExited,
    AgentMisbehaved,
    AgentNotResumable,
    AgentNotStarted,
)
from clawdforge.processes.child import Child, ChildExit, ChildGone
from clawdforge.processes.plain import plain_reason
from clawdforge.processes.runtime import REMEDIES
from clawdforge.protocol.ndjson import parse_line
from clawdforge.protocol.prompt import format_prompt_with_files

_ENVELOPE_BYTES: Final = len(b'{"type":"acp","message":}')
"""What the host puts around a message of the agent's."""

_WORD_CHARACTERS: Final = 100
"""The most that is taken of an agent's own name and version."""

Answer = TypeVar("Answer")

StageFiles = Callable[[int, Sequence[Path]], Awaitable[Sequence[str]]]
"""Puts the files of a turn where the agent can read them; answers their relative names."""


class _Pending(Generic[Answer]):
    """An answer that somebody waits for. Set once; later ones are ignored."""

    def __init__(self) -> None:
        self._outcome: outcome.Outcome[Answer] | None = None
        self._settled = trio.Event()

    def set(self, answer: Answer) -> None:
        self._settle(outcome.Value(answer))

    def fail(self, error: Exception) -> None:
        self._settle(outcome.Error(error))

    def _settle(self, result: outcome.Outcome[Answer]) -> None:
        if self._outcome is None:
            self._outcome = result
            self._settled.set()

    async def wait(self) -> Answer:
        """Unbounded by itself: the end of the process settles it at the latest."""
        await self._settled.wait()
        assert self._outcome is not None
        return self._outcome.unwrap()


class Opened:
    """What the host says of the session it has opened."""

    def __init__(self, line: Mapping[str, Any]) -> None:
        self.agent_session_id = str(line["agent_session_id"])
        self.info = AgentInfo(bool(line["can_resume"]), _word(line["name"]), _word(line["version"]))


class AcpxAgent:
    """Implements :class:`clawdforge.domain.ports.Agent`.

    ``on_line`` and ``host_ended`` are called by whoever runs the host's process; ``hidden`` are
    values (credentials) that must not show in any reason.
    """

    def __init__(
        self, name: str, sink: AgentSink, stage_files: StageFiles, hidden: Sequence[str]
    ) -> None:
        self.exit: AgentExit | None = None
        self.name = name
        self._sink = sink
        self._stage_files = stage_files
        self._hidden = hidden
        self._child: Child | None = None
        self._opening: _Pending[Opened] = _Pending()
        self._turns: dict[int, _Pending[str]] = {}
        self._info: AgentInfo | None = None
        self._end_reason: str | None = None
        self._was_killed = False

    def __repr__(self) -> str:
        state = "ended" if self._end_reason else f"{len(self._turns)} turns"
        return f"<AcpxAgent {self.name} {state}>"

    # What the session actor calls.

    @property
    def info(self) -> AgentInfo:
        """What the agent said of itself. Only after ``open`` has answered."""
        assert self._info is not None
        return self._info

    async def prompt(self, turn_index: int, text: str, files: Sequence[Path]) -> str:
        """Run one turn, as the port says. ``files`` are linked into the working directory first.

        Their relative names are put in front of the text. Waits without bound: the actor's scope
        and the end of the process end it.
        """
        names = await self._stage_files(turn_index, files)
        text = format_prompt_with_files(text, names)
        if self._end_reason is not None:
            raise self._exited(was_asked=False)
        turn = self._turns[turn_index] = _Pending()
        try:
            await self._send(type="prompt", turn=turn_index, text=text)
            return await turn.wait()
        except ChildGone:  # an order is a whole line or none
            raise self._exited(was_asked=False) from None
        finally:
            self._turns.pop(turn_index, None)

    async def cancel(self, turn_index: int) -> None:
        """Tell the agent to stop that turn. The host knows which turn it is at."""
        await self._tell(type="cancel", turn=turn_index)

    async def answer_permission(self, request_id: str, option_id: str | None) -> None:
        """Answer a permission request; an option that was not offered counts as cancelled."""
        await self._tell(type="answer", request_id=request_id, option_id=option_id)

    def kill(self) -> None:
        """Close the lifeline. Idempotent."""
        self._was_killed = self._was_killed or self._end_reason is None
        if self._child is not None:
            self._child.kill()

    # What the launcher calls.

    async def open(self, child: Child, order: Mapping[str, Any]) -> Opened:
        """Have the host start the agent and open the session.

        Raises AgentNotStarted or AgentNotResumable. Unbounded by itself: the caller of
        ``run_agent`` has a deadline, and the end of the process answers at the latest.
        """
        self._child = child
        # A host that has gone already is about to answer, with a better reason than ours.
        await self._tell(type="open", **order)
        opened = await self._opening.wait()
        self._info = opened.info
        return opened

    def on_line(self, line: bytes) -> None:
        """Take one line of the host's."""
        record = parse_line(line)
        if record is None:  # JSON for JavaScript and not for us: too deep, or a number too long
            self._sink.on_skipped(1)
            return
        match record["type"]:
            case "acp":
                self._sink.on_event(record["message"], len(line) - _ENVELOPE_BYTES)
            case "skipped":
                self._sink.on_skipped(record["count"])
            case "permission":
                asked = (record["request_id"], record["tool_call"], record["options"])
                self._sink.on_permission(PermissionRequest(*asked))
            case "opened":
                self._opening.set(Opened(record))
            case "result":
                self._turn(record).set(record["stop_reason"])
            case "failed" if record["turn"] is None:
                self._opening.fail(self._opening_error(record["kind"], record["reason"]))
            case "failed":
                error = AgentMisbehaved(self.name, self._plain(record["reason"]))
                self._turn(record).fail(error)
            case "exited":
                self._end(self._plain(record["reason"]))
                self.kill()  # what the agent left behind goes with it

    def on_skipped(self, count: int) -> None:
        """Lines of the host's were over the limit."""
        self._sink.on_skipped(count)

    def host_ended(self, end: ChildExit | None) -> None:
        """The process tree is dead; None when it was cancelled away. Settles all that waits."""
        if self._was_killed or end is None:
            self._end("it was killed")
        elif end.signal is not None:
            self._end(f"the acpx host was ended by signal {end.signal}")
        else:
            self._end(f"the acpx host ended with exit code {end.code}")
        assert self._end_reason is not None
        self.exit = AgentExit(self._end_reason, self._was_killed or end is None)

    # The rest.

    def _end(self, reason: str) -> None:
        """Nothing more will come; the first reason is the true one."""
        if self._end_reason is None:
            self._end_reason = reason
        self._opening.fail(AgentNotStarted(self.name, self._end_reason))
        for turn in self._turns.values():
            turn.fail(self._exited())

    def _exited(self, *, was_asked: bool = True) -> AgentExited:
        return AgentExited(self.name, self._end_reason or "its host reads no more", was_asked)

    def _opening_error(self, kind: str, reason: str) -> AgentError:
        if kind == "not_resumable":
            return AgentNotResumable(self.name)
        remedy = REMEDIES["acpx"] if kind == "wrong_acpx" else None
        is_callers_choice = kind == "wrong_model"
        return AgentNotStarted(self.name, self._plain(reason), remedy, is_callers_choice)

    def _turn(self, record: Mapping[str, Any]) -> _Pending[str]:
        """The turn a line is about; a loose one if its caller has stopped waiting."""
        return self._turns.get(record["turn"]) or _Pending()

    def _plain(self, reason: str) -> str:
        return plain_reason(reason, hidden=self._hidden)

    async def _tell(self, **order: object) -> None:
        """Send an order that nobody answers; a host that has gone needs none."""
        with suppress(ChildGone):
            await self._send(**order)

    async def _send(self, **order: object) -> None:
        """Write one order. ASCII only: the host's line reader also breaks at U+2028."""
        assert self._child is not None
        await self._child.send(json.dumps(order).encode("ascii") + b"\n")


def _word(value: object) -> str | None:
    return value[:_WORD_CHARACTERS] if isinstance(value, str) else None
