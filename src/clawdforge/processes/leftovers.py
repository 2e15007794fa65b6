"""Leftovers: processes of ours that outlived their warden, and how they are found and killed.

The rule: *nothing is killed but what is proved to be ours.* A process is ours by the mark in its
environment, or by its session, which nobody can enter from outside. Who is chosen is decided by
pure functions over a snapshot of ``/proc``; a process is identified by pid and start time and
signalled through a pidfd, so that a pid that was used again is never hit.

Needed in two cases only, since a warden that lives leaves nothing: a warden was killed (``child``
mops up its tree), or warden and service were killed at once (the sweep at the next start).
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

import attrs

from clawdforge.processes.marks import MARK_NAME, Incarnation, Mark, parse_mark

_PAUSE_SECS: Final = 0.005
"""Between two looks: a killed process needs about a millisecond to go."""

_EMPTY_LOOKS: Final = 2
"""Looks that must find nothing: a process has no readable environment while it calls ``execve``."""


@attrs.frozen
class ProcessView:
    """One process as ``/proc`` shows it. ``started_ticks`` (since boot) makes the pid unique."""

    pid: int
    parent_pid: int
    group_id: int
    session_id: int
    started_ticks: int
    is_zombie: bool = False
    mark: Mark | None = None


@attrs.frozen
class Cleared:
    """What a clearing did: how many were killed, and how many could not be."""

    killed_count: int
    survivor_count: int


Choose = Callable[[Sequence[ProcessView]], Sequence[ProcessView]]


# --- who is chosen --------------------------------------------------------------------------------


def choose_tree(views: Sequence[ProcessView], mark: Mark, warden_pid: int) -> list[ProcessView]:
    """The processes of one tree: by mark, or by the session that its (dead) warden led.

    A session's id is not given to a new process while the session has members; so if ``warden_pid``
    is in use, it is somebody else's by now and says nothing.
    """
    is_reused = any(view.pid == warden_pid for view in views)
    return [
        view
        for view in views
        if view.mark == mark or (view.session_id == warden_pid and not is_reused)
    ]


def choose_earlier(
    views: Sequence[ProcessView], current: Incarnation, own_pid: int
) -> list[ProcessView]:
    """What another incarnation on the same data directory left, with all that share its sessions.

    The caller holds the directory's lock, so every other incarnation is an earlier one.
    """

    def is_earlier(view: ProcessView) -> bool:
        return (
            view.mark is not None
            and view.mark.incarnation.data_dir_id == current.data_dir_id
            and view.mark.incarnation != current
        )

    own_session = next((view.session_id for view in views if view.pid == own_pid), None)
    sessions = {view.session_id for view in views if is_earlier(view)} - {own_session}
    return [
        view
        for view in views
        if view.pid != own_pid
        and (is_earlier(view) or (view.mark is None and view.session_id in sessions))
    ]


# --- looking --------------------------------------------------------------------------------------


def look_at(pid: int) -> ProcessView | None:
    """One process; None when it is gone. The mark is None when it has none or may not be read."""
    folder = Path("/proc") / str(pid)
    try:
        stat = (folder / "stat").read_bytes()
    except OSError:
        return None
    # The name may hold blanks and brackets; fields 3 to 6 and 22 of proc_pid_stat(5) follow it.
    fields = stat[stat.rindex(b")") + 2 :].split()
    is_zombie = fields[0] in {b"Z", b"X"}
    return ProcessView(
        pid=pid,
        parent_pid=int(fields[1]),
        group_id=int(fields[2]),
        session_id=int(fields[3]),
        started_ticks=int(fields[19]),
        is_zombie=is_zombie,
        mark=None if is_zombie else _read_mark(folder / "environ"),
    )


def _read_mark(environ: Path) -> Mark | None:
    try:
        entries = environ.read_bytes().split(b"\0")
    except OSError:
        return None
    prefix = MARK_NAME.encode() + b"="
    text = next((entry for entry in entries if entry.startswith(prefix)), None)
    return None if text is None else parse_mark(text[len(prefix) :].decode(errors="replace"))


def look_around() -> list[ProcessView]:
    """A snapshot of all processes that this user can see."""
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())
    return [view for pid in pids if (view := look_at(pid)) is not None]


def living(views: Iterable[ProcessView]) -> list[ProcessView]:
    """Those that have not ended; a zombie only waits to be reaped."""
    return [view for view in views if not view.is_zombie]


# --- killing --------------------------------------------------------------------------------------


def clear(choose: Choose, *, within_secs: float) -> Cleared:
    """Kill what is chosen, look again, until nothing is left or the time is up. Blocks.

    What this process has adopted is reaped, pid by pid: it may have other children.
    """
    give_up_at = time.monotonic() + within_secs
    killed: set[tuple[int, int]] = set()
    empty_looks = 0
    while True:
        views = look_around()
        chosen = choose(views)
        for view in views:
            if view.is_zombie and (view in chosen or _identity(view) in killed):
                _reap(view)
        targets = living(chosen)
        _kill_groups(targets)
        killed.update(_identity(view) for view in targets if _kill(view))
        empty_looks = 0 if targets else empty_looks + 1
        if empty_looks == _EMPTY_LOOKS or time.monotonic() > give_up_at:
            return Cleared(len(killed), len(targets))
        time.sleep(_PAUSE_SECS)


def sweep_leftovers(current: Incarnation, *, within_secs: float = 5.0) -> Cleared:
    """Kill what earlier incarnations on this data directory left. Blocks; about 5 ms when clean.

    To be called once, at start, by the holder of the directory's lock.
    """
    own_pid = os.getpid()
    return clear(lambda views: choose_earlier(views, current, own_pid), within_secs=within_secs)


def _identity(view: ProcessView) -> tuple[int, int]:
    return view.pid, view.started_ticks


def _kill_groups(targets: Sequence[ProcessView]) -> None:
    """Kill whole process groups: what forks and ends, over and over, is never caught by its pid.

    A group lies within one session, so all of it is ours; our own session is left alone. Its number
    is nobody else's as long as it has members: so either its leader is a target, or has ended.
    """
    known = {_identity(view) for view in targets}
    for group in {view.group_id for view in targets if view.session_id != os.getsid(0)}:
        leader = look_at(group)
        if leader is None or _identity(leader) in known:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)


def _kill(view: ProcessView) -> bool:
    """Hold the process by a pidfd, make sure that it is still the one we saw, and kill it."""
    try:
        pidfd = os.pidfd_open(view.pid)
    except OSError:
        return False
    try:
        again = look_at(view.pid)
        if again is None or again.started_ticks != view.started_ticks:
            return False
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except OSError:  # it has gone, or it belongs to another user now
        return False
    else:
        return True
    finally:
        os.close(pidfd)


def _reap(view: ProcessView) -> None:
    if view.parent_pid == os.getpid():
        with contextlib.suppress(ChildProcessError):
            os.waitpid(view.pid, os.WNOHANG)
