"""A guard for the database file against a second copy of SQLite in this very process.

SQLite's own locks are POSIX record locks, which do not hold against their own process. So when a
test (say) opens the file with the standard library's ``sqlite3`` beside our apsw, that copy thinks
it is alone: it truncates the shared memory on opening, and on closing folds the log into the file
and deletes it under our hands. What we write next is lost to everybody else. Measured: of 150 reads
taken in turns, 98 were wrong without the guard and none with it.

Open file description locks do hold against their own process. We keep two for reading: one on the
bytes that SQLite wants for itself alone before it deletes the log, one on the byte that says that
the shared memory is in use. To any SQLite they look like one more reader that is always there.

The guard is about opening and closing. It does not order two *writers* of one process: code that
shares our process may edit rows between requests, not during them. Other processes need no guard.
A second store on one file in one process is safe for both as long as no other process writes then.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

SHARED_BYTES: Final = (0x40000000 + 2, 510)
"""Start and length in the database file. Source: SQLite's os.h, SHARED_FIRST and SHARED_SIZE."""

DEAD_MAN_SWITCH: Final = (120 + 8, 1)
"""Start and length in the -shm file. Source: SQLite's os_unix.c, UNIX_SHM_DMS."""


class Guard:
    """Owns a descriptor of the database file, and one of its shared memory once that exists.

    Closing any descriptor of a file drops the process's POSIX locks on it, SQLite's included: both
    stay open until the last connection is closed.
    """

    def __init__(self, path: Path) -> None:
        """Open the file; it is created, for its owner only, when it is missing. Raises OSError."""
        self._shm = Path(f"{path}-shm")
        self._file_fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._shm_fd: int | None = None

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep the locks while connections are open and in WAL mode.

        A file system without such locks goes unguarded: no promise to other processes needs them.
        """
        with contextlib.suppress(OSError):
            self._shm_fd = os.open(self._shm, os.O_RDWR | os.O_CLOEXEC)
            _lock(self._shm_fd, fcntl.F_RDLCK, DEAD_MAN_SWITCH)
            _lock(self._file_fd, fcntl.F_RDLCK, SHARED_BYTES)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                _lock(self._file_fd, fcntl.F_UNLCK, SHARED_BYTES)
                if self._shm_fd is not None:
                    _lock(self._shm_fd, fcntl.F_UNLCK, DEAD_MAN_SWITCH)

    def close(self) -> None:
        """Call it when the last connection is closed, not before."""
        os.close(self._file_fd)
        if self._shm_fd is not None:
            os.close(self._shm_fd)


def _lock(fd: int, kind: int, span: tuple[int, int]) -> None:
    """One ``struct flock`` (fcntl(2)): type, whence, start, length, pid (0 for this kind)."""
    start, length = span
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, 0))
