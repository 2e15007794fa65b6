"""Who survives what: the worst agent behind real acpx, and every way in which its end may begin.

It ignores EOF, TERM and cancel, and has a plain and a ``setsid`` grandchild. Two seconds later
nothing of it is left.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import httpx2 as httpx
import pytest

from clawdforge.processes.leftovers import ProcessView, living, look_around
from tests.system.conftest import (
    GONE_SECS,
    Server,
    StartServer,
    open_session,
    processes_of,
    say,
)
from tests.system.test_service import command_line
from tests.waiting import wait_until

pytestmark = pytest.mark.system

WORST = "ignore\nfork: 300\nsetsid: 300"


def grow_worst_tree(server: Server) -> tuple[httpx.Client, str, list[ProcessView]]:
    """Its app, its session, and its five processes."""
    app = server.app()
    session = open_session(app)
    say(app, session, WORST).raise_for_status()
    tree = processes_of(server.data_dir)
    assert len(tree) == 5
    return app, session, tree


def pid_of(tree: list[ProcessView], words: str) -> int:
    """The process of the tree that was started as ``words``."""
    return next(view.pid for view in tree if words in command_line(view.pid))


def is_gone(tree: list[ProcessView]) -> bool:
    """Whether none of these very processes lives (a later one may have the pid)."""
    alive = {(view.pid, view.started_ticks) for view in living(look_around())}
    return not any((view.pid, view.started_ticks) in alive for view in tree)


KILLS: dict[str, Callable[[Server, list[ProcessView]], None]] = {
    "service": lambda server, _: server.kill(),
    "warden": lambda _, tree: os.kill(pid_of(tree, "warden.py"), signal.SIGKILL),
    "acpx host": lambda _, tree: os.kill(pid_of(tree, "host.mjs"), signal.SIGKILL),
    "agent": lambda _, tree: os.kill(pid_of(tree, "demo_agent.py"), signal.SIGKILL),
}


@pytest.mark.parametrize("victim", KILLS)
def test_nothing_survives_the_kill_of(start_server: StartServer, victim: str) -> None:
    """SIGKILL one of them: within two seconds the whole tree is dead."""
    server = start_server().wait_ready()
    _, _, tree = grow_worst_tree(server)
    KILLS[victim](server, tree)
    wait_until(lambda: is_gone(tree), "the tree is dead", secs=GONE_SECS)
    if victim != "service":
        assert server.process.poll() is None


def test_nothing_survives_a_close_in_mid_turn(start_server: StartServer) -> None:
    """The deaf agent is killed after the grace, and the answer comes when it is dead."""
    server = start_server(CLAWDFORGE_CANCEL_GRACE_SECS="0.2").wait_ready()
    app, session, tree = grow_worst_tree(server)
    assert app.delete(f"/sessions/{session}").json() == {"ok": True}
    assert is_gone(tree)


def test_service_and_warden_killed_at_once_are_swept_at_the_next_start(
    start_server: StartServer,
) -> None:
    """What a double kill leaves is gone when the next life is ready, and nothing else is."""
    server = start_server().wait_ready()
    _, _, tree = grow_worst_tree(server)
    warden = pid_of(tree, "warden.py")
    os.kill(server.process.pid, signal.SIGSTOP)  # so that it cannot mop up in between
    os.kill(warden, signal.SIGKILL)
    server.kill()
    start_server().wait_ready()
    assert is_gone(tree)
