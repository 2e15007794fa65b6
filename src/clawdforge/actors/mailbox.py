"""Mailboxes, refs and replies: how anything talks to an actor.

The rule: *whoever takes a message off a mailbox answers it on every path*. ``tell`` never blocks,
``ask`` waits for exactly one reply, and a mailbox that closes fails every message still in it, so
no asker is left waiting. An asker that leaves says so through its reply (``abandoned``), which
cannot be lost to a full mailbox.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

import outcome
import trio

from clawdforge.errors import SessionBusy, SessionGone

Answer = TypeVar("Answer")


class Reply(Generic[Answer]):
    """A one-shot answer: the actor sets it once, the asker may abandon it once.

    An asker that stops waiting without having taken the answer has *abandoned* it, the sign that
    the caller has gone: also when the answer came in the very moment it left, because an answer may
    be something to give back. A second answer is ignored: the first one was given.
    """

    def __init__(self) -> None:
        self._is_abandoned = False
        self._on_abandoned: Callable[[], object] | None = None
        self._answered = trio.Event()
        self._outcome: outcome.Outcome[Answer] | None = None

    @property
    def is_answered(self) -> bool:
        """Whether ``set`` or ``fail`` has been called."""
        return self._outcome is not None

    def when_abandoned(self, act: Callable[[], object]) -> None:
        """Have ``act`` called when the asker leaves without it; at once if it has left already.

        One at a time: a later ``act`` takes the place of an earlier one.
        """
        self._on_abandoned = act
        if self._is_abandoned:
            act()

    def set(self, answer: Answer) -> None:
        """Answer with a value."""
        self._resolve(outcome.Value(answer))

    def fail(self, error: BaseException) -> None:
        """Answer with an error, raised in the asker."""
        self._resolve(outcome.Error(error))

    def _resolve(self, result: outcome.Outcome[Answer]) -> None:
        if self._outcome is None:
            self._outcome = result
            self._answered.set()

    async def wait(self) -> Answer:
        """The answer. Unbounded by itself: the actor's contract is to answer on every path."""
        try:
            await self._answered.wait()
        except BaseException:
            self._is_abandoned = True
            if self._on_abandoned is not None:
                self._on_abandoned()
            raise
        assert self._outcome is not None
        return self._outcome.unwrap()


Mail = TypeVar("Mail")


class Ref(Generic[Mail]):
    """What others hold of an actor: they can tell it and ask it, nothing else."""

    def __init__(self, send: trio.MemorySendChannel[Mail], limit: int) -> None:
        self._send = send
        self._limit = limit

    def tell(self, message: Mail) -> None:
        """Put a message into the mailbox. Never blocks.

        Raises SessionBusy when the mailbox is full, SessionGone when the actor has ended.
        """
        try:
            self._send.send_nowait(message)
        except trio.WouldBlock:
            raise SessionBusy(self._limit) from None
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise SessionGone from None

    async def ask(self, make: Callable[[Reply[Answer]], Mail]) -> Answer:
        """Send the message that ``make`` builds around a fresh reply, and wait for the answer.

        Raises what ``tell`` raises, and what the actor answers with.
        """
        reply: Reply[Answer] = Reply()
        self.tell(make(reply))
        return await reply.wait()


class Mailbox(Generic[Mail]):
    """A bounded queue with one reader. ``receive`` is the only place that reads it."""

    def __init__(self, limit: int) -> None:
        self._send, self._receive = trio.open_memory_channel[Mail](limit)
        self.ref: Ref[Mail] = Ref(self._send, limit)

    async def receive(self) -> Mail:
        """The next message. Waits without bound: being idle is an actor's ordinary state."""
        return await self._receive.receive()

    def close(self) -> None:
        """End the mailbox: later tells are SessionGone, queued askers are failed with it."""
        queued = []
        while True:
            try:
                queued.append(self._receive.receive_nowait())
            except (trio.WouldBlock, trio.EndOfChannel, trio.ClosedResourceError):
                break
        self._receive.close()
        for message in queued:
            fail_asker(message, SessionGone())


def fail_asker(message: object, error: BaseException) -> None:
    """Fail the reply of ``message`` if it carries one that is still open."""
    reply = getattr(message, "reply", None)
    if isinstance(reply, Reply):
        reply.fail(error)


@contextmanager
def answering(message: object) -> Iterator[None]:
    """Handle one message: if the handler raises, its asker is failed before the error goes on.

    The error itself is let through: what a crash means is the supervisor's business.
    """
    try:
        yield
    except BaseException:
        fail_asker(message, SessionGone())
        raise
