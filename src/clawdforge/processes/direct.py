"""One live agent spoken to directly: ACP over its stdin and stdout, with nobody in between.

The rules are those of the acpx host, so that an agent is treated alike on either transport: a
conversation is never silently begun anew, its messages are passed on as they came, replayed ones
are not, permission requests get the same answers. No callback is offered: what an agent asks beyond
permissions is refused with -32601.
"""

from __future__ import annotations

import mimetypes
import secrets
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import trio

from clawdforge.domain.permissions import decide_by_mode, is_offered
from clawdforge.domain.ports import AgentSink, Message, PermissionRequest
from clawdforge.errors import AgentMisbehaved, AgentNotStarted
from clawdforge.processes.child import Child, ChildCommand, ChildExit, ChildGone
from clawdforge.processes.handshake import Refused, shake_hands
from clawdforge.processes.hosting import HostedAgent, TurnInHand
from clawdforge.processes.lodging import Lodged, Lodging
from clawdforge.processes.pending import Pending
from clawdforge.protocol.acp_client import (
    IMAGE_TYPES,
    OPENINGS,
    Attachment,
    chosen,
    prompt_blocks,
)
from clawdforge.protocol.jsonrpc import (
    METHOD_NOT_FOUND,
    Answer,
    Call,
    Id,
    Notice,
    Peer,
    Refusal,
    answer,
    mapping,
    refuse,
    tell,
)

IMAGE_BYTES: Final = 5 * 1024 * 1024
"""The largest picture that is sent in a prompt (the Messages API takes no larger one)."""

QUESTIONS: Final = 256
"""Permission requests that may wait at a time; an agent asks one or two."""

NOT_FOUND: Final = 127
"""A warden's exit code for a program that could not be started."""

REPLIES: Final = 256
"""Replies that may wait for the agent to read them: past it, it does not read at all."""


def direct_command(lodging: Lodging, lodged: Lodged) -> ChildCommand:
    """The agent's own command."""
    return ChildCommand(
        argv=lodged.argv, env=lodged.env, cwd=lodged.folders.work, incarnation=lodging.incarnation
    )


class DirectAgent(HostedAgent):
    """Implements :class:`clawdforge.domain.ports.Agent` over the agent's own pipes."""

    _nursery: trio.Nursery
    _session_id: str

    def __init__(self, lodged: Lodged, sink: AgentSink) -> None:
        super().__init__(lodged, sink)
        self._peer = Peer()
        self._handshake: dict[int, Pending[Mapping[str, Any]]] = {}
        self._opening_id: int | None = None
        self._is_open = False
        self._takes_images = False
        self._prompt_id: int | None = None
        self._questions: dict[str, tuple[Id, Sequence[Message]]] = {}
        self._reply_count = 0

    # What the session actor calls.

    async def prompt(self, turn_index: int, text: str, files: Sequence[Path]) -> str:
        """Run one turn, as the port says. ``files`` go as links, or as images where it takes them.

        They are linked into the working directory first.
        """
        blocks = prompt_blocks(text, await self._attach(turn_index, files))
        self._prompt_id, line = self._peer.ask(
            "session/prompt", {"sessionId": self._session_id, "prompt": blocks}
        )
        return await self._ask(TurnInHand(turn_index), line)

    async def cancel(self, turn_index: int) -> None:
        """Tell the agent to stop that turn, and what it asked in it gets ``cancelled``."""
        turn = self._turn
        if turn is None or turn.index != turn_index or turn.is_over:
            return
        turn.is_cancelled = True
        await self._tell(tell("session/cancel", {"sessionId": self._session_id}))
        for request_id in tuple(self._questions):
            await self.answer_permission(request_id, None)

    async def answer_permission(self, request_id: str, option_id: str | None) -> None:
        """Answer a permission request; an option that was not offered counts as cancelled."""
        asked_as, options = self._questions.pop(request_id, (None, None))
        if options is not None:
            outcome = chosen(option_id if is_offered(option_id, options) else None)
            await self._tell(answer(asked_as, outcome))

    # What the launcher calls.

    async def open(self, child: Child, nursery: trio.Nursery) -> str:
        """Shake hands, open or take up the session, choose the model."""
        self._child, self._nursery = child, nursery
        session = await shake_hands(self._request, self._lodged)
        self._session_id, self._takes_images = session.session_id, session.takes_images
        self._info = session.info
        return session.session_id

    def on_line(self, line: bytes) -> None:
        """Take one message of the agent's."""
        incoming = self._peer.receive(line)
        match incoming:
            case Notice("session/update") if self._is_open:
                self._sink.on_event(incoming.message, line)
            case Call():
                if self._is_open:
                    self._sink.on_event(incoming.message, line)
                self._take_call(incoming)
            case Answer() | Refusal():
                self._take_answer(incoming, line)
            case None if line.strip():
                self._sink.on_skipped(1)

    async def _request(self, method: str, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """Ask for the handshake. Raises Refused, or AgentNotStarted at the process's end."""
        request_id, line = self._peer.ask(method, params)
        if method in OPENINGS:
            self._opening_id = request_id
        result: Pending[Mapping[str, Any]] = Pending()
        self._handshake[request_id] = result
        try:
            await self._tell(line)
            return await result.wait()
        finally:
            del self._handshake[request_id]

    # What the agent says.

    def _take_answer(self, incoming: Answer | Refusal, line: bytes) -> None:
        """To a prompt or to the handshake; what comes after the opening's result is an event."""
        turn, request_id = self._turn, incoming.request_id
        if turn is not None and request_id == self._prompt_id:
            self._sink.on_event(incoming.message, line)
            self._settle(turn, incoming)
        elif waiting := self._handshake.get(request_id):
            if isinstance(incoming, Refusal):
                waiting.fail(Refused(incoming.code, incoming.reason))
            else:
                self._is_open = self._is_open or request_id == self._opening_id
                waiting.set(incoming.result)

    def _settle(self, turn: TurnInHand, incoming: Answer | Refusal) -> None:
        if isinstance(incoming, Refusal):
            turn.stop_reason.fail(AgentMisbehaved(self.name, self._plain(incoming.reason)))
            return
        stop_reason = incoming.result.get("stopReason")
        if isinstance(stop_reason, str):
            turn.stop_reason.set(stop_reason)
        else:
            turn.stop_reason.fail(AgentMisbehaved(self.name, "it gave no stop reason"))

    def _take_call(self, call: Call) -> None:
        """Permissions are decided; nothing else is offered."""
        if call.method != "session/request_permission":
            self._reply(refuse(call.request_id, METHOD_NOT_FOUND, "not offered"))
            return
        tool_call, listed = mapping(call.params.get("toolCall")), call.params.get("options")
        options = [o for o in listed if isinstance(o, dict)] if isinstance(listed, list) else []
        mode = self._lodged.spec.permissions
        if self._is_cancelling or (mode == "ask" and len(self._questions) >= QUESTIONS):
            self._reply(answer(call.request_id, chosen(None)))
        elif mode == "ask":
            request_id = secrets.token_hex(12)
            self._questions[request_id] = (call.request_id, options)
            self._sink.on_permission(PermissionRequest(request_id, tool_call, options))
        else:
            self._reply(answer(call.request_id, chosen(decide_by_mode(mode, tool_call, options))))

    @property
    def _is_cancelling(self) -> bool:
        turn = self._turn
        return turn is not None and turn.is_cancelled and not turn.is_over

    # The rest.

    async def _attach(self, turn_index: int, files: Sequence[Path]) -> Sequence[Attachment]:
        names = await self._lodged.stage(turn_index, files)
        if not names:
            return ()
        return await trio.to_thread.run_sync(self._describe_files, names)

    def _describe_files(self, names: Sequence[str]) -> Sequence[Attachment]:
        """What the agent is told of its files; small pictures are read. Blocking."""
        found = []
        for path in (self._lodged.folders.work / name for name in names):
            kind, size = mimetypes.guess_type(path.name)[0], path.stat().st_size
            is_shown = self._takes_images and kind in IMAGE_TYPES and size <= IMAGE_BYTES
            image = path.read_bytes() if is_shown else None
            found.append(Attachment(path.name, path.as_uri(), kind, size, image))
        return found

    def _fail_all(self) -> None:
        assert self._end_reason is not None
        for waiting in self._handshake.values():
            waiting.fail(AgentNotStarted(self.name, self._end_reason))

    def _describe(self, end: ChildExit) -> str:
        if end.signal is not None:
            said = f"its process was ended by {signal.Signals(end.signal).name}"
        elif end.code == NOT_FOUND and not self._is_open:
            return "its command was not found"
        else:
            said = f"its process ended with exit code {end.code}"
        return said if self._is_open else f"{said} before it was ready"

    def _reply(self, line: bytes) -> None:
        """Answer the agent without waiting for it to read; one that never reads is given up."""
        if self._reply_count >= REPLIES:
            self.end("it asks and does not read the answers")
            return
        self._reply_count += 1
        self._nursery.start_soon(self._send_reply, line)

    async def _send_reply(self, line: bytes) -> None:
        try:
            await self._tell(line)
        finally:
            self._reply_count -= 1

    async def _tell(self, line: bytes) -> None:
        """Send a line whose fate somebody else will tell: an agent that has gone needs none."""
        with suppress(ChildGone):
            await self._send(line)

    async def _send(self, line: bytes) -> None:
        assert self._child is not None
        await self._child.send(line)
