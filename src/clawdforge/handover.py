"""How Hypercorn hands messages to a request: without a turn of the loop for each of them.

Trio's channels give everybody else a turn whenever something is put in or taken out. A request is a
handful of messages, and each turn of the loop costs as much as a look-up in the database. A queue
that is full or empty is waited for as ever, so that a large body still comes at the pace of whoever
reads it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar, cast

import trio
from hypercorn.config import Config as HypercornConfig
from hypercorn.trio.task_group import TaskGroup
from hypercorn.typing import AppWrapper, ASGIReceiveEvent, ASGISendEvent, Scope

Message = TypeVar("Message")


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


async def give(channel: trio.MemorySendChannel[Message], message: Message) -> None:
    """Put it in; waits while there is no room."""
    await trio.lowlevel.checkpoint_if_cancelled()
    try:
        channel.send_nowait(message)
    except trio.WouldBlock:
        await channel.send(message)


async def take(channel: trio.MemoryReceiveChannel[Message]) -> Message:
    """Take the next out; waits while there is none."""
    await trio.lowlevel.checkpoint_if_cancelled()
    try:
        return channel.receive_nowait()
    except trio.WouldBlock:
        return await channel.receive()
