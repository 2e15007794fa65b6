"""What the direct transport says and hears, message by message, with a pipe made of lists."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from clawdforge.domain.ids import AgentName
from clawdforge.domain.permissions import decide_by_mode, is_offered
from clawdforge.domain.ports import LaunchSpec
from clawdforge.domain.profiles import AgentProfile, Permissions
from clawdforge.errors import AgentExited, AgentMisbehaved, AgentNotResumable, AgentNotStarted
from clawdforge.processes.child import ChildExit
from clawdforge.processes.direct import IMAGE_BYTES, QUESTIONS, REPLIES, DirectAgent
from clawdforge.processes.lodging import Lodged, SessionFolders
from tests.processes import odd_agent
from tests.processes.conftest import OverTransport
from tests.processes.test_launcher_contract import Notes, running, spec_of

MODELS = {
    "configOptions": [
        {
            "id": "model",
            "name": "Model",
            "type": "select",
            "category": "model",
            "currentValue": "small",
            "options": [{"value": name, "name": name} for name in ("small", "large")],
        }
    ]
}
CHOICES = [
    {"optionId": "yes", "name": "Yes", "kind": "allow_once"},
    {"optionId": "no", "name": "No", "kind": "reject_once"},
]


class ListPipe:
    """Stands in for the child: what is sent is kept; ``block`` makes it an agent that reads not."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.was_killed = False
        self.is_stuck = False
        self.is_owed_a_rest = False

    async def send(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if self.is_stuck:
            await trio.sleep_forever()
        self.sent.append(json.loads(data))

    def kill(self) -> None:
        self.was_killed = True


@attrs.define
class Talk:
    """A direct agent, and the other end of its pipes."""

    agent: DirectAgent
    sink: Notes
    pipe: ListPipe
    nursery: trio.Nursery

    def say(self, **message: Any) -> None:
        """A message of the agent's."""
        self.agent.on_line(json.dumps({"jsonrpc": "2.0", **message}).encode())

    def update(self, text: str) -> None:
        """An update of the agent's."""
        content = {"type": "text", "text": text}
        update = {"sessionUpdate": "agent_message_chunk", "content": content}
        self.say(method="session/update", params={"sessionId": "s", "update": update})

    async def heard(self, method: str) -> dict[str, Any]:
        """The latest request or notification of that method, once we have sent it."""
        with trio.fail_after(5):
            while True:
                for message in reversed(self.pipe.sent):
                    if message.get("method") == method:
                        found: dict[str, Any] = message
                        return found
                await trio.testing.wait_all_tasks_blocked()

    async def replies(self, count: int) -> list[dict[str, Any]]:
        """What we answered to the agent's requests, once there are so many."""
        with trio.fail_after(5):
            while True:
                found = [message for message in self.pipe.sent if "method" not in message]
                if len(found) >= count:
                    return found
                await trio.testing.wait_all_tasks_blocked()

    async def answer(self, method: str, **fields: Any) -> None:
        """Answer our request of that method."""
        self.say(id=(await self.heard(method))["id"], **fields)

    def ask_permission(self, number: int, kind: str = "edit") -> None:
        """The agent asks for permission."""
        params = {"sessionId": "s", "toolCall": {"kind": kind}, "options": CHOICES}
        self.say(id=number, method="session/request_permission", params=params)

    async def shake_hands(
        self, opened: Mapping[str, Any] = MODELS, *, can: Mapping[str, Any] | None = None
    ) -> None:
        """Answer the handshake."""
        result = {"protocolVersion": 1, "agentCapabilities": can or {}}
        await self.answer("initialize", result=result)
        await self.answer("session/new", result={"sessionId": "s", **opened})


@asynccontextmanager
async def talking(
    folder: Path,
    *,
    permissions: Permissions = "deny-all",
    model: str | None = None,
    ticket: str | None = None,
    argv: Sequence[str] = ("agent",),
) -> AsyncIterator[Talk]:
    """A direct agent that has no process."""
    spec = attrs.evolve(spec_of("d", permissions), model=model, is_resuming=ticket is not None)
    folders = SessionFolders(folder / "session")
    folders.create()
    sink, pipe = Notes(), ListPipe()
    agent = DirectAgent(Lodged(spec, folders, argv, {}, ticket, ["hidden-secret"]), sink)
    async with trio.open_nursery() as nursery:
        yield Talk(agent, sink, pipe, nursery)
        nursery.cancel_scope.cancel()


async def opened(talk: Talk) -> str:
    """Open it; the pipe stands in for the child."""
    return await talk.agent.open(talk.pipe, talk.nursery)  # type: ignore[arg-type]  # by shape


async def open_with(talk: Talk, **handshake: Any) -> None:
    """Open it against a well-behaved agent."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(opened, talk)
        await talk.shake_hands(**handshake)


async def test_a_session_is_opened_in_two_requests(tmp_path: Path) -> None:
    """Without a model to choose nothing is asked but initialize and session/new."""
    async with talking(tmp_path) as talk:
        await open_with(talk)
        assert [message["method"] for message in talk.pipe.sent] == ["initialize", "session/new"]
        assert talk.pipe.sent[1]["params"]["cwd"] == str(tmp_path / "session" / "work")
        assert not talk.agent.info.can_resume


@pytest.mark.parametrize(("model", "is_asked"), [("large", True), ("small", False)])
async def test_a_model_is_chosen_unless_it_is_already(
    tmp_path: Path, model: str, is_asked: bool
) -> None:
    """The model is set once, and not when the session has it."""
    async with talking(tmp_path, model=model) as talk, trio.open_nursery() as nursery:
        nursery.start_soon(opened, talk)
        await talk.shake_hands()
        if is_asked:
            await talk.answer("session/set_config_option", result=MODELS)
    assert (talk.pipe.sent[-1]["method"] == "session/set_config_option") == is_asked


HELLO = {"result": {"protocolVersion": 1}}
REFUSED = {"error": {"code": -32603, "message": "no: /etc/passwd hidden-secret"}}


@pytest.mark.parametrize(
    ("answers", "reason", "is_callers"),
    [
        ({"initialize": {"result": {"protocolVersion": 2}}}, "version 1", False),
        ({"initialize": REFUSED}, "no: … …", False),
        ({"initialize": HELLO, "session__new": {"result": {}}}, "no id", False),
        (
            {"initialize": HELLO, "session__new": {"error": {"code": -32000, "message": "x"}}},
            "it asks for a login",
            False,
        ),
        (
            {"initialize": HELLO, "session__new": {"result": {"sessionId": "s"}}},
            "does not offer the model",
            True,
        ),
        (
            {
                "initialize": HELLO,
                "session__new": {"result": {"sessionId": "s", **MODELS}},
                "session__set_config_option": REFUSED,
            },
            "no: … …",
            True,
        ),
    ],
)
async def test_a_failed_handshake_says_why(
    tmp_path: Path, answers: dict[str, Any], reason: str, is_callers: bool
) -> None:
    """Each refusal has its reason, in plain words: no path, no secret."""
    async with talking(tmp_path, model="large") as talk, trio.open_nursery() as nursery:

        async def agent() -> None:
            for method, fields in answers.items():
                await talk.answer(method.replace("__", "/"), **fields)

        nursery.start_soon(agent)
        with pytest.raises(AgentNotStarted) as caught:
            await opened(talk)
    assert reason in caught.value.reason
    assert caught.value.is_callers_choice == is_callers


async def test_an_agent_that_ends_in_the_handshake_fails_the_start(tmp_path: Path) -> None:
    """The opening is resolved by the end of the process."""
    end = ChildExit(code=7, signal=None, was_killed=False, stderr_tail="")
    async with talking(tmp_path) as talk, trio.open_nursery() as nursery:

        async def agent() -> None:
            await talk.heard("initialize")
            talk.agent.process_ended(end)

        nursery.start_soon(agent)
        with pytest.raises(AgentNotStarted, match="exit code 7 before it was ready"):
            await opened(talk)
    assert talk.agent.exit is not None


@pytest.mark.parametrize(
    ("can", "method"),
    [
        ({"loadSession": True}, "session/load"),
        ({"sessionCapabilities": {"resume": {}}}, "session/resume"),
    ],
)
async def test_a_conversation_is_taken_up_without_its_replay(
    tmp_path: Path, can: dict[str, Any], method: str
) -> None:
    """What comes before the answer is a replay; what comes after it belongs to the session."""
    async with talking(tmp_path, ticket="old", model="large") as talk:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(opened, talk)
            hello = {"protocolVersion": 1, "agentCapabilities": can}
            await talk.answer("initialize", result=hello)
            await talk.heard(method)
            talk.update("replayed")
            await talk.answer(method, result={})
        talk.update("late")
        assert talk.pipe.sent[1]["params"]["sessionId"] == "old"
    assert ["late" in str(event) for event in talk.sink.events] == [True]


@pytest.mark.parametrize("can", [{}, {"loadSession": True}])
async def test_a_conversation_is_never_begun_anew(tmp_path: Path, can: dict[str, Any]) -> None:
    """Neither an agent that cannot load nor one that has lost it gets a session/new."""
    async with talking(tmp_path, ticket="old") as talk:
        with pytest.RaisesGroup(AgentNotResumable):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(opened, talk)
                hello = {"protocolVersion": 1, "agentCapabilities": can}
                await talk.answer("initialize", result=hello)
                if can:
                    await talk.answer("session/load", error={"code": -32002, "message": "gone"})
    assert "session/new" not in [message["method"] for message in talk.pipe.sent]


async def test_what_is_not_offered_is_refused(tmp_path: Path) -> None:
    """A callback that was not advertised gets -32601; it is an event like any request."""
    async with talking(tmp_path) as talk:
        await open_with(talk)
        talk.say(id="f", method="fs/read_text_file", params={"sessionId": "s", "path": "/x"})
        [reply] = await talk.replies(1)
    assert (reply["id"], reply["error"]["code"]) == ("f", -32601)
    assert [event["method"] for event in talk.sink.events] == ["fs/read_text_file"]


async def test_a_cancel_takes_the_turns_questions_along(tmp_path: Path) -> None:
    """Pending requests and those that still come get ``cancelled``, as the protocol wants."""
    async with talking(tmp_path, permissions="ask") as talk:
        await open_with(talk)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk.agent.prompt, 1, "hi", ())
            await talk.heard("session/prompt")
            talk.ask_permission(0)
            await talk.sink.wait_for(lambda sink: sink.permissions)
            await talk.agent.cancel(1)
            talk.ask_permission(1)
            replies = await talk.replies(2)
            await talk.answer("session/prompt", result={"stopReason": "cancelled"})
    assert [reply["result"]["outcome"] for reply in replies] == [{"outcome": "cancelled"}] * 2
    assert len(talk.sink.permissions) == 1


async def test_a_cancel_says_nothing_after_the_turn(tmp_path: Path) -> None:
    """A late cancel never reaches the next turn."""
    async with talking(tmp_path) as talk:
        await open_with(talk)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk.agent.prompt, 1, "hi", ())
            await talk.answer("session/prompt", result={"stopReason": "end_turn"})
        await talk.agent.cancel(1)
    assert "session/cancel" not in [message.get("method") for message in talk.pipe.sent]


@pytest.mark.parametrize("is_begun", [True, False])
async def test_a_prompt_that_was_begun_is_the_agents(tmp_path: Path, is_begun: bool) -> None:
    """Of a prompt that is left half-written the rest goes out: it counts as given, else not."""
    async with talking(tmp_path) as talk:
        await open_with(talk)
        talk.pipe.is_stuck, talk.pipe.is_owed_a_rest = True, is_begun
        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk.agent.prompt, 1, "hi", ())
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        with trio.move_on_after(0) as waiting:
            assert await talk.agent.rejoin(1) is None
        assert waiting.cancelled_caught == is_begun


async def test_a_flood_of_questions_is_bounded(tmp_path: Path) -> None:
    """Past the bound a permission request is cancelled at once; nobody is asked."""
    async with talking(tmp_path, permissions="ask") as talk:
        await open_with(talk)
        for number in range(QUESTIONS + 1):
            talk.ask_permission(number)
        [reply] = await talk.replies(1)
    assert reply["id"] == QUESTIONS
    assert len(talk.sink.permissions) == QUESTIONS


async def test_an_agent_that_reads_no_answers_is_given_up(tmp_path: Path) -> None:
    """Replies that nobody reads are bounded: past it the tree is killed, for that reason."""
    async with talking(tmp_path) as talk:
        await open_with(talk)
        talk.pipe.is_stuck = True
        for number in range(REPLIES + 1):
            assert not talk.pipe.was_killed
            talk.say(id=number, method="fs/read_text_file")
        assert talk.pipe.was_killed
        with pytest.raises(AgentExited, match="does not read the answers"):
            await talk.agent.prompt(1, "hi", ())


@pytest.mark.parametrize("result", [{}, {"stopReason": 5}])
async def test_a_turn_without_a_stop_reason_is_misbehaviour(
    tmp_path: Path, result: dict[str, Any]
) -> None:
    """A response that says not how the turn ended is no ending."""
    async with talking(tmp_path) as talk:
        await open_with(talk)
        with pytest.RaisesGroup(AgentMisbehaved):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(talk.agent.prompt, 1, "hi", ())
                await talk.answer("session/prompt", result=result)


@pytest.mark.parametrize(("takes_images", "size"), [(True, 3), (False, 3), (True, IMAGE_BYTES + 1)])
async def test_files_are_links_and_small_pictures_are_shown(
    tmp_path: Path, takes_images: bool, size: int
) -> None:
    """A picture is content where the agent takes it and it is small enough, else a link."""
    (tmp_path / "cat.png").write_bytes(b"x" * size)
    (tmp_path / "notes.txt").write_text("cats")
    async with talking(tmp_path) as talk:
        await open_with(talk, can={"promptCapabilities": {"image": takes_images}})
        files = (tmp_path / "cat.png", tmp_path / "notes.txt")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk.agent.prompt, 2, "look", files)
            await talk.answer("session/prompt", result={"stopReason": "end_turn"})
        picture, notes, text = (await talk.heard("session/prompt"))["params"]["prompt"]
    assert text == {"type": "text", "text": "look"}
    assert notes["type"] == "resource_link"
    assert notes["uri"] == (tmp_path / "session" / "work" / "attachment-2-2.txt").as_uri()
    if takes_images and size < IMAGE_BYTES:
        assert base64.b64decode(picture["data"]) == b"xxx"
    else:
        assert picture == {**picture, "type": "resource_link", "name": "attachment-2-1.png"}


async def test_claudes_adapter_gets_its_options(tmp_path: Path) -> None:
    """It takes models that it does not list, and reads no settings of the machine's user."""
    argv = ("node", "/x/claude-agent-acp/dist/index.js")
    async with (
        talking(tmp_path, model="sonnet", argv=argv) as talk,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(opened, talk)
        await talk.shake_hands()
        await talk.answer("session/set_config_option", result=MODELS)
    options = talk.pipe.sent[1]["params"]["_meta"]["claudeCode"]["options"]
    assert options == {"settingSources": ["project", "local"], "model": "sonnet"}
    assert talk.pipe.sent[2]["params"]["value"] == "sonnet"


@pytest.mark.parametrize("transport", ["acp"])
async def test_an_agent_that_closes_its_output_is_given_up(agent_launcher: OverTransport) -> None:
    """It lives on and can answer nothing: its turn ends, and so does its tree."""
    argv = (sys.executable, "-I", "-S", odd_agent.__file__)
    odd = attrs.evolve(spec_of("o"), profile=AgentProfile(AgentName("odd"), argv=argv))
    async with running(agent_launcher, odd) as one:
        with pytest.raises(AgentExited, match="closed its output"):
            await one.turn(1, "mute")


@pytest.mark.parametrize(
    ("mode", "tool_call", "kinds", "answer"),
    [
        ("approve-all", {}, ["reject_once", "allow_always", "allow_once"], "allow_once"),
        ("approve-all", {}, ["reject_once", "allow_always"], "allow_always"),
        ("approve-all", {}, ["reject_once"], "reject_once"),
        ("approve-all", {}, [], None),
        ("deny-all", {"kind": "read"}, ["allow_once", "reject_always"], "reject_always"),
        ("deny-all", {}, ["allow_once"], None),
        ("approve-reads", {"kind": "read"}, ["reject_once", "allow_once"], "allow_once"),
        ("approve-reads", {"kind": "search"}, ["allow_always"], "allow_always"),
        ("approve-reads", {"kind": "read"}, ["reject_once"], "reject_once"),
        ("approve-reads", {"kind": "edit", "title": "read x"}, ["allow_once"], None),
        ("approve-reads", {"title": "Grep: x"}, ["allow_once", "reject_once"], "allow_once"),
        ("approve-reads", {"title": " cat x"}, ["allow_once"], "allow_once"),
        ("approve-reads", {"title": "catch"}, ["allow_once", "reject_once"], "reject_once"),
        ("approve-reads", {"title": 5}, ["allow_once", "reject_once"], "reject_once"),
        ("approve-reads", {}, ["allow_once", "reject_once"], "reject_once"),
    ],
)
def test_each_mode_decides_as_acpx_does(
    mode: Permissions, tool_call: dict[str, Any], kinds: list[str], answer: str | None
) -> None:
    """Reads by kind, else by the title's first word; the mildest option of the right sort."""
    options = [{"optionId": kind, "kind": kind} for kind in kinds]
    assert decide_by_mode(mode, tool_call, options) == answer


def test_only_an_offered_option_can_be_chosen() -> None:
    """An answer must be one of the options, of a kind that there is."""
    assert is_offered("yes", CHOICES)
    assert not is_offered("other", CHOICES)
    assert not is_offered(None, CHOICES)
    assert not is_offered("x", [{"optionId": "x", "kind": "odd"}])


def test_a_lodged_agent_hides_its_environment(tmp_path: Path) -> None:
    """Neither variables nor credentials are in a repr."""
    spec = LaunchSpec(spec_of("d").session_id, AgentProfile(AgentName("a")), None, "ask")
    lodged = Lodged(spec, SessionFolders(tmp_path), ("x",), {"KEY": "s3cret"}, None, ["s3cret"])
    assert "s3cret" not in repr(lodged)
