"""What tests of cancelling share: one caller on a bare socket, and everything that is left behind.

A bare socket, because hanging up is a thing of the socket: what is sent and when the end comes is
the test's to say.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs
import httpx2 as httpx

from tests.system.conftest import Server, processes_of
from tests.waiting import wait_until


def as_request(app: httpx.Client, path: str, body: Mapping[str, Any], extra: str = "") -> bytes:
    """An app's request as it goes over the wire."""
    payload = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {app.base_url.host}\r\n"
        f"Authorization: {app.headers['authorization']}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n{extra}\r\n"
    )
    return head.encode() + payload


@contextmanager
def raw_post(
    app: httpx.Client, path: str, body: Mapping[str, Any], *, unsent_bytes: int = 0
) -> Iterator[socket.socket]:
    """A request on a connection of its own, without its last bytes; closed in the end."""
    url = urlsplit(str(app.base_url))
    request = as_request(app, path, body)
    with socket.create_connection((url.hostname or "", url.port or 0), timeout=30) as connection:
        connection.sendall(request[: len(request) - unsent_bytes])
        yield connection


@attrs.frozen
class Scene:
    """The only session of its server, and what is known of it on every side."""

    server: Server
    app: httpx.Client
    session: str
    processes: tuple[int, ...]

    @classmethod
    def open(cls, server: Server, name: str, **fields: Any) -> Scene:
        """A new app, a new session, its process tree."""
        assert processes_of(server.data_dir) == [], "the scene before left something"
        app = server.app(name)
        created = app.post("/sessions", json={"agent": "demo", **fields}).raise_for_status()
        tree = sorted(view.pid for view in processes_of(server.data_dir))
        assert len(tree) == 3, "a warden, the acpx host, the agent"
        return cls(server, app, created.json()["session_id"], tuple(tree))

    @property
    def path(self) -> str:
        return f"/sessions/{self.session}"

    # --- what the agent saw -----------------------------------------------------------------------

    @property
    def conversation(self) -> list[list[str]]:
        """[role, text] pairs as the demo agent keeps them."""
        folder = self.server.data_dir / "sessions" / self.session / "state"
        for file in folder.glob("demo-*.jsonl"):
            lines: list[list[str]] = [json.loads(line) for line in file.read_text().splitlines()]
            return [[role, text] for role, text in lines if role != "model"]
        return []

    @property
    def asked(self) -> list[str]:
        """The prompts that reached the agent."""
        return [text for role, text in self.conversation if role == "user"]

    @property
    def finished(self) -> int:
        """How many turns the agent has come to the end of, by a cancel or by itself."""
        return sum(role == "agent" for role, _ in self.conversation)

    def wait_asked(self, *prompts: str) -> None:
        """The agent has these prompts, and works on the last of them."""
        wait_until(lambda: self.asked == list(prompts), f"the agent was asked {prompts}")

    # --- what the ledger says ---------------------------------------------------------------------

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Rows of the database, as another program sees them."""
        uri = f"file:{self.server.data_dir / 'clawdforge.db'}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True)) as database:
            return database.execute(statement, {"session": self.session}).fetchall()

    @property
    def endings(self) -> list[tuple[int, str | None, str | None]]:
        """Index, ending and detail of each turn."""
        return self.query(
            "SELECT turn_index, ending, detail FROM turns WHERE session_id = :session"
            " ORDER BY turn_index"
        )

    def wait_ended(self, *endings: tuple[int, str, str | None]) -> None:
        """The ledger has these turns with these endings, and each of them once."""
        wait_until(lambda: self.endings == list(endings), f"the ledger has {endings}")
        noted = self.query(
            "SELECT meta ->> 'turn_index', count(*) FROM session_events"
            " WHERE session_id = :session AND event = 'turn' GROUP BY 1 ORDER BY 1"
        )
        assert noted == [(index, 1) for index, *_ in endings]

    # --- what lives -------------------------------------------------------------------------------

    @property
    def tree(self) -> tuple[int, ...]:
        """The live processes of this session."""
        return tuple(sorted(view.pid for view in processes_of(self.server.data_dir)))

    def agent_pid(self) -> int:
        """The agent's own process, as it says itself."""
        text: str = self.say("pid")["text"]
        return int(text.rpartition(" ")[2])

    def host_pid(self) -> int:
        """The acpx host: the agent's parent."""
        return parent_of(self.agent_pid())

    # --- what the app does ------------------------------------------------------------------------

    def say(self, prompt: str, **fields: Any) -> dict[str, Any]:
        """A turn that must work."""
        answer = self.app.post(f"{self.path}/turn", json={"prompt": prompt, **fields})
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    def cancel(self, **target: Any) -> dict[str, Any]:
        """The receipt of a cancel."""
        answer = self.app.post(f"{self.path}/cancel", json=target)
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    def close(self) -> None:
        """The session ends, and nothing of it lives."""
        self.app.delete(self.path).raise_for_status()
        assert self.tree == ()


def parent_of(pid: int) -> int:
    """A process's parent, by ``/proc``."""
    stat = Path(f"/proc/{pid}/stat").read_text()
    return int(stat.rpartition(")")[2].split()[1])


def kill(pid: int) -> None:
    """SIGKILL."""
    os.kill(pid, signal.SIGKILL)
