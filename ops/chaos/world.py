"""What callers of the service know: their sessions, what was acknowledged, how long it took.

The rule: *every request is answered*, unless the step itself killed the service or hung up.
"""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from collections import Counter
from typing import Any, Final
from urllib.parse import urlsplit

import attrs
import httpx2 as httpx

from ops.chaos.victim import SLOTS, ChaosFailed, Victim, until

ANSWER_SECS: Final = 90.0
"""A request that takes longer has not been answered; the longest promise here is a start (20 s)."""


@attrs.define
class Known:
    """A session as its caller knows it: ``turns`` are those acknowledged, by index: their texts."""

    session_id: str
    agent: str
    words: list[str] = attrs.field(factory=list)
    turns: dict[int, str] = attrs.field(factory=dict)


@attrs.define
class Tally:
    """What came of one kind of fault."""

    injected: int = 0
    statuses: Counter[int] = attrs.field(factory=Counter)
    cut_off: int = 0
    worst_secs: float = 0.0


class Pending:
    """A request on its way, in a thread of its own. ``secs``: how long it took."""

    def __init__(self, world: World, method: str, path: str, body: object) -> None:
        self.answer: httpx.Response | None = None
        self._world = world
        self._kind = world.kind
        self._thread = threading.Thread(target=self._run, args=(method, path, body), daemon=True)
        self._thread.start()

    def _run(self, method: str, path: str, body: object) -> None:
        began = time.monotonic()
        try:
            self.answer = self._world.client.request(method, path, json=body)
        except httpx.TransportError:
            return
        finally:
            self._world.note(self._kind, self.answer, time.monotonic() - began)

    def result(self) -> httpx.Response:
        """The answer. ChaosFailed when there is none."""
        answer = self.result_or_cut()
        if answer is None:
            raise ChaosFailed("a request was not answered")
        return answer

    def result_or_cut(self) -> httpx.Response | None:
        """The answer, or None when the service was killed under it."""
        self._thread.join(ANSWER_SECS + 10)
        if self._thread.is_alive():
            raise ChaosFailed("a request hangs")
        return self.answer


class World:
    """The callers: one app, its sessions, and the account of what happened."""

    def __init__(self, victim: Victim, rng: random.Random) -> None:
        self.victim: Final = victim
        self.rng: Final = rng
        self.kind = "warm-up"
        self.tallies: dict[str, Tally] = {}
        self.sessions: dict[str, Known] = {}
        self.doubtful: set[str] = set()
        """Sessions whose last ending may come late: the disk refused to take it at first."""
        self.client: httpx.Client
        self._token: str | None = None
        self._words = 0
        self._lock = threading.Lock()

    # --- the service's life -----------------------------------------------------------------------

    def start(self) -> None:
        """Start the service and call it; the first time, as a new app."""
        self.victim.start()
        if self._token is None:
            self.client = self._make_client(self.victim.admin_token)
            minted = self.call("POST", "/admin/tokens", {"name": "chaos"})
            self._token = minted["token"]
            self.client.close()
        self.client = self._make_client(self._token)
        self.doubtful.clear()

    def restart(self) -> None:
        """The service has ended: start the next one."""
        self.client.close()
        self.start()

    def _make_client(self, token: str) -> httpx.Client:
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.Client(base_url=self.victim.url, headers=headers, timeout=ANSWER_SECS)

    # --- asking -----------------------------------------------------------------------------------

    def note(self, kind: str, answer: httpx.Response | None, secs: float) -> None:
        """Enter a request into the account."""
        with self._lock:
            tally = self.tallies.setdefault(kind, Tally())
            if answer is None:
                tally.cut_off += 1
            else:
                tally.statuses[answer.status_code] += 1
                tally.worst_secs = max(tally.worst_secs, secs)

    def ask(self, method: str, path: str, body: object = None) -> Pending:
        """Send a request."""
        return Pending(self, method, path, body)

    def call(self, method: str, path: str, body: object = None, *, status: int = 200) -> Any:  # noqa: ANN401 - JSON
        """Send it, expect that status, answer the body."""
        return self.expect(self.ask(method, path, body).result(), status)

    def expect(self, answer: httpx.Response, *statuses: int) -> Any:  # noqa: ANN401 - JSON
        """The body of an answer with one of the statuses; ChaosFailed for any other."""
        if answer.status_code not in statuses:
            raise ChaosFailed(f"{answer.status_code} in place of {statuses}: {answer.text[:500]}")
        if answer.status_code == 503 and not int(answer.headers.get("retry-after", 0)):
            raise ChaosFailed("503 without Retry-After")
        return answer.json()

    def hang_up(self, method: str, path: str, body: object) -> socket.socket:
        """Send a request over a bare socket; closing it is hanging up."""
        place = urlsplit(self.victim.url)
        stream = socket.create_connection((place.hostname, place.port), timeout=ANSWER_SECS)
        raw = json.dumps(body).encode()
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: chaos\r\nAuthorization: Bearer {self._token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(raw)}\r\n\r\n"
        )
        stream.sendall(head.encode() + raw)
        return stream

    # --- sessions and turns -----------------------------------------------------------------------

    def open(self, agent: str = "good") -> Known:
        """A new session."""
        self.make_room()
        opened = self.call("POST", "/sessions", {"agent": agent})
        known = self.sessions[opened["session_id"]] = Known(opened["session_id"], agent)
        return known

    def make_room(self) -> None:
        """Close one when there are as many as slots: those that sleep need theirs for a turn."""
        if len(self.sessions) >= SLOTS:
            self.close(self.rng.choice(list(self.sessions.values())))

    def pick(self) -> Known:
        """One of the good sessions; a new one when there is none, or now and then."""
        good = [known for known in self.sessions.values() if known.agent == "good"]
        if not good or (len(good) < 3 and self.rng.random() < 0.25):
            return self.open()
        return self.rng.choice(good)

    def word(self) -> str:
        """A word that was never used."""
        with self._lock:
            self._words += 1
            return f"word{self._words}x"

    def turn(self, known: Known, prompt: str, **fields: object) -> Pending:
        """Ask for a turn."""
        path = f"/sessions/{known.session_id}/turn"
        return self.ask("POST", path, {"prompt": prompt, "events": "none", **fields})

    def talk(self, known: Known) -> None:
        """A turn that must succeed, and must be remembered."""
        self.acknowledge(known, self.turn(known, self.remember(known)).result())

    def remember(self, known: Known) -> str:
        """A prompt with a new word."""
        word = self.word()
        known.words.append(word)
        return word

    def acknowledge(self, known: Known, answer: httpx.Response) -> None:
        """Keep what was answered 200: it may never be lost from now on."""
        body = self.expect(answer, 200)
        if body["turn_index"] in known.turns:
            raise ChaosFailed("a turn index was given twice")
        known.turns[body["turn_index"]] = body["text"]

    def check_memory(self, known: Known) -> None:
        """The agent recalls every word of an acknowledged turn."""
        answer = self.turn(known, "recall:").result()
        self.acknowledge(known, answer)
        said = " ".join(known.turns.values())
        missing = [word for word in known.words if word in said and word not in answer.text]
        if missing:
            raise ChaosFailed(f"the agent forgot {missing}")

    def has_heard(self, known: Known, word: str) -> None:
        """Return when the agent has begun to work on the prompt with this word."""
        state = self.victim.data_dir / "sessions" / known.session_id / "state"

        def heard() -> bool:
            files = [path for path in state.glob("demo-*.jsonl") if path.is_file()]
            return any(word in path.read_text() for path in files)

        until(heard, "the agent has heard the prompt", ANSWER_SECS)

    def close(self, known: Known) -> None:
        """Close a session and forget it."""
        self.call("DELETE", f"/sessions/{known.session_id}")
        self.forget(known)

    def forget(self, known: Known) -> None:
        """It is no more; what was acknowledged stays in the ledger."""
        del self.sessions[known.session_id]
