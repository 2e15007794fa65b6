"""Limits on single values of a request: each checks a value and says itself in JSON Schema.

A limit is also part of an attrs validator, so that a body class refuses a bad value however it is
built. Messages never repeat the value: it is the caller's, and may be a secret in the wrong place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from clawdforge.domain.access import parse_network
from clawdforge.errors import Fault


@attrs.frozen
class Limit:
    """A rule for a value that has the right type already.

    ``check`` answers what is wrong, or None; ``schema`` is the same rule in JSON Schema 2020-12
    keywords; with ``is_for_each`` it is a rule for every element of a list.
    """

    check: Callable[[Any], str | None]
    schema: Mapping[str, Any]
    is_for_each: bool = False

    def faults(self, value: Any, path: str) -> Sequence[Fault]:  # noqa: ANN401 - any JSON value
        """Everything that is wrong with the value at ``path``."""
        if self.is_for_each:
            found = ((f"{path}[{index}]", self.check(inner)) for index, inner in enumerate(value))
            return [Fault(place, message) for place, message in found if message is not None]
        message = self.check(value)
        return () if message is None else (Fault(path, message),)


def at_least(bound: int) -> Limit:
    """``value >= bound``."""
    message = f"must be at least {bound}"
    return Limit(lambda value: message if value < bound else None, {"minimum": bound})


def at_most(bound: int) -> Limit:
    """``value <= bound``."""
    message = f"must be at most {bound}"
    return Limit(lambda value: message if value > bound else None, {"maximum": bound})


def not_empty() -> Limit:
    """A text of at least one character."""
    return Limit(lambda value: None if value else "must not be empty", {"minLength": 1})


def at_most_items(bound: int) -> Limit:
    """A list of at most ``bound`` elements."""
    message = f"must not have more than {bound} elements"
    return Limit(lambda value: message if len(value) > bound else None, {"maxItems": bound})


def matches(pattern: re.Pattern[str]) -> Limit:
    """The *whole* text matches (a ``$`` would let a last newline through)."""
    message = f"must match {pattern.pattern}"
    return Limit(
        lambda value: None if pattern.fullmatch(value) else message,
        {"pattern": f"^(?:{pattern.pattern})$"},
    )


def one_of(what: str, known: tuple[str, ...]) -> Limit:
    """One of the known names, which the message lists."""
    message = f"unknown {what}; known are: {', '.join(known)}"
    return Limit(lambda value: None if value in known else message, {"enum": list(known)})


def each(limit: Limit) -> Limit:
    """The limit for every element of a list."""
    return Limit(limit.check, {"items": dict(limit.schema)}, is_for_each=True)


def is_network() -> Limit:
    """An IPv4 or IPv6 network, or an address."""

    def check(value: str) -> str | None:
        try:
            parse_network(value)
        except ValueError:
            return "is no IPv4 or IPv6 network"
        return None

    return Limit(check, {"format": "ip-network"})


def is_binary() -> Limit:
    """Any bytes: the part of a form that is a file."""
    return Limit(lambda _: None, {"format": "binary"})


def names_file() -> Limit:
    """The token of an uploaded file. A rule for the reader only: the ledger knows which are."""
    return Limit(lambda _: None, {"format": "file-token"})


@attrs.frozen
class Limits:
    """Several limits on one field, as an attrs validator. Raises ValueError at the first fault."""

    limits: tuple[Limit, ...]

    def __call__(self, _instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
        """Refuse the value (None stands for a field left out and is let through)."""
        if value is None:
            return
        for limit in self.limits:
            for fault in limit.faults(value, attribute.name):
                raise ValueError(f"{fault.path}: {fault.message}")


def limited(*limits: Limit, default: Any = attrs.NOTHING) -> Any:  # noqa: ANN401 - as attrs.field
    """An attrs field with limits."""
    return attrs.field(default=default, validator=Limits(limits))
