"""schemathesis against the running server, by what ``/openapi.json`` says of it.

Every case is checked for an undocumented status, header, media type or body, for a 5xx, for valid
requests that are refused and invalid ones that are not; a request that hangs fails by its timeout.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final, Literal

import attrs
import httpx2 as httpx
import pytest

from clawdforge.config import CLAUDE, DEMO, Config
from clawdforge.domain.profiles import PERMISSIONS, AgentProfile
from clawdforge.testing import RunningServer, running_server

HERE: Final = Path(__file__).parent

CONFIG: Final = Config(
    cancel_grace_secs=0.2,
    # No capacity is ever spent, so that any 5xx is a failure; any permissions may be asked for.
    max_live_sessions=600,
    agents={name: AgentProfile(name, permissions_allowed=PERMISSIONS) for name in (CLAUDE, DEMO)},
)


LEFT_OUT: Final = (
    "/admin/drain",  # would end the server under test
    "/sessions/{session_id}/events",  # does not end while its session is open
)


ALL: Final = "examples,coverage,fuzzing,stateful"
"""What schemathesis can do; ``coverage`` is each boundary of each field."""


@attrs.frozen
class Outcome:
    """What schemathesis said."""

    text: str
    code: int

    @property
    def cases(self) -> int:
        found = re.search(r"(\d+) generated", self.text)
        assert found, self.text
        return int(found[1])

    @property
    def covered_links(self) -> int:
        found = re.search(r"API Links: +(\d+) covered", self.text)
        return int(found[1]) if found else 0


def upload(server: RunningServer, token: str) -> str:
    """A file that lives for the whole pass; its token."""
    answer = httpx.post(
        f"{server.base_url}/files",
        headers={"Authorization": f"Bearer {token}"},
        files={"file": ("notes.txt", b"milk")},
        data={"ttl_secs": "86400"},
    )
    return str(answer.raise_for_status().json()["file_token"])


def run_pass(
    who: Literal["app", "admin"], folder: Path, *, examples: int, secs: float, phases: str
) -> Outcome:
    """One pass over the whole description, bounded by ``secs``."""
    with running_server(CONFIG) as server:
        app = server.mint("kitchen")
        bearer = app if who == "app" else server.admin_token
        command = [sys.executable, "-c", "from schemathesis.cli import schemathesis as s; s()"]
        command += ["--config-file", str(HERE / "schemathesis.toml"), "run"]
        command += [f"{server.base_url}/openapi.json"]
        for path in LEFT_OUT:
            command += ["--exclude-path", path]
        command += ["--max-examples", str(examples), "--seed", "2", "--phases", phases]
        done = subprocess.run(
            command,
            cwd=folder,
            env={
                **os.environ,
                "PYTHONPATH": str(HERE),
                "SCHEMATHESIS_HOOKS": "formats",
                "BEARER": bearer,
                "FILE_TOKENS": " ".join(upload(server, app) for _ in range(3)),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=secs,
            check=False,
        )
    return Outcome(done.stdout, done.returncode)


@pytest.mark.parametrize("who", ["app", "admin"])
def test_a_short_pass_finds_nothing(who: Literal["app", "admin"], tmp_path: Path) -> None:
    """Examples, a few random requests and the links, in seconds."""
    outcome = run_pass(who, tmp_path, examples=8, secs=100, phases="examples,fuzzing,stateful")
    assert outcome.code == 0, outcome.text
    assert outcome.cases >= 150


@pytest.mark.fuzz
@pytest.mark.timeout(900)
@pytest.mark.parametrize("who", ["app", "admin"])
def test_a_long_pass_finds_nothing(who: Literal["app", "admin"], tmp_path: Path) -> None:
    """Two thousand cases with each of the two bearers, links followed."""
    outcome = run_pass(who, tmp_path, examples=100, secs=800, phases=ALL)
    assert outcome.code == 0, outcome.text
    assert outcome.cases >= 2000
    assert outcome.covered_links >= (5 if who == "app" else 1)
