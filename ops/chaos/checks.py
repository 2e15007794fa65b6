"""What must hold after every step, seen from outside: /proc, the ledger's file, public routes."""

from __future__ import annotations

from typing import Final

import attrs

from ops.chaos.kills import GONE_SECS
from ops.chaos.victim import ChaosFailed, Victim, until
from ops.chaos.world import World

SETTLE_SECS: Final = GONE_SECS + 1
"""After a step: what it ended may take its grace (0.5 s) and the promise of two seconds."""

LATE_SECS: Final = 15.0
"""After a bad disk: endings that it refused are tried again every 5 s (actors.debts)."""

TREE_FILES: Final = 5
"""Descriptors of one live session (clawdforge.domain.limits)."""

SLACK_FILES: Final = 24
"""Connections of this very program, and what is open in passing."""

GROWTH_BYTES: Final = 200 * 1024 * 1024
"""What the memory may grow by, over what it was after the first turn: large turns leave heap behind
that is used again."""


@attrs.define
class Baseline:
    """The service at rest, at the begin of each of its lives."""

    life: int = 0
    files: int = 0
    resident_bytes: int = 0
    peak_files: int = 0
    peak_bytes: int = 0

    def take(self, victim: Victim) -> None:
        """Measure a new life once."""
        if self.life != victim.lives:
            self.life = victim.lives
            self.files = victim.count_files() - TREE_FILES * len(victim.trees())
            self.resident_bytes = max(self.resident_bytes, victim.resident_bytes())


def check_all(world: World, baseline: Baseline) -> None:
    """Every promise. Raises ChaosFailed."""
    if not world.victim.is_alive:
        raise ChaosFailed(f"the service died: {world.victim.last_words()}")
    until(lambda: not _stray_processes(world), "no process too many", SETTLE_SECS)
    until(lambda: _slots(world) == _live(world), "no slot leaked", SETTLE_SECS)
    patience_secs = LATE_SECS if world.doubtful else SETTLE_SECS
    until(lambda: not _open_turns(world), "every turn has its ending", patience_secs)
    world.doubtful.clear()
    check_ledger(world)
    check_size(world, baseline)


def _stray_processes(world: World) -> list[str]:
    """Sessions with processes that should have none, or with more than one tree."""
    live = _live(world)
    return [
        session
        for session, trees in world.victim.trees().items()
        if session not in live or len(trees) != 1
    ]


def _live(world: World) -> set[str]:
    listed = world.call("GET", "/sessions")["sessions"]
    return {row["session_id"] for row in listed if row["live"]}


def _slots(world: World) -> set[str] | int:
    """The live sessions, when as many slots are taken; else how many are."""
    taken, live = world.call("GET", "/healthz")["open_sessions"], _live(world)
    return live if taken == len(live) else int(taken)


def _open_turns(world: World) -> list[str]:
    rows = world.victim.ask("SELECT DISTINCT session_id FROM turns WHERE ending IS NULL")
    return [session for (session,) in rows]


def check_ledger(world: World) -> None:
    """What was acknowledged is there, word for word; no turn has two endings."""
    for known in world.sessions.values():
        query = "SELECT turn_index, text FROM turns WHERE session_id = ? AND ending = 'completed'"
        kept = dict(world.victim.ask(query, known.session_id))
        lost = {index: text for index, text in known.turns.items() if kept.get(index) != text}
        if lost:
            raise ChaosFailed(f"acknowledged turns are lost: {lost}")
    endings = world.victim.ask(
        "SELECT session_id, json_extract(meta, '$.turn_index') AS number, count(*)"
        " FROM session_events WHERE event = 'turn' GROUP BY 1, 2 HAVING count(*) > 1"
    )
    if endings:
        raise ChaosFailed(f"turns with two endings: {endings}")


def check_size(world: World, baseline: Baseline) -> None:
    """Descriptors and memory are where they were."""
    baseline.take(world.victim)
    files = world.victim.count_files()
    resident = world.victim.resident_bytes()
    baseline.peak_files = max(baseline.peak_files, files)
    baseline.peak_bytes = max(baseline.peak_bytes, resident)
    if files > baseline.files + TREE_FILES * len(world.victim.trees()) + SLACK_FILES:
        raise ChaosFailed(f"descriptors grew from {baseline.files} to {files}")
    if resident > baseline.resident_bytes + GROWTH_BYTES:
        raise ChaosFailed(f"memory grew from {baseline.resident_bytes} to {resident} bytes")
