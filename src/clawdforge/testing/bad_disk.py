"""A disk that goes wrong on command, under SQLite only: the system's own disk is left alone.

It is a VFS of SQLite's (https://sqlite.org/vfs.html) around the ordinary one, made the default for
the connections that are opened while it is there. A fault may be set and taken back at any time,
from any thread; what was written before it is on the real disk. A lock that another program holds
needs no such thing: take it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal, get_args

import apsw

Fault = Literal["none", "full", "read-only", "broken", "corrupt", "slow"]
"""``full``, ``read-only``, ``broken``: no write succeeds. ``corrupt``: pages read from the database
file (but the first, and not from its log) are rubbish. ``slow``: each wait for the disk is long."""

FAULTS: Final[tuple[Fault, ...]] = get_args(Fault)

NAME: Final = "clawdforge-bad-disk"

ORDINARY: Final = "unix"

_REFUSALS: Final[dict[Fault, type[apsw.Error]]] = {
    "full": apsw.FullError,
    "read-only": apsw.ReadOnlyError,
    "broken": apsw.IOError,
}


class BadDisk(apsw.VFS):
    """The disk: well until ``fault`` says otherwise. ``slow_secs``: how long a slow wait takes.

    ``refused`` counts what it has refused, spoilt or delayed, so that a test knows it was met.
    """

    def __init__(self) -> None:
        self.fault: Fault = "none"
        self.slow_secs = 0.2
        self.refused = 0
        super().__init__(NAME, base=ORDINARY, makedefault=True)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> BadFile:  # noqa: N802 - SQLite's
        """Open one file through us."""
        return BadFile(self, name, flags)


class BadFile(apsw.VFSFile):
    """One open file on the disk."""

    def __init__(
        self, disk: BadDisk, name: str | apsw.URIFilename | None, flags: list[int]
    ) -> None:
        self._disk = disk
        self._is_database = bool(flags[0] & apsw.SQLITE_OPEN_MAIN_DB)
        super().__init__(ORDINARY, name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802 - SQLite's
        """Write, unless the disk refuses."""
        self._refuse()
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:  # noqa: N802 - SQLite's
        """Cut, unless the disk refuses."""
        self._refuse()
        super().xTruncate(newsize)

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802 - SQLite's
        """Read, or rubbish in the place of a page."""
        data = super().xRead(amount, offset)
        if self._disk.fault == "corrupt" and self._is_database and offset > 0:
            self._disk.refused += 1
            return b"\xff" * len(data)
        return data

    def xSync(self, flags: int) -> None:  # noqa: N802 - SQLite's
        """Wait for the disk, which may take its time."""
        if self._disk.fault == "slow":
            self._disk.refused += 1
            time.sleep(self._disk.slow_secs)  # in SQLite's own thread
        super().xSync(flags)

    def _refuse(self) -> None:
        refusal = _REFUSALS.get(self._disk.fault)
        if refusal is not None:
            self._disk.refused += 1
            raise refusal(self._disk.fault)


@contextmanager
def open_bad_disk() -> Iterator[BadDisk]:
    """Have databases that are opened in the block lie on a bad disk. Close them before its end."""
    disk = BadDisk()
    try:
        yield disk
    finally:
        disk.fault = "none"
        disk.unregister()
