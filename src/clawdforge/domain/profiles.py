"""Agent profiles: what an operator says about one kind of agent. Values only.

A profile never reaches a client: neither ``argv`` nor environment is in any answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import attrs

from clawdforge.domain.ids import AgentName

Permissions = Literal["approve-all", "approve-reads", "deny-all", "ask"]
"""What happens to an agent's permission requests."""

PERMISSIONS: Final[tuple[Permissions, ...]] = ("approve-all", "approve-reads", "deny-all", "ask")

Transport = Literal["acpx", "acp"]
"""How the service speaks to the agent: over the acpx host, the reference, or directly."""

TRANSPORTS: Final[tuple[Transport, ...]] = ("acpx", "acp")


@attrs.frozen
class RunCommand:
    """The one-shot command of a profile: anything with the interface of ``claude -p``.

    ``argv`` None means that the service knows it, as it knows those of ``claude`` and ``demo``.
    ``env`` None means the profile's own; ``model`` is that of a run which names none.
    """

    argv: tuple[str, ...] | None = None
    env: tuple[str, ...] | None = None
    model: str | None = None


@attrs.frozen
class AgentProfile:
    """One kind of agent.

    ``argv`` is the agent's command (any ACP agent on stdio). ``None`` means that the service knows
    it: ``demo`` ships with us, ``claude`` comes from ``clawdforge setup --with claude``.
    ``env`` lists names passed on from the service's environment; nothing else is. ``set_env`` is
    added as it stands. ``permissions`` is the mode of a session that does not ask for one, and
    ``permissions_allowed`` are the modes that a caller may ask for. ``warm`` is how many process
    trees of it are kept started for sessions to come. ``run`` is the command of
    ``POST /run`` when the settings choose this profile for it; None: it has none.
    """

    name: AgentName
    argv: tuple[str, ...] | None = None
    env: tuple[str, ...] = ()
    set_env: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    model: str | None = None
    permissions: Permissions = "approve-reads"
    permissions_allowed: tuple[Permissions, ...] = attrs.field()
    transport: Transport = "acpx"
    warm: int = 0
    run: RunCommand | None = None

    @permissions_allowed.default
    def _every_mode_that_is_no_wider(self) -> tuple[Permissions, ...]:
        """Source: HTTP contract part 2, permission requests."""
        wanted = {self.permissions, "approve-reads", "deny-all", "ask"}
        return tuple(mode for mode in PERMISSIONS if mode in wanted)
