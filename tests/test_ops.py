"""The files for operators agree with the program: unit, container, example, runbook."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Final

from clawdforge.cli.root import clawdforge
from clawdforge.config import CLAUDE, Config
from clawdforge.domain.ids import AgentName
from clawdforge.server import WATCHDOG_MARGIN_SECS
from clawdforge.settings import load_config

ROOT: Final = Path(__file__).parents[1]
UNIT: Final = (ROOT / "ops" / "clawdforge.service").read_text()
CONTAINER: Final = (ROOT / "ops" / "Containerfile").read_text()
RUNBOOK: Final = (ROOT / "docs" / "runbook.md").read_text()


def unit(key: str) -> str:
    """The value of a key of the unit."""
    found = re.search(rf"(?m)^{key}=(.*)$", UNIT)
    assert found is not None, key
    return found[1]


def test_the_example_is_read_as_it_stands() -> None:
    """The example configuration loads, and means what it says."""
    config = load_config({"CLAWDFORGE_CONFIG": str(ROOT / "ops" / "clawdforge.toml")})
    assert config.max_live_sessions == 12
    assert config.agents[CLAUDE].env == ("ANTHROPIC_API_KEY",)
    assert AgentName("mine") in config.agents


def test_systemd_waits_for_a_drain_and_then_kills_the_whole_group() -> None:
    """Longer than drain, grace and watchdog together; an agent's death by memory is not ours."""
    config = Config()
    needed = config.drain_secs + config.cancel_grace_secs + WATCHDOG_MARGIN_SECS
    assert int(unit("TimeoutStopSec")) > needed
    assert unit("KillMode") == "mixed"
    assert unit("OOMPolicy") == "continue"
    assert unit("RestartPreventExitStatus") == "2"
    assert unit("NoNewPrivileges") == "yes"


def test_the_container_is_an_ordinary_user_with_pinned_versions() -> None:
    """Never root; every image has a version, and every dependency of ours is pinned."""
    assert re.search(r"(?m)^USER (?!0|root)", CONTAINER)
    images = re.findall(r"(?m)^FROM (\S+)", CONTAINER)
    assert images
    assert all(re.search(r":\d+\.\d+\.\d+", image) for image in images)
    pinned = set(re.findall(r"(?m)^([a-z0-9-]+)==", (ROOT / "ops" / "constraints.txt").read_text()))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {re.split(r"[><=]", line)[0] for line in project["dependencies"]}
    assert wanted <= pinned


def test_the_runbook_names_no_command_that_is_not_there() -> None:
    """Every `clawdforge …` in it is a command of ours, every setting exists."""
    commands = set(re.findall(r"`(?:sudo -u clawdforge )?clawdforge (\w+)", RUNBOOK))
    assert commands <= set(clawdforge.commands)
    assert {"doctor", "setup", "token"} <= commands
