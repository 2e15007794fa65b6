"""What a request may say: one attrs class per body or query, with the limits on its fields.

The same classes are the source of the API description. Limits that depend on the settings are in
:func:`narrow`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from clawdforge.config import Config, EventsForm
from clawdforge.domain.files import DEFAULT_TTL_SECS, MAX_TTL_SECS, MIN_TTL_SECS
from clawdforge.domain.ids import AGENT_NAME, APP_NAME, MODEL
from clawdforge.domain.keys import KEY_NAME
from clawdforge.domain.profiles import Permissions
from clawdforge.domain.runs import Effort, SystemMode
from clawdforge.domain.turns import OnDisconnect
from clawdforge.web.limits import (
    Limit,
    at_least,
    at_most,
    at_most_items,
    each,
    is_binary,
    is_network,
    limited,
    matches,
    names_file,
    not_empty,
    one_of,
)


@attrs.frozen
class Nothing:
    """No parameters at all."""


@attrs.frozen(kw_only=True)
class CreateSession:
    """``POST /sessions``."""

    agent: str = limited(matches(AGENT_NAME), default="claude")
    model: str | None = limited(matches(MODEL), default=None)
    meta: Mapping[str, Any] = attrs.field(factory=dict)
    permissions: Permissions | None = None


@attrs.frozen(kw_only=True)
class RunTurn:
    """``POST /sessions/{id}/turn``; ``timeout_secs`` None is the service's default."""

    prompt: str = limited(not_empty())
    files: tuple[str, ...] = limited(at_most_items(100), each(names_file()), default=())
    timeout_secs: int | None = limited(at_least(5), default=None)
    events: EventsForm | None = None
    on_disconnect: OnDisconnect = "cancel"
    first_output_secs: int | None = limited(at_least(1), default=None)
    silence_secs: int | None = limited(at_least(1), default=None)


@attrs.frozen(kw_only=True)
class CancelTurn:
    """``POST /sessions/{id}/cancel``; with neither it is the turn at work."""

    turn_index: int | None = limited(at_least(1), default=None)
    idempotency_key: str | None = limited(matches(KEY_NAME), default=None)


@attrs.frozen(kw_only=True)
class DecidePermission:
    """``POST /sessions/{id}/permissions/{request_id}``."""

    option_id: str = limited(not_empty())


@attrs.frozen(kw_only=True)
class UploadFile:
    """The form of ``POST /files``. The bytes of ``file`` go elsewhere as they arrive."""

    file: str = limited(is_binary())
    ttl_secs: int = limited(at_least(MIN_TTL_SECS), at_most(MAX_TTL_SECS), default=DEFAULT_TTL_SECS)


@attrs.frozen(kw_only=True)
class RunOnce:
    """``POST /run``; ``model`` and ``timeout_secs`` None are the service's defaults."""

    prompt: str = limited(not_empty())
    model: str | None = limited(matches(MODEL), default=None)
    system: str | None = None
    system_mode: SystemMode = "append"
    effort: Effort | None = None
    files: tuple[str, ...] = limited(at_most_items(100), each(names_file()), default=())
    timeout_secs: int | None = limited(at_least(5), default=None)


@attrs.frozen(kw_only=True)
class ListSessions:
    """The query of ``GET /sessions``."""

    include_closed: bool = True


@attrs.frozen(kw_only=True)
class ListTurns:
    """The query of ``GET /sessions/{id}/turns``: turns with an index below ``before``."""

    limit: int = limited(at_least(1), at_most(100), default=20)
    before: int | None = limited(at_least(1), at_most(10**9), default=None)


@attrs.frozen(kw_only=True)
class ReadEvents:
    """The query of ``GET /sessions/{id}/events``: the number of the last event that one has."""

    after: int = limited(at_least(0), at_most(10**18), default=0)


@attrs.frozen(kw_only=True)
class MintToken:
    """``POST /admin/tokens``; no networks means that the token is not narrowed."""

    name: str = limited(matches(APP_NAME))
    ip_cidrs: tuple[str, ...] = limited(at_most_items(100), each(is_network()), default=())


def narrow(config: Config) -> dict[tuple[type, str], Limit]:
    """The limits that the settings add."""
    return {
        (CreateSession, "agent"): one_of("agent", tuple(sorted(config.agents))),
        (RunTurn, "timeout_secs"): at_most(config.max_timeout_secs),
        (RunTurn, "first_output_secs"): at_most(config.max_timeout_secs),
        (RunTurn, "silence_secs"): at_most(config.max_timeout_secs),
        (RunOnce, "timeout_secs"): at_most(config.max_timeout_secs),
    }
