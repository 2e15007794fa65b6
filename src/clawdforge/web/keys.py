"""The Idempotency-Key header: read strictly, and bound to the fields of its request.

Fields that have their default count as left out, so that a later version with more of them knows
the requests of an earlier one.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

import attrs

from clawdforge.domain.keys import KEY_NAME, IdempotencyKey
from clawdforge.errors import Fault, InvalidRequest
from clawdforge.web.operations import Call

HEADER: Final = "idempotency-key"


def read_key(call: Call[Any]) -> IdempotencyKey | None:
    """The request's key, if it has one. Raises InvalidRequest for one that cannot be."""
    given = [value.strip(" \t") for name, value in call.trace.headers if name == HEADER]
    if not given:
        return None
    if len(given) > 1:
        raise InvalidRequest([Fault("header.Idempotency-Key", "is given twice")])
    if KEY_NAME.fullmatch(given[0]) is None:
        message = "must be 1 to 255 printable ASCII characters"
        raise InvalidRequest([Fault("header.Idempotency-Key", message)])
    return IdempotencyKey(given[0], digest_fields(call.asked))


def digest_fields(asked: Any) -> str:  # noqa: ANN401 - any body class
    """SHA-256 of the fields that were given, whatever their order was."""
    fields = {
        field.name: getattr(asked, field.name)
        for field in attrs.fields(type(asked))
        if getattr(asked, field.name) != _default_of(field)
    }
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _default_of(field: attrs.Attribute[Any]) -> object:
    make = getattr(field.default, "factory", None)
    return field.default if make is None else make()
