"""What a limit of open files allows: how many sessions, how many connections. Pure.

A session's processes cost the service five descriptors, whatever they do: the ends of three pipes,
the lifeline, and the process itself (measured: tests/system/test_limits.py). What is left is for
connections, so that a flood of callers cannot take what the sessions need, nor the other way round.
"""

from __future__ import annotations

from typing import Final

import attrs

OWN_FILES: Final = 48
"""The service's own: 11 for the ledger, the listening socket, the event loop, standard streams;
measured 28 at rest; the rest is for what is read or written in passing."""

TREE_FILES: Final = 5
"""One tree of processes, a session's or a run's."""

START_FILES: Final = 6
"""More of them while it starts: the child's own ends, and the pipe that tells of a failed exec."""

CONNECTION_FILES: Final = 2
"""The socket, and a file that is taken in or handed out over it."""

MAX_CONNECTIONS: Final = 1000

LEAST_CONNECTIONS: Final = 16
"""With fewer a service is of no use: /livez, a few streams, a few turns."""


@attrs.frozen
class FilePlan:
    """So many live sessions and so many connections fit under the limit."""

    sessions: int
    connections: int


def plan_files(limit: int | None, *, sessions: int, runs: int, starts: int) -> FilePlan | None:
    """Divide ``limit`` descriptors (None: no limit) among what is wanted.

    Sessions come first, up to ``sessions``, but never the last connections; None when not even one
    session fits.
    """
    if limit is None:
        return FilePlan(sessions, MAX_CONNECTIONS)
    rest = limit - OWN_FILES - TREE_FILES * runs - START_FILES * starts
    fitting = (rest - CONNECTION_FILES * LEAST_CONNECTIONS) // TREE_FILES
    if fitting < 1:
        return None
    allowed = min(sessions, fitting)
    connections = (rest - TREE_FILES * allowed) // CONNECTION_FILES
    return FilePlan(allowed, min(MAX_CONNECTIONS, connections))


def files_wanted(*, sessions: int, runs: int, starts: int) -> int:
    """The least limit under which all of them fit."""
    trees = TREE_FILES * (sessions + runs) + START_FILES * starts
    return OWN_FILES + trees + CONNECTION_FILES * LEAST_CONNECTIONS
