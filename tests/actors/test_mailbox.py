"""Mailboxes: bounded, and answered on every path."""

from __future__ import annotations

import attrs
import pytest
import trio
import trio.testing

from clawdforge.actors.mailbox import Mailbox, Reply, answering
from clawdforge.errors import SessionBusy, SessionGone


@attrs.frozen
class Ping:
    """A message that wants an answer."""

    reply: Reply[str]


async def test_an_answer_reaches_its_asker() -> None:
    """What the actor sets is what ask returns."""
    mailbox = Mailbox[Ping](1)

    async def actor() -> None:
        (await mailbox.receive()).reply.set("pong")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(actor)
        assert await mailbox.ref.ask(Ping) == "pong"


async def test_an_error_is_raised_in_the_asker() -> None:
    """What the actor fails with is what ask raises."""
    mailbox = Mailbox[Ping](1)

    async def actor() -> None:
        (await mailbox.receive()).reply.fail(ValueError("no"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(actor)
        with pytest.raises(ValueError, match="no"):
            await mailbox.ref.ask(Ping)


async def test_a_full_mailbox_refuses_at_once() -> None:
    """Tell never blocks: one message over the limit is SessionBusy."""
    mailbox = Mailbox[Ping](1)
    mailbox.ref.tell(Ping(Reply()))
    with pytest.raises(SessionBusy):
        mailbox.ref.tell(Ping(Reply()))
    mailbox.close()


async def test_closing_fails_all_who_are_queued_and_all_who_come_later() -> None:
    """No asker waits on an actor that has ended."""
    mailbox = Mailbox[Ping](2)
    queued: Reply[str] = Reply()
    mailbox.ref.tell(Ping(queued))
    mailbox.close()
    with pytest.raises(SessionGone):
        await queued.wait()
    with pytest.raises(SessionGone):
        await mailbox.ref.ask(Ping)


async def test_a_handler_that_raises_fails_its_asker_and_lets_the_error_go_on() -> None:
    """A crash is answered, and is still a crash."""
    message = Ping(Reply())
    with pytest.raises(ZeroDivisionError), answering(message):
        raise ZeroDivisionError
    with pytest.raises(SessionGone):
        await message.reply.wait()


async def test_a_handler_that_is_cancelled_fails_its_asker() -> None:
    """Shutdown answers whoever asked."""
    message = Ping(Reply())
    with trio.CancelScope() as scope:
        scope.cancel()
        with answering(message):
            await trio.sleep_forever()
    with pytest.raises(SessionGone):
        await message.reply.wait()


async def test_the_first_answer_stands() -> None:
    """A second answer changes nothing."""
    reply: Reply[str] = Reply()
    reply.set("first")
    reply.fail(ValueError())
    assert await reply.wait() == "first"


async def test_leaving_before_the_answer_is_noticed_even_when_the_mailbox_is_full() -> None:
    """An abandoned reply calls what was registered, without a message."""
    reply: Reply[str] = Reply()
    calls: list[str] = []
    reply.when_abandoned(lambda: calls.append("gone"))
    with trio.CancelScope() as scope:
        scope.cancel()
        await reply.wait()
    assert calls == ["gone"]


async def test_registering_after_the_caller_left_is_called_at_once() -> None:
    """There is no moment at which a leaving caller is missed."""
    reply: Reply[str] = Reply()
    with trio.CancelScope() as scope:
        scope.cancel()
        await reply.wait()
    calls: list[str] = []
    reply.when_abandoned(lambda: calls.append("gone"))
    assert calls == ["gone"]


async def test_an_answered_reply_is_not_abandoned() -> None:
    """A caller that got its answer has not left."""
    reply: Reply[str] = Reply()
    calls: list[str] = []
    reply.when_abandoned(lambda: calls.append("gone"))
    reply.set("done")
    assert await reply.wait() == "done"
    assert calls == []


async def test_an_answer_that_comes_as_the_asker_leaves_is_given_back() -> None:
    """A cancelled asker takes nothing, so what was answered in that moment counts as abandoned."""
    reply: Reply[str] = Reply()
    calls: list[str] = []
    reply.when_abandoned(lambda: calls.append("gone"))
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reply.wait)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            reply.set("too late")
    assert calls == ["gone"]
