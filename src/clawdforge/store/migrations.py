"""The schema, as numbered steps that only go forward; ``PRAGMA user_version`` is the last one done.

A step that has been released is never edited: a change is a new step. Each runs in a transaction of
its own, so a database is always at one whole version, whatever kills the process. Columns that the
HTTP contract does not name have defaults, so that a row written by another program is complete.
"""

from __future__ import annotations

from typing import Final

import apsw

from clawdforge.errors import StoreUnavailable

SESSIONS_AND_TURNS: Final = """
CREATE TABLE apps (
  name TEXT NOT NULL PRIMARY KEY,
  token_sha256 TEXT NOT NULL,
  ip_cidrs TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(ip_cidrs)),
  created_at INTEGER NOT NULL,
  revoked_at INTEGER
);
CREATE UNIQUE INDEX apps_by_token ON apps (token_sha256) WHERE revoked_at IS NULL;

CREATE TABLE sessions (
  session_id TEXT NOT NULL PRIMARY KEY,
  app_name TEXT NOT NULL,
  agent TEXT NOT NULL,
  model TEXT,
  created_at INTEGER NOT NULL,
  last_turn_at INTEGER,
  closed_at INTEGER,
  turn_count INTEGER NOT NULL DEFAULT 0,
  meta TEXT DEFAULT '{}' CHECK (json_valid(meta)),
  permissions TEXT NOT NULL DEFAULT 'approve-reads',
  can_resume INTEGER NOT NULL DEFAULT 0,
  close_cause TEXT
);
CREATE INDEX sessions_by_app ON sessions (app_name, created_at DESC, session_id);
CREATE INDEX sessions_by_age ON sessions (created_at, session_id);

CREATE TABLE session_events (
  id INTEGER PRIMARY KEY,
  session_id TEXT NOT NULL,
  event TEXT NOT NULL,
  at INTEGER NOT NULL,
  meta TEXT DEFAULT '{}' CHECK (json_valid(meta))
);
CREATE INDEX session_events_by_session ON session_events (session_id, id);

-- The two long columns come last: SQLite walks through a row to reach the ones behind them.
CREATE TABLE turns (
  session_id TEXT NOT NULL,
  turn_index INTEGER NOT NULL,
  started_at INTEGER NOT NULL,
  ended_at INTEGER,
  ending TEXT,
  stop_reason TEXT,
  duration_ms INTEGER,
  detail TEXT,
  prompt TEXT NOT NULL,
  text TEXT,
  PRIMARY KEY (session_id, turn_index)
);
CREATE INDEX turns_without_ending ON turns (session_id, turn_index) WHERE ending IS NULL;

-- A session's texts go with its row, whoever deletes it.
CREATE TRIGGER turns_go_with_their_session AFTER DELETE ON sessions BEGIN
  DELETE FROM turns WHERE session_id = OLD.session_id;
END;
"""

FILES: Final = """
CREATE TABLE files (
  token_sha256 TEXT NOT NULL PRIMARY KEY,
  app_name TEXT NOT NULL,
  name TEXT NOT NULL,
  size INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  held_until INTEGER NOT NULL DEFAULT 0
);
"""

EVENT_LOG: Final = """
CREATE TABLE agent_events (
  session_id TEXT NOT NULL,
  number INTEGER NOT NULL,
  message TEXT NOT NULL,
  PRIMARY KEY (session_id, number)
) WITHOUT ROWID;
ALTER TABLE sessions ADD COLUMN last_event INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN event_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE turns ADD COLUMN first_event INTEGER;
ALTER TABLE turns ADD COLUMN last_event INTEGER;

-- What an agent said goes with the session, whoever deletes it.
CREATE TRIGGER events_go_with_their_session AFTER DELETE ON sessions BEGIN
  DELETE FROM agent_events WHERE session_id = OLD.session_id;
END;
"""

KEYS: Final = """
CREATE TABLE turn_keys (
  session_id TEXT NOT NULL,
  name TEXT NOT NULL,
  fields_sha256 TEXT NOT NULL,
  turn_index INTEGER NOT NULL,
  PRIMARY KEY (session_id, name)
) WITHOUT ROWID;

-- The answer of a creation outlives its session, so it is kept here as it was given.
CREATE TABLE creation_keys (
  app_name TEXT NOT NULL,
  name TEXT NOT NULL,
  fields_sha256 TEXT NOT NULL,
  session_id TEXT NOT NULL,
  agent TEXT NOT NULL,
  model TEXT,
  created_at INTEGER NOT NULL,
  PRIMARY KEY (app_name, name)
) WITHOUT ROWID;
CREATE INDEX creation_keys_by_age ON creation_keys (created_at);

CREATE TABLE kept_events (
  session_id TEXT NOT NULL,
  turn_index INTEGER NOT NULL,
  events TEXT NOT NULL,
  PRIMARY KEY (session_id, turn_index)
);
ALTER TABLE turns ADD COLUMN facts TEXT;

CREATE TRIGGER keys_go_with_their_session AFTER DELETE ON sessions BEGIN
  DELETE FROM turn_keys WHERE session_id = OLD.session_id;
  DELETE FROM kept_events WHERE session_id = OLD.session_id;
END;
"""

RUNS: Final = """
CREATE TABLE runs (
  run_id TEXT NOT NULL PRIMARY KEY,
  app_name TEXT NOT NULL,
  model TEXT NOT NULL,
  started_at INTEGER NOT NULL,
  prompt_chars INTEGER NOT NULL,
  system_chars INTEGER NOT NULL DEFAULT 0,
  file_count INTEGER NOT NULL DEFAULT 0,
  outcome TEXT,
  stop_reason TEXT,
  ended_at INTEGER,
  duration_ms INTEGER,
  result_chars INTEGER,
  prompt TEXT,
  result TEXT
);
CREATE INDEX runs_by_app ON runs (app_name, started_at);
CREATE INDEX runs_by_age ON runs (started_at);
CREATE INDEX session_events_by_age ON session_events (at);
"""

LEANER_INDEXES: Final = """
-- Each index is one more page in a commit. Nearly all events are of turns, and nothing looks for
-- those of a session here; whoever wants all sessions in order can sort them as well.
DROP INDEX session_events_by_session;
CREATE INDEX session_events_by_session ON session_events (session_id, id) WHERE event <> 'turn';
DROP INDEX sessions_by_age;
"""

MIGRATIONS: Final[tuple[str, ...]] = (
    SESSIONS_AND_TURNS,
    EVENT_LOG,
    FILES,
    KEYS,
    RUNS,
    LEANER_INDEXES,
)
"""``MIGRATIONS[n]`` leads from version n to version n + 1."""


def migrate(db: apsw.Connection, steps: tuple[str, ...] = MIGRATIONS) -> None:
    """Bring a database to the newest version; a no-op when it is there.

    Raises StoreUnavailable, having changed nothing, for a database of a newer version or of another
    program. Two processes may do this at once: the version is read again under the write lock.
    """
    _refuse_strangers(db, newest=len(steps))
    while schema_version(db) < len(steps):
        _step(db, steps)


def schema_version(db: apsw.Connection) -> int:
    """How many migrations the database has seen."""
    return int(db.pragma("user_version"))


def _refuse_strangers(db: apsw.Connection, *, newest: int) -> None:
    version = schema_version(db)
    if version > newest:
        raise StoreUnavailable(
            f"the database is of a newer version of clawdforge (schema {version}; "
            f"this one knows schemas up to {newest})"
        )
    if version == 0 and db.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall():
        raise StoreUnavailable("the database belongs to another program")


def _step(db: apsw.Connection, steps: tuple[str, ...]) -> None:
    db.execute("BEGIN IMMEDIATE")
    try:
        version = schema_version(db)
        if version < len(steps):
            db.execute(steps[version])
            db.pragma("user_version", version + 1)
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
