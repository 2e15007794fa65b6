"""What can be had at once, without a turn of the loop; what cannot is waited for as ever.

Trio's own channels and locks give everybody else a turn whenever they are used. A turn of the loop
costs as much as a look-up in the database, and a turn of an agent would take dozens. A loop that
uses these must wait for something else now and then, or others would never have theirs.
"""

from __future__ import annotations

from typing import TypeVar

import trio

Message = TypeVar("Message")


async def give(channel: trio.MemorySendChannel[Message], message: Message) -> None:
    """Put it in; waits while there is no room. Raises what ``send`` raises."""
    await trio.lowlevel.checkpoint_if_cancelled()
    try:
        channel.send_nowait(message)
    except trio.WouldBlock:
        await channel.send(message)


async def take(channel: trio.MemoryReceiveChannel[Message]) -> Message:
    """Take the next out; waits while there is none. Raises what ``receive`` raises."""
    await trio.lowlevel.checkpoint_if_cancelled()
    try:
        return channel.receive_nowait()
    except trio.WouldBlock:
        return await channel.receive()


async def acquire(lock: trio.Lock | trio.Semaphore) -> None:
    """Hold it; waits while somebody else does, or too many do. The caller releases it."""
    await trio.lowlevel.checkpoint_if_cancelled()
    try:
        lock.acquire_nowait()
    except trio.WouldBlock:
        await lock.acquire()
