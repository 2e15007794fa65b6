"""Streams in process and in virtual time: what is said, in which order, and how each one ends."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from clawdforge.domain.ids import AppName, SessionId
from clawdforge.web.app import make_edge
from clawdforge.web.edge import HANGUP, STALL_SECS, Edge
from clawdforge.web.streams import HEARTBEAT_SECS
from tests.actors.conftest import OpenStage, Stage
from tests.actors.conftest import open_stage as open_stage  # noqa: PLC0414 - a fixture to use here
from tests.web.test_framing import SseParser

pytestmark = pytest.mark.virtual_time

PANTRY = AppName("pantry")
SSE = "text/event-stream"
NDJSON = "application/x-ndjson"


@attrs.frozen
class Heard:
    """One event of a stream, as a client takes it."""

    kind: str
    data: Any
    number: int | None = None


@attrs.define(eq=False)
class Listener:
    """A client of one request in process: what has come so far, and the means to hang up.

    With ``is_deaf`` it takes no byte of the body.
    """

    sent: list[Any] = attrs.field(factory=list)
    done: trio.Event = attrs.field(factory=trio.Event)
    is_deaf: bool = False
    body: bytes = b""
    _acts: list[Callable[[], None]] = attrs.field(factory=list)
    _todo: list[bytes] = attrs.field(factory=list)
    _hears: trio.Event = attrs.field(factory=trio.Event)

    async def receive(self) -> dict[str, Any]:
        if self._todo:
            return {"type": "http.request", "body": self._todo.pop(), "more_body": False}
        await trio.sleep_forever()
        raise AssertionError

    async def send(self, message: Any) -> None:
        await trio.lowlevel.checkpoint()
        if self.is_deaf and message.get("body"):
            await self._hears.wait()
        self.sent.append(message)
        self.body += message.get("body", b"")

    def hang_up(self) -> None:
        for act in self._acts:
            act()

    def hear_again(self) -> None:
        self.is_deaf = False
        self._hears.set()

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    def header(self, name: str) -> str | None:
        pairs = {key.decode().lower(): value.decode() for key, value in self.sent[0]["headers"]}
        return pairs.get(name)

    @property
    def heard(self) -> list[Heard]:
        if (self.header("content-type") or "") == NDJSON:
            lines = [json.loads(line) for line in self.body.splitlines()]
            return [Heard(one["event"], one["data"], one.get("id")) for one in lines]
        found, last = [], ""
        for kind, data, number in SseParser().parse(self.body):
            own = int(number) if number != last else None
            found.append(Heard(kind, json.loads(data), own))
            last = number
        return found

    @property
    def kinds(self) -> list[str]:
        return [one.kind for one in self.heard]

    @property
    def numbers(self) -> list[int]:
        return [one.number for one in self.heard if one.kind == "acp" and one.number]


@attrs.frozen
class House:
    """A stage with an edge in front of it, and one session of the pantry's."""

    stage: Stage
    edge: Edge
    token: str
    session: SessionId
    nursery: trio.Nursery

    async def listen(
        self,
        method: str,
        target: str,
        *,
        accept: str | None = SSE,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        is_deaf: bool = False,
    ) -> Listener:
        """Ask, and let everything come to rest."""
        raw = b"" if body is None else json.dumps(body).encode()
        pairs = {"authorization": f"Bearer {self.token}", **(headers or {})}
        if accept is not None:
            pairs["accept"] = accept
        path, _, query = target.partition("?")
        listener = Listener(is_deaf=is_deaf)
        listener._todo.append(raw)
        scope = {
            "type": "http",
            "http_version": "1.1",
            "asgi": {"version": "3.0", "spec_version": "2.1"},
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(key.encode(), value.encode()) for key, value in pairs.items()],
            "client": ("127.0.0.1", 50000),
            "server": ("127.0.0.1", 8800),
            "extensions": {HANGUP: listener._acts.append},
        }

        async def serve() -> None:
            await self.edge(scope, listener.receive, listener.send)
            listener.done.set()

        self.nursery.start_soon(serve)
        await trio.testing.wait_all_tasks_blocked()
        return listener

    async def turn(self, prompt: str, **options: Any) -> Listener:
        """A turn of the session."""
        return await self.listen(
            "POST", f"/sessions/{self.session}/turn", body={"prompt": prompt}, **options
        )

    async def events(self, query: str = "", **options: Any) -> Listener:
        """The session's stream."""
        return await self.listen("GET", f"/sessions/{self.session}/events{query}", **options)


OpenHouse = Callable[..., Any]


@pytest.fixture
def open_house(open_stage: OpenStage) -> OpenHouse:
    """Opens a house. Its streams are hung up in the end, and must then leave nothing behind."""

    @asynccontextmanager
    async def opening(**settings: Any) -> AsyncIterator[House]:
        async with open_stage(**settings) as stage, trio.open_nursery() as nursery:
            token = await stage.service.mint(PANTRY, ())
            session = await stage.open(PANTRY)
            edge = make_edge(stage.service)
            yield House(stage, edge, token, session, nursery)
            edge.call_off_streams()
            with trio.move_on_after(60):
                await edge.wait_answered()
            nursery.cancel_scope.cancel()
            assert len(stage.service._context.feeds) <= stage.service.open_sessions

    return opening


# --- a turn ---------------------------------------------------------------------------------------


async def test_a_turn_streams_what_the_agent_says_and_then_its_answer(
    open_house: OpenHouse,
) -> None:
    """Numbered ACP messages, then one ``result``: the plain body without the events."""
    async with open_house() as house:
        got = await house.turn("hello")
        assert (got.status, got.header("content-type")) == (200, SSE)
        *acp, result = got.heard
        assert {one.kind for one in acp} == {"acp"}
        assert got.numbers == list(range(1, len(acp) + 1))
        assert acp[-1].data["result"] == {"stopReason": "end_turn"}
        assert (result.kind, result.number) == ("result", None)
        plain = await house.turn("hello", accept=None)
        body = json.loads(plain.body)
        assert [one.data["method"] for one in acp[:-1]] == [
            one["method"] for one in body["events"][:-1]
        ]
        assert set(result.data) == set(body) - {"events"}
        assert result.data["text"] == "You said: hello"
        assert got.done.is_set()


async def test_the_same_as_lines(open_house: OpenHouse) -> None:
    """``application/x-ndjson``: one object a line, with the same kinds, numbers and data."""
    async with open_house() as house:
        lines = await house.turn("hello", accept=NDJSON)
        assert lines.header("content-type") == NDJSON
        assert lines.kinds[-1] == "result"
        assert lines.numbers == list(range(1, len(lines.kinds)))


async def test_a_stream_is_not_held_up_on_its_way(open_house: OpenHouse) -> None:
    """The status line and the headers that keep proxies from collecting go out at admission."""
    async with open_house() as house:
        house.stage.launcher.hold_turns()
        got = await house.turn("hello")
        assert (got.status, got.body) == (200, b"")
        assert got.header("x-accel-buffering") == "no"
        assert got.header("cache-control") == "no-store, no-transform"
        assert got.header("x-turn-index") == "1"
        assert got.header("content-length") is None


async def test_what_is_refused_before_admission_is_a_real_status(open_house: OpenHouse) -> None:
    """401, 404, 410, 409, 422, 503: problem documents, not streams."""
    async with open_house(turn_queue=0) as house:
        path = f"/sessions/{house.session}/turn"
        prompt = {"prompt": "x"}
        nobody = await house.listen("POST", path, body=prompt, headers={"authorization": "x"})
        other = await house.listen("POST", f"/sessions/{'x' * 32}/turn", body=prompt)
        wrong = await house.listen("POST", path, body={})
        house.stage.launcher.hold_turns()
        first = await house.turn("hello")
        busy = await house.turn("hello")
        first.hang_up()
        await house.stage.service.close_session(house.session, PANTRY)
        closed = await house.turn("hello")
        house.stage.service.start_drain()
        draining = await house.events()
        answers = [nobody, other, wrong, busy, closed, draining]
        assert [one.status for one in answers] == [401, 404, 422, 409, 410, 503]
        assert {one.header("content-type") for one in answers} == {"application/problem+json"}


async def test_a_failure_after_admission_is_the_last_event(open_house: OpenHouse) -> None:
    """``error`` with the problem document that the plain call would have answered."""
    async with open_house() as house:
        got = await house.turn("fail: no")
        assert (got.status, got.kinds[-1]) == (200, "error")
        problem = got.heard[-1].data
        assert (problem["status"], problem["ok"], problem["turn_index"]) == (502, False, 1)
        late = await house.listen(
            "POST",
            f"/sessions/{house.session}/turn",
            body={"prompt": "sleep: 100", "timeout_secs": 5},
        )
        await late.done.wait()
        assert late.heard[-1].data["status"] == 504


async def test_hanging_up_cancels_the_turn(open_house: OpenHouse) -> None:
    """The stream's end is the caller's leaving: the agent is told."""
    async with open_house() as house:
        got = await house.turn("say: one\nsleep: 100")
        assert got.kinds == ["acp"]
        got.hang_up()
        await got.done.wait()
        await trio.testing.wait_all_tasks_blocked()
        (agent,) = house.stage.launcher.agents
        assert agent.cancels == [1]
        (end,) = house.stage.ends(house.session)
        assert end is not None
        assert end.ending == "cancelled"


async def test_a_turn_that_waits_in_line_beats_until_it_begins(open_house: OpenHouse) -> None:
    """A comment every 15 s, and then only its own events."""
    async with open_house() as house:
        first = await house.turn("sleep: 40\nsay: first")
        second = await house.turn("say: second")
        await second.done.wait()
        assert first.done.is_set()
        beats = second.body.count(b": still here\n\n")
        assert beats == int(40 // HEARTBEAT_SECS)
        assert second.numbers[0] == first.numbers[-1] + 1
        assert second.heard[-1].data["text"] == "second"


async def test_a_client_that_takes_nothing_is_cut_off_with_a_word(open_house: OpenHouse) -> None:
    """After 30 s its turn is cancelled, and when it reads again it finds why the stream ended."""
    async with open_house() as house:
        began_at = trio.current_time()
        got = await house.turn("say: one\nsleep: 1000", is_deaf=True)
        while house.stage.ends(house.session) == [None]:
            await trio.sleep(1)
            if trio.current_time() > began_at + STALL_SECS:
                got.hear_again()
        assert STALL_SECS <= trio.current_time() - began_at < STALL_SECS + 5
        await got.done.wait()
        assert got.heard[-1] == Heard("end", {"reason": "stalled"})
        (end,) = house.stage.ends(house.session)
        assert end is not None
        assert end.ending == "cancelled"


async def test_a_plain_caller_is_not_slowed_by_readers_that_stall(open_house: OpenHouse) -> None:
    """Ten readers that take nothing, and the turn takes as long as without them."""
    async with open_house() as house:
        for _ in range(10):
            await house.events(is_deaf=True)
        began_at = trio.current_time()
        plain = await house.turn("say: one\nsleep: 2\nsay: two", accept=None)
        await plain.done.wait()
        assert trio.current_time() - began_at == pytest.approx(2)
        assert json.loads(plain.body)["ok"] is True


async def test_a_permission_request_is_shown_in_its_place(open_house: OpenHouse) -> None:
    """``event: permission`` after the agent's request, before what comes of the decision."""
    async with open_house() as house:
        session = await house.stage.open(PANTRY, permissions="ask")
        turn = attrs.evolve(house, session=session)
        got = await turn.turn("ask: edit a file")
        assert got.kinds == ["acp", "permission"]
        asked = got.heard[1].data
        assert set(asked) >= {"request_id", "tool_call", "options", "expires_at"}
        both = await turn.events()
        assert both.kinds == ["acp", "permission"]
        assert both.heard[1] == got.heard[1]
        await got.done.wait()
        late = await turn.events()
        assert "permission" not in late.kinds


async def test_a_retry_under_a_key_streams_from_the_turns_first_event(
    open_house: OpenHouse,
) -> None:
    """Attached while it runs, or after its end: the same events with the same numbers."""
    async with open_house() as house:
        await house.turn("before")
        key = {"idempotency-key": "k-1"}
        first = await house.turn("say: one\nsleep: 5\nsay: two", headers=key)
        retry = await house.turn("say: one\nsleep: 5\nsay: two", headers=key)
        assert retry.header("x-turn-index") == "2"
        await first.done.wait()
        await retry.done.wait()
        await house.turn("after")
        stored = await house.turn("say: one\nsleep: 5\nsay: two", headers=key)
        assert first.heard == retry.heard == stored.heard
        assert first.kinds[-1] == "result"


# --- a session's stream ---------------------------------------------------------------------------


async def test_a_sessions_stream_has_everything_in_order(open_house: OpenHouse) -> None:
    """Turns and what comes between them, then the end when the session closes."""
    async with open_house() as house:
        got = await house.events()
        first = await house.turn("say: one")
        (agent,) = house.stage.launcher.agents
        agent.update({"sessionUpdate": "session_info_update", "title": "a title"})
        await trio.testing.wait_all_tasks_blocked()
        second = await house.turn("say: two")
        await trio.testing.wait_all_tasks_blocked()
        between = {one.number for one in got.heard} - {*first.numbers, *second.numbers}
        assert len(between) == 1
        assert got.numbers == list(range(1, second.numbers[-1] + 1))
        assert not got.done.is_set()
        await house.stage.service.close_session(house.session, PANTRY)
        await got.done.wait()
        assert got.heard[-1] == Heard("end", {"reason": "closed", "cause": "caller"})


@pytest.mark.parametrize("how", ["header", "query", "both"])
async def test_a_stream_goes_on_after_the_last_event_one_has(
    open_house: OpenHouse, how: str
) -> None:
    """``Last-Event-ID``, or ``?after=``; a browser that repeats its address means the header."""
    async with open_house() as house:
        await house.turn("say: one")
        await house.turn("say: two")
        whole = await house.events()
        query = {"header": "", "query": "?after=2", "both": "?after=1"}[how]
        headers = {} if how == "query" else {"last-event-id": "2"}
        rest = await house.events(query, headers=headers)
        assert rest.numbers == whole.numbers[2:]


async def test_a_number_that_is_not_given_yet_means_from_now_on(open_house: OpenHouse) -> None:
    """Who asks to go on after an event of the future gets the next one."""
    async with open_house() as house:
        await house.turn("say: one")
        got = await house.events("?after=999999")
        assert got.heard == []
        turn = await house.turn("say: two")
        assert got.numbers == turn.numbers


@pytest.mark.parametrize("given", ["x", "-1", "1.5", "9" * 30])
async def test_a_last_event_id_that_is_none_is_refused(open_house: OpenHouse, given: str) -> None:
    """422 that names the header; likewise for the query."""
    async with open_house() as house:
        got = await house.events(headers={"last-event-id": given})
        asked = await house.events(f"?after={given}")
        assert (got.status, asked.status) == (422, 422)
        assert json.loads(got.body)["faults"][0]["path"] == "Last-Event-ID"


async def test_no_form_that_we_have_is_406(open_house: OpenHouse) -> None:
    """Events come as a stream only; a turn has its plain answer for everybody."""
    async with open_house() as house:
        events = await house.events(accept="application/json")
        assert (events.status, json.loads(events.body)["ok"]) == (406, False)
        turn = await house.turn("hello", accept="text/html")
        assert turn.header("content-type") == "application/json"


async def test_dropped_events_are_said(open_house: OpenHouse) -> None:
    """``event: gap`` with the numbers; its own number is where to go on from."""
    async with open_house(event_log_bytes=400) as house:
        for _ in range(5):
            await house.turn("say: something of some length")

        fresh = await house.events()
        assert fresh.numbers == list(range(1, 11))
        for feed, _ in list(house.stage.service._context.feeds._held.values()):
            feed._recent.clear()
        late = await house.events()
        gap, *rest = late.heard
        assert gap.kind == "gap"
        assert gap.data == {"from": 1, "to": gap.number}
        assert [one.number for one in rest] == list(range(gap.number + 1, 11))


async def test_reading_activates_nothing_and_is_no_activity(open_house: OpenHouse) -> None:
    """A session without an actor is read from the ledger, stays as it is, and is swept when due."""
    async with open_house(session_ttl_secs=100) as house:
        await house.turn("say: one")
        before = house.stage.row(house.session)
        await house.stage.service.stop_work()
        house.stage.tree.pool.is_draining = False
        assert not house.stage.service.is_live(house.session)
        got = await house.events()
        assert got.numbers == [1, 2]
        house.stage.wall.seconds += 101
        assert (await house.stage.service.sweep_once()).soft_closed == 1
        await got.done.wait()
        assert got.heard[-1] == Heard("end", {"reason": "closed", "cause": "idle"})
        assert house.stage.row(house.session).last_turn_at == before.last_turn_at
        assert len(house.stage.launcher.agents) == 1


async def test_a_reader_without_an_actor_hears_the_next_one(open_house: OpenHouse) -> None:
    """The stream is the session's, whoever serves it: a turn that activates it is heard."""
    async with open_house() as house:
        await house.turn("say: one")
        await house.stage.service.stop_work()
        house.stage.tree.pool.is_draining = False
        got = await house.events()
        turn = await house.turn("say: two")
        await trio.testing.wait_all_tasks_blocked()
        assert got.numbers == [1, 2, *turn.numbers]
        assert turn.numbers == [3, 4]


async def test_a_closed_session_replays_and_ends(open_house: OpenHouse) -> None:
    """All that it said, then its end; a browser that comes back for more is told to stay away."""
    async with open_house() as house:
        await house.turn("say: one")
        await house.stage.service.close_session(house.session, PANTRY)
        got = await house.events()
        assert got.kinds == ["acp", "acp", "end"]
        again = await house.events(headers={"last-event-id": "2"})
        assert (again.status, again.body) == (204, b"")
        rest = await house.events(headers={"last-event-id": "1"})
        assert rest.kinds == ["acp", "end"]


async def test_another_apps_session_has_no_stream(open_house: OpenHouse) -> None:
    """404, like one that never existed."""
    async with open_house() as house:
        session = await house.stage.open()
        other = await house.listen("GET", f"/sessions/{session}/events")
        never = await house.listen("GET", f"/sessions/{'x' * 32}/events")
        assert (other.status, other.body) == (never.status, never.body)
        assert never.status == 404


async def test_a_drain_ends_a_sessions_stream_at_once_and_lets_turns_finish(
    open_house: OpenHouse,
) -> None:
    """The reader is told that the server drains; the turn's stream gets its answer."""
    async with open_house() as house:
        events = await house.events()
        turn = await house.turn("say: one\nsleep: 5")
        house.stage.service.start_drain()
        house.edge.end_streams()
        await events.done.wait()
        assert events.heard[-1] == Heard("end", {"reason": "draining"})
        assert not turn.done.is_set()
        await turn.done.wait()
        assert turn.kinds[-1] == "result"


async def test_a_turn_that_outlasts_the_drain_is_told(open_house: OpenHouse) -> None:
    """Called off: the last event is the 503 that a plain caller would get."""
    async with open_house() as house:
        turn = await house.turn("sleep: 500")
        house.edge.call_off_streams()
        await turn.done.wait()
        assert turn.heard[-1].kind == "error"
        assert turn.heard[-1].data["status"] == 503


async def test_a_revoked_token_reads_no_further(open_house: OpenHouse) -> None:
    """Its streams end at once with a 401, of sessions that live and of others."""
    async with open_house() as house:
        await house.turn("say: one")
        await house.stage.service.stop_work()
        house.stage.tree.pool.is_draining = False
        idle = await house.events()
        live_session = await house.stage.open(PANTRY)
        live = await attrs.evolve(house, session=live_session).events()
        await house.stage.service.revoke(PANTRY)
        await trio.testing.wait_all_tasks_blocked()
        for got in (live, idle):
            assert (got.heard[-1].kind, got.heard[-1].data["status"]) == ("error", 401)


async def test_a_row_changed_from_outside_is_noticed(open_house: OpenHouse) -> None:
    """Closed or deleted in the database: the next look, within a heartbeat, ends the stream."""
    async with open_house() as house:
        await house.stage.service.stop_work()
        house.stage.tree.pool.is_draining = False
        row = house.stage.row(house.session)
        closed = await house.events()
        house.stage.store.sessions[house.session] = attrs.evolve(row, closed_at=5)
        with trio.fail_after(HEARTBEAT_SECS + 1):
            await closed.done.wait()
        house.stage.store.sessions[house.session] = row
        deleted = await house.events()
        del house.stage.store.sessions[house.session]
        with trio.fail_after(HEARTBEAT_SECS + 1):
            await deleted.done.wait()
        assert closed.heard[-1] == Heard("end", {"reason": "closed", "cause": "closed"})
        assert deleted.heard[-1] == Heard("end", {"reason": "deleted"})


async def test_a_ledger_that_fails_ends_the_stream_with_a_word(open_house: OpenHouse) -> None:
    """``error`` 503: the client comes again with its place."""
    async with open_house() as house:
        await house.stage.service.stop_work()
        house.stage.tree.pool.is_draining = False
        got = await house.events()
        house.stage.store.unavailable = "the disk is full"
        await got.done.wait()
        house.stage.store.unavailable = None
        assert (got.heard[-1].kind, got.heard[-1].data["status"]) == ("error", 503)


async def test_an_idle_stream_beats(open_house: OpenHouse) -> None:
    """A comment every 15 s, for as long as it takes, and no bound of the edge ends it."""
    async with open_house() as house:
        got = await house.events()
        await trio.sleep(10 * 3600)
        assert not got.done.is_set()
        assert got.body.count(b"\n\n") == pytest.approx(10 * 3600 / HEARTBEAT_SECS, abs=2)
        assert got.heard == []


async def test_two_hundred_streams_that_hang_up_leave_nothing(open_house: OpenHouse) -> None:
    """No reader, no bell and no feed stays behind."""
    async with open_house() as house:
        listeners = [await house.events() for _ in range(200)]
        for listener in listeners:
            listener.hang_up()
        for listener in listeners:
            await listener.done.wait()
        ((feed, count),) = house.stage.service._context.feeds._held.values()
        assert (count, len(feed._bells)) == (1, 0)
