"""The way into a child: a pipe on which messages are never torn.

A write to a full pipe may be cancelled half-way. The rule: *a message of which a byte has been
written is written to its end before any other*; one of which nothing has been written is dropped.
"""

from __future__ import annotations

import os

import trio

from clawdforge.at_once import acquire


class ChildGone(Exception):
    """The child has ended, or reads its stdin no longer. Never leaves ``processes``."""


class StdinPipe:
    """The write end of a child's stdin. Owns ``fd`` and closes it."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._lock = trio.Lock()
        self._unsent = bytearray()

    @property
    def is_owed_a_rest(self) -> bool:
        """Whether a message was begun and not ended: its rest goes out before any other."""
        return bool(self._unsent)

    async def send(self, data: bytes) -> None:
        """Write ``data`` to its end, after whoever came first. Raises ChildGone.

        Waits as long as the child does not read: the caller bounds it. After a cancellation the
        message was written not at all, or its rest goes out before the next one. At most one
        message is held.
        """
        await acquire(self._lock)
        try:
            self._unsent += data
            await self._flush()
        finally:
            if len(self._unsent) >= len(data):  # not a byte of ours went out
                del self._unsent[len(self._unsent) - len(data) :]
            self._lock.release()

    async def _flush(self) -> None:
        while self._unsent:
            try:
                written = os.write(self._fd_or_gone(), self._unsent)
                del self._unsent[:written]
            except BlockingIOError:
                try:
                    await trio.lowlevel.wait_writable(self._fd_or_gone())
                except trio.ClosedResourceError:
                    raise ChildGone from None
            except BrokenPipeError:
                self.close()
                raise ChildGone from None

    def _fd_or_gone(self) -> int:
        if self._fd < 0:
            raise ChildGone
        return self._fd

    def close(self) -> None:
        """Give the child its end of input. Idempotent; a send under way gets ChildGone."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            trio.lowlevel.notify_closing(fd)
            os.close(fd)
