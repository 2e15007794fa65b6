"""The shelf of uploaded files: bytes in a folder of ours, and a row in the ledger for each.

The rule: *a file without a row goes*. A row is written when its file is whole and on the disk; an
upload that is left, refused or killed has none, and its file is removed at once or by a sweep.
Names are random and ours; a token opens exactly one file for exactly one app.
"""

from __future__ import annotations

import hashlib
import math
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final, Protocol, TypeVar

import attrs
import trio

from clawdforge.domain.files import FileRow, pick_extension
from clawdforge.domain.ids import AppName
from clawdforge.domain.ports import Store
from clawdforge.errors import FilesUnavailable, TooLarge, UnknownFileToken

Result = TypeVar("Result")

TOKEN_BYTES: Final = 32
NAME_BYTES: Final = 16

UNFINISHED: Final = ".part"
"""The extension of a file that is being received."""


class RunSync(Protocol):
    """Runs a plain function where it may wait for a disk (trio's ``to_thread.run_sync``)."""

    def __call__(self, function: Callable[..., Result], /, *args: object) -> Awaitable[Result]:
        """Call it with ``args`` and answer its result."""


@attrs.frozen(kw_only=True)
class DiskShelf:
    """Implements :class:`clawdforge.domain.files.FileShelf` with one file a token in ``folder``.

    The folder is made when it is needed. ``now`` is Unix seconds. ``run_sync`` is where the disk is
    waited for: a test on a virtual clock, which allows no threads, runs it in place.
    """

    store: Store
    folder: Path
    max_bytes: int
    now: Callable[[], int]
    run_sync: RunSync = trio.to_thread.run_sync
    _in_hand: set[str] = attrs.field(factory=set, init=False)
    """Stems of the names of files that are being received: no sweep may touch them."""

    @asynccontextmanager
    async def receive(self, app: AppName) -> AsyncIterator[DiskUpload]:
        """See the port."""
        stem = secrets.token_hex(NAME_BYTES)
        self._in_hand.add(stem)
        try:
            with _explaining():
                descriptor = await self.run_sync(_create, self.folder, stem + UNFINISHED)
            upload = DiskUpload(self, app, stem, descriptor)
            try:
                yield upload
            finally:
                with trio.CancelScope(shield=True):  # a close and an unlink: the disk bounds them
                    await self.run_sync(upload.let_go)
        finally:
            self._in_hand.discard(stem)

    async def claim(
        self, app: AppName, tokens: Sequence[str], *, hold_secs: float
    ) -> Sequence[Path]:
        """See the port. A file that somebody removed from the folder is as unknown as any."""
        if not tokens:
            return ()
        now = self.now()
        digests = [digest_token(token) for token in tokens]
        until = now + math.ceil(hold_secs)
        names = await self.store.claim_files(app, digests, now=now, until=until)
        paths = [None if name is None else self.folder / name for name in names]
        here = await self.run_sync(_only_files, paths)
        if missing := [index for index, path in enumerate(here) if path is None]:
            raise UnknownFileToken.at(missing)
        return [path for path in here if path is not None]

    async def sweep(self) -> int:
        """See the port.

        The order matters: first the folder, then what is in hand, then the rows. A file that was
        seen and was not in hand any more had its row, if it ever gets one.
        """
        seen = await self.run_sync(_names_in, self.folder)
        settled = {name for name in seen if name.partition(".")[0] not in self._in_hand}
        kept = await self.store.expire_files(now=self.now())
        gone = sorted(settled - kept)
        await self.run_sync(_remove, [self.folder / name for name in gone])
        return len(gone)


@attrs.define(eq=False)
class DiskUpload:
    """A file that is being received by a :class:`DiskShelf`. Used by one task."""

    _shelf: DiskShelf
    _app: AppName
    _stem: str
    _descriptor: int
    size: int = 0
    _is_kept: bool = False

    def __repr__(self) -> str:
        return f"<DiskUpload {self.size} bytes{' kept' if self._is_kept else ''}>"

    async def write(self, data: bytes) -> None:
        """See the port."""
        if self.size + len(data) > self._shelf.max_bytes:
            raise TooLarge("upload", self._shelf.max_bytes)
        with _explaining():
            await self._shelf.run_sync(_write_all, self._descriptor, data)
        self.size += len(data)

    async def keep(self, *, ttl_secs: int, client_name: str | None) -> str:
        """See the port."""
        name = self._stem + pick_extension(client_name)
        with _explaining():
            await self._shelf.run_sync(self._finish, name)
        token = "ff_" + secrets.token_urlsafe(TOKEN_BYTES)
        at = self._shelf.now()
        row = FileRow(self._app, name, self.size, created_at=at, expires_at=at + ttl_secs)
        await self._shelf.store.add_file(row, digest_token(token))
        self._is_kept = True
        return token

    def _finish(self, name: str) -> None:
        """On the disk for good, under its last name, before any row says so."""
        os.fsync(self._descriptor)
        folder = self._shelf.folder
        (folder / (self._stem + UNFINISHED)).rename(folder / name)

    def let_go(self) -> None:
        """Close it, and remove it unless it was kept. Waits for the disk; never raises."""
        with suppress(OSError):
            os.close(self._descriptor)
        if not self._is_kept:
            _remove(self._shelf.folder.glob(f"{self._stem}.*"))
            _remove([self._shelf.folder / self._stem])


def digest_token(token: str) -> str:
    """What the ledger keeps of a file's token: its SHA-256, in hexadecimal."""
    return hashlib.sha256(token.encode()).hexdigest()


@contextmanager
def _explaining() -> Iterator[None]:
    """Turn what the file system raises into FilesUnavailable, free of paths."""
    try:
        yield
    except OSError as error:
        raise FilesUnavailable((error.strerror or "unknown error").lower()) from error


# --- what waits for the disk ----------------------------------------------------------------------


def _create(folder: Path, name: str) -> int:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(folder / name, flags, 0o600)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _names_in(folder: Path) -> list[str]:
    with _explaining():
        return [path.name for path in folder.iterdir()] if folder.exists() else []


def _only_files(paths: Sequence[Path | None]) -> list[Path | None]:
    return [path if path is not None and path.is_file() else None for path in paths]


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        with suppress(OSError):
            path.unlink()
