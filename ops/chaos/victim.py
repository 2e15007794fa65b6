"""The service under test as a process: started, ordered about, killed, looked at from outside."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

from clawdforge.app import new_incarnation
from clawdforge.processes.leftovers import ProcessView, living, look_around
from clawdforge.testing import demo_agent

READY: Final = re.compile(r"clawdforge is ready on (http://\S+)")

START_SECS: Final = 90.0
STOP_SECS: Final = 60.0
LOOK_SECS: Final = 0.02

SLOTS: Final = 4

SETTINGS: Final[Mapping[str, str]] = {
    "CLAWDFORGE_BIND": "127.0.0.1:0",
    "CLAWDFORGE_MAX_LIVE_SESSIONS": str(SLOTS),
    "CLAWDFORGE_SWEEP_SECS": "1",
    "CLAWDFORGE_CANCEL_GRACE_SECS": "0.5",
    "CLAWDFORGE_DRAIN_SECS": "3",
    "CLAWDFORGE_START_SECS": "20",
    "CLAWDFORGE_CIRCUIT_FAILURES": "3",
    "CLAWDFORGE_CIRCUIT_SECS": "20",
    "CLAWDFORGE_LOG": "json",
}

AGENTS: Final[Mapping[str, tuple[str, ...]]] = {
    "good": (),
    "forgetful": ("--no-load",),
    "stubborn": ("--stubborn",),
    "dead": ("--exit-at-start", "7"),
}
"""The zoo: the demo agent with these options. More evil is in the prompts (``steps``)."""


class ChaosFailed(AssertionError):
    """A promise was broken."""


def until(is_so: Callable[[], object], what: str, secs: float) -> None:
    """Return when ``is_so()``; ChaosFailed when it is not in time."""
    give_up_at = time.monotonic() + secs
    while not is_so():
        if time.monotonic() > give_up_at:
            raise ChaosFailed(f"not within {secs:g} s: {what}")
        time.sleep(LOOK_SECS)  # between two looks at a real condition


class Victim:
    """One data directory and the service on it, life after life."""

    def __init__(self, folder: Path, runtime_dir: Path) -> None:
        self.data_dir: Final = folder / "data"
        self.admin_token: Final = secrets.token_urlsafe(24)
        self.url = ""
        self.lives = 0
        self._folder = folder
        self._runtime_dir = runtime_dir
        self._config = folder / "clawdforge.toml"
        self._config.write_text("".join(map(_profile, AGENTS)))
        self._directory_id = new_incarnation(self.data_dir).data_dir_id
        self._process: subprocess.Popen[str]

    # --- its life ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Start it and wait until it is ready."""
        self.lives += 1
        with (self._folder / "log").open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ops.chaos.server"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=Path(__file__).parents[2],
                env=self._environment(),
            )
        assert self._process.stdout is not None
        found = READY.match(self._process.stdout.readline())
        if found is None:
            raise ChaosFailed(f"it did not start: {self.last_words()}")
        self.url = found[1]

    def _environment(self) -> dict[str, str]:
        kept = ("PATH", "PYTHONPATH", "VIRTUAL_ENV", "PYTHONHASHSEED")
        return {
            **{name: os.environ[name] for name in kept if name in os.environ},
            **SETTINGS,
            "HOME": str(self._folder),
            "CLAWDFORGE_CONFIG": str(self._config),
            "CLAWDFORGE_DATA_DIR": str(self.data_dir),
            "CLAWDFORGE_RUNTIME_DIR": str(self._runtime_dir),
            "CLAWDFORGE_ADMIN_TOKEN": self.admin_token,
        }

    @property
    def pid(self) -> int:
        """The service's own."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def order(self, **order: object) -> None:
        """Tell disk or clock to go wrong, or to be well again; returns when they have."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        if self._process.stdout.readline() != "done\n":
            raise ChaosFailed(f"it took no orders: {self.last_words()}")

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self.bury()

    def freeze(self) -> None:
        """SIGSTOP, so that it can mop up nothing; a kill still ends it."""
        os.kill(self.pid, signal.SIGSTOP)

    def terminate(self) -> None:
        """SIGTERM."""
        self._process.terminate()

    def bury(self) -> int:
        """Wait for its end; the exit code."""
        try:
            code = self._process.wait(STOP_SECS)
        except subprocess.TimeoutExpired:
            raise ChaosFailed("it did not end") from None
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        return code

    def last_words(self) -> str:
        """The end of its log."""
        return (self._folder / "log").read_text()[-2000:]

    # --- looking at it from outside ---------------------------------------------------------------

    def processes(self) -> list[ProcessView]:
        """Every live process with the mark of this data directory."""
        views = living(look_around())
        return [
            view
            for view in views
            if view.mark and view.mark.incarnation.data_dir_id == self._directory_id
        ]

    def trees(self) -> dict[str, dict[str, list[int]]]:
        """Of each session that has processes: its trees by mark, the pids of each, oldest first."""
        trees: dict[str, dict[str, list[int]]] = {}
        for view in sorted(self.processes(), key=lambda view: view.started_ticks):
            session = self._session_of(view.pid)
            if session is not None and view.mark is not None:
                trees.setdefault(session, {}).setdefault(view.mark.tree, []).append(view.pid)
        return trees

    def _session_of(self, pid: int) -> str | None:
        """By its working directory, which every process of a tree inherits."""
        try:
            place = Path(f"/proc/{pid}/cwd").readlink()
            return place.relative_to(self.data_dir.resolve() / "sessions").parts[0]
        except (OSError, ValueError, IndexError):
            return None

    def find(self, session: str, words: str) -> int | None:
        """The session's process whose command line has these words."""
        for pids in self.trees().get(session, {}).values():
            for pid in pids:
                try:
                    line = Path(f"/proc/{pid}/cmdline").read_bytes()
                except OSError:
                    continue
                if words.encode() in line:
                    return pid
        return None

    def count_files(self) -> int:
        """Descriptors that it has open. It is not dumpable: only root may look."""
        try:
            return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))
        except PermissionError:
            return 0

    def resident_bytes(self) -> int:
        """Its memory."""
        words = Path(f"/proc/{self.pid}/statm").read_text().split()
        return int(words[1]) * os.sysconf("SC_PAGE_SIZE")

    def ask(self, query: str, *values: object) -> list[Any]:
        """Read the ledger past the service, and past its bad disk."""
        with self.opened() as db:
            return db.execute(query, values).fetchall()

    @contextmanager
    def opened(self) -> Iterator[sqlite3.Connection]:
        """The ledger, opened by another program."""
        with closing(sqlite3.connect(self.data_dir / "clawdforge.db", timeout=10)) as db:
            yield db


def _profile(name: str) -> str:
    argv = [sys.executable, "-I", "-S", demo_agent.__file__, *AGENTS[name]]
    return f"[agents.{name}]\nargv = {json.dumps(argv)}\n"
