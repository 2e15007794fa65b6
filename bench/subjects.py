"""What is measured: the bare pipe, the service over each transport, and the service with a fake.

Each has the same agent behind it (``demo``), starts in a folder of its own, and is gone after the
block it was opened for.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import attrs

from bench.clients import Caller, HttpChannel, PipeChannel, request_bytes
from bench.processes import Tree
from clawdforge.config import Config
from clawdforge.domain.profiles import Transport
from clawdforge.processes.lodging import DEMO_AGENT

PROMPT: Final = "say: hello"
CAP: Final = 3000
STREAM: Final = ("Accept", "text/event-stream")


@contextmanager
def bare_pipes(folder: Path, count: int, prompt: str = PROMPT) -> Iterator[list[PipeChannel]]:
    """So many agents, each with an open session and nobody in between."""
    folder.mkdir(parents=True, exist_ok=True)
    env = {"PATH": os.environ["PATH"], "DEMO_AGENT_STATE": str(folder)}
    with ExitStack() as stack:
        channels = []
        for _ in range(count):
            process = stack.enter_context(_agent(folder, env))
            session_id = _open_session(process, folder)
            channels.append(PipeChannel(process, session_id, prompt))
        yield channels


@contextmanager
def _agent(folder: Path, env: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, "-I", "-S", str(DEMO_AGENT)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=env,
        cwd=folder,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _open_session(process: subprocess.Popen[bytes], folder: Path) -> str:
    """Shake hands as any client does."""
    asked: Sequence[tuple[str, dict[str, Any]]] = (
        ("initialize", {"protocolVersion": 1, "clientCapabilities": {}}),
        ("session/new", {"cwd": str(folder), "mcpServers": []}),
    )
    answer: dict[str, Any] = {}
    for number, (method, params) in enumerate(asked):
        request = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
        answer = json.loads(process.stdout.readline())["result"]
    return str(answer["sessionId"])


@attrs.frozen
class Service:
    """A running service: how to ask it, and its processes."""

    call: Caller
    tree: Tree

    def open_sessions(self, count: int, agent: str) -> list[str]:
        """So many sessions of an agent."""
        made = (self.call("POST", "/sessions", {"agent": agent}) for _ in range(count))
        return [answer["session_id"] for answer in made]

    def close_session(self, session_id: str) -> None:
        """End it, its processes with it."""
        self.call("DELETE", f"/sessions/{session_id}")

    @contextmanager
    def turns(
        self, sessions: Sequence[str], *, is_stream: bool, prompt: str = PROMPT
    ) -> Iterator[list[HttpChannel]]:
        """A connection for each session, that asks it one turn after the other."""
        with self.requests(
            [("POST", f"/sessions/{session}/turn", {"prompt": prompt}) for session in sessions],
            is_stream=is_stream,
        ) as channels:
            yield channels

    @contextmanager
    def requests(
        self, asked: Sequence[tuple[str, str, object]], *, is_stream: bool = False
    ) -> Iterator[list[HttpChannel]]:
        """A connection for each request."""
        headers = (*self.call.headers, *([STREAM] if is_stream else []))
        with ExitStack() as stack:
            yield [
                stack.enter_context(
                    self.call.channel(
                        request_bytes(method, path, headers=headers, body=body),
                        is_stream=is_stream,
                    )
                )
                for method, path, body in asked
            ]


@contextmanager
def clawdforge(
    folder: Path, *, warm: int = 0, agents: Sequence[Transport] = ("acpx", "acp")
) -> Iterator[Service]:
    """``clawdforge serve``, and in it the demo agent once a transport, under that name."""
    folder.mkdir(parents=True, exist_ok=True)
    table = "".join(
        f"[agents.{name}]\nargv = {json.dumps([sys.executable, '-I', '-S', str(DEMO_AGENT)])}\n"
        f'transport = "{name}"\n' + (f"warm = {warm}\n" if warm else "")
        for name in agents
    )
    (folder / "bench.toml").write_text(table)
    admin = secrets.token_urlsafe(24)
    env = {
        "PATH": os.environ["PATH"],
        "CLAWDFORGE_BIND": "127.0.0.1:0",
        "CLAWDFORGE_CONFIG": str(folder / "bench.toml"),
        "CLAWDFORGE_DATA_DIR": str(folder / "data"),
        "CLAWDFORGE_RUNTIME_DIR": str(Config().runtime_dir),
        "CLAWDFORGE_MAX_LIVE_SESSIONS": str(CAP),
        "CLAWDFORGE_ADMIN_TOKEN": admin,
    }
    with _serving([sys.executable, "-m", "clawdforge", "serve"], env) as (url, process):
        yield Service(_caller(url, admin), Tree(process.pid))


@contextmanager
def fake_service(database: Path | None = None) -> Iterator[Service]:
    """The real app with a fake launcher, in a process of its own: no agent, no warden.

    ``database`` is copied into its place first.
    """
    command = [sys.executable, "-m", "bench.fake_service", str(database or "")]
    with _serving(command, dict(os.environ)) as (line, process):
        url, admin = line.split("#")
        yield Service(_caller(url, admin), Tree(process.pid))


@contextmanager
def _serving(
    command: Sequence[str], env: Mapping[str, str]
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A server until the end of the block: the last word of its ready line."""
    with subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            ready = process.stdout.readline().split()
            assert ready, f"{' '.join(command)} did not start"
            yield ready[-1], process
        finally:
            process.terminate()
            process.wait(120)


def _caller(url: str, admin: str) -> Caller:
    host, _, port = url.removeprefix("http://").rstrip("/").partition(":")
    address = (host, int(port))
    minted = Caller(address, (("Authorization", f"Bearer {admin}"),))(
        "POST", "/admin/tokens", {"name": "bench"}
    )
    return Caller(address, (("Authorization", f"Bearer {minted['token']}"),))
