"""One live agent behind its acpx host: orders go down the pipe, lines come up and become answers.

The lines themselves are described at the head of ``node/host.mjs``. Nothing is started or killed
for good in here; that is ``processes.launcher`` and ``processes.child``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import trio

from clawdforge.domain.ports import AgentInfo, AgentSink, PermissionRequest
from clawdforge.errors import AgentError, AgentMisbehaved, AgentNotResumable, AgentNotStarted
from clawdforge.processes.child import LINE_BYTES, Child, ChildCommand, ChildExit, ChildGone
from clawdforge.processes.hosting import HostedAgent, TurnInHand
from clawdforge.processes.lodging import Lodged, Lodging
from clawdforge.processes.pending import Pending
from clawdforge.processes.runtime import HOST, REMEDIES, node_binary
from clawdforge.protocol.menus import read_menus
from clawdforge.protocol.ndjson import parse_line
from clawdforge.protocol.prompt import format_prompt_with_files

ENVELOPE_ROOM: Final = 1024
"""A line of the host's may be this much longer than the agent's line it carries."""

_ENVELOPE: Final = slice(len(b'{"type":"acp","message":'), -len(b"}"))
"""Where a message of the agent's stands in a line of the host's, as the agent wrote it."""

_WORD_CHARACTERS: Final = 100
"""The most that is taken of an agent's own name and version."""


def acpx_command(lodging: Lodging, lodged: Lodged) -> ChildCommand:
    """The host's command; the agent's own goes in the first order. Raises AgentNotStarted."""
    acpx = lodging.require("acpx", lodged.spec.profile)
    # The host takes this one out again before it starts the agent. A quarter of its start.
    compile_cache = {"NODE_COMPILE_CACHE": str(lodging.data_dir / "cache" / "node")}
    return ChildCommand(
        argv=[str(node_binary()), str(HOST), str(acpx.directory)],
        env={**lodged.env, **compile_cache},
        cwd=lodged.folders.work,
        incarnation=lodging.incarnation,
    )


class Opened:
    """What the host says of the session it has opened."""

    def __init__(self, line: Mapping[str, Any]) -> None:
        self.agent_session_id = str(line["agent_session_id"])
        self.info = AgentInfo(
            bool(line["can_resume"]),
            _word(line["name"]),
            _word(line["version"]),
            read_menus(line["offers"]),
        )


class AcpxAgent(HostedAgent):
    """Implements :class:`clawdforge.domain.ports.Agent` over the acpx host."""

    def __init__(self, lodged: Lodged, sink: AgentSink) -> None:
        super().__init__(lodged, sink)
        self._opening: Pending[Opened] = Pending()

    # What the session actor calls.

    async def prompt(self, turn_index: int, text: str, files: Sequence[Path]) -> str:
        """Run one turn, as the port says. ``files`` are linked into the working directory first.

        Their relative names are put in front of the text.
        """
        names = await self._lodged.stage(turn_index, files)
        text = format_prompt_with_files(text, names)
        return await self._ask(
            TurnInHand(turn_index), _line(type="prompt", turn=turn_index, text=text)
        )

    async def cancel(self, turn_index: int) -> None:
        """Tell the agent to stop that turn. The host knows which turn it is at."""
        await self._tell(type="cancel", turn=turn_index)

    async def answer_permission(self, request_id: str, option_id: str | None) -> None:
        """Answer a permission request; an option that was not offered counts as cancelled."""
        await self._tell(type="answer", request_id=request_id, option_id=option_id)

    # What the launcher calls.

    async def open(self, child: Child, nursery: trio.Nursery) -> str:
        """Have the host start the agent and open the session."""
        self._child = child
        spec, folders = self._lodged.spec, self._lodged.folders
        # A host that has gone already is about to answer, with a better reason than ours.
        await self._tell(
            type="open",
            argv=self._lodged.argv,
            cwd=str(folders.work),
            session_key=spec.session_id,
            permissions=spec.permissions,
            model=self._lodged.model,
            resume=self._lodged.ticket,
            max_line_bytes=LINE_BYTES - ENVELOPE_ROOM,
            rehearse=spec.is_for_later,
        )
        opened = await self._opening.wait()
        self._info = opened.info
        return opened.agent_session_id

    def on_line(self, line: bytes) -> None:
        """Take one line of the host's."""
        record = parse_line(line)
        if record is None:  # JSON for JavaScript and not for us: too deep, or a number too long
            self._sink.on_skipped(1)
            return
        match record["type"]:
            case "acp":
                self._sink.on_event(record["message"], line[_ENVELOPE])
            case "skipped":
                self._sink.on_skipped(record["count"])
            case "permission":
                asked = (record["request_id"], record["tool_call"], record["options"])
                self._sink.on_permission(PermissionRequest(*asked))
            case "opened":
                self._opening.set(Opened(record))
            case "result":
                self._stop_reason_of(record).set(record["stop_reason"])
            case "failed" if record["turn"] is None:
                self._opening.fail(self._opening_error(record["kind"], record["reason"]))
            case "failed":
                error = AgentMisbehaved(self.name, self._plain(record["reason"]))
                self._stop_reason_of(record).fail(error)
            case "exited":
                self.end(self._plain(record["reason"]))  # what it left behind goes with it

    # The rest.

    def _fail_all(self) -> None:
        assert self._end_reason is not None
        self._opening.fail(AgentNotStarted(self.name, self._end_reason))

    def _describe(self, end: ChildExit) -> str:
        if end.signal is not None:
            return f"the acpx host was ended by signal {end.signal}"
        return f"the acpx host ended with exit code {end.code}"

    def _opening_error(self, kind: str, reason: str) -> AgentError:
        if kind == "not_resumable":
            return AgentNotResumable(self.name)
        remedy = REMEDIES["acpx"] if kind == "wrong_acpx" else None
        is_callers_choice = kind == "wrong_model"
        return AgentNotStarted(self.name, self._plain(reason), remedy, is_callers_choice)

    def _stop_reason_of(self, record: Mapping[str, Any]) -> Pending[str]:
        """The answer that a line is about; a loose one if that turn was given up for another."""
        turn = self._turn
        return turn.stop_reason if turn and turn.index == record["turn"] else Pending()

    async def _tell(self, **order: object) -> None:
        """Send an order that nobody answers; a host that has gone needs none."""
        assert self._child is not None
        with suppress(ChildGone):
            await self._child.send(_line(**order))


def _line(**order: object) -> bytes:
    """One order. ASCII only: the host's line reader also breaks at U+2028."""
    return json.dumps(order).encode("ascii") + b"\n"


def _word(value: object) -> str | None:
    return value[:_WORD_CHARACTERS] if isinstance(value, str) else None
