"""What the service asks of the Linux kernel for itself, once, at start. Never done on import.

Only ``serve`` and ``clawdforge.asgi`` call these: inside somebody else's process
(``clawdforge.testing``) none of it is ours to change.
"""

from __future__ import annotations

import ctypes
import os
import resource
from typing import Final

_PR_SET_DUMPABLE: Final = 4
_PR_SET_CHILD_SUBREAPER: Final = 36

SOFT_OPEN_FILES: Final = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
"""The soft limit of open files this process was born with. Children get it back: programs that
use ``select`` break on file descriptors above 1023, so a raised limit must not leak to them."""


def become_subreaper() -> None:
    """Adopt the orphans of a warden that was killed, so that they can be reaped.

    Raises OSError.
    """
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def set_not_dumpable() -> None:
    """Hide this process's environment and memory from other processes of the same user.

    Children are dumpable again once they run their program. Raises OSError.
    """
    _prctl(_PR_SET_DUMPABLE, 0)


def raise_open_files() -> int:
    """Raise the soft limit of open files to the hard one; answers the limit that now holds.

    Children are given ``SOFT_OPEN_FILES`` back.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_ulong(0)
    if libc.prctl(option, ctypes.c_ulong(value), zero, zero, zero) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
