"""Directories of sessions that are no more: what a service that was killed had no time to remove.

The rule: *a directory is kept only for a row that says so.* To be called at start, by the holder of
the data directory, before any session lives.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path


def remove_orphans(folder: Path, keep: Collection[str]) -> int:
    """Remove all in ``folder`` that is not named in ``keep``; how many there were. Blocks.

    What cannot be removed is left for the next start. No such folder: nothing to do.
    """
    if not folder.is_dir():
        return 0
    orphans = [path for path in folder.iterdir() if path.name not in keep]
    for path in orphans:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return len(orphans)
