"""Services of the same kind that PyPI and npm have, each in an environment of its own: ``--peer``.

They are asked by the same client, in the same blocks, with an agent as quick as the demo agent:
sandbox-agent runs that very one, claudegate (which drives Claude's command only) a stand-in for it.
What is installed is kept in the user's cache.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import platformdirs

from bench.clients import Caller, HttpChannel, drive, request_bytes
from bench.plan import Plan
from bench.processes import Tree
from bench.subjects import PROMPT
from bench.turns import Opener, Subject
from clawdforge.processes.lodging import DEMO_AGENT
from clawdforge.processes.runtime import node_binary

CACHE: Final = platformdirs.user_cache_path("clawdforge-bench")
CLAUDEGATE: Final = "claude-code-openai==0.1.1"
SANDBOX_AGENT: Final = "sandbox-agent@0.4.2"
START_SECS: Final = 60.0

LONG_CHAT: Final = 40
"""Messages past which a rested chat begins anew: its cost grows with them, and ours does not."""


@contextmanager
def sandbox_agent(plan: Plan, sessions: int) -> Iterator[Sequence[Subject]]:
    """Rust; speaks ACP over HTTP: a request is the agent's own JSON-RPC message."""
    binary, port = _install_sandbox_agent(), _free_port()
    home = plan.new_folder()
    data = home / ".local" / "share" / "sandbox-agent" / "bin"
    (data / "agent_processes").mkdir(parents=True)
    _script(data / "codex", "echo codex 1.0")
    launch = f"exec {sys.executable} -I -S {DEMO_AGENT}"
    _script(data / "agent_processes" / "codex-acp", launch)
    env = {"HOME": str(home), "SANDBOX_AGENT_REQUIRE_PREINSTALL": "1"}
    command = [str(binary), "server", "--no-telemetry", "-n", "-p", str(port)]
    with _serving(command, env, f"http://127.0.0.1:{port}/v1/health") as process, ExitStack() as st:
        call = Caller(("127.0.0.1", port))
        channels = []
        for number in range(sessions):
            path = f"/v1/acp/bench-{number}"
            params = {"protocolVersion": 1, "clientCapabilities": {}}
            call("POST", f"{path}?agent=codex", _rpc("initialize", params))
            opened = call("POST", path, _rpc("session/new", {"cwd": str(home), "mcpServers": []}))
            blocks = [{"type": "text", "text": PROMPT}]
            asked = {"sessionId": opened["result"]["sessionId"], "prompt": blocks}
            request = request_bytes("POST", path, body=_rpc("session/prompt", asked))
            channels.append(st.enter_context(call.channel(request)))
        yield [Subject("sandbox-agent", channels, Tree(process.pid))]


@contextmanager
def claudegate(plan: Plan, sessions: int) -> Iterator[Sequence[Subject]]:
    """Python; one command of Claude's a conversation, which it finds again by its transcript."""
    folder, port = plan.new_folder(), _free_port()
    folder.mkdir(parents=True)
    fake = folder / "claude"
    _script(fake, f"exec {sys.executable} -I -S {Path(__file__).with_name('fake_claude.py')}")
    env = {
        "HOME": str(folder),
        "CLAUDEGATE_PORT": str(port),
        "CLAUDEGATE_CLI_PATH": str(fake),
        "CLAUDEGATE_MAX_SESSIONS": "200",
    }
    command = [str(_install_claudegate()), "serve"]
    with _serving(command, env, f"http://127.0.0.1:{port}/healthz") as process, ExitStack() as st:
        channels = [ChatChannel(("127.0.0.1", port), f"user-{n}") for n in range(sessions)]
        for channel in channels:
            st.callback(channel.close)
            drive([channel], 1)  # starts its command
        yield [Subject("claudegate", channels, Tree(process.pid))]


class ChatChannel(HttpChannel):
    """A conversation in the shape of OpenAI's: each request holds all that was said before."""

    def __init__(self, address: tuple[str, int], user: str) -> None:
        super().__init__(address, b"", is_stream=False)
        self._user, self._chats = user, 0
        self._messages: list[Mapping[str, str]] = []

    def refresh(self) -> None:
        """A long chat begins anew, with a command of its own, before the clock runs."""
        super().refresh()
        if len(self._messages) > LONG_CHAT:
            self._chats += 1
            self._messages.clear()
            drive([self], 1)

    def send(self) -> None:
        """Ask the next question."""
        self._messages.append({"role": "user", "content": PROMPT})
        body = {
            "model": "sonnet",
            "user": f"{self._user}-{self._chats}",
            "messages": self._messages,
        }
        self.request = request_bytes("POST", "/v1/chat/completions", body=body)
        super().send()

    def take(self) -> tuple[bool, bool]:
        """The answer becomes part of the conversation."""
        has_first, is_whole = super().take()
        if is_whole:
            self._messages.append(json.loads(self.last_body)["choices"][0]["message"])
        return has_first, is_whole


PEERS: Final[Mapping[str, Opener]] = {"sandbox-agent": sandbox_agent, "claudegate": claudegate}


# --- installing and serving -----------------------------------------------------------------------


def _install_claudegate() -> Path:
    folder = CACHE / CLAUDEGATE
    command = folder / "bin" / "claudegate"
    if not command.exists():
        _run([sys.executable, "-m", "venv", str(folder)])
        _run([str(folder / "bin" / "python"), "-m", "pip", "install", "-q", CLAUDEGATE])
    return command


def _install_sandbox_agent() -> Path:
    """Its programs come in packages of their own for each machine."""
    folder = CACHE / SANDBOX_AGENT
    pattern = "node_modules/@sandbox-agent/cli-linux-*/bin/sandbox-agent"
    if not list(folder.glob(pattern)):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text("{}")
        node = node_binary()
        npm = node.parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        _run([str(node), str(npm), "install", "--ignore-scripts", SANDBOX_AGENT], cwd=folder)
    [binary] = folder.glob(pattern)
    binary.chmod(0o755)
    return binary


def _run(command: Sequence[str], cwd: Path | None = None) -> None:
    node = str(node_binary().parent)
    env = {**os.environ, "PATH": f"{node}:{os.environ['PATH']}"}
    subprocess.run(command, check=True, cwd=cwd, env=env, stdout=subprocess.DEVNULL)


def _script(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


@contextmanager
def _serving(
    command: Sequence[str], env: Mapping[str, str], health: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A peer until the end of the block; what is left of it then is killed."""
    with subprocess.Popen(
        command,
        env={"PATH": os.environ["PATH"], **env},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=env["HOME"],
    ) as process:
        try:
            _wait_until(lambda: _answers(health), f"{command[0]} does not answer")
            yield process
        finally:
            left = list(Tree(process.pid).pids())
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(30)
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, 9)


def _answers(url: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
        return bool(answer.status == 200)
    return False


def _wait_until(is_so: Callable[[], bool], failure: str) -> None:
    give_up_at = time.monotonic() + START_SECS
    while not is_so():
        assert time.monotonic() < give_up_at, failure
        time.sleep(0.05)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _rpc(method: str, params: object) -> Mapping[str, object]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
