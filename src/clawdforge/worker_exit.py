"""The exit code of the ``hypercorn`` command when its only worker fails.

Hypercorn 0.18 asks twice which workers have exited, and takes the second answer: by then the failed
one has been struck off the list, and the command ends with 0. A service manager would believe that
all is well. Here the worst code is remembered. ``clawdforge serve`` has no use for this; a test
holds Hypercorn to the shape that this was written for.
"""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing.process import BaseProcess

import hypercorn.run

Join = Callable[[list[BaseProcess]], int]


def remembering(join: Join) -> Join:
    """``join``, but once a worker has failed the answer stays what it was."""
    worst = 0

    def remember(processes: list[BaseProcess]) -> int:
        nonlocal worst
        code = join(processes)
        worst = worst or code
        return worst

    return remember


def keep_exit_code() -> None:
    """Make the command end with the code of the worker that failed. For the whole process."""
    original = hypercorn.run._join_exited  # noqa: SLF001 - there is no other way in
    hypercorn.run._join_exited = remembering(original)  # type: ignore[assignment] # noqa: SLF001
