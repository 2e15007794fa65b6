"""What a session costs, and what happens when there is too little of it: refused early, alive."""

from __future__ import annotations

import re
import socket
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from clawdforge.domain.limits import OWN_FILES, TREE_FILES
from tests.system.conftest import Server, StartServer, open_session, processes_of, say

pytestmark = pytest.mark.system

LIMITED = (
    "import os, resource, sys\n"
    "soft, hard = map(int, sys.argv[1:3])\n"
    "resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))\n"
    "os.execv(sys.argv[3], sys.argv[3:])\n"
)

GIB = 1024**3


def limited(soft: int, hard: int) -> list[str]:
    """The words before a command that limit its open files."""
    return [sys.executable, "-c", LIMITED, str(soft), str(hard)]


def count_files(server: Server) -> int:
    """Descriptors of the service, which only root may look at: it is not dumpable."""
    try:
        return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))
    except PermissionError:
        pytest.skip("only root may count the descriptors of a process that is not dumpable")


def test_a_session_costs_five_descriptors_and_three_processes(start_server: StartServer) -> None:
    """Measured on the real thing, and given back: the plan of descriptors stands on it."""
    server = start_server().wait_ready()
    app = server.app()
    app.delete(f"/sessions/{open_session(app)}").raise_for_status()
    at_rest = count_files(server)
    assert at_rest < OWN_FILES
    sessions = [open_session(app) for _ in range(2)]
    for session in sessions:
        say(app, session, "hello").raise_for_status()
    assert count_files(server) == at_rest + 2 * TREE_FILES
    assert len(processes_of(server.data_dir)) == 2 * 3
    for session in sessions:
        app.delete(f"/sessions/{session}").raise_for_status()
    assert count_files(server) == at_rest


def test_256_open_files_are_enough_for_the_default(start_server: StartServer) -> None:
    """With a flood of callers some are told 503; sessions open all the same, and nothing dies."""
    server = start_server(*limited(128, 256)).wait_ready()
    app = server.app()
    app.get("/sessions").raise_for_status()  # its connection is there before the flood
    place = urlsplit(server.url)
    with ExitStack() as callers:
        refused = 0
        for _ in range(120):
            caller = socket.create_connection((place.hostname, place.port), timeout=30)
            callers.enter_context(caller)
            caller.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            refused += b" 503 " in caller.recv(100)
        assert 50 < refused < 120
        sessions = [open_session(app) for _ in range(2)]
        for session in sessions:
            say(app, session, "hello").raise_for_status()
    assert app.get("/livez").status_code == 200
    assert server.terminate() == 0


def test_a_cap_that_does_not_fit_is_lowered_with_a_line(start_server: StartServer) -> None:
    """Three sessions fit: the log says so, and the fourth is told that the pool is full."""
    server = start_server(*limited(140, 140), CLAWDFORGE_START_CONCURRENCY="4").wait_ready()
    assert "fewer sessions than asked for" in server.log()
    app = server.app()
    for _ in range(3):
        open_session(app)
    refused = app.post("/sessions", json={"agent": "demo"})
    assert refused.status_code == 503
    assert "all 3 session slots" in refused.json()["detail"]
    assert app.get("/livez").status_code == 200


def test_a_limit_that_allows_no_session_stops_the_start(start_server: StartServer) -> None:
    """One line that says what to raise, before anything is served."""
    server = start_server(*limited(100, 100))
    assert server.process.wait(60) == 2
    assert "100 open files are too few" in server.log()
    assert "ulimit" in server.log()


def test_large_bodies_never_take_all_memory(start_server: StartServer) -> None:
    """Forty bodies of 16 MiB at once: some are read, others told 503, and it stays below 1 GiB."""
    server = start_server().wait_ready()
    app = server.app()
    body = b'{"prompt": "' + b"x" * (16 * 1024 * 1024 - 100) + b'", "unknown": 1}'
    statuses: list[int] = []

    def send() -> None:
        statuses.append(app.post("/sessions/none-0123456789abcdef/turn", content=body).status_code)

    senders = [threading.Thread(target=send) for _ in range(40)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join(120)
    assert len(statuses) == 40
    assert set(statuses) == {422, 503}
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    assert int(found[1]) * 1024 < GIB
    assert app.get("/livez").status_code == 200
