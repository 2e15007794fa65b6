"""One fixture for both twins, one for the file."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from clawdforge.domain.ports import Store
from clawdforge.store.memory import MemoryStore
from clawdforge.store.sqlite import SqliteStore, open_sqlite_store


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Where the database file goes; it does not exist yet."""
    return tmp_path / "clawdforge.db"


@pytest.fixture
async def sqlite_store(database: Path) -> AsyncIterator[SqliteStore]:
    """A ledger in a file."""
    async with open_sqlite_store(database) as store:
        yield store


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, database: Path) -> AsyncIterator[Store]:
    """Either twin: a test with this fixture is a clause of the contract."""
    if request.param == "memory":
        yield MemoryStore()
        return
    async with open_sqlite_store(database) as real:
        yield real
