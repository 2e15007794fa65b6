"""The demo agent over a bare pipe: one test a command, one an option."""

from __future__ import annotations

import itertools
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from clawdforge.testing import demo_agent

DEADLINE_SECS = 20.0
"""Far beyond what any answer takes: past it the test fails loudly."""


class Client:
    """An ACP client of a few lines: it sends, and reads lines by a deadline."""

    def __init__(self, home: Path, *options: str) -> None:
        self.home = home
        self.session_id = ""
        self.buffer = b""
        self.next_id = 0
        argv = [sys.executable, "-I", "-S", demo_agent.__file__, *options]
        self.process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"HOME": str(home), "COLOUR": "blue"},
            bufsize=0,
        )

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.kill()
        self.process.wait(DEADLINE_SECS)
        self.process.stdin.close()
        self.process.stdout.close()

    def write(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")

    def request(self, method: str, **params: object) -> int:
        self.next_id += 1
        self.write({"id": self.next_id, "method": method, "params": params})
        return self.next_id

    def read_line(self) -> bytes:
        assert self.process.stdout is not None
        give_up_at = time.monotonic() + DEADLINE_SECS
        while b"\n" not in self.buffer:
            left = give_up_at - time.monotonic()
            ready, _, _ = select.select([self.process.stdout], [], [], max(left, 0))
            assert ready, "the agent said nothing in time"
            chunk = os.read(self.process.stdout.fileno(), 1 << 20)
            if not chunk:
                raise EOFError
            self.buffer += chunk
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line

    def read(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self.read_line())
        return message

    def call(self, method: str, **params: object) -> list[dict[str, Any]]:
        """All messages up to the answer, the answer last."""
        request_id = self.request(method, **params)
        messages = [self.read()]
        while messages[-1].get("id") != request_id:
            messages.append(self.read())
        return messages

    def open(self) -> None:
        self.call("initialize", protocolVersion=1)
        answer = self.call("session/new", cwd=str(self.home), mcpServers=[])[-1]
        self.session_id = answer["result"]["sessionId"]

    def ask(self, text: str) -> int:
        content = [{"type": "text", "text": text}]
        return self.request("session/prompt", sessionId=self.session_id, prompt=content)

    def turn(self, text: str) -> list[dict[str, Any]]:
        content = [{"type": "text", "text": text}]
        return self.call("session/prompt", sessionId=self.session_id, prompt=content)

    def say(self, text: str) -> str:
        return said(self.turn(text))

    def cancel(self) -> None:
        self.write({"method": "session/cancel", "params": {"sessionId": self.session_id}})


def updates(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The updates among messages."""
    return [m["params"]["update"] for m in messages if m.get("method") == "session/update"]


def said(messages: list[dict[str, Any]]) -> str:
    """The answer's text."""
    found = updates(messages)
    return "".join(
        u["content"]["text"] for u in found if u["sessionUpdate"] == "agent_message_chunk"
    )


def stop_reason(messages: list[dict[str, Any]]) -> object:
    """How the turn ended."""
    return messages[-1]["result"]["stopReason"]


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    """A client with a session open."""
    client = Client(tmp_path)
    client.open()
    yield client
    client.close()


def test_the_table_names_every_command() -> None:
    """The docstring's table is the list of commands, so it cannot fall behind."""
    assert len(demo_agent.COMMANDS) == 24
    assert {"say", "recall", "crash"} <= demo_agent.COMMANDS


@pytest.mark.parametrize(
    ("prompt", "steps"),
    [
        ("hello", [("quote", "hello")]),
        ("Sleep: 5", [("sleep", "5")]),
        ("SLEEP:5", [("sleep", "5")]),
        ("recall", [("recall", "")]),
        ("What did I say?", [("recall", "")]),
        ("think of a number", [("quote", "think of a number")]),
        ("note: this", [("quote", "note: this")]),
        ("say: a: b\n\n  pid  \nbye", [("say", "a: b"), ("pid", ""), ("quote", "bye")]),
        ("", []),
    ],
)
def test_prompts_are_read_line_by_line(prompt: str, steps: list[tuple[str, str]]) -> None:
    """A command word alone or with a colon is obeyed; all else is text."""
    assert list(demo_agent.parse_prompt(prompt)) == steps


def test_the_handshake_offers_loading(client: Client) -> None:
    """The handshake answers with protocol 1 and the load capability."""
    result = client.call("initialize", protocolVersion=1)[-1]["result"]
    assert result["protocolVersion"] == 1
    assert result["agentCapabilities"] == {"loadSession": True}


def test_text_is_quoted_in_several_chunks(client: Client) -> None:
    """A plain prompt is answered word by word and ends with end_turn."""
    messages = client.turn("good morning")
    assert len(updates(messages)) == 4
    assert said(messages) == "You said: good morning"
    assert stop_reason(messages) == "end_turn"


def test_steps_answer_on_lines_of_their_own(client: Client) -> None:
    """Several steps in one prompt are obeyed in order."""
    assert client.say("say: one\nsay: two") == "one\ntwo"


def test_recall_lists_earlier_prompts(client: Client) -> None:
    """A later turn remembers what earlier ones asked."""
    assert client.say("recall") == "Nothing so far."
    client.turn("my cat is Miro")
    assert client.say("what did I say?") == "You said before:\nrecall\nmy cat is Miro"


def test_a_model_can_be_chosen(client: Client) -> None:
    """The session's config option sets what ``model`` says."""
    client.call(
        "session/set_config_option",
        sessionId=client.session_id,
        configId="model",
        value="opus",
    )
    assert client.say("model") == "Model: opus"


def test_pid_is_the_process(client: Client) -> None:
    """``pid`` tells a test which process to look for."""
    assert client.say("pid") == f"Process: {client.process.pid}"


def test_env_tells_names_and_one_value(client: Client) -> None:
    """``env`` shows what reached the agent's environment."""
    text = client.say("env: COLOUR")
    assert text.splitlines()[0].startswith("Names: COLOUR HOME")
    assert text.splitlines()[1] == "COLOUR=blue"
    assert "NOPE=(not set)" in client.say("env: NOPE")


def test_think_is_a_thought(client: Client) -> None:
    """A thought is an update of its own and no part of the answer."""
    messages = client.turn("think: hmm")
    assert updates(messages)[0]["sessionUpdate"] == "agent_thought_chunk"
    assert said(messages) == ""


def test_tool_reports_its_progress(client: Client) -> None:
    """A tool call goes from pending over in progress to completed, under one id."""
    found = updates(client.turn("tool: read notes"))
    assert [u["status"] for u in found] == ["pending", "in_progress", "completed"]
    assert len({u["toolCallId"] for u in found}) == 1


def test_plan_and_usage_are_updates(client: Client) -> None:
    """A plan has its entries, usage its number."""
    plan, usage = updates(client.turn("plan: look, leap\nusage: 7"))
    assert [entry["content"] for entry in plan["entries"]] == ["look", "leap"]
    assert usage["used"] == 7


def test_huge_is_one_long_line(client: Client) -> None:
    """One update of more than n bytes arrives on one line."""
    client.ask("huge: 3000000")
    assert len(client.read_line()) > 3_000_000


def test_flood_sends_that_many_updates(client: Client) -> None:
    """A flood is n updates, none left out."""
    assert len(updates(client.turn("flood: 2000"))) == 2000


def test_a_cancel_ends_a_flood(client: Client) -> None:
    """The reader hears a cancel while the agent streams."""
    client.ask("pace: 0.001\nflood: 1000000")
    client.read()
    client.cancel()
    while "id" not in (message := client.read()):
        pass
    assert message["result"] == {"stopReason": "cancelled"}


def test_a_cancel_ends_a_sleep(client: Client) -> None:
    """A sleeping turn answers ``cancelled`` at once, and the next turn works."""
    client.ask("say: in bed\nsleep: 600")
    client.read(), client.read()
    client.cancel()
    assert client.read()["result"] == {"stopReason": "cancelled"}
    assert client.say("hello") == "You said: hello"


def test_a_cancel_that_overtakes_the_turn_is_kept(client: Client) -> None:
    """A cancel sent right behind the prompt ends that turn."""
    client.ask("sleep: 600")
    client.cancel()
    assert client.read()["result"] == {"stopReason": "cancelled"}


def test_an_idle_cancel_is_forgotten(client: Client) -> None:
    """A cancel between turns does not reach into the next one."""
    client.turn("hello")
    client.cancel()
    assert stop_reason(client.turn("sleep: 0\nhello")) == "end_turn"


def test_deaf_hears_no_cancel(client: Client) -> None:
    """A deaf turn runs to its end whatever it is told."""
    client.ask("say: here\ndeaf: 0.2\nsay: done")
    client.read()
    client.cancel()
    assert client.read()["params"]["update"]["content"]["text"] == "\ndone"
    assert client.read()["result"] == {"stopReason": "end_turn"}


@pytest.mark.parametrize(
    ("outcome", "text"),
    [
        ({"outcome": "selected", "optionId": "allow"}, "Permission: allow"),
        ({"outcome": "selected", "optionId": "reject"}, "Permission: reject"),
        ({"outcome": "cancelled"}, "Permission: cancelled"),
    ],
)
def test_ask_reports_the_outcome(client: Client, outcome: dict[str, str], text: str) -> None:
    """A permission request offers allow and reject once, and its outcome is said."""
    client.ask("ask: edit notes")
    request = client.read()
    assert request["method"] == "session/request_permission"
    assert request["params"]["toolCall"]["title"] == "edit notes"
    kinds = [option["kind"] for option in request["params"]["options"]]
    assert kinds == ["allow_once", "reject_once"]
    client.write({"id": request["id"], "result": {"outcome": outcome}})
    assert said([client.read(), client.read()]) == text


def test_a_cancel_ends_a_question(client: Client) -> None:
    """A turn that waits for a permission is cancelled, and a late answer is ignored."""
    client.ask("ask: edit notes")
    request = client.read()
    client.cancel()
    assert client.read()["result"] == {"stopReason": "cancelled"}
    client.write({"id": request["id"], "result": {"outcome": {"outcome": "cancelled"}}})
    client.ask("ask: again")
    second = client.read()
    chosen = {"outcome": "selected", "optionId": "allow"}
    client.write({"id": second["id"], "result": {"outcome": chosen}})
    assert said([client.read(), client.read()]) == "Permission: allow"


def test_write_writes_in_the_working_directory(client: Client) -> None:
    """A file lands in the session's directory."""
    assert client.say("write: notes.txt some words") == "Wrote notes.txt"
    assert (client.home / "notes.txt").read_text() == "some words"


@pytest.mark.parametrize("command", ["fork", "setsid"])
def test_a_grandchild_is_started(client: Client, command: str) -> None:
    """A grandchild lives on its own, in its own session when asked."""
    found = re.search(r"Grandchild: (\d+)", client.say(f"{command}: 60"))
    assert found is not None
    pid = int(found[1])
    try:
        assert (os.getsid(pid) == pid) == (command == "setsid")
    finally:
        os.kill(pid, signal.SIGKILL)


def test_late_comes_after_the_response(client: Client) -> None:
    """An update may follow the response: it belongs to the session."""
    assert stop_reason(client.turn("late: My title")) == "end_turn"
    late = client.read()["params"]["update"]
    assert late == {"sessionUpdate": "session_info_update", "title": "My title"}


def test_garbage_is_no_message(client: Client) -> None:
    """Lines that are not JSON come in between, and the turn goes on."""
    client.ask("garbage: 3\nsay: ok")
    for _ in range(3):
        with pytest.raises(ValueError, match=r"."):
            client.read()
    assert said([client.read()]) == "ok"


def test_stop_and_fail_choose_the_ending(client: Client) -> None:
    """A turn may end with any stop reason, or with an error."""
    assert stop_reason(client.turn("stop: refusal")) == "refusal"
    assert client.turn("fail: no luck")[-1]["error"] == {"code": -32603, "message": "no luck"}


def test_a_wrong_argument_is_an_error(client: Client) -> None:
    """An argument that makes no sense fails its turn only."""
    assert client.turn("sleep: long")[-1]["error"]["code"] == -32602
    assert client.say("hello") == "You said: hello"


@pytest.mark.parametrize(("prompt", "code"), [("crash", 3), ("crash: 7", 7)])
def test_crash_exits_at_once(client: Client, prompt: str, code: int) -> None:
    """A crash ends the process in mid-turn with its code."""
    client.ask(f"say: bye\n{prompt}")
    client.read()
    with pytest.raises(EOFError):
        client.read()
    assert client.process.wait(DEADLINE_SECS) == code


def test_the_end_of_input_ends_the_agent(client: Client) -> None:
    """A good agent leaves when its client has gone, even in mid-turn."""
    client.ask("say: here\nsleep: 600")
    client.read()
    assert client.process.stdin is not None
    client.process.stdin.close()
    assert client.process.wait(DEADLINE_SECS) == 0


@pytest.mark.parametrize("options", [(), ("--stubborn",)])
def test_a_stubborn_agent_ignores_every_ending(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Neither TERM, INT, HUP nor the end of input moves it; with --stubborn no cancel either."""
    client = Client(tmp_path, *options)
    try:
        client.open()
        client.ask("ignore\nsay: up\nsleep: 0.3\nsay: still")
        client.read()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            client.process.send_signal(number)
        if options:
            client.cancel()
        assert client.process.stdin is not None
        client.process.stdin.close()
        assert said([client.read()]) == "\nstill"
        assert client.process.poll() is None
    finally:
        client.close()


@contextmanager
def taking_up(client: Client) -> Iterator[Client]:
    """Another agent that has loaded the client's conversation."""
    other = Client(client.home)
    try:
        other.call("session/load", sessionId=client.session_id, cwd="/", mcpServers=[])
        other.session_id = client.session_id
        yield other
    finally:
        other.close()


def test_a_new_agent_loads_the_conversation(client: Client) -> None:
    """session/load replays what was said, and the conversation goes on."""
    client.turn("my cat is Miro")
    other = Client(client.home)
    try:
        messages = other.call(
            "session/load", sessionId=client.session_id, cwd=str(client.home), mcpServers=[]
        )
        assert [u["sessionUpdate"] for u in updates(messages)] == [
            "user_message_chunk",
            "agent_message_chunk",
        ]
        other.session_id = client.session_id
        assert "Miro" in other.say("recall")
    finally:
        other.close()


def test_a_turn_adds_to_the_conversation_and_rewrites_nothing(client: Client) -> None:
    """What a turn writes does not grow with the turns before it."""
    (file,) = client.home.glob(".demo-agent/*.jsonl")
    sizes = [file.stat().st_size]
    held = file.read_bytes()
    for _ in range(4):
        client.turn("say: hello")
        assert file.read_bytes().startswith(held)
        held = file.read_bytes()
        sizes.append(len(held))
    assert len({after - before for before, after in itertools.pairwise(sizes)}) == 1


def test_the_choice_of_a_model_is_kept(client: Client) -> None:
    """Who loads the conversation has the model that was chosen in it."""
    params = {"sessionId": client.session_id, "configId": "model", "value": "opus"}
    client.call("session/set_config_option", **params)
    with taking_up(client) as other:
        assert other.say("model") == "Model: opus"


def test_half_a_line_that_a_crash_left_is_dropped(client: Client) -> None:
    """The conversation is whole up to there, and goes on in a file that can be read again."""
    client.turn("my cat is Miro")
    (file,) = client.home.glob(".demo-agent/*.jsonl")
    with file.open("a") as torn:
        torn.write('["user", "my do')
    for _ in range(2):
        with taking_up(client) as other:
            assert "Miro" in other.say("recall")


@pytest.mark.parametrize("session_id", ["demo-" + "0" * 32, "../../etc/passwd"])
def test_an_unknown_conversation_is_refused(client: Client, session_id: str) -> None:
    """Loading what is not there is ACP's resource-not-found, whatever the id looks like."""
    answer = client.call("session/load", sessionId=session_id, cwd="/", mcpServers=[])[-1]
    assert answer["error"]["code"] == -32002


def test_a_question_survives_a_crash(client: Client) -> None:
    """What was asked is kept before it is worked on."""
    with pytest.raises(EOFError):
        client.turn("remember this\ncrash")
    with taking_up(client) as other:
        assert "remember this" in other.say("recall")


def test_no_load_offers_no_loading(tmp_path: Path) -> None:
    """With --no-load the capability and the method are missing."""
    client = Client(tmp_path, "--no-load")
    try:
        answer = client.call("initialize", protocolVersion=1)[-1]
        assert answer["result"]["agentCapabilities"] == {"loadSession": False}
        assert client.call("session/load", sessionId="x", cwd="/")[-1]["error"]["code"] == -32601
    finally:
        client.close()


def test_no_handshake_says_nothing(tmp_path: Path) -> None:
    """With --no-handshake initialize is never answered, and the end of input still ends it."""
    client = Client(tmp_path, "--no-handshake")
    try:
        client.request("initialize", protocolVersion=1)
        client.write({"method": 5, "params": None})
        assert client.read()["error"]["code"] == -32700
        assert client.process.stdin is not None
        client.process.stdin.close()
        with pytest.raises(EOFError):
            client.read()
    finally:
        client.close()


def test_exit_at_start_exits(tmp_path: Path) -> None:
    """With --exit-at-start nothing is said at all."""
    client = Client(tmp_path, "--exit-at-start", "4")
    try:
        with pytest.raises(EOFError):
            client.read()
        assert client.process.wait(DEADLINE_SECS) == 4
    finally:
        client.close()


def test_nonsense_is_answered_and_survived(client: Client) -> None:
    """A line that is no message gets an error, an unknown method another; the agent lives on."""
    assert client.process.stdin is not None
    client.process.stdin.write(b"hello\n[]\n7\n")
    assert [client.read()["error"]["code"] for _ in range(3)] == [-32700] * 3
    assert client.call("session/fly")[-1]["error"]["code"] == -32601
    assert client.say("hello") == "You said: hello"
