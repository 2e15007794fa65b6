"""Hostile and clumsy bodies: each is read exactly, or refused with a path for every fault."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clawdforge.domain.ids import APP_NAME
from clawdforge.errors import Fault, InvalidRequest
from clawdforge.web.limits import at_least, at_most, each, limited, matches, not_empty, one_of
from clawdforge.web.wire import MAX_DEPTH, MAX_FAULTS, MAX_VALUES, Reader


@attrs.frozen(kw_only=True)
class Example:
    """A body with a field of every kind."""

    name: str = limited(not_empty(), matches(APP_NAME))
    count: int = limited(at_least(1), default=1)
    is_on: bool = False
    tags: tuple[str, ...] = limited(each(one_of("tag", ("red", "blue"))), default=())
    meta: Mapping[str, Any] = attrs.field(factory=dict)


patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
# On a busy machine the first text that hypothesis makes can take seconds.

READER = Reader({(Example, "count"): at_most(10)})


def refuse(raw: bytes) -> list[str]:
    """The paths of all faults in a body that must not be read."""
    with pytest.raises(InvalidRequest) as caught:
        READER.read_body(Example, raw)
    return sorted(fault.path for fault in caught.value.faults)


def test_whole() -> None:
    """A body that fits is read as it stands."""
    raw = b'{"name":"a","count":2.0,"is_on":true,"tags":["red"],"meta":{"x":[null,1.5]}}'
    assert READER.read_body(Example, raw) == Example(
        name="a", count=2, is_on=True, tags=("red",), meta={"x": [None, 1.5]}
    )


def test_defaults() -> None:
    """What is left out or null is the default."""
    raw = b'{"name":"a","count":null,"is_on":null,"tags":null,"meta":null}'
    assert READER.read_body(Example, raw) == Example(name="a")


@pytest.mark.parametrize(
    ("raw", "paths"),
    [
        (b"", ["$"]),
        (b"   ", ["$"]),
        (b"null", ["$"]),
        (b"[]", ["$"]),
        (b'"text"', ["$"]),
        (b"1", ["$"]),
        (b"name=a", ["$"]),
        (b'{"name":"a"}x', ["$"]),
        (b"{'name':'a'}", ["$"]),
        (b"\xff\xfe", ["$"]),
        (b'\xef\xbb\xbf{"name":"a"}', ["$"]),
        ('{"name":"a"}'.encode("utf-16"), ["$"]),
        (b'{"name":"\xed\xa0\x80"}', ["$"]),
        (b'{"name":"a","meta":{"n":' + b"1" * 5000 + b"}}", ["$"]),
        (b"[" * 200_000, ["$"]),
        (b'{"a":' * 200_000, ["$"]),
        (b"{}", ["$.name"]),
        (b'{"name":null}', ["$.name"]),
        (b'{"name":1}', ["$.name"]),
        (b'{"name":""}', ["$.name", "$.name"]),
        (b'{"name":"a\\n"}', ["$.name"]),
        (b'{"name":"a","count":true}', ["$.count"]),
        (b'{"name":"a","count":"1"}', ["$.count"]),
        (b'{"name":"a","count":1.5}', ["$.count"]),
        (b'{"name":"a","count":0}', ["$.count"]),
        (b'{"name":"a","count":11}', ["$.count"]),
        (b'{"name":"a","is_on":1}', ["$.is_on"]),
        (b'{"name":"a","is_on":"true"}', ["$.is_on"]),
        (b'{"name":"a","tags":{}}', ["$.tags"]),
        (b'{"name":"a","tags":"red"}', ["$.tags"]),
        (b'{"name":"a","tags":["red","green",1]}', ["$.tags[2]"]),
        (b'{"name":"a","tags":["red","green"]}', ["$.tags[1]"]),
        (b'{"name":"a","meta":[]}', ["$.meta"]),
        (b'{"name":"a","odd name":1,"ok":2}', ['$["odd name"]', "$.ok"]),
        (b'{"name":"a","meta":{"x":"\\u0000"}}', ["$.meta.x"]),
        (b'{"name":"a","meta":{"x":["\\ud800"]}}', ["$.meta.x[0]"]),
        (b'{"name":"a","meta":{"\\u0000":1}}', ['$.meta["\\u0000"]']),
        (b'{"name":"a","meta":{"x":NaN,"y":-Infinity,"z":1e999}}', ["$.meta." + k for k in "xyz"]),
        (b'{"name":"a","name":"b"}', ["$.name"]),
        (b'{"name":"a","meta":{"x":1,"x":1}}', ["$.meta.x"]),
        (
            b'{"name":1,"count":0,"zz":1,"meta":{"x":"\\u0000"}}',
            ["$.count", "$.meta.x", "$.name", "$.zz"],
        ),
    ],
)
def test_refused(raw: bytes, paths: list[str]) -> None:
    """A body that does not fit is refused with the path of every fault in it."""
    assert refuse(raw) == sorted(paths)


def test_surrogate_pairs_are_text() -> None:
    """An escaped pair is one character, and fine."""
    body = READER.read_body(Example, b'{"name":"a","meta":{"x":"\\ud83d\\ude00"}}')
    assert body.meta == {"x": "\U0001f600"}


def test_nesting_has_a_limit() -> None:
    """Nesting is taken up to its limit and refused past it."""
    fits = b'{"name":"a","meta":{"x":' + b"[" * (MAX_DEPTH - 1) + b"]" * (MAX_DEPTH - 1) + b"}}"
    READER.read_body(Example, fits)
    assert len(refuse(fits.replace(b"[]", b"[[]]"))) == 1


def test_number_of_values_has_a_limit() -> None:
    """A body of very many values is refused before it is looked at in full."""
    assert refuse(b'{"name":"a","meta":{"x":[' + b"0," * MAX_VALUES + b"0]}}") == ["$"]


def test_number_of_faults_has_a_limit() -> None:
    """A body of nothing but faults is not answered with megabytes."""
    raw = json.dumps({f"k{n}": 1 for n in range(1000)}).encode()
    assert len(refuse(raw)) == MAX_FAULTS


def test_messages_do_not_repeat_values() -> None:
    """A message never says the value that it refuses: it may be a secret in the wrong field."""
    with pytest.raises(InvalidRequest) as caught:
        READER.read_body(Example, b'{"name":"SECRET!","count":"SECRET!","tags":["SECRET!"]}')
    assert "SECRET" not in str(caught.value)


def test_limits_hold_without_the_wire() -> None:
    """A body built by hand obeys the same limits."""
    with pytest.raises(ValueError, match="count: must be at least 1"):
        Example(name="a", count=0)


def faults_of(raw: bytes) -> Sequence[Fault] | None:
    """What is wrong with the body; None when it was read."""
    try:
        READER.read_body(Example, raw)
    except InvalidRequest as refused:
        return refused.faults
    return None


@patient
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    """No bytes whatever raise anything but InvalidRequest."""
    assert faults_of(raw) != []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@patient
@given(st.dictionaries(st.sampled_from(["name", "count", "is_on", "tags", "meta", "x"]), JSON))
def test_any_object_is_read_or_refused(value: dict[str, Any]) -> None:
    """No JSON object whatever raises anything but InvalidRequest, with paths into the body."""
    faults = faults_of(json.dumps(value).encode())
    assert faults is None or all(fault.path.startswith("$") for fault in faults)
