"""Whatever a caller sends, it gets a proper answer, and the server is no worse for it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.fuzz.hostile import Known, Request, make_request
from tests.fuzz.wire import Answer, Caller

PROBLEM: Final = {"type", "title", "status", "detail", "instance", "ok"}

WARM_UP: Final = 1500
"""Requests after which caches, pools and the interpreter's own memory have their size."""

GROWTH_KIB: Final = 8 * 1024
"""What the server may weigh more after ten thousand of them, for SQLite's page cache and the
allocator's noise: measured 2.4 MiB. Keeping 1 KiB of each request would be 10 MiB."""


@contextmanager
def victim() -> Iterator[dict[str, Any]]:
    """A server in a process of its own: what it says of itself."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fuzz.victim"],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())
        process.stdin.close()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait(60)
        process.stdin.close()
        process.stdout.close()


def attack(told: dict[str, Any], numbers: range) -> Counter[int]:
    """Send these requests, look at every answer; how many there were of each status."""
    known = Known(told["token"], told["admin"], told["session"], told["file"])
    statuses: Counter[int] = Counter()
    with Caller(told["port"]) as caller:
        for number in numbers:
            request = make_request(number, known)
            answer = caller.ask(request.raw, has_body=request.method != "HEAD")
            look_at(number, request, answer, told)
            statuses[answer.status] += 1
    return statuses


def look_at(number: int, request: Request, answer: Answer, told: dict[str, Any]) -> None:
    """Fail, naming the request, unless the answer is a proper one."""
    what = f"request {number} ({request.label}): {answer.status} {answer.body[:300]!r}"
    assert answer.status != 500, what
    for secret in (told["admin"], told["folder"], "Traceback"):
        assert secret.encode() not in answer.body, what
    if answer.status < 400 or request.method == "HEAD":
        return
    assert answer.body.startswith(b"{"), what
    document = answer.json
    if answer.status == 502 and "stderr" in document:  # the flat body of a run
        assert document["ok"] is False, what
        return
    assert answer.headers["content-type"] == "application/problem+json", what
    assert set(document) >= PROBLEM, what
    assert (document["status"], document["ok"]) == (answer.status, False), what


def resident_kib(pid: int) -> int:
    """The memory of a process (proc(5), VmRSS)."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


def test_five_hundred_hostile_requests() -> None:
    """Each gets its answer: a success, or a problem document that is no 500."""
    with victim() as told:
        statuses = attack(told, range(500))
    assert statuses.total() == 500
    assert {200, 401, 404, 405, 422} <= set(statuses)


@pytest.mark.fuzz
@pytest.mark.timeout(600)
def test_ten_thousand_hostile_requests_leave_memory_flat() -> None:
    """And the server weighs what it did when it had warmed up."""
    with victim() as told:
        attack(told, range(WARM_UP))
        before = resident_kib(told["pid"])
        statuses = attack(told, range(WARM_UP, WARM_UP + 10_000))
        after = resident_kib(told["pid"])
    assert statuses.total() == 10_000
    assert after - before < GROWTH_KIB, f"{before} KiB before, {after} KiB after"
