"""One-shot runs for real: a directory, an environment and a process tree for each.

The rule: *nothing of a run outlives it.* Its process tree is proved dead and its directory removed
before the answer is given or a cancellation let through. The command's arguments and answers are
``protocol.claude``'s; its environment is an allow-list, as an agent's is.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from clawdforge.domain.profiles import AgentProfile, RunCommand
from clawdforge.domain.runs import RunResult
from clawdforge.errors import AgentNotStarted, RuntimeNotInstalled
from clawdforge.processes.child import (
    STDERR_TAIL_BYTES,
    Child,
    ChildCommand,
    ChildExit,
    ChildGone,
    run_child,
)
from clawdforge.processes.lodging import OURS, PASSED_ON
from clawdforge.processes.marks import Incarnation
from clawdforge.processes.plain import plain_lines, plain_reason
from clawdforge.processes.runtime import REMEDIES, find_runtime
from clawdforge.protocol.claude import (
    Verdict,
    judge_run,
    name_attachments,
    plan_invocation,
)
from clawdforge.protocol.prompt import format_prompt_with_files

DEMO_CLI: Final = Path(__file__).parents[1] / "testing" / "demo_cli.py"

OUTPUT_BYTES: Final = 16 * 1024 * 1024
"""The most that a command may print: a model writes some 100 KiB at most, a broken one no end."""

STDERR_CHARACTERS: Final = 2000
"""How much of stderr is shown: enough for the last words of any program."""

ERROR_CHARACTERS: Final = 600

DEFAULTS: Final[Mapping[str, str]] = {
    "PATH": os.defpath,
    "LANG": "C.UTF-8",
    # Ten, its own default, is minutes: the run would be timed out and the reason never heard.
    "CLAUDE_CODE_MAX_RETRIES": "3",
    "DISABLE_AUTOUPDATER": "1",  # what is installed is what our lock file says
    # Reports that cannot be sent would stay behind in its home, a file a run.
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
}
"""What a command's environment has unless the profile says otherwise."""


class _Output:
    """What a command has printed so far, bounded. ``kill`` is called when it is too much."""

    def __init__(self) -> None:
        self.text = bytearray()
        self.is_too_much = False
        self.kill: Callable[[], None] = lambda: None

    def take(self, line: bytes) -> None:
        """Keep one line."""
        if len(self.text) + len(line) >= OUTPUT_BYTES:
            self.refuse()
        else:
            self.text += line + b"\n"

    def refuse(self, _count: int = 1) -> None:
        """A line too long, or one too many."""
        self.is_too_much = True
        self.kill()


@attrs.frozen(kw_only=True)
class _Job:
    """One run, prepared: what to start, what to say to it, what must not be shown."""

    command: ChildCommand
    prompt: bytes
    hidden: tuple[str, ...] = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class CommandRunner:
    """Implements :class:`clawdforge.domain.runs.Runner` with the one-shot command of a profile.

    ``environment`` is where the values of the profile's ``env`` names come from; nothing else reads
    it. ``data_dir`` and ``runtime_dir`` are absolute.
    """

    profile: AgentProfile
    data_dir: Path
    runtime_dir: Path
    incarnation: Incarnation
    environment: Mapping[str, str] = attrs.field(repr=False)

    async def run(self, **fields: Any) -> RunResult:  # noqa: ANN401 - as in the protocol
        """See the protocol. The deadline is the caller's: ``timeout_secs`` is not looked at."""
        began_at = trio.current_time()
        root = self.data_dir / "runs" / secrets.token_hex(16)
        try:
            job = await trio.to_thread.run_sync(self._prepare, root, fields)
            end, output = await _execute(job)
        except (AgentNotStarted, RuntimeNotInstalled) as error:
            reason = error.reason + (f" ({error.remedy})" if error.remedy else "")
            return RunResult(False, None, "", "", _ms_since(began_at), "error", reason)
        finally:
            with trio.CancelScope(shield=True):  # removing a few files: bounded by the disk
                remove = partial(shutil.rmtree, root, ignore_errors=True)
                await trio.to_thread.run_sync(remove)
        return _conclude(job, end, output, _ms_since(began_at))

    def resolve_argv(self) -> list[str]:
        """The command. Raises RuntimeNotInstalled, or AgentNotStarted when there is none."""
        command = self.profile.run or RunCommand()
        if command.argv is not None:
            return list(command.argv)
        if self.profile.name == "demo":
            return [sys.executable, "-I", "-S", str(DEMO_CLI)]
        if self.profile.name != "claude":
            raise AgentNotStarted(self.profile.name, "its profile has no one-shot command")
        runtime = find_runtime(self.runtime_dir, "claude")
        if runtime is None:
            raise RuntimeNotInstalled("claude", "claude is not installed", REMEDIES["claude"])
        return [str(runtime.module(".bin", "claude"))]

    def clear(self) -> None:
        """Remove what runs of an earlier life left. Called once, before the first run."""
        shutil.rmtree(self.data_dir / "runs", ignore_errors=True)

    def _prepare(self, root: Path, fields: Mapping[str, Any]) -> _Job:
        """Make the run's directory and say what to start in it. Called in a thread."""
        argv = self.resolve_argv()
        system_file = root / "system.txt"
        invocation = plan_invocation(
            model=fields["model"],
            system=fields.get("system"),
            system_mode=fields.get("system_mode") or "append",
            effort=fields.get("effort"),
            system_file=str(system_file),
        )
        try:
            names = self._make_folders(root, fields.get("files") or ())
            if invocation.system_text is not None:
                system_file.write_text(invocation.system_text)
        except OSError as error:
            reason = f"the run's directory: {error.strerror}"
            raise AgentNotStarted(self.profile.name, reason) from error
        prompt = format_prompt_with_files(fields["prompt"], names)
        passed = self._passed_on()
        command = ChildCommand(
            argv=[*argv, *invocation.arguments],
            env={
                **DEFAULTS,
                **passed,
                "HOME": str(self._home()),
                "TMPDIR": str(root / "tmp"),
                "CLAUDE_CODE_TMPDIR": str(root / "tmp"),
                **self.profile.set_env,
            },
            cwd=root / "work",
            incarnation=self.incarnation,
            max_line_bytes=OUTPUT_BYTES,
        )
        shown = {name: value for name, value in passed.items() if name not in PASSED_ON}
        hidden = (*shown.values(), *self.profile.set_env.values())
        return _Job(command=command, prompt=prompt.encode(errors="replace"), hidden=hidden)

    def _make_folders(self, root: Path, files: Sequence[Path]) -> list[str]:
        """Working directory, scratch directory, home; the names of the attached files."""
        self._home().mkdir(mode=0o700, parents=True, exist_ok=True)
        root.parent.mkdir(mode=0o700, exist_ok=True)
        for folder in (root, root / "work", root / "tmp"):
            folder.mkdir(mode=0o700)
        names = name_attachments([file.suffix for file in files])
        for name, file in zip(names, files, strict=True):
            # Not linked: a command may write to what it is given, and the upload is the app's.
            shutil.copyfile(file, root / "work" / name)
        return names

    def _home(self) -> Path:
        """The profile's own, for logins; the same as its sessions have."""
        return self.data_dir / "homes" / self.profile.name

    def _passed_on(self) -> dict[str, str]:
        command = self.profile.run
        names = self.profile.env if command is None or command.env is None else command.env
        allowed = [*PASSED_ON, *(name for name in names if not name.startswith(OURS))]
        return {name: self.environment[name] for name in allowed if name in self.environment}


async def _execute(job: _Job) -> tuple[ChildExit, _Output]:
    """Start the command, give it the prompt, wait for its end. Raises AgentNotStarted.

    Waits without bound: the caller's deadline cancels it, which kills the tree.
    """
    output = _Output()
    ends: list[ChildExit] = []
    failure: OSError | None = None

    async def _host(*, task_status: trio.TaskStatus[Child]) -> None:  # noqa: ASYNC128 - run_child calls started()
        end = await run_child(
            job.command, on_line=output.take, on_skipped=output.refuse, task_status=task_status
        )
        ends.append(end)

    async with trio.open_nursery() as nursery:
        try:
            child = await nursery.start(_host)
        except OSError as error:
            failure = error
        else:
            output.kill = child.kill
            with suppress(ChildGone):  # it may answer without having read to the end
                await child.send(job.prompt)
            child.close_stdin()
    if failure is not None:
        raise AgentNotStarted("run", f"the command: {failure.strerror}") from failure
    return ends[0], output


def _conclude(job: _Job, end: ChildExit, output: _Output, duration_ms: int) -> RunResult:
    """The result of a run that has ended, its words cleaned."""
    stdout = output.text.decode(errors="replace")
    if output.is_too_much:
        verdict = Verdict(error=f"the command printed more than {OUTPUT_BYTES} bytes")
    else:
        verdict = judge_run(stdout, code=end.code, signal=end.signal)
    error = verdict.error
    if error is not None:
        error = plain_reason(error, hidden=job.hidden, limit=ERROR_CHARACTERS)
    tail = end.stderr_tail
    if len(tail.encode()) >= STDERR_TAIL_BYTES:  # cut somewhere, perhaps inside a secret
        tail = tail.partition("\n")[2]
    stderr = plain_lines(tail, hidden=job.hidden, limit=STDERR_CHARACTERS)
    is_ok = error is None
    return RunResult(is_ok, verdict.result, stdout, stderr, duration_ms, verdict.stop_reason, error)


def _ms_since(began_at: float) -> int:
    return round((trio.current_time() - began_at) * 1000)
