"""The actor tree: the pool and the sweeper, permanent, under one supervisor.

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
from clawdforge.actors.messages import CloseAll
from clawdforge.actors.pool import PoolActor
from clawdforge.actors.supervisor import ChildEnded, ChildSpec, run_child
from clawdforge.actors.sweeper import SweeperActor

log: Final = structlog.get_logger("clawdforge.supervisor")


@attrs.frozen
class Tree:
    """The two permanent actors."""

    pool: PoolActor
    sweeper: SweeperActor


@asynccontextmanager
async def open_tree(context: SessionContext) -> AsyncIterator[Tree]:
    """Run the tree around the body. On the way out, sessions climb the ladder, then all ends."""
    pool = PoolActor(context, report_end)
    sweeper = SweeperActor(context, pool)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_child, ChildSpec("pool", pool.run, "permanent"), report_end)
            nursery.start_soon(
                run_child, ChildSpec("sweeper", sweeper.run, "permanent"), report_end
            )
            yield Tree(pool, sweeper)
            await shut_down(context, pool)
            nursery.cancel_scope.cancel()
    finally:
        pool.mailbox.close()
        sweeper.mailbox.close()


async def shut_down(context: SessionContext, pool: PoolActor) -> None:
    """Take nothing new, and let every session climb its ladder.

    What does not end in time is cancelled with the tree.
    """
    pool.is_draining = True
    with trio.move_on_after(context.config.cancel_grace_secs + KILL_SECS + LEDGER_SECS):
        await pool.mailbox.ref.ask(lambda reply: CloseAll("shutdown", None, reply))


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
