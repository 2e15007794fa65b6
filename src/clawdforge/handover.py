"""How Hypercorn hands messages to a request: without a turn of the loop for each of them.

A request is a handful of messages. A queue that is full or empty is waited for as ever, so that a
large body still comes at the pace of whoever reads it. That the client has gone needs no queue, and
nobody who waits at its end: whoever asked to be told is called.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

import trio
from hypercorn.config import Config as HypercornConfig
from hypercorn.trio.task_group import TaskGroup, _handle
from hypercorn.typing import AppWrapper, ASGIReceiveEvent, ASGISendEvent, Scope

from clawdforge.at_once import give, take
from clawdforge.web.edge import HANGUP


class Inbox:
    """The messages of one request, from its connection to the application."""

    def __init__(self, size: int) -> None:
        self._giving: trio.MemorySendChannel[ASGIReceiveEvent]
        self._giving, self._taking = trio.open_memory_channel(size)
        self._acts: list[Callable[[], None]] = []
        self._has_hung_up = False

    async def put(self, message: ASGIReceiveEvent) -> None:
        """From the connection. Waits while the application has enough."""
        if message["type"] == "http.disconnect":
            self._has_hung_up = True
            acts, self._acts = self._acts, []  # who was told need not be remembered: a circle less
            for act in acts:
                act()
        await give(self._giving, message)

    async def take(self) -> ASGIReceiveEvent:
        """For the application: the ``receive`` of ASGI. Waits for the client."""
        return await take(self._taking)

    def when_hung_up(self, act: Callable[[], None]) -> None:
        """Have ``act`` called when the client goes; at once if it has gone already."""
        if self._has_hung_up:
            act()
        else:
            self._acts.append(act)


class PromptTaskGroup(TaskGroup):
    """The tasks of one connection; its requests get their messages through an inbox of ours."""

    async def spawn_app(
        self,
        app: AppWrapper,
        config: HypercornConfig,
        scope: Scope,
        send: Callable[[ASGISendEvent | None], Awaitable[None]],
    ) -> Callable[[ASGIReceiveEvent], Awaitable[None]]:
        """Start the application on a request; returns what its messages are put in with."""
        inbox = Inbox(config.max_app_queue_size)
        cast("Any", scope)["extensions"][HANGUP] = inbox.when_hung_up
        # What Hypercorn's own does, but for the channel that it would open.
        self.spawn(
            _handle,
            app,
            config,
            scope,
            inbox.take,
            send,
            trio.to_thread.run_sync,
            trio.from_thread.run,
        )
        return inbox.put
