"""How the log looks: events with fields, on stderr; text for people, JSON for programs."""

from __future__ import annotations

import json
import logging
import sys
from typing import Final, Literal

import structlog

LEVELS: Final = {"info": logging.INFO, "warning": logging.WARNING}


FIELD_CHARACTERS: Final = 1000
"""The most that is logged of one field: a method or a reason may be as long as its sender likes."""


def bound_fields(
    _logger: object, _name: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Cut long texts, so that a line of the log has a bound whatever a caller or an agent says."""
    for key, value in event.items():
        if isinstance(value, str) and len(value) > FIELD_CHARACTERS:
            event[key] = value[: FIELD_CHARACTERS - 1] + "…"
    return event


_encode: Final = json.JSONEncoder(default=repr).encode
"""One encoder for all lines: ``json.dumps`` with options makes another each time."""


def _write(event: object, **_options: object) -> str:
    return _encode(event)


def configure_logs(
    form: Literal["auto", "json", "text"], *, level: Literal["info", "warning"] = "info"
) -> None:
    """Send all log events to stderr. ``auto`` is text on a terminal and JSON elsewhere."""
    is_text = form == "text" or (form == "auto" and sys.stderr.isatty())
    renderer: structlog.typing.Processor
    if is_text:
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    else:
        renderer = structlog.processors.JSONRenderer(serializer=_write)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            bound_fields,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
