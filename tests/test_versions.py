"""What is installed is looked for once, and again only now and then while something is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from clawdforge import app
from clawdforge.app import LOOK_AGAIN_SECS, VersionProbe
from clawdforge.processes.runtime import Part, Runtime


class Shelf:
    """A runtime directory on which parts turn up; it counts how often it is looked at."""

    def __init__(self) -> None:
        self.parts: dict[Part, Runtime] = {}
        self.looks = 0

    def find(self, _directory: Path, part: Part) -> Runtime | None:
        self.looks += 1
        return self.parts.get(part)

    def put(self, part: Part, package: str) -> None:
        self.parts[part] = Runtime(part, Path(), {package: "1.2.3"})


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Shelf:
    """In the place of the disk."""
    shelf = Shelf()
    monkeypatch.setattr(app, "find_runtime", shelf.find)
    return shelf


def test_what_is_missing_is_not_looked_for_with_every_request(shelf: Shelf) -> None:
    """A hundred requests in a row look at the disk once, also when a part is not installed."""
    probe = VersionProbe(Path(), clock=lambda: 100.0)
    for _ in range(100):
        assert not probe().claude_present
    assert shelf.looks == 2


def test_an_installation_shows_without_a_restart(shelf: Shelf) -> None:
    """What ``clawdforge setup`` installs meanwhile is found LOOK_AGAIN_SECS later at the latest."""
    now = [100.0]
    probe = VersionProbe(Path(), clock=lambda: now[0])
    assert not probe().acpx_present
    shelf.put("acpx", "acpx")
    now[0] += LOOK_AGAIN_SECS
    assert probe().acpx_version == "1.2.3"


def test_what_was_found_is_never_looked_for_again(shelf: Shelf) -> None:
    """With both parts there, the disk is left alone for ever."""
    shelf.put("acpx", "acpx")
    shelf.put("claude", "@anthropic-ai/claude-code")
    now = [100.0]
    probe = VersionProbe(Path(), clock=lambda: now[0])
    for _ in range(10):
        assert probe().claude_version == "1.2.3"
        now[0] += 10 * LOOK_AGAIN_SECS
    assert shelf.looks == 2
