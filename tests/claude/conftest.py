"""The real Claude parts on a stand-in of the model API: one installation, one server for all tests.

Each start of the CLI costs a second of processor, so a test starts it once, or as often as its
promise needs.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import pytest

from clawdforge.errors import RuntimeNotInstalled
from clawdforge.processes.runtime import ensure_runtime, find_runtime, node_binary
from tests.claude.model_api import Hang, ModelApi, Say
from tests.installed import runtime_dir as runtime_dir  # noqa: PLC0414 - a fixture to offer on
from tests.system.conftest import Server, processes_of
from tests.waiting import wait_until

KEY = "sk-ant-test-0123456789-secret"

SETTINGS = """
[agents.claude]
permissions = "approve-all"
# A refusal is told at once: how often the CLI tries again is its own affair.
set_env = { CLAUDE_CODE_MAX_RETRIES = "0" }
"""

DIRECT = "claude-direct"
"""The same adapter without acpx in between."""

DIRECT_SETTINGS = """
[agents.claude-direct]
argv = ARGV
transport = "acp"
permissions = "approve-all"
env = ["ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "IS_SANDBOX"]
set_env = { CLAUDE_CODE_MAX_RETRIES = "0" }
"""


def direct_settings(runtime_dir: Path) -> str:
    """The profile, with the adapter's own command."""
    runtime = find_runtime(runtime_dir, "claude")
    assert runtime is not None
    adapter = runtime.module("@agentclientprotocol", "claude-agent-acp", "dist", "index.js")
    return DIRECT_SETTINGS.replace("ARGV", json.dumps([str(node_binary()), str(adapter)]))


@pytest.fixture(scope="session")
def claude_runtime_dir(request: pytest.FixtureRequest) -> Path:
    """A runtime directory with acpx and the Claude parts; skips where they cannot be installed."""
    try:
        runtime_dir: Path = request.getfixturevalue("runtime_dir")
        ensure_runtime(runtime_dir, "claude", print)
    except RuntimeNotInstalled as error:
        pytest.skip(f"the Claude parts cannot be installed here: {error.reason}")
    return runtime_dir


@pytest.fixture(scope="session")
def api() -> Iterator[ModelApi]:
    """The stand-in."""
    with ModelApi().serving() as serving:
        yield serving


@pytest.fixture
def model(api: ModelApi) -> ModelApi:
    """The stand-in, without a memory of the last test."""
    api.will(Say("hello"))
    return api


@pytest.fixture(scope="session")
def server(
    claude_runtime_dir: Path, api: ModelApi, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """``clawdforge serve`` with credentials for the stand-in; nothing of it is left in the end."""
    folder = tmp_path_factory.mktemp("claude")
    (folder / "settings.toml").write_text(SETTINGS + direct_settings(claude_runtime_dir))
    settings = {
        "ANTHROPIC_BASE_URL": api.url,
        "ANTHROPIC_API_KEY": KEY,
        "IS_SANDBOX": "1",  # the CLI refuses some of its work as root without it
        "CLAWDFORGE_CONFIG": str(folder / "settings.toml"),
        "CLAWDFORGE_CANCEL_GRACE_SECS": "30",  # on a busy machine a killed session is no promise
    }
    with Server(folder / "data", claude_runtime_dir, settings) as serving:
        yield serving.wait_ready()
        assert serving.terminate() == 0


@pytest.fixture(scope="session")
def app(server: Server) -> httpx.Client:
    """A client in the name of an app."""
    return server.app()


def ask_and_leave(client: httpx.Client, model: ModelApi, path: str, **body: object) -> None:
    """Send a request, wait until it is at the model, which hangs, and close the connection."""
    model.will(Hang())
    raw = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(raw)}\r\n"
        f"Authorization: {client.headers['Authorization']}\r\n\r\n"
    )
    address = (client.base_url.host, client.base_url.port or 80)
    with socket.create_connection(address, timeout=60) as connection:
        connection.sendall(head.encode() + raw)
        assert model.hanging.wait(60), "the model was never asked"


def wait_gone(server: Server) -> None:
    """Return when no process of a run or a session is left."""
    wait_until(lambda: not processes_of(server.data_dir), "no process of ours is left")
