"""The layers of docs/architecture.md, held by looking at every import statement."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

import clawdforge

ROOT: Final = Path(clawdforge.__file__).parent

WORDS: Final = frozenset({"__version__", "errors", "protocol", "domain"})
"""What every layer may speak of."""

MAY_IMPORT: Final[dict[str, frozenset[str]]] = {
    "errors": frozenset(),
    "at_once": frozenset(),
    "protocol": frozenset({"errors"}),
    "domain": frozenset({"errors", "protocol"}),
    "config": WORDS,
    "setting_readers": WORDS,
    "settings": WORDS | {"config", "setting_readers"},
    "store": WORDS | {"at_once"},
    "processes": WORDS | {"at_once", "config", "testing.demo_agent"},
    "actors": WORDS | {"config"},
    "web": WORDS | {"config", "actors"},
    "testing.demo_agent": frozenset(),
    "testing.fake_launcher": WORDS | {"testing.demo_agent"},
}
"""Part -> the other parts that it may import. A part that is not named may import all: it is one
of the few that put everything together (``app``, ``server``, ``cli`` and their like)."""

IMPURE: Final = frozenset(
    {
        "asyncio",
        "datetime",
        "io",
        "logging",
        "os",
        "random",
        "secrets",
        "select",
        "shutil",
        "signal",
        "socket",
        "structlog",
        "subprocess",
        "sys",
        "tempfile",
        "threading",
        "time",
        "trio",
        "uuid",
    }
)
"""No clock, no I/O, no randomness: modules that ``protocol`` and ``domain`` do without."""


def modules() -> Iterator[tuple[str, Path]]:
    """Every module of ours: its dotted name below ``clawdforge``, and its file."""
    for path in sorted(ROOT.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        yield name.removesuffix(".__init__"), path


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever the statement stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: a relative import hides the layer"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_part(name: str, part: str) -> bool:
    """Whether a module is ``part`` or in it."""
    return name == part or name.startswith(f"{part}.")


def part_of(name: str) -> str | None:
    """The part with rules that a module belongs to."""
    return next((part for part in MAY_IMPORT if is_part(name, part)), None)


MODULES: Final = [
    pytest.param(part, path, id=name)
    for name, path in modules()
    if (part := part_of(name)) is not None
]


@pytest.mark.parametrize(("part", "path"), MODULES)
def test_a_layer_imports_only_what_it_may(part: str, path: Path) -> None:
    """Of protocol, domain, actors, web each knows those before it; adapters know the ports."""
    allowed = MAY_IMPORT[part] | {part}
    ours = {name.removeprefix("clawdforge.") for name in imports(path) if "clawdforge." in name}
    assert [name for name in sorted(ours) if not any(is_part(name, one) for one in allowed)] == []


PURE: Final = [
    pytest.param(path, id=name)
    for name, path in modules()
    if part_of(name) in {"protocol", "domain"}
]


@pytest.mark.parametrize("path", PURE)
def test_pure_layers_import_no_clock_and_no_io(path: Path) -> None:
    """A decision takes ``now`` as an argument and touches nothing."""
    assert {name.partition(".")[0] for name in imports(path)} & IMPURE == set()


def test_every_part_with_rules_exists() -> None:
    """A rule for a part that is gone would hold nothing."""
    names = {name for name, _ in modules()}
    assert [part for part in MAY_IMPORT if not any(is_part(name, part) for name in names)] == []


def test_the_demo_agent_imports_nothing_of_ours() -> None:
    """It is run by path with ``-I -S``: the standard library is all there is."""
    found = {name.partition(".")[0] for name in imports(ROOT / "testing" / "demo_agent.py")}
    assert "clawdforge" not in found
