"""The command line as an operator meets it: help, usage errors, wrong settings, tokens, doctor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import attrs
import pytest
from click.testing import CliRunner, Result

from clawdforge.app import hold_data_dir, new_incarnation
from clawdforge.cli import checks
from clawdforge.cli.findings import Finding
from clawdforge.cli.guide import curl_lines
from clawdforge.cli.root import clawdforge
from clawdforge.config import DEMO, Config
from clawdforge.domain.profiles import AgentProfile, RunCommand
from clawdforge.processes.marks import MARK_NAME

COMMANDS = ("demo", "serve", "setup", "doctor", "token")


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """A service of its own."""
    return {"CLAWDFORGE_DATA_DIR": str(tmp_path / "data")}


def run(environ: dict[str, str], *words: str) -> Result:
    """Run one command in this process; an exception that escapes fails the test."""
    cleared = {name: None for name in os.environ if name.startswith("CLAWDFORGE_")}
    return CliRunner().invoke(clawdforge, words, env={**cleared, **environ}, catch_exceptions=False)


@pytest.mark.parametrize("words", [(), *((name,) for name in COMMANDS), ("token", "mint")])
def test_help_is_everywhere(environ: dict[str, str], words: tuple[str, ...]) -> None:
    """Every command explains itself."""
    result = run(environ, *words, "--help")
    assert result.exit_code == 0
    assert "Usage: " in result.output


def test_help_imports_nothing_heavy() -> None:
    """The help comes without the server, the actors and the settings."""
    code = "import sys, clawdforge.__main__; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    heavy = {"trio", "attrs", "quart", "hypercorn", "apsw", "structlog", "cattrs"}
    assert heavy & set(done.stdout.split()) == set()


@pytest.mark.parametrize(
    "words", [("serve", "--fast"), ("fly",), ("setup", "--with", "gpt"), ("token", "mint")]
)
def test_wrong_usage_is_an_error(environ: dict[str, str], words: tuple[str, ...]) -> None:
    """What is not known is refused with exit code 2."""
    assert run(environ, *words).exit_code == 2


@pytest.mark.parametrize("words", [("serve",), ("setup",), ("token", "list")])
def test_wrong_settings_are_named(environ: dict[str, str], words: tuple[str, ...]) -> None:
    """A wrong setting is one line on stderr and exit code 2, before anything happens."""
    result = run({**environ, "CLAWDFORGE_BIND": "nowhere"}, *words)
    assert result.exit_code == 2
    assert result.stderr.startswith("clawdforge: CLAWDFORGE_BIND: ")
    assert result.stderr.count("\n") == 1


def test_a_token_is_minted_listed_and_revoked(environ: dict[str, str]) -> None:
    """The registry works straight on the database; a token's text is shown once."""
    minted = run(environ, "token", "mint", "garden", "--ip-cidr", "10.0.0.0/8")
    assert minted.exit_code == 0
    assert minted.output.startswith("cf_")
    listed = run(environ, "token", "list")
    assert listed.output.startswith("garden  ")
    assert "10.0.0.0/8" in listed.output
    assert minted.output.strip() not in listed.output
    assert run(environ, "token", "revoke", "garden").exit_code == 0
    assert run(environ, "token", "list").output == ""


def test_tokens_speak_json(environ: dict[str, str]) -> None:
    """A script gets JSON from mint and list."""
    minted = json.loads(run(environ, "token", "mint", "a", "--json").output)
    assert sorted(minted) == ["ip_cidrs", "name", "token"]
    rows = json.loads(run(environ, "token", "list", "--json").output)["tokens"]
    assert [row["name"] for row in rows] == ["a"]


def test_token_errors_are_one_line(environ: dict[str, str]) -> None:
    """A taken name, an unknown one, a bad one and a bad network each say so."""
    run(environ, "token", "mint", "a")
    taken = run(environ, "token", "mint", "a")
    assert taken.stderr == "clawdforge: a token named 'a' exists already\n"
    assert taken.exit_code == 1
    assert run(environ, "token", "revoke", "b").exit_code == 1
    assert run(environ, "token", "mint", "A b").exit_code == 2
    assert run(environ, "token", "mint", "c", "--ip-cidr", "house").exit_code == 2


def test_the_data_directory_is_private(environ: dict[str, str]) -> None:
    """What the command makes is for this user only."""
    run(environ, "token", "list")
    assert Path(environ["CLAWDFORGE_DATA_DIR"]).stat().st_mode & 0o077 == 0


def test_doctor_names_every_wrong_setting(environ: dict[str, str]) -> None:
    """Wrong settings end the examination: one line each, exit code 1."""
    wrong = {**environ, "CLAWDFORGE_BIND": "x", "CLAWDFORGE_LOG": "y"}
    result = run(wrong, "doctor")
    assert result.exit_code == 1
    assert [line.split()[0] for line in result.output.splitlines()] == ["failed", "failed"]


def test_doctor_says_how_to_get_acpx(tmp_path: Path) -> None:
    """A missing acpx is a failure with the command that mends it."""
    finding = checks.check_acpx_part(Config(runtime_dir=tmp_path))
    assert (finding.state, finding.remedy) == ("failed", "run: clawdforge setup")


def test_doctor_finds_node() -> None:
    """The wheel's Node runs."""
    assert checks.check_node(Config()).detail.startswith("v")


@pytest.mark.parametrize(
    ("mode", "state"), [(None, "ok"), (0o700, "ok"), (0o755, "failed"), (0o770, "failed")]
)
def test_doctor_looks_at_the_data_directory(tmp_path: Path, mode: int | None, state: str) -> None:
    """A data directory that others may enter is a failure; a missing one is not."""
    folder = tmp_path / "data"
    if mode is not None:
        folder.mkdir()
        folder.chmod(mode)
    assert checks.check_data_dir(Config(data_dir=folder)).state == state


def test_doctor_tries_the_ledger(tmp_path: Path) -> None:
    """A ledger that is no database is a failure, not a crash."""
    tmp_path.chmod(0o700)
    (tmp_path / "clawdforge.db").write_bytes(b"no database " * 1000)
    config = Config(data_dir=tmp_path)
    finding = checks.guarded("data directory", checks.check_data_dir, config)
    assert finding.state == "failed"


def test_doctor_finds_leftovers(tmp_path: Path) -> None:
    """A process marked by an earlier life is a failure, unless a service holds the directory."""
    config = Config(data_dir=tmp_path)
    assert checks.check_leftovers(config).detail == "none"
    mark = str(new_incarnation(tmp_path).mark_tree())
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env={MARK_NAME: mark}
    ):
        assert checks.check_leftovers(config).state == "failed"
        with hold_data_dir(tmp_path):
            assert checks.check_leftovers(config).state == "ok"


@pytest.mark.parametrize(("sessions", "state"), [(1, "ok"), (16, "failed")])
def test_doctor_compares_limits(monkeypatch: pytest.MonkeyPatch, sessions: int, state: str) -> None:
    """A pool for which there are too few files is a failure."""
    monkeypatch.setattr("resource.getrlimit", lambda _: (150, 150))
    assert checks.check_limits(Config(max_live_sessions=sessions)).state == state


def test_doctor_looks_for_the_command_of_runs(tmp_path: Path) -> None:
    """What is optional is missing, what was configured and is not there has failed."""
    config = Config(runtime_dir=tmp_path, data_dir=tmp_path)
    missing = checks.check_runs(config)
    assert (missing.state, missing.remedy) == ("missing", "run: clawdforge setup --with claude")
    assert checks.check_runs(attrs.evolve(config, run_agent=DEMO)).state == "ok"
    wrong = AgentProfile(DEMO, run=RunCommand(("no-such-command",)))
    config = attrs.evolve(config, run_agent=DEMO, agents={DEMO: wrong})
    assert "[agents.demo.run]" in str(checks.check_runs(config))


def test_a_finding_is_one_line() -> None:
    """State, what was looked at, what was found, and the remedy."""
    finding = Finding("acpx", "failed", "not installed", "run: clawdforge setup")
    assert str(finding) == "failed  acpx: not installed  -> run: clawdforge setup"


def test_curl_lines_can_be_pasted() -> None:
    """The lines of --keep hold the address and the token, quoted for a shell."""
    lines = curl_lines("http://127.0.0.1:1", "cf_x")
    assert lines[0] == "curl -s http://127.0.0.1:1/healthz"
    assert "-H 'Authorization: Bearer cf_x'" in lines[1]
