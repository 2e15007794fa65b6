"""The JSON-RPC peer: whose a message is, and which request it answers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clawdforge.protocol.jsonrpc import (
    Answer,
    Call,
    Notice,
    Peer,
    Refusal,
    Stray,
    answer,
    refuse,
    tell,
)

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(["jsonrpc", "id", "method", "params", "result", "error"])


def line(**fields: Any) -> bytes:
    """A message of the other side's."""
    return json.dumps({"jsonrpc": "2.0", **fields}).encode()


def peer_with(asked: int) -> Peer:
    """A peer that has asked so often, and has no answer yet."""
    peer = Peer()
    for _ in range(asked):
        peer.ask("initialize", {})
    return peer


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        ({"id": 0, "result": {"a": 1}}, (Answer, {"request_id": 0, "result": {"a": 1}})),
        ({"id": 1, "result": None}, (Answer, {"request_id": 1, "result": {}})),
        ({"id": 1, "result": {}, "error": None}, (Answer, {"request_id": 1})),
        ({"id": 0, "error": {"code": -3, "message": "m"}}, (Refusal, {"code": -3, "reason": "m"})),
        ({"id": 0, "error": "bad"}, (Refusal, {"code": None, "reason": "it gave no reason"})),
        ({"id": 0, "method": "m", "params": {"p": 1}}, (Call, {"request_id": 0, "method": "m"})),
        ({"id": "x", "method": "m"}, (Call, {"request_id": "x", "params": {}})),
        ({"id": None, "method": "m"}, (Call, {"request_id": None})),
        ({"id": 0, "method": "m", "result": {}}, (Call, {"request_id": 0})),
        ({"method": "m", "params": [1]}, (Notice, {"method": "m", "params": {}})),
        ({"id": True, "result": {}}, (Stray, {})),
        ({"id": 1.0, "result": {}}, (Stray, {})),
        ({"id": "0", "result": {}}, (Stray, {})),
        ({"id": 2, "result": {}}, (Stray, {})),
        ({"id": [], "method": "m"}, (Stray, {})),
        ({"id": 0, "method": 5}, (Stray, {})),
        ({"result": {}}, (Stray, {})),
        ({}, (Stray, {})),
    ],
)
def test_whose_a_message_is(message: dict[str, Any], wanted: tuple[type, dict[str, Any]]) -> None:
    """With requests 0 and 1 open, each message is one of five things, and kept as it came."""
    kind, fields = wanted
    found = peer_with(2).receive(line(**message))
    assert type(found) is kind
    assert found is not None
    assert found.message == {"jsonrpc": "2.0", **message}
    assert {name: getattr(found, name) for name in fields} == fields


@pytest.mark.parametrize("text", [b"", b"  ", b"nonsense", b"[]", b'"text"', b"1", b"\xff"])
def test_what_is_no_object_is_no_message(text: bytes) -> None:
    """A line that holds no JSON object means nothing, a batch included."""
    assert Peer().receive(text) is None


def test_a_request_is_answered_once() -> None:
    """The second answer to one request is stray, and so is one to a request forgotten."""
    peer = peer_with(2)
    assert isinstance(peer.receive(line(id=0, result={})), Answer)
    assert isinstance(peer.receive(line(id=0, result={})), Stray)
    peer.forget(1)
    peer.forget(1)
    assert isinstance(peer.receive(line(id=1, error={})), Stray)


def test_a_call_under_our_number_leaves_ours_open() -> None:
    """Ids of the two directions collide; the method tells them apart."""
    peer = peer_with(1)
    assert isinstance(peer.receive(line(id=0, method="session/request_permission")), Call)
    assert isinstance(peer.receive(line(id=0, result={})), Answer)


def test_what_is_sent_is_one_line_of_ascii() -> None:
    """Every line ends with its only newline and holds no byte that a line reader breaks at."""
    text = "a\u2028b\nc\u00e9"
    _, asked = Peer().ask("m", {"t": text})
    for sent in (asked, tell("m", {"t": text}), answer("x", {"t": text}), refuse(1, -1, text)):
        assert sent.isascii()
        assert sent.index(b"\n") == len(sent) - 1
        assert text in str(json.loads(sent)) or repr(text)[1:-1] in str(json.loads(sent))
        assert json.loads(sent)["jsonrpc"] == "2.0"


def test_lines_have_the_fields_of_the_specification() -> None:
    """A request has id, method and params; an answer id and result; a refusal id and error."""
    peer = Peer()
    assert [peer.ask("m", {})[0] for _ in range(3)] == [0, 1, 2]
    assert json.loads(peer.ask("m", {"a": 1})[1]) == {
        "jsonrpc": "2.0",
        "id": 3,
        "method": "m",
        "params": {"a": 1},
    }
    assert json.loads(tell("m", {})) == {"jsonrpc": "2.0", "method": "m", "params": {}}
    assert json.loads(answer(None, {})) == {"jsonrpc": "2.0", "id": None, "result": {}}
    error = {"code": -32601, "message": "no"}
    assert json.loads(refuse("a", -32601, "no")) == {"jsonrpc": "2.0", "id": "a", "error": error}


@given(st.dictionaries(FIELDS, JSON))
def test_no_object_is_fatal(message: dict[str, Any]) -> None:
    """Whatever fields of whatever kind: it is one of the five, and the message is kept."""
    found = peer_with(3).receive(json.dumps(message).encode())
    assert isinstance(found, Call | Notice | Answer | Refusal | Stray)
    assert found.message == message


@given(st.permutations(range(6)), st.lists(st.integers(-2, 8), max_size=12))
def test_answers_in_any_order_find_their_requests(order: list[int], calls: list[int]) -> None:
    """Each open request gets its own answer, whatever the order and whatever the agent asks."""
    peer = peer_with(6)
    for call in calls:
        assert isinstance(peer.receive(line(id=call, method="m")), Call)
    for number in order:
        found = peer.receive(line(id=number, result={"n": number}))
        assert isinstance(found, Answer)
        assert (found.request_id, found.result) == (number, {"n": number})
    assert all(isinstance(peer.receive(line(id=n, result={})), Stray) for n in range(6))
