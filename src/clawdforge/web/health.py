"""The routes without a token: is it alive, is it ready, what does it host.

Alive and ready are different answers: a service that can do nothing for its callers just now is
alive, and must not be restarted for it.
"""

from __future__ import annotations

from typing import Final

from clawdforge.errors import NotReady, StoreUnavailable
from clawdforge.web.answers import Done, Health
from clawdforge.web.bodies import Nothing
from clawdforge.web.operations import Call, Operation


async def show_health(call: Call[Nothing]) -> Health:
    """What the service hosts; versions were probed once."""
    found = call.service.versions()
    return Health(
        claude_present=found.claude_present,
        claude_version=found.claude_version,
        acpx_present=found.acpx_present,
        acpx_version=found.acpx_version,
        open_sessions=call.service.open_sessions,
    )


async def show_life(_: Call[Nothing]) -> Done:
    """The process answers: nothing else is looked at."""
    return Done()


async def show_readiness(call: Call[Nothing]) -> Done:
    """Whether a session could be opened now. Raises NotReady with all that is missing."""
    missing = []
    if call.service.is_draining:
        missing.append("the server is draining")
    if not call.service.versions().acpx_present:
        missing.append("acpx is not installed; run `clawdforge setup`")
    try:
        await call.service.store.check()
    except StoreUnavailable:
        missing.append("the ledger is not available")
    resting = frozenset(call.service.resting_agents)
    if resting and resting >= call.service.config.agents.keys():
        missing.append("no agent starts; each is left alone for a while")
    if missing:
        raise NotReady(missing)
    return Done()


OPERATIONS: Final = (
    Operation(
        method="GET",
        path="/healthz",
        gate="open",
        handle=show_health,
        summary="What the service hosts, and how much of it is in use",
        answer=Health(
            claude_present=False,
            claude_version=None,
            acpx_present=True,
            acpx_version="0.19.1",
            open_sessions=3,
        ),
    ),
    Operation(
        method="GET",
        path="/livez",
        gate="open",
        handle=show_life,
        summary="Whether the process answers",
    ),
    Operation(
        method="GET",
        path="/readyz",
        gate="open",
        handle=show_readiness,
        summary="Whether a session could be opened now",
        refusals=[NotReady(["acpx is not installed; run `clawdforge setup`"])],
    ),
)
