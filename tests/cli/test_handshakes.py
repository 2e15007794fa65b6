"""Doctor's handshakes: on the fake launcher in memory, and once for real."""

from __future__ import annotations

from pathlib import Path

import pytest

from clawdforge.cli.handshakes import check_agents, shake_hands
from clawdforge.config import DEMO, Config, built_in_agents
from clawdforge.domain.ids import AgentName
from clawdforge.domain.profiles import AgentProfile
from clawdforge.errors import AgentNotStarted
from clawdforge.processes.runtime import ensure_runtime
from clawdforge.testing.fake_launcher import FakeLauncher

PROFILE = AgentProfile(DEMO)


async def test_a_handshake_tells_what_the_agent_offers() -> None:
    """The agent's own words come back, and the agent is gone."""
    launcher = FakeLauncher(can_resume=False)
    info = await shake_hands(launcher, PROFILE, 10)
    assert (info.name, info.can_resume, launcher.live) == ("fake", False, 0)


async def test_an_agent_that_does_not_start_says_why() -> None:
    """A failing start comes out as it is, in no group."""
    launcher = FakeLauncher()
    launcher.starting = "fails"
    with pytest.raises(AgentNotStarted, match="told to fail"):
        await shake_hands(launcher, PROFILE, 10)


@pytest.mark.virtual_time
async def test_an_agent_that_hangs_is_given_up() -> None:
    """No handshake within the limit is a failure, and nothing stays."""
    launcher = FakeLauncher()
    launcher.starting = "hangs"
    with pytest.raises(AgentNotStarted, match="no handshake within 10 s"):
        await shake_hands(launcher, PROFILE, 10)
    assert launcher.live == 0


def test_without_acpx_the_remedy_is_named(tmp_path: Path) -> None:
    """Every agent that cannot start has its remedy beside it; Claude is optional."""
    claude, demo = check_agents(Config(runtime_dir=tmp_path, data_dir=tmp_path))
    assert (claude.state, claude.remedy) == ("missing", "run: clawdforge setup --with claude")
    assert (demo.state, demo.remedy) == ("failed", "run: clawdforge setup")


@pytest.mark.system
def test_real_agents_shake_hands(tmp_path: Path) -> None:
    """The demo agent answers for real; one whose command is missing does not."""
    broken = AgentProfile(AgentName("broken"), argv=("/nowhere/agent",))
    config = Config(data_dir=tmp_path, agents={DEMO: built_in_agents()[DEMO], broken.name: broken})
    ensure_runtime(config.runtime_dir, "acpx", print)
    demo, missing = check_agents(config)
    assert (demo.state, demo.detail) == ("ok", "clawdforge-demo 1, resumes conversations")
    assert missing.state == "failed"
