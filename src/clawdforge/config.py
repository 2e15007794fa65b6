"""The frozen configuration: every setting, its default and its meaning. Values only.

:mod:`clawdforge.settings` is the only place that reads the environment and the TOML file.
Names are those of the settings page without the ``CLAWDFORGE_`` prefix, in lower case.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

import attrs
import platformdirs

from clawdforge.domain.ids import AgentName
from clawdforge.domain.profiles import AgentProfile, RunCommand

MIB: Final = 1024 * 1024

EventsForm = Literal["acp", "normalized", "none"]

DEMO: Final = AgentName("demo")
CLAUDE: Final = AgentName("claude")


def built_in_agents() -> dict[AgentName, AgentProfile]:
    """The profiles that exist without a file."""
    return {
        CLAUDE: AgentProfile(
            CLAUDE,
            env=(
                "ANTHROPIC_API_KEY",
                "ANTHROPIC_BASE_URL",
                "CLAUDE_CODE_OAUTH_TOKEN",
                "IS_SANDBOX",
            ),
            run=RunCommand(),
        ),
        DEMO: AgentProfile(DEMO, run=RunCommand()),
    }


@attrs.frozen(kw_only=True)
class Config:
    """All settings of one service. Built by ``settings.load_config``; tests build it directly."""

    bind: str = "127.0.0.1:8800"
    data_dir: Path = attrs.field(factory=lambda: platformdirs.user_data_path("clawdforge"))
    runtime_dir: Path = attrs.field(factory=lambda: platformdirs.user_cache_path("clawdforge"))
    admin_token: str | None = attrs.field(default=None, repr=False)
    allow_cidrs: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    max_live_sessions: int = 16
    max_runs: int = 4
    turn_queue: int = 8
    session_ttl_secs: int = 3600
    session_hard_ttl_secs: int = 86400
    sweep_secs: int = 60
    run_agent: AgentName = CLAUDE
    run_timeout_secs: int = 120
    turn_timeout_secs: int = 600
    max_timeout_secs: int = 3600
    cancel_grace_secs: float = 5.0
    start_secs: float = 60.0
    drain_secs: float = 30.0
    max_body_bytes: int = 16 * MIB
    max_upload_bytes: int = 100 * MIB
    events: EventsForm = "acp"
    permission_secs: float = 120.0
    first_output_secs: float | None = None
    silence_secs: float | None = None
    max_turn_bytes: int = 32 * MIB
    event_log_bytes: int = 64 * MIB
    start_concurrency: int = attrs.field(factory=lambda: 2 * (os.cpu_count() or 1))
    circuit_failures: int = 5
    circuit_secs: float = 60.0
    audit_prompts: bool = False
    audit_days: int = 90
    log: Literal["auto", "json", "text"] = "auto"
    agents: Mapping[AgentName, AgentProfile] = attrs.field(factory=built_in_agents)

    @property
    def database_path(self) -> Path:
        """The one SQLite file."""
        return self.data_dir / "clawdforge.db"
