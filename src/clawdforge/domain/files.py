"""Uploaded files as values, and the shelf that keeps them: what routes, runs and turns ask of it.

A client's name for a file is never a path of ours: of all it says, only an extension of plain
letters and digits is kept. Pure; the shelf itself is ``store.files``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final, Protocol

import attrs

from clawdforge.domain.ids import AppName

MIN_TTL_SECS: Final = 60
MAX_TTL_SECS: Final = 86_400
DEFAULT_TTL_SECS: Final = 3600
"""How long an uploaded file is kept: the HTTP contract's ``POST /files``."""

_EXTENSION: Final = re.compile(r"\.[A-Za-z0-9]{1,16}\Z")


@attrs.frozen
class FileRow:
    """An uploaded file, as the ledger knows it: by its token's SHA-256, never by the token.

    ``name`` is ours, unguessable, one path component. The file may be claimed before ``expires_at``
    and must stay on the disk until ``held_until`` as well: work that claimed it may still wait.
    """

    app_name: AppName
    name: str
    size: int
    created_at: int
    expires_at: int
    held_until: int = 0


def pick_extension(client_name: str | None) -> str:
    """The extension to keep of a client's name for a file: ``.txt``, or nothing."""
    found = _EXTENSION.search(client_name or "")
    return found[0] if found else ""


class Upload(Protocol):
    """A file that is being received. Whatever is not kept is gone when its block ends."""

    async def write(self, data: bytes) -> None:
        """Take the next bytes. Raises TooLarge past the cap; FilesUnavailable (disk full, ...)."""

    @property
    def size(self) -> int:
        """Bytes taken so far."""

    async def keep(self, *, ttl_secs: int, client_name: str | None) -> str:
        """Keep it for so long, and answer its token: ``ff_…``, the only time that it is shown.

        Returns when it is on the disk and in the ledger. Raises FilesUnavailable, StoreUnavailable;
        cancelled, it may have been kept, under a token that nobody knows.
        """


class FileShelf(Protocol):
    """The uploaded files of all apps. Methods may also raise StoreUnavailable."""

    def receive(self, app: AppName) -> AbstractAsyncContextManager[Upload]:
        """Begin to receive a file of the app's; called by the upload route.

        Raises FilesUnavailable. Leaving the block without ``keep`` leaves nothing.
        """

    async def claim(
        self, app: AppName, tokens: Sequence[str], *, hold_secs: float
    ) -> Sequence[Path]:
        """The app's files behind the tokens, in their order; they stay for at least ``hold_secs``.

        Called when a run or a turn is admitted, with all the time that it may take. Raises
        UnknownFileToken, which names each token that is not the app's or whose time is over.
        """

    async def sweep(self) -> int:
        """Remove what is over, and files that no row knows; answers how many files went."""
