"""The actor tree: the pool, the runs and the sweeper, permanent, under one supervisor.

When one of them spends its restart budget, the tree fails, and with it the program: the service
manager starts it again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import attrs
import structlog
import trio

from clawdforge.actors.context import LEDGER_SECS, SessionContext
from clawdforge.actors.conversation import KILL_SECS
from clawdforge.actors.messages import CloseAll, StopRuns
from clawdforge.actors.pool import PoolActor
from clawdforge.actors.runs import RunsActor
from clawdforge.actors.supervisor import ChildEnded, ChildSpec, run_child
from clawdforge.actors.sweeper import SweeperActor
from clawdforge.domain.runs import Runner

log: Final = structlog.get_logger("clawdforge.supervisor")


@attrs.frozen
class Tree:
    """The permanent actors."""

    pool: PoolActor
    runs: RunsActor
    sweeper: SweeperActor


@asynccontextmanager
async def open_tree(context: SessionContext, runner: Runner) -> AsyncIterator[Tree]:
    """Run the tree around the body. On the way out, sessions climb the ladder, then all ends."""
    pool = PoolActor(context, report_end)
    runs = RunsActor(context, runner, report_end)
    sweeper = SweeperActor(context, pool, runs)
    children = {"pool": pool.run, "runs": runs.run, "sweeper": sweeper.run}
    try:
        async with trio.open_nursery() as nursery:
            for name, run in children.items():
                spec = ChildSpec(name, run, "permanent")
                # Its mailbox is there already: what is told before it runs waits in there.
                nursery.start_soon(run_child, spec, report_end)  # noqa: ASYNC113
            tree = Tree(pool, runs, sweeper)
            yield tree
            await shut_down(context, tree)
            nursery.cancel_scope.cancel()
    finally:
        for actor in (pool, runs, sweeper):
            actor.mailbox.close()


async def shut_down(context: SessionContext, tree: Tree) -> None:
    """Take nothing new, stop the runs, and let every session climb its ladder.

    What does not end in time is cancelled with the tree.
    """
    tree.pool.is_draining = True
    with trio.move_on_after(context.config.cancel_grace_secs + KILL_SECS + LEDGER_SECS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                tree.runs.mailbox.ref.ask, lambda reply: StopRuns("shutdown", None, reply)
            )
            nursery.start_soon(
                tree.pool.mailbox.ref.ask, lambda reply: CloseAll("shutdown", None, reply)
            )


def report_end(end: ChildEnded) -> None:
    """Log how a child ended: an ordinary end in a whisper, a crash aloud.

    The kind of the error is logged, not its words: they may hold what a log must not.
    """
    if end.error is not None:
        log.error(
            "child crashed",
            child=end.name,
            error=type(end.error).__name__,
            is_restarted=end.is_restarted,
        )
    else:
        log.debug("child ended", child=end.name)
