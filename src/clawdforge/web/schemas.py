"""JSON Schema (2020-12, as OpenAPI 3.1 has it) from the attrs classes of bodies and answers.

The rule: one source. Types, defaults and limits are read from the very classes that structure the
requests and make up the answers; nothing is said twice. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin

import attrs

from clawdforge.web.answers import OMITTED
from clawdforge.web.limits import Limit, Limits
from clawdforge.web.wire import Narrowing

Schema = dict[str, Any]

PLAIN: Final[Mapping[object, Schema]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    NoneType: {"type": "null"},
    Any: {},
}

COMPONENTS: Final = "#/components/schemas/"


class Schemas:
    """Schemas of one API description. Classes become components, which ``components`` gathers."""

    def __init__(self, narrowing: Narrowing | None = None) -> None:
        self.components: dict[str, Schema] = {}
        self._narrowing: Narrowing = narrowing or {}

    def of(self, kind: Any) -> Schema:  # noqa: ANN401 - any annotation
        """The schema of a type that a body or an answer may use. Raises TypeError for others."""
        if kind in PLAIN:
            return dict(PLAIN[kind])
        if attrs.has(kind):
            return self._component(kind)
        origin, arguments = get_origin(kind), get_args(kind)
        if origin is Literal:
            return {"type": "string", "enum": list(arguments)}
        if origin in {Union, UnionType}:
            (inner,) = [argument for argument in arguments if argument is not NoneType]
            return or_null(self.of(inner))
        if origin in {tuple, Sequence}:
            return {"type": "array", "items": self.of(arguments[0])}
        if origin is Mapping:
            return {"type": "object"}
        raise TypeError(f"no schema for {kind}")

    def fields(self, kind: type[Any]) -> dict[str, Schema]:
        """The schemas of a request class's fields; ``null`` stands for one that is left out."""
        made = {}
        for name, field in attrs.fields_dict(attrs.resolve_types(kind)).items():
            schema = self._limited(kind, field)
            if field.default is not attrs.NOTHING and _is_plain(field.default):
                schema["default"] = field.default
            made[name] = schema
        return made

    def body(self, kind: type[Any]) -> Schema:
        """The schema of a request's body."""
        properties = {
            name: schema if name in required(kind) else or_null(schema)
            for name, schema in self.fields(kind).items()
        }
        return _object(kind, properties, required(kind))

    def _component(self, kind: type[Any]) -> Schema:
        """An answer's class, or one inside it: every field is there that is not ``OMITTED``."""
        name = kind.__name__
        if name not in self.components:
            self.components[name] = {}  # in case it holds itself
            fields = attrs.fields_dict(attrs.resolve_types(kind))
            properties = {key: self.of(field.type) for key, field in fields.items()}
            always = [key for key, field in fields.items() if field.default is not OMITTED]
            self.components[name] = _object(kind, properties, always)
        return {"$ref": COMPONENTS + name}

    def _limited(self, kind: type[Any], field: attrs.Attribute[Any]) -> Schema:
        schema = self.of(field.type)
        limits = list(field.validator.limits) if isinstance(field.validator, Limits) else []
        if (narrower := self._narrowing.get((kind, field.name))) is not None:
            limits.append(narrower)
        for limit in limits:
            _narrow(schema, limit)
        return schema


def required(kind: type[Any]) -> list[str]:
    """The names of a request class's fields that must be given."""
    return [field.name for field in attrs.fields(kind) if field.default is attrs.NOTHING]


def or_null(schema: Schema) -> Schema:
    """The schema, and null."""
    if not isinstance(schema.get("type"), str):
        return schema if "null" in schema.get("type", ()) else {"anyOf": [schema, {"type": "null"}]}
    wider = {**schema, "type": [schema["type"], "null"]}
    if "enum" in wider:
        wider["enum"] = [*wider["enum"], None]
    return wider


def _narrow(schema: Schema, limit: Limit) -> None:
    """Add a limit's keywords; those for each element go to the elements."""
    if limit.is_for_each:
        schema["items"] = {**schema["items"], **limit.schema["items"]}
    else:
        schema.update(limit.schema)


def _object(kind: type[Any], properties: dict[str, Schema], always: Sequence[str]) -> Schema:
    schema: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    if always:
        schema["required"] = list(always)
    return {"description": plain_words(kind.__doc__), **schema}


def plain_words(docstring: str | None) -> str:
    """The first paragraph of a docstring on one line, as CommonMark."""
    return " ".join((docstring or "").partition("\n\n")[0].split()).replace("``", "`")


def _is_plain(value: object) -> bool:
    return isinstance(value, str | int | float | bool)
