"""What a turn waits for: one commit before the agent is asked, one before the answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import apsw
import httpx2 as httpx
import pytest

from clawdforge.store import writer
from clawdforge.store.writer import Write, commit_together
from clawdforge.testing import running_server


class Commits:
    """Counts transactions on their way to the disk, and what each held."""

    def __init__(self) -> None:
        self.operations: list[list[str]] = []

    def __call__(self, db: apsw.Connection, writes: Sequence[Write[Any]]) -> None:
        names = [write.operation.func.__name__ for write in writes]  # type: ignore[attr-defined]  # partials
        self.operations.append(names)
        commit_together(db, writes)


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> Commits:
    """Stands in the writer's way."""
    counting = Commits()
    monkeypatch.setattr(writer, "commit_together", counting)
    return counting


@pytest.mark.parametrize("prompt", ["hello", "flood: 200"])
@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
def test_a_turn_is_two_commits(commits: Commits, prompt: str, accept: str) -> None:
    """Its events, however many come within a moment, go with its ending and are no commit more."""
    with running_server() as server:
        headers = {"Authorization": f"Bearer {server.mint('kitchen')}", "Accept": accept}
        with httpx.Client(base_url=server.base_url, headers=headers) as client:
            created = client.post("/sessions", json={"agent": "demo"}).raise_for_status()
            path = f"/sessions/{created.json()['session_id']}/turn"
            for _ in range(3):
                commits.operations.clear()
                client.post(path, json={"prompt": prompt}).raise_for_status()
                assert commits.operations == [["begin_turn"], ["end_turn"]]
