"""The documents keep up with the program: settings, commands, profile keys, links, CI's command."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import attrs
import pytest

from clawdforge.cli.root import clawdforge
from clawdforge.config import Config
from clawdforge.settings import AGENT_READERS, variable_of

ROOT: Final = Path(__file__).parents[1]
OPERATIONS: Final = (ROOT / "docs" / "operations.md").read_text()
PAGES: Final = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def test_every_setting_is_documented() -> None:
    """The operators' page names each setting."""
    fields = {field.name for field in attrs.fields(Config)} - {"agents"}
    assert [field for field in sorted(fields) if f"`{variable_of(field)}`" not in OPERATIONS] == []


def test_no_setting_is_invented() -> None:
    """The operators' page names no setting that does not exist."""
    known = {variable_of(field.name) for field in attrs.fields(Config)} | {"CLAWDFORGE_CONFIG"}
    assert set(re.findall(r"`(CLAWDFORGE_\w+)`", OPERATIONS)) - known == set()


def test_every_command_is_documented() -> None:
    """The operators' page names each command."""
    assert [name for name in clawdforge.commands if f"`clawdforge {name}" not in OPERATIONS] == []


def test_every_profile_key_is_documented() -> None:
    """The operators' page has a row for each key that is supported."""
    supported = set(AGENT_READERS)
    assert [key for key in sorted(supported) if f"\n| `{key}` |" not in OPERATIONS] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link in a page names a file or folder that is there."""
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_ci_runs_the_test_command_of_the_readme() -> None:
    """The command under "## Tests" is one line that ends in tox; CI reads it from there."""
    readme = (ROOT / "README.md").read_text()
    found = re.search(r"## Tests\n\n```sh\n(.+)\n```\n", readme)
    assert found is not None
    assert found[1].endswith("tox")
    assert "README.md" in (ROOT / ".ci" / "run").read_text()
