"""What goes wrong with a database, in plain words: where foreign exceptions become ours.

The words never name a file: they are shown to callers and written to logs.
"""

from __future__ import annotations

import os
from typing import Final

import apsw

from clawdforge.errors import StoreUnavailable


class FileMoved(Exception):
    """The database file is no longer where it was opened: a commit would be written to nowhere."""


FOREIGN: Final = (apsw.Error, FileMoved)
"""What an operation on a connection may raise that has to stop at the adapter."""

REASONS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (apsw.FullError, "the disk is full"),
    (apsw.BusyError, "another program holds the lock"),
    (apsw.LockedError, "another program holds the lock"),
    (apsw.ReadOnlyError, "the database is read-only"),
    (apsw.PermissionsError, "the database may not be accessed"),
    (apsw.CantOpenError, "the database cannot be opened"),
    (apsw.NotADBError, "the file is not a database"),
    (apsw.CorruptError, "the database is damaged"),
    (apsw.IOError, "the disk refuses to read or write"),
    (apsw.NoMemError, "there is not enough memory"),
    (FileMoved, "the database file was moved or deleted"),
    (apsw.ConnectionClosedError, "the ledger is closed"),
    (apsw.SQLError, "the database does not have the expected tables"),
    (ValueError, "a row was changed into something that cannot be read"),
    (TypeError, "a row was changed into something that cannot be read"),
)
"""First match wins. The classes are those of https://rogerbinns.github.io/apsw/exceptions.html"""


def unavailable(error: Exception) -> StoreUnavailable:
    """What to raise (``from error``) for an error of SQLite, of a row, or of the file system."""
    if isinstance(error, OSError) and error.errno is not None:
        return StoreUnavailable(f"the database cannot be opened ({os.strerror(error.errno)})")
    for kind, reason in REASONS:
        if isinstance(error, kind):
            return StoreUnavailable(reason)
    return StoreUnavailable("the database refused")
