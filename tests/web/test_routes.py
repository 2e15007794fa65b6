"""Every route: its success, word for word, and every refusal that it can answer with."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest

from clawdforge import errors
from clawdforge.config import CLAUDE, DEMO, Config
from clawdforge.domain.ids import AppName
from clawdforge.domain.ports import AppRow
from clawdforge.errors import AgentExited, AgentMisbehaved, AgentTimedOut, CircuitOpen
from clawdforge.web.app import OPERATIONS, make_edge
from clawdforge.web.auth import hash_token
from clawdforge.web.service import NewSession, NewTurn, Versions
from tests.web.stage import (
    ADMIN,
    DONE,
    GARAGE,
    KITCHEN,
    OTHER_TOKEN,
    SESSION,
    TOKEN,
    Answered,
    ask,
    bearer,
    make_service,
    session_row,
)

TURN = f"/sessions/{SESSION}/turn"
VIEW: dict[str, Any] = {
    "session_id": SESSION,
    "agent": "demo",
    "model": None,
    "created_at": 1000,
    "last_turn_at": None,
    "turn_count": 0,
    "closed_at": None,
    "live": False,
    "meta": {},
}
EXAMPLES: dict[str, tuple[str, Any]] = {
    "/sessions": ("/sessions", {}),
    "/sessions/<session_id>": (f"/sessions/{SESSION}", None),
    "/sessions/<session_id>/turn": (TURN, {"prompt": "hi"}),
    "/run": ("/run", {"prompt": "hi"}),
    "/sessions/<session_id>/cancel": (f"/sessions/{SESSION}/cancel", {}),
    "/sessions/<session_id>/turns": (f"/sessions/{SESSION}/turns", None),
    "/sessions/<session_id>/turns/<turn_index>": (f"/sessions/{SESSION}/turns/1", None),
    "/sessions/<session_id>/permissions": (f"/sessions/{SESSION}/permissions", None),
    "/sessions/<session_id>/permissions/<request_id>": (
        f"/sessions/{SESSION}/permissions/r1",
        {"option_id": "allow"},
    ),
    "/sessions/<session_id>/events": (f"/sessions/{SESSION}/events", None),
    "/files": ("/files", b""),
    "/admin/drain": ("/admin/drain", b""),
    "/admin/tokens": ("/admin/tokens", {"name": "attic"}),
    "/admin/tokens/<name>": ("/admin/tokens/garage", None),
}


def assert_problem(answer: Answered, status: int, detail: str | None = None) -> None:
    """The answer is a whole problem document of that status."""
    assert answer.status == status, answer.body
    assert answer.header("content-type") == "application/problem+json"
    document = answer.json
    assert {"type", "title", "status", "detail", "instance", "ok"} <= set(document)
    assert document["status"] == status
    assert document["ok"] is False
    if detail is not None:
        assert detail in document["detail"]


# --- successes ------------------------------------------------------------------------------------


async def test_health_says_what_is_there() -> None:
    """Health has exactly the contract's fields and needs no token."""
    service = await make_service(open_sessions=3)
    answer = await ask(make_edge(service), "GET", "/healthz")
    assert answer.status == 200
    assert answer.json == {
        "ok": True,
        "claude_present": False,
        "claude_version": None,
        "acpx_present": True,
        "acpx_version": "0.19.1",
        "open_sessions": 3,
    }


async def test_alive_is_not_ready() -> None:
    """A service that lacks everything is alive, and says in one answer all that it lacks."""
    service = await make_service(found=Versions(), is_draining=True)
    service.store.unavailable = "full"
    edge = make_edge(service)
    assert (await ask(edge, "GET", "/livez")).json == {"ok": True}
    answer = await ask(edge, "GET", "/readyz")
    assert_problem(answer, 503)
    for word in ("draining", "clawdforge setup", "ledger"):
        assert word in answer.json["detail"]
    assert answer.header("retry-after") == "1"


async def test_no_agent_that_starts_is_not_ready() -> None:
    """Ready as long as one agent may be tried; when every circuit is open, it says so."""
    service = await make_service(resting_agents=frozenset({DEMO}))
    edge = make_edge(service)
    assert (await ask(edge, "GET", "/readyz")).status == 200
    service.resting_agents = frozenset({DEMO, CLAUDE})
    assert_problem(await ask(edge, "GET", "/readyz"), 503, "no agent starts")
    assert (await ask(edge, "GET", "/livez")).status == 200


async def test_an_open_circuit_is_told_with_its_wait() -> None:
    """503 with Retry-After and the last reason, for a creation and for a turn that was admitted."""
    error = CircuitOpen(17, "demo", "no handshake within 60 s")
    service = await make_service(fails_with=error)
    refused = await ask(make_edge(service), "POST", "/sessions", headers=bearer(), body={})
    assert_problem(refused, 503, "no handshake within 60 s")
    assert refused.header("retry-after") == "17"
    failed = attrs.evolve(DONE, ending="failed", stop_reason="error", error=error)
    edge = make_edge(await make_service(result=failed))
    answer = await ask(edge, "POST", TURN, headers=bearer(), body={"prompt": "hi"})
    assert_problem(answer, 503)
    assert (answer.header("retry-after"), answer.json["turn_index"]) == ("17", 1)


async def test_the_admin_asks_for_a_drain() -> None:
    """Answered at once, again and again; alive but not ready from then on."""
    service = await make_service()
    edge = make_edge(service)
    for _ in range(2):
        answer = await ask(edge, "POST", "/admin/drain", headers=bearer(ADMIN))
        assert answer.json == {"ok": True}
    assert service.drain_requested.is_set()
    assert_problem(await ask(edge, "GET", "/readyz"), 503, "draining")
    assert (await ask(edge, "GET", "/livez")).status == 200


async def test_ready() -> None:
    """A service with all its parts is ready."""
    assert (await ask(make_edge(await make_service()), "GET", "/readyz")).json == {"ok": True}


async def test_create_answers_with_the_session() -> None:
    """A created session has exactly the contract's fields, and the service got what was asked."""
    service = await make_service()
    body = {
        "agent": "demo",
        "model": "opus[1m]",
        "meta": {"a": [1]},
        "permissions": "ask",
    }
    answer = await ask(make_edge(service), "POST", "/sessions", headers=bearer(), body=body)
    assert answer.status == 200
    assert answer.json == {
        "ok": True,
        "session_id": SESSION,
        "agent": "demo",
        "model": "opus[1m]",
        "created_at": 1000,
    }
    assert service.asked == [
        NewSession(app=KITCHEN, agent=DEMO, model="opus[1m]", meta={"a": [1]}, permissions="ask")
    ]


async def test_null_is_the_same_as_left_out() -> None:
    """Null for every optional field gives what leaving it out gives."""
    service = await make_service()
    edge = make_edge(service)
    nulls = {"agent": None, "model": None, "meta": None, "permissions": None}
    await ask(edge, "POST", "/sessions", headers=bearer(), body=nulls)
    await ask(edge, "POST", "/sessions", headers=bearer(), body={})
    first, second = service.asked
    assert first == second == NewSession(app=KITCHEN, agent=CLAUDE)


async def test_show_and_list() -> None:
    """A session is shown with exactly the contract's fields, and listed newest first."""
    service = await make_service()
    newer = session_row("session-of-the-kitchen-1", created_at=2000, closed_at=2001)
    await service.store.add_session(newer)
    await service.store.add_session(session_row("session-of-the-garage-00", app=GARAGE))
    service.live.add(SESSION)
    edge = make_edge(service)
    shown = await ask(edge, "GET", f"/sessions/{SESSION}", headers=bearer())
    assert shown.json == {**VIEW, "live": True}
    listed = (await ask(edge, "GET", "/sessions", headers=bearer())).json
    assert [row["session_id"] for row in listed["sessions"]] == [newer.session_id, SESSION]
    assert set(listed) == {"sessions", "count"}
    assert listed["count"] == 2
    assert listed["sessions"][1] == {**VIEW, "live": True}


@pytest.mark.parametrize("word", ["false", "False", "0"])
async def test_list_of_open_sessions(word: str) -> None:
    """``include_closed`` is understood as existing clients write it."""
    service = await make_service()
    await service.store.add_session(session_row("session-of-the-kitchen-1", closed_at=2001))
    target = f"/sessions?include_closed={word}"
    listed = (await ask(make_edge(service), "GET", target, headers=bearer())).json
    assert [row["session_id"] for row in listed["sessions"]] == [SESSION]


async def test_close_twice() -> None:
    """A second close is a success and says so."""
    service = await make_service()
    edge = make_edge(service)
    first = await ask(edge, "DELETE", f"/sessions/{SESSION}", headers=bearer())
    await service.store.close_session(SESSION, event="close", cause="closed", at=1001)
    second = await ask(edge, "DELETE", f"/sessions/{SESSION}", headers=bearer())
    assert first.json == {"ok": True}
    assert second.json == {"ok": True, "already_closed": True}


async def test_turn() -> None:
    """A turn has exactly the contract's fields, and the service got its defaults."""
    events = [{"method": "session/update", "params": {"x": "ü"}}]
    service = await make_service(result=attrs.evolve(DONE, events=json.dumps(events)))
    answer = await ask(make_edge(service), "POST", TURN, headers=bearer(), body={"prompt": "hi"})
    assert answer.status == 200
    assert answer.json == {
        "ok": True,
        "session_id": SESSION,
        "turn_index": 1,
        "events": events,
        "stop_reason": "end_turn",
        "duration_ms": 5,
        "text": "hello",
    }
    assert service.asked == [NewTurn(prompt="hi", timeout_secs=600)]


async def test_what_the_agent_wrote_comes_through_to_the_letter() -> None:
    """Spaces, numbers of any size, keys twice; nothing that is said elsewhere is taken for it."""
    said = '[{"n": 1e999, "a" :1,"a":2, "t":"\\ud800 ü \\"events\\":null"}]'
    usage = {"events": None, "\ud800": '"events":null'}
    result = attrs.evolve(DONE, events=said, text='"events":null \ud800', usage=usage)
    service = await make_service(result=result)
    answer = await ask(make_edge(service), "POST", TURN, headers=bearer(), body={"prompt": "hi"})
    assert answer.body.decode().count(f'"events":{said}') == 1
    assert answer.json["events"] == json.loads(said)
    assert (answer.json["text"], answer.json["usage"]) == (result.text, usage)


async def test_turn_with_everything() -> None:
    """Usage and counts of what is missing are in the answer when there are any."""
    result = attrs.evolve(DONE, usage={"totalTokens": 7}, events_dropped=2, skipped_lines=3)
    service = await make_service(result=result)
    answer = await ask(make_edge(service), "POST", TURN, headers=bearer(), body={"prompt": "hi"})
    assert answer.json["usage"] == {"totalTokens": 7}
    assert answer.json["events_dropped"] == 2
    assert answer.json["skipped_lines"] == 3


@pytest.mark.parametrize(
    ("asked", "default", "expected"),
    [
        ({}, "normalized", [{"type": "text", "content": "hi"}]),
        ({"events": "none"}, "acp", []),
        ({"events": "normalized"}, "none", [{"type": "text", "content": "hi"}]),
    ],
)
async def test_turn_events_in_the_form_asked_for(
    asked: dict[str, Any], default: Any, expected: list[Any]
) -> None:
    """The request chooses the form of the events, the settings choose when it does not."""
    update = {"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": "hi"}}
    events = json.dumps([{"method": "session/update", "params": {"update": update}}])
    service = await make_service(
        config=Config(events=default), result=attrs.evolve(DONE, events=events)
    )
    body = {"prompt": "hi", **asked}
    answer = await ask(make_edge(service), "POST", TURN, headers=bearer(), body=body)
    assert answer.json["events"] == expected


async def test_cancelled_turn_is_a_success() -> None:
    """A turn that was cancelled answers 200 and says so in its stop reason."""
    result = attrs.evolve(DONE, ending="cancelled", stop_reason="cancelled")
    service = await make_service(result=result)
    answer = await ask(make_edge(service), "POST", TURN, headers=bearer(), body={"prompt": "hi"})
    assert (answer.status, answer.json["stop_reason"]) == (200, "cancelled")


async def test_tokens() -> None:
    """A token is minted, listed without its text, used, revoked, and then refused."""
    edge = make_edge(await make_service())
    admin = bearer(ADMIN)
    minted = await ask(
        edge,
        "POST",
        "/admin/tokens",
        headers=admin,
        body={"name": "attic", "ip_cidrs": ["127.0.0.0/8"]},
    )
    assert set(minted.json) == {"name", "token", "ip_cidrs"}
    token = minted.json["token"]
    listed = (await ask(edge, "GET", "/admin/tokens", headers=admin)).json
    assert set(listed) == {"tokens"}
    assert {"name": "attic", "ip_cidrs": ["127.0.0.0/8"], "created_at": 1000} in listed["tokens"]
    assert (await ask(edge, "GET", "/sessions", headers=bearer(token))).status == 200
    revoked = await ask(edge, "DELETE", "/admin/tokens/attic", headers=admin)
    assert revoked.json == {"ok": True}
    assert_problem(await ask(edge, "GET", "/sessions", headers=bearer(token)), 401)


# --- refusals -------------------------------------------------------------------------------------

GATED = [operation for operation in OPERATIONS if operation.gate != "open"]


@pytest.mark.parametrize("operation", GATED, ids=lambda op: f"{op.method} {op.path}")
@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", "Basic eDp5", f"Bearer {TOKEN}x", f"{TOKEN}", "Bearer cf_ü"],
)
async def test_no_valid_bearer(operation: Any, authorization: str | None) -> None:
    """Every route behind a token refuses a missing, malformed or unknown one with 401."""
    target, body = EXAMPLES[operation.path]
    headers = {} if authorization is None else {"Authorization": authorization}
    body = body if operation.method == "POST" else None
    edge = make_edge(await make_service())
    answer = await ask(edge, operation.method, target, headers=headers, body=body)
    assert_problem(answer, 401)
    assert answer.header("www-authenticate") == "Bearer"


async def test_two_authorization_headers() -> None:
    """Two headers are malformed: which of them counts is nobody's to guess."""
    pairs = [("Authorization", f"Bearer {TOKEN}"), ("Authorization", f"Bearer {OTHER_TOKEN}")]
    answer = await ask(make_edge(await make_service()), "GET", "/sessions", headers=pairs)
    assert_problem(answer, 401)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda op: f"{op.method} {op.path}")
async def test_address_not_allowed(operation: Any) -> None:
    """Every route, the open ones too, refuses an address that may not connect."""
    target, body = EXAMPLES.get(operation.path, (operation.path, None))
    body = body if operation.method == "POST" else None
    edge = make_edge(await make_service())
    answer = await ask(
        edge, operation.method, target, headers=bearer(), body=body, peer="203.0.113.9"
    )
    assert_problem(answer, 403, "ALLOW_CIDRS")


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_app_token_on_an_admin_route(method: str) -> None:
    """An app is known and may not: 403, not 401."""
    edge = make_edge(await make_service())
    body = {"name": "attic"} if method == "POST" else None
    answer = await ask(edge, method, "/admin/tokens", headers=bearer(), body=body)
    assert_problem(answer, 403, "admin")


async def test_admin_routes_without_a_secret() -> None:
    """Without a configured secret the admin routes are off, and say why, whoever asks."""
    edge = make_edge(await make_service(config=Config()))
    for headers in ({}, bearer(), bearer(ADMIN)):
        answer = await ask(edge, "GET", "/admin/tokens", headers=headers)
        assert_problem(answer, 403, "CLAWDFORGE_ADMIN_TOKEN")


async def test_token_of_another_address() -> None:
    """A narrowed token is 403 from elsewhere, loopback included."""
    service = await make_service()
    await service.store.add_app(
        AppRow(AppName("attic"), ("10.0.0.0/8",), 3), hash_token("cf_attic")
    )
    answer = await ask(make_edge(service), "GET", "/sessions", headers=bearer("cf_attic"))
    assert_problem(answer, 403)


@pytest.mark.parametrize(
    ("method", "suffix", "body"),
    [("GET", "", None), ("DELETE", "", None), ("POST", "/turn", {"prompt": "hi"})],
)
async def test_session_of_another_app_is_like_none(method: str, suffix: str, body: Any) -> None:
    """Another app's session answers byte for byte like one that never existed."""
    edge = make_edge(await make_service())
    answers = [
        await ask(edge, method, f"/sessions/{name}{suffix}", headers=bearer(OTHER_TOKEN), body=body)
        for name in (SESSION, "session-that-never-was00", "short", "%00" * 8)
    ]
    assert_problem(answers[0], 404)
    assert all(answer == answers[0] for answer in answers)


@pytest.mark.parametrize(
    ("target", "body", "paths"),
    [
        ("/sessions", b"", ["$"]),
        ("/sessions", b"{", ["$"]),
        ("/sessions", [], ["$"]),
        ("/sessions", {"agent": "nobody", "zz": 1, "meta": []}, ["$.zz", "$.agent", "$.meta"]),
        ("/sessions", {"agent": "demo\n"}, ["$.agent"]),
        ("/sessions", {"model": "--flag"}, ["$.model"]),
        ("/sessions", {"agent": "demo", "permissions": "approve-all"}, ["$.permissions"]),
        ("/sessions", {"permissions": "whatever"}, ["$.permissions"]),
        (TURN, {}, ["$.prompt"]),
        (TURN, {"prompt": ""}, ["$.prompt"]),
        (TURN, {"prompt": "x\0"}, ["$.prompt"]),
        (TURN, {"prompt": "x", "timeout_secs": True}, ["$.timeout_secs"]),
        (TURN, {"prompt": "x", "timeout_secs": 4}, ["$.timeout_secs"]),
        (TURN, {"prompt": "x", "timeout_secs": 3601}, ["$.timeout_secs"]),
        (TURN, {"prompt": "x", "timeout_secs": 7.5}, ["$.timeout_secs"]),
        (TURN, {"prompt": "x", "files": {}}, ["$.files"]),
        (TURN, {"prompt": "x", "files": ["ff_a", "ff_b"]}, ["$.files[0]", "$.files[1]"]),
        (TURN, {"prompt": "x", "events": "all"}, ["$.events"]),
        ("/admin/tokens", {"name": "Attic"}, ["$.name"]),
        ("/admin/tokens", {"name": "attic\n"}, ["$.name"]),
        (
            "/admin/tokens",
            {"name": "a", "ip_cidrs": ["10.0.0.0/8", "x"]},
            ["$.ip_cidrs[1]"],
        ),
    ],
)
async def test_body_that_does_not_fit(target: str, body: Any, paths: list[str]) -> None:
    """A body that does not fit is 422 with the path of every fault, and reaches nobody."""
    service = await make_service()
    token = ADMIN if target.startswith("/admin") else TOKEN
    answer = await ask(make_edge(service), "POST", target, headers=bearer(token), body=body)
    assert_problem(answer, 422)
    assert sorted(fault["path"] for fault in answer.json["faults"]) == sorted(paths)
    assert all(path in answer.json["detail"] for path in paths)
    assert service.asked == []


async def test_unknown_agent_names_the_known_ones() -> None:
    """The refusal of an unknown agent lists those that there are."""
    edge = make_edge(await make_service())
    answer = await ask(edge, "POST", "/sessions", headers=bearer(), body={"agent": "nobody"})
    assert_problem(answer, 422, "claude, demo")


@pytest.mark.parametrize("query", ["include_closed=maybe", "other=1", "include_closed=1&" * 2])
async def test_query_that_does_not_fit(query: str) -> None:
    """An unknown, doubled or unfit query parameter is 422, never ignored."""
    edge = make_edge(await make_service())
    answer = await ask(edge, "GET", f"/sessions?{query.rstrip('&')}", headers=bearer())
    assert_problem(answer, 422, "query.")


SERVICE_ERRORS = [
    (errors.PoolFull(7, 2), 503),
    (errors.ShuttingDown(7), 503),
    (errors.AgentNotStarted("demo", "no", "clawdforge setup"), 502),
    (errors.AgentExited("demo", "it ended"), 502),
    (errors.AgentMisbehaved("demo", "it said no"), 502),
    (errors.AgentTimedOut("demo", 5), 504),
    (errors.AgentNotResumable("demo"), 502),
    (errors.SessionClosed("ttl"), 410),
    (errors.SessionBusy(8), 409),
    (errors.SessionNotFound(), 404),
    (errors.SessionGone(), 503),
    (errors.StoreUnavailable("disk full at /secret"), 503),
]


@pytest.mark.parametrize(("error", "status"), SERVICE_ERRORS, ids=lambda v: type(v).__name__)
@pytest.mark.parametrize(("target", "body"), [("/sessions", {}), (TURN, {"prompt": "hi"})])
async def test_service_refuses(error: Exception, status: int, target: str, body: Any) -> None:
    """Whatever the service refuses with becomes its status and problem document."""
    edge = make_edge(await make_service(fails_with=error))
    answer = await ask(edge, "POST", target, headers=bearer(), body=body)
    assert_problem(answer, status)
    assert "/secret" not in answer.body.decode()
    if isinstance(error, errors.CapacityError):
        assert answer.header("retry-after") == "7"
    assert (answer.header("retry-after") is not None) == (status == 503)


async def test_error_in_a_group_is_still_that_error() -> None:
    """An error that comes out of a nursery is answered like one that does not."""
    group = ExceptionGroup("nursery", [errors.SessionBusy(8)])
    edge = make_edge(await make_service(fails_with=group))
    answer = await ask(edge, "POST", TURN, headers=bearer(), body={"prompt": "hi"})
    assert_problem(answer, 409)


@pytest.mark.parametrize(
    ("ending", "error", "status"),
    [
        ("failed", AgentExited("demo", "it ended"), 502),
        ("failed", AgentMisbehaved("demo", "it said no"), 502),
        ("failed", errors.StoreUnavailable("locked"), 502),
        ("failed", None, 502),
        ("timed_out", AgentTimedOut("demo", 5), 504),
        ("timed_out", None, 504),
        ("interrupted", None, 502),
    ],
)
async def test_admitted_turn_that_failed(ending: Any, error: Any, status: int) -> None:
    """The problem of an admitted turn carries its index, stop reason and duration."""
    result = attrs.evolve(DONE, ending=ending, error=error, stop_reason="error", turn_index=4)
    edge = make_edge(await make_service(result=result))
    answer = await ask(edge, "POST", TURN, headers=bearer(), body={"prompt": "hi"})
    assert_problem(answer, status)
    assert answer.json["turn_index"] == 4
    assert answer.json["stop_reason"] == "error"
    assert answer.json["duration_ms"] == 5


@pytest.mark.parametrize(("name", "status"), [("garage", 409), ("attic", 200)])
async def test_mint_a_name_twice(name: str, status: int) -> None:
    """A name that is taken is 409."""
    edge = make_edge(await make_service())
    body = {"name": name}
    answer = await ask(edge, "POST", "/admin/tokens", headers=bearer(ADMIN), body=body)
    assert answer.status == status


@pytest.mark.parametrize("name", ["nobody", "No-Such-Name", TOKEN])
async def test_revoke_nobody(name: str) -> None:
    """An unknown name is 404, and is not repeated: it may be a token in the wrong place."""
    edge = make_edge(await make_service())
    answer = await ask(edge, "DELETE", f"/admin/tokens/{name}", headers=bearer(ADMIN))
    assert_problem(answer, 404)
    assert name not in answer.body.decode()


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/nothing/here", 404),
        ("GET", "/sessions//x", 404),
        ("GET", "/sessions/", 404),
        ("PUT", "/sessions", 405),
        ("OPTIONS", "/sessions", 405),
        ("GET", TURN, 405),
        ("CONNECT", "/", 405),
    ],
)
async def test_no_such_route(method: str, target: str, status: int) -> None:
    """The framework's own refusals are problem documents too, never a page."""
    answer = await ask(make_edge(await make_service()), method, target, headers=bearer())
    assert_problem(answer, status)
    assert b"<" not in answer.body


async def test_wrong_method_says_which_are_right() -> None:
    """A 405 carries ``Allow`` (RFC 9110, 15.5.6)."""
    answer = await ask(make_edge(await make_service()), "PUT", "/sessions")
    assert {"GET", "POST"} <= set((answer.header("allow") or "").split(", "))


async def test_body_over_the_cap() -> None:
    """A body over the cap is 413 and says the cap."""
    edge = make_edge(await make_service(config=Config(max_body_bytes=100)))
    body = {"prompt": "x" * 100}
    answer = await ask(edge, "POST", TURN, headers=bearer(), body=body)
    assert_problem(answer, 413, "100 bytes")


async def test_refused_before_the_body_is_looked_at() -> None:
    """Who is asking is settled before what is asked."""
    edge = make_edge(await make_service(config=Config(max_body_bytes=100)))
    assert_problem(await ask(edge, "POST", TURN, body=b"x" * 1000), 401)


async def test_request_id_of_the_caller_comes_back() -> None:
    """A caller that names its request finds the name in the answer; a refusal has no id of ours."""
    edge = make_edge(await make_service())
    named = await ask(edge, "GET", "/livez", headers={"X-Request-ID": "abc-1"})
    assert named.header("x-request-id") == "abc-1"
    for odd in ("a b", "x" * 100):
        answer = await ask(edge, "GET", "/livez", headers={"X-Request-ID": odd})
        assert answer.header("x-request-id") is None
