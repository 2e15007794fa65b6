"""From the bytes of a request to a typed body, or to every fault in them at once.

Strict by rule: unknown fields are refused, a boolean is no integer, an object is no list, and what
JSON lets through but other programs stumble over (a NUL character, half a surrogate pair, a key
given twice, NaN) is a fault with a path. ``null`` for an optional field is the field left out.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import islice
from typing import Any, Final, Literal, TypeVar, get_args, get_origin

import attrs
import cattrs

from clawdforge.errors import Fault, InvalidRequest
from clawdforge.web.limits import Limit, Limits

Body = TypeVar("Body")

Narrowing = Mapping[tuple[type, str], Limit]
"""Limits that depend on the settings, by body class and field name."""

MAX_DEPTH: Final = 100
"""Nesting of arrays and objects; deeper is an attack or an accident."""

MAX_VALUES: Final = 100_000
"""Values in one body, so that looking at each of them stays within some tens of milliseconds."""

MAX_FAULTS: Final = 100
"""Faults told in one answer: a body of nothing but faults must not be answered with megabytes."""

_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")
_PLAIN_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_TRUE: Final = frozenset({"true", "1", "yes", "on", "t", "y"})
_FALSE: Final = frozenset({"false", "0", "no", "off", "f", "n"})


class Unfit(Exception):
    """A value does not fit its type: the faults, with paths relative to the value."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__(f"{len(faults)} faults")
        self.faults = faults


class _Doubled(dict[str, Any]):
    """An object in which keys were given twice; the last of each is kept."""

    doubled: Sequence[str] = ()


class _NotFinite:
    """Stands for NaN or an infinity."""


# --- bytes to plain values ------------------------------------------------------------------------


def parse_json(raw: bytes) -> object:
    """The JSON value in ``raw``, to be searched for what is unstorable. Raises InvalidRequest."""
    try:
        return _DECODER.decode(raw.decode("utf-8"))
    except UnicodeDecodeError:
        raise InvalidRequest([Fault("$", "the body is not UTF-8")]) from None
    except RecursionError:
        raise InvalidRequest([Fault("$", "the body is nested too deeply")]) from None
    except json.JSONDecodeError as error:
        message = f"the body is not JSON (line {error.lineno}, column {error.colno})"
        raise InvalidRequest([Fault("$", message)]) from None
    except ValueError:  # an integer with more digits than Python takes (4300)
        raise InvalidRequest([Fault("$", "a number in the body is too long")]) from None


def _pair_up(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) == len(pairs):
        return made
    doubled = _Doubled(made)
    doubled.doubled = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
    return doubled


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_pair_up, parse_constant=lambda _: _NotFinite()
)
"""One for all bodies: ``json.loads`` with options makes another each time."""


def find_unstorable(value: object, root: str = "$") -> Iterator[Fault]:
    """Every place in a parsed value that cannot be kept or sent on as it is."""
    todo: list[tuple[object, str, int]] = [(value, root, 0)]
    seen = 0
    while todo:
        here, path, depth = todo.pop()
        seen += 1
        if seen > MAX_VALUES:
            yield Fault("$", f"the body holds more than {MAX_VALUES} values")
            return
        if depth > MAX_DEPTH:
            yield Fault(_shorten(path), f"nested deeper than {MAX_DEPTH}")
            continue
        match here:
            case str() if _UNSTORABLE.search(here):
                yield Fault(path, "holds a NUL character or half a surrogate pair")
            case _NotFinite():
                yield Fault(path, "is no finite number")
            case float() if not math.isfinite(here):
                yield Fault(path, "is no finite number")
            case list():
                todo.extend(
                    (inner, f"{path}[{index}]", depth + 1) for index, inner in enumerate(here)
                )
            case dict():
                yield from _find_bad_keys(here, path)
                todo.extend((inner, under(path, key), depth + 1) for key, inner in here.items())
            case _:
                pass


def _find_bad_keys(value: Mapping[str, object], path: str) -> Iterator[Fault]:
    for key in value:
        if _UNSTORABLE.search(key):
            yield Fault(under(path, key), "the key holds a NUL character or half a surrogate pair")
    if isinstance(value, _Doubled):
        yield from (Fault(under(path, key), "is given twice") for key in value.doubled)


def under(path: str, key: str) -> str:
    """The path of a member: ``$.meta``, or ``$["odd name"]``, shortened and escaped."""
    return f"{path}.{key}" if _PLAIN_NAME.fullmatch(key) else f"{path}[{_quote(key)}]"


def _quote(key: str) -> str:
    return json.dumps(key if len(key) <= 64 else key[:64] + "…")


def _shorten(path: str) -> str:
    return path if len(path) <= 200 else path[:200] + "…"


# --- plain values to bodies -----------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class _Slot:
    """How one field of a body is read."""

    kind: Any
    structure: Callable[[object, Any], object]
    limits: Sequence[Limit]
    narrower: Limit | None
    is_required: bool

    def read(self, value: object) -> object:
        """The value, structured and within its limits. Raises Unfit."""
        made = self.structure(value, self.kind)
        faults = [fault for limit in self.limits for fault in limit.faults(made, "")]
        if not faults and self.narrower is not None:
            faults = list(self.narrower.faults(made, ""))
        if faults:
            raise Unfit(faults)
        return made


class Reader:
    """Structures bodies of one service: cattrs with strict hooks, and the service's own limits."""

    def __init__(self, narrowing: Narrowing | None = None) -> None:
        self._narrowing: Narrowing = narrowing or {}
        self._slots: dict[type, Mapping[str, _Slot]] = {}
        self._converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=True)
        for kind, word in ((str, "a text"), (bool, "true or false")):
            self._converter.register_structure_hook(kind, _exactly(kind, word))
        self._converter.register_structure_hook(int, _structure_int)
        self._converter.register_structure_hook_func(_is_list, self._structure_list)
        self._converter.register_structure_hook_func(_is_object, _structure_object)
        self._converter.register_structure_hook_func(_is_literal, _structure_literal)
        self._converter.register_structure_hook_func(attrs.has, self._structure_body)

    def read_body(self, kind: type[Body], raw: bytes) -> Body:
        """The body in ``raw``. Raises InvalidRequest with every fault."""
        value = parse_json(raw)
        return self._read(kind, value, "$", list(islice(find_unstorable(value), MAX_FAULTS)))

    def read_query(self, kind: type[Body], pairs: Sequence[tuple[str, str]]) -> Body:
        """The query's parameters. Raises InvalidRequest with every fault."""
        return self._read_texts(kind, pairs, "query")

    def read_form(self, kind: type[Body], pairs: Sequence[tuple[str, str]]) -> Body:
        """The parts of a form, all of them texts. Raises InvalidRequest with every fault."""
        return self._read_texts(kind, pairs, "$")

    def _read_texts(self, kind: type[Body], pairs: Sequence[tuple[str, str]], root: str) -> Body:
        counts = Counter(name for name, _ in pairs)
        twice = [name for name, count in counts.items() if count > 1]
        if twice:
            raise InvalidRequest(
                [Fault(under(root, name), "is given twice") for name in twice[:MAX_FAULTS]]
            )
        fields = _fields(kind)  # type: ignore[arg-type]  # a class is hashable
        given = {
            name: _parse_text(text, fields[name].type) if name in fields else text
            for name, text in pairs
        }
        return self._read(kind, given, root, list(find_unstorable(given, root)))

    def _read(self, kind: type[Body], value: object, root: str, faults: list[Fault]) -> Body:
        """The body, unless it does not fit or there were faults before."""
        made = None
        try:
            made = self._converter.structure(value, kind)
        except Unfit as unfit:
            told = {fault.path for fault in faults}
            found = [Fault(root + fault.path, fault.message) for fault in unfit.faults]
            faults = faults + [fault for fault in found if fault.path not in told]
        if faults or made is None:
            raise InvalidRequest(faults[:MAX_FAULTS])
        return made

    def _structure_body(self, value: object, kind: type[Body]) -> Body:
        if not isinstance(value, dict):
            raise Unfit([Fault("", "must be an object")])
        slots = self._slots_of(kind)
        faults = [Fault(under("", key), "unknown field") for key in value if key not in slots]
        ready = {}
        for name, slot in slots.items():
            given = value.get(name)
            if given is None and not slot.is_required:
                continue
            if name not in value:
                faults.append(Fault(under("", name), "is required"))
                continue
            try:
                ready[name] = slot.read(given)
            except Unfit as unfit:
                faults.extend(
                    Fault(under("", name) + fault.path, fault.message) for fault in unfit.faults
                )
        if faults:
            raise Unfit(faults)
        return kind(**ready)

    def _slots_of(self, kind: type[Body]) -> Mapping[str, _Slot]:
        slots = self._slots.get(kind)
        if slots is None:
            fields = _fields(kind)  # type: ignore[arg-type]  # a class is hashable
            slots = {name: self._slot(kind, field) for name, field in fields.items()}
            self._slots[kind] = slots
        return slots

    def _slot(self, kind: type[Any], field: attrs.Attribute[Any]) -> _Slot:
        assert field.type is not None
        own = field.validator.limits if isinstance(field.validator, Limits) else ()
        return _Slot(
            kind=field.type,
            structure=self._converter.get_structure_hook(field.type),
            limits=own,
            narrower=self._narrowing.get((kind, field.name)),
            is_required=field.default is attrs.NOTHING,
        )

    def _structure_list(self, value: object, kind: object) -> tuple[Any, ...]:
        if type(value) is not list:
            raise Unfit([Fault("", "must be a list")])
        inner, *_ = get_args(kind)
        made: list[Any] = []
        faults: list[Fault] = []
        for index, element in enumerate(value):
            try:
                made.append(self._converter.structure(element, inner))
            except Unfit as unfit:
                faults.extend(
                    Fault(f"[{index}]{fault.path}", fault.message) for fault in unfit.faults
                )
        if faults:
            raise Unfit(faults)
        return tuple(made)


@cache
def _fields(kind: type[Any]) -> dict[str, attrs.Attribute[Any]]:
    """The fields of a body class, their annotations resolved."""
    return attrs.fields_dict(attrs.resolve_types(kind))


def _exactly(kind: type[Body], word: str) -> Callable[[object, object], Body]:
    def structure(value: object, _: object) -> Body:
        if type(value) is not kind:
            raise Unfit([Fault("", f"must be {word}")])
        return value

    return structure


def _structure_int(value: object, _: object) -> int:
    """``190.0`` is an integer in JSON Schema; ``true`` is not."""
    if type(value) is int or (type(value) is float and value.is_integer()):
        return int(value)
    raise Unfit([Fault("", "must be an integer")])


def _structure_object(value: object, _: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Unfit([Fault("", "must be an object")])
    return value


def _structure_literal(value: object, kind: object) -> object:
    if type(value) is not str or value not in get_args(kind):
        raise Unfit([Fault("", f"must be one of: {', '.join(get_args(kind))}")])
    return value


def _is_list(kind: object) -> bool:
    return get_origin(kind) is tuple


def _is_object(kind: object) -> bool:
    return get_origin(kind) is Mapping


def _is_literal(kind: object) -> bool:
    return get_origin(kind) is Literal


def _parse_text(text: str, kind: object) -> object:
    """A query's text as the JSON value it stands for; as it is when it stands for none."""
    if kind is bool and text.lower() in _TRUE | _FALSE:
        return text.lower() in _TRUE
    if kind in {int, int | None} and re.fullmatch(r"-?[0-9]{1,18}", text, re.ASCII):
        return int(text)
    return text
