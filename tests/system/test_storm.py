"""Two hundred clients that start a turn and hang up, each at a moment of its own.

The moments are drawn from a seed, by mood: at any time after sending, in line, when the agent has
been asked and has not said a word, in the middle of its answer, or in the middle of a stream. What
became of each is then read from the ledger and from the agents, not from what was meant.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import attrs
import httpx2 as httpx
import pytest
import trio

from tests.system.conftest import Server, StartServer, processes_of
from tests.system.hangups import Scene, as_request
from tests.waiting import wait_until

pytestmark = pytest.mark.system

SEED: Final = 20_260_101
CLIENTS: Final = 200
SESSIONS: Final = 6
WARM_UP: Final = 24
ADMITTED: Final = 150
EACH: Final = 30
"""At least so many are admitted in all, and so many hang up at each kind of moment."""

LEAVE_WITHIN_SECS: Final = 1.5
"""Those who leave at any time do so within this, while most of the line is still there."""

RSS_GROWTH_BYTES: Final = 16 * 1024 * 1024
"""What the service may keep of it all: the allocator's, not ours."""

ESTABLISHED: Final = "01"
"""The kernel's word for it in ``/proc/net/tcp``."""

LOOK_SECS: Final = 0.02


@attrs.frozen
class Client:
    """One of the crowd: when it means to leave, and the prompt by which everybody knows it."""

    number: int
    session: Scene
    mood: str
    patience: float
    is_rude: bool

    @property
    def prompt(self) -> str:
        """Unique; it talks only when it is to be left while it talks."""
        sleep = f"sleep: {1000 + self.number}"
        return f"say: at once\n{sleep}" if self.mood in {"talking", "stream"} else sleep

    @property
    def sign(self) -> bytes:
        """What it waits to hear before it leaves."""
        return {"in line": b"HTTP/1.1 200", "stream": b"event: acp"}.get(self.mood, b"")


class Crowd:
    """The clients at work, and a look-out for what the agents have been asked."""

    def __init__(self, clients: Sequence[Client]) -> None:
        self.clients = clients
        self._asked = {client.prompt: trio.Event() for client in clients}
        self.streamed: set[str] = set()

    async def run(self) -> None:
        """Until the last one has left."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._look_out)
            async with trio.open_nursery() as all_clients:
                for client in self.clients:
                    all_clients.start_soon(self._visit, client)
            nursery.cancel_scope.cancel()

    async def _look_out(self) -> None:
        sessions = {client.session for client in self.clients}
        while True:
            for session in sessions:
                for prompt in session.asked:
                    if prompt in self._asked:
                        self._asked[prompt].set()
            await trio.sleep(LOOK_SECS)  # files tell nobody themselves

    async def _visit(self, client: Client) -> None:
        url = urlsplit(str(client.session.app.base_url))
        extra = "Accept: text/event-stream\r\n" if client.sign else ""
        body = {"prompt": client.prompt}
        request = as_request(client.session.app, f"{client.session.path}/turn", body, extra)
        stream = await trio.open_tcp_stream(url.hostname or "", url.port or 0)
        with trio.fail_after(120):
            await stream.send_all(request)
            if client.sign:  # the status line goes out on admission
                await self._listen(client, stream)
            elif client.mood != "any time":
                await self._asked[client.prompt].wait()
            await trio.sleep(client.patience)
        if client.is_rude:  # a reset instead of a goodbye
            linger = (1).to_bytes(4, "little") + (0).to_bytes(4, "little")
            stream.socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, linger)
        stream.socket.close()

    async def _listen(self, client: Client, stream: trio.SocketStream) -> None:
        heard = b""
        while client.sign not in heard:
            chunk = await stream.receive_some(65536)
            assert chunk, f"the stream ended too early: {heard!r}"
            heard += chunk
        if b"event: acp" in heard:
            self.streamed.add(client.prompt)


def draw_clients(sessions: Sequence[Scene], count: int, seed: int) -> list[Client]:
    """A crowd of all moods, well mixed; the same for the same seed."""
    dice = random.Random(seed)
    moods = ["any time", "in line", "silent", "talking", "stream"]
    crowd = []
    for index in range(count):
        mood = moods[index % len(moods)]
        most = LEAVE_WITHIN_SECS if mood == "any time" else 0.1
        crowd.append(
            Client(
                number=seed % 1000 * 1000 + index,
                session=dice.choice(sessions),
                mood=mood,
                patience=dice.uniform(0, most),
                is_rude=dice.random() < 0.5,
            )
        )
    dice.shuffle(crowd)
    return crowd


def moments(crowd: Crowd) -> Counter[str]:
    """At which moment each admitted client was gone, by the ledger and the agents."""
    seen: Counter[str] = Counter()
    for session in {client.session for client in crowd.clients}:
        asked = set(session.asked)
        prompts = {client.prompt for client in crowd.clients if client.session == session}
        statement = "SELECT prompt, ending, detail, text FROM turns WHERE session_id = :session"
        for prompt, ending, detail, text in session.query(statement):
            if prompt not in prompts:
                continue
            assert (ending, detail) == ("cancelled", "caller_gone"), prompt
            if prompt not in asked:
                seen["waiting"] += 1
            elif prompt in crowd.streamed:
                seen["streaming"] += 1
            else:
                seen["working" if text else "before the first byte"] += 1
    return seen


def open_files(server: Server) -> int:
    """Descriptors of the service."""
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


def rss_bytes(server: Server) -> int:
    """Resident memory of the service."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def connections(server: Server) -> int:
    """Open connections to the service, as the kernel counts them."""
    table = Path(f"/proc/{server.process.pid}/net/tcp").read_text()
    rows = [line.split() for line in table.splitlines()[1:]]
    port = f":{int(server.url.rpartition(':')[2]):04X}"
    return sum(row[1].endswith(port) and row[3] == ESTABLISHED for row in rows)


def wait_quiet(server: Server, session: Scene, *, idle_connections: int) -> None:
    """Every turn that was begun has its ending, and the crowd's connections are gone."""
    unended = "SELECT count(*) FROM turns WHERE ending IS NULL"
    wait_until(lambda: session.query(unended) == [(0,)], "no turn runs")
    wait_until(lambda: connections(server) <= idle_connections, "the connections are closed")


def test_two_hundred_clients_that_hang_up(start_server: StartServer) -> None:
    """No turn runs on, memory and descriptors are back, and the next turn of each works."""
    server = start_server(
        CLAWDFORGE_TURN_QUEUE="60", CLAWDFORGE_MAX_LIVE_SESSIONS=str(SESSIONS)
    ).wait_ready()
    app = server.app()
    sessions = [open_scene(server, app) for _ in range(SESSIONS)]
    idle = connections(server)
    trio.run(Crowd(draw_clients(sessions, WARM_UP, SEED + 1)).run)
    wait_quiet(server, sessions[0], idle_connections=idle)
    processes = sorted(view.pid for view in processes_of(server.data_dir))
    files, rss = open_files(server), rss_bytes(server)

    crowd = Crowd(draw_clients(sessions, CLIENTS, SEED))
    trio.run(crowd.run)
    wait_quiet(server, sessions[0], idle_connections=idle)

    seen = moments(crowd)
    assert seen.total() >= ADMITTED, seen
    for moment in ("waiting", "before the first byte", "working", "streaming"):
        assert seen[moment] >= EACH, seen
    ended = "SELECT count(*) FROM session_events WHERE event = 'turn'"
    assert sessions[0].query(ended) == sessions[0].query("SELECT count(*) FROM turns")
    assert sorted(view.pid for view in processes_of(server.data_dir)) == processes
    assert open_files(server) <= files
    assert rss_bytes(server) - rss < RSS_GROWTH_BYTES
    for session in sessions:
        assert session.say("hello")["stop_reason"] == "end_turn"
    assert server.terminate() == 0


def open_scene(server: Server, app: httpx.Client) -> Scene:
    """One session of several."""
    created = app.post("/sessions", json={"agent": "demo"}).raise_for_status().json()
    return Scene(server, app, created["session_id"], ())
