"""How Hypercorn hands messages to a request: without a turn of the loop for each of them.

A request is a handful of messages. A queue that is full or empty is waited for as ever, so that a
large body still comes at the pace of whoever reads it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, cast

import trio
from hypercorn.config import Config as HypercornConfig
from hypercorn.trio.task_group import TaskGroup
from hypercorn.typing import AppWrapper, ASGIReceiveEvent, ASGISendEvent, Scope

from clawdforge.at_once import give, take


class PromptTaskGroup(TaskGroup):
    """The tasks of one connection; its requests get their messages through a queue of ours."""

    async def spawn_app(
        self,
        app: AppWrapper,
        config: HypercornConfig,
        scope: Scope,
        send: Callable[[ASGISendEvent | None], Awaitable[None]],
    ) -> Callable[[ASGIReceiveEvent], Awaitable[None]]:
        """Start the application on a request; returns what its messages are put in with."""
        giving, taking = trio.open_memory_channel[ASGIReceiveEvent](config.max_app_queue_size)

        async def serve(scope: Scope, _receive: object, *rest: Any) -> None:  # noqa: ANN401
            await cast("Any", app)(scope, partial(take, taking), *rest)

        await super().spawn_app(cast("AppWrapper", serve), config, scope, send)
        return partial(give, giving)
