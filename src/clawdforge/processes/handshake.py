"""The beginning of a direct conversation: initialize, open or take up a session, choose its model.

The rule: *a conversation is never silently begun anew.* A session that is taken up is loaded or
resumed, or the start fails. How a request travels is the caller's (``Ask``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import attrs

from clawdforge import __version__
from clawdforge.domain.ports import AgentInfo
from clawdforge.errors import AgentNotResumable, AgentNotStarted
from clawdforge.processes.lodging import Lodged
from clawdforge.processes.plain import plain_reason
from clawdforge.protocol.acp_client import (
    AUTH_REQUIRED,
    PROTOCOL_VERSION,
    Offer,
    initialize_params,
    read_models,
    read_offer,
    session_params,
    take_up_method,
)
from clawdforge.protocol.menus import read_menus

Json = Mapping[str, Any]

Ask = Callable[[str, Json], Awaitable[Json]]
"""Sends a request and answers its result. Raises Refused, or AgentNotStarted at the end of all."""

CLAUDE_ADAPTER: Final = "claude-agent-acp"
"""Part of the path of Claude's adapter. It takes model names that it does not list (aliases), and
options of Claude Code in ``_meta``."""

CLAUDE_SETTINGS: Final = ("project", "local")
"""Settings files that Claude Code reads: not the user's, which are the machine's. As in acpx."""


class Refused(Exception):
    """The agent answered a request with an error. Never leaves ``processes``."""

    def __init__(self, code: int | None, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@attrs.frozen
class Session:
    """An opened session: the agent's own id for it, and what the agent said of itself."""

    session_id: str
    info: AgentInfo
    takes_images: bool


async def shake_hands(ask: Ask, lodged: Lodged) -> Session:
    """Open the session that ``lodged`` is for. Raises AgentNotStarted or AgentNotResumable.

    Unbounded by itself, like every request of it: the caller of ``run_agent`` has a deadline.
    """
    name = lodged.spec.profile.name
    try:
        offer = read_offer(await ask("initialize", initialize_params(__version__)))
        if offer.protocol_version != PROTOCOL_VERSION:
            reason = f"it does not speak version {PROTOCOL_VERSION} of the protocol"
            raise AgentNotStarted(name, reason)
        session_id, opened = await _open(ask, lodged, offer)
        await _choose_model(ask, lodged, session_id, opened)
    except Refused as refusal:
        if refusal.code == AUTH_REQUIRED:
            raise AgentNotStarted(name, "it asks for a login") from None
        raise AgentNotStarted(name, plain_reason(refusal.reason, hidden=lodged.hidden)) from None
    can_resume = take_up_method(offer) is not None
    info = AgentInfo(can_resume, offer.name, offer.version, read_menus(opened))
    return Session(session_id, info, offer.takes_images)


async def _open(ask: Ask, lodged: Lodged, offer: Offer) -> tuple[str, Json]:
    """The session's id, and what the agent answered to its opening."""
    name, cwd, ticket = lodged.spec.profile.name, str(lodged.folders.work), lodged.ticket
    meta = _claude_options(lodged)
    if ticket is None:
        opened = await ask("session/new", session_params(cwd, meta=meta))
        session_id = opened.get("sessionId")
        if not isinstance(session_id, str):
            raise AgentNotStarted(name, "it gave its session no id")
        return session_id, opened
    method = take_up_method(offer)
    if method is None:
        raise AgentNotResumable(name)
    try:
        return ticket, await ask(method, session_params(cwd, session_id=ticket, meta=meta))
    except Refused as refusal:
        if refusal.code == AUTH_REQUIRED:
            raise
        raise AgentNotResumable(name) from None


async def _choose_model(ask: Ask, lodged: Lodged, session_id: str, opened: Json) -> None:
    """Choose the session's model. Raises AgentNotStarted when it is not offered.

    An agent that names no models when it takes a conversation up keeps the one it had.
    """
    name, model, menu = lodged.spec.profile.name, lodged.model, read_models(opened)
    if model is None or (menu is None and (lodged.ticket is not None or _is_claude(lodged))):
        return
    if menu is None or (model not in menu.models and not _is_claude(lodged)):
        raise AgentNotStarted(name, "it does not offer the model", is_callers_choice=True)
    if model == menu.current:
        return
    try:
        await ask(menu.method, menu.choice(session_id, model))
    except Refused as refusal:
        reason = plain_reason(refusal.reason, hidden=lodged.hidden)
        raise AgentNotStarted(name, reason, is_callers_choice=True) from None


def _is_claude(lodged: Lodged) -> bool:
    return any(CLAUDE_ADAPTER in word for word in lodged.argv)


def _claude_options(lodged: Lodged) -> Json | None:
    """What acpx says to Claude's adapter besides the protocol."""
    if not _is_claude(lodged):
        return None
    options: dict[str, Any] = {"settingSources": CLAUDE_SETTINGS}
    if lodged.model is not None:
        options["model"] = lodged.model
    return {"claudeCode": {"options": options}}
