"""The routes around a turn: keys, cancelling, history, permissions; the service is scripted."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest

from clawdforge.config import Config
from clawdforge.domain.keys import IdempotencyKey
from clawdforge.domain.ports import TurnEnd, TurnStart
from clawdforge.domain.questions import PendingPermission
from clawdforge.domain.turns import CancelReceipt, TurnTarget
from clawdforge.errors import (
    ClawdforgeError,
    IdempotencyKeyReused,
    PermissionDecided,
    PermissionNotFound,
    TurnNotFound,
)
from clawdforge.protocol.menus import Choice, Menu, Menus
from clawdforge.web.app import make_edge
from clawdforge.web.history import SHOWN_CHARACTERS
from clawdforge.web.service import NewTurn
from tests.web.stage import ADMIN, DONE, OTHER_TOKEN, SESSION, Answered, ask, bearer, make_service

BASE = f"/sessions/{SESSION}"
OPTIONS = ({"optionId": "allow", "kind": "allow_once"},)


async def ask_as_app(service: Any, method: str, target: str, body: object = None) -> Answered:
    """One request of the kitchen's."""
    return await ask(make_edge(service), method, target, headers=bearer(), body=body)


async def keyed(service: Any, key: str | None, body: dict[str, Any], path: str = "/turn") -> Any:
    """What the service was asked for by a request with that key."""
    headers = {**bearer(), **({} if key is None else {"Idempotency-Key": key})}
    target = BASE + path if path == "/turn" else path
    answer = await ask(make_edge(service), "POST", target, headers=headers, body=body)
    assert answer.status == 200, answer.body
    return service.asked[-1]


# --- the request of a turn ------------------------------------------------------------------------


async def test_a_turn_has_the_service_s_limits_on_silence_unless_it_says() -> None:
    """Given ones win; a disconnect policy is passed on."""
    config = Config(admin_token=ADMIN, first_output_secs=30, silence_secs=60)
    service = await make_service(config=config)
    asked: NewTurn = await keyed(service, None, {"prompt": "hi"})
    assert (asked.first_output_secs, asked.silence_secs) == (30, 60)
    assert asked.on_disconnect == "cancel"
    body = {"prompt": "hi", "silence_secs": 5, "on_disconnect": "detach"}
    asked = await keyed(service, None, body)
    assert (asked.first_output_secs, asked.silence_secs) == (30, 5)
    assert asked.on_disconnect == "detach"


@pytest.mark.parametrize(
    ("field", "value"),
    [("on_disconnect", "leave"), ("first_output_secs", 0), ("silence_secs", 999_999)],
)
async def test_a_turn_that_does_not_fit_is_refused(field: str, value: object) -> None:
    """With the field named."""
    answer = await ask_as_app(
        await make_service(), "POST", f"{BASE}/turn", {"prompt": "hi", field: value}
    )
    assert answer.status == 422
    assert answer.json["faults"][0]["path"] == f"$.{field}"


async def test_an_open_tool_call_of_a_cancelled_turn_is_shown_as_cancelled() -> None:
    """In the normalized form, where a call has one entry."""
    call = {"sessionUpdate": "tool_call", "toolCallId": "t1", "title": "Search"}
    event = {"jsonrpc": "2.0", "method": "session/update", "params": {"update": call}}
    said = json.dumps([event])
    result = attrs.evolve(DONE, ending="cancelled", events=said, cancelled_tool_calls=("t1",))
    service = await make_service(result=result)
    body = {"prompt": "hi", "events": "normalized"}
    answer = await ask_as_app(service, "POST", f"{BASE}/turn", body)
    (shown,) = answer.json["events"]
    assert (shown["name"], shown["status"]) == ("Search", "cancelled")


# --- keys -----------------------------------------------------------------------------------------


async def test_a_key_is_bound_to_the_fields_in_any_order() -> None:
    """The same fields have the same digest, others another; defaults count as left out."""
    service = await make_service()
    first = (await keyed(service, "k", {"prompt": "hi", "timeout_secs": 9})).key
    again = (await keyed(service, "k", {"timeout_secs": 9, "prompt": "hi", "events": None})).key
    spelt = {"prompt": "hi", "timeout_secs": 9, "on_disconnect": "cancel", "files": []}
    other = (await keyed(service, "k", {"prompt": "ho", "timeout_secs": 9})).key
    assert isinstance(first, IdempotencyKey)
    assert first.name == "k"
    assert first == again == (await keyed(service, "k", spelt)).key
    assert first != other


async def test_a_creation_takes_a_key_too() -> None:
    """Its digest covers what the session is to be."""
    service = await make_service()
    first = (await keyed(service, "k", {"agent": "demo"}, "/sessions")).key
    other = (await keyed(service, "k", {"agent": "demo", "meta": {"a": 1}}, "/sessions")).key
    assert first.name == "k"
    assert first != other
    assert (await keyed(service, None, {"agent": "demo"}, "/sessions")).key is None


@pytest.mark.parametrize("key", ["", " ", "x" * 256, "naïve"])
async def test_a_key_that_cannot_be_is_refused(key: str) -> None:
    """1 to 255 printable characters; the answer says which header."""
    headers = {**bearer(), "Idempotency-Key": key}
    answer = await ask(
        make_edge(await make_service()),
        "POST",
        f"{BASE}/turn",
        headers=headers,
        body={"prompt": "hi"},
    )
    assert answer.status == 422
    assert answer.json["faults"][0]["path"] == "header.Idempotency-Key"


async def test_two_keys_are_refused() -> None:
    """Which of them counts is nobody's to guess."""
    headers = [*bearer().items(), ("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    answer = await ask(
        make_edge(await make_service()),
        "POST",
        f"{BASE}/turn",
        headers=headers,
        body={"prompt": "hi"},
    )
    assert answer.status == 422


async def test_another_body_under_a_key_is_422() -> None:
    """As the contract says."""
    service = await make_service(fails_with=IdempotencyKeyReused())
    answer = await ask_as_app(service, "POST", f"{BASE}/turn", {"prompt": "hi"})
    assert answer.status == 422
    assert answer.json["type"] == "urn:clawdforge:problem:idempotency-key-reused"


# --- cancelling -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "target"),
    [
        (None, TurnTarget()),
        ({}, TurnTarget()),
        ({"turn_index": 3}, TurnTarget(turn_index=3)),
        ({"idempotency_key": "k"}, TurnTarget(key_name="k")),
    ],
)
async def test_a_cancel_answers_with_its_receipt(body: object, target: TurnTarget) -> None:
    """By index, by key, or the turn at work; a body is not needed for that."""
    service = await make_service(receipt=CancelReceipt(True, 3, "killed", 5004))
    answer = await ask_as_app(service, "POST", f"{BASE}/cancel", body)
    assert answer.json == {
        "ok": True,
        "cancelled": True,
        "turn_index": 3,
        "how": "killed",
        "took_ms": 5004,
    }
    assert service.asked == [target]


async def test_a_cancel_names_its_turn_once() -> None:
    """An index and a key might be two turns."""
    body = {"turn_index": 1, "idempotency_key": "k"}
    answer = await ask_as_app(await make_service(), "POST", f"{BASE}/cancel", body)
    assert answer.status == 422


async def test_a_cancel_of_an_unknown_turn_is_404() -> None:
    """It is not the session that is missing, and the problem says so."""
    service = await make_service(fails_with=TurnNotFound())
    answer = await ask_as_app(service, "POST", f"{BASE}/cancel", {"turn_index": 9})
    assert (answer.status, answer.json["title"]) == (404, "Turn not found")


# --- history --------------------------------------------------------------------------------------


async def make_history(turns: int) -> Any:
    """A service whose session has had so many turns, and one that works."""
    service = await make_service()
    for index in range(1, turns + 1):
        await service.store.begin_turn(TurnStart(SESSION, index, f"ask {index}", 1000 + index))
        await service.store.end_turn(
            TurnEnd(SESSION, index, "completed", "end_turn", f"say {index}", 5, 1001 + index)
        )
    await service.store.begin_turn(TurnStart(SESSION, turns + 1, "now", 2000))
    return service


async def test_history_is_paged_from_the_newest() -> None:
    """Each page says where the next one begins; the last one says that there is none."""
    service = await make_history(3)
    first = (await ask_as_app(service, "GET", f"{BASE}/turns?limit=2")).json
    assert [turn["turn_index"] for turn in first["turns"]] == [4, 3]
    assert first["next_before"] == 3
    rest = (await ask_as_app(service, "GET", f"{BASE}/turns?limit=2&before=3")).json
    assert [turn["turn_index"] for turn in rest["turns"]] == [2, 1]
    assert rest["next_before"] is None


async def test_a_turn_in_progress_has_no_ending_yet() -> None:
    """What was asked is there, what was answered is null."""
    (turn, *_) = (await ask_as_app(await make_history(1), "GET", f"{BASE}/turns")).json["turns"]
    assert turn == {
        "turn_index": 2,
        "prompt": "now",
        "started_at": 2000,
        "ended_at": None,
        "duration_ms": None,
        "ending": None,
        "stop_reason": None,
        "detail": None,
        "text": None,
        "first_event": None,
        "last_event": None,
    }


async def test_a_page_cuts_long_texts_and_one_turn_does_not() -> None:
    """A cut is said."""
    service = await make_service()
    long = "x" * (SHOWN_CHARACTERS + 1)
    await service.store.begin_turn(TurnStart(SESSION, 1, long, 1000))
    (cut,) = (await ask_as_app(service, "GET", f"{BASE}/turns")).json["turns"]
    assert (len(cut["prompt"]), cut["cut"]) == (SHOWN_CHARACTERS, True)
    whole = (await ask_as_app(service, "GET", f"{BASE}/turns/1")).json
    assert whole["prompt"] == long
    assert "cut" not in whole


async def test_one_turn_says_what_it_used_and_what_was_left_open() -> None:
    """Facts beyond the text are shown if there are any."""
    service = await make_service()
    facts = {"usage": {"used": 3}, "cancelled_tool_calls": ["t1"], "skipped_lines": 2}
    await service.store.begin_turn(TurnStart(SESSION, 1, "hi", 1000))
    await service.store.end_turn(
        TurnEnd(SESSION, 1, "cancelled", "cancelled", "", 5, 1001, "cancel", facts=facts)
    )
    turn = (await ask_as_app(service, "GET", f"{BASE}/turns/1")).json
    assert (turn["ending"], turn["detail"]) == ("cancelled", "cancel")
    assert (turn["usage"], turn["cancelled_tool_calls"]) == ({"used": 3}, ["t1"])


@pytest.mark.parametrize("index", ["0", "9", "-1", "one", "99999999999999999999", "１"])
async def test_a_turn_that_is_not_there_is_404(index: str) -> None:
    """Whatever it is called."""
    answer = await ask_as_app(await make_history(1), "GET", f"{BASE}/turns/{index}")
    assert (answer.status, answer.json["title"]) == (404, "Turn not found")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/turns", None),
        ("GET", "/turns/1", None),
        ("GET", "/permissions", None),
        ("POST", "/cancel", {}),
        ("POST", "/permissions/r1", {"option_id": "allow"}),
    ],
)
async def test_another_app_s_session_is_not_there(method: str, path: str, body: object) -> None:
    """The same bytes as for a session that never existed."""
    service = await make_history(1)
    edge, headers = make_edge(service), bearer(OTHER_TOKEN)
    theirs = await ask(edge, method, BASE + path, headers=headers, body=body)
    never = await ask(edge, method, f"/sessions/{'n' * 32}{path}", headers=headers, body=body)
    assert theirs.status == 404
    assert (theirs.headers, theirs.body) == (never.headers, never.body)


# --- permissions ----------------------------------------------------------------------------------


async def test_pending_permissions_are_listed() -> None:
    """With what the agent wants, what may be answered, and until when."""
    pending = PendingPermission("r1", 2, {"title": "Write"}, OPTIONS, 1120)
    service = await make_service(pending=[pending])
    answer = await ask_as_app(service, "GET", f"{BASE}/permissions")
    assert answer.json == {
        "permissions": [
            {
                "request_id": "r1",
                "turn_index": 2,
                "tool_call": {"title": "Write"},
                "options": [*OPTIONS],
                "expires_at": 1120,
            }
        ],
        "count": 1,
    }


async def test_a_decision_is_passed_on() -> None:
    """The option's id, to the request of the path."""
    service = await make_service()
    answer = await ask_as_app(service, "POST", f"{BASE}/permissions/r1", {"option_id": "allow"})
    assert answer.json == {"ok": True}
    assert service.asked == [("r1", "allow")]


@pytest.mark.parametrize(
    ("error", "status"), [(PermissionNotFound(), 404), (PermissionDecided("clock"), 409)]
)
async def test_a_decision_that_comes_to_nothing_says_why(
    error: ClawdforgeError, status: int
) -> None:
    """Unknown and decided before are two things."""
    service = await make_service(fails_with=error)
    answer = await ask_as_app(service, "POST", f"{BASE}/permissions/r1", {"option_id": "allow"})
    assert (answer.status, answer.json["detail"]) == (status, str(error))


# --- what an agent offers -------------------------------------------------------------------------


async def test_models_and_modes_are_shown_when_known() -> None:
    """Of a live session whose agent has said so; otherwise the answer is as it was."""
    offered = Menus(models=Menu("opus", (Choice("opus", "Opus"),)))
    service = await make_service(offered=offered)
    assert "models" not in (await ask_as_app(service, "GET", BASE)).json
    service.live.add(SESSION)
    answer = (await ask_as_app(service, "GET", BASE)).json
    assert answer["models"] == {
        "current": "opus",
        "available": [{"id": "opus", "name": "Opus"}],
    }
    assert "modes" not in answer
