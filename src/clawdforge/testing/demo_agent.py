"""The demo agent: a scripted ACP agent in one file. Standard library only; imports nothing of ours.

It speaks the Agent Client Protocol, version 1 (https://agentclientprotocol.com): JSON-RPC 2.0, one
message a line, on stdin and stdout. Run it as ``python -I -S demo_agent.py [options]``. It is the
service's embedded agent, the tests' double, and the shortest whole example of an agent there is.

A prompt is read line by line. A line that is a command word alone, or a command word and a colon
(``sleep: 5``; case does not matter), is obeyed; any other line is text, and the answer quotes it.
Lines are obeyed in order, and the turn then ends with ``end_turn``.

============  ======================================================================================
command       what the agent does
============  ======================================================================================
say: TEXT     answers TEXT, in one chunk a word
recall        lists the earlier prompts of this conversation (``what did I say?`` does so too)
model         says which model was chosen for this session
pid           says its own process id
env: NAME     says the names of its environment variables, and the value of NAME
think: TEXT   sends TEXT as a thought
tool: TITLE   reports a tool call: pending, in progress, completed
plan: A, B    sends a plan with these entries
usage: N      reports N tokens in use
huge: N       sends one line of more than N bytes
flood: N      sends N updates as fast as it can
pace: SECS    from here on waits SECS before each chunk
sleep: SECS   waits; a cancel ends the wait and the turn
ask: TITLE    asks permission for an edit called TITLE, and says what came of it
write: F TEXT writes TEXT into file F of the session's working directory
fork: SECS    starts a grandchild that lives SECS, says its process id
setsid: SECS  the same, in a session (and process group) of its own
late: TEXT    after the response, sends a session title TEXT
deaf: SECS    waits, and hears no cancel until the wait is over
ignore        from here on ignores TERM, INT, HUP and the end of its input
garbage: N    prints N lines that are not JSON
stop: REASON  ends the turn with this stop reason
fail: TEXT    answers the prompt with the JSON-RPC error TEXT
crash: CODE   exits at once with CODE (default 3)
============  ======================================================================================

Two threads: the *reader* hears cancels and answers while the *main* thread works on one request at
a time, so a turn is a straight line of code that looks at one event to learn whether to stop.

Conversations are files, one a session, in ``$DEMO_AGENT_STATE`` (default ``$HOME/.demo-agent``),
replaced whole at the start and the end of each turn: an agent started later can load them.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import re
import secrets
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NoReturn

Json = dict[str, Any]

COMMANDS: Final = frozenset(
    re.findall(r"^(\w+)(?:: [A-Z]| {2,}\w)", __doc__ or "", re.MULTILINE)
) - {"command"}
MODELS: Final = ("demo", "sonnet", "opus", "haiku")
WORDS: Final = re.compile(r"\s*\S+")
SESSION_ID: Final = re.compile(r"demo-[0-9a-f]{32}")
HANDSHAKE: Final = {
    "protocolVersion": 1,
    "agentInfo": {"name": "clawdforge-demo", "title": "Demo agent", "version": "1"},
    "authMethods": [],
}
CHOICES: Final = (
    {"optionId": "allow", "name": "Allow", "kind": "allow_once"},
    {"optionId": "reject", "name": "Reject", "kind": "reject_once"},
)
GARBAGE: Final = (b"this is not JSON\n", b'{"half":\n', b"\xff\xfe\x00\n")


class RpcError(Exception):
    """Becomes the JSON-RPC error of the request in hand."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class TurnEnded(Exception):
    """Ends the turn early; the argument is the stop reason."""


# --- what a prompt means, and what each command answers -------------------------------------------


def parse_prompt(text: str) -> Iterator[tuple[str, str]]:
    """The steps of a prompt: (command, argument). Plain text is the step ``quote``."""
    for line in filter(None, map(str.strip, text.splitlines())):
        word, colon, argument = line.partition(":")
        if line.lower().rstrip("?") == "what did i say":
            yield "recall", ""
        elif word.lower() in COMMANDS and (colon or word == line):
            yield word.lower(), argument.strip()
        else:
            yield "quote", line


def text_update(kind: str, text: str) -> Json:
    """An update that carries text."""
    return {"sessionUpdate": kind, "content": {"type": "text", "text": text}}


def words_of(word: str, argument: str, conversation: Conversation) -> str:
    """What a command says that answers in words; nothing for the others."""
    match word:
        case "quote":
            return f"You said: {argument}"
        case "say":
            return argument
        case "recall":
            earlier = [text for role, text in conversation.messages[:-1] if role == "user"]
            return "\n".join(["You said before:", *earlier] if earlier else ["Nothing so far."])
        case "env":
            names = f"Names: {' '.join(sorted(os.environ))}"
            return f"{names}\n{argument}={os.environ.get(argument, '(not set)')}"
    return {"model": f"Model: {conversation.model}", "pid": f"Process: {os.getpid()}"}.get(word, "")


def updates_of(word: str, argument: str) -> Iterator[Json]:
    """The updates that a command sends which shows something; none for the others."""
    match word:
        case "think":
            yield text_update("agent_thought_chunk", argument)
        case "tool":
            tool = {"toolCallId": f"tool-{secrets.token_hex(4)}"}
            start = {"title": argument, "kind": "read", "rawInput": {"title": argument}}
            text = {"type": "text", "text": f"{argument}: done"}
            content = [{"type": "content", "content": text}]
            yield {"sessionUpdate": "tool_call", **tool, **start, "status": "pending"}
            change = {"sessionUpdate": "tool_call_update", **tool}
            yield {**change, "status": "in_progress"}
            yield {**change, "status": "completed", "content": content}
        case "plan":
            about = {"priority": "medium", "status": "pending"}
            entries = [{"content": entry.strip(), **about} for entry in argument.split(",")]
            yield {"sessionUpdate": "plan", "entries": entries}
        case "usage":
            yield {"sessionUpdate": "usage_update", "used": int(argument), "size": 200_000}
        case "huge":
            yield text_update("agent_message_chunk", "x" * int(argument))
        case "flood":
            yield from (text_update("agent_message_chunk", f"{n} ") for n in range(int(argument)))


# --- the conversation -----------------------------------------------------------------------------


class Conversation:
    """What was said in one session: ``messages`` are [role, text] pairs, each a line of its file.

    The choice of a model is a line too, ["model", name].
    """

    def __init__(self, session_id: str, cwd: str, path: Path) -> None:
        if not SESSION_ID.fullmatch(session_id):
            raise RpcError(-32002, "no such session")
        self.session_id = session_id
        self.cwd = cwd
        self.path = path / f"{session_id}.jsonl"
        self.model = MODELS[0]
        self.messages: list[list[str]] = []

    def add(self, role: str, text: str) -> None:
        """One line more in the file: a turn costs the same however long the conversation is."""
        self.note(role, text)
        with self.path.open("a") as file:
            file.write(json.dumps([role, text]) + "\n")

    def note(self, role: str, text: str) -> None:
        """What a line says."""
        if role == "model":
            self.model = text
        else:
            self.messages.append([role, text])

    def load(self) -> None:
        """Take the conversation up again. Raises RpcError when it is not kept."""
        if not self.path.exists():
            raise RpcError(-32002, "no such session")
        *lines, torn = self.path.read_text().split("\n")
        if torn:  # half a line, that a crash has left
            os.truncate(self.path, self.path.stat().st_size - len(torn))
        for line in lines:
            self.note(*json.loads(line))

    def describe(self) -> Json:
        """What a client may choose in this session: the model (which changes nothing)."""
        choices = [{"value": name, "name": name} for name in MODELS]
        model = {"id": "model", "name": "Model", "category": "model", "type": "select"}
        return {"configOptions": [{**model, "currentValue": self.model, "options": choices}]}


# --- the agent ------------------------------------------------------------------------------------


class DemoAgent:
    """Serves the requests of one client, one after the other, until its input ends."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.can_load = not options.no_load
        self.is_stubborn = False
        self.folder = Path(os.environ.get("DEMO_AGENT_STATE") or Path.home() / ".demo-agent")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.conversations: dict[str, Conversation] = {}
        self.cancels: dict[str, threading.Event] = {}  # by session: that of its latest turn
        self.requests: queue.SimpleQueue[Json] = queue.SimpleQueue()
        self.answers: queue.SimpleQueue[Json] = queue.SimpleQueue()

    def serve(self) -> NoReturn:
        """Work for ever: the reader ends the process when the input ends."""
        if self.options.stubborn:
            self.ignore_endings()
        threading.Thread(target=self.read, daemon=True).start()
        while True:
            request = self.requests.get()
            try:
                self.handle(request)
            except (RpcError, LookupError, OSError, TypeError, ValueError) as error:
                code = error.code if isinstance(error, RpcError) else -32602
                self.send(id=request["id"], error={"code": code, "message": str(error)})

    def read(self) -> None:
        """The reader: hears the client, however busy the main thread is. A cancel acts at once."""
        for line in sys.stdin.buffer:
            try:
                message = {"id": None, "method": None, "params": {}, **json.loads(line)}
                session_id = message["params"].get("sessionId")
            except (AttributeError, TypeError, ValueError):
                self.send(id=None, error={"code": -32700, "message": "not a message"})
                continue
            if message["method"] is None:
                self.answers.put(message)
            elif message["method"] != "session/cancel":
                self.cancels[session_id] = threading.Event()
                self.requests.put(message)
            elif session_id in self.cancels and not self.options.stubborn:
                self.cancels[session_id].set()
                self.answers.put(message)  # wakes a turn that waits for a permission
        if not self.is_stubborn:
            os._exit(0)  # whatever the main thread is at: nobody is left who wants it

    def ignore_endings(self) -> None:
        """Become hard to end: only KILL does it."""
        self.is_stubborn = True
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)

    def send(self, **message: object) -> None:
        """Write one message."""
        self.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")

    def write(self, data: bytes) -> None:
        """Write bytes."""
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    def update(self, session_id: str, update: Json) -> None:
        """Send one ``session/update``."""
        self.send(method="session/update", params={"sessionId": session_id, "update": update})

    def handle(self, request: Json) -> None:
        """Serve one request. Raises RpcError, or what a wrong parameter leads to."""
        params, late = request["params"], list[Json]()
        match request["method"]:
            case "initialize":
                if self.options.no_handshake:
                    threading.Event().wait()  # for ever: only a signal or the end of input helps
                result = {**HANDSHAKE, "agentCapabilities": {"loadSession": self.can_load}}
            case "session/new":
                result = self.open(f"demo-{secrets.token_hex(16)}", params["cwd"])
            case "session/load" if self.can_load:
                result = self.load(params["sessionId"], params["cwd"])
            case "session/set_config_option":
                conversation = self.conversations[params["sessionId"]]
                conversation.add("model", str(params["value"]))
                result = conversation.describe()
            case "session/prompt":
                turn = Turn(self, self.conversations[params["sessionId"]])
                late = turn.late
                result = {"stopReason": turn.run(params["prompt"])}
            case method:
                raise RpcError(-32601, f"this agent has no method {method}")
        self.send(id=request["id"], result=result)
        for update in late:
            self.update(params["sessionId"], update)

    def open(self, session_id: str, cwd: str) -> Json:
        """Begin a conversation."""
        conversation = Conversation(session_id, cwd, self.folder)
        conversation.add("model", conversation.model)
        self.conversations[session_id] = conversation
        return {"sessionId": session_id, **conversation.describe()}

    def load(self, session_id: str, cwd: str) -> Json:
        """Replay all that was said, then answer (ACP, session setup: loading sessions)."""
        conversation = Conversation(session_id, cwd, self.folder)
        conversation.load()
        for role, text in conversation.messages:
            self.update(session_id, text_update(f"{role}_message_chunk", text))
        self.conversations[session_id] = conversation
        return conversation.describe()


class Turn:
    """One turn at work: what it has said, how fast it speaks, and whether it was cancelled."""

    def __init__(self, agent: DemoAgent, conversation: Conversation) -> None:
        self.agent = agent
        self.conversation = conversation
        self.cancelled = agent.cancels[conversation.session_id]
        self.late: list[Json] = []  # updates to send after the response
        self.said = ""
        self.pace_secs = 0.0

    def run(self, prompt: list[Json]) -> str:
        """Obey a prompt's lines; the stop reason. The question is kept before any work on it."""
        text = "\n".join(block.get("text") or block.get("uri") or "" for block in prompt)
        self.conversation.add("user", text)
        try:
            for word, argument in parse_prompt(text):
                if word != "deaf":  # who has heard the step before it can be sure of deafness
                    self.wait(0)
                self.obey(word, argument)
        except TurnEnded as ending:
            return str(ending)
        finally:
            self.conversation.add("agent", self.said)
        return "end_turn"

    def obey(self, word: str, argument: str) -> None:
        """Do one step; each command is known in one of four places. Raises TurnEnded, RpcError."""
        self.say(words_of(word, argument, self.conversation))
        for update in updates_of(word, argument):
            self.update(update)
        self.act(word, argument)
        self.misbehave(word, argument)

    def update(self, update: Json) -> None:
        """Rest, then send one update. Raises TurnEnded."""
        self.wait(self.pace_secs)
        self.agent.update(self.conversation.session_id, update)

    def wait(self, secs: float) -> None:
        """Wait, but not beyond a cancel. Raises TurnEnded."""
        if self.cancelled.wait(secs):
            raise TurnEnded("cancelled")

    def say(self, text: str) -> None:
        """Stream an answer, on a line of its own."""
        for chunk in WORDS.findall(f"\n{text}" if self.said else text):
            self.update(text_update("agent_message_chunk", chunk))
            self.said += chunk

    def act(self, word: str, argument: str) -> None:
        """The commands that do something in the world."""
        match word:
            case "pace":
                self.pace_secs = float(argument)
            case "sleep":
                self.wait(float(argument))
            case "ask":
                self.say(f"Permission: {self.ask(argument)}")
            case "write":
                name, _, text = argument.partition(" ")
                Path(self.conversation.cwd, name).write_text(text)
                self.say(f"Wrote {name}")
            case "fork" | "setsid":  # it holds our pipes open, as a careless tool would
                code = f"import time; time.sleep({float(argument)})"
                argv = [sys.executable, "-I", "-S", "-c", code]
                pid = os.posix_spawn(argv[0], argv, os.environ, setsid=word == "setsid")
                self.say(f"Grandchild: {pid}")
            case "late":
                self.late.append({"sessionUpdate": "session_info_update", "title": argument})

    def ask(self, title: str) -> str:
        """Ask for permission; the option chosen, or ``cancelled``. Raises TurnEnded."""
        ask_id = f"ask-{secrets.token_hex(4)}"
        tool = {"toolCallId": ask_id, "title": title, "kind": "edit", "status": "pending"}
        params = {"sessionId": self.conversation.session_id, "toolCall": tool, "options": CHOICES}
        self.agent.send(id=ask_id, method="session/request_permission", params=params)
        answer: Json = {"id": None}
        while answer["id"] != ask_id:  # others: a cancel's wake-up, a question given up
            answer = self.agent.answers.get()
            self.wait(0)
        outcome: dict[str, str] = answer.get("result", {}).get("outcome", {"outcome": "refused"})
        return outcome.get("optionId", outcome["outcome"])

    def misbehave(self, word: str, argument: str) -> None:
        """The commands that make a bad agent of a good one."""
        match word:
            case "deaf":
                time.sleep(float(argument))
                self.cancelled.clear()
            case "ignore":
                self.agent.ignore_endings()
            case "garbage":
                for number in range(int(argument)):
                    self.agent.write(GARBAGE[number % len(GARBAGE)])
            case "stop":
                raise TurnEnded(argument)
            case "fail":
                raise RpcError(-32603, argument or "told to fail")
            case "crash":
                os._exit(int(argument or 3))


def main() -> NoReturn:
    """Read the command line and serve. Each option makes the agent bad in one way."""
    parser = argparse.ArgumentParser(description="A scripted ACP agent on stdin and stdout.")
    parser.add_argument("--no-load", action="store_true", help="offer no session/load")
    parser.add_argument("--no-handshake", action="store_true", help="never answer initialize")
    parser.add_argument("--stubborn", action="store_true", help="only KILL ends it")
    parser.add_argument("--exit-at-start", type=int, metavar="CODE", help="exit with CODE")
    options = parser.parse_args()
    if options.exit_at_start is not None:
        sys.exit(options.exit_at_start)
    for number in (signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)  # end without a traceback
    DemoAgent(options).serve()


if __name__ == "__main__":
    main()
