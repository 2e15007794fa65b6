"""Installing the Node parts: lock files, whole or nothing, two at once, words for failures."""

from __future__ import annotations

import fcntl
import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from time import monotonic

import pytest

from clawdforge.errors import RuntimeNotInstalled
from clawdforge.processes import runtime
from clawdforge.processes.runtime import (
    RECIPES,
    Part,
    ensure_runtime,
    find_runtime,
    last_words,
    node_binary,
    node_version,
    wanted,
)

PARTS: tuple[Part, ...] = ("acpx", "claude")

INSTALL = """
import pathlib, sys
with open(sys.argv[1], "a") as log: log.write("x")
for name in sys.argv[2:]:
    folder = pathlib.Path("node_modules", name)
    folder.mkdir(parents=True)
    (folder / "package.json").write_text("{}")
"""
"""Stands for npm: notes that it ran, and makes what npm would make."""

FAIL = """
import sys
print("npm error code ENOTFOUND")
print("npm error network request to https://registry.npmjs.org/acpx failed")
print("npm error A complete log of this run can be found in: /root/.npm/_logs/1.log")
sys.exit(1)
"""


class Npm:
    """Replaces npm by a Python program, and the check by none."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, log: Path) -> None:
        self._monkeypatch = monkeypatch
        self._log = log
        monkeypatch.setattr(runtime, "check_acpx", lambda _: None)
        self.does(INSTALL)

    def does(self, program: str) -> None:
        """What the next installations run."""

        def steps(part: Part, draft: Path) -> list[tuple[list[str], Path]]:
            names = wanted(draft, part).packages
            return [([sys.executable, "-c", program, str(self._log), *names], draft)]

        self._monkeypatch.setattr(runtime, "_steps", steps)

    @property
    def runs(self) -> int:
        """How often it was started."""
        return len(self._log.read_text()) if self._log.exists() else 0


@pytest.fixture
def npm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Npm:
    """An npm that needs no network."""
    return Npm(monkeypatch, tmp_path / "npm.log")


def quietly(_line: str) -> None:
    """Progress that nobody wants."""


def entries(directory: Path) -> list[str]:
    """What is in the runtime directory, lock files aside."""
    return sorted(path.name for path in directory.iterdir() if path.suffix != ".lock")


@pytest.mark.parametrize("part", PARTS)
def test_locks_hold_hashes_and_no_addresses(part: Part) -> None:
    """Every locked package has an integrity hash and no ``resolved``: any mirror may serve it."""
    text = (RECIPES / part / "package-lock.json").read_text()
    lock = json.loads(text)
    assert "resolved" not in text
    packages = {name: entry for name, entry in lock["packages"].items() if name}
    assert packages
    for entry in packages.values():
        assert entry["integrity"].startswith("sha512-")
    assert lock["packages"][""]["dependencies"] == wanted(Path(), part).packages


@pytest.mark.parametrize("part", PARTS)
def test_versions_are_pinned_exactly(part: Part) -> None:
    """What we ask for is one version, not a range."""
    for pin in wanted(Path(), part).packages.values():
        assert re.fullmatch(r"\d+\.\d+\.\d+", pin)


@pytest.mark.parametrize("part", PARTS)
def test_locks_name_nothing_that_they_do_not_lock(part: Part) -> None:
    """An optional part that is named and not locked would make ``npm ci`` refuse."""
    packages = json.loads((RECIPES / part / "package-lock.json").read_text())["packages"]
    locked = {name.rpartition("node_modules/")[2] for name in packages}
    for entry in packages.values():
        assert set(entry.get("optionalDependencies", {})) <= locked
        assert set(entry.get("dependencies", {})) <= locked


def test_nothing_proprietary_travels_with_us() -> None:
    """Of the Claude parts only the manifest and the lock are in the package."""
    assert entries(RECIPES / "claude") == ["package-lock.json", "package.json"]


def test_node_comes_from_the_wheel() -> None:
    """The interpreter of acpx is the pinned one, new enough for it."""
    assert node_binary().is_file()
    assert tuple(map(int, node_version().split(".")[:2])) >= (22, 13)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_is_installed_once(npm: Npm, tmp_path: Path, part: Part) -> None:
    """The second call finds it, runs nothing and says nothing."""
    assert find_runtime(tmp_path / "new", part) is None
    told: list[str] = []
    first = ensure_runtime(tmp_path / "new", part, told.append)
    assert told[0].startswith(f"{part}: installing")
    told.clear()
    assert ensure_runtime(tmp_path / "new", part, told.append) == first
    assert find_runtime(tmp_path / "new", part) == first
    assert told == []
    assert npm.runs == 1
    assert entries(tmp_path / "new") == [first.directory.name]


def test_two_at_once_install_once(npm: Npm, tmp_path: Path) -> None:
    """Of many callers one installs; the others wait and find it."""
    callers = 4
    together = Barrier(callers)

    def install(_: int) -> runtime.Runtime:
        together.wait(20)
        return ensure_runtime(tmp_path / "new", "acpx", quietly)

    with ThreadPoolExecutor(callers) as threads:
        found = {one.directory for one in threads.map(install, range(callers))}
    assert len(found) == 1
    assert npm.runs == 1


def test_a_failure_is_told_in_plain_words(npm: Npm, tmp_path: Path) -> None:
    """The error carries npm's own last words without paths, and the command that mends it."""
    npm.does(FAIL)
    with pytest.raises(RuntimeNotInstalled) as caught:
        ensure_runtime(tmp_path / "new", "claude", quietly)
    error = caught.value
    assert error.reason == (
        "code ENOTFOUND; network request to https://registry.npmjs.org/acpx failed"
    )
    assert error.remedy == "run: clawdforge setup --with claude"
    assert str(tmp_path) not in str(error)
    assert entries(tmp_path / "new") == []


def test_a_failure_can_be_tried_again(npm: Npm, tmp_path: Path) -> None:
    """After a failure the next call starts afresh."""
    npm.does(FAIL)
    with pytest.raises(RuntimeNotInstalled):
        ensure_runtime(tmp_path, "acpx", quietly)
    npm.does(INSTALL)
    assert ensure_runtime(tmp_path, "acpx", quietly).module("acpx").is_dir()


def test_an_installation_is_bounded(npm: Npm, tmp_path: Path) -> None:
    """An npm that never ends is killed at the deadline, and nothing half-made stays."""
    npm.does("import time; time.sleep(600)")
    began = monotonic()
    with pytest.raises(RuntimeNotInstalled, match="it took too long"):
        ensure_runtime(tmp_path / "new", "acpx", quietly, timeout_secs=0.5)
    assert monotonic() - began < 20
    assert entries(tmp_path / "new") == []


def test_the_wait_for_another_one_is_bounded_and_told(npm: Npm, tmp_path: Path) -> None:
    """Who waits for somebody else's installation hears so, and gives up at the deadline."""
    told: list[str] = []
    with (tmp_path / "acpx.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(RuntimeNotInstalled, match="did not finish"):
            ensure_runtime(tmp_path, "acpx", told.append, timeout_secs=0.3)
    assert told == ["acpx: another clawdforge is installing it, waiting"]
    assert npm.runs == 0


def test_what_a_killed_installation_left_is_removed(npm: Npm, tmp_path: Path) -> None:
    """A draft of an installer that was killed is gone after the next one; other parts are not."""
    new = tmp_path / "new"
    (new / ".acpx-dead").mkdir(parents=True)
    (new / ".claude-busy").mkdir()
    part = ensure_runtime(new, "acpx", quietly)
    assert entries(new) == [".claude-busy", part.directory.name]
    assert npm.runs == 1


def test_a_part_that_lost_pieces_is_installed_again(npm: Npm, tmp_path: Path) -> None:
    """A folder that is there and not whole is replaced."""
    part = ensure_runtime(tmp_path, "acpx", quietly)
    part.module("acpx", "package.json").unlink()
    assert find_runtime(tmp_path, "acpx") is None
    ensure_runtime(tmp_path, "acpx", quietly)
    assert find_runtime(tmp_path, "acpx") == part
    assert npm.runs == 2


def test_a_directory_that_cannot_be_used_is_a_typed_error(npm: Npm, tmp_path: Path) -> None:
    """A runtime directory that is a file is RuntimeNotInstalled, not a traceback."""
    (tmp_path / "file").write_text("")
    with pytest.raises(RuntimeNotInstalled, match="the runtime directory"):
        ensure_runtime(tmp_path / "file", "acpx", quietly)
    assert npm.runs == 0


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("", "npm said nothing"),
        ("npm error code E1\nnpm error\nnpm error why\n", "code E1; why"),
        ("npm warn old\nnpm error code E1\n", "code E1"),
        ("Error: it broke\n", "Error: it broke"),
    ],
)
def test_last_words_are_the_errors(output: str, words: str) -> None:
    """Errors without their prefix; without any, the last lines as they are."""
    assert last_words(output) == words
