"""The real server as a process, real acpx, the demo agent: started, driven and ended by a test."""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import httpx2 as httpx
import pytest

from clawdforge.app import new_incarnation
from clawdforge.processes.leftovers import ProcessView, living, look_around
from clawdforge.processes.runtime import wanted
from tests.installed import runtime_dir as runtime_dir  # noqa: PLC0414 - a fixture to offer on
from tests.waiting import wait_until

READY = re.compile(r"clawdforge is ready on (http://\S+)")

GONE_SECS = 2.0
"""The promise: this long after the end of whatever held it, no process is left."""


def processes_of(data_dir: Path) -> list[ProcessView]:
    """Every live process that carries the mark of a service on this data directory."""
    directory_id = new_incarnation(data_dir).data_dir_id
    views = living(look_around())
    return [
        view for view in views if view.mark and view.mark.incarnation.data_dir_id == directory_id
    ]


class Server:
    """One ``clawdforge serve``: a process, a URL, and clients."""

    def __init__(
        self,
        data_dir: Path,
        runtime: Path,
        settings: Mapping[str, str],
        prefix: Sequence[str] = (),
    ) -> None:
        self.data_dir = data_dir
        self.admin_token = secrets.token_urlsafe(24)
        self._log = (data_dir.parent / f"log-{secrets.token_hex(4)}").open("w+b")
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "clawdforge", "serve"],
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(data_dir.parent),
                "CLAWDFORGE_BIND": "127.0.0.1:0",
                "CLAWDFORGE_DATA_DIR": str(data_dir),
                "CLAWDFORGE_RUNTIME_DIR": str(runtime),
                "CLAWDFORGE_ADMIN_TOKEN": self.admin_token,
                **settings,
            },
        )
        self.url = ""
        self._clients = ExitStack()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._clients.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(60)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._log.close()

    def wait_ready(self) -> Server:
        """Read the one ready line."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = READY.fullmatch(line.rstrip("\n"))
        assert found, f"no ready line but {line!r}; the log: {self.log()}"
        self.url = found[1]
        return self

    def log(self) -> str:
        """What it has logged so far."""
        return Path(self._log.name).read_text()

    def client(self, token: str) -> httpx.Client:
        """A client with that token, closed with the server."""
        headers = {"Authorization": f"Bearer {token}"}
        client = httpx.Client(base_url=self.url, headers=headers, timeout=120)
        return self._clients.enter_context(client)

    def app(self, name: str = "kitchen") -> httpx.Client:
        """A client in the name of a new app."""
        minted = self.client(self.admin_token).post("/admin/tokens", json={"name": name})
        return self.client(minted.raise_for_status().json()["token"])

    def terminate(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait(60)


StartServer = Callable[..., Server]


@pytest.fixture
def runtime_without_claude(runtime_dir: Path, tmp_path: Path) -> Path:
    """The shared acpx, in a runtime directory where nobody has installed Claude."""
    directory = tmp_path / "runtime"
    directory.mkdir()
    acpx = wanted(runtime_dir, "acpx").directory
    (directory / acpx.name).symlink_to(acpx)
    return directory


@pytest.fixture
def start_server(tmp_path: Path, runtime_dir: Path) -> Iterator[StartServer]:
    """Starts servers on one data directory; whatever happens, none outlives the test."""
    with ExitStack() as servers:

        def start(*prefix: str, **settings: str) -> Server:
            server = Server(tmp_path / "data", runtime_dir, settings, prefix)
            return servers.enter_context(server)

        yield start
    wait_until(lambda: not processes_of(tmp_path / "data"), "no process is left", secs=10)


def open_session(app: httpx.Client, agent: str = "demo") -> str:
    """A new session's id."""
    session: str = (
        app.post("/sessions", json={"agent": agent}).raise_for_status().json()["session_id"]
    )
    return session


def say(app: httpx.Client, session: str, prompt: str, **fields: object) -> httpx.Response:
    """One turn."""
    return app.post(f"/sessions/{session}/turn", json={"prompt": prompt, **fields})
